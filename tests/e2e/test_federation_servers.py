"""s2s with Prosody and ejabberd, both ways: messages, and push (issue 6, done when 2)."""

import asyncio
import json

import pytest

from xmpppush.testing.clients import Phone
from xmpppush.testing.federation import MEMBERS, OURS, Authority, Federation
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for
from xmpppush.testing.xmppservers import PASSWORD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("kind", MEMBERS, ids=lambda kind: kind.domain),
]

INI = """
[server]
domains = ours.test
[tls]
certfile = {certificate}
keyfile = {certificate}
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
[listen:s2s]
endpoint = tcp:{port}:interface=127.0.0.1
[s2s]
ca_file = {ca}
{s2s}
{static}
[mod_push]
[mod_pubsub]
host = pubsub.@HOST@
[http_connections:mongoose_push_http]
server = https://localhost:{service}
ca_file = {service_ca}
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
"""

CREATE = """
<iq type='set' to='{pubsub}' id='create1'>
  <pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='{node}'{type}/>{configure}</pubsub>
</iq>"""

OPEN = """
<configure><x xmlns='jabber:x:data' type='submit'>
  <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#node_config</value></field>
  <field var='pubsub#publish_model'><value>open</value></field>
  <field var='pubsub#access_model'><value>open</value></field>
</x></configure>"""

ENABLE = """
<iq type='set' id='x43'>
  <enable xmlns='urn:xmpp:push:0' jid='{pubsub}' node='{node}'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='service'><value>fcm</value></field>
      <field var='device_id'><value>a_device_token</value></field>
    </x>
  </enable>
</iq>"""

ITEMS = """
<iq type='get' to='{pubsub}' id='items1'>
  <pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{node}'/></pubsub>
</iq>"""


class Stage:
    """Another server and ours, and a push service."""

    def __init__(self, folder, kind, authority=None, ours=None, secure=False, s2s=""):
        if kind.missing():
            pytest.skip(kind.missing())
        self.federation = Federation(folder)
        self.kind = kind
        self.push_service = StandIn(folder)
        self._folder = folder
        self._authority, self._ours = authority, ours
        self._secure, self._s2s = secure, s2s

    def __enter__(self):
        self.federation.__enter__()
        self.push_service.__enter__()
        federation, domain = self.federation, self.kind.domain
        self.other = self.kind(federation, ["juliet"], self._authority, self._secure).__enter__()
        certificate = (self._ours or federation.authority).certificate_for(OURS, f"pubsub.{OURS}")
        port = federation.ports[domain]
        ini = INI.format(
            certificate=certificate,
            port=federation.ports[OURS],
            ca=federation.authority.ca_file,
            s2s=self._s2s,
            static="\n".join(f"static.{name} = 127.0.0.1:{port}" for name in (domain, f"pubsub.{domain}")),
            service=self.push_service.port,
            service_ca=self.push_service.ca_file,
        )
        (self._folder / "ours").mkdir()
        self.ours_ca = (self._ours or federation.authority).ca_file
        self.ours = ServerProcess(self._folder / "ours", ini).start()
        for user in ("alice", "bob"):
            self.ours.command("user", "add", f"{user}@{OURS}", "--password", PASSWORD)
        return self

    def __exit__(self, *error):
        self.ours.__exit__(*error)
        self.other.__exit__(*error)
        self.push_service.__exit__()
        self.federation.__exit__(*error)

    async def ours_phone(self, user):
        phone = Phone(f"{user}@{OURS}/phone", PASSWORD, self.ours.address("listen:c2s"), self.ours_ca)
        assert await phone.log_in()
        return phone

    async def juliet(self):
        other = self.other
        phone = Phone(f"juliet@{other.domain}/phone", PASSWORD, other.address, other.ca_file)
        assert await phone.log_in()
        return phone

    def our_log(self):
        return self.ours.log.read_text()


async def exchange(stage):
    alice, juliet = await stage.ours_phone("alice"), await stage.juliet()
    alice.send_message(juliet.boundjid.bare, "There")
    assert await juliet.wait_for_messages(1) == ["There"]
    juliet.send_message(alice.boundjid.bare, "And back")
    assert await alice.wait_for_messages(1) == ["And back"]
    await alice.log_out()
    await juliet.log_out()


@pytest.mark.parametrize("proof", ["certificate", "dialback"])
def test_messages(tmp_path, kind, proof):
    """Both ways, by EXTERNAL and by dialback."""
    stranger = Authority(tmp_path / "nobody-knows") if proof == "dialback" else None
    with Stage(tmp_path, kind, authority=stranger, ours=stranger) as stage:
        asyncio.run(exchange(stage))
        log = stage.our_log()
    assert f"stream to {kind.domain} for {OURS}: known there by our {proof}" in log
    how = "certificate" if proof == "certificate" else "dialback key"
    assert f"server {kind.domain} at 127.0.0.1 is known by its {how}" in log
    assert "Traceback" not in log


def test_their_user_pushes_by_our_app_server(tmp_path, kind):
    """Create a node here, enable it there, get a message: a POST."""
    node, pubsub = "juliets-phone", f"pubsub.{OURS}"

    async def scenario(stage):
        bob, juliet = await stage.ours_phone("bob"), await stage.juliet()
        create = CREATE.format(pubsub=pubsub, node=node, type=" type='push'", configure="")
        assert (await juliet.ask(create)).get("type") == "result"
        assert (await juliet.ask(ENABLE.format(pubsub=pubsub, node=node))).get("type") == "result"
        await juliet.log_out()
        await asyncio.sleep(2)  # a session that was left lives on for a second
        bob.send_message(f"juliet@{stage.other.domain}", "Wake up")
        await asyncio.to_thread(stage.push_service.wait_for_requests, 1)
        await bob.log_out()

    with Stage(tmp_path, kind) as stage:
        asyncio.run(scenario(stage))
        (request, *_) = stage.push_service.requests()
        assert request["path"] == "/v3/notification/a_device_token"
        assert "Traceback" not in stage.our_log()


def test_our_user_pushes_by_their_app_server(tmp_path, kind):
    """A node of theirs gets what mod_push here publishes."""
    node = "alices-phone"

    async def scenario(stage):
        pubsub = f"pubsub.{stage.other.domain}"
        bob, alice, juliet = (
            await stage.ours_phone("bob"),
            await stage.ours_phone("alice"),
            await stage.juliet(),
        )
        create = CREATE.format(pubsub=pubsub, node=node, type="", configure=OPEN)
        assert (await juliet.ask(create)).get("type") == "result"
        enable = ENABLE.format(pubsub=pubsub, node=node)
        enable = enable[: enable.index("<x ")] + "</enable></iq>"  # options would be asked of the node
        assert (await alice.ask(enable)).get("type") == "result"
        await alice.log_out()
        bob.send_message(f"alice@{OURS}", "Wake up")
        await asyncio.to_thread(
            wait_for,
            "it is published",
            lambda: "published to app server" in stage.ours.command("push", "trace", f"alice@{OURS}"),
        )
        items = await juliet.ask(ITEMS.format(pubsub=pubsub, node=node))
        found = json.dumps([text for element in items.iter() for text in (element.text,) if text])
        await bob.log_out()
        await juliet.log_out()
        return found

    with Stage(tmp_path, kind) as stage:
        found = asyncio.run(scenario(stage))
        assert "Wake up" in found
        assert "Traceback" not in stage.our_log()


def test_a_wrong_certificate_is_refused(tmp_path, kind):
    """With verify = yes nothing goes either way, and the log says why."""
    stranger = Authority(tmp_path / "nobody-knows")

    async def scenario(stage):
        alice, juliet = await stage.ours_phone("alice"), await stage.juliet()
        alice.send_message(juliet.boundjid.bare, "There")
        juliet.send_message(alice.boundjid.bare, "And back")
        await asyncio.to_thread(wait_for, "it is refused", lambda: "is not reached" in stage.our_log(), 30)
        assert alice.messages in ([], ["There"])  # what comes back with an error
        assert juliet.messages == []

    with Stage(tmp_path, kind, authority=stranger, s2s="verify = yes") as stage:
        asyncio.run(scenario(stage))
        assert "its certificate is refused: certificate of an unknown authority" in stage.our_log()
