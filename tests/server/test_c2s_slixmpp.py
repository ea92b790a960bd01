"""A real client, in a process of its own, against a real listener with TLS."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.certificates import CertificateStore
from xmpppush.config.sections import AuthSection, LimitsSection, ListenSection, TLSSection
from xmpppush.interfaces import ISessionHost
from xmpppush.model import Account
from xmpppush.server.authenticator import AccountAuthenticator
from xmpppush.server.c2s import C2SFactory
from xmpppush.server.sasl import derive_keys
from xmpppush.server.session import Session

LONGEST = 45.0  # seconds that a client may take; on a busy machine slixmpp is slow to load
ALICE = Account("alice@localhost", derive_keys("secret"))

CLIENT = """
import asyncio, sys
from slixmpp import ClientXMPP

port, mechanism, ca, direct, password = sys.argv[1:]

class Phone(ClientXMPP):
    def __init__(self):
        super().__init__("alice@localhost/phone", password, sasl_mech=mechanism)
        self.ca_certs = ca
        self.enable_direct_tls = direct == "direct"
        self.enable_starttls = direct != "direct"
        self.done = asyncio.get_event_loop().create_future()
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("failed_auth", lambda failure: self.finish("failed " + failure["condition"]))
        self.add_event_handler("message", self.arrived)
        self.add_event_handler("stream_error", lambda error: self.finish(error["condition"]))

    async def started(self, event):
        self.send_message("alice@localhost/phone", "Gr\\u00fc\\u00dfe <&>")

    def arrived(self, message):
        self.finish(f"{message['from']} says {message['body']}")

    def finish(self, text):
        if not self.done.done():
            self.done.set_result(text)

async def main():
    phone = Phone()
    phone.connect("127.0.0.1", int(port))
    print(await asyncio.wait_for(phone.done, 15))
    await asyncio.wait_for(phone.disconnect(), 5)

asyncio.run(main())
"""


class Accounts:
    def get(self, jid: str) -> "Deferred[Account | None]":
        return succeed(ALICE if jid == ALICE.jid else None)


@implementer(ISessionHost)
class Echo:
    """Everything goes back to its sender."""

    domains = frozenset(["localhost"])

    def bind(self, session: Session, account: str, resource: str | None) -> str:
        return resource or "r"

    def unbind(self, session: Session) -> None:
        pass

    def stanza(self, session: Session, stanza: Element) -> None:
        if stanza.name == "message":
            session.send(stanza)


class Server:
    def __init__(self, data_dir: Path, tls: str) -> None:
        certificates = CertificateStore(data_dir, TLSSection(), {})
        self.direct = certificates.sni_options(["localhost"]) if tls == "direct" else None
        self.ca = certificates.ca_path
        self.factory = C2SFactory(
            ListenSection("c2s", "c2s", "tcp:0", tls=tls),
            AuthSection(),
            LimitsSection(),
            certificates,
            AccountAuthenticator(Accounts()),
            Echo(),
            reactor,
        )

    async def listen(self) -> int:
        factory: Any = self.factory
        if self.direct is not None:
            factory = TLSMemoryBIOFactory(self.direct, False, factory)
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        return self.port.getHost().port

    async def stop(self) -> None:
        await self.port.stopListening()
        await self.factory.close_all()


async def talk(tmp_path: Path, mechanism: str, tls: str = "required", password: str = "secret") -> str:
    """What the client has to say at its end."""
    server = Server(tmp_path, tls)
    port = await server.listen()
    server.factory.certificates.server_options("localhost")
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    command = [sys.executable, str(script), str(port), mechanism, str(server.ca), tls, password]
    try:
        # Killed when it takes longer: a client that hangs fails its test and no other.
        done = await deferToThread(subprocess.run, command, capture_output=True, timeout=LONGEST)
    finally:
        await server.stop()
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"])
@pytest_twisted.ensureDeferred
async def test_slixmpp_logs_in(tmp_path, mechanism):
    """STARTTLS with our certificate verified, login, binding, and a message there and back."""
    assert await talk(tmp_path, mechanism) == "alice@localhost/phone says Grüße <&>"


@pytest_twisted.ensureDeferred
async def test_slixmpp_with_direct_tls(tmp_path):
    """The same with TLS from the first octet on (XEP-0368)."""
    assert await talk(tmp_path, "SCRAM-SHA-256", "direct") == "alice@localhost/phone says Grüße <&>"


@pytest_twisted.ensureDeferred
async def test_slixmpp_with_a_wrong_password(tmp_path):
    """It is told so."""
    assert await talk(tmp_path, "SCRAM-SHA-256", password="wrong") == "failed not-authorized"


@pytest.mark.parametrize("attack", ["newlines", "laughs", "depth"])
@pytest_twisted.ensureDeferred
async def test_attacker_can_read_the_stream_error(tmp_path, attack):
    """Over a real socket the error arrives, though the attacker is still sending."""
    server = Server(tmp_path, "required")
    port = await server.listen()
    header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
    data = {
        "newlines": header + "to='localhost' version='1.0'><auth>" + "\n" * 2**20,
        "laughs": "<!DOCTYPE l [<!ENTITY a 'ha'>]>" + header + ">" * 2**20,
        "depth": header + "to='localhost' version='1.0'>" + "<a>" * 10**5,
    }[attack]

    def attacker() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(data.encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    answer = await deferToThread(attacker)
    await server.stop()
    expected = b"restricted-xml" if attack == "laughs" else b"policy-violation"
    assert b"<stream:error><" + expected in answer
    assert answer.endswith(b"</stream:stream>")
