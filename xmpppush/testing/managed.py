"""
A client that counts: stream management (XEP-0198) on asyncio, and nothing done that nobody asked for.

Where slixmpp would help, as by answering or by connecting again, a test of acknowledgements sees less. No
TLS, PLAIN, no resumption: each login is a new session.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from xml.sax.saxutils import quoteattr

from twisted.words.xish.domish import Element

from xmpppush.server.parser import StreamParser
from xmpppush.testing.xmpp import auth
from xmpppush.xep.namespaces import BIND, CLIENT, SM, STREAMS

PATIENCE = 15.0  # seconds for each answer of a login
LARGEST = 10**9


class StreamEnded(Exception):
    """The stream is over, or the server said no; the text is what it said."""


class ManagedStream:
    """
    A session with acknowledgements both ways.

    Attributes:
        messages: Those that came, errors too, in order; `on_message` gets them as they come.
        acknowledged: How many stanzas the server acknowledged since the login.
        sent: How many were sent to it.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        domain: str,
        on_message: Callable[[Element], object] | None = None,
        on_acknowledged: Callable[[int], object] | None = None,
    ) -> None:
        self.messages: list[Element] = []
        self.acknowledged = 0
        self.sent = 0
        self._reader = reader
        self._writer = writer
        self._domain = domain
        self._on_message = on_message or self.messages.append
        self._on_acknowledged = on_acknowledged or (lambda _count: None)
        self._elements: deque[Element] = deque()
        self._received = 0
        self._managed = False
        self._parser = self._new_parser()

    @classmethod
    async def log_in(
        cls,
        address: tuple[str, int],
        jid: str,
        password: str,
        on_message: Callable[[Element], object] | None = None,
        on_acknowledged: Callable[[int], object] | None = None,
    ) -> "ManagedStream":
        """
        Connect, log in, bind and enable stream management.

        Args:
            jid: With the resource.
            on_message: Gets each message, in place of `messages`.
            on_acknowledged: Told how many stanzas of this session the server has, each time it says so.

        Raises:
            StreamEnded, OSError: Not so.
        """
        user, _, rest = jid.partition("@")
        domain, _, resource = rest.partition("/")
        stream = cls(*await asyncio.open_connection(*address), domain, on_message, on_acknowledged)
        try:
            await stream._open()
            await stream._ask(auth("PLAIN", f"\0{user}\0{password}"), "success")
            await stream._open()
            await stream.ask(
                f"<iq type='set' id='bind'><bind xmlns='{BIND}'><resource>{resource}</resource></bind></iq>"
            )
            await stream._ask(f"<enable xmlns='{SM}'/>", "enabled")
        except BaseException:
            stream.cut()
            raise
        stream._managed = True
        return stream

    async def ask(self, iq: str) -> Element:
        """The answer to an iq, which is no error; not while `run` runs."""
        if self._managed:
            self.sent += 1
        answer = await self._ask(iq, "iq")
        if answer.getAttribute("type") != "result":
            raise StreamEnded(answer.toXml())
        return answer

    def send(self, stanza: str) -> None:
        """A stanza, and whether it is on disk: `acknowledged` tells."""
        self.sent += 1
        self._writer.write(f"{stanza}<r xmlns='{SM}'/>".encode())

    async def drained(self) -> None:
        """Returns when there is room for more."""
        try:
            await self._writer.drain()
        except OSError as error:
            raise StreamEnded(str(error)) from error

    async def run(self) -> None:
        """Take what comes until the stream ends."""
        with suppress(StreamEnded):
            while True:
                self._handle(await self._next())

    async def close(self) -> None:
        """Acknowledge what came, and say goodbye."""
        self._acknowledge()
        self._writer.write(b"</stream:stream>")
        with suppress(OSError):
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()

    def cut(self) -> None:
        """The connection is gone from one moment to the next."""
        self._writer.transport.abort()

    async def _open(self) -> None:
        self._parser = self._new_parser()
        self._writer.write(
            f"<?xml version='1.0'?><stream:stream to={quoteattr(self._domain)} version='1.0'"
            f" xmlns='{CLIENT}' xmlns:stream='{STREAMS}'>".encode()
        )
        await self._wait_for("features")

    async def _ask(self, xml: str, wanted: str) -> Element:
        self._writer.write(xml.encode())
        return await self._wait_for(wanted)

    async def _wait_for(self, wanted: str) -> Element:
        async with asyncio.timeout(PATIENCE):
            while (element := await self._next()).name != wanted:
                if element.name in ("failure", "failed", "error"):
                    raise StreamEnded(element.toXml())
                self._handle(element)
        self._count(element)
        return element

    async def _next(self) -> Element:
        while not self._elements:
            try:
                data = await self._reader.read(65536)
            except OSError as error:
                raise StreamEnded(str(error)) from error
            if not data:
                raise StreamEnded("the connection was closed")
            self._parser.feed(data)
        return self._elements.popleft()

    def _handle(self, element: Element) -> None:
        self._count(element)
        if element.uri == SM and element.name == "r":
            self._acknowledge()
        elif element.uri == SM and element.name == "a":
            self.acknowledged = int(element["h"])
            self._on_acknowledged(self.acknowledged)
        elif element.name == "message":
            self._on_message(element)

    def _count(self, element: Element) -> None:
        if self._managed and element.name in ("message", "presence", "iq"):
            self._received += 1

    def _acknowledge(self) -> None:
        self._writer.write(f"<a xmlns='{SM}' h='{self._received}'/>".encode())

    def _new_parser(self) -> StreamParser:
        return StreamParser(lambda _header: None, self._elements.append, lambda: None, LARGEST)
