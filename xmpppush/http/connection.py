"""One HTTP/1.1 client connection (RFC 9112): one request at a time, no pipelining."""

from typing import Any, cast
from typing import Protocol as Shape

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.http.prompt import write_at_once
from xmpppush.http.reasons import explain
from xmpppush.http.responses import BufferedResponse

CLOSE_TIME = 2.0  # seconds that a peer has for its part of closing
MAX_HEAD = 16 * 1024  # bytes of status line and headers, interim (1xx) answers included


class Exchange:
    """
    A request and what becomes of it.

    Attributes:
        request: Head and body as they are written.
        bodiless: The answer has no body, whatever its headers say (a HEAD request).
        result: Fires with the `BufferedResponse`, or fails with `TryLater`.
        deadline: When it fails at the latest, on the agent's clock.
        connection: Where it is in flight, ``None`` while it waits and when it is over.
        code: Status of the answer, from the end of its head on; ``0`` before.
    """

    __slots__ = ("bodiless", "code", "connection", "deadline", "owner", "request", "result")

    def __init__(self, owner: "ConnectionOwner", request: bytes, bodiless: bool, deadline: float) -> None:
        self.owner = owner
        self.request = request
        self.bodiless = bodiless
        self.deadline = deadline
        self.result: Deferred[BufferedResponse] = Deferred(self._cancelled)
        self.connection: Connection | None = None
        self.code = 0

    def _cancelled(self, result: "Deferred[BufferedResponse]") -> None:
        self.owner.cancelled(self)


class ConnectionOwner(Shape):
    """What a connection tells the pool that it belongs to."""

    host: str
    max_body: int
    clock: Any

    def ready(self, connection: "Connection") -> None:
        """It can take a request: just connected, or done with one."""

    def done(self, exchange: Exchange, response: BufferedResponse) -> None:
        """An exchange got its answer."""

    def failed(self, exchange: Exchange, reason: str) -> None:
        """An exchange will get none."""

    def cancelled(self, exchange: Exchange) -> None:
        """Whoever asked does not want the answer any longer."""

    def gone(self, connection: "Connection", reason: str) -> None:
        """It takes no further requests; called once. ``reason`` is empty where we ended it."""

    def lost(self, connection: "Connection") -> None:
        """It has ended; called once, after `gone`."""

    def drop(self, exchange: Exchange) -> str:
        """Nobody waits for this exchange any longer; returns how far it got."""


@implementer(IHandshakeListener)
class Connection(Protocol):
    """
    A connection that answers to its owner.

    Any answer that is not plain HTTP costs the connection: after a fault nobody knows where the next
    answer would begin. So does data that nobody asked for.
    """

    def __init__(self, owner: ConnectionOwner, tls: bool) -> None:
        self.owner = owner
        self._handshaking = tls
        self._parser = HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._usable = True
        self._headers_done = False
        self._complete = False
        self._keep = False
        self._problem = ""
        self._received = 0
        self._code = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._linger: IDelayedCall | None = None
        self.idle_since = 0.0

    def connectionMade(self) -> None:
        write_at_once(self.transport)
        if not self._handshaking:
            self.owner.ready(self)

    def handshakeCompleted(self) -> None:
        """The peer is who it should be; not a byte of a request was written before."""
        self._handshaking = False
        if self._usable:
            self.owner.ready(self)

    def send(self, exchange: Exchange) -> None:
        """Write the request; the connection must be idle."""
        self._exchange = exchange
        exchange.connection = self
        self._headers_done = self._complete = self._keep = False
        self._received = self._size = 0
        self._headers = []
        self._chunks = []
        self.transport.write(exchange.request)  # type: ignore[union-attr]

    def abort(self, reason: str = "") -> None:
        """Drop the connection; an exchange in flight fails with ``reason``, if there is one."""
        exchange, self._exchange = self._exchange, None
        self._leave(reason)
        if exchange is not None:
            exchange.connection = None
            if reason:
                self.owner.failed(exchange, reason)
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def close(self) -> None:
        """End an idle connection politely."""
        self._leave("")
        if self.transport is not None:
            # A TLS peer has to answer the closing alert; it may not, and then the socket would stay.
            self._linger = self.owner.clock.callLater(CLOSE_TIME, self.abort)
            self.transport.loseConnection()

    def _leave(self, reason: str) -> None:
        if self._usable:
            self._usable = False
            self.owner.gone(self, reason)

    def dataReceived(self, data: bytes) -> None:
        if self._exchange is None:
            if self._usable:
                self.abort()  # an answer without a question would be taken for the next one's
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._problem = "answer switches protocols"
        except HttpParserError:
            # After a complete answer it is rubbish behind it: the answer counts, the connection ends.
            self._keep = False
            if not self._complete:
                self._problem = self._problem or "answer is not HTTP"
        if self._problem:
            self.abort(self._problem)
        elif self._complete:
            self._finish()
        elif not self._headers_done and self._received > MAX_HEAD:
            self.abort("answer's headers are too long")
        elif self._received > self.owner.max_body + MAX_HEAD:
            self.abort("answer is too long")  # chunk extensions or trailers without end

    def _finish(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        response = BufferedResponse(self._code, self._headers, b"".join(self._chunks))
        self._exchange = exchange.connection = None
        # First the connection, then the answer: what the answer sets off can use it at once.
        if self._keep:
            self.owner.ready(self)
        else:
            self.close()
        self.owner.done(exchange, response)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._end(reason)
        self.owner.lost(self)

    def _end(self, reason: Failure) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None and self._ends_with_connection() and reason.check(ConnectionDone):
            self._leave("")
            exchange.connection = None
            body = b"".join(self._chunks)
            self.owner.done(exchange, BufferedResponse(self._code, self._headers, body))
            return
        text = explain(cast(BaseException, reason.value))
        if self._handshaking and reason.check(ConnectionDone, ConnectionLost):
            text = "connection closed in the TLS handshake"
        if exchange is not None and self._received:
            text = "connection lost in the middle of the answer"
        self._leave(text)
        if exchange is not None:
            exchange.connection = None
            self.owner.failed(exchange, text)

    def _ends_with_connection(self) -> bool:
        """Is the end of the connection the end of the body (RFC 9112 section 6.3, rule 8)?"""
        if not self._headers_done or self._complete:
            return False
        return all(name.lower() not in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    # What the parser calls. It calls on_message_complete after interim answers, too.

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        if self._received > MAX_HEAD and len(self._headers) > 1:
            self._check_head()
        self._code = self._parser.get_status_code()
        if self._code >= 200:
            self._headers_done = True
            if self._exchange is not None:
                self._exchange.code = self._code
                self._complete = self._exchange.bodiless

    def _check_head(self) -> None:
        if sum(len(name) + len(value) + 4 for name, value in self._headers) > MAX_HEAD:
            self._problem = "answer's headers are too long"

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        self._size += len(body)
        if self._size > self.owner.max_body:
            self._problem = "answer is too long"
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if not self._headers_done:
            self._headers.clear()  # an interim answer (RFC 9110 section 15.2); the real one follows
            return
        self._complete = True
        self._keep = self._parser.should_keep_alive()
