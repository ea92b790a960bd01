"""twistd finds the server, and pays nothing for it until it is asked for."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

TWISTD = "from twisted.scripts.twistd import run; run()"


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_twistd_help_names_the_server_without_importing_it():
    """``twistd --help`` lists xmpppush and loads nothing of it."""
    done = python(
        "import sys, atexit\n"
        "loaded = lambda: sorted(n for n in sys.modules if n == 'xmpppush' or n.startswith('xmpppush.'))\n"
        "atexit.register(lambda: print('loaded:', *loaded()))\n" + TWISTD,
        "--help",
    )
    assert done.returncode == 0
    assert "xmpppush" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_the_options_do_not_install_a_reactor():
    """Reading the command line leaves the choice of the reactor to twistd."""
    done = python("import sys, xmpppush.options; print('twisted.internet.reactor' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_a_bad_configuration_is_lines_and_status_1(tmp_path):
    """Each problem is a line on standard error; there is no traceback and no port is opened."""
    bad = tmp_path / "bad.ini"
    bad.write_text("[server]\ndomain = localhost\n\n[mod_pusch]\nworkers = 1\n")
    done = python(TWISTD, "-n", "--pidfile=", "xmpppush", "-c", str(bad))
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) >= 2
    assert any("domain" in line and "domains" in line for line in lines)
    assert any("mod_pusch" in line and "mod_push" in line for line in lines)
    assert "Traceback" not in done.stderr


def test_a_missing_configuration_is_one_line(tmp_path):
    """A wrong path is named, nothing else."""
    done = python(TWISTD, "-n", "--pidfile=", "xmpppush", "-c", str(tmp_path / "none.ini"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "none.ini" in done.stderr
