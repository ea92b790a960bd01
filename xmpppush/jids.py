"""
JIDs (RFC 7622), parsed once each.

Twisted's pure-Python stringprep costs 48 microseconds a JID, and nearly every JID is plain ASCII that
needs none of it; what a stranger can make up is kept in a bounded cache.
"""

import re
from functools import lru_cache

from twisted.words.protocols.jabber.jid import JID, InvalidFormat
from twisted.words.protocols.jabber.jid import parse as parse_with_stringprep

from xmpppush.errors import BadStanza, Forbidden

MAX_LENGTH = 3071  # RFC 7622 section 3.1: three parts of 1023 octets, an @ and a /

# Already what stringprep would make of it: lower case, none of RFC 7622's excluded characters.
_LABEL = r"[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?"
_PLAIN = re.compile(
    r"(?:([a-z0-9!#$%()*+,\-.;=?\[\\\]^_`{|}~]{1,1023})@)?"
    rf"((?:{_LABEL}\.)*{_LABEL})"
    r"(?:/([A-Za-z0-9!#$%()*+,\-.:;=?@\[\\\]^_`{|}~/]{1,1023}))?"
)

__all__ = ["JID", "BadJid", "bare_of", "own_account", "parse_jid"]


class BadJid(BadStanza):
    """Not a JID (RFC 7622 section 3): the stanza error is ``jid-malformed``."""


class PreparedJID(JID):
    """A JID whose parts need no stringprep any more; Twisted's own applies it to parts as well."""

    def __init__(self, user: str | None, host: str, resource: str | None) -> None:
        self.user = user
        self.host = host
        self.resource = resource


def parse_jid(text: str) -> JID:
    """
    The JID that ``text`` spells, prepared.

    Raises:
        BadJid: It spells none, or a part is longer than 1023 octets.
    """
    # Only short ones are remembered: strangers choose them, and 3 kB each would add up.
    return _parse_and_remember(text) if len(text) < 256 else _parse(text)


def _parse(text: str) -> JID:
    plain = _PLAIN.fullmatch(text)
    if plain is not None and len(plain[2]) <= 253:
        user, host, resource = plain.groups()
        return PreparedJID(user, host, resource)
    # Stringprep takes microseconds a character and comes before any limit of Twisted's.
    if len(text) > MAX_LENGTH:
        raise BadJid("not a JID")
    try:
        user, host, resource = parse_with_stringprep(text)
    except (InvalidFormat, UnicodeError, IndexError) as error:
        # IndexError: an empty label, in Twisted's nameprep.
        raise BadJid("not a JID") from error
    if not host or any(part and len(part.encode()) > 1023 for part in (user, host, resource)):
        raise BadJid("not a JID")
    # Twisted reads "@host" and "user@host/" as if the empty part were not there.
    if text.startswith("@") or (resource is None and "/" in text):
        raise BadJid("not a JID")
    return PreparedJID(user, host, resource)


_parse_and_remember = lru_cache(maxsize=65536)(_parse)


def bare_of(text: str) -> str:
    """The bare JID of ``text``, prepared; raises `BadJid`."""
    return str(parse_jid(text).userhost())


def own_account(sender: str, to: str) -> str:
    """
    The bare JID of ``sender``, who asks about their own account: of it, or of its server.

    Raises:
        Forbidden: ``to`` is somebody else.
    """
    own = parse_jid(sender)
    account: str = own.userhost()
    if bare_of(to) not in (account, own.host):
        raise Forbidden("only for one's own account")
    return account
