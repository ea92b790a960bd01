"""One HTTP/2 client connection: many requests at a time, as many as the other side allows."""

from collections.abc import Callable
from typing import Any, cast
from typing import Protocol as Shape

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from hyperframe.exceptions import HyperframeError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.http.reasons import explain
from xmpppush.http.responses import BufferedResponse
from xmpppush.http2.framing import ClientConnection, Header

ALPN = b"h2"
CLOSE_TIME = 2.0  # seconds that a peer has for its part of closing
PING_INTERVAL = 30.0  # seconds without a byte from the peer until it is asked
PING_TIMEOUT = 5.0  # seconds that it has to answer
MAX_STREAMS = 1000  # however many more the peer would take
# Stream numbers are used once (RFC 9113 section 5.1.1); before they run out the connection is replaced.
LAST_STREAM = 2**31 - 1 - 2 * MAX_STREAMS


class Exchange:
    """
    A request and what becomes of it.

    Attributes:
        block: Headers from `xmpppush.http2.framing.pack`.
        result: Fires with the `BufferedResponse`, or fails with `TryLater`.
        deadline: When it fails at the latest, on the client's clock.
        connection: Where it is in flight, ``None`` while it waits and when it is over.
        sent: Bytes of the body that are written.
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
        "method",
        "owner",
        "result",
        "sent",
        "size",
        "stream_id",
        "tries",
    )

    def __init__(
        self, owner: "ConnectionOwner", method: bytes, block: bytes, body: bytes, deadline: float
    ) -> None:
        self.owner = owner
        self.method = method
        self.block = block
        self.body = body
        self.deadline = deadline
        self.result: Deferred[BufferedResponse] = Deferred(self._cancelled)
        self.connection: Connection | None = None
        self.tries = 0
        self.reset(0)

    def reset(self, stream_id: int) -> None:
        """Begin anew on this stream."""
        self.stream_id = stream_id
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
        self._h2 = ClientConnection(wanted)
        self._exchanges: dict[int, Exchange] = {}
        self._blocked: dict[int, Exchange] = {}
        self._usable = True
        self._begun = False
        self._settled = False
        self._paused = False
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
        self._h2.initiate_connection()
        self._write()
        self._watch = self.owner.clock.callLater(PING_INTERVAL, self._look)

    def send(self, exchange: Exchange) -> None:
        """Send a request; there must be `room`."""
        h2 = self._h2
        stream_id = h2.get_next_available_stream_id()
        exchange.reset(stream_id)
        exchange.connection = self
        self._exchanges[stream_id] = exchange
        body = exchange.body
        h2.send_packed(stream_id, exchange.method, exchange.block, not body)
        if body:
            self._send_body(exchange)
        if stream_id >= LAST_STREAM:
            self._leave("")
        self._soon()

    def _send_body(self, exchange: Exchange) -> None:
        """As much of it as the peer takes (RFC 9113 section 5.2); the rest waits for its WINDOW_UPDATE."""
        h2, body, stream_id = self._h2, exchange.body, exchange.stream_id
        total = len(body)
        while exchange.sent < total:
            allowed = min(h2.local_flow_control_window(stream_id), h2.max_outbound_frame_size)
            if allowed <= 0:
                self._blocked[stream_id] = exchange
                return
            end = min(total, exchange.sent + allowed)
            part = body if end - exchange.sent == total else body[exchange.sent : end]
            h2.send_data(stream_id, part, end_stream=end == total)
            exchange.sent = end
        self._blocked.pop(stream_id, None)

    def _write(self) -> None:
        if self._flush is not None:
            if self._flush.active():
                self._flush.cancel()
            self._flush = None
        data = self._h2.data_to_send()
        if data and self.transport is not None:
            self._written = self._h2.highest_outbound_stream_id
            self.transport.write(data)

    def drop(self, exchange: Exchange) -> None:
        """Nobody waits for this exchange any longer."""
        if self._end_stream(exchange, ErrorCodes.CANCEL):
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

    def _end_stream(self, exchange: Exchange, code: ErrorCodes | None = None) -> bool:
        """Take an exchange out; with a code its stream is reset. Was it in flight here?"""
        stream_id = exchange.stream_id
        if self._exchanges.pop(stream_id, None) is None:
            return False
        self._blocked.pop(stream_id, None)
        exchange.connection = None
        stream = self._h2.streams.get(stream_id)
        if code is not None and stream is not None and not stream.closed:
            self._h2.reset_stream(stream_id, code)
        self._h2.forget(stream_id)
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
            self._h2.close_connection()
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
            found = self._h2.receive_data(data)
            for event in found:
                handle = _HANDLERS.get(event.__class__)
                if handle is not None:
                    handle(self, event)
        except (H2Error, HyperframeError, ValueError):
            # Text in these exceptions is the peer's.
            self._write()
            self.abort("answer is not HTTP/2" if not self._settled else "answer breaks the rules of HTTP/2")
            return
        finally:
            self._busy = False
        self._make_known()
        self._write()
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
        self._h2.ping(b"xmpppush")
        self._soon()
        self._watch = self.owner.clock.callLater(PING_TIMEOUT, self._look)

    # What h2 makes of what came. A stream that we gave up is not known any more.

    def _on_response(self, event: events.ResponseReceived) -> None:
        exchange = self._exchanges.get(event.stream_id)
        if exchange is None:
            return
        fields = event.headers
        code = fields[0][1] if fields and fields[0][0] == b":status" else b""
        if len(code) != 3 or not code.isdigit():
            if self._end_stream(exchange, ErrorCodes.PROTOCOL_ERROR):
                self.owner.failed(exchange, "answer has no status")
            return
        exchange.code = int(code)
        exchange.fields = fields

    def _on_data(self, event: events.DataReceived) -> None:
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        exchange = self._exchanges.get(event.stream_id)
        if exchange is None:
            return
        exchange.size += len(event.data)
        if exchange.size > self.owner.max_body:
            if self._end_stream(exchange, ErrorCodes.CANCEL):
                self.owner.failed(exchange, "answer is too long")
            return
        exchange.chunks.append(bytes(event.data))

    def _on_end(self, event: events.StreamEnded) -> None:
        exchange = self._exchanges.get(event.stream_id)
        if exchange is None:
            return
        # An answer may come before it has all of the body, which nobody needs any more then.
        self._end_stream(exchange, ErrorCodes.NO_ERROR)
        if exchange.code:
            chunks = exchange.chunks
            body = b"" if not chunks else chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self.owner.done(exchange, BufferedResponse(exchange.code, exchange.fields[1:], body))
        else:
            self.owner.failed(exchange, "answer has no status")

    def _on_reset(self, event: events.StreamReset) -> None:
        exchange = self._exchanges.get(event.stream_id)
        if exchange is None:
            return
        self._end_stream(exchange)
        if event.remote_reset and event.error_code == ErrorCodes.REFUSED_STREAM and not exchange.code:
            self.owner.again(exchange)  # RFC 9113 section 8.7: it was not processed
        else:
            self.owner.failed(exchange, "the server reset the stream")

    def _on_settings(self, event: events.RemoteSettingsChanged) -> None:
        self._settled = True
        self._limit = min(self._h2.remote_settings.max_concurrent_streams, MAX_STREAMS)
        self._unblock()

    def _on_window(self, event: events.WindowUpdated) -> None:
        self._unblock()

    def _unblock(self) -> None:
        for exchange in list(self._blocked.values()):
            self._send_body(exchange)

    def _on_goaway(self, event: events.ConnectionTerminated) -> None:
        code = event.error_code or 0
        self._leave("the server is closing the connection" + (f" (HTTP/2 error {int(code)})" if code else ""))
        last = cast(int, event.last_stream_id)
        for stream_id in [each for each in reversed(self._exchanges) if each > last]:
            exchange = self._exchanges[stream_id]
            # A peer that answers all the same is not to be taken for a confused one.
            self._end_stream(exchange, ErrorCodes.CANCEL)
            if exchange.code:
                self.owner.failed(exchange, "the server broke its answer off")
            else:
                self.owner.again(exchange)


_HANDLERS: dict[type, Callable[[Connection, Any], None]] = {
    events.ResponseReceived: Connection._on_response,
    events.DataReceived: Connection._on_data,
    events.StreamEnded: Connection._on_end,
    events.StreamReset: Connection._on_reset,
    events.RemoteSettingsChanged: Connection._on_settings,
    events.WindowUpdated: Connection._on_window,
    events.ConnectionTerminated: Connection._on_goaway,
}
