"""Components of others at ``[listen:component]``: slixmpp's, and this server's own as an app server."""

import asyncio
from xml.etree import ElementTree

import pytest
import slixmpp
from slixmpp.componentxmpp import ComponentXMPP

from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for

SERVER = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
[listen:component]
endpoint = tcp:0:interface=127.0.0.1
secret.pubsub.localhost = s3cret
secret.pubsub.elsewhere.test = 0ther
[mod_push]
max_errors = 2
collapse = no
"""

APP_SERVER = """
[server]
domains =
[component]
jid = pubsub.localhost
endpoint = tcp:127.0.0.1:{port}
secret = s3cret
[mod_pubsub]
host = pubsub.localhost
[http_connections:mongoose_push_http]
server = https://localhost:{push_port}
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
"""

CREATE = """
<iq type='set' to='pubsub.localhost' id='create1'>
  <pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='my_iphone' type='push'/></pubsub>
</iq>"""
ENABLE = """
<iq type='set' id='x43'>
  <enable xmlns='urn:xmpp:push:0' jid='pubsub.localhost' node='my_iphone'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='service'><value>apns</value></field>
      <field var='device_id'><value>your_pns_device_token</value></field>
    </x>
  </enable>
</iq>"""

PUBSUB = "{http://jabber.org/protocol/pubsub}"
STREAM_ERROR = "{urn:ietf:params:xml:ns:xmpp-streams}"


class Component(ComponentXMPP):
    """
    Somebody's component.

    Attributes:
        published: Bodies of the notifications that were published to it.
        errors: Conditions of stream errors that it got.
        answer: Condition and type of the error that it answers a publish with, ``None``: a result.
    """

    def __init__(self, address, jid="pubsub.localhost", secret="s3cret"):
        super().__init__(jid, secret, *address)
        self._address = address
        self.published, self.messages, self.errors = [], [], []
        self.answer = None
        self.up, self.down = asyncio.Event(), asyncio.Event()
        self.add_event_handler("session_start", lambda _: self.up.set())
        self.add_event_handler("disconnected", lambda _: self.down.set())
        self.add_event_handler("stream_error", self._stream_error)
        self.add_event_handler("message", lambda message: self.messages.append(message["body"]))
        self.register_handler(
            slixmpp.xmlstream.handler.Callback(
                "publishes",
                slixmpp.xmlstream.matcher.MatchXPath(f"{{jabber:component:accept}}iq/{PUBSUB}pubsub"),
                self._publish,
            )
        )

    def _stream_error(self, error):
        self.errors.append(error["condition"])

    def _publish(self, iq):
        assert iq["from"] == "localhost"
        if self.answer is not None:
            condition, kind = self.answer
            reply = iq.reply()
            reply["type"] = "error"
            reply["error"]["condition"], reply["error"]["type"] = condition, kind
            reply.send()
            return
        assert iq.xml.find(f".//{PUBSUB}publish").get("node") == "my_iphone"
        options = ElementTree.tostring(iq.xml.find(f".//{PUBSUB}publish-options"), "unicode")
        assert "your_pns_device_token" in options
        (body,) = [
            field[0].text
            for field in iq.xml.iter("{jabber:x:data}field")
            if field.get("var") == "last-message-body"
        ]
        self.published.append(body)
        iq.reply().send()

    async def attach(self):
        self.connect(*self._address)
        await asyncio.wait_for(self.up.wait(), 15)
        return self

    async def refused(self):
        """Try to attach; returns the stream error."""
        self.connect(*self._address)
        await asyncio.wait_for(self.down.wait(), 15)
        assert not self.up.is_set()
        return self.errors

    async def has(self, what, count):
        async with asyncio.timeout(15):
            while len(what) < count:
                await asyncio.sleep(0.02)
        return what


@pytest.fixture
def server(tmp_path):
    with ServerProcess(tmp_path, SERVER) as server:
        for name in ("alice", "bob"):
            server.command("user", "add", f"{name}@localhost", "--password", name)
        yield server


def phone_of(server, name):
    address, ca_file = server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem"
    return Phone(f"{name}@localhost/phone", name, address, ca_file)


def test_a_component_works(server):
    """Messages, requests and presence go both ways; disco#items and 'status' show it."""

    async def scenario():
        component = await Component(server.address("listen:component")).attach()
        alice = phone_of(server, "alice")
        assert await alice.log_in()
        items = await alice.ask(
            "<iq type='get' to='localhost' id='d'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>"
        )
        assert [item.get("jid") for item in items[0]] == ["pubsub.localhost"]
        alice.send_message("room@pubsub.localhost", "from alice")
        assert await component.has(component.messages, 1) == ["from alice"]
        component.send_message("alice@localhost", "to alice", mfrom="room@pubsub.localhost/x")
        assert await alice.wait_for_messages(1) == ["to alice"]
        present = asyncio.Event()
        component.add_event_handler("presence_available", lambda _: present.set())
        alice.send_presence(pto="room@pubsub.localhost/alice")
        await asyncio.wait_for(present.wait(), 15)
        answer = await alice.ask(
            "<iq type='get' to='pubsub.localhost' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"
        )
        assert answer.get("from") == "pubsub.localhost"
        iq = component.Iq(stype="get", sto="localhost", sfrom="pubsub.localhost")
        iq.xml.append(ElementTree.Element("{http://jabber.org/protocol/disco#info}query"))
        assert (await iq.send(timeout=15))["type"] == "result"
        components = (await asyncio.to_thread(server.call, "status"))["components"]
        assert components == {"pubsub.elsewhere.test": "", "pubsub.localhost": "127.0.0.1"}
        answer = await alice.ask(
            "<iq type='get' to='pubsub.elsewhere.test' id='q'><ping xmlns='urn:xmpp:ping'/></iq>"
        )
        assert b"remote-server-timeout" in ElementTree.tostring(answer)
        await alice.log_out()
        await component.disconnect()

    asyncio.run(scenario())


def test_who_is_refused(server):
    """A second one of the same domain, a wrong secret, an unknown domain and a spoofed sender."""

    async def scenario():
        address = server.address("listen:component")
        component = await Component(address).attach()
        assert await Component(address).refused() == ["conflict"]
        assert await Component(address, secret="0ther").refused() == ["not-authorized"]
        assert await Component(address, "pubsub.elsewhere.test").refused() == ["not-authorized"]
        assert await Component(address, "localhost").refused() == ["host-unknown"]
        assert component.errors == []
        component.send_message("alice@localhost", "hi", mfrom="bob@localhost")
        assert await component.has(component.errors, 1) == ["invalid-from"]
        await asyncio.wait_for(component.down.wait(), 15)
        # Now there is room for it.
        component = await Component(address).attach()
        await component.disconnect()

    asyncio.run(scenario())
    log = server.log.read_text()
    assert log.count("refused: ") == 4, log
    assert "s3cret" not in log
    assert "0ther" not in log


def test_pushes_wait_for_an_absent_app_server(server):
    """
    What is published while the component is away arrives when it is back, in order; a restart of the server
    in between makes no difference, and no registration suffers.
    """

    async def begin():
        component = await Component(server.address("listen:component")).attach()
        alice, bob = phone_of(server, "alice"), phone_of(server, "bob")
        assert await alice.log_in()
        assert (await alice.ask(ENABLE)).get("type") == "result"
        await alice.log_out()
        assert await bob.log_in()
        bob.send_message("alice@localhost", "one")
        assert await component.has(component.published, 1) == ["one"]
        await component.disconnect()
        await asyncio.wait_for(component.down.wait(), 15)
        for text in ("two", "three", "four"):
            bob.send_message("alice@localhost", text)
        await bob.ask("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
        await bob.log_out()

    async def back(expected):
        component = await Component(server.address("listen:component")).attach()
        assert await component.has(component.published, len(expected)) == expected
        await component.disconnect()

    async def more(*texts):
        bob = phone_of(server, "bob")
        assert await bob.log_in()
        for text in texts:
            bob.send_message("alice@localhost", text)
        await bob.ask("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
        await bob.log_out()

    asyncio.run(begin())
    wait_for("the warning", lambda: "app server pubsub.localhost takes no pushes" in server.log.read_text())
    asyncio.run(back(["two", "three", "four"]))
    asyncio.run(more("five", "six"))
    server.stop()
    server.start()
    asyncio.run(back(["five", "six"]))
    (registration,) = server.call("push.list")
    assert (registration["state"], registration["errors"]) == ("active", 0)
    wait_for("the story ends", lambda: "published to app server pubsub.localhost" in trace(server))


def trace(server):
    return server.command("push", "trace", "alice@localhost")


def test_what_an_app_server_answers(server):
    """'wait' costs nothing; other errors count and suspend; item-not-found is the end of the registration."""

    async def scenario():
        component = await Component(server.address("listen:component")).attach()
        alice, bob = phone_of(server, "alice"), phone_of(server, "bob")
        assert await alice.log_in()
        assert (await alice.ask(ENABLE)).get("type") == "result"
        await alice.log_out()
        assert await bob.log_in()

        async def told(text, answer):
            component.answer = answer
            bob.send_message("alice@localhost", text)

        async def registered(state, errors):
            async with asyncio.timeout(15):
                while True:
                    (found,) = await asyncio.to_thread(server.call, "push.list")
                    if (found["state"], found["errors"]) == (state, errors):
                        return
                    await asyncio.sleep(0.02)

        await told("one", ("forbidden", "auth"))
        await registered("active", 1)
        await told("two", None)
        assert await component.has(component.published, 1) == ["two"]
        await registered("active", 0)
        await told("three", ("internal-server-error", "wait"))
        await asyncio.sleep(0.1)
        component.answer = None
        assert await component.has(component.published, 2) == ["two", "three"]
        await told("four", ("forbidden", "auth"))
        await registered("active", 1)
        await told("five", ("forbidden", "auth"))
        await registered("suspended", 2)
        assert await alice_enables()
        await told("six", ("item-not-found", "cancel"))
        async with asyncio.timeout(15):
            while await asyncio.to_thread(server.call, "push.list"):
                await asyncio.sleep(0.02)
        await bob.log_out()
        await component.disconnect()

    async def alice_enables():
        alice = phone_of(server, "alice")
        assert await alice.log_in(present=False)
        result = (await alice.ask(ENABLE)).get("type") == "result"
        await alice.log_out()
        return result

    asyncio.run(scenario())
    log = server.log.read_text()
    assert "removed: pubsub.localhost has no node my_iphone any more" in log
    assert "your_pns_device_token" not in log


def test_our_own_component_as_app_server(server, tmp_path):
    """The tutorial with the app server in a process of its own, attached as pubsub.localhost."""
    folder = tmp_path / "app-server"
    folder.mkdir()
    with StandIn(tmp_path) as push_service:
        ini = APP_SERVER.format(
            port=server.address("listen:component")[1],
            push_port=push_service.port,
            ca=push_service.ca_file,
        )

        async def scenario():
            alice, bob = phone_of(server, "alice"), phone_of(server, "bob")
            assert await alice.log_in()
            assert (await alice.ask(CREATE)).get("type") == "result"
            assert (await alice.ask(ENABLE)).get("type") == "result"
            await alice.log_out()
            assert await bob.log_in()
            bob.send_message("alice@localhost", "Are you there?")
            await asyncio.to_thread(push_service.wait_for_requests, 1)
            await bob.log_out()

        with ServerProcess(folder, ini) as app_server:
            wait_for("it is attached", lambda: server.call("status")["components"]["pubsub.localhost"])
            asyncio.run(scenario())
            (request,) = push_service.requests()
        assert request["path"] == "/v3/notification/your_pns_device_token"
        assert request["json"]["alert"]["body"] == "Are you there?"
        assert request["json"]["service"] == "apns"
        assert "attached to 127.0.0.1" in app_server.log.read_text()
        wait_for(
            "its goodbye", lambda: "component pubsub.localhost at 127.0.0.1 is gone" in server.log.read_text()
        )
        wait_for("the story ends", lambda: "published to app server pubsub.localhost, try 1" in trace(server))
