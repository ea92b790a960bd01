"""Is this a push, for which registrations, and what do errors mean: pure decisions."""

from collections.abc import Collection, Iterable, Mapping
from enum import Enum, auto
from typing import Protocol

from attrs import evolve
from twisted.words.xish.domish import Element

from xmpppush.errors import AppServerUnreachable, LimitReached, NodeNotFound, StorageError, TryLater
from xmpppush.model import SUSPENDED, Importance, Notification, PushSummary, Registration
from xmpppush.xep import namespaces as ns

# Pushes, and why. The reasons are words for the trace and the documentation.
MESSAGE = Importance(True, "message")
ENCRYPTED = Importance(True, "encrypted")
CALL = Importance(True, "call", urgent=True)
STORE_HINT = Importance(True, "store-hint")
CALL_SIGNAL_STORED = Importance(True, "call-signal", urgent=True)  # the plugin hints' alone
# No pushes, and why not.
ERROR = Importance(False, "error")
HEADLINE = Importance(False, "headline")
NO_STORE = Importance(False, "no-store")
OWN_MESSAGE = Importance(False, "own-message")
CHAT_STATE = Importance(False, "chat-state")
RECEIPT = Importance(False, "receipt")
MARKER = Importance(False, "marker")
CALL_SIGNAL = Importance(False, "call-signal")
SUBJECT_ONLY = Importance(False, "subject-only")
NO_CONTENT = Importance(False, "no-content")

# What says nothing to a person, and what a message of nothing else is. Conversations adds the store
# hint to receipts and markers, so the hint alone makes no push of them.
_QUIET: Mapping[str, Importance] = {
    ns.CHAT_STATES: CHAT_STATE,
    ns.RECEIPTS: RECEIPT,
    ns.CHAT_MARKERS: MARKER,
    ns.STANZA_IDS: NO_CONTENT,
    ns.ENCRYPTION: NO_CONTENT,
    ns.DELAY: NO_CONTENT,
}
_OMEMO = frozenset(ns.OMEMO)
_ENCRYPTION = _OMEMO | {ns.OPENPGP, ns.OPENPGP_LEGACY}
_BY_TYPE: Mapping[str, Importance] = {"error": ERROR, "headline": HEADLINE}


class Connected(Protocol):
    """What the rules need to know of a session."""

    resource: str
    priority: int | None
    hibernated: bool
    answering: bool
    active: bool


def body_of(message: Element) -> str | None:
    """The first ``<body/>`` with text in it; messages may carry one for each language."""
    for child in message.children:
        if type(child) is not str and child.name == "body" and child.uri is None:
            text = _text_of(child)
            if text:
                return text
    return None


def importance_of(message: Element) -> Importance:
    """
    Is this something that a person wants to be told at once?

    What a person wrote is, in clear or encrypted, and so is a call; what programs tell each other is not.
    A ``no-store`` hint (XEP-0334 section 4.2) says no: nothing would wait for whoever unlocks the phone. A
    ``store`` hint (section 4.4) says yes for content that is not known here.
    """
    by_type = _BY_TYPE.get(message.attributes.get("type", ""))
    if by_type is not None:
        return by_type
    found: Importance | None = None
    quiet = NO_CONTENT
    store = unknown = False
    for child in message.children:
        if type(child) is str:
            continue
        uri = child.uri
        if uri in _QUIET:
            if quiet is NO_CONTENT:
                quiet = _QUIET[uri]
        elif uri is None:
            name = child.name
            if name == "body":
                if found is None and _text_of(child):
                    found = MESSAGE
            elif name == "subject":
                quiet = SUBJECT_ONLY
        elif uri == ns.HINTS:
            if child.name == "no-store":
                return NO_STORE
            if child.name == "store":
                store = True
        elif uri == ns.CARBONS:
            if child.name == "sent":  # XEP-0280 section 8: what one wrote oneself, on another device
                return OWN_MESSAGE
        elif uri == ns.JINGLE_MESSAGE:
            if child.name == "propose":  # XEP-0353 section 3.1: a phone shall ring
                found = CALL
            else:
                quiet = CALL_SIGNAL
        elif uri in _ENCRYPTION:
            # Without a payload OMEMO only exchanges keys (XEP-0384 section 5.6).
            if found is None and (uri not in _OMEMO or _has_payload(child)):
                found = ENCRYPTED
        else:
            unknown = True
    if found is not None:
        return found
    return STORE_HINT if store and unknown else quiet


def has_hint(message: Element, name: str) -> bool:
    """Has it this XEP-0334 hint?"""
    return any(
        type(child) is not str and child.uri == ns.HINTS and child.name == name for child in message.children
    )


def jingle_message_in(message: Element) -> Element | None:
    """The element that proposes, answers or ends a call (XEP-0353)."""
    for child in message.children:
        if type(child) is not str and child.uri == ns.JINGLE_MESSAGE:
            return child
    return None


def sender_of(message: Element) -> str:
    """
    Whom the notification names: the bare JID, in a room the whole ``room/nick`` (as MongooseIM does).
    """
    sender: str = message.attributes.get("from", "")
    return sender if message.attributes.get("type") == "groupchat" else sender.partition("/")[0]


def notification_of(message: Element) -> Notification:
    """
    What ``defaults`` says of a message.

    The body beside an encrypted one tells that the client cannot decrypt, which is nothing for a phone
    to show: there is none then.
    """
    body: str | None = None
    for child in message.children:
        if type(child) is not str:
            uri = child.uri
            if uri in _ENCRYPTION:
                body = None
                break
            if uri is None and body is None and child.name == "body":
                body = _text_of(child) or None
    return Notification(PushSummary(1, None, sender_of(message), body))


def urgent(notification: Notification) -> Notification:
    """The same, to be sent with high priority unless it or the registration says otherwise."""
    if "priority" in notification.extra:
        return notification
    return evolve(notification, extra={**notification.extra, "priority": "high"})


def counted(notification: Notification, missed: int) -> Notification:
    """
    The notification for a device that missed so many messages.

    A count of 1 is the message itself; another one, or none, is what a plugin wants to be shown.
    """
    summary = notification.summary
    if missed == 1 or summary.message_count != 1:
        return notification
    summary = PushSummary(
        missed, summary.pending_subscription_count, summary.last_message_sender, summary.last_message_body
    )
    return Notification(summary, notification.extra)


def reads(session: Connected) -> bool:
    """
    Does somebody get messages there: available, priority not negative (RFC 6121 section 8.5.2.1), and not
    a client whose stream is broken or that owes an acknowledgement for too long (XEP-0198)?
    """
    return (
        session.priority is not None
        and session.priority >= 0
        and not session.hibernated
        and session.answering
    )


def all_active(sessions: Mapping[str, Connected]) -> bool:
    """Does no client say that nobody looks at it (XEP-0352)?"""
    return all(session.active for session in sessions.values())


def is_urgent(importance: bool | Importance) -> bool:
    """Is it to be told at once, whatever else waits? Plugins may answer with a plain yes or no."""
    return type(importance) is Importance and importance.push and importance.urgent


def why_not_there(session: Connected | None) -> str:
    """The trace's word for why nobody reads there; of a session for which `reads` says so, or of none."""
    if session is None:
        return "device-absent"
    if session.hibernated:
        return "device-hibernated"
    if not session.answering:
        return "device-silent"
    return "device-unavailable"


def has_reader(sessions: Iterable[Connected]) -> bool:
    """Is anybody there who gets messages?"""
    return any(reads(session) for session in sessions)


def to_notify(
    registrations: tuple[Registration, ...],
    sessions: Mapping[str, Connected],
    notify: str,
    only_active: bool = False,
) -> tuple[Registration, ...]:
    """
    The registrations whose device does not get the message over its own stream.

    Args:
        sessions: Resource to session of the account.
        notify: ``account-offline``: all of them or, while anybody reads, none (MongooseIM's rule);
            ``device-offline``: those whose own resource does not read, whoever else does.
        only_active: Nobody reads where the client says that nobody looks at it (XEP-0352).
    """
    if only_active:
        sessions = {resource: session for resource, session in sessions.items() if session.active}
    if not sessions:
        return registrations
    if notify == "account-offline":
        return () if has_reader(sessions.values()) else registrations
    reading = {resource for resource, session in sessions.items() if reads(session)}
    return tuple(registration for registration in registrations if registration.resource not in reading)


def still_to_tell(
    registrations: tuple[Registration, ...],
    pushed: Collection[tuple[str, str]],
    have: Collection[str],
    notify: str,
) -> tuple[Registration, ...]:
    """
    The registrations that a message decided on before may still concern.

    Args:
        pushed: Pubsub JIDs and nodes of those that had a push.
        have: Resources that have the message itself; by the rule ``account-offline`` one of them is enough.
    """
    if have and notify == "account-offline":
        return ()
    return tuple(
        each for each in registrations if each.resource not in have and (each.pubsub, each.node) not in pushed
    )


def is_waiting(registration: Registration, now: float, longest: float) -> bool:
    """
    Is it suspended, and not to be tried yet?

    Args:
        longest: Seconds that a suspension lasts. What seems to last longer was noted before the clock was
            set back.
    """
    return registration.state == SUSPENDED and now < registration.next_try <= now + longest


class Verdict(Enum):
    """What a failed publish means for its registration (XEP-0357 section 7)."""

    PASSING = auto()  # nothing: a fault of ours, or one of type wait
    GONE = auto()  # it is removed
    COUNTS = auto()  # one more error in a row


def verdict_on(error: BaseException) -> Verdict:
    """Of the errors that publishing raises; of another server's, by its type, with the way to it."""
    if isinstance(error, NodeNotFound):
        return Verdict.GONE
    if isinstance(error, AppServerUnreachable | TryLater | StorageError | LimitReached):
        return Verdict.PASSING
    return Verdict.COUNTS


# What only the way to an app server answers, or one that is not well, whatever type they give it.
_PASSING = (
    "internal-server-error",
    "remote-server-not-found",
    "remote-server-timeout",
    "resource-constraint",
)


def verdict_on_answer(condition: str, kind: str) -> Verdict:
    """Of the error that an app server elsewhere answered (XEP-0357 section 7, RFC 6120 section 8.3.2)."""
    if kind == "wait" or condition in _PASSING:
        return Verdict.PASSING
    return Verdict.GONE if condition == "item-not-found" else Verdict.COUNTS


def _text_of(element: Element) -> str:
    for child in element.children:
        if type(child) is str and child:
            return child
    return ""


def _has_payload(encrypted: Element) -> bool:
    return any(type(child) is not str and child.name == "payload" for child in encrypted.children)
