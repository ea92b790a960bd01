"""Stream management as arithmetic (XEP-0198)."""

import pytest

from xmpppush.server.sm import (
    MASK,
    MAX_UNACKED,
    MAX_UNACKED_SIZE,
    BadSMElement,
    HandledTooHigh,
    StreamManagement,
    enabled_xml,
    failed_xml,
    parse_count,
    resumption_timeout,
)


@pytest.fixture
def sm():
    return StreamManagement()


def sent(sm, *names):
    return [sm.sent(f"<{name}/>", name) for name in names]


def names(items):
    return [item.what for item in items]


def test_what_came_is_handled(sm):
    """Without anything pending every stanza counts at once."""
    assert sm.handled == 0
    assert [sm.received(), sm.received()] == [1, 2]
    assert sm.handled == 2
    assert sm.is_settled


def test_only_the_leading_done_ones_are_handled(sm):
    """What is not on disk holds up those behind it, in whatever order they get done."""
    for number in (1, 2, 3, 4):
        sm.received()
        if number != 1:
            sm.pending(number)
    assert sm.handled == 1
    sm.done(3)
    assert sm.handled == 1
    assert not sm.is_done(2)
    sm.done(2)
    assert sm.handled == 3
    assert sm.is_done(3)
    assert not sm.is_settled
    sm.done(4)
    assert sm.handled == 4
    assert sm.is_settled


def test_acknowledged_stanzas_come_out_in_order(sm):
    """Each once."""
    sent(sm, "a", "b", "c")
    assert names(sm.acknowledge(2)) == ["a", "b"]
    assert sm.acknowledge(2) == []
    assert names(sm.unacked) == ["c"]
    assert sm.size == len("<c/>")
    assert names(sm.acknowledge(3)) == ["c"]
    assert sm.size == 0


@pytest.mark.parametrize("handled", [3, 100, MASK])
def test_more_than_was_sent_cannot_be_acknowledged(sm, handled):
    """Section 4: the client is told both numbers; nothing is taken as acknowledged."""
    sent(sm, "a", "b")
    with pytest.raises(HandledTooHigh) as raised:
        sm.acknowledge(handled)
    assert (raised.value.handled, raised.value.sent) == (handled, 2)
    assert names(sm.unacked) == ["a", "b"]


def test_an_older_count_says_nothing_new(sm):
    """Two acknowledgements that crossed are no fault."""
    sent(sm, "a", "b", "c")
    sm.acknowledge(2)
    assert sm.acknowledge(1) == []
    assert sm.acknowledge(0) == []
    assert names(sm.unacked) == ["c"]


def test_counters_begin_again_after_32_bits(sm):
    """Section 4: 2^32 - 1 is followed by 0, on both ways."""
    sm._received = sm._acked = MASK
    sent(sm, "a", "b")
    assert names(sm.acknowledge(0)) == ["a"]
    assert names(sm.acknowledge(1)) == ["b"]
    with pytest.raises(HandledTooHigh) as raised:
        sm.acknowledge(2)
    assert raised.value.sent == 1
    assert sm.handled == MASK
    sm.received()
    assert sm.handled == 0


def test_what_is_kept_is_bounded(sm):
    """By number and by size: a client that never acknowledges does not fill the memory."""
    assert all(sm.sent("x") for _ in range(MAX_UNACKED))
    assert sm.is_half_full
    assert not sm.sent("x")
    large = StreamManagement()
    assert large.sent("x" * (MAX_UNACKED_SIZE // 2))
    assert not large.is_half_full
    assert not large.sent("x" * (MAX_UNACKED_SIZE // 2 + 1))
    assert names(large.give_up()) == [None, None]
    assert large.size == 0
    assert not large.unacked


@pytest.mark.parametrize("text", [None, "", "-1", "1.0", "x", "4294967296", "9" * 5000, "\u0663"])
def test_a_count_that_is_none(text):
    """xs:unsignedInt, whatever a client writes."""
    with pytest.raises(BadSMElement):
        parse_count(text)


@pytest.mark.parametrize(
    ("wish", "timeout"),
    [(None, 600.0), ("60", 60.0), ("601", 600.0), ("0", 0.0), ("-5", 600.0), ("soon", 600.0)],
)
def test_the_smaller_maximum_wins(wish, timeout):
    """Section 3: the client's 'max' is a wish for less."""
    assert resumption_timeout(600.0, wish) == timeout


def test_elements_are_written_as_specified():
    """With an id only where resumption was agreed on."""
    assert enabled_xml(StreamManagement()) == "<enabled xmlns='urn:xmpp:sm:3'/>"
    assert enabled_xml(StreamManagement("x1", 600.0)) == (
        "<enabled xmlns='urn:xmpp:sm:3' id='x1' resume='true' max='600'/>"
    )
    assert failed_xml("item-not-found", 7) == (
        "<failed xmlns='urn:xmpp:sm:3' h='7'>"
        "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
