"""Stand-ins for what streams between servers need, and servers to talk to them."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Protocol
from twisted.words.xish.domish import Element

from xmpppush.server.s2s.targets import Target
from xmpppush.testing.xmpp import MemoryTransport, StreamPeer
from xmpppush.xep.namespaces import DIALBACK, SERVER, STREAMS


class FakeTLS:
    """
    What `S2STLS` does, decided by the test.

    Attributes:
        proven: Domains that the certificate at the other end names.
    """

    def __init__(self, *proven: str) -> None:
        self.proven = set(proven)

    def outgoing(self, local: str, remote: str, direct: bool) -> Any:
        return "outgoing", local, remote, direct

    def incoming(self) -> Any:
        return "incoming"

    def refusal(self, transport: Any, domain: str) -> str:
        return "" if domain in self.proven else "certificate of an unknown authority"


class FakeTargets:
    """
    Says of each domain what the test says.

    Attributes:
        found: Targets of a domain, or an exception.
        forgotten: Domains whose servers were not reached.
    """

    def __init__(self) -> None:
        self.found: dict[str, Sequence[Target] | Exception] = {}
        self.forgotten: list[str] = []

    def lookup(self, domain: str) -> "Deferred[Sequence[Target]]":
        found = self.found.get(domain, (Target("192.0.2.1", 5269, False),))
        return fail(found) if isinstance(found, Exception) else succeed(found)

    def forget(self, domain: str) -> None:
        self.forgotten.append(domain)


class RecordingRouter:
    """
    A router whose stanzas go nowhere.

    Attributes:
        routed: All of them.
        routes: The domains that are here.
    """

    elsewhere: Any = None

    def __init__(self, *domains: str) -> None:
        self.routes: dict[str, Any] = dict.fromkeys(domains)
        self.routed: list[Element] = []

    def route(self, stanza: Element) -> None:
        self.routed.append(stanza)


class ServerPeer(StreamPeer):
    """Another server, on either end of a stream."""

    namespace = SERVER

    def __init__(self, protocol: Protocol, transport: MemoryTransport | None = None) -> None:
        super().__init__(protocol, transport)

    def greet(self, sender: str = "", to: str = "", stream_id: str = "", version: str = "1.0") -> None:
        """Send a stream header."""
        attributes = {"from": sender, "to": to, "id": stream_id, "version": version}
        given = "".join(f" {name}='{value}'" for name, value in attributes.items() if value)
        self.send(
            f"<?xml version='1.0'?><stream:stream xmlns='{SERVER}' xmlns:stream='{STREAMS}'"
            f" xmlns:db='{DIALBACK}'{given}>"
        )

    def offer(self, features: str = "") -> None:
        """Send stream features."""
        self.send(f"<stream:features>{features}</stream:features>")
