"""What is installed, and what it is installed with."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import xmpppush

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_version_is_said_once(setup):
    """The package and its metadata agree."""
    assert setup["metadata"]["version"] == xmpppush.__version__


def test_constraints_are_versions_and_nothing_else():
    """No address, no path and nothing editable, so that they hold on every machine."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.+!]*", line)] == []


@pytest.mark.parametrize("group", ["install_requires", "dev", "demo", "postgres", "cluster"])
def test_what_is_required_is_locked(setup, locked, group):
    """Each requirement is in constraints.txt, in a version that it allows."""
    section = setup["options"] if group == "install_requires" else setup["options.extras_require"]
    for line in section[group].split("\n"):
        if line:
            requirement = Requirement(line)
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), line


def test_files_for_operators_are_there(setup):
    """What is installed beside the package exists."""
    for line in setup["options.data_files"]["share/xmpppush"].split("\n"):
        assert not line or (ROOT / line).is_file(), line


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_names_the_python_it_needs(tmp_path):
    """Without a fitting Python the first line says so, and what to do."""
    done = subprocess.run(
        ["make", "--no-print-directory", "test", f"VENV={tmp_path}/venv", "PYTHON=false"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("xmpppush needs Python 3.11 or newer")
    assert not (tmp_path / "venv").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_the_unit(tmp_path):
    """No key of the unit is misspelt; the program itself need not be installed."""
    unit = (ROOT / "etc/xmpppush.service").read_text()
    unit, count = re.subn(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit)
    assert count == 1
    assert "Type=notify" in unit
    (tmp_path / "xmpppush.service").write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "xmpppush.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_what_is_installed_runs_from_an_empty_folder(tmp_path):
    """The wheel has plugin, schema and operator's files, and twistd finds the server without a checkout."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)],
        capture_output=True,
        check=True,
    )
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "twisted/plugins/xmpppush_plugin.py" in names
    assert "twisted/__init__.py" not in names
    assert "xmpppush/py.typed" in names
    assert any(re.fullmatch(r"xmpppush/storage/schema/0001-.*\.sql", name) for name in names)
    assert any(name.endswith("share/xmpppush/server.ini") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]

    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from twisted.scripts.twistd import run; run()",
            "-n",
            "--pidfile=",
            "xmpppush",
            "-c",
            "none.ini",
        ],
        cwd=empty,
        # Before the .pth file of an editable install.
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "none.ini" in done.stderr
