"""
A small HTTP/1.1 server on httptools, for a service whose requests are little JSON documents.

twisted.web takes 115 microseconds for a request before ours is asked, this takes 20. It also reads bodies of
any size, and starts its timer anew with each byte, so that a client that sends one a minute stays for ever.
"""

import re
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from zope.interface import implementer

# Request line and headers; a device id of 4096 octets takes three times that when percent-encoded.
MAX_HEAD = 16 * 1024
MAX_BODY = 8 * 1024 * 1024
# Of a chunked body, what is not the body: sizes, extensions and trailers, for which the parser has no limit.
MAX_FRAMING = 1024 * 1024
# Between requests, and for a whole request to arrive.
REQUEST_TIMEOUT = 60.0
# For a client to close after our last word. One that is told 413 is still sending: closing at once could make
# it lose the answer.
LINGER = 5.0


JSON = b"application/json; charset=utf-8"


@frozen
class HTTPRequest:
    """
    A request that arrived whole.

    Attributes:
        path: As sent, percent-encoded, without the query. May hold a device id.
        headers: Names in lower case; repeated ones are joined with commas.
    """

    method: str
    path: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


@frozen
class Answer:
    """An HTTP answer, mostly of JSON; ``headers`` are those besides the usual ones."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: bytes = JSON


Handler = Callable[[HTTPRequest], "Answer | Deferred[Answer]"]


@implementer(IPushProducer)
class HTTPServerProtocol(Protocol):
    """
    One connection: kept alive, pipelined requests answered in order, one at a time.

    It is its transport's producer, too: it reads no further request while a client leaves its answers
    unread, or while one is being answered.
    """

    factory: "HTTPServerFactory"
    transport: Any  # ITransport, IPushProducer and IConsumer at once; no interface of Twisted's says so
    _log = Logger()

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_size = 0
        self._received = 0  # octets of the body with all around it
        self._head_size: int | None = 0  # None: the head is complete, this is the body
        self._complete = False  # has a request ended in these octets?
        self._waiting: deque[tuple[HTTPRequest, bool]] = deque()
        self._answering = False
        self._ahead = False  # something came while a request was being answered
        self._unread_answers = False
        self._paused = False
        self._last_request = False
        self._closing = False
        self._deadline = 0.0
        self._timer: IDelayedCall | None = None

    # What Twisted calls.

    def connectionMade(self) -> None:
        self.factory.connections.add(self)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._has(self.factory.timeout)

    def _has(self, seconds: float) -> None:
        """The client's time begins anew. Where it ends later than before the timer stays, and looks then."""
        clock = self.factory.clock
        deadline = clock.seconds() + seconds
        if self._timer is None or deadline < self._deadline:
            self._stop_timer()
            self._timer = clock.callLater(seconds, self._look)
        self._deadline = deadline

    def _look(self) -> None:
        self._timer = None
        left = self._deadline - self.factory.clock.seconds()
        if left > 0:
            self._timer = self.factory.clock.callLater(left, self._look)
        else:
            self.transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def dataReceived(self, data: bytes) -> None:
        if self._closing or self._last_request:
            return
        if self._answering:
            # Reading pauses only here: few clients send ahead, and pausing costs two system calls.
            self._ahead = True
            self._set_reading()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Curl asks for h2c. We may decline by answering as usual (RFC 9110 section 7.8), but the parser
            # reads no further, so this request is the last.
            return
        except httptools.HttpParserError:
            self._refuse(400, "bad_request")
            return
        if self._complete:
            # What is behind a whole request, the beginning of the next head, is counted with its next octets.
            self._complete = False
        elif self._head_size is not None:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD and not self._closing:
                self._refuse(431, "header_fields_too_large")
        else:
            self._received += len(data)
            if self._received - self._body_size > MAX_FRAMING and not self._closing:
                self._refuse(413, "payload_too_large")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        self._waiting.clear()
        self._stop_timer()
        self.factory.connection_lost(self)

    def pauseProducing(self) -> None:
        """The client reads slower than we answer."""
        self._unread_answers = True
        self._set_reading()

    def resumeProducing(self) -> None:
        self._unread_answers = False
        self._set_reading()
        self._next()

    def stopProducing(self) -> None:
        """The transport closes; `connectionLost` follows."""

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._has(self.factory.timeout)
        self._url = b""
        self._headers = {}
        self._body = []
        self._body_size = self._received = 0
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_size is None:
            return  # a trailer, which is no header (RFC 9110 section 6.5.1)
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self._headers:
            text = f"{self._headers[key]}, {text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        self._head_size = None
        # httptools has checked that it is a number, and that no Transfer-Encoding is beside it.
        length = self._headers.get("content-length")
        if length is not None and (len(length) > 10 or int(length) > self.factory.max_body):
            self._refuse(413, "payload_too_large")
        elif "expect" in self._headers and self._headers["expect"].lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._closing or self._last_request:
            return
        self._body_size += len(body)
        if self._body_size > self.factory.max_body:
            self._refuse(413, "payload_too_large")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._closing or self._last_request:
            return
        self._head_size = 0
        self._complete = True
        request = HTTPRequest(
            self._parser.get_method().decode("latin-1"),
            self._url.split(b"?", 1)[0],
            self._headers,
            b"".join(self._body),
        )
        self._body = []
        keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._last_request = not keep_alive
        self._waiting.append((request, keep_alive))
        self._next()
        if self._waiting:
            self._ahead = True
            self._set_reading()

    # Answering.

    def _next(self) -> None:
        while self._waiting and not (self._answering or self._unread_answers or self._closing):
            request, keep_alive = self._waiting.popleft()
            try:
                answer = self.factory.handler(request)
            except Exception:
                self._log.failure("a request could not be handled")
                answer = self.factory.internal_error
            if isinstance(answer, Answer):
                self._send(request, keep_alive, answer)
            else:
                self._answering, self._ahead = True, False
                answer.addCallback(partial(self._late, request, keep_alive))
                answer.addErrback(self._failed, request)

    def _late(self, request: HTTPRequest, keep_alive: bool, answer: Answer) -> None:
        self._answering = False
        if self._closing:  # the client has gone meanwhile
            return
        self._send(request, keep_alive, answer)
        self._set_reading()
        self._next()

    def _failed(self, failure: Failure, request: HTTPRequest) -> None:
        self._log.failure("a request could not be handled", failure)
        self._late(request, False, self.factory.internal_error)

    def _send(self, request: HTTPRequest, keep_alive: bool, answer: Answer) -> None:
        close = not keep_alive or self.factory.draining or (self._last_request and not self._waiting)
        self.transport.write(self.factory.render(request, answer, close))
        if close:
            self.close()
        else:
            self._has(self.factory.timeout)

    def _refuse(self, status: int, reason: str) -> None:
        """Answer, and wait a little for the client to close."""
        if self._answering or self._waiting:
            # Said now, it would be taken for the answer to a request before it, which may be delivered. The
            # connection ends behind that one's answer.
            self._last_request = True
            return
        request = HTTPRequest("", self._url, {}, b"")
        answer = self.factory.refusal(request, status, reason)
        self.transport.write(self.factory.render(request, answer, True))
        self._end()

    def close(self) -> None:
        """Close after what is written; by force where the client does not play its part."""
        self._end()
        self.transport.loseConnection()

    def _end(self) -> None:
        self._closing = True
        self._waiting.clear()
        self.transport.unregisterProducer()
        if self._paused:
            # TLS ends with a word from the client, which has to be read.
            self.transport.resumeProducing()
        self._has(LINGER)

    def _set_reading(self) -> None:
        paused = (self._answering and self._ahead) or self._unread_answers
        if paused != self._paused and not self._closing:
            self._paused = paused
            (self.transport.pauseProducing if paused else self.transport.resumeProducing)()

    @property
    def idle(self) -> bool:
        """Is no request being answered?"""
        return not (self._answering or self._waiting)


class HTTPServerFactory(ServerFactory[HTTPServerProtocol]):
    """
    Serves a handler to a bounded number of connections.

    There is no access log: its lines would hold device ids.
    """

    noisy = False
    protocol = HTTPServerProtocol
    _log = Logger()

    def __init__(
        self,
        handler: Handler,
        refusal: Callable[[HTTPRequest, int, str], Answer],
        clock: IReactorTime,
        random: Callable[[int], bytes],
        max_connections: int,
        max_body: int = MAX_BODY,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        """
        Args:
            refusal: Words the answer to what never becomes a request: status and reason.
        """
        self.handler = handler
        self.refusal = refusal
        self.internal_error = Answer(500, b'{"reason":"internal_error"}')
        self.clock = clock
        self.timeout = timeout
        self.max_body = max_body
        self.connections: set[HTTPServerProtocol] = set()
        self.draining = False
        self._random = random
        self._max_connections = max_connections
        self._told = False
        self._drained: Deferred[None] | None = None
        self._date = (0, b"")

    @property
    def full(self) -> bool:
        """May no more clients connect? Logged once each time that it comes to that."""
        if len(self.connections) < self._max_connections:
            return False
        if not self._told:
            self._told = True
            self._log.warn(
                "push service refuses new connections: {open} are open", open=len(self.connections)
            )
        return True

    def buildProtocol(self, addr: IAddress | None) -> HTTPServerProtocol | None:
        return None if self.full else super().buildProtocol(addr)

    def connection_lost(self, connection: HTTPServerProtocol) -> None:
        self.connections.discard(connection)
        if len(self.connections) < self._max_connections // 2:
            self._told = False
        if self._drained is not None and not self.connections:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def drain(self) -> "Deferred[None]":
        """Close what is idle now, the rest after its answer; fires when all connections are gone."""
        self.draining = True
        drained: Deferred[None] = Deferred()
        self._drained = drained
        for connection in tuple(self.connections):
            if connection.idle:
                connection.close()
        if not self.connections and not drained.called:
            self._drained = None
            drained.callback(None)
        return drained

    def abort(self) -> None:
        """Close what is left without further words."""
        for connection in tuple(self.connections):
            connection.transport.abortConnection()

    def render(self, request: HTTPRequest, answer: Answer, close: bool) -> bytes:
        """The answer's octets."""
        extra = "".join([f"{name}: {value}\r\n" for name, value in answer.headers])
        if close:
            extra += "connection: close\r\n"
        return _ANSWER % (
            answer.status,
            _PHRASES[answer.status],
            self._date_header(),
            answer.content_type,
            self._request_id(request),
            extra.encode("latin-1"),
            len(answer.body),
            b"" if request.method == "HEAD" else answer.body,
        )

    def _request_id(self, request: HTTPRequest) -> bytes:
        given = request.headers.get("x-request-id", "")
        return given.encode() if _REQUEST_ID.fullmatch(given) else urlsafe_b64encode(self._random(15))

    def _date_header(self) -> bytes:
        now = int(self.clock.seconds())
        if self._date[0] != now:
            self._date = (now, datetimeToString(now))
        return self._date[1]


_ANSWER = (
    b"HTTP/1.1 %d %b\r\n"
    b"server: xmpppush\r\n"
    b"date: %b\r\n"
    b"cache-control: max-age=0, private, must-revalidate\r\n"
    b"content-type: %b\r\n"
    b"x-request-id: %b\r\n"
    b"%b"
    b"content-length: %d\r\n\r\n%b"
)
_PHRASES = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
_REQUEST_ID = re.compile(r"[\x21-\x7e]{20,200}")
