"""Tests for xmpppush.config.topology."""

from pathlib import Path

import pytest

from xmpppush.config import describe, load


def topology(tmp_path, text):
    (tmp_path / "server.ini").write_text(text)
    return describe(load(tmp_path / "server.ini", {}))


def test_everything_off(tmp_path):
    """A role whose section is absent is off, and that is said."""
    lines = topology(tmp_path, "")
    for role in ("mod_push", "mod_pubsub", "bridge", "mongoosepush"):
        assert [line.split() for line in lines if line.startswith(role)] == [[role, "off"]]
    assert "listener        none" in lines


def test_everything_on():
    """The delivered configuration reads as the tutorial's chain."""
    folder = Path("etc").absolute()
    assert describe(load(Path("etc/server.ini"), {})) == [
        f"configuration   {folder}/server.ini",
        f"data            {folder.parent}/var",
        f"storage         sqlite:///{folder.parent}/var/xmpppush.db",
        "domains         localhost",
        "certificate     generated",
        "listener        c2s on tcp:5222:interface=127.0.0.1, tls required",
        "mod_push        on: defaults; notifies when device-offline",
        "mod_pubsub      on: pubsub.localhost; node types push",
        "bridge          on: MongoosePush v3 at https://localhost:8443 (pool mongoose_push_http)",
        "http pool       mongoose_push_http: https://localhost:8443 "
        f"(TLS, trusts {folder.parent}/var/tls/ca.pem), 10 idle at the most",
        "mongoosepush    on: ssl:8443:interface=127.0.0.1, certificate generated; sandbox for fcm, apns",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("endpoint = tcp:5280", "http on tcp:5280, tls direct; all but /health for this machine alone"),
        (
            "endpoint = tcp:5280\ntls = none\n[admin]\npassword = x",
            "http on tcp:5280, tls none; [admin] password may cross the network in clear text",
        ),
        ("endpoint = tcp:5280\n[admin]\npassword = x", "http on tcp:5280, tls direct"),
        (
            "endpoint = tcp:1:interface=127.0.0.1\ntls = none\n[admin]\npassword = x",
            "http on tcp:1:interface=127.0.0.1, tls none",
        ),
    ],
)
def test_who_may_see_the_figures(tmp_path, text, line):
    """What [admin] password means for a listener."""
    assert f"listener        {line}" in topology(tmp_path, f"[listen:http]\n{text}")


def test_what_an_operator_should_know(tmp_path):
    """Weak spots are plain to see, secrets are not."""
    text = "\n".join(
        topology(
            tmp_path,
            "[listen:old]\ntype = c2s\nendpoint = tcp:5222\ntls = optional\n"
            "[auth]\nallow_plain_without_tls = yes\n"
            "[listen:component]\nendpoint = tcp:5347\nsecret.a.example = s3cret\n[admin]\npassword = s3cret\n"
            "[component]\njid = c.example\nendpoint = tcp:x.example:5347\nsecret = s3cret\n"
            "[http_connections:a]\nserver = https://push.example\nverify = no\n"
            "[mod_push]\ninclude_body = no\n"
            "[http_connections:b]\nserver = http://push.example\n[http_connections:c]\nserver = https://c.example\n"
            "[mongoosepush]\nendpoint = tcp:8080\n[tls:localhost]\n",
        )
    )
    assert "c2s (old) on tcp:5222, tls optional; passwords may cross the network in clear text" in text
    assert "component on tcp:5347, tls none; for a.example; stanzas cross the network in clear text" in text
    assert "certificate     generated (for localhost)" in text
    assert "component       c.example, attaches to tcp:x.example:5347" in text
    assert "https://push.example (TLS, certificate NOT verified)" in text
    assert "http://push.example (no TLS)" in text
    assert "https://c.example (TLS, trusts the system store)" in text
    assert "notifies when device-offline, without body" in text
    assert (
        "on: tcp:8080, no TLS; no pool: it can deliver nothing; no api_keys: whoever reaches it can send"
        in text
    )
    assert "s3cret" not in text
