"""
What a registration with Tigase's extensions gets of a message, and how: decisions, and AES-128-GCM.

A registration without them never comes here.
"""

from base64 import b64decode, b64encode
from collections.abc import Container

import orjson
from attrs import asdict
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.words.xish.domish import Element

from xmpppush.mod_push.rules import body_of, jingle_message_in
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

IV_SIZE = 12

# Why a registration's own filters leave a message out: words for the trace.
MUTED, UNKNOWN_SENDER, ROOM, CALLS = "muted", "unknown-sender", "room", "calls"


def left_out_by(
    extensions: Extensions, message: Element, importance: Importance, roster: Container[str] | None
) -> str | None:
    """
    Why the registration does not want this message, ``None`` where it does.

    Args:
        roster: Bare JIDs that the account knows, itself among them; ``None``: nobody asked.
    """
    sender = message.attributes.get("from", "").partition("/")[0]
    if sender in extensions.muted:
        return MUTED
    if message.attributes.get("type") == "groupchat":
        return None if _wants_room(extensions, sender, message) else ROOM
    if extensions.ignore_unknown and roster is not None and sender not in roster:
        return UNKNOWN_SENDER
    # Tigase's rule: an app that speaks these extensions and leaves out this one cannot ring.
    if importance.urgent and not extensions.jingle:
        return CALLS
    return None


def _wants_room(extensions: Extensions, room: str, message: Element) -> bool:
    if extensions.rooms is None:
        return True
    rule = extensions.rooms.get(room)
    if rule is None or rule.allow == "never":
        return False
    return rule.allow == "always" or bool(rule.nick and rule.nick in (body_of(message) or ""))


def extended(
    notification: Notification, extensions: Extensions, message: Element, importance: Importance, iv: bytes
) -> Notification:
    """
    The notification as the registration wants it.

    Args:
        notification: With its count, and without what may not leave this server.
        iv: `IV_SIZE` random octets, never used before.
    """
    call = _call_in(message) if extensions.jingle and importance.urgent else None
    priority = ""
    if extensions.priority:
        urgent = importance.urgent or bool(notification.summary.last_message_body)
        priority = "high" if urgent or importance.reason == "encrypted" else "low"
    if not extensions.key:
        if call is None and not priority:
            return notification
        return Notification(notification.summary, notification.extra, PushExtras(priority, call))
    content = encrypted(notification.summary, extensions, message, call, iv)
    # It replaces the form, and a call's element as well: both would tell what it hides.
    return Notification(PushSummary(), extras=PushExtras(priority, None, content))


def encrypted(
    summary: PushSummary, extensions: Extensions, message: Element, call: Call | None, iv: bytes
) -> Encrypted:
    """What the summary says, for the device alone: AES-128-GCM, its tag of 16 octets behind the text."""
    sender = summary.last_message_sender or ""
    in_room = message.attributes.get("type") == "groupchat"
    content: dict[str, object] = {"unread": summary.message_count or 0}
    if call is not None:
        content |= {"type": "call", "sid": call.sid, "media": list(call.media)}
        content["sender"] = message.attributes.get("from", "") if sender else ""
    else:
        content |= {"type": "groupchat" if in_room else "chat", "sender": sender.partition("/")[0]}
        if in_room and "/" in sender:
            content["nickname"] = sender.partition("/")[2][:200]
        body = summary.last_message_body
        if body:
            content["message"] = ""
            content["message"] = _beginning(body, extensions.max_size - len(orjson.dumps(content)))
    text = AESGCM(extensions.key).encrypt(iv, orjson.dumps(content), None)
    return Encrypted(b64encode(iv).decode(), b64encode(text).decode(), call is not None)


def _beginning(text: str, room: int) -> str:
    """As much of it as takes so many octets in JSON."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(orjson.dumps(text[:middle])) - 2 <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def _call_in(message: Element) -> Call | None:
    jingle = jingle_message_in(message)
    if jingle is None:
        return None
    media = tuple(
        child.getAttribute("media", "") for child in jingle.elements() if child.name == "description"
    )
    return Call(jingle.name, jingle.attributes.get("id", ""), tuple(each for each in media[:4] if each))


def to_json(extensions: Extensions | None) -> str:
    """For the storage; ``""``: none."""
    if extensions is None:
        return ""
    values = asdict(extensions)
    values["key"] = b64encode(extensions.key).decode()
    values["muted"] = sorted(extensions.muted)
    return orjson.dumps(values).decode()


def from_json(text: str) -> Extensions | None:
    """What `to_json` made of it."""
    if not text:
        return None
    values = orjson.loads(text)
    rooms = values["rooms"]
    return Extensions(
        **{
            **values,
            "key": b64decode(values["key"]),
            "muted": frozenset(values["muted"]),
            "rooms": None if rooms is None else {jid: Room(**room) for jid, room in rooms.items()},
        }
    )
