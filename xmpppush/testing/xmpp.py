"""The client's end of a stream in memory: octets in, elements out, no socket and no clock of its own."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.words.xish.domish import Element
from zope.interface import directlyProvides

from xmpppush.server.parser import StreamParser
from xmpppush.xep.namespaces import CLIENT, SASL, STREAM_ERRORS, STREAMS

DECLARATION = b"<?xml version='1.0'?>"


class MemoryTransport(StringTransport):
    """
    A `StringTransport` that can start TLS and close one direction.

    Attributes:
        tls: The context factory that `startTLS` got.
        write_closed: The other side said goodbye and still reads.
        is_reading: False while the protocol wants nothing.
        aborting: It was cut off.
        says_tls: Provides `ISSLTransport` after `startTLS`; the one behind haproxy does not.
    """

    aborting = False
    says_tls = True

    def __init__(self, address: str = "192.0.2.1", secure: bool = False) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", address, 40000))
        self.tls: object = None
        self.write_closed = False
        if secure:
            directlyProvides(self, ISSLTransport)

    @property
    def is_reading(self) -> bool:
        return bool(self.producerState == "producing")

    def startTLS(self, options: object, normal: bool = True) -> None:
        self.tls = options
        if self.says_tls:
            directlyProvides(self, ISSLTransport)

    def abortConnection(self) -> None:
        self.aborting = True
        super().abortConnection()

    def loseWriteConnection(self) -> None:
        self.write_closed = True


class StreamPeer:
    """
    Talks to a stream protocol of ours.

    Attributes:
        header: The last stream header that came.
        ended: Their closing tag came.
    """

    namespace = CLIENT

    def __init__(self, protocol: Protocol, transport: MemoryTransport | None = None) -> None:
        self.protocol: Any = protocol
        self.transport = transport or MemoryTransport()
        self.header: Element | None = None
        self.ended = False
        self._elements: list[Element] = []
        self._parser: StreamParser | None = None
        self.protocol.makeConnection(self.transport)

    def send(self, xml: str | bytes) -> None:
        self.protocol.dataReceived(xml.encode() if isinstance(xml, str) else xml)

    def open(self, domain: str = "localhost", namespace: str = CLIENT) -> None:
        """Send a stream header."""
        self.send(
            f"<?xml version='1.0'?><stream:stream xmlns='{namespace}' xmlns:stream='{STREAMS}'"
            f" to='{domain}' version='1.0'>"
        )

    def receive(self) -> list[Element]:
        """What came since the last call, headers left out."""
        data = self.transport.value()
        self.transport.clear()
        for number, part in enumerate(data.split(DECLARATION)):
            if number:
                self._parser = StreamParser(
                    self._started, self._received, self._goodbye, 10**9, self.namespace
                )
                self._parser.feed(DECLARATION)
            if part:
                assert self._parser is not None, "no stream header yet"
                self._parser.feed(part)
        elements, self._elements = self._elements, []
        return elements

    def receive_one(self) -> Element:
        """The only element that came."""
        elements = self.receive()
        assert len(elements) == 1, [element.toXml() for element in elements]
        return elements[0]

    def ask(self, xml: str) -> Element:
        """Send, and return the only answer."""
        self.send(xml)
        return self.receive_one()

    def stream_error(self) -> str | None:
        """Condition of the stream error that came; ``None``: none."""
        for element in self.receive():
            if (element.uri, element.name) == (STREAMS, "error"):
                return next(str(c.name) for c in element.elements() if c.uri == STREAM_ERRORS)
        return None

    def log_in_plain(self, user: str = "alice", password: str = "secret") -> Element:  # noqa: S107
        """SASL PLAIN; returns ``<success/>`` or ``<failure/>``."""
        return self.ask(auth("PLAIN", f"\0{user}\0{password}"))

    def bind(self, resource: str = "") -> Element:
        """Ask for a resource; returns the answer."""
        wanted = f"<resource>{resource}</resource>" if resource else ""
        return self.ask(
            f"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{wanted}</bind></iq>"
        )

    def lose_connection(self, reason: BaseException | None = None) -> None:
        """The connection is gone."""
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def _started(self, header: Element) -> None:
        self.header = header

    def _received(self, element: Element) -> None:
        self._elements.append(element)

    def _goodbye(self) -> None:
        self.ended = True


def auth(mechanism: str, message: str) -> str:
    """An ``<auth/>`` with its initial response."""
    return f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{b64encode(message.encode()).decode()}</auth>"


def response(message: str) -> str:
    return f"<response xmlns='{SASL}'>{b64encode(message.encode()).decode()}</response>"


def names_of(element: Element) -> Iterator[str]:
    """Names of its child elements."""
    return (str(child.name) for child in element.elements())
