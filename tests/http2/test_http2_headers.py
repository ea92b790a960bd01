"""HPACK without tables, against the hpack library on the other side."""

from contextlib import suppress

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from xmpppush.http2.frames import COMPRESSION_ERROR, FrameError
from xmpppush.http2.headers import NO_TABLE, FieldReader, pack

NAMES = st.sampled_from(
    [b":status", b":path", b"content-length", b"retry-after", b"apns-id", b"x-" + b"n" * 200]
)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=8)


@given(FIELDS)
def test_what_is_packed_is_what_hpack_reads(fields):
    """Long names and values included, and twice: nothing is remembered."""
    decoder = Decoder()
    for prefix in (NO_TABLE, b""):
        assert [tuple(field) for field in decoder.decode(prefix + pack(fields), raw=True)] == fields


@given(FIELDS, st.booleans())
def test_what_hpack_packs_is_read(fields, huffman):
    """As a server writes it that was told to use no table."""
    encoder = Encoder()
    encoder.header_table_size = 0
    reader = FieldReader(None)
    for _ in range(2):
        assert reader.decode(encoder.encode(fields, huffman=huffman)) == fields


@given(FIELDS)
def test_only_what_is_wanted_is_kept(fields):
    """With the two that the connection looks at itself."""
    encoder = Encoder()
    encoder.header_table_size = 0
    kept = FieldReader(frozenset((b"retry-after",))).decode(encoder.encode(fields))
    assert kept == [each for each in fields if each[0] in (b":status", b"content-length", b"retry-after")]


@given(st.binary(max_size=60))
def test_rubbish_is_refused_or_read(block):
    """Nothing else is raised."""
    with suppress(FrameError):
        FieldReader(None).decode(block)


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0 (RFC 7541 section 6.1)
        b"\xbe",  # an index into the dynamic table
        b"\x7f\x00\x01v",  # a name of it
        b"\x21",  # a table where we allow none (section 4.2)
        b"\x88\x20",  # a size, but not first
        b"\x00\x05abc",  # cut
        b"\x0f",
        b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff",  # an integer without end (section 5.1)
        b"\x08\x84\xff\xff\xff\xff",  # the end of a string inside it (section 5.2)
    ],
)
def test_what_breaks_the_rules_is_refused(block):
    """As RFC 7541 demands."""
    with pytest.raises(FrameError) as caught:
        FieldReader(None).decode(block)
    assert caught.value.code == COMPRESSION_ERROR
