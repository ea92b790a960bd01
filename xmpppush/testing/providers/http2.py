"""
One HTTP/2 connection of an emulator (RFC 9113), on the library `h2`.

It shares nothing with our client, so that the two do not merely agree with each other. A benchmark's load
goes through it, so a few things that `h2` does thoroughly are done here in less time.
"""

import re
from collections.abc import Iterable
from typing import Any
from typing import Protocol as Shape

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import GoAwayFrame, SettingsFrame
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from xmpppush.testing.providers import faults
from xmpppush.testing.providers.wire import Reply, Request

MAX_BODY = 256 * 1024
# A stream's window holds more than any body that is taken; only the connection's is ever refilled.
STREAM_WINDOW = 1024 * 1024
CONNECTION_WINDOW = 2**30
# What h2 itself would enforce by ending the connection; a stream too many is refused here instead.
ANY_NUMBER = 2**31 - 1


class Application(Shape):
    """The emulator, as connections see it."""

    max_streams: int

    def opened(self, connection: Any) -> int:
        """A connection is there; returns its number."""

    def closed(self, connection: Any) -> None:
        """It has ended."""

    def received_request(self, request: Request) -> None:
        """A request is complete."""


class _Connection(H2Connection):
    """Looks for streams that have ended now and then, not at each new one."""

    _asked = 0

    @property
    def open_inbound_streams(self) -> int:
        self._asked += 1
        return 0 if self._asked % 64 else super().open_inbound_streams


class _PlainEncoder(Encoder):
    """Writes headers as they are (RFC 7541 section 6.2.2): the long one is new in each answer anyway."""

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        block = bytearray()
        for name, value in headers:
            if name == b":status" and value == b"200":
                block.append(0x88)
                continue
            block.append(0)
            for text in (name, value):
                if len(text) < 127:
                    block.append(len(text))
                else:
                    rest = len(text) - 127
                    block.append(127)
                    while rest >= 128:
                        block.append(rest % 128 + 128)
                        rest //= 128
                    block.append(rest)
                block += text
        return bytes(block)


class _HeaderChecks:
    """What RFC 9113 section 8.2 and 8.3 forbid in a request; `h2` would look at every octet each time."""

    _NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
    _VALUE = re.compile(rb"(?:[^\x00\r\n \t](?:[^\x00\r\n]*[^\x00\r\n \t])?)?").fullmatch
    _NEEDED = frozenset((b":method", b":scheme", b":path"))
    _KNOWN = _NEEDED | {b":authority"}
    _OF_CONNECTIONS = frozenset(
        (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
    )

    def __init__(self) -> None:
        self._good: set[tuple[bytes, bytes]] = set()

    def allow(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Are they those of a request that is well-formed?"""
        pseudo: set[bytes] = set()
        plain = False
        for pair in headers:
            name = pair[0]
            if name[:1] == b":":
                if plain or name in pseudo:
                    return False
                pseudo.add(name)
                if not self._VALUE(pair[1]):
                    return False
            else:
                plain = True
                if pair not in self._good and not self._is_good(*pair):
                    return False
        return self._NEEDED <= pseudo <= self._KNOWN

    def _is_good(self, name: bytes, value: bytes) -> bool:
        if not self._NAME(name) or not self._VALUE(value) or name in self._OF_CONNECTIONS:
            return False
        if name == b"te" and value != b"trailers":
            return False
        if len(self._good) < 1000:
            self._good.add((bytes(name), bytes(value)))
        return True


class HTTP2Connection(Protocol):
    """
    Reads requests, writes answers, and goes wrong on demand.

    Attributes:
        pings: How many PING frames came.
        refused: How many streams were refused because there were too many at a time.
    """

    transport: Any

    def __init__(self, application: Application) -> None:
        self._application = application
        self._checks = _HeaderChecks()
        self._h2 = _Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._h2.encoder = _PlainEncoder()
        self._requests: dict[int, Request] = {}  # until answered
        self._chunks: dict[int, list[bytes]] = {}  # until complete
        self._blocked: dict[int, bytes] = {}  # bodies that wait for the client's window
        self._unread = 0  # bytes of DATA not given back to the connection's window
        self._reading = False
        self._last = 0  # the last stream that reached the application
        self._leaving: int | None = None  # the last stream that is processed, after GOAWAY
        self._gone = False
        self.max_streams = application.max_streams
        self.pings = 0
        self.refused = 0
        self.number = 0

    def connectionMade(self) -> None:
        self.number = self._application.opened(self)
        connection = self._h2
        connection.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = STREAM_WINDOW
        connection.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = ANY_NUMBER
        connection.local_settings.acknowledge()
        connection.initiate_connection()
        connection.data_to_send()  # replaced by settings that tell the real limit
        settings: dict[int, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: self.max_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: 8000,
        }
        frame = SettingsFrame(settings=settings)
        connection.increment_flow_control_window(CONNECTION_WINDOW)
        self.transport.write(frame.serialize() + connection.data_to_send())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self._forget_all()
        self._application.closed(self)

    def limit_streams(self, limit: int) -> None:
        """Announce another limit."""
        if not self._gone and limit != self.max_streams:
            self.max_streams = limit
            settings: dict[int, int] = {SettingCodes.MAX_CONCURRENT_STREAMS: limit}
            self.transport.write(SettingsFrame(settings=settings).serialize())

    def dataReceived(self, data: bytes) -> None:
        if self._gone:
            return
        self._reading = True
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
        except ProtocolError:
            # h2 has put its GOAWAY into what is to be sent.
            self._reading = False
            self._flush()
            self._end()
            return
        self._reading = False
        if self._unread > CONNECTION_WINDOW // 2:
            self._h2.increment_flow_control_window(self._unread)
            self._unread = 0
        self._flush()
        self._leave_if_done()

    def _handle(self, event: Any) -> None:
        kind = type(event)
        if kind is RequestReceived:
            self._begin(event.stream_id, event.headers)
        elif kind is DataReceived:
            self._body(event)
        elif kind is StreamEnded:
            self._complete(event.stream_id)
        elif kind is StreamReset:
            self._forget(event.stream_id)
        elif kind is WindowUpdated:
            for stream, body in list(self._blocked.items()):
                if self._h2.local_flow_control_window(stream) >= len(body):
                    del self._blocked[stream]
                    self._h2.send_data(stream, body, end_stream=True)
        elif kind is ConnectionTerminated:
            self._leaving = self._last
        elif kind is PingReceived:
            self.pings += 1

    def _begin(self, stream: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self._leaving is not None or self._gone:
            return  # beyond GOAWAY's last stream: as if it had never come (section 6.8)
        if len(self._requests) >= self.max_streams:
            self.refused += 1
            self._h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            return
        if not self._checks.allow(headers):
            self._h2.reset_stream(stream, ErrorCodes.PROTOCOL_ERROR)
            return
        method = path = ""
        plain = []
        for pair in headers:
            name = pair[0]
            if name[0] != 58:  # a colon
                plain.append(pair)
            elif name == b":method":
                method = pair[1].decode("latin-1")
            elif name == b":path":
                path = pair[1].decode("latin-1")
        self._requests[stream] = Request(self, stream, method, path, plain)
        self._chunks[stream] = []

    def _body(self, event: DataReceived) -> None:
        self._unread += event.flow_controlled_length or 0
        chunks = self._chunks.get(event.stream_id or 0)
        if chunks is None:
            return
        chunks.append(event.data or b"")
        if sum(map(len, chunks)) > MAX_BODY:
            self._complete(event.stream_id or 0)

    def _complete(self, stream: int) -> None:
        chunks = self._chunks.pop(stream, None)
        if chunks is None:
            return
        request = self._requests[stream]
        request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._application.received_request(request)
        if self._leaving is None and stream > self._last:
            self._last = stream

    def _forget(self, stream: int) -> None:
        self._requests.pop(stream, None)
        self._chunks.pop(stream, None)
        self._blocked.pop(stream, None)

    def _forget_all(self) -> None:
        self._requests.clear()
        self._chunks.clear()
        self._blocked.clear()

    def send(self, stream: int, reply: Reply) -> None:
        if self._gone or self._requests.pop(stream, None) is None:
            return
        body = reply.body
        headers = [(b":status", b"%d" % reply.status), *reply.headers]
        self._h2.send_headers(stream, headers, end_stream=not body)
        if body:
            if self._h2.local_flow_control_window(stream) >= len(body):
                self._h2.send_data(stream, body, end_stream=True)
            else:
                self._blocked[stream] = body
        if not self._reading:
            self._flush()
            self._leave_if_done()

    def fail(self, stream: int, action: str) -> None:
        if self._gone or stream not in self._requests:
            return
        if action == faults.GOAWAY:
            self.go_away(stream)
        elif action in (faults.RESET, faults.REFUSE):
            self._forget(stream)
            code = ErrorCodes.REFUSED_STREAM if action == faults.REFUSE else ErrorCodes.INTERNAL_ERROR
            self._h2.reset_stream(stream, code)
        elif action == faults.HANG:
            self._gone = True
            self._forget_all()
            self.transport.pauseProducing()
        elif action == faults.DROP:
            self._end(politely=False)
        # SILENCE: it stays among the requests and counts towards the limit, as with a real server.
        if not self._reading:
            self._flush()
            self._leave_if_done()

    def go_away(self, instead_of: int | None = None, reason: str = "Shutdown") -> None:
        """
        Take no further streams (section 6.8); what was taken is answered, then the connection ends.

        h2's own ``close_connection`` would forbid those answers.

        Args:
            instead_of: A request that is not processed any more, and none behind it. One that was taken a
                while ago stays without an answer: nobody knows what became of it.
        """
        if self._leaving is not None or self._gone:
            return
        self._leaving = self._last
        unprocessed = {stream for stream in self._requests if stream > self._last}
        if instead_of is not None:
            unprocessed.add(instead_of)
        for stream in unprocessed:
            self._forget(stream)
        self._flush()
        frame = GoAwayFrame(0, last_stream_id=self._leaving, error_code=0)
        frame.additional_data = b'{"reason":"%s"}' % reason.encode()
        self.transport.write(frame.serialize())
        if not self._reading:
            self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._leaving is not None and not self._requests and not self._blocked and not self._gone:
            self._end()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._gone:
            self.transport.write(data)

    def _end(self, politely: bool = True) -> None:
        self._gone = True
        if politely:
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()
