"""A browser that registers for an ``[app:NAME]`` of service webpush, from the command to the push."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from urllib.request import urlopen
from xml.sax.saxutils import escape

import pytest

from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess, wait_for

pytest.importorskip("http_ece")

INI = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
tls = required
[mod_push]
[mod_pubsub]
host = push.@HOST@
[app:web]
service = webpush
p2 = *
tags = web
content = full
[http_connections:pool]
server = embedded:
[mod_push_service_mongoosepush]
pool_name = pool
[mongoosepush]
endpoint = ssl:0:interface=127.0.0.1
"""
COMMAND = """
<iq type='set' to='push.localhost' id='a'><command xmlns='http://jabber.org/protocol/commands'
 node='{}-push-webpush' action='execute'><x xmlns='jabber:x:data' type='submit'>
 <field var='token'><value>{}</value></field><field var='device-id'><value>browser-1</value></field>
 </x></command></iq>"""
ENABLE = """
<iq type='set' id='x43'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='{node}'>
 <x xmlns='jabber:x:data' type='submit'>
 <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
 <field var='secret'><value>{secret}</value></field></x></enable></iq>"""


@pytest.fixture
def emulator(tmp_path):
    """The section of its pool, the address of what it received, and a browser's subscription."""
    command = [sys.executable, "-m", "xmpppush.commands", "emulate", "webpush", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--write-credentials", str(tmp_path / "made")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        lines = [process.stdout.readline() for _ in range(7)]
        control = re.search(r"http://\S+", lines[0])[0]
        section = "".join(line for line in lines if not line.startswith("#"))
        (subscription, *_) = sorted((tmp_path / "made").glob("subscription-*.json"))
        yield section, f"{control}/received", subscription.read_text().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def received(url):
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)["received"]


def test_a_browser_registers_for_an_app_and_reads_its_push(tmp_path, emulator):
    """What it decrypts has sender and text; the subscription is in no log, and unregisters."""
    section, url, subscription = emulator
    with ServerProcess(tmp_path, INI + section + "tags = web\n") as server:
        server.command("user", "add", "alice@localhost", "--password", "wonderland")
        server.command("user", "add", "bob@localhost", "--password", "builder")
        asyncio.run(scenario(server, subscription, lambda: received(url)))
        (push,) = received(url)
        log = server.log.read_text()
    print(push)
    shown = json.loads(push["content"])
    assert (shown["title"], shown["body"]) == ("bob@localhost", "Hello")
    assert json.loads(subscription)["endpoint"] not in log
    assert json.loads(subscription)["keys"]["auth"] not in log


async def scenario(server, subscription, received):
    address, ca_file = server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem"

    async def logged_in(jid, password):
        phone = Phone(jid, password, address, ca_file)
        assert await phone.log_in()
        return phone

    browser = await logged_in("alice@localhost/web", "wonderland")
    answer = await browser.ask(COMMAND.format("register", escape(subscription)))
    assert answer.get("type") == "result"
    fields = {
        field.get("var"): field.findtext("{jabber:x:data}value")
        for field in answer.iter("{jabber:x:data}field")
    }
    enabled = await browser.ask(ENABLE.format(node=fields["node"], secret=fields["secret"]))
    assert enabled.get("type") == "result"
    await browser.log_out()
    bob = await logged_in("bob@localhost/desk", "builder")
    bob.send_message("alice@localhost", "Hello")
    await asyncio.to_thread(wait_for, "the push", received)
    browser = await logged_in("alice@localhost/web", "wonderland")
    assert (await browser.ask(COMMAND.format("unregister", ""))).get("type") == "result"
    await browser.log_out()
    await bob.log_out()
