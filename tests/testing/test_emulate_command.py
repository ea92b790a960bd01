"""``xmpppush emulate``: what it prints is a configuration that works."""

import os
import re
import signal
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from urllib.request import urlopen

import pytest
from attrs import fields
from click.testing import CliRunner

from xmpppush.commands import main
from xmpppush.config.sections import APNsPoolSection, FCMPoolSection, WebPushPoolSection

SECTIONS = {"apns": APNsPoolSection, "fcm": FCMPoolSection, "webpush": WebPushPoolSection}
# Lines that are printed before it serves.
PRINTED = {"apns": 11, "fcm": 5, "webpush": 7}


def start(*arguments):
    """The process, and what it printed before it began to serve."""
    process = subprocess.Popen(
        [sys.executable, "-m", "xmpppush.commands", "emulate", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    return process, [process.stdout.readline() for _ in range(PRINTED[arguments[0]])]


@pytest.mark.parametrize("service", ["apns", "fcm", "webpush"])
def test_an_emulator_prints_its_pool(tmp_path, service):
    """The section has keys that there are, and files; /received answers; an interrupt ends it."""
    process, lines = start(service, "--port", "0", "--write-credentials", str(tmp_path / "made"))
    try:
        control = re.search(r"http://\S+", lines[0])[0]
        with urlopen(f"{control}/received", timeout=10) as answer:
            assert answer.read() == b'{"count":0,"received":[]}'
        reader = ConfigParser(delimiters=("=",), interpolation=None)
        reader.read_string("".join(lines))
        section = reader[f"mongoosepush:{service}:emulated"]
        assert section.keys() <= {each.name for each in fields(SECTIONS[service])}
        named = [Path(section[key]) for key in section if key.endswith("_file") or key == "appfile"]
        assert len(named) >= 2
        assert all(path.is_file() and path.parent == tmp_path / "made" for path in named)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["apns", "--fault", "Tuesday"], "fault: Tuesday: neither a status or reason of apns nor one of"),
        (["fcm", "--fault", "503 sometimes=1"], "fault: sometimes: no such key"),
        (["webpush", "--fault", "503 on=oauth"], "fault: 503: neither"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, problem):
    """Exit status 1, before anything listens."""
    result = CliRunner().invoke(main, ["emulate", *arguments, "--write-credentials", str(tmp_path)])
    assert result.exit_code == 1
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_damaged_folder_is_one_line(tmp_path):
    """Somebody else's files are not overwritten."""
    (tmp_path / "authority.pem").write_text("mine")
    result = CliRunner().invoke(main, ["emulate", "apns", "--write-credentials", str(tmp_path)])
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert (tmp_path / "authority.pem").read_text() == "mine"
