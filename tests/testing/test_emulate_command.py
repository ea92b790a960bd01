"""``xmpppush emulate``: what it prints is a configuration that works."""

from configparser import ConfigParser
from pathlib import Path

import pytest
from attrs import fields
from click.testing import CliRunner

from xmpppush.commands import main
from xmpppush.config.sections import APNsPoolSection, FCMPoolSection, WebPushPoolSection
from xmpppush.testing.processes import EmulatorProcess

SECTIONS = {"apns": APNsPoolSection, "fcm": FCMPoolSection, "webpush": WebPushPoolSection}


@pytest.mark.parametrize("service", ["apns", "fcm", "webpush"])
def test_an_emulator_prints_its_pool(tmp_path, service):
    """The section has keys that there are, and files; /received answers; an interrupt ends it."""
    with EmulatorProcess(tmp_path / "made", service) as emulator:
        assert emulator.received() == []
        reader = ConfigParser(delimiters=("=",), interpolation=None)
        reader.read_string(emulator.section)
    section = reader[f"mongoosepush:{service}:emulated"]
    assert section.keys() <= {each.name for each in fields(SECTIONS[service])}
    named = [Path(section[key]) for key in section if key.endswith("_file") or key == "appfile"]
    assert len(named) >= 2
    assert all(path.is_file() and path.parent == tmp_path / "made" for path in named)


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
