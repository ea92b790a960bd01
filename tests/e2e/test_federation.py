"""The tutorial with its two domains in two processes, over s2s (issue 6, done when 1 and 4)."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from xmpppush.testing.clients import Phone
from xmpppush.testing.federation import Authority
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for
from xmpppush.testing.xmppservers import free_ports

CHAT = """
[server]
domains = mychat.com
{tls}
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
[listen:s2s]
endpoint = tcp:{chat}:interface=127.0.0.1
{dialback}
[s2s]
{s2s}
static.mypubsub.com = 127.0.0.1:{pubsub}
static.pubsub.mypubsub.com = 127.0.0.1:{pubsub}
[mod_push]
"""

PUBSUB = """
[server]
domains = mypubsub.com
{tls}
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
[listen:s2s]
endpoint = tcp:{pubsub}:interface=127.0.0.1
{dialback}
[s2s]
{s2s}
static.mychat.com = 127.0.0.1:{chat}
[mod_pubsub]
host = pubsub.@HOST@
[http_connections:mongoose_push_http]
server = https://localhost:{service}
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
"""

CREATE = """
<iq type='set' to='pubsub.mypubsub.com' id='create1'>
  <pubsub xmlns='http://jabber.org/protocol/pubsub'>
    <create node='punsub_node_for_my_private_iphone' type='push'/>
  </pubsub>
</iq>"""

ENABLE = """
<iq type='set' id='x43'>
  <enable xmlns='urn:xmpp:push:0' jid='pubsub.mypubsub.com' node='punsub_node_for_my_private_iphone'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='service'><value>apns</value></field>
      <field var='device_id'><value>your_pns_device_token</value></field>
      <field var='mode'><value>prod</value></field>
      <field var='click_action'><value>.myapp.MainActivity</value></field>
    </x>
  </enable>
</iq>"""

DISABLE = (
    "<iq type='set' id='x44'><disable xmlns='urn:xmpp:push:0' jid='pubsub.mypubsub.com'"
    " node='punsub_node_for_my_private_iphone'/></iq>"
)

ALERT = {
    "title": "bob@mychat.com",
    "body": "Are you there?",
    "badge": 1,
    "tag": "bob@mychat.com",
    "click_action": ".myapp.MainActivity",
}


class Stage:
    """The two processes and a push service."""

    def __init__(self, folder, push_service, certificates=None, dialback="", s2s=""):
        chat, pubsub = free_ports(2)
        values = {
            "chat": chat,
            "pubsub": pubsub,
            "service": push_service.port,
            "ca": push_service.ca_file,
            "dialback": dialback,
            "s2s": s2s,
        }
        tls = {"mychat.com": "", "mypubsub.com": ""}
        for domain, path in (certificates or {}).items():
            tls[domain] = f"[tls]\ncertfile = {path}\nkeyfile = {path}"
        for name in ("chat", "pubsub"):
            (folder / name).mkdir()
        self.chat = ServerProcess(folder / "chat", CHAT.format(tls=tls["mychat.com"], **values))
        self.pubsub = ServerProcess(folder / "pubsub", PUBSUB.format(tls=tls["mypubsub.com"], **values))

    def __enter__(self):
        self.chat.start()
        self.pubsub.start()
        for user in ("alice", "bob"):
            self.chat.command("user", "add", f"{user}@mychat.com", "--password", user)
        return self

    def __exit__(self, *error):
        self.chat.__exit__(*error)
        if self.pubsub._process is not None:
            self.pubsub.__exit__(*error)

    async def phone(self, user, ca_file=None):
        address = self.chat.address("listen:c2s")
        ca_file = ca_file or self.chat.data_dir / "tls" / "ca.pem"
        phone = Phone(f"{user}@mychat.com/phone", user, address, ca_file)
        assert await phone.log_in()
        return phone

    def trace(self):
        return self.chat.command("push", "trace", "alice@mychat.com")


async def tutorial(stage, push_service, ca_file=None):
    bob = await stage.phone("bob", ca_file)
    alice = await stage.phone("alice", ca_file)
    assert (await alice.ask(CREATE)).get("type") == "result"
    assert (await alice.ask(ENABLE)).get("type") == "result"
    await alice.log_out()
    bob.send_message("alice@mychat.com", "Are you there?")
    await asyncio.to_thread(push_service.wait_for_requests, 1)

    alice = await stage.phone("alice", ca_file)
    assert await alice.wait_for_messages(1) == ["Are you there?"]
    assert (await alice.ask(DISABLE)).get("type") == "result"
    await alice.log_out()
    bob.send_message("alice@mychat.com", "Not this one")

    alice = await stage.phone("alice", ca_file)
    await alice.wait_for_messages(1)
    assert (await alice.ask(ENABLE)).get("type") == "result"
    await alice.log_out()
    bob.send_message("alice@mychat.com", "The last one")
    await asyncio.to_thread(push_service.wait_for_requests, 2)
    await bob.log_out()


@pytest.fixture
def push_service(tmp_path):
    with StandIn(tmp_path) as stand_in:
        yield stand_in


def check(stage, push_service):
    requests = push_service.requests()
    assert [request["path"] for request in requests] == ["/v3/notification/your_pns_device_token"] * 2
    assert requests[0]["json"] == {"service": "apns", "mode": "prod", "alert": ALERT}
    assert "The last one" in json.dumps(requests[1]["json"])
    trace = stage.trace()
    assert trace.count("pushed to 1 device") == 2
    assert "published to app server pubsub.mypubsub.com" in trace
    assert "your_pns_device_token" not in trace
    for server in (stage.chat, stage.pubsub):
        assert "your_pns_device_token" not in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def test_the_tutorial_over_tls_and_dialback(tmp_path, push_service):
    """With the certificates that each generates for itself, which prove nothing to the other."""
    with Stage(tmp_path, push_service) as stage:
        asyncio.run(tutorial(stage, push_service))
        check(stage, push_service)
        assert "known there by our dialback, TLS; it is not proven" in stage.chat.log.read_text()
        assert "server mychat.com at 127.0.0.1 is known by its dialback key" in stage.pubsub.log.read_text()


def test_the_tutorial_over_external(tmp_path, push_service):
    """With certificates of one authority, without dialback."""
    authority = Authority(tmp_path / "authority")
    certificates = {
        "mychat.com": authority.certificate_for("mychat.com"),
        "mypubsub.com": authority.certificate_for("mypubsub.com", "pubsub.mypubsub.com"),
    }
    s2s = f"verify = yes\nca_file = {authority.ca_file}"
    with Stage(tmp_path, push_service, certificates, "dialback = no", s2s) as stage:
        asyncio.run(tutorial(stage, push_service, authority.ca_file))
        check(stage, push_service)
        assert "known there by our certificate, TLS; it is proven" in stage.chat.log.read_text()
        assert "dialback" not in stage.pubsub.log.read_text()


def test_publishes_wait_for_an_app_server_that_is_down(tmp_path, push_service):
    """It comes back, and what was published meanwhile arrives; nothing is suspended."""
    with Stage(tmp_path, push_service) as stage:

        async def before():
            alice = await stage.phone("alice")
            assert (await alice.ask(CREATE)).get("type") == "result"
            assert (await alice.ask(ENABLE)).get("type") == "result"
            await alice.log_out()
            stage.pubsub.stop()
            bob = await stage.phone("bob")
            for number in range(3):
                bob.send_message("alice@mychat.com", f"Number {number}")
            await bob.log_out()

        asyncio.run(before())
        wait_for("the outage is told", lambda: "connection refused" in stage.chat.log.read_text())
        assert "alice@mychat.com" in stage.chat.command("push", "list")
        # A restart of the chat server loses none either.
        stage.chat.stop()
        stage.chat.start()
        stage.pubsub.start()
        wait_for("the push arrives", push_service.requests, 60)
        assert "Number 2" in json.dumps(push_service.requests()[-1]["json"])
        log = stage.chat.log.read_text()
        assert "Traceback" not in log
        assert "suspended" not in log
        assert "removed" not in log


def memory_of(process):
    """Resident, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.slow
def test_an_app_server_that_is_down_for_a_minute(tmp_path, push_service):
    """A push for every fifth of a second, and each sender's last one arrives; memory stays what it was."""
    with Stage(tmp_path, push_service) as stage:

        async def scenario():
            alice, bob = await stage.phone("alice"), await stage.phone("bob")
            assert (await alice.ask(CREATE)).get("type") == "result"
            assert (await alice.ask(ENABLE)).get("type") == "result"
            await alice.log_out()
            before = memory_of(stage.chat)
            await asyncio.to_thread(stage.pubsub.stop)
            end, number = time.monotonic() + 60, 0
            while time.monotonic() < end:
                number += 1
                bob.send_message("alice@mychat.com", f"Number {number}.")
                await asyncio.sleep(0.2)
            await bob.log_out()
            return number, memory_of(stage.chat) - before

        last, grown = asyncio.run(scenario())
        assert grown < 20
        started = time.monotonic()
        stage.pubsub.start()
        wait_for(
            "the last push arrives", lambda: f"Number {last}." in json.dumps(push_service.requests()), 90
        )
        print(f"{last} messages, {grown:.1f} MiB more, {time.monotonic() - started:.1f} s after the start")
        assert "pubsub.mypubsub.com" in stage.chat.command("push", "list")
        log = stage.chat.log.read_text()
        assert log.count("is not reached") == 1
        assert "Traceback" not in log
        assert "suspended" not in log
