"""Tests for etc/server.ini, the file that operators begin with."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import fields

from xmpppush.config import load, sections

SERVER_INI = Path(__file__).parents[2] / "etc" / "server.ini"
# Fields of the classes that are no keys of the same name.
NAMES = {"hosts": "host", "secrets": "secret.muc.localhost", "static": "static.mypubsub.com", "name": None}
NO_KEYS = {"MongoosePushSection": {"fcm", "apns", "webpush", "sandbox"}}


def uncommented():
    return re.sub(r"(?m)^;(?=\[|[a-z0-9_.]+ =)", "", SERVER_INI.read_text())


def test_it_works_as_it_is():
    """No problem, and nothing in it that does nothing."""
    assert load(SERVER_INI, {}).notices == ()


def section_classes():
    return [value for name, value in vars(sections).items() if name.endswith("Section")]


@pytest.mark.parametrize("section", section_classes(), ids=lambda section: section.__name__)
def test_every_key_is_in_it(section):
    """An operator finds each key of each section there, commented out or not."""
    keys = set(re.findall(r"(?m)^([a-z0-9_.]+) =", uncommented()))
    for field in fields(section):
        key = NAMES.get(field.name, field.name)
        if key is not None and field.name not in NO_KEYS.get(section.__name__, ()):
            assert key in keys, f"{section.__name__}.{field.name}"


def test_what_is_commented_out_is_right_too(tmp_path):
    """With every line uncommented it has no problem, and the notices name what comes later."""
    etc = tmp_path / "etc"
    for name in (
        "localhost.pem",
        "localhost.key",
        "admin-password",
        "priv/fcm/token.json",
        "priv/apns/prod_cert.pem",
        "priv/apns/prod_key.pem",
        "priv/apns/token.p8",
        "priv/webpush/vapid.pem",
        "priv/push-keys",
    ):
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text("x\n")
    (etc / "server.ini").write_text(uncommented())
    config = load(etc / "server.ini", {})
    assert config.s2s.static == {"mypubsub.com": "127.0.0.1:5270"}
    assert [notice.partition(" has no effect")[0] for notice in config.notices] == [
        "[listen:s2s]",
        "[listen:websocket]",
        "[s2s]",
        "[mongoosepush:sandbox] services 'fcm'",
        "[mongoosepush:sandbox] services 'apns'",
        "[component]",  # its jid is an example's, not this host's
    ]


def test_values_shown_are_the_defaults(tmp_path):
    """Where the file shows a default it is the one that counts without the line."""
    bare = re.sub(
        r"(?m)^(?!\[|server =|pool_name =|endpoint = tcp|ca_file =|data_dir =).*\n",
        "",
        SERVER_INI.read_text(),
    )
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "bare.ini").write_text(bare)
    (tmp_path / "etc" / "full.ini").write_text(SERVER_INI.read_text())
    short, full = load(tmp_path / "etc/bare.ini", {}), load(tmp_path / "etc/full.ini", {})
    for name in (
        "server",
        "storage",
        "trace",
        "tls",
        "listeners",
        "auth",
        "mod_push",
        "mod_pubsub",
        "bridge",
        "limits",
    ):
        assert getattr(short, name) == getattr(full, name), name
    assert (short.http_connections, short.mongoosepush) == (full.http_connections, full.mongoosepush)


def test_no_reactor_is_chosen():
    """The configuration is read before twistd installs a reactor."""
    code = (
        "import sys; from pathlib import Path; from xmpppush.config import load;"
        f"load(Path({str(SERVER_INI)!r}), {{}}); sys.exit('twisted.internet.reactor' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
