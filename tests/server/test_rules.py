"""RFC 6121 section 8.5 as a table, and what is worth keeping."""

import pytest
from attrs import frozen

from xmpppush.server.rules import Otherwise, is_worth_storing, message_type, plan_message
from xmpppush.testing.sessions import stanza_of

STORE, BOUNCE, IGNORE = Otherwise.STORE, Otherwise.BOUNCE, Otherwise.IGNORE


@frozen
class S:
    resource: str
    priority: int | None


def sessions(**priorities):
    return {resource: S(resource, priority) for resource, priority in priorities.items()}


NONE = {}
UNAVAILABLE = sessions(phone=None)
NEGATIVE = sessions(phone=-1)
ONE = sessions(phone=0)
SOME = sessions(phone=0, desk=5, bot=-1, fresh=None)


@pytest.mark.parametrize(
    ("kind", "resource", "connected", "got", "otherwise"),
    [
        # Bare JID, nobody there (section 8.5.2.2)
        ("chat", None, NONE, "", STORE),
        ("normal", None, NONE, "", STORE),
        ("headline", None, NONE, "", IGNORE),
        ("groupchat", None, NONE, "", BOUNCE),
        ("error", None, NONE, "", IGNORE),
        ("chat", None, UNAVAILABLE, "", STORE),
        ("chat", None, NEGATIVE, "", STORE),
        ("headline", None, NEGATIVE, "", IGNORE),
        # Bare JID, somebody there (section 8.5.2.1)
        ("chat", None, ONE, "phone", STORE),
        ("chat", None, SOME, "phone desk", STORE),
        ("normal", None, SOME, "phone desk", STORE),
        ("headline", None, SOME, "phone desk", IGNORE),
        ("groupchat", None, SOME, "", BOUNCE),
        ("error", None, SOME, "", IGNORE),
        # Full JID that is there (section 8.5.3.1), whatever its priority
        ("chat", "bot", SOME, "bot", IGNORE),
        ("groupchat", "fresh", SOME, "fresh", IGNORE),
        ("error", "phone", SOME, "phone", IGNORE),
        # Full JID that is gone (section 8.5.3.2)
        ("chat", "old", SOME, "phone desk", STORE),
        ("chat", "old", NEGATIVE, "", STORE),
        ("chat", "old", NONE, "", STORE),
        ("normal", "old", NONE, "", STORE),
        ("headline", "old", SOME, "", IGNORE),
        ("groupchat", "old", SOME, "", BOUNCE),
        ("error", "old", SOME, "", IGNORE),
    ],
)
def test_plan_message(kind, resource, connected, got, otherwise):
    """Each row of RFC 6121 section 8.5.4 that concerns messages."""
    plan = plan_message(kind, resource, connected)
    assert [session.resource for session in plan.sessions] == got.split()
    if not got:
        assert plan.otherwise is otherwise


def test_an_unknown_message_type_is_normal():
    """RFC 6121 section 5.2.2."""
    assert message_type(stanza_of("<message type='shout'/>")) == "normal"
    assert message_type(stanza_of("<message/>")) == "normal"
    assert message_type(stanza_of("<message type='headline'/>")) == "headline"


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ("<body>Hi</body>", True),
        ("", False),
        ("<composing xmlns='http://jabber.org/protocol/chatstates'/>", False),
        ("<composing xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>", False),
        ("<active xmlns='http://jabber.org/protocol/chatstates'/><body>Hi</body>", True),
        ("<received xmlns='urn:xmpp:receipts' id='1'/>", True),
        ("<body>Hi</body><no-store xmlns='urn:xmpp:hints'/>", False),
        ("<no-store xmlns='urn:xmpp:hints'/><body>Hi</body>", False),
        ("<body>Hi</body><no-permanent-store xmlns='urn:xmpp:hints'/>", True),
        (
            "<composing xmlns='http://jabber.org/protocol/chatstates'/><store xmlns='urn:xmpp:hints'/>",
            True,
        ),
    ],
)
def test_what_is_worth_storing(content, kept):
    """XEP-0160 section 3 and XEP-0334 section 4."""
    assert is_worth_storing(stanza_of(f"<message>{content}</message>")) is kept
