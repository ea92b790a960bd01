"""
The h2 library, made fit for a client that is busy and wants to lose nothing.

What is other than in h2 4.4, each with a test: GOAWAY does not end the connection at once (h2 takes no
answer after it, though RFC 9113 section 6.8 promises those to the streams it names); a new stream does not
count all open ones; and HPACK (RFC 7541) goes without a dynamic table and writes without Huffman coding,
so that headers can be packed ahead: in Python their coding costs more than all the rest of a request.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event
from h2.exceptions import FrameTooLargeError
from h2.settings import SettingCodes, Settings
from hpack.exceptions import HPACKDecodingError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable
from hyperframe.frame import Frame, GoAwayFrame

Header = tuple[bytes, bytes]

MAX_HEADER_BLOCK = 16 * 1024  # bytes of an answer's headers, packed
_MAX_NAMES = 256  # names a reader or writer remembers
_STATIC: Sequence[Header] = HeaderTable.STATIC_TABLE
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_NEVER_INDEXED = 0x10  # RFC 7541 section 6.2.3: no proxy may keep a device's path in its tables, either


def _written_integer(first: int, prefix: int, value: int) -> bytes:
    """An integer of RFC 7541 section 5.1 behind the bits of ``first``."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes((first | value,))
    octets = [first | limit]
    value -= limit
    while value >= 128:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


_LENGTHS = tuple(_written_integer(0, 7, length) for length in range(1024))


_names: dict[bytes, bytes] = {}


def pack(headers: Iterable[Header]) -> bytes:
    """
    Headers as HPACK literals, in order: good on any connection, and in pieces.

    Names are in lower case, pseudo-headers first; values are visible characters and single spaces. Nothing
    of that is checked here.
    """
    parts: list[bytes] = []
    for name, value in headers:
        length = len(value)
        parts += (
            _names.get(name) or _packed_name(name),
            _LENGTHS[length] if length < 1024 else _written_integer(0, 7, length),
            value,
        )
    return b"".join(parts)


def _packed_name(name: bytes) -> bytes:
    index = _STATIC_NAMES.get(name)
    if index is None:
        packed = bytes((_NEVER_INDEXED,)) + _written_integer(0, 7, len(name)) + name
    else:
        packed = _written_integer(_NEVER_INDEXED, 4, index)
    if len(_names) < _MAX_NAMES:
        _names[name] = packed
    return packed


class BlockWriter:
    """Stands in for hpack's ``Encoder``: hands h2 the headers that `pack` made of those it believes in."""

    def __init__(self) -> None:
        self.header_table_size = 0  # h2 sets what the peer allows; we use nothing of it
        self.block = b""
        # Said once, first (RFC 7541 section 4.2), it holds whatever the peer sets later.
        self._before = b"\x20"

    def encode(self, headers: object) -> bytes:
        before, self._before = self._before, b""
        return before + self.block


class FieldReader:
    """
    Reads headers packed without a dynamic table, as our SETTINGS demand; stands in for hpack's ``Decoder``.

    Values that nobody asked for are skipped: APNs answers each request with an id of its own in Huffman code,
    and to read that costs more than all other headers.
    """

    def __init__(self, wanted: frozenset[bytes] | None) -> None:
        """
        Args:
            wanted: Names besides ``:status`` and ``content-length``; ``None``: all.
        """
        self.max_allowed_table_size = 0  # these two are set by h2
        self.max_header_list_size = MAX_HEADER_BLOCK
        self._wanted = None if wanted is None else wanted | {b":status", b"content-length"}
        self._names: dict[bytes, bytes] = {}

    def decode(self, data: bytes, raw: bool = True) -> list[Header]:
        if len(data) > MAX_HEADER_BLOCK:
            raise OversizedHeaderListError("headers are too long")
        fields: list[Header] = []
        at, end, first = 0, len(data), True
        while at < end:
            kind = data[at]
            if kind & 0x80:
                index, at = _integer(data, at, 0x7F)
                field = _static(index)
                if self._wanted is None or field[0] in self._wanted:
                    fields.append(field)
            elif kind & 0x60 == 0x20:
                size, at = _integer(data, at, 0x1F)
                if size or not first:
                    raise HPACKDecodingError("dynamic table where we allow none")
                continue
            else:
                index, at = _integer(data, at, 0x3F if kind & 0x40 else 0x0F)
                if index:
                    name = _static(index)[0]
                else:
                    coded, packed, at = _string(data, at)
                    name = self._name(packed) if coded else packed
                coded, value, at = _string(data, at)
                if self._wanted is None or name in self._wanted:
                    fields.append((name, decode_huffman(value) if coded else value))
            first = False
        return fields

    def _name(self, packed: bytes) -> bytes:
        name = self._names.get(packed)
        if name is None:
            name = decode_huffman(packed)
            if len(self._names) < _MAX_NAMES:
                self._names[packed] = name
        return name


def _static(index: int) -> Header:
    if not 1 <= index <= len(_STATIC):
        raise HPACKDecodingError("index into a dynamic table where we allow none")
    return _STATIC[index - 1]


def _integer(data: bytes, at: int, mask: int) -> tuple[int, int]:
    """The integer that begins at ``at`` and where it ends; an ``IndexError`` is h2's to handle."""
    value = data[at] & mask
    at += 1
    if value == mask:
        shift = 0
        while True:
            octet = data[at]
            at += 1
            value += (octet & 127) << shift
            if octet < 128:
                break
            shift += 7
            if shift > 28:
                raise HPACKDecodingError("integer is too big")
    return value, at


def _string(data: bytes, at: int) -> tuple[bool, bytes, int]:
    """Is it in Huffman code, the octets, and where it ends."""
    coded = data[at] >= 0x80
    length, at = _integer(data, at, 0x7F)
    end = at + length
    if end > len(data):
        raise HPACKDecodingError("headers are cut")
    return coded, data[at:end], end


class ClientConnection(H2Connection):
    """h2's state of one connection, client side; what it says to send is in ``data_to_send``."""

    def __init__(self, wanted: frozenset[bytes] | None) -> None:
        # Outbound headers are made by us: lower case, in order, and without what a peer could object to.
        # Of the inbound ones we take a status, and look at it ourselves.
        super().__init__(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.HEADER_TABLE_SIZE: 0,
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BLOCK,
            },
        )
        self._writer = BlockWriter()
        self.encoder = self._writer  # type: ignore[assignment]
        self.decoder = FieldReader(wanted)  # type: ignore[assignment]

    @property
    def open_outbound_streams(self) -> int:
        """All we remember, for those that are over are forgotten at once."""
        return len(self.streams)

    def receive_data(self, data: Any) -> list[Event]:
        """h2 waits for all of a frame before it finds it too long; 16 MB would be kept until then."""
        found = super().receive_data(data)
        rest = self.incoming_buffer._data
        if len(rest) >= 3 and int.from_bytes(rest[:3], "big") > self.max_inbound_frame_size:
            raise FrameTooLargeError("frame is too long")
        return found

    def send_packed(self, stream_id: int, method: bytes, block: bytes, end_stream: bool) -> None:
        """``send_headers`` for headers from `pack`; h2 itself needs to know but the method."""
        self._writer.block = block
        self.send_headers(stream_id, [(b":method", method)], end_stream=end_stream)

    def forget(self, stream_id: int) -> None:
        """This stream is over, whichever way."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._closed_streams[stream_id] = stream.closed_by

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]
