"""
HPACK (RFC 7541) without a dynamic table, and written without Huffman coding.

Headers can then be packed ahead, are good on any connection, and in pieces: their coding by tables would
cost more than all the rest of a request.
"""

from collections.abc import Iterable, Sequence

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from xmpppush.http2.frames import COMPRESSION_ERROR, FrameError

Header = tuple[bytes, bytes]

# Said once, before the first block of a connection, it tells the peer that we use no table, whatever size it
# offers (RFC 7541 section 4.2).
NO_TABLE = b"\x20"

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


class FieldReader:
    """
    Reads headers packed without a dynamic table, as our SETTINGS demand.

    Values that nobody asked for are skipped: APNs answers each request with an id of its own in Huffman code,
    and to read that costs more than all other headers.
    """

    def __init__(self, wanted: frozenset[bytes] | None) -> None:
        """
        Args:
            wanted: Names besides ``:status`` and ``content-length``; ``None``: all.
        """
        self._wanted = None if wanted is None else wanted | {b":status", b"content-length"}
        self._names: dict[bytes, bytes] = {}

    def decode(self, block: bytes) -> list[Header]:
        """
        The headers of a block, in order.

        Raises:
            FrameError: It is not HPACK, or uses a dynamic table.
        """
        try:
            return self._decode(block)
        except (IndexError, HPACKDecodingError):
            raise FrameError(COMPRESSION_ERROR, "headers cannot be read") from None

    def _decode(self, data: bytes) -> list[Header]:
        fields: list[Header] = []
        wanted = self._wanted
        at, end, first = 0, len(data), True
        while at < end:
            kind = data[at]
            if kind & 0x80:
                index, at = _integer(data, at, 0x7F)
                field = _static(index)
                if wanted is None or field[0] in wanted:
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
                if wanted is None or name in wanted:
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
    """The integer that begins at ``at`` and where it ends; an ``IndexError``: the octets end first."""
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
