"""Dialback's keys and elements, and who is talked to at all."""

import pytest
from twisted.words.xish.domish import Element

from xmpppush.config.sections import S2SSection
from xmpppush.server.s2s import dialback
from xmpppush.server.s2s.dialback import DialbackKeys
from xmpppush.server.s2s.policy import policy_of
from xmpppush.testing.sessions import stanza_of

# XEP-0185 section 3
KEY = "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"
ABOUT = ("xmpp.example.com", "example.org", "D60000229F")


def test_the_key_of_the_specification():
    """XEP-0185's example."""
    assert DialbackKeys(b"s3cr3tf0rd14lb4ck").key(*ABOUT) == KEY


@pytest.mark.parametrize(
    ("key", "about"),
    [
        (KEY[:-1] + "4", ABOUT),
        ("", ABOUT),
        ("\u00e9" * 64, ABOUT),
        (KEY, ("example.net", "example.org", "D60000229F")),
        (KEY, ("xmpp.example.com", "example.net", "D60000229F")),
        (KEY, ("xmpp.example.com", "example.org", "D60000229G")),
    ],
)
def test_a_key_is_for_one_stream_between_two_domains(key, about):
    """Nobody can use a key for anything but what it was made for."""
    keys = DialbackKeys(b"s3cr3tf0rd14lb4ck")
    assert keys.is_ours(KEY, *ABOUT)
    assert not keys.is_ours(key, *about)


def test_the_secret_is_shown_nowhere():
    """Not even what it is hashed to."""
    assert "s3cr3t" not in repr(vars(DialbackKeys(b"s3cr3t")))


def test_a_strangers_key_is_escaped():
    """It is sent on to the domain's own server."""
    xml = dialback.verify("a.example", "b.example", "'/><x", "</db:verify><message/>")
    assert "<message" not in xml
    assert "<x" not in xml


@pytest.mark.parametrize("kind", ["valid", "invalid", "item-not-found", "remote-server-timeout"])
def test_answers_are_read_as_they_are_written(kind):
    """Of both elements."""
    xml = dialback.answer("verify", "a.example", "b.example", kind, "id1")
    element = stanza_of(xml.replace("<db:verify ", "<db:verify xmlns:db='jabber:server:dialback' "))
    assert dialback.condition_of_answer(element) == kind
    assert (element["from"], element["to"], element["id"]) == ("a.example", "b.example", "id1")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("x@a.example", ""),
        ("a.example/r", ""),
        ("", ""),
    ],
)
def test_addresses_are_domains(text, domain):
    """Prepared; anything else is none."""
    element = Element(("jabber:server:dialback", "result"), attribs={"from": text})
    assert dialback.domain_in(element, "from") == domain


@pytest.mark.parametrize(
    ("allow", "block", "permitted", "refused"),
    [
        ((), (), ["a.example", "localhost"], []),
        (("a.example",), (), ["a.example", "pubsub.a.example"], ["example", "ba.example", "b.example"]),
        ((), ("a.example",), ["b.example", "ba.example"], ["a.example", "x.y.a.example"]),
        (("example",), ("a.example",), ["b.example"], ["a.example", "pubsub.a.example", "com"]),
    ],
)
def test_domains_count_with_all_below_them(allow, block, permitted, refused):
    """And block goes before allow."""
    policy = policy_of(S2SSection(allow=allow, block=block))
    assert all(map(policy.permits, permitted))
    assert not any(map(policy.permits, refused))
