"""JIDs (RFC 7622): what is one, what it becomes, and that strangers cannot fill the memory with them."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.words.protocols.jabber.jid import JID

from xmpppush.errors import Forbidden
from xmpppush.jids import BadJid, own_account, parse_jid


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("localhost", "localhost"),
        ("alice@localhost", "alice@localhost"),
        ("Alice@LocalHost/Phone", "alice@localhost/Phone"),
        ("alice@localhost/a/b@c", "alice@localhost/a/b@c"),
        ("älice@münchen.example", "älice@münchen.example"),
        ("alice@localhost/Phone 2", "alice@localhost/Phone 2"),
        ("localhost/x", "localhost/x"),
        ("a@127.0.0.1", "a@127.0.0.1"),
    ],
)
def test_what_a_jid_becomes(text, full):
    """Prepared, as Twisted prepares it, by the short path and by the long one."""
    assert parse_jid(text).full() == full == JID(text).full()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "@localhost",
        "alice@",
        "alice@localhost/",
        "al ice@localhost",
        "a&b@localhost",
        "a@b@c",
        "/x",
        "a\n@localhost",
        "x" * 1024 + "@localhost",
        "a@localhost/" + "x" * 1024,
        "a@" + "b" * 1024,
        "\ud800@localhost",
        "a@b\x00",
        "a..b",
        ".a",
        "a@\u00ad.b",
    ],
)
def test_what_is_no_jid(text):
    """One error for all of it."""
    with pytest.raises(BadJid):
        parse_jid(text)


@given(st.text(max_size=40) | st.from_regex(r"\A[a-zA-Z@./\u00ad-]{1,20}\Z"))
@settings(deadline=None)
def test_any_text_is_a_jid_or_an_error(text):
    """Hostile input raises BadJid and nothing else; the short path agrees with the long one."""
    try:
        jid = parse_jid(text)
    except BadJid:
        return
    assert jid == JID(text)
    assert parse_jid(jid.full()) == jid


@pytest.mark.parametrize("text", ["A" * 200_000, "\xc9" * 100_000 + "@localhost", "a@b/" + "\xc9" * 100_000])
def test_an_endless_jid_is_not_prepared(text):
    """Stringprep takes microseconds a character: a stanza of 256 KiB held everybody up for a second."""
    before = time.process_time()
    with pytest.raises(BadJid):
        parse_jid(text)
    assert time.process_time() - before < 0.1


def test_the_cache_is_bounded():
    """Each JID would cost 338 bytes for ever in Twisted's own."""
    assert parse_jid("alice@localhost/phone") is parse_jid("alice@localhost/phone")
    assert parse_jid("alice@localhost/" + "x" * 300) is not parse_jid("alice@localhost/" + "x" * 300)


@pytest.mark.parametrize("to", ["alice@localhost", "localhost", "alice@localhost/desk", "Alice@Localhost"])
def test_ones_own_account(to):
    """Oneself, or one's server."""
    assert own_account("alice@localhost/phone", to) == "alice@localhost"


@pytest.mark.parametrize("to", ["bob@localhost", "example.org", "alice@example.org"])
def test_somebody_elses_account(to):
    """Everybody else."""
    with pytest.raises(Forbidden):
        own_account("alice@localhost/phone", to)
