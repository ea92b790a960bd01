"""Is this a push, for which registrations, with what content: pure decisions."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from attrs import evolve
from twisted.words.xish.domish import Element

from xmpppush.model import Notification, PushSummary, Registration
from xmpppush.xep import namespaces as ns


class Connected(Protocol):
    """What the rules need to know of a session."""

    resource: str
    priority: int | None


def body_of(message: Element) -> str | None:
    """The first ``<body/>`` with text in it; messages may carry one for each language."""
    for child in message.children:
        if type(child) is not str and child.name == "body" and child.uri is None:
            text = str(child)
            if text:
                return text
    return None


def is_important(message: Element) -> bool:
    """
    A message that a person wrote: chat, group chat or normal, with a body.

    Not one that its sender wants kept nowhere (XEP-0334 section 4.2): nothing would wait for whoever
    unlocks the phone.
    """
    if message.attributes.get("type") in ("error", "headline"):
        return False
    if body_of(message) is None:
        return False
    for child in message.children:
        if type(child) is not str and child.uri == ns.HINTS and child.name == "no-store":
            return False
    return True


def sender_of(message: Element) -> str:
    """
    Whom the notification names: the bare JID, in a room the whole ``room/nick`` (as MongooseIM does).
    """
    sender: str = message.attributes.get("from", "")
    return sender if message.attributes.get("type") == "groupchat" else sender.partition("/")[0]


def notification_of(message: Element) -> Notification:
    return Notification(
        PushSummary(
            message_count=1, last_message_sender=sender_of(message), last_message_body=body_of(message)
        )
    )


def redacted(notification: Notification, include_body: bool, include_sender: bool) -> Notification:
    """What may leave this server (``[mod_push] include_body``, ``include_sender``)."""
    summary = notification.summary
    if not include_body:
        summary = evolve(summary, last_message_body=None)
    if not include_sender:
        summary = evolve(summary, last_message_sender=None)
    return evolve(notification, summary=summary)


def has_reader(sessions: Iterable[Connected]) -> bool:
    """Is anybody there who gets messages: available, priority not negative?"""
    return any(session.priority is not None and session.priority >= 0 for session in sessions)


def to_notify(
    registrations: tuple[Registration, ...], sessions: Mapping[str, Connected], notify: str
) -> tuple[Registration, ...]:
    """
    The registrations whose device does not get the message over its own stream.

    Args:
        sessions: Resource to session of the account.
        notify: ``account-offline``: all of them or, while anybody reads, none (MongooseIM's rule);
            ``device-offline``: those whose own resource does not read, whoever else does.
    """
    if not sessions:
        return registrations
    if notify == "account-offline":
        return () if has_reader(sessions.values()) else registrations
    reading = {
        resource
        for resource, session in sessions.items()
        if session.priority is not None and session.priority >= 0
    }
    return tuple(registration for registration in registrations if registration.resource not in reading)
