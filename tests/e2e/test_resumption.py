"""A real client whose connection is cut, and a real server that is killed (XEP-0198)."""

import asyncio
import signal

from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess

INI = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:{port}:interface=127.0.0.1
tls = required
[c2s]
resume_timeout = {resume_timeout}
"""


class ManagedPhone(Phone):
    """
    A phone with slixmpp's stream management.

    Attributes:
        acknowledged: Bodies of the messages that the server acknowledged.
    """

    def __init__(self, server, jid, password):
        super().__init__(jid, password, server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem")
        self.register_plugin("xep_0198", {"window": 1})
        self.resumed = asyncio.Event()
        self.cut_off = asyncio.Event()
        self.acknowledged = []
        self.add_event_handler("session_resumed", lambda _: self.resumed.set())
        self.add_event_handler("disconnected", lambda _: self.cut_off.set())
        self.add_event_handler("stanza_acked", self._acked)

    def _acked(self, stanza):
        if stanza.name == "message":
            self.acknowledged.append(stanza["body"])

    async def all_acknowledged(self, texts):
        """slixmpp asks before each stanza, and so never for the last one."""
        async with asyncio.timeout(15):
            while self.acknowledged != texts:
                self.plugin["xep_0198"].request_ack()
                await asyncio.sleep(0.05)

    async def cut(self):
        """The connection is gone from one moment to the next."""
        self.cut_off.clear()
        self.abort()
        await asyncio.wait_for(self.cut_off.wait(), 15)

    async def resume(self):
        self.connect(*self.address)
        await asyncio.wait_for(self.resumed.wait(), 15)


def with_accounts(server):
    server.command("user", "add", "alice@localhost", "--password", "wonderland")
    server.command("user", "add", "bob@localhost", "--password", "builder")


def test_a_cut_connection_costs_nothing(tmp_path):
    """Messages of before and meanwhile, each once and in order; a second time, too."""
    with ServerProcess(tmp_path, INI.format(port=0, resume_timeout="1m")) as server:
        with_accounts(server)
        asyncio.run(cut_and_resumed(server))


async def cut_and_resumed(server):
    alice, bob = (
        ManagedPhone(server, "alice@localhost/phone", "wonderland"),
        ManagedPhone(server, "bob@localhost/desk", "builder"),
    )
    assert await alice.log_in()
    assert await bob.log_in()
    sent = []

    def say(count):
        for _ in range(count):
            sent.append(str(len(sent)))
            bob.send_message("alice@localhost", sent[-1])

    for _ in range(2):
        alice.resumed.clear()
        say(20)
        await alice.wait_for_messages(len(sent) - 10)
        await alice.cut()
        say(20)
        await bob.all_acknowledged(sent)
        await alice.resume()
        say(5)
        assert await alice.wait_for_messages(len(sent)) == sent
    await asyncio.sleep(0.5)
    assert alice.messages == sent
    await alice.log_out()
    await bob.log_out()


def test_a_connection_that_is_not_resumed(tmp_path):
    """After the timeout its messages wait for the next session, in order, with those that came later."""
    with ServerProcess(tmp_path, INI.format(port=0, resume_timeout="1s")) as server:
        with_accounts(server)
        asyncio.run(cut_and_replaced(server))


async def cut_and_replaced(server):
    alice, bob = (
        ManagedPhone(server, "alice@localhost/phone", "wonderland"),
        ManagedPhone(server, "bob@localhost/desk", "builder"),
    )
    assert await alice.log_in()
    assert await bob.log_in()
    await alice.cut()
    bob.send_message("alice@localhost", "one")
    bob.send_message("alice@localhost", "two")
    await bob.all_acknowledged(["one", "two"])
    await asyncio.sleep(1.5)
    bob.send_message("alice@localhost", "three")
    await bob.all_acknowledged(["one", "two", "three"])
    again = ManagedPhone(server, "alice@localhost/tablet", "wonderland")
    assert await again.log_in()
    assert await again.wait_for_messages(3) == ["one", "two", "three"]
    await again.log_out()
    await bob.log_out()


def test_a_killed_server_loses_nothing_that_it_acknowledged(tmp_path):
    """kill -9 with messages in the hands of a client that is cut off: the next session gets them."""
    with ServerProcess(tmp_path, INI.format(port=0, resume_timeout="1m")) as server:
        with_accounts(server)
        asyncio.run(killed(server))
        server.stop(signal.SIGKILL)
        server.start()
        asyncio.run(fetched(server))


async def killed(server):
    alice, bob = (
        ManagedPhone(server, "alice@localhost/phone", "wonderland"),
        ManagedPhone(server, "bob@localhost/desk", "builder"),
    )
    assert await alice.log_in()
    assert await bob.log_in()
    bob.send_message("alice@localhost", "read")
    assert await alice.wait_for_messages(1) == ["read"]
    await asyncio.sleep(1.5)  # by then it is asked for, acknowledged and forgotten
    await alice.cut()
    for text in ("one", "two", "three"):
        bob.send_message("alice@localhost", text)
    await bob.all_acknowledged(["read", "one", "two", "three"])


async def fetched(server):
    alice = ManagedPhone(server, "alice@localhost/phone", "wonderland")
    assert await alice.log_in()
    assert await alice.wait_for_messages(3) == ["one", "two", "three"]
    await alice.log_out()
