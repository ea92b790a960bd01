"""
What Wokkel leaves out of XEP-0060: publish options, node types, and refusing what it passes over.

Wokkel ignores a child of ``<pubsub/>`` it does not know, takes the first of two, does not read
``<create type=''/>`` nor the options of a publish, and fails on a malformed JID.
"""

from collections.abc import Mapping

from twisted.words.xish.domish import Element

from xmpppush.errors import (
    BadForm,
    BadStanza,
    InvalidPayload,
    ItemRequired,
    JidRequired,
    NodeIdMissing,
    PayloadRequired,
)
from xmpppush.jids import JID, bare_of, parse_jid
from xmpppush.xep.dataforms import Form, fields_of, form_in
from xmpppush.xep.namespaces import (
    PUBSUB,
    PUBSUB_NODE_CONFIG,
    PUBSUB_OWNER,
    PUBSUB_PUBLISH_OPTIONS,
    PUBSUB_SUBSCRIBE_AUTHORIZATION,
    PUBSUB_SUBSCRIBE_OPTIONS,
)

MAX_JIDS = 8192  # characters of all addresses in a request; not plain ones take 5 microseconds each

# What may stand in <pubsub/>, by iq type and namespace: True where it needs a node.
_REQUESTS: Mapping[tuple[str, str], Mapping[str, bool]] = {
    ("get", PUBSUB): {
        "affiliations": False,
        "default": False,
        "items": True,
        "options": False,
        "subscriptions": False,
    },
    ("set", PUBSUB): {
        "create": False,
        "options": False,
        "publish": True,
        "retract": True,
        "subscribe": False,
        "unsubscribe": False,
    },
    ("get", PUBSUB_OWNER): {
        "affiliations": True,
        "configure": True,
        "default": False,
        "subscriptions": True,
    },
    ("set", PUBSUB_OWNER): {
        "affiliations": True,
        "configure": True,
        "delete": True,
        "purge": True,
        "subscriptions": True,
    },
}


def request_in(iq: Element) -> Element:
    """
    The element of ``<pubsub/>`` that says what is wanted, such as ``<create/>``.

    Raises:
        BadStanza: There is none that fits the type of the iq, or there are two; or its addresses are too
            long, all together.
        NodeIdMissing: It is about a node and names none.
        BadJid: One of its addresses is none.
    """
    pubsub = _pubsub_of(iq)
    known = _REQUESTS.get((iq.getAttribute("type", ""), pubsub.uri), {})
    found = [child for child in pubsub.elements() if child.uri == pubsub.uri and child.name in known]
    if len(found) == 2 and {child.name for child in found} == {"subscribe", "options"}:
        found = [child for child in found if child.name == "subscribe"]  # section 6.3.7
    if len(found) != 1:
        raise BadStanza("the pubsub element holds no request, or more than one")
    request = found[0]
    if known[request.name] and not request.getAttribute("node"):
        raise NodeIdMissing("node is missing")
    jids = [element["jid"] for element in (request, *request.elements()) if element.hasAttribute("jid")]
    if sum(map(len, jids)) > MAX_JIDS:
        raise BadStanza(f"the addresses have more than {MAX_JIDS} characters together")
    for jid in jids:
        parse_jid(jid)
    return request


def create_type(iq: Element) -> str | None:
    """The node type that ``<create type=''/>`` names, ``None`` where it names none."""
    create = _child(_pubsub_of(iq), "create")
    return (create.getAttribute("type") or None) if create is not None else None


def configuration(iq: Element) -> dict[str, str] | None:
    """
    The ``pubsub#node_config`` fields of ``<configure/>``, in a create as well.

    Returns:
        ``var`` to first value; empty where a create configures nothing; ``None`` for a form of type
        ``cancel``: leave things as they are (section 8.2.3).

    Raises:
        BadForm: The form is missing where the configuration is to be set, or of another kind.
    """
    pubsub = _pubsub_of(iq)
    configure = _child(pubsub, "configure")
    form = form_in(configure) if configure is not None else None
    if form is None:
        if pubsub.uri == PUBSUB:
            return {}
        raise BadForm("the configuration form is missing")
    return _submitted(form)


def affiliations(iq: Element) -> dict[str, str]:
    """
    What an owner wants to change: bare JID to affiliation, as sent (section 8.9.2).

    Raises:
        BadStanza: A JID or an affiliation is missing, a JID comes twice, or there is no change at all.
    """
    parent = _child(_pubsub_of(iq), "affiliations")
    changes: dict[str, str] = {}
    for change in parent.elements() if parent is not None else ():
        if change.name != "affiliation" or change.uri != PUBSUB_OWNER:
            continue
        if not change.getAttribute("jid") or not change.getAttribute("affiliation"):
            raise BadStanza("an affiliation lacks its jid or its affiliation")
        jid = bare_of(change["jid"])
        if jid in changes:
            raise BadStanza("an affiliation is changed twice")
        changes[jid] = change["affiliation"]
    if not changes:
        raise BadStanza("no affiliation is named")
    return changes


def publish_options(iq: Element) -> dict[str, str]:
    """
    The publish-options of a publish (section 7.1.5), ``var`` to first value.

    Empty where there are none. XEP-0060 has a service refuse fields it does not know; XEP-0357
    section 7 uses them for whatever the app server needs, so all of them are kept.
    """
    options = _child(_pubsub_of(iq), "publish-options")
    return fields_of(options, PUBSUB_PUBLISH_OPTIONS) if options is not None else {}


def published(iq: Element) -> tuple[str | None, Element]:
    """
    The item of a publish: its id, ``None`` where the service chooses one, and its payload.

    Raises:
        ItemRequired: There is no item.
        PayloadRequired: The item is empty.
        InvalidPayload: There are two items, or two payloads.
    """
    item, payload = published_item(iq)
    if item is None:
        raise ItemRequired("the item is missing")
    if payload is None:
        raise PayloadRequired("the item is empty")
    return item.getAttribute("id") or None, payload


def published_item(iq: Element) -> tuple[Element | None, Element | None]:
    """
    The item of a publish and its payload, ``None`` where there is none.

    Raises:
        InvalidPayload: There are two items, or two payloads.
    """
    publish = _child(_pubsub_of(iq), "publish")
    items = [child for child in publish.elements() if child.name == "item"] if publish is not None else []
    if not items:
        return None, None
    if len(items) > 1:
        raise InvalidPayload("one item at a time")
    payloads = list(items[0].elements())
    if len(payloads) > 1:
        raise InvalidPayload("one payload for an item")
    return items[0], payloads[0] if payloads else None


def retracted(iq: Element) -> tuple[str, bool]:
    """
    The id of the item that a retract names, and whether subscribers are to be told (section 7.2).

    Raises:
        ItemRequired: There is no item, or none with an id.
        BadStanza: There are two.
    """
    retract = request_in(iq)
    ids = item_ids(retract)
    if not ids:
        raise ItemRequired("the item is missing")
    if len(ids) > 1:
        raise BadStanza("one item at a time")
    if not ids[0]:
        raise ItemRequired("the item has no id")
    return ids[0], retract.getAttribute("notify") in ("1", "true")


def item_ids(request: Element) -> list[str]:
    """Ids of the items that a request names, ``""`` where one has none."""
    return [
        child.getAttribute("id", "")
        for child in request.elements()
        if child.name == "item" and child.uri == request.uri
    ]


def items_limit(request: Element) -> int | None:
    """
    How many items are asked for (section 6.5.7), ``None``: all.

    Raises:
        BadStanza: It is no positive number.
    """
    text = request.getAttribute("max_items")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text)):
        raise BadStanza("max_items is a positive number")
    return int(text)


def subscriber(request: Element) -> JID:
    """
    Whose subscription a request is about.

    Raises:
        JidRequired: It does not say.
    """
    text = request.getAttribute("jid")
    if not text:
        raise JidRequired("jid is missing")
    return parse_jid(text)


def subscription_options(iq: Element) -> dict[str, str] | None:
    """
    The ``pubsub#subscribe_options`` fields of ``<options/>``, beside a ``<subscribe/>`` as well.

    Returns:
        ``var`` to first value; ``None`` where there is no ``<options/>``, and for a form of type ``cancel``.

    Raises:
        BadForm: The form is missing, or of another kind.
        BadStanza: Beside a subscribe it names a node or a JID (section 6.3.7).
    """
    pubsub = _pubsub_of(iq)
    options = _child(pubsub, "options")
    if options is None:
        return None
    beside = _child(pubsub, "subscribe") is not None
    if beside and (options.hasAttribute("node") or options.hasAttribute("jid")):
        raise BadStanza("the options of a subscribe name no node and no jid")
    form = form_in(options)
    if form is None:
        if beside:
            return {}
        raise BadForm("the options form is missing")
    return _submitted(form, PUBSUB_SUBSCRIBE_OPTIONS)


def subscription_changes(iq: Element) -> dict[str, str]:
    """
    What an owner wants to change: JID as subscribed to state (section 8.8.2).

    Raises:
        BadStanza: A JID is missing or comes twice, or there is no change at all.
    """
    parent = _child(_pubsub_of(iq), "subscriptions")
    changes: dict[str, str] = {}
    for change in parent.elements() if parent is not None else ():
        if change.name != "subscription" or change.uri != PUBSUB_OWNER:
            continue
        if not change.getAttribute("jid"):
            raise BadStanza("a subscription lacks its jid")
        jid = parse_jid(change["jid"]).full()
        if jid in changes:
            raise BadStanza("a subscription is changed twice")
        if change.hasAttribute("subscription"):  # without it the state stays
            changes[jid] = change["subscription"]
    if not changes:
        raise BadStanza("no subscription is changed")
    return changes


def decision(message: Element) -> tuple[str, str, bool] | None:
    """
    An owner's answer to a request for a subscription (section 8.6).

    Returns:
        Node, JID of the subscriber, and whether it may; ``None`` where the message is none, or undecided.

    Raises:
        BadForm: A field is missing or makes no sense.
    """
    if message.getAttribute("type") == "error":
        return None
    form = form_in(message)
    if form is None or form.type != "submit" or form.form_type != PUBSUB_SUBSCRIBE_AUTHORIZATION:
        return None
    fields = form.first_values()
    allow = fields.get("pubsub#allow", "")
    if allow not in ("1", "true", "0", "false"):
        raise BadForm("pubsub#allow is true or false")
    node, jid = fields.get("pubsub#node"), fields.get("pubsub#subscriber_jid")
    if not node or not jid:
        raise BadForm("pubsub#node or pubsub#subscriber_jid is missing")
    return node, parse_jid(jid).full(), allow in ("1", "true")


def create_response(node: str) -> Element:
    """The answer to a create: the node's name, as MongooseIM and section 8.1.1 echo it."""
    pubsub = Element((PUBSUB, "pubsub"))
    pubsub.addElement("create")["node"] = node
    return pubsub


def publish_response(node: str, item_id: str) -> Element:
    """The answer to a publish: which id the item has (section 7.1.2)."""
    pubsub = Element((PUBSUB, "pubsub"))
    publish = pubsub.addElement("publish")
    publish["node"] = node
    publish.addElement("item")["id"] = item_id
    return pubsub


def _submitted(form: Form, form_type: str = PUBSUB_NODE_CONFIG) -> dict[str, str] | None:
    if form.type == "cancel":
        return None
    if form.type != "submit":
        raise BadForm("the form is not of type submit")
    if form.form_type not in (form_type, None):
        raise BadForm("the form is of another kind")
    return form.first_values()


def _pubsub_of(iq: Element) -> Element:
    for child in iq.elements():
        if child.name == "pubsub" and child.uri in (PUBSUB, PUBSUB_OWNER):
            return child
    raise BadStanza("the pubsub element is missing")


def _child(parent: Element, name: str) -> Element | None:
    for child in parent.elements():
        if child.name == name and child.uri == parent.uri:
            return child
    return None
