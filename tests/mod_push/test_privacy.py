"""What leaves the server of a message, by table."""

import pytest

from xmpppush.mod_push.privacy import Privacy, beginning_of
from xmpppush.mod_push.rules import counted
from xmpppush.model import Notification, PushSummary

WHOLE = Notification(PushSummary(1, None, "b@c", "Hello"), {"message-sender": "b@c/d", "x": "y"})


def applied(notification=WHOLE, **settings):
    return Privacy(**settings).applied_to(notification)


def test_by_default_nothing_is_kept_back():
    """Not even a new object is made."""
    assert applied() is WHOLE


@pytest.mark.parametrize(("text", "shown"), [("New message", "New message"), ("", None)])
def test_a_hidden_body_has_a_text(text, shown):
    """The operator's, or none."""
    hidden = applied(include_body=False, hidden_body_text=text)
    assert hidden.summary == PushSummary(1, None, "b@c", shown)
    assert applied(Notification(PushSummary(1)), hidden_body_text=text).summary.last_message_body == shown


def test_a_hidden_sender_is_nowhere():
    """The plugin hints' field is the same address."""
    hidden = applied(include_sender=False)
    assert hidden == Notification(PushSummary(1, None, None, "Hello"), {"x": "y"})


def test_the_count_survives():
    """It is nobody's secret."""
    assert counted(applied(include_body=False), 3).summary.message_count == 3


def test_a_long_body_is_cut():
    """By characters; 0 is no limit."""
    long = Notification(PushSummary(1, None, "b@c", "x" * 2000))
    assert applied(long).summary.last_message_body == "x" * 999 + "…"
    assert applied(long, max_body_length=0) is long
    assert applied(max_body_length=5) is WHOLE
    assert applied(max_body_length=4).summary.last_message_body == "Hel…"


FAMILY = "👨‍👩‍👧"
E_ACUTE = "e\u0301"
GERMANY, FRANCE = "🇩🇪", "🇫🇷"


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [
        ("short", 5, "short"),
        ("abcdef", 1, "…"),
        ("abcdef", 4, "abc…"),
        ("ab cdef", 4, "ab…"),
        (f"ab{E_ACUTE}f", 4, "ab…"),
        (f"ab{E_ACUTE}fgh", 5, f"ab{E_ACUTE}…"),
        (f"ab{FAMILY}c", 5, "ab…"),
        (f"ab{FAMILY}cde", 8, f"ab{FAMILY}…"),
        ("ab👍🏽cd", 4, "ab…"),
        (f"a{GERMANY}{FRANCE}bc", 3, "a…"),
        (f"a{GERMANY}{FRANCE}bc", 4, f"a{GERMANY}…"),
        (f"a{GERMANY}{FRANCE}bc", 5, f"a{GERMANY}…"),
        ("ab❤\ufe0fcd", 4, "ab…"),
    ],
)
def test_what_looks_like_one_character_stays_whole(text, limit, cut):
    """Accents, families, skin tones, flags."""
    assert beginning_of(text, limit) == cut
    assert len(cut) <= limit


@pytest.mark.parametrize("text", ["a" + "\u0301" * 10_000, "🇩" * 10_000, "\u200d" * 10_000])
def test_absurd_text_is_cut_too(text):
    """And quickly: the search for a better place is short."""
    assert len(beginning_of(text, 1000)) == 1000
