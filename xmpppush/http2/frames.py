"""
HTTP/2 frames (RFC 9113 sections 4 and 6) as a client reads and writes them.

Each frame is checked by itself here; what streams and windows make of it is the connection's work.
"""

from collections.abc import Callable, Iterable
from struct import Struct
from struct import error as StructError
from typing import Protocol

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
_PRIORITY_FLAG = 0x20

# Error codes (RFC 9113 section 7).
NO_ERROR, PROTOCOL_ERROR = 0, 1
FLOW_CONTROL_ERROR = 3
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11

# Settings (RFC 9113 section 6.5.2).
(
    HEADER_TABLE_SIZE,
    ENABLE_PUSH,
    MAX_CONCURRENT_STREAMS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
) = range(1, 7)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16_384  # bytes of payload: what everybody has to take, and all that we take
DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
MAX_BLOCK = 16 * 1024  # bytes of an answer's headers, packed

_STREAM = 0x7FFF_FFFF
_head = Struct(">HBBBL")
_setting = Struct(">HL")
_number = Struct(">L")


class FrameError(Exception):
    """
    The peer breaks the rules in a way that ends the connection (RFC 9113 section 5.4.1).

    Attributes:
        code: For our GOAWAY.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def head(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The nine octets before a payload."""
    return _head.pack(length >> 8, length & 255, kind, flags, stream_id)


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_setting.pack(*each) for each in values)
    return head(SETTINGS, 0, 0, len(payload)) + payload


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return head(WINDOW_UPDATE, 0, stream_id, 4) + _number.pack(increment)


def reset(stream_id: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return head(RST_STREAM, 0, stream_id, 4) + _number.pack(code)


def ping(payload: bytes, flags: int = 0) -> bytes:
    """A PING frame; eight octets of payload."""
    return head(PING, flags, 0, 8) + payload


def goaway(code: int) -> bytes:
    """A GOAWAY frame of a client, which has taken no stream of its peer's."""
    return head(GOAWAY, 0, 0, 8) + _number.pack(0) + _number.pack(code)


def headers(stream_id: int, block: bytes, end_stream: bool, max_frame: int) -> bytes:
    """HEADERS, and CONTINUATION where one frame cannot hold the block."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame:
        return head(HEADERS, flags | END_HEADERS, stream_id, len(block)) + block
    written = [head(HEADERS, flags, stream_id, max_frame), block[:max_frame]]
    for at in range(max_frame, len(block), max_frame):
        part = block[at : at + max_frame]
        last = at + max_frame >= len(block)
        written += (head(CONTINUATION, END_HEADERS if last else 0, stream_id, len(part)), part)
    return b"".join(written)


class FrameReceiver(Protocol):
    """What a client wants to know. Stream numbers are not 0, and otherwise unchecked."""

    def headers_received(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """A whole block of headers."""

    def data_received(self, stream_id: int, data: bytes, end_stream: bool, counted: int) -> None:
        """A DATA frame; ``counted`` octets of the windows are used up."""

    def reset_received(self, stream_id: int, code: int) -> None:
        """A RST_STREAM frame."""

    def settings_received(self, values: "list[tuple[int, int]]") -> None:
        """A SETTINGS frame whose values are possible; it must be acknowledged."""

    def ping_received(self, payload: bytes) -> None:
        """A PING frame that must be answered."""

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        """A GOAWAY frame."""

    def window_received(self, stream_id: int, increment: int) -> None:
        """A WINDOW_UPDATE frame, for the connection where ``stream_id`` is 0."""


class FrameReader:
    """Cuts what a server sends into frames and tells a `FrameReceiver`."""

    def __init__(self, receiver: FrameReceiver) -> None:
        self._receiver = receiver
        self._rest = b""
        self._greeted = False
        self._plain = False  # greeted, and not within a block of headers
        self._open = 0  # the stream whose block is not complete
        self._ends = False
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """
        Take in what came.

        Raises:
            FrameError: The connection cannot go on.
        """
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 9:
            high, low, kind, flags, stream_id = _head.unpack_from(data, at)
            length = high << 8 | low
            if length > MAX_FRAME:
                raise FrameError(FRAME_SIZE_ERROR, "frame is too long")
            start = at + 9
            stop = start + length
            if stop > end:
                break
            at = stop
            if kind == HEADERS and self._plain and flags & 0x2C == END_HEADERS and 0 < stream_id <= _STREAM:
                # Nearly all that comes.
                self._receiver.headers_received(stream_id, data[start:stop], flags & END_STREAM != 0)
            else:
                self._frame(kind, flags, stream_id & _STREAM, data[start:stop])
        self._rest = data[at:]

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._open and (kind != CONTINUATION or stream_id != self._open):
            raise FrameError(PROTOCOL_ERROR, "block of headers is not continued")
        if not self._greeted:
            if kind != SETTINGS or flags & ACK:
                raise FrameError(PROTOCOL_ERROR, "no SETTINGS first")
            self._greeted = self._plain = True
        if kind < len(_READERS):
            of_stream, read = _READERS[kind]
            if of_stream is not None and of_stream is not bool(stream_id):
                raise FrameError(PROTOCOL_ERROR, "frame for the wrong stream")
            try:
                read(self, flags, stream_id, payload)
            except (StructError, IndexError):
                raise FrameError(FRAME_SIZE_ERROR, "frame has the wrong length") from None

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        data = _unpadded(payload) if flags & PADDED else payload
        self._receiver.data_received(stream_id, data, flags & END_STREAM != 0, len(payload))

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & _PRIORITY_FLAG:
            if len(payload) < 5:
                raise FrameError(FRAME_SIZE_ERROR, "frame has the wrong length")
            payload = payload[5:]
        self._open, self._ends = stream_id, flags & END_STREAM != 0
        self._plain, self._size = False, 0
        self._continue(flags, stream_id, payload)

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._open:
            raise FrameError(PROTOCOL_ERROR, "no block of headers to continue")
        if not payload and not flags & END_HEADERS:
            raise FrameError(ENHANCE_YOUR_CALM, "empty frames")
        self._continue(flags, stream_id, payload)

    def _continue(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._size += len(payload)
        if self._size > MAX_BLOCK:
            raise FrameError(ENHANCE_YOUR_CALM, "headers are too long")
        self._parts.append(payload)
        if flags & END_HEADERS:
            block = b"".join(self._parts)
            self._parts, self._open, self._plain = [], 0, True
            self._receiver.headers_received(stream_id, block, self._ends)

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Means nothing to a client (RFC 9113 section 5.3.2)."""

    def _reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._receiver.reset_received(stream_id, *_number.unpack(payload))

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & ACK:
            if payload:
                raise FrameError(FRAME_SIZE_ERROR, "frame has the wrong length")
            return
        values = list(_setting.iter_unpack(payload))
        for name, value in values:
            if name == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
                raise FrameError(FLOW_CONTROL_ERROR, "window is too large")
            if name == MAX_FRAME_SIZE and not MAX_FRAME <= value < 2**24:
                raise FrameError(PROTOCOL_ERROR, "frame size is not possible")
            if name == ENABLE_PUSH and value:
                raise FrameError(PROTOCOL_ERROR, "servers do not allow push")
        self._receiver.settings_received(values)

    def _push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise FrameError(PROTOCOL_ERROR, "push is not allowed")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise FrameError(FRAME_SIZE_ERROR, "frame has the wrong length")
        if not flags & ACK:
            self._receiver.ping_received(payload)

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        (last,) = _number.unpack_from(payload)
        (code,) = _number.unpack_from(payload, 4)
        self._receiver.goaway_received(last & _STREAM, code)

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        (increment,) = _number.unpack(payload)
        self._receiver.window_received(stream_id, increment & _STREAM)


def _unpadded(payload: bytes) -> bytes:
    padding = payload[0]
    if padding >= len(payload):
        raise FrameError(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - padding]


# By type: whether it belongs to a stream (``None``: either), and who reads it.
_READERS: tuple[tuple[bool | None, Callable[[FrameReader, int, int, bytes], None]], ...] = (
    (True, FrameReader._data),
    (True, FrameReader._headers),
    (True, FrameReader._priority),
    (True, FrameReader._reset),
    (False, FrameReader._settings),
    (True, FrameReader._push_promise),
    (False, FrameReader._ping),
    (False, FrameReader._goaway),
    (None, FrameReader._window_update),
    (True, FrameReader._continuation),
)
