"""
The publishes of XMPP servers (XEP-0357 section 7), read without an XML parser.

To an app server nearly everything that comes is one and the same request, in which only names and values
differ; Prosody, ejabberd and MongooseIM all write it alike (INTEROP.md). An expression that allows nothing
else, neither prefixes nor entities beyond XML's own five, takes such a stanza apart in a tenth of the time
that elements need. What it does not match, however well-formed, is left to the parser; and it is no test for
validity.
"""

import re
from html import unescape
from typing import NamedTuple

from xmpppush.errors import BadStanza
from xmpppush.jids import parse_jid
from xmpppush.model import Publish
from xmpppush.xep.namespaces import PUBSUB, PUBSUB_PUBLISH_OPTIONS, PUSH, PUSH_SUMMARY
from xmpppush.xep.push import notification_of

# No quotes in values: the answer has them between ' whatever they came between.
_VALUE = r"""('[^'"<>&\s]*+'|"[^'"<>&\s]*+")"""
# Possessive all over, so that it takes the same short time where it does not match in the end.
_FORM = r"<x ([^<>&]*+)>((?:<field [^<>]*+>(?:(?:<value>[^<>]*+</value>|<value/>)*+</field>)?+)*+)</x>"
_PUBLISH = re.compile(
    (
        rf"<iq ([^<>&]*+)><pubsub xmlns=['\"]{PUBSUB}['\"]><publish node={_VALUE}><item(?: id={_VALUE})?+>"
        rf"<notification xmlns=['\"]{PUSH}['\"](?:/>|>(?:{_FORM})?+</notification>)</item></publish>"
        rf"(?:<publish-options>{_FORM}</publish-options>)?+</pubsub></iq>"
    ).encode()
)
_attributes = re.compile(r"([a-z:]+)=(?:'([^'\"]*)'|\"([^'\"]*)\")(?: |$)").findall
_fields = re.compile(
    r"<field (?:(?:type|label)=['\"][^'\"]*['\"] )*var=['\"]([^'\"]+)['\"][^>]*>(?:<value>([^<]*))?"
).findall
_other_entity = re.compile(r"&(?!(?:lt|gt|amp|quot|apos);)").search
_FORM_HEADS = ("xmlns='jabber:x:data'", 'xmlns="jabber:x:data"')


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
    match = _PUBLISH.match(data, position)
    if match is None:
        return None
    head, node, item, summary_head, summary, options_head, options = match.groups()
    try:
        attributes = _attributes_of(head.decode())
        target = parse_jid(attributes["to"])
        if attributes["type"] != "set" or target.user or target.resource:
            return None
        # Namespaces where there are none in the expression would make other elements of these.
        forms = (summary_head is not None) + (options_head is not None)
        if data.count(b"xmlns", position, match.end()) != 2 + forms:
            return None
        shown = _form(summary_head.decode(), summary.decode()) if summary_head is not None else {}
        given = _form(options_head.decode(), options.decode()) if options_head is not None else {}
        if shown is None or given is None:
            return None
        # As `xep.push` and `xep.dataforms` have it: a summary may lack its FORM_TYPE, options may not.
        if shown.pop("FORM_TYPE", PUSH_SUMMARY) != PUSH_SUMMARY:
            shown = {}
        if given.pop("FORM_TYPE", "") != PUBSUB_PUBLISH_OPTIONS:
            given = {}
        name = node[1:-1].decode()
        if not name:
            return None
        sender = attributes["from"]
        return PublishRequest(
            attributes["id"],
            sender,
            attributes["to"],
            item[1:-1].decode() if item is not None else "",
            Publish(parse_jid(sender).userhost(), target.host, name, notification_of(shown), given),
            match.end(),
        )
    except (KeyError, UnicodeDecodeError, BadStanza):
        return None


def publish_result(request: PublishRequest, item: str) -> str:
    """The answer to a publish (XEP-0060 section 7.1.2), as XML; its values were written without entities."""
    return (
        f"<iq type='result' id='{request.id}' from='{request.to}' to='{request.sender}'>"
        f"<pubsub xmlns='{PUBSUB}'><publish node='{request.publish.node}'><item id='{item}'/></publish>"
        "</pubsub></iq>"
    )


def _attributes_of(head: str) -> dict[str, str]:
    """Of a start tag; raises `KeyError` where there is more in it than can be read here."""
    found = _attributes(head)
    attributes = {name: single or double for name, single, double in found}
    # Was that all of it? Each has a name, '=', two quotes and a space, but for the first one.
    if len("".join((*attributes, *attributes.values()))) + 4 * len(found) - 1 != len(head):
        raise KeyError
    return attributes


def _form(head: str, fields: str) -> dict[str, str] | None:
    """``var`` to first value, FORM_TYPE included; ``None``: better read it properly."""
    if not (_FORM_HEADS[0] in head or _FORM_HEADS[1] in head) or "\r" in fields:
        return None
    form: dict[str, str] = dict(_fields(fields))
    # Twice the same name, or a field without one, is left to the parser.
    if len(form) != fields.count("<field"):
        return None
    if "&" in fields:
        if _other_entity(fields):
            return None
        return {unescape(var): unescape(value) for var, value in form.items()}
    return form
