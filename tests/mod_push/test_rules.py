"""The push decision, by table."""

import pytest
from attrs import frozen

from xmpppush.mod_push.rules import body_of, is_important, notification_of, redacted, to_notify
from xmpppush.testing.builders import a_registration
from xmpppush.testing.sessions import stanza_of


@frozen
class S:
    resource: str
    priority: int | None


def connected(**priorities):
    return {resource: S(resource, priority) for resource, priority in priorities.items()}


@pytest.mark.parametrize(
    ("message", "push"),
    [
        ("<message type='chat'><body>Hi</body></message>", True),
        ("<message><body>Hi</body></message>", True),
        ("<message type='groupchat'><body>Hi</body></message>", True),
        ("<message type='headline'><body>Hi</body></message>", False),
        ("<message type='error'><body>Hi</body></message>", False),
        ("<message type='chat'><body/></message>", False),
        ("<message type='chat'><subject>Hi</subject></message>", False),
        ("<message><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", False),
        ("<message><received xmlns='urn:xmpp:receipts' id='1'/></message>", False),
        ("<message><body>Hi</body><no-store xmlns='urn:xmpp:hints'/></message>", False),
        ("<message><x xmlns='urn:x'><body>inside</body></x></message>", False),
    ],
)
def test_what_is_important(message, push):
    """A message that a person wrote and that waits for its reader is a push."""
    assert is_important(stanza_of(message)) is push


def test_the_first_body_with_text_counts():
    """A message may carry a body for each language."""
    message = stanza_of("<message><body/><body xml:lang='de'>Hallo</body><body>Hi</body></message>")
    assert body_of(message) == "Hallo"


@pytest.mark.parametrize(
    ("kind", "sender"),
    [("chat", "bob@localhost"), ("groupchat", "bob@localhost/desk")],
)
def test_the_sender_is_bare_except_in_a_room(kind, sender):
    """In a room the resource is who spoke."""
    message = stanza_of(f"<message type='{kind}' from='bob@localhost/desk'><body>Hi</body></message>")
    summary = notification_of(message).summary
    assert (summary.message_count, summary.last_message_sender, summary.last_message_body) == (
        1,
        sender,
        "Hi",
    )


def test_what_leaves_the_server_can_be_limited():
    """XEP-0357 section 12: body and sender stay here where the operator says so."""
    whole = notification_of(stanza_of("<message from='b@c/d'><body>Hi</body></message>"))
    assert redacted(whole, True, True) == whole
    assert redacted(whole, False, True).summary.last_message_body is None
    assert redacted(whole, False, True).summary.last_message_sender == "b@c"
    assert redacted(whole, True, False).summary.last_message_sender is None


PHONE, TABLET = a_registration(resource="phone"), a_registration(node="node-2", resource="tablet")


@pytest.mark.parametrize(
    ("sessions", "by_device", "by_account"),
    [
        ({}, [PHONE, TABLET], [PHONE, TABLET]),
        (connected(phone=0), [TABLET], []),
        (connected(desk=0), [PHONE, TABLET], []),
        (connected(phone=0, tablet=1), [], []),
        (connected(phone=-1), [PHONE, TABLET], [PHONE, TABLET]),
        (connected(phone=None), [PHONE, TABLET], [PHONE, TABLET]),
    ],
)
def test_who_is_notified(sessions, by_device, by_account):
    """A device that reads its own stream gets no push; MongooseIM's rule looks at the account."""
    registrations = (PHONE, TABLET)
    assert list(to_notify(registrations, sessions, "device-offline")) == by_device
    assert list(to_notify(registrations, sessions, "account-offline")) == by_account
