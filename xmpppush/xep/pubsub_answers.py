"""What a pubsub service says: answers with forms, items and subscriptions, and events (XEP-0060)."""

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen
from twisted.words.xish.domish import Element

from xmpppush.model import Item, Subscription
from xmpppush.xep.namespaces import (
    DATA_FORMS,
    DELAY,
    PUBSUB,
    PUBSUB_EVENT,
    PUBSUB_SUBSCRIBE_AUTHORIZATION,
    RSM,
)
from xmpppush.xep.times import stamp_of
from xmpppush.xep.xml import to_xml

_TRUTH = {"1": "true", "0": "false"}


@frozen
class FormField:
    """A field to be filled in: its ``type`` as in XEP-0004 section 3.3, ``choices`` of a list."""

    var: str
    value: str
    type: str = "text-single"
    label: str = ""
    choices: tuple[str, ...] = ()


def form(type: str, form_type: str, fields: Iterable[FormField]) -> Element:
    """Build a form that explains itself, or with ``type`` ``result`` one that only has values."""
    element = Element((DATA_FORMS, "x"))
    element["type"] = type
    for one in (FormField("FORM_TYPE", form_type, "hidden"), *fields):
        field = element.addElement("field")
        field["var"] = one.var
        if type == "form" or one.type == "hidden":
            field["type"] = one.type
            if one.label:
                field["label"] = one.label
            for choice in one.choices:
                option = field.addElement("option")
                option["label"] = choice
                option.addElement("value", content=choice)
        value = _TRUTH.get(one.value, one.value) if one.type == "boolean" else one.value
        field.addElement("value", content=value)
    return element


def with_form(uri: str, name: str, node: str, form: Element) -> Element:
    """``<pubsub/>`` with ``<configure/>``, ``<default/>`` or ``<options/>``; ``node`` may be empty."""
    pubsub = Element((uri, "pubsub"))
    child = pubsub.addElement(name)
    if node:
        child["node"] = node
    child.addChild(form)
    return pubsub


def subscription(one: Subscription, state: str | None = None) -> Element:
    """The answer about one subscription (section 6.1.2)."""
    pubsub = Element((PUBSUB, "pubsub"))
    _add_subscription(pubsub, one, state or one.state)["node"] = one.node
    return pubsub


def subscriptions(uri: str, node: str | None, found: Iterable[Subscription]) -> Element:
    """One's own subscriptions (section 5.6) or, in the owner's namespace, those of a node (section 8.8.1)."""
    pubsub = Element((uri, "pubsub"))
    parent = pubsub.addElement("subscriptions")
    if node:
        parent["node"] = node
    for one in found:
        element = _add_subscription(parent, one, one.state)
        if uri == PUBSUB:
            element["node"] = one.node
    return pubsub


def items(node: str, found: Sequence[Item], count: int | None) -> Element:
    """
    The answer to a request for items (section 6.5).

    Args:
        count: How many there are, where these are only the last of them (section 6.5.4).
    """
    pubsub = Element((PUBSUB, "pubsub"))
    _add_items(pubsub, node, found, True)
    if count is not None and found:
        part = pubsub.addElement((RSM, "set"))
        part.addElement("first", content=found[0].id)["index"] = str(count - len(found))
        part.addElement("last", content=found[-1].id)
        part.addElement("count", content=str(count))
    return pubsub


def payload_xml(payload: Element) -> str:
    """A payload as `Item` keeps it: it declares its namespaces itself, wherever it is put later."""
    return to_xml(payload, "")


def event() -> Element:
    """``<event/>``, empty."""
    return Element((PUBSUB_EVENT, "event"))


def items_event(node: str, found: Sequence[Item], payloads: bool) -> Element:
    """Something was published (section 7.1.2)."""
    element = event()
    _add_items(element, node, found, payloads)
    return element


def retract_event(node: str, ids: Iterable[str]) -> Element:
    """Items are gone (section 7.2.2.1)."""
    element = event()
    parent = element.addElement("items")
    parent["node"] = node
    for item_id in ids:
        parent.addElement("retract")["id"] = item_id
    return element


def node_event(name: str, node: str, form: Element | None = None) -> Element:
    """``purge``, ``delete`` or ``configuration`` of a node (sections 8.5.2, 8.4.2 and 8.2.5.3)."""
    element = event()
    child = element.addElement(name)
    child["node"] = node
    if form is not None:
        child.addChild(form)
    return element


def subscription_event(node: str, jid: str, state: str) -> Element:
    """A subscription changed its state (section 13.14)."""
    element = event()
    child = element.addElement("subscription")
    child["node"], child["jid"], child["subscription"] = node, jid, state
    return element


def authorization_form(node: str, jid: str) -> Element:
    """An owner is asked whether somebody may subscribe (section 8.6)."""
    fields = (
        FormField("pubsub#node", node, "text-single", "Node"),
        FormField("pubsub#subscriber_jid", jid, "jid-single", "Subscriber"),
        FormField("pubsub#allow", "0", "boolean", "May this address subscribe to the node?"),
    )
    return form("form", PUBSUB_SUBSCRIBE_AUTHORIZATION, fields)


def message(to: str, sender: str, type: str, id: str, content: Element, stamp: float | None) -> Element:
    """
    A message with ``content``, which many messages may share.

    Args:
        stamp: Seconds since the epoch, where it tells of something past (XEP-0203).
    """
    element = Element((None, "message"))
    attributes: Mapping[str, str] = {"from": sender, "to": to, "type": type, "id": id}
    element.attributes.update(attributes)
    element.children.append(content)
    if stamp is not None:
        element.addElement((DELAY, "delay"))["stamp"] = stamp_of(stamp)
    return element


def _add_subscription(parent: Element, one: Subscription, state: str) -> Element:
    element = parent.addElement("subscription")
    element["jid"], element["subscription"] = one.jid, state
    return element


def _add_items(parent: Element, node: str, found: Iterable[Item], payloads: bool) -> None:
    element = parent.addElement("items")
    element["node"] = node
    for one in found:
        item = element.addElement("item")
        item["id"] = one.id
        if payloads and one.payload:
            item.addRawXml(one.payload)
