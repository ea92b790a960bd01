"""What is accepted arrives, once: over outages, kill -9 and wrong certificates, with real processes."""

import asyncio
import signal
import socket
import sqlite3
from contextlib import closing, suppress

import pytest

from xmpppush.certificates import CertificateStore
from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for
from xmpppush.testing.stanzas import push_requests

INI = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
[mod_push]
[mod_pubsub]
[http_connections:mongoose_push_http]
server = {url}
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
retry_base = 50ms
retry_cap = 200ms
max_http_connections = 2
"""


class Chat:
    """Alice, whose phone is away, and Bob, on a server that is stopped and started again."""

    def __init__(self, folder):
        self.folder = folder
        self.server = None

    def serve(self, url, ca):
        """The server with this push service, from here on."""
        self.server = ServerProcess(self.folder, INI.format(url=url, ca=ca))
        self.server.start()

    def end(self):
        """However the test ended, no process is left."""
        if self.server is not None:
            with suppress(AssertionError):  # stopped already
                self.server.stop(signal.SIGKILL)

    def begin(self):
        """Alice enables push and leaves."""
        for name in ("alice", "bob"):
            self.server.command("user", "add", f"{name}@localhost", "--password", name)

        async def enable():
            alice = await self._log_in("alice", present=False)
            for request in push_requests():
                assert (await alice.ask(request)).get("type") == "result"
            await alice.log_out()

        asyncio.run(enable())

    async def _log_in(self, name, present=True):
        address, ca_file = self.server.address("listen:c2s"), self.server.data_dir / "tls" / "ca.pem"
        phone = Phone(f"{name}@localhost/phone", name, address, ca_file)
        assert await phone.log_in(present)
        return phone

    def write(self, *bodies):
        """Bob writes to Alice; returns when it is on disk."""
        before = self.count("offline_messages")

        async def send():
            bob = await self._log_in("bob")
            for body in bodies:
                bob.send_message("alice@localhost", body)
            expected = before + len(bodies)
            await asyncio.to_thread(
                wait_for, "they are on disk", lambda: self.count("offline_messages") == expected
            )
            await bob.log_out()

        asyncio.run(send())

    def read(self, count):
        """Alice comes online; what she gets, once all is said to be forgotten here."""

        async def receive():
            alice = await self._log_in("alice")
            await alice.wait_for_messages(count)
            await asyncio.to_thread(wait_for, "nothing waits", lambda: not self.count("offline_messages"))
            await alice.log_out()
            return alice.messages

        return asyncio.run(receive())

    def count(self, rows):
        with closing(
            sqlite3.connect(f"file:{self.server.data_dir}/xmpppush.db?mode=ro", uri=True)
        ) as database:
            return database.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]

    def wait_for_tries(self, count):
        """The delivery failed so often, and waits."""
        wait_for(f"{count} tries", lambda: self.count(f"deliveries WHERE attempts >= {count}"))

    def wait_until_settled(self):
        wait_for("every delivery has its answer", lambda: not self.count("deliveries"))

    def complaints(self):
        """What the operator reads of the push service."""
        return [line for line in self.server.log.read_text().splitlines() if "cannot be reached" in line]


@pytest.fixture
def chat(tmp_path):
    chat = Chat(tmp_path)
    yield chat
    chat.end()


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def bodies(requests):
    return [request["json"]["alert"]["body"] for request in requests]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_notification_outlives_an_outage_and_the_server(chat, tmp_path, free_port, how):
    """No push service, and then no server: with both back there is one POST, and the message itself."""
    stand_in = StandIn(tmp_path, "--port", str(free_port))
    url = f"https://localhost:{free_port}"
    chat.serve(url, stand_in.ca_file)
    chat.begin()
    chat.write("Are you there?")
    chat.wait_for_tries(2)
    chat.server.stop(how)
    with stand_in:
        chat.serve(url, stand_in.ca_file)
        stand_in.wait_for_requests(1)
        chat.wait_until_settled()
        assert chat.read(1) == ["Are you there?"]
        # Once more: neither the notification nor the message comes back.
        chat.server.stop()
        chat.serve(url, stand_in.ca_file)
        chat.write("Another one")
        stand_in.wait_for_requests(2)
        chat.wait_until_settled()
        assert chat.read(1) == ["Another one"]
        chat.server.stop()
        assert bodies(stand_in.requests()) == ["Are you there?", "Another one"]


def test_a_stop_in_the_middle_sends_nothing_twice(chat, tmp_path):
    """What is in flight gets its answer, what is not waits for the next start."""
    texts = [f"Text {number}" for number in range(40)]
    with StandIn(tmp_path, "--delay", "0.1") as stand_in:
        url = f"https://localhost:{stand_in.port}"
        chat.serve(url, stand_in.ca_file)
        chat.begin()
        chat.write(*texts)
        stand_in.wait_for_requests(3)
        chat.server.stop()
        left = chat.count("deliveries")
        assert left + len(stand_in.requests()) == len(texts)
        assert left
        chat.serve(url, stand_in.ca_file)
        chat.wait_until_settled()
        assert chat.read(len(texts)) == texts
        chat.server.stop()
        assert sorted(bodies(stand_in.requests())) == sorted(texts)


@pytest.mark.parametrize("wrong", ["authority", "host"])
def test_a_wrong_certificate_gets_nothing(chat, tmp_path, wrong):
    """Not a byte of the notification; the log tells once what to do, and doing it delivers."""
    store = CertificateStore(tmp_path / "stand-in")
    store.server_options("localhost")
    certificate = store.ca_path.parent / "domain-localhost.pem"  # not for 127.0.0.1
    with StandIn(tmp_path, "--certfile", str(certificate)) as stand_in:
        right = f"https://localhost:{stand_in.port}"
        if wrong == "authority":
            chat.serve(right, "builtin")
        else:
            chat.serve(f"https://127.0.0.1:{stand_in.port}", stand_in.ca_file)
        chat.begin()
        chat.write("Secret")
        chat.wait_for_tries(3)
        assert stand_in.requests() == []
        (complaint,) = chat.complaints()
        assert {
            "authority": "certificate of an unknown authority (set ca_file)",
            "host": "certificate is for localhost, not 127.0.0.1",
        }[wrong] in complaint
        assert "http_connections mongoose_push_http" in complaint
        assert "Traceback" not in chat.server.log.read_text()
        chat.server.stop()
        chat.serve(right, stand_in.ca_file)
        stand_in.wait_for_requests(1)
        chat.wait_until_settled()
        chat.server.stop()
        assert bodies(stand_in.requests()) == ["Secret"]
