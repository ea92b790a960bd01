"""Where a message goes (RFC 6121 section 8.5): pure decisions over what is connected."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

from twisted.words.xish.domish import Element

from xmpppush.errors import BadStanza
from xmpppush.xep import namespaces as ns

CHAT_STATES = "http://jabber.org/protocol/chatstates"  # XEP-0085
_REQUESTS = ("get", "set")
_ANSWERS = ("result", "error")


class Otherwise(Enum):
    """What becomes of a message that no session takes."""

    STORE = auto()
    BOUNCE = auto()
    IGNORE = auto()


class Plan(NamedTuple):
    """
    Attributes:
        sessions: Who gets the message now (`ISession`).
        otherwise: What happens where that is nobody.
    """

    sessions: tuple[Any, ...]
    otherwise: Otherwise


def message_type(stanza: Element) -> str:
    """The type of a message; an unknown or missing one is ``normal`` (RFC 6121 section 5.2.2)."""
    kind = stanza.attributes.get("type", "normal")
    return kind if kind in ("chat", "groupchat", "headline", "error") else "normal"


# RFC 6121 section 8.5.4. To a bare JID without a fitting session; groupchat is an error there even
# with one. A full JID that is gone is treated like the bare one: a reply to a phone that just
# reconnected under another resource is no less a message (section 8.5.3.2.1 leaves that to us).
_NOBODY = {
    "chat": Otherwise.STORE,
    "normal": Otherwise.STORE,
    "headline": Otherwise.IGNORE,
    "groupchat": Otherwise.BOUNCE,
    "error": Otherwise.IGNORE,
}


def is_present(session: Any) -> bool:
    """Is it available with a non-negative priority (RFC 6121 section 8.5.2.1)?"""
    return session.priority is not None and session.priority >= 0


def is_copied(stanza: Element, kind: str) -> bool:
    """
    Do the account's other clients get a copy (XEP-0280 section 6)?

    Args:
        kind: A `message_type`.
    """
    if kind not in ("chat", "normal"):
        return False
    content = kind == "chat"
    for child in stanza.children:
        if type(child) is str:
            continue
        if (child.uri == ns.CARBONS and child.name in ("private", "sent", "received")) or (
            child.uri == ns.HINTS and child.name == "no-copy"
        ):
            return False
        if child.name == "body" and child.uri is None:
            content = True
    return content


def is_listening(session: Any) -> bool:
    """Is a client behind it that answers, as far as anybody knows? Others get a push (XEP-0357)."""
    return not session.hibernated and session.answering


def plan_message(kind: str, resource: str | None, sessions: Mapping[str, Any]) -> Plan:
    """
    Args:
        kind: A `message_type`.
        resource: Of the ``to`` address, ``None`` for a bare JID.
        sessions: Resource to session of the account.
    """
    if not sessions:
        return Plan((), _NOBODY[kind])
    if resource is not None:
        match = sessions.get(resource)
        if match is not None:
            return Plan((match,), Otherwise.IGNORE)
    if kind == "groupchat" or kind == "error" or (kind == "headline" and resource is not None):
        return Plan((), _NOBODY[kind])
    return Plan(tuple(session for session in sessions.values() if is_present(session)), _NOBODY[kind])


def is_worth_storing(stanza: Element) -> bool:
    """
    Whether a message for an absent account is kept (XEP-0160 section 3, XEP-0334 section 4).

    Chat states alone are not, nor is what forbids it with a ``no-store`` hint, nor what is empty.
    """
    content = False
    for child in stanza.children:
        if type(child) is str:
            continue
        uri = child.uri
        if uri == ns.HINTS:
            if child.name == "store":
                return True
            if child.name == "no-store":
                return False
        elif not content and uri != CHAT_STATES and child.name != "thread":
            content = True
    return content


def check_iq(iq: Element) -> None:
    """
    RFC 6120 section 8.2.3.

    Raises:
        BadStanza: What is missing, for the sender.
    """
    kind = iq.attributes.get("type")
    if not iq.attributes.get("id"):
        raise BadStanza("an iq needs an id")
    if kind in _REQUESTS:
        if sum(1 for _ in iq.elements()) != 1:
            raise BadStanza("a request has exactly one child element")
    elif kind not in _ANSWERS:
        raise BadStanza("an iq is of type get, set, result or error")
