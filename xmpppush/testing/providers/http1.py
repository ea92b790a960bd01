"""One HTTP/1.1 connection of an emulator: FCM, its token endpoint and Web Push are spoken over this, too."""

from http import HTTPStatus
from typing import Any

from httptools import HttpParserError, HttpRequestParser
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from xmpppush.testing.providers import faults
from xmpppush.testing.providers.http2 import MAX_BODY, Application
from xmpppush.testing.providers.wire import Reply, Request

PHRASES = {status.value: status.phrase for status in HTTPStatus}


class HTTP1Connection(Protocol):
    """Answers one request after the other; pipelined ones in their order."""

    transport: Any
    pings = 0
    refused = 0

    def __init__(self, application: Application) -> None:
        self._application = application
        self._parser = HttpRequestParser(self)
        self._count = 0
        self._waiting: dict[int, Reply | None] = {}  # requests in order, and their answers
        self._gone = False
        self.number = 0

    def connectionMade(self) -> None:
        self.number = self._application.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self._waiting.clear()
        self._application.closed(self)

    def dataReceived(self, data: bytes) -> None:
        if self._gone:
            return
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._end()

    def on_message_begin(self) -> None:
        self._path = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._headers.append((name, value))
        if name == b"expect":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= MAX_BODY + 1:  # one more shows that it is too large
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._gone:
            return
        self._count += 1
        self._waiting[self._count] = None
        self._application.received_request(
            Request(
                self,
                self._count,
                self._parser.get_method().decode("latin-1"),
                self._path.decode("latin-1"),
                self._headers,
                b"".join(self._body),
            )
        )

    def send(self, stream: int, reply: Reply) -> None:
        if self._gone or stream not in self._waiting:
            return
        self._waiting[stream] = reply
        while self._waiting:
            first = next(iter(self._waiting))
            answer = self._waiting[first]
            if answer is None:
                return
            del self._waiting[first]
            lines = [b"HTTP/1.1 %d %s" % (answer.status, PHRASES.get(answer.status, "Unknown").encode())]
            lines += [b"%s: %s" % header for header in answer.headers]
            lines.append(b"content-length: %d\r\n\r\n" % len(answer.body))
            self.transport.write(b"\r\n".join(lines) + answer.body)

    def fail(self, stream: int, action: str) -> None:
        if action == faults.HANG:
            self.transport.pauseProducing()
        elif action != faults.SILENCE:
            self._end(politely=action == faults.GOAWAY)

    def go_away(self) -> None:
        """End the connection."""
        self._end()

    def _end(self, politely: bool = True) -> None:
        if not self._gone:
            self._gone = True
            if politely:
                self.transport.loseConnection()
            else:
                self.transport.abortConnection()
