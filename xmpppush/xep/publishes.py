"""
The publishes of XMPP servers (XEP-0357 section 7), read without an XML parser.

To an app server nearly everything that comes is one and the same request, in which only names and values
differ; Prosody, ejabberd and MongooseIM all write it alike (INTEROP.md). So it is cut at its values. What is
left of the summary is as good as always what it was the last time, and the options are what the same device
had then: both are looked at with expressions once, and remembered. These allow nothing unusual, neither
prefixes nor entities beyond XML's own five. What they do not match, however well-formed, is left to the
parser; and it is no test for validity.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from html import unescape
from types import MappingProxyType
from typing import NamedTuple

from xmpppush.errors import BadStanza
from xmpppush.jids import parse_jid
from xmpppush.model import Publish
from xmpppush.xep.namespaces import PUBSUB, PUBSUB_PUBLISH_OPTIONS, PUSH, PUSH_SUMMARY
from xmpppush.xep.push import notification_of

# Options that are remembered, and up to which size: a token is 200 characters, and strangers choose them.
MAX_REMEMBERED, MAX_REMEMBERED_SIZE = 8192, 2048

_FORM_HEAD = r"<x ([^<>&]*+)>"
# Possessive all over, so that it takes the same short time where it does not match in the end.
_SUMMARY = re.compile(
    rf"><item><notification xmlns=['\"]{PUSH}['\"](?:/>|>"
    rf"(?:{_FORM_HEAD}((?:<field [^<>]*+>(?:(?:<value></value>|<value/>)?+</field>)?+)*+)</x>)?+"
    r"</notification>)</item>"
).fullmatch
_OPTIONS = re.compile(
    rf"(?:<publish-options>{_FORM_HEAD}"
    r"((?:<field [^<>]*+>(?:(?:<value>[^<>]*+</value>|<value/>)*+</field>)?+)*+)</x>"
    r"</publish-options>)?+</pubsub></iq>"
).fullmatch
_node = re.compile(r"[^'\"<>&\s]+").fullmatch
_attribute = re.compile(r"(?:<iq)? ([a-z:]+)=").fullmatch
_fields = re.compile(
    r"<field (?:(?:type|label)=['\"][^'\"]*['\"] )*var=['\"]([^'\"]+)['\"][^>]*>(<value>([^<]*))?"
).findall
_other_entity = re.compile(r"&(?!(?:lt|gt|amp|quot|apos);)").search
_FORM_HEADS = ("xmlns='jabber:x:data'", 'xmlns="jabber:x:data"')
_BEGINNINGS = {quote: f"<pubsub xmlns={quote}{PUBSUB}{quote}><publish node={quote}" for quote in "'\""}


class PublishRequest(NamedTuple):
    """
    A publish as a server asked for it.

    Attributes:
        id, sender, to: ``id``, ``from`` and ``to`` of the iq, as they were written.
        item: Id of the item, ``""`` where the service chooses one.
        end: Where the next stanza begins.
    """

    id: str
    sender: str
    to: str
    item: str
    publish: Publish
    end: int


def publish_at(data: bytes, position: int) -> PublishRequest | None:
    """
    The publish that begins at ``position``, if a whole one does, of the kind that can be read here.

    ``data`` is of a stream with another namespace than those of a publish, at a place between stanzas.
    """
    end = data.find(b"</iq>", position) + 5
    if end < 5 or not data.startswith(b"<iq ", position):
        return None
    try:
        head, content = data[position:end].decode().split(">", 1)
        summary, options = content.split("</publish>", 1)
        quote = head[-1]
        beginning = _BEGINNINGS[quote]
        # The answer will be written with the one kind of quote.
        if "&" in head or head.rfind("<") or "\r" in content or (quote == '"' and "'" in head):
            return None
        attributes = head.split(quote)
        id_at, sender_at, to_at, type_at = _places_of(tuple(attributes[::2]))
        sender, to = attributes[sender_at], attributes[to_at]
        target = parse_jid(to)
        if attributes[type_at] != "set" or target.user or target.resource:
            return None
        # Cut at its values: what it is made of, and what they are, in turn.
        pieces = summary.replace("</value>", "<value>").split("<value>")
        if not pieces[0].startswith(beginning):
            return None
        name, rest = pieces[0][len(beginning) :].split(quote, 1)
        item = ""
        if rest.startswith("><item id="):
            _, item, rest = rest.split(quote, 2)
            rest = f"><item{rest}"
        if not _node(name) or (item and not _node(item)):
            return None
        pieces[0] = rest
        names, empty = _names_in("<value></value>".join(pieces[::2]))
        values = pieces[1::2]
        text = "\n".join(values)
        if "<" in text:
            return None
        if "&" in text:
            if _other_entity(text):
                return None
            values = [unescape(value) for value in values]
        shown = dict(zip(names, values, strict=True))
        if empty:
            shown.update(empty)
        # As `xep.push` and `xep.dataforms` have it: a summary may lack its FORM_TYPE, options may not.
        if shown.pop("FORM_TYPE", PUSH_SUMMARY) != PUSH_SUMMARY:
            shown = {}
        given = _options_in(options) if len(options) <= MAX_REMEMBERED_SIZE else _read_options(options)
        if given is None:
            return None
        publish = Publish(parse_jid(sender).userhost(), target.host, name, notification_of(shown), given)
        return PublishRequest(attributes[id_at], sender, to, item, publish, end)
    except (KeyError, ValueError, BadStanza):
        return None


def publish_result(request: PublishRequest, item: str) -> str:
    """The answer to a publish (XEP-0060 section 7.1.2), as XML; its values were written without entities."""
    return (
        f"<iq type='result' id='{request.id}' from='{request.to}' to='{request.sender}'>"
        f"<pubsub xmlns='{PUBSUB}'><publish node='{request.publish.node}'><item id='{item}'/></publish>"
        "</pubsub></iq>"
    )


@lru_cache(maxsize=256)
def _places_of(names: tuple[str, ...]) -> tuple[int, int, int, int]:
    """
    Where in a start tag that was split at its quotes the values of id, from, to and type are.

    Args:
        names: What was between the quotes.

    Raises:
        KeyError: There is something in it that cannot be read here.
    """
    found = [_attribute(name) for name in names[:-1]]
    places = {match[1]: 2 * number + 1 for number, match in enumerate(found) if match is not None}
    if names[-1] or len(places) != len(found) or any(name.startswith("xmlns") for name in places):
        raise KeyError
    return places["id"], places["from"], places["to"], places["type"]


@lru_cache(maxsize=1024)
def _names_in(summary: str) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """
    The fields of a summary.

    Args:
        summary: What is behind the node of a publish, without the item's id and all values.

    Returns:
        ``var`` of those with a value, in order, and of those without, each with ``""``.

    Raises:
        KeyError: Better read it properly.
    """
    match = _SUMMARY(summary)
    # Namespaces where there are none in the expression would make other elements of these.
    if match is None or summary.count("xmlns") != (1 if match[1] is None else 2):
        raise KeyError
    if match[1] is None:
        return (), {}
    fields = _fields_in(match[1], match[2])
    valued = tuple(unescape(var) for var, value, _ in fields if value)
    return valued, {unescape(var): "" for var, value, _ in fields if not value}


def _read_options(options: str) -> Mapping[str, str] | None:
    """``var`` to first value, from what is behind ``</publish>``; ``None``: better read it properly."""
    match = _OPTIONS(options)
    if match is None or options.count("xmlns") != (match[1] is not None):
        return None
    if match[1] is None:
        return MappingProxyType({})
    try:
        fields = _fields_in(match[1], match[2])
    except KeyError:
        return None
    form = {unescape(var): unescape(value) for var, _, value in fields}
    return MappingProxyType(form if form.pop("FORM_TYPE", "") == PUBSUB_PUBLISH_OPTIONS else {})


# One object each as long as it is remembered: what was made of it can be remembered, too.
_options_in = lru_cache(maxsize=MAX_REMEMBERED)(_read_options)


def _fields_in(head: str, fields: str) -> list[tuple[str, str, str]]:
    """``var``, ``""`` or what begins with its first value, and that, for each field; raises `KeyError`."""
    found = _fields(fields)
    # Twice the same name, or a field without one, is left to the parser.
    if (
        not (_FORM_HEADS[0] in head or _FORM_HEADS[1] in head)
        or len({var for var, _, _ in found}) != fields.count("<field")
        or ("&" in fields and _other_entity(fields))
    ):
        raise KeyError
    return found
