"""
Server Dialback (XEP-0220): keys, and the elements that carry them.

Whoever asks for a domain to be believed sends a key. We ask that domain's own server whether it made it.
"""

import hashlib
import hmac
from xml.sax.saxutils import escape, quoteattr

from twisted.words.xish.domish import Element

from xmpppush.errors import BadStanza
from xmpppush.jids import parse_jid
from xmpppush.xep.namespaces import DIALBACK, STANZA_ERRORS

MAX_KEY = 1024  # characters; SHA-512 in hex has 128
DECLARATION = f" xmlns:db='{DIALBACK}'"
"""For stream headers (XEP-0220 section 2): the prefix is fixed, some servers know no other way."""


class DialbackKeys:
    """
    Makes keys as XEP-0185 advises. Nothing has to be remembered to check one.

    Args:
        secret: Of this server, or of all that serve the same domains.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.sha256(secret).hexdigest().encode()

    def key(self, receiving: str, originating: str, stream_id: str) -> str:
        """
        The key by which ``receiving`` can find out that a stream is from ``originating``.

        Args:
            stream_id: That ``receiving`` gave the stream.
        """
        text = f"{receiving} {originating} {stream_id}".encode()
        return hmac.new(self._secret, text, "sha256").hexdigest()

    def is_ours(self, key: str, receiving: str, originating: str, stream_id: str) -> bool:
        """Did we make it? In a time that tells nothing about how wrong it is."""
        expected = self.key(receiving, originating, stream_id)
        return hmac.compare_digest(expected.encode(), key.encode("utf-8", "replace"))


def domain_in(element: Element, attribute: str) -> str:
    """The domain that an attribute names, prepared; ``""``: none."""
    try:
        jid = parse_jid(element.getAttribute(attribute, ""))
    except BadStanza:
        return ""
    return "" if jid.user or jid.resource else str(jid.host)


def result(sender: str, to: str, key: str) -> str:
    """Ask to be believed (XEP-0220 section 2.1.1)."""
    return f"<db:result from={quoteattr(sender)} to={quoteattr(to)}>{key}</db:result>"


def verify(sender: str, to: str, stream_id: str, key: str) -> str:
    """Ask a domain's own server (section 2.2.2)."""
    addresses = f"from={quoteattr(sender)} to={quoteattr(to)} id={quoteattr(stream_id)}"
    return f"<db:verify {addresses}>{escape(key)}</db:verify>"  # a stranger's key


def answer(name: str, sender: str, to: str, kind: str, stream_id: str = "") -> str:
    """
    An answer: ``<db:result/>`` or ``<db:verify/>``.

    Args:
        kind: ``valid``, ``invalid``, or the stanza error that stands in the way (section 2.4).
        stream_id: Of a ``verify``.
    """
    number = f" id={quoteattr(stream_id)}" if name == "verify" else ""
    head = f"<db:{name} from={quoteattr(sender)} to={quoteattr(to)}{number}"
    if kind in ("valid", "invalid"):
        return f"{head} type='{kind}'/>"
    wait = kind in ("remote-server-timeout", "remote-connection-failed", "resource-constraint")
    # The child is in the content namespace of the stream.
    return (
        f"{head} type='error'><error type='{'wait' if wait else 'cancel'}'>"
        f"<{kind} xmlns='{STANZA_ERRORS}'/></error></db:{name}>"
    )


def condition_of_answer(element: Element) -> str:
    """What an answer says: ``valid``, ``invalid``, or the condition of its error."""
    kind = element.getAttribute("type", "")
    if kind != "error":
        return str(kind)
    for error in element.elements():
        for child in error.elements():
            if child.uri == STANZA_ERRORS and child.name != "text":
                return str(child.name)
    return "undefined-condition"
