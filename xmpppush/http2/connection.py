"""One HTTP/2 client connection: many requests at a time, as many as the other side allows."""

from typing import Any, cast
from typing import Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.http.reasons import explain
from xmpppush.http.responses import BufferedResponse
from xmpppush.http2 import frames
from xmpppush.http2.frames import (
    CANCEL,
    DEFAULT_WINDOW,
    FLOW_CONTROL_ERROR,
    MAX_BLOCK,
    MAX_FRAME,
    MAX_WINDOW,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    FrameError,
    FrameReader,
)
from xmpppush.http2.headers import NO_TABLE, FieldReader, Header

ALPN = b"h2"
CLOSE_TIME = 2.0  # seconds that a peer has for its part of closing
PING_INTERVAL = 30.0  # seconds without a byte from the peer until it is asked
PING_TIMEOUT = 5.0  # seconds that it has to answer
# PING and SETTINGS have to be answered, also to a peer that reads none of it (RFC 9113 section 10.5).
MAX_UNREAD = 256 * 1024
MAX_STREAMS = 1000  # however many more the peer would take
# Stream numbers are used once (RFC 9113 section 5.1.1); before they run out the connection is replaced.
LAST_STREAM = 2**31 - 1 - 2 * MAX_STREAMS
# What peers may send of answers, over all streams, before we say that it came.
RECEIVE_WINDOW = 1024 * 1024


class Exchange:
    """
    A request and what becomes of it.

    Attributes:
        block: Headers from `xmpppush.http2.headers.pack`.
        result: Fires with the `BufferedResponse`, or fails with `TryLater`.
        deadline: When it fails at the latest, on the client's clock.
        connection: Where it is in flight, ``None`` while it waits and when it is over.
        sent: Bytes of the body that are written.
        window: Further bytes that the peer takes on this stream (RFC 9113 section 6.9).
        size: Bytes of the answer's body, padding included.
        tries: Connections that sent it back untouched.
    """

    __slots__ = (
        "block",
        "body",
        "chunks",
        "code",
        "connection",
        "deadline",
        "fields",
        "owner",
        "result",
        "sent",
        "size",
        "stream_id",
        "tries",
        "window",
    )

    def __init__(self, owner: "ConnectionOwner", block: bytes, body: bytes, deadline: float) -> None:
        self.owner = owner
        self.block = block
        self.body = body
        self.deadline = deadline
        self.result: Deferred[BufferedResponse] = Deferred(self._cancelled)
        self.connection: Connection | None = None
        self.tries = 0
        self.reset(0, 0)

    def reset(self, stream_id: int, window: int) -> None:
        """Begin anew on this stream."""
        self.stream_id = stream_id
        self.window = window
        self.sent = 0
        self.code = 0
        self.fields: list[Header] = []
        self.chunks: list[bytes] = []
        self.size = 0

    def _cancelled(self, result: "Deferred[BufferedResponse]") -> None:
        self.owner.cancelled(self)


class ConnectionOwner(Shape):
    """What a connection tells the client that it belongs to."""

    max_body: int
    clock: Any

    def ready(self, connection: "Connection") -> None:
        """Something changed, there may be `Connection.room`; the first call says that it is connected."""

    def done(self, exchange: Exchange, response: BufferedResponse) -> None:
        """An exchange got its answer."""

    def failed(self, exchange: Exchange, reason: str) -> None:
        """An exchange will get none, and the peer may have acted upon it."""

    def again(self, exchange: Exchange) -> None:
        """The peer did not touch this request (or never saw it): it can be sent elsewhere."""

    def cancelled(self, exchange: Exchange) -> None:
        """Whoever asked does not want the answer any longer."""

    def leaving(self, connection: "Connection", reason: str) -> None:
        """It takes no further requests; called once. ``reason`` is empty where we ended it."""

    def lost(self, connection: "Connection") -> None:
        """It has ended; called once, after `leaving`."""


@implementer(IHandshakeListener, IPushProducer)
class Connection(Protocol):
    """
    A connection that answers to its owner.

    What is written in one turn of the reactor leaves in one piece. A peer that does not read what we write
    gets no further requests; one that is silent is asked by PING, and left if it does not answer.
    """

    def __init__(self, owner: ConnectionOwner, tls: bool, wanted: frozenset[bytes] | None = None) -> None:
        """
        Args:
            tls: ``False``: plain TCP with prior knowledge (RFC 9113 section 3.3).
            wanted: The answer's headers that matter, ``None``: all.
        """
        self.owner = owner
        self._tls = tls
        self._reader = FrameReader(self)
        self._fields = FieldReader(wanted)
        self._out: list[bytes] = []
        self._next = 1  # stream number
        self._prefix = NO_TABLE  # of the first block
        # What the peer takes (RFC 9113 sections 6.5.2 and 6.9.2).
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._max_frame = MAX_FRAME
        self._received = 0  # octets of our window that are used up
        self._exchanges: dict[int, Exchange] = {}
        self._blocked: dict[int, Exchange] = {}
        self._usable = True
        self._begun = False
        self._settled = False
        self._paused = False
        self._unread = 0  # octets written although the peer does not read
        self._busy = False
        self._flush: IDelayedCall | None = None
        self._written = 0
        self._heard = False
        self._asked = False
        self._watch: IDelayedCall | None = None
        self._linger: IDelayedCall | None = None
        self._limit = 0

    @property
    def room(self) -> int:
        """How many more requests it takes now."""
        if not self._usable or self._paused:
            return 0
        return self._limit - len(self._exchanges)

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return len(self._exchanges)

    def connectionMade(self) -> None:
        if not self._tls:
            self._begin()

    def handshakeCompleted(self) -> None:
        """The peer is who it should be; not a byte was written before."""
        if not self._usable:
            return
        if getattr(self.transport, "negotiatedProtocol", None) != ALPN:
            self.abort("the server does not speak HTTP/2 here (ALPN without h2)")
            return
        self._begin()

    def _begin(self) -> None:
        self._begun = True
        if ITCPTransport.providedBy(self.transport):
            # Requests are small: Nagle would hold each back until the one before is acknowledged.
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self._out += (
            PREFACE,
            frames.settings(
                (
                    (frames.HEADER_TABLE_SIZE, 0),
                    (frames.ENABLE_PUSH, 0),
                    # No answer that we take needs more of its stream.
                    (frames.INITIAL_WINDOW_SIZE, max(DEFAULT_WINDOW, self.owner.max_body + MAX_FRAME)),
                    (frames.MAX_HEADER_LIST_SIZE, MAX_BLOCK),
                )
            ),
            frames.window_update(0, RECEIVE_WINDOW - DEFAULT_WINDOW),
        )
        self._write()
        self._watch = self.owner.clock.callLater(PING_INTERVAL, self._look)

    def send(self, exchange: Exchange) -> None:
        """Send a request; there must be `room`."""
        stream_id = self._next
        self._next = stream_id + 2
        exchange.reset(stream_id, self._stream_window)
        exchange.connection = self
        self._exchanges[stream_id] = exchange
        block, body = exchange.block, exchange.body
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        self._out.append(frames.headers(stream_id, block, not body, self._max_frame))
        if body:
            self._send_body(exchange)
        if stream_id >= LAST_STREAM:
            self._leave("")
        if not self._busy and self._flush is None:
            self._flush = self.owner.clock.callLater(0, self._write)

    def _send_body(self, exchange: Exchange) -> None:
        """As much of it as the peer takes (RFC 9113 section 5.2); the rest waits for its WINDOW_UPDATE."""
        body, stream_id = exchange.body, exchange.stream_id
        total = len(body)
        while exchange.sent < total:
            size = min(total - exchange.sent, exchange.window, self._window, self._max_frame)
            if size <= 0:
                self._blocked[stream_id] = exchange
                return
            end = exchange.sent + size
            part = body if size == total else body[exchange.sent : end]
            self._out += (
                frames.head(frames.DATA, frames.END_STREAM if end == total else 0, stream_id, size),
                part,
            )
            exchange.sent = end
            exchange.window -= size
            self._window -= size
        self._blocked.pop(stream_id, None)

    def _write(self) -> None:
        if self._flush is not None:
            if self._flush.active():
                self._flush.cancel()
            self._flush = None
        if self._out and self.transport is not None:
            data = b"".join(self._out)
            self._out.clear()
            self._unread = self._unread + len(data) if self._paused else 0
            self._written = self._next - 2
            self.transport.write(data)

    def drop(self, exchange: Exchange) -> None:
        """Nobody waits for this exchange any longer."""
        if self._end_stream(exchange, CANCEL):
            self._soon()
            self._make_known()
            self._close_if_empty()

    def probe(self) -> None:
        """Is the peer still there? Something it owes us does not come."""
        if self._settled and not self._asked and self._watch is not None:
            self._ask()

    def _soon(self) -> None:
        if not self._busy and self._flush is None:
            self._flush = self.owner.clock.callLater(0, self._write)

    def _end_stream(self, exchange: Exchange, code: int | None = None) -> bool:
        """Take an exchange out; with a code its stream is reset. Was it in flight here?"""
        stream_id = exchange.stream_id
        if self._exchanges.pop(stream_id, None) is None:
            return False
        self._blocked.pop(stream_id, None)
        exchange.connection = None
        if code is not None:
            self._out.append(frames.reset(stream_id, code))
        return True

    def close(self) -> None:
        """Take nothing more; end politely when the last answer is there."""
        self._leave("")
        self._close_if_empty()

    def abort(self, reason: str = "") -> None:
        """Drop the connection; whatever is in flight fails with ``reason``."""
        self._leave(reason)
        self._fail_all(reason or "connection lost")
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def _leave(self, reason: str) -> None:
        if self._usable:
            self._usable = False
            self.owner.leaving(self, reason)

    def _close_if_empty(self) -> None:
        if self._usable or self._exchanges or self._linger is not None or self.transport is None:
            return
        if self._begun:
            self._out.append(frames.goaway(NO_ERROR))
            self._write()
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self._linger = self.owner.clock.callLater(CLOSE_TIME, self.transport.abortConnection)  # type: ignore[attr-defined]
        self.transport.loseConnection()

    def _fail_all(self, reason: str) -> None:
        """
        Nothing in flight will be answered.

        What was not even written can go elsewhere.
        """
        exchanges = list(reversed(self._exchanges.values()))  # each that goes elsewhere goes in front
        self._exchanges.clear()
        self._blocked.clear()
        for exchange in exchanges:
            exchange.connection = None
            if exchange.stream_id > self._written:
                self.owner.again(exchange)
            else:
                self.owner.failed(exchange, reason)

    # What the transport tells.

    def dataReceived(self, data: bytes) -> None:
        self._heard = True
        self._busy = True
        try:
            self._reader.feed(data)
        except FrameError as error:
            self._out.append(frames.goaway(error.code))
            self._write()
            self.abort("answer is not HTTP/2" if not self._settled else "answer breaks the rules of HTTP/2")
            return
        finally:
            self._busy = False
        self._make_known()
        self._write()
        if self._unread > MAX_UNREAD:
            self.abort("the server does not read our answers to its frames")
            return
        self._close_if_empty()

    def _make_known(self) -> None:
        if self._settled and self._usable:
            self._busy = True
            try:
                self.owner.ready(self)
            finally:
                self._busy = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        for timer in (self._linger, self._watch, self._flush):
            if timer is not None and timer.active():
                timer.cancel()
        self._watch = None
        text = explain(cast(BaseException, reason.value))
        if self._tls and not self._begun and reason.check(ConnectionDone, ConnectionLost):
            text = "connection closed in the TLS handshake"
        self._leave(text)
        self._fail_all(text)
        self.owner.lost(self)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._make_known()
        self._soon()

    def stopProducing(self) -> None:
        self._paused = True

    # Is it still there?

    def _look(self) -> None:
        if self._heard:
            self._heard = self._asked = False
            self._watch = self.owner.clock.callLater(PING_INTERVAL, self._look)
        elif self._asked:
            self._watch = None
            self.abort("no answer to PING")
        else:
            self._ask()

    def _ask(self) -> None:
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        self._asked, self._heard = True, False
        self._out.append(frames.ping(b"xmpppush"))
        self._soon()
        self._watch = self.owner.clock.callLater(PING_TIMEOUT, self._look)

    # What the frames say. Of a stream that we gave up or that is over something may still come (RFC 9113
    # section 5.1); of one that never was it may not.

    def _check_known(self, stream_id: int) -> None:
        if stream_id >= self._next or not stream_id & 1:
            raise FrameError(PROTOCOL_ERROR, "frame of a stream that never was")

    def headers_received(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """An answer's head, or what follows its body (RFC 9113 section 8.1)."""
        fields = self._fields.decode(block)
        exchange = self._exchanges.get(stream_id)
        if exchange is None:
            self._check_known(stream_id)
            return
        if exchange.code:
            if end_stream:
                self._answered(exchange)
            else:
                self._malformed(exchange, "answer has two heads")
            return
        code = fields[0][1] if fields and fields[0][0] == b":status" else b""
        if len(code) != 3 or not code.isdigit() or code < b"100":
            self._malformed(exchange, "answer has no status")
        elif code >= b"200":
            exchange.code = int(code)
            exchange.fields = fields
            if end_stream:
                self._answered(exchange)
        elif end_stream:  # one that is only on the way (RFC 9110 section 15.2) is no end
            self._malformed(exchange, "answer has no status")

    def data_received(self, stream_id: int, data: bytes, end_stream: bool, counted: int) -> None:
        """Part of an answer's body."""
        self._received += counted
        if self._received > RECEIVE_WINDOW // 2:
            self._out.append(frames.window_update(0, self._received))
            self._received = 0
        exchange = self._exchanges.get(stream_id)
        if exchange is None:
            self._check_known(stream_id)
            return
        exchange.size += counted
        if exchange.size > self.owner.max_body:
            self._end_stream(exchange, CANCEL)
            self.owner.failed(exchange, "answer is too long")
            return
        if data:
            exchange.chunks.append(data)
        if not exchange.code:
            self._malformed(exchange, "answer has no status")
        elif end_stream:
            self._answered(exchange)

    def _answered(self, exchange: Exchange) -> None:
        # An answer may come before it has all of the body, which nobody needs any more then.
        self._end_stream(exchange, NO_ERROR if exchange.sent < len(exchange.body) else None)
        chunks = exchange.chunks
        body = b"" if not chunks else chunks[0] if len(chunks) == 1 else b"".join(chunks)
        fields = exchange.fields[1:]
        if fields and not _is_long(fields, len(body)):
            self.owner.failed(exchange, "answer does not have the length that it says")
            return
        self.owner.done(exchange, BufferedResponse(exchange.code, fields, body))

    def _malformed(self, exchange: Exchange, reason: str) -> None:
        """Costs this stream, not the connection (RFC 9113 section 8.1.1)."""
        self._end_stream(exchange, PROTOCOL_ERROR)
        self.owner.failed(exchange, reason)

    def reset_received(self, stream_id: int, code: int) -> None:
        """The peer gives a stream up."""
        exchange = self._exchanges.get(stream_id)
        if exchange is None:
            self._check_known(stream_id)
            return
        self._end_stream(exchange)
        if code == REFUSED_STREAM and not exchange.code:
            self.owner.again(exchange)  # RFC 9113 section 8.7: it was not processed
        else:
            self.owner.failed(exchange, "the server reset the stream")

    def settings_received(self, values: "list[tuple[int, int]]") -> None:
        """What the peer takes from now on."""
        if not self._settled:
            self._settled = True
            self._limit = MAX_STREAMS
        for name, value in values:
            if name == frames.MAX_CONCURRENT_STREAMS:
                self._limit = min(value, MAX_STREAMS)
            elif name == frames.MAX_FRAME_SIZE:
                self._max_frame = value
            elif name == frames.INITIAL_WINDOW_SIZE:
                # RFC 9113 section 6.9.2: it counts for open streams, too, whose windows may fall below zero.
                more = value - self._stream_window
                self._stream_window = value
                for exchange in self._exchanges.values():
                    exchange.window += more
                    if exchange.window > MAX_WINDOW:
                        raise FrameError(FLOW_CONTROL_ERROR, "window is too large")
        self._out.append(frames.head(frames.SETTINGS, frames.ACK, 0, 0))
        self._unblock()

    def ping_received(self, payload: bytes) -> None:
        """The peer asks whether we are there."""
        self._out.append(frames.ping(payload, frames.ACK))

    def window_received(self, stream_id: int, increment: int) -> None:
        """The peer takes more."""
        if not stream_id:
            self._window += increment
            if not increment or self._window > MAX_WINDOW:
                raise FrameError(
                    FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR, "window is not possible"
                )
            if self._blocked:
                self._unblock()
            return
        exchange = self._exchanges.get(stream_id)
        if exchange is None:
            self._check_known(stream_id)
            return
        exchange.window += increment
        if not increment or exchange.window > MAX_WINDOW:
            self._end_stream(exchange, FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR)
            self.owner.failed(exchange, "the server set a window that is not possible")
        elif stream_id in self._blocked:
            self._send_body(exchange)

    def _unblock(self) -> None:
        for exchange in list(self._blocked.values()):
            self._send_body(exchange)

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        """The peer takes nothing new, and has not touched what is above its last stream."""
        self._leave("the server is closing the connection" + (f" (HTTP/2 error {code})" if code else ""))
        for stream_id in [each for each in reversed(self._exchanges) if each > last_stream_id]:
            exchange = self._exchanges[stream_id]
            # A peer that answers all the same is not to be taken for a confused one.
            self._end_stream(exchange, CANCEL)
            if exchange.code:
                self.owner.failed(exchange, "the server broke its answer off")
            else:
                self.owner.again(exchange)


def _is_long(fields: list[Header], size: int) -> bool:
    """Is this what Content-Length says, if it says something (RFC 9113 section 8.1.1)?"""
    return all(value == b"%d" % size for name, value in fields if name == b"content-length")
