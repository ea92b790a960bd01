"""Tigase's extensions: which messages a registration wants, and what it is told of them."""

from base64 import b64decode

import orjson
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from xmpppush.mod_push.extensions import extended, from_json, left_out_by, to_json
from xmpppush.mod_push.rules import CALL, ENCRYPTED, MESSAGE
from xmpppush.model import (
    Call,
    Encrypted,
    Extensions,
    Importance,
    Notification,
    PushExtras,
    PushSummary,
    Room,
)
from xmpppush.testing.sessions import stanza_of
from xmpppush.xep.push import notification_element, parse_notification

KEY, IV = bytes(range(16)), bytes(12)
PROPOSE = (
    "<propose xmlns='urn:xmpp:jingle-message:0' id='c1'>"
    "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>"
    "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='video'/></propose>"
)


def message(content="<body>Hi, romeo</body>", kind="chat", by="bob@localhost/x"):
    return stanza_of(f"<message type='{kind}' from='{by}' to='alice@localhost'>{content}</message>")


ROOMS = {"r1@muc": Room("always"), "r2@muc": Room("mentioned", "romeo"), "r3@muc": Room("never")}


@pytest.mark.parametrize(
    ("extensions", "stanza", "importance", "why"),
    [
        (Extensions(), message(), MESSAGE, None),
        (Extensions(muted=frozenset(["bob@localhost"])), message(), MESSAGE, "muted"),
        (Extensions(muted=frozenset(["bob@localhost"]), jingle=True), message(PROPOSE), CALL, "muted"),
        (Extensions(muted=frozenset(["eve@localhost"])), message(), MESSAGE, None),
        (Extensions(ignore_unknown=True), message(), MESSAGE, None),
        (Extensions(ignore_unknown=True), message(by="eve@x/y"), MESSAGE, "unknown-sender"),
        (Extensions(ignore_unknown=True), message(by="r1@muc/eve", kind="groupchat"), MESSAGE, None),
        (Extensions(rooms={}), message(), MESSAGE, None),
        (Extensions(rooms=ROOMS), message(by="r1@muc/x", kind="groupchat"), MESSAGE, None),
        (Extensions(rooms=ROOMS), message(by="r2@muc/x", kind="groupchat"), MESSAGE, None),
        (Extensions(rooms=ROOMS), message("<body>Hi</body>", "groupchat", "r2@muc/x"), MESSAGE, "room"),
        (Extensions(rooms=ROOMS), message(by="r3@muc/x", kind="groupchat"), MESSAGE, "room"),
        (Extensions(rooms=ROOMS), message(by="r4@muc/x", kind="groupchat"), MESSAGE, "room"),
        (Extensions(), message(PROPOSE), CALL, "calls"),
        (Extensions(jingle=True), message(PROPOSE), CALL, None),
    ],
)
def test_filters(extensions, stanza, importance, why):
    """As Tigase has them; rooms that are not listed are not wanted."""
    assert left_out_by(extensions, stanza, importance, {"bob@localhost"}) == why


def test_without_a_roster_nobody_is_unknown():
    """Accounts elsewhere: rather a push too many."""
    assert left_out_by(Extensions(ignore_unknown=True), message(), MESSAGE, None) is None


SUMMARY = PushSummary(3, None, "bob@localhost", "Hi")


@pytest.mark.parametrize(
    ("summary", "importance", "priority"),
    [
        (SUMMARY, MESSAGE, "high"),
        (PushSummary(1), ENCRYPTED, "high"),
        (PushSummary(1), CALL, "high"),
        (PushSummary(1), Importance(True, "store-hint"), "low"),
    ],
)
def test_priority(summary, importance, priority):
    """High for what a person waits for."""
    told = extended(Notification(summary), Extensions(priority=True), message(), importance, IV)
    assert told == Notification(summary, extras=PushExtras(priority))


def test_nothing_changes_without_need():
    """Filters alone are no wish about the content."""
    notification = Notification(SUMMARY)
    assert extended(notification, Extensions(), message(), MESSAGE, IV) is notification


def test_calls_are_told():
    """With what rings, and how."""
    told = extended(Notification(SUMMARY), Extensions(jingle=True), message(PROPOSE), CALL, IV)
    assert told.extras == PushExtras(call=Call("propose", "c1", ("audio", "video")))


def decrypted(told, key=KEY):
    """As the device does: the tag is checked."""
    text = told.extras.encrypted
    return orjson.loads(AESGCM(key).decrypt(b64decode(text.iv), b64decode(text.text), None))


def test_encryption_has_a_true_tag_and_hides_the_summary():
    """AES-128-GCM, 12 octets of iv, 16 of tag; nothing else is told."""
    told = extended(Notification(SUMMARY, {"x": "y"}), Extensions(key=KEY), message(), MESSAGE, IV)
    assert told.summary == PushSummary()
    assert not told.extra
    plain = {"unread": 3, "type": "chat", "sender": "bob@localhost", "message": "Hi"}
    assert decrypted(told) == plain
    assert len(b64decode(told.extras.encrypted.text)) == len(orjson.dumps(plain)) + 16


def test_encrypted_rooms_and_calls():
    """With the nickname; with the caller's full JID."""
    summary = PushSummary(1, None, "r1@muc/Romeo", "Hi")
    room = message(by="r1@muc/Romeo", kind="groupchat")
    told = decrypted(extended(Notification(summary), Extensions(key=KEY), room, MESSAGE, IV))
    assert (told["type"], told["sender"], told["nickname"]) == ("groupchat", "r1@muc", "Romeo")
    extensions = Extensions(key=KEY, jingle=True)
    told = extended(Notification(SUMMARY), extensions, message(PROPOSE), CALL, IV)
    assert told.extras.encrypted.voip
    assert told.extras.call is None
    call = {"unread": 3, "type": "call", "sid": "c1", "media": ["audio", "video"]}
    assert decrypted(told) == {**call, "sender": "bob@localhost/x"}


@pytest.mark.parametrize("text", ["x" * 10_000, "€" * 10_000, '"\\\n' * 5000, "👍" * 5000])
def test_long_messages_are_cut_to_max_size(text):
    """Of the JSON, in octets, and no character in two."""
    summary = PushSummary(1, None, "bob@localhost", text)
    told = extended(Notification(summary), Extensions(key=KEY, max_size=500), message(), MESSAGE, IV)
    plain = decrypted(told)
    assert 480 < len(orjson.dumps(plain)) <= 500
    assert text.startswith(plain["message"])


def test_they_come_back_from_the_storage():
    """As they were; none is none."""
    extensions = Extensions(KEY, 500, True, frozenset(["a@b"]), True, ROOMS, True)
    assert from_json(to_json(extensions)) == extensions
    assert from_json(to_json(Extensions())) == Extensions()
    assert from_json(to_json(None)) is None
    assert "key" not in repr(extensions)


@pytest.mark.parametrize(
    "extras",
    [
        PushExtras("high"),
        PushExtras("low", Call("propose", "c1", ("audio",))),
        PushExtras("high", None, Encrypted("aXY=", "dGV4dA==", True)),
        PushExtras("", None, Encrypted("aXY=", "dGV4dA==")),
    ],
)
def test_they_are_published_and_read(extras):
    """One server's words are the next one's."""
    notification = Notification(extras=extras)
    assert parse_notification(notification_element(notification)) == notification
