"""The push importance, by table."""

import pytest
from attrs import frozen

from xmpppush.errors import (
    AppServerUnreachable,
    Forbidden,
    LimitReached,
    NodeNotFound,
    PreconditionNotMet,
    StorageError,
    TryLater,
)
from xmpppush.mod_push.rules import (
    CALL,
    Verdict,
    body_of,
    counted,
    importance_of,
    is_urgent,
    is_waiting,
    notification_of,
    to_notify,
    urgent,
    verdict_on,
)
from xmpppush.model import Importance, Notification, PushSummary
from xmpppush.testing.builders import a_registration
from xmpppush.testing.sessions import stanza_of


@frozen
class S:
    resource: str
    priority: int | None
    hibernated: bool = False
    answering: bool = True
    active: bool = True


def connected(**priorities):
    return {resource: S(resource, priority) for resource, priority in priorities.items()}


BODY, STORE, NO_STORE = (
    "<body>Hi</body>",
    "<store xmlns='urn:xmpp:hints'/>",
    "<no-store xmlns='urn:xmpp:hints'/>",
)
OMEMO = "<encrypted xmlns='eu.siacs.conversations.axolotl'><header/><payload>x</payload></encrypted>"
OMEMO_2 = "<encrypted xmlns='urn:xmpp:omemo:2'><header/><payload>x</payload></encrypted>"
KEYS = "<encrypted xmlns='eu.siacs.conversations.axolotl'><header/></encrypted>"
EME = "<encryption xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl'/>"
RECEIPT = "<received xmlns='urn:xmpp:receipts' id='1'/>"
MARKER = "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"
COMPOSING = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
ID = "<origin-id xmlns='urn:xmpp:sid:0' id='1'/>"
REACTION = "<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>+1</reaction></reactions>"


def call(action):
    return f"<{action} xmlns='urn:xmpp:jingle-message:0' id='c1'/>"


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("chat", BODY, "message"),
        ("", BODY, "message"),
        ("normal", BODY, "message"),
        ("groupchat", BODY, "message"),
        ("chat", f"<subject>S</subject>{BODY}{ID}{COMPOSING}", "message"),
        ("chat", f"<request xmlns='urn:xmpp:receipts'/>{BODY}", "message"),
        ("chat", OMEMO, "encrypted"),
        ("chat", f"{EME}{OMEMO_2}{STORE}", "encrypted"),
        ("chat", "<x xmlns='jabber:x:encrypted'>x</x>", "encrypted"),
        ("chat", "<openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp>", "encrypted"),
        ("chat", call("propose") + STORE, "call"),
        ("chat", BODY + call("propose"), "call"),
        ("chat", REACTION + STORE, "store-hint"),
    ],
)
def test_what_is_a_push(kind, content, reason):
    """What a person wrote, in clear or encrypted, a call, and what its sender wants kept."""
    importance = importance_of(stanza_of(f"<message type='{kind}'>{content}</message>"))
    assert (importance.push, bool(importance), importance.reason) == (True, True, reason)
    assert importance.urgent is (reason == "call")


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("error", BODY, "error"),
        ("headline", BODY, "headline"),
        ("chat", BODY + NO_STORE, "no-store"),
        ("chat", NO_STORE + call("propose"), "no-store"),
        ("chat", "<body/>", "no-content"),
        ("chat", "", "no-content"),
        ("chat", "<subject>S</subject>", "subject-only"),
        ("groupchat", f"<subject>S</subject>{STORE}", "subject-only"),
        ("chat", COMPOSING, "chat-state"),
        ("chat", RECEIPT + ID, "receipt"),
        ("chat", RECEIPT + STORE, "receipt"),  # Conversations
        ("chat", MARKER + STORE, "marker"),
        ("chat", KEYS + STORE, "no-content"),
        ("chat", call("retract") + STORE, "call-signal"),
        ("chat", call("proceed"), "call-signal"),
        ("chat", REACTION, "no-content"),
        ("", "<x xmlns='urn:x'><body>inside</body></x>", "no-content"),
        ("chat", f"{BODY}<sent xmlns='urn:xmpp:carbons:2'/>", "own-message"),
    ],
)
def test_what_is_no_push(kind, content, reason):
    """What programs tell each other, with a word for the trace."""
    importance = importance_of(stanza_of(f"<message type='{kind}'>{content}</message>"))
    assert (importance.push, bool(importance), importance.reason) == (False, False, reason)
    assert not importance.urgent


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


@pytest.mark.parametrize("content", [BODY + OMEMO, OMEMO + BODY, OMEMO])
def test_the_fallback_of_an_encrypted_message_is_not_shown(content):
    """It says that a client cannot decrypt, which the phone can."""
    message = stanza_of(f"<message from='b@c/d'>{content}</message>")
    assert notification_of(message) == Notification(PushSummary(1, None, "b@c", None))


def test_a_call_has_priority():
    """Unless whoever made the notification chose one."""
    assert urgent(Notification()).extra == {"priority": "high"}
    assert urgent(Notification(extra={"a": "b"})).extra == {"a": "b", "priority": "high"}
    assert urgent(Notification(extra={"priority": "normal"})).extra == {"priority": "normal"}


def test_the_count_is_what_the_device_missed():
    """A plugin's own count, or none, stays."""
    one = Notification(PushSummary(1, 2, "b@c", "Hi"), {"a": "b"})
    assert counted(one, 1) is one
    assert counted(one, 7) == Notification(PushSummary(7, 2, "b@c", "Hi"), {"a": "b"})
    for count in (None, 0, 5):
        assert counted(Notification(PushSummary(count)), 7).summary.message_count == count


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (NodeNotFound(), Verdict.GONE),
        (TryLater("busy"), Verdict.PASSING),
        (StorageError(), Verdict.PASSING),
        (LimitReached(), Verdict.PASSING),
        (AppServerUnreachable(), Verdict.PASSING),
        (Forbidden(), Verdict.COUNTS),
        (PreconditionNotMet(), Verdict.COUNTS),
    ],
)
def test_what_an_error_means(error, verdict):
    """Only what the app server says of this node counts against a registration."""
    assert verdict_on(error) is verdict


def test_who_is_suspended_waits():
    """Until its time, and not longer where the clock was set back; who is active never does."""
    assert not is_waiting(a_registration(next_try=50.0), 10.0, 100.0)
    suspended = a_registration(state="suspended", next_try=50.0)
    assert is_waiting(suspended, 49.9, 100.0)
    assert not is_waiting(suspended, 50.0, 100.0)
    assert not is_waiting(suspended, -1000.0, 100.0)


PHONE, TABLET = a_registration(resource="phone"), a_registration(node="node-2", resource="tablet")


@pytest.mark.parametrize(
    ("sessions", "by_device", "by_account"),
    [
        ({}, [PHONE, TABLET], [PHONE, TABLET]),
        (connected(phone=0), [TABLET], []),
        ({"phone": S("phone", 0, hibernated=True)}, [PHONE, TABLET], [PHONE, TABLET]),
        ({"phone": S("phone", 0, answering=False)}, [PHONE, TABLET], [PHONE, TABLET]),
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


@pytest.mark.parametrize(
    ("inactive", "by_device", "by_account"),
    [("", "", ""), ("phone", "phone", ""), ("phone desk", "phone desk", "phone desk")],
)
def test_where_only_who_looks_at_it_reads(inactive, by_device, by_account):
    """An inactive client (XEP-0352) is as good as none."""
    registrations = tuple(a_registration(node=name, resource=name) for name in ("phone", "desk"))
    sessions = {name: S(name, 0, active=name not in inactive.split()) for name in ("phone", "desk")}
    for notify, expected in (("device-offline", by_device), ("account-offline", by_account)):
        assert to_notify(registrations, sessions, notify) == ()
        chosen = to_notify(registrations, sessions, notify, only_active=True)
        assert [registration.node for registration in chosen] == expected.split()


@pytest.mark.parametrize(
    ("answer", "is_so"),
    [(True, False), (Importance(True, "x"), False), (CALL, True), (Importance(False, "x", True), False)],
)
def test_what_is_urgent(answer, is_so):
    """Only a plugin that says so, of what is a push."""
    assert is_urgent(answer) is is_so
