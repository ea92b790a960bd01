"""The demo: what it prints and starts, and once for real."""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from xmpppush import demo
from xmpppush.demo import CREATE, ENABLE, DemoServer, Story, free_ports, readable
from xmpppush.xep import namespaces


@pytest.fixture
def folder(tmp_path: Path, monkeypatch):
    """Temporary folders are made here."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_stanzas_are_shown_as_people_write_them():
    """Namespaces are where the tutorial has them, and short elements stay on their line."""
    iq = ElementTree.fromstring(
        "<iq xmlns='jabber:client' type='set' id='1'>"
        + ENABLE.format(pubsub="pubsub.localhost", node="n", device_id="t&amp;'")
        + "</iq>"
    )
    assert readable(iq).splitlines()[:5] == [
        "<iq type='set' id='1'>",
        "  <enable xmlns='urn:xmpp:push:0' jid='pubsub.localhost' node='n'>",
        "    <x xmlns='jabber:x:data' type='submit'>",
        "      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>",
        "      <field var='service'><value>fcm</value></field>",
    ]
    assert "<value>t&amp;&apos;</value>" in readable(iq)


def test_what_is_shown_is_what_it_was():
    """The indented form is the same XML."""
    stanza = ElementTree.fromstring(
        f"<iq xmlns='jabber:client' xml:lang='en'>{CREATE.format(node='n')}<body>a &lt; b</body></iq>"
    )
    again = ElementTree.fromstring(
        readable(stanza).replace("<iq ", "<iq xmlns='jabber:client' ", 1).replace("\n", "")
    )
    assert [element.tag for element in again.iter()] == [element.tag for element in stanza.iter()]
    assert again[1].text == "a < b"
    assert again[0].tag == f"{{{namespaces.PUBSUB}}}pubsub"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_told_is_not_taken_for_markup(terminal):
    """Stanzas arrive as they are, whatever rich would make of them."""
    output = io.StringIO()
    story = Story(Console(file=output, force_terminal=terminal, width=40, color_system="standard"))
    story.step("[bold]one :x:")
    story.show("<x xmlns='jabber:x:data'>[red]</x>" + 50 * "<y/>", "xml")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue())
    assert plain.splitlines() == [
        "",
        "1. [bold]one :x:",
        "     <x xmlns='jabber:x:data'>[red]</x>" + 50 * "<y/>",
    ]


def test_ports_are_different():
    """Two listeners never get the same port."""
    assert len(set(free_ports(5))) == 5


def test_the_configuration_is_good(folder, monkeypatch):
    """All four roles are on, nothing of it is without effect, and the operator's push keys stay out."""
    monkeypatch.setenv("PUSH_FCM_APP_KEY", "a-legacy-key")
    server = DemoServer()
    config = demo.load(server.config_file, server._environ)
    server.close()
    assert config.notices == ()
    assert None not in (config.mod_push, config.mod_pubsub, config.bridge, config.mongoosepush)
    assert config.mongoosepush.sandbox is not None
    assert list(folder.iterdir()) == []


def test_a_server_that_does_not_start_ends_the_demo(folder, monkeypatch, capsys):
    """The end of the server's log is shown, and nothing is left."""
    monkeypatch.setattr(demo, "_TWISTD", "raise SystemExit('the disk is full')")
    assert demo.run(once=True) == 1
    assert "the server ended with status 1" in (errors := capsys.readouterr().err)
    assert "the disk is full" in errors
    assert list(folder.iterdir()) == []


def test_without_a_notification_the_demo_fails(folder, monkeypatch, capsys):
    """The time is bounded, and a server that hangs is stopped."""
    monkeypatch.setattr(demo, "_TWISTD", "print('busy', flush=True); import time; time.sleep(600)")
    monkeypatch.setattr(demo, "PATIENCE", 1.0)
    assert demo.run(once=True) == 1
    assert "no notification within 1 s" in (errors := capsys.readouterr().err)
    assert "busy" in errors
    assert list(folder.iterdir()) == []


def test_without_the_phone_the_demo_says_what_it_needs(monkeypatch, capsys):
    """slixmpp is an extra; without it one line tells how to get it."""
    monkeypatch.setitem(sys.modules, "slixmpp", None)
    assert demo.run(once=True) == 1
    assert "pip install 'xmpppush[demo]'" in capsys.readouterr().err


def test_a_notification_reaches_the_phone(tmp_path):
    """The whole system, for real: every step is told, and nothing is left behind."""
    done = subprocess.run(
        [sys.executable, "-m", "xmpppush.commands", "demo", "--once"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<create node='punsub_node_for_my_private_iphone' type='push'/>" in done.stdout
    assert "The notification reaches Alice's phone" in done.stdout
    assert "Lunch at noon?" in done.stdout
    assert "<x xmlns='jabber:x:data' type='submit'>" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(tmp_path):
    """However it is ended, server and data folder are gone."""
    child = subprocess.Popen(
        [sys.executable, "-m", "xmpppush.commands", "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in child.stdout:
            if "Ctrl-C ends the demo" in line:
                break
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read()
        assert child.wait(20) == 0, rest
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert list(tmp_path.iterdir()) == []
