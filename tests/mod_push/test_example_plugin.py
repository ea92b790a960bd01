"""The example of docs/plugins.rst: installed, configured, and held to its own tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "quiet-nights"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as pip installs it; its build leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--quiet", "--target", target, source], check=True, timeout=120)
    return target


def python(installed, *arguments, cwd):
    # Of the checkout that is tested, whichever one the environment has installed.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(installed), str(ROOT)))}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests_pass(installed, tmp_path):
    """The contract suite among them."""
    tests = shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    assert " passed" in python(installed, "-m", "pytest", "-p", "no:cacheprovider", tests, cwd=tmp_path)


RUN = """
import sys
from datetime import datetime
from pathlib import Path
from xmpppush.config import load
from xmpppush.mod_push.plugins import chain_of
from xmpppush.testing.sessions import stanza_of
from twisted.plugins import quietnights_plugin

config = load(Path("server.ini"), {})
assert not any("plugin" in notice for notice in config.notices), config.notices
assert "quietnights.nights" not in sys.modules
chain = chain_of(config.mod_push.plugin_module)
message = stanza_of("<message from='bob@localhost/x'><body>Hello</body></message>")
for hour in (3, 12):
    object.__setattr__(quietnights_plugin.quiet_nights, "now", lambda: datetime(2026, 1, 1, hour))
    importance = chain.should_publish("alice@localhost", message)
    print(hour, importance.push, importance.reason)
print(chain.prepare_notification("alice@localhost", message).summary.last_message_sender)
"""


def test_the_server_uses_it(installed, tmp_path):
    """By its name in the configuration, behind defaults; the heavy part is imported when it is asked."""
    (tmp_path / "server.ini").write_text("[mod_push]\nplugin_module = defaults, quiet-nights\n")
    assert python(installed, "-c", RUN, cwd=tmp_path) == "3 False asleep\n12 True message\nbob@localhost\n"


@pytest.mark.parametrize("name", ["twisted/plugins/quietnights_plugin.py", "quietnights/nights.py"])
def test_the_documentation_shows_its_files(name):
    """As they are."""
    shown = indent((EXAMPLE / name).read_text(), "    ")
    assert shown in (ROOT / "docs" / "plugins.rst").read_text()
