"""Who may do what to a node, and what a node may be told (XEP-0060 sections 4.1, 4.5 and 16.4.4)."""

from collections.abc import Container, Mapping

from attrs import frozen

from xmpppush.errors import (
    Forbidden,
    LimitReached,
    NodeIdRequired,
    NotAcceptable,
    NotAllowed,
    UnsupportedAccessModel,
)
from xmpppush.jids import JID
from xmpppush.model import Node

ACCESS_MODEL = "pubsub#access_model"
PUBLISH_MODEL = "pubsub#publish_model"
TITLE = "pubsub#title"

MAX_NODE_OCTETS = 1024
MAX_TEXT_OCTETS = 1024
MAX_AFFILIATIONS = 100

AFFILIATIONS = frozenset(("owner", "publisher", "publish-only", "member", "outcast", "none"))
PUBLISHERS = frozenset(("owner", "publisher", "publish-only"))


@frozen
class Option:
    """
    A configuration option: how it is asked for, and what it takes.

    Attributes:
        type: Of the form field: ``boolean``, ``list-single`` or ``text-single``.
        values: What a list takes.
        number: The text is a whole number.
    """

    label: str
    type: str = "boolean"
    values: tuple[str, ...] = ()
    number: bool = False


# Those of MongooseIM's push node, so that what a client sends there is understood here. A push node
# keeps no items and has no subscribers: only access and publish model and the title do anything.
# Access and publish models that need subscriptions or a roster are not offered.
OPTIONS: Mapping[str, Option] = {
    TITLE: Option("A friendly name for the node", "text-single"),
    ACCESS_MODEL: Option("Who may see the node", "list-single", ("whitelist", "open")),
    PUBLISH_MODEL: Option("Who may publish", "list-single", ("publishers", "open")),
    "pubsub#type": Option("The type of payload", "text-single"),
    "pubsub#max_payload_size": Option("Largest payload in bytes", "text-single", number=True),
    "pubsub#persist_items": Option("Keep items"),
    "pubsub#max_items": Option("How many items to keep", "text-single", number=True),
    "pubsub#subscribe": Option("Allow subscriptions"),
    "pubsub#deliver_payloads": Option("Deliver payloads with event notifications"),
    "pubsub#deliver_notifications": Option("Deliver event notifications"),
    "pubsub#notify_config": Option("Notify subscribers of a new configuration"),
    "pubsub#notify_delete": Option("Notify subscribers when the node is deleted"),
    "pubsub#notify_retract": Option("Notify subscribers when items are removed"),
    "pubsub#notification_type": Option("Type of event messages", "list-single", ("headline", "normal")),
    "pubsub#send_last_published_item": Option(
        "When to send the last item", "list-single", ("never", "on_sub", "on_sub_and_presence")
    ),
    "pubsub#presence_based_delivery": Option("Deliver to available users only"),
    "pubsub#purge_offline": Option("Purge items when their publisher goes offline"),
}

_BOOLEANS = {"1": "1", "true": "1", "0": "0", "false": "0"}  # XEP-0004 section 3.3


def check_name(name: str | None) -> str:
    """
    The name of a node to be created.

    Raises:
        NodeIdRequired: There is none: instant nodes (section 8.1.2) are not offered.
        NotAcceptable: It is too long. MongooseIM takes any length.
    """
    if not name:
        raise NodeIdRequired("a node needs a name")
    if len(name.encode()) > MAX_NODE_OCTETS:
        raise NotAcceptable(f"the name is longer than {MAX_NODE_OCTETS} octets")
    return name


def check_create(access: str, creator: JID, domains: Container[str]) -> None:
    """
    May this entity create nodes?

    Args:
        access: ``[mod_pubsub] access_createnode``: ``all``, ``local`` or ``none``.

    Raises:
        NotAllowed: Nobody may.
        Forbidden: Only users of the served ``domains`` may.
    """
    if access == "none":
        raise NotAllowed("nodes are created by the operator")
    if access == "local" and creator.host not in domains:
        raise Forbidden("only local users create nodes")


def affiliations_at_creation(creator: JID) -> dict[str, str]:
    """
    The creator owns the node, and the creator's server may publish to it (XEP-0357 section 5).

    With that the tutorial's flow needs no affiliation stanza: create, enable, and the server's
    publishes are welcome, those of strangers are not.
    """
    return {creator.host: "publish-only", creator.userhost(): "owner"}


def affiliation_of(node: Node, jid: str) -> str:
    """
    Affiliation of a bare JID or domain.

    That of a domain is not inherited by its users: its server may publish, not everybody on it.
    """
    return node.affiliations.get(jid, "none")


def may_publish(affiliation: str, publish_model: str) -> bool:
    """Section 4.5: ``open`` lets in all but outcasts, anything else those who publish by affiliation."""
    if publish_model == "open":
        return affiliation != "outcast"
    return affiliation in PUBLISHERS


def may_see(affiliation: str, access_model: str) -> bool:
    """Whoever may not see a node is told that there is none."""
    if access_model == "open":
        return affiliation != "outcast"
    return affiliation not in ("none", "outcast")


def may_own(affiliation: str) -> bool:
    """Configure, delete, and manage affiliations."""
    return affiliation == "owner"


def check_config(submitted: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """
    The values of a submitted configuration as we keep them: booleans ``1`` and ``0``, unknown ones left out.

    Args:
        defaults: Of the node type; what is not among them is unknown there.

    Raises:
        UnsupportedAccessModel: Of access models.
        NotAcceptable: Of any other value that does not fit (section 8.2.5.5).
    """
    return {
        var: _checked(var, value) for var, value in submitted.items() if var in OPTIONS and var in defaults
    }


def merged_config(
    defaults: Mapping[str, str], current: Mapping[str, str], changes: Mapping[str, str]
) -> dict[str, str]:
    """What differs from the defaults after the changes; an option that is not submitted stays."""
    merged = {**current, **changes}
    return {var: value for var, value in merged.items() if value != defaults.get(var)}


def check_affiliations(node: Node, changes: Mapping[str, str]) -> None:
    """
    May an owner change affiliations like that?

    Raises:
        NotAcceptable: There is no such affiliation, or no owner would be left (section 8.9.2).
        LimitReached: A node keeps `MAX_AFFILIATIONS` at the most.
    """
    if not AFFILIATIONS.issuperset(changes.values()):
        raise NotAcceptable("no such affiliation")
    after = {jid: value for jid, value in {**node.affiliations, **changes}.items() if value != "none"}
    if "owner" not in after.values():
        raise NotAcceptable("a node needs an owner")
    if len(after) > MAX_AFFILIATIONS and len(after) > len(node.affiliations):
        raise LimitReached("the node has too many affiliations")


def _checked(var: str, value: str) -> str:
    option = OPTIONS[var]
    if option.type == "boolean":
        if value not in _BOOLEANS:
            raise NotAcceptable(f"{var} is true or false")
        return _BOOLEANS[value]
    if option.values and value not in option.values:
        if var == ACCESS_MODEL:
            raise UnsupportedAccessModel(f"{var} is one of {', '.join(option.values)}")
        raise NotAcceptable(f"{var} is one of {', '.join(option.values)}")
    if option.number and not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise NotAcceptable(f"{var} is a whole number")
    if len(value.encode()) > MAX_TEXT_OCTETS:
        raise NotAcceptable(f"{var} is longer than {MAX_TEXT_OCTETS} octets")
    return value
