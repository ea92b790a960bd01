"""Two real clients of one account, their connections cut one after the other: one push for each."""

import asyncio
from collections import Counter

import pytest

from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for
from xmpppush.testing.stanzas import push_requests

INI = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
[c2s]
resume_timeout = 6s
ack_timeout = 3s
[mod_push]
plugin_module = {plugin}
[mod_pubsub]
[http_connections:mongoose_push_http]
server = https://localhost:{port}
ca_file = {ca_file}
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
"""


class Device(Phone):
    """A phone with slixmpp's stream management, and push enabled for it."""

    def __init__(self, server, name):
        address, ca_file = server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem"
        super().__init__(f"alice@localhost/{name}", "alice", address, ca_file)
        self.register_plugin("xep_0198")
        self.resumed, self.cut_off = asyncio.Event(), asyncio.Event()
        self.add_event_handler("session_resumed", lambda _: self.resumed.set())
        self.add_event_handler("disconnected", lambda _: self.cut_off.set())
        self.name = name

    async def begin(self):
        assert await self.log_in()
        for request in push_requests(self.name, self.name):
            assert (await self.ask(request)).get("type") == "result"

    async def cut(self):
        """The connection is gone from one moment to the next."""
        self.cut_off.clear()
        self.abort()
        await asyncio.wait_for(self.cut_off.wait(), 15)

    async def has(self, text):
        """It got this, says so, and the server knows."""
        async with asyncio.timeout(15):
            while text not in self.messages:
                await asyncio.sleep(0.02)
        self.plugin["xep_0198"].send_ack()
        await self.ask("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")

    async def resume(self):
        self.connect(*self.address)
        await asyncio.wait_for(self.resumed.wait(), 15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "plugin"), [(("phone", "desk"), "defaults"), (("desk", "phone"), "enhanced")]
)
def test_each_device_is_pushed_once(tmp_path, order, plugin):
    """
    One cut before the second message and one before the third; the first one is back for the fourth and gone
    again; then nothing is waited for any more. Never is there a second push for a message.
    """
    with StandIn(tmp_path) as stand_in:
        ini = INI.format(port=stand_in.port, ca_file=stand_in.ca_file, plugin=plugin)
        with ServerProcess(tmp_path, ini) as server:
            for name in ("alice", "bob"):
                server.command("user", "add", f"{name}@localhost", "--password", name)
            asyncio.run(cut_in_order(server, stand_in, order))
        # Stopped, so that none is on its way.
        first, second = order
        expected = {(first, text) for text in "235"} | {(second, text) for text in "345"}
        assert pushes_to(stand_in) == Counter(expected)


def pushes_to(stand_in):
    """How many there were by device and text."""
    return Counter(
        (request["path"].rpartition("/")[2], request["json"]["alert"]["body"])
        for request in stand_in.requests()
    )


async def cut_in_order(server, stand_in, order):
    address, ca_file = server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem"
    bob = Phone("bob@localhost/x", "bob", address, ca_file)
    assert await bob.log_in()
    first, second = devices = [Device(server, name) for name in order]
    for device in devices:
        await device.begin()

    async def say(text, *readers):
        """Bob writes; who reads it has it, the others get a push."""
        bob.send_message("alice@localhost", text)
        for device in devices:
            if device in readers:
                await device.has(text)
            else:
                # Some seconds, should the server not have seen that the connection is gone.
                push = (device.name, text)
                await asyncio.to_thread(wait_for, push, lambda push=push: push in pushes_to(stand_in))

    await say("1", first, second)
    await first.cut()
    await say("2", second)
    await second.cut()
    await say("3")
    await first.resume()
    await say("4", first)
    await first.cut()
    await say("5")
    await asyncio.sleep(7.0)  # every acknowledgement is overdue, and both sessions are over
    await bob.log_out()
