"""Frames by themselves: cut anywhere, and against every rule of RFC 9113 section 6."""

from contextlib import suppress
from itertools import pairwise
from struct import pack

import pytest
from hyperframe.frame import Frame
from hypothesis import given
from hypothesis import strategies as st

from xmpppush.http2 import frames
from xmpppush.http2.frames import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    MAX_BLOCK,
    MAX_FRAME,
    PROTOCOL_ERROR,
    FrameError,
    FrameReader,
)


class Receiver:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *arguments: self.told.append((name.removesuffix("_received"), *arguments))


def frame(kind, flags=0, stream_id=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


GREETING = frame(frames.SETTINGS)


def read(*pieces):
    """What a reader tells of these pieces, behind a greeting."""
    receiver = Receiver()
    reader = FrameReader(receiver)
    reader.feed(GREETING)
    receiver.told.clear()
    for piece in pieces:
        reader.feed(piece)
    return receiver.told


EVERYTHING = [
    (frame(frames.HEADERS, 0x5, 1, b"\x88"), ("headers", 1, b"\x88", True)),
    (frame(frames.HEADERS, 0x4, 3, b"\x88"), ("headers", 3, b"\x88", False)),
    (frame(frames.HEADERS, 0x2D, 5, b"\x02....\x0f\x88pp"), ("headers", 5, b"\x88", True)),
    (
        frame(frames.HEADERS, 0x1, 7, b"\x88") + frame(frames.CONTINUATION, 0x4, 7, b"\x89"),
        ("headers", 7, b"\x88\x89", True),
    ),
    (frame(frames.DATA, 0x1, 1, b"abc"), ("data", 1, b"abc", True, 3)),
    (frame(frames.DATA, 0x8, 1, b"\x02abcpp"), ("data", 1, b"abc", False, 6)),
    (frame(frames.DATA, 0x0, 1), ("data", 1, b"", False, 0)),
    (frame(frames.RST_STREAM, 0, 1, pack(">L", 8)), ("reset", 1, 8)),
    (frame(frames.SETTINGS, 0, 0, pack(">HLHL", 3, 100, 99, 1)), ("settings", [(3, 100), (99, 1)])),
    (frame(frames.PING, 0, 0, b"12345678"), ("ping", b"12345678")),
    (frame(frames.GOAWAY, 0, 0, pack(">LL", 5, 2) + b"debug"), ("goaway", 5, 2)),
    (frame(frames.GOAWAY, 0, 0, pack(">LL", 2**32 - 1, 0)), ("goaway", 2**31 - 1, 0)),
    (frame(frames.WINDOW_UPDATE, 0, 0, pack(">L", 2**31 + 7)), ("window", 0, 7)),
    (frame(frames.WINDOW_UPDATE, 0, 9, pack(">L", 7)), ("window", 9, 7)),
    (frame(frames.HEADERS, 0x4, 2**31 + 1, b"\x88"), ("headers", 1, b"\x88", False)),  # a reserved bit
]


def test_each_kind_is_told():
    """With padding, priority, continuation and reserved bits taken off."""
    assert read(b"".join(octets for octets, _ in EVERYTHING)) == [told for _, told in EVERYTHING]


@given(
    st.lists(st.integers(min_value=0, max_value=sum(len(octets) for octets, _ in EVERYTHING)), max_size=12)
)
def test_segments_may_end_anywhere(cuts):
    """TCP knows no frames."""
    whole = b"".join(octets for octets, _ in EVERYTHING)
    cuts = [0, *sorted(cuts), len(whole)]
    assert read(*(whole[a:b] for a, b in pairwise(cuts))) == [told for _, told in EVERYTHING]


def test_what_means_nothing_is_passed_over():
    """Acknowledgements, priorities, and types of later RFCs (RFC 9113 section 5.5)."""
    assert (
        read(
            frame(frames.SETTINGS, 0x1),
            frame(frames.PING, 0x1, 0, bytes(8)),
            frame(frames.PRIORITY, 0, 1, bytes(5)),
            frame(0xA, 0xFF, 7, b"altsvc"),
            frame(0xFF, 0xFF, 2**31 - 1, bytes(MAX_FRAME)),
        )
        == []
    )


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        ((MAX_FRAME + 1).to_bytes(3, "big") + bytes(6), FRAME_SIZE_ERROR),  # before the rest of it came
        (frame(frames.DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0x4, 0, b"\x88"), PROTOCOL_ERROR),
        (frame(frames.DATA, 0x8, 1, b"\x01"), PROTOCOL_ERROR),
        (frame(frames.DATA, 0x8, 1, b""), FRAME_SIZE_ERROR),
        (frame(frames.HEADERS, 0xC, 1, b"\x05\x88"), PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0x24, 1, b"\x00\x00"), FRAME_SIZE_ERROR),
        (frame(frames.PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
        (frame(frames.RST_STREAM, 0, 0, bytes(4)), PROTOCOL_ERROR),
        (frame(frames.RST_STREAM, 0, 1, bytes(5)), FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, 0, 1), PROTOCOL_ERROR),
        (frame(frames.SETTINGS, 0x1, 0, bytes(6)), FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, 0, 0, pack(">HL", 2, 1)), PROTOCOL_ERROR),
        (frame(frames.SETTINGS, 0, 0, pack(">HL", 4, 2**31)), FLOW_CONTROL_ERROR),
        (frame(frames.SETTINGS, 0, 0, pack(">HL", 5, MAX_FRAME - 1)), PROTOCOL_ERROR),
        (frame(frames.SETTINGS, 0, 0, pack(">HL", 5, 2**24)), PROTOCOL_ERROR),
        (frame(frames.PUSH_PROMISE, 0x4, 1, pack(">L", 2) + b"\x88"), PROTOCOL_ERROR),
        (frame(frames.PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
        (frame(frames.PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
        (frame(frames.PING, 0x1, 0, bytes(9)), FRAME_SIZE_ERROR),
        (frame(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
        (frame(frames.GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
        (frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
        (frame(frames.CONTINUATION, 0x4, 1, b"\x88"), PROTOCOL_ERROR),
        (frame(frames.CONTINUATION, 0x4, 0, b"\x88"), PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0, 1, b"\x88") + frame(frames.DATA, 0, 1, b"x"), PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0, 1, b"\x88") + frame(frames.HEADERS, 4, 1, b"x"), PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0, 1, b"\x88") + frame(0xEE, 0, 1, b"x"), PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0, 1, b"\x88") + frame(frames.CONTINUATION, 4, 3, b""), PROTOCOL_ERROR),
        (frame(frames.HEADERS, 0, 1, b"\x88") + frame(frames.CONTINUATION, 0, 1, b""), ENHANCE_YOUR_CALM),
        (
            frame(frames.HEADERS, 0, 1, bytes(MAX_FRAME)) + frame(frames.CONTINUATION, 0, 1, bytes(1)),
            ENHANCE_YOUR_CALM,
        ),
    ],
)
def test_what_breaks_the_rules_ends_the_connection(octets, code):
    """With the code that the RFC names for it."""
    with pytest.raises(FrameError) as caught:
        read(octets)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "octets",
    [
        frame(frames.PING, 0, 0, bytes(8)),
        frame(frames.SETTINGS, 0x1),
        frame(0xEE),
        frame(frames.HEADERS, 4, 1),
    ],
)
def test_settings_come_first(octets):
    """RFC 9113 section 3.4."""
    with pytest.raises(FrameError):
        FrameReader(Receiver()).feed(octets)


@given(st.binary(max_size=200), st.booleans())
def test_rubbish_is_refused_or_read(octets, greeted):
    """Nothing else is raised, whatever comes."""
    reader = FrameReader(Receiver())
    with suppress(FrameError):
        reader.feed(GREETING if greeted else b"")
        reader.feed(octets)


@given(
    st.integers(0, frames.CONTINUATION + 2),
    st.integers(0, 255),
    st.integers(0, 3),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
def test_frames_of_nonsense_are_refused_or_read(kind, flags, stream_id, payload, more):
    """The same, behind heads that fit."""
    reader = FrameReader(Receiver())
    with suppress(FrameError):
        reader.feed(GREETING + frame(kind, flags, stream_id, payload) + frame(kind, flags, stream_id, more))


@pytest.mark.parametrize("size", [0, 1, 10, 11, 35])
def test_a_block_that_one_frame_cannot_hold(size):
    """The rest follows in CONTINUATION frames, without a gap (RFC 9113 section 6.10)."""
    block = bytes(range(size))
    written = frames.headers(7, block, True, 10)
    parsed = []
    while written:
        found, length = Frame.parse_frame_header(memoryview(written[:9]))
        found.parse_body(memoryview(written[9 : 9 + length]))
        parsed.append(found)
        written = written[9 + length :]
    assert b"".join(each.data for each in parsed) == block
    assert all(each.stream_id == 7 and len(each.data) <= 10 for each in parsed)
    assert "END_STREAM" in parsed[0].flags
    assert ["END_HEADERS" in each.flags for each in parsed] == [False] * (len(parsed) - 1) + [True]
    assert {each.__class__.__name__ for each in parsed[1:]} <= {"ContinuationFrame"}
    assert size <= MAX_BLOCK
