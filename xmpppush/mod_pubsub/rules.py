"""Who may do what to a node, and what a node may be told (XEP-0060 sections 4.1, 4.5 and 16.4.4)."""

from collections.abc import Container, Mapping

from attrs import frozen

from xmpppush.errors import (
    ClosedNode,
    Forbidden,
    InvalidOptions,
    LimitReached,
    NotAcceptable,
    NotAllowed,
    PreconditionNotMet,
    SubscriptionRequired,
    UnsupportedAccessModel,
)
from xmpppush.jids import JID
from xmpppush.model import Node, Subscription

ACCESS_MODEL = "pubsub#access_model"
PUBLISH_MODEL = "pubsub#publish_model"
TITLE = "pubsub#title"
TYPE = "pubsub#type"
MAX_ITEMS = "pubsub#max_items"
MAX_PAYLOAD_SIZE = "pubsub#max_payload_size"
PERSIST_ITEMS = "pubsub#persist_items"
SUBSCRIBE = "pubsub#subscribe"
DELIVER_PAYLOADS = "pubsub#deliver_payloads"
DELIVER_NOTIFICATIONS = "pubsub#deliver_notifications"
NOTIFY_CONFIG = "pubsub#notify_config"
NOTIFY_DELETE = "pubsub#notify_delete"
NOTIFY_RETRACT = "pubsub#notify_retract"
NOTIFICATION_TYPE = "pubsub#notification_type"
SEND_LAST = "pubsub#send_last_published_item"
DELIVER = "pubsub#deliver"

MAX_NODE_OCTETS = 1024
MAX_TEXT_OCTETS = 1024
MAX_AFFILIATIONS = 100

# What one node may hold, so that a user with all the nodes there may be does not fill the disk.
MOST_ITEMS = 500
MOST_PAYLOAD = 65536  # octets of an item
MOST_OCTETS = 1024 * 1024  # of all items of a node
MOST_SUBSCRIPTIONS = 1000  # of a node, and of a subscriber
MOST_IN_AN_ANSWER = 192 * 1024  # octets of items; peers refuse larger stanzas than 256 KiB, many of them

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
# keeps no items and has no subscribers: only access and publish model, size and title do anything there.
# What needs a roster is not offered.
OPTIONS: Mapping[str, Option] = {
    TITLE: Option("A friendly name for the node", "text-single"),
    "pubsub#description": Option("What the node is about", "text-single"),
    ACCESS_MODEL: Option("Who may see the node", "list-single", ("whitelist", "open", "authorize")),
    PUBLISH_MODEL: Option("Who may publish", "list-single", ("publishers", "open", "subscribers")),
    TYPE: Option("The namespace of payloads", "text-single"),
    MAX_PAYLOAD_SIZE: Option("Largest payload in bytes", "text-single", number=True),
    PERSIST_ITEMS: Option("Keep items"),
    MAX_ITEMS: Option("How many items to keep", "text-single", number=True),
    SUBSCRIBE: Option("Allow subscriptions"),
    DELIVER_PAYLOADS: Option("Deliver payloads with event notifications"),
    DELIVER_NOTIFICATIONS: Option("Deliver event notifications"),
    NOTIFY_CONFIG: Option("Notify subscribers of a new configuration"),
    NOTIFY_DELETE: Option("Notify subscribers when the node is deleted"),
    NOTIFY_RETRACT: Option("Notify subscribers when items are removed"),
    NOTIFICATION_TYPE: Option("Type of event messages", "list-single", ("headline", "normal")),
    SEND_LAST: Option(
        "When to send the last item", "list-single", ("never", "on_sub", "on_sub_and_presence")
    ),
    "pubsub#presence_based_delivery": Option("Deliver to available users only"),
    "pubsub#purge_offline": Option("Purge items when their publisher goes offline"),
}

SUBSCRIPTION_OPTIONS: Mapping[str, Option] = {DELIVER: Option("Send events to this address")}
SUBSCRIPTION_DEFAULTS: Mapping[str, str] = {DELIVER: "1"}

# Values that are there with a feature of the node's type only.
_NEEDS: Mapping[tuple[str, str], str] = {
    (PUBLISH_MODEL, "subscribers"): "subscribe",
    **{(ACCESS_MODEL, model): f"access-{model}" for model in OPTIONS[ACCESS_MODEL].values},
}

# For a type that keeps items: the most that an option takes.
_MOST = {MAX_ITEMS: MOST_ITEMS, MAX_PAYLOAD_SIZE: MOST_PAYLOAD}

_BOOLEANS = {"1": "1", "true": "1", "0": "0", "false": "0"}  # XEP-0004 section 3.3


def check_name(name: str) -> str:
    """
    The name of a node to be created, or the id of an item.

    Raises:
        NotAcceptable: It is too long. MongooseIM takes any length.
    """
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


def affiliations_at_creation(creator: JID, pushes: bool = True) -> dict[str, str]:
    """
    The creator owns the node; to a push node the creator's server may publish (XEP-0357 section 5).

    With that the tutorial's flow needs no affiliation stanza: create, enable, and the server's
    publishes are welcome, those of strangers are not.
    """
    server = {creator.host: "publish-only"} if pushes else {}
    return {**server, creator.userhost(): "owner"}


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
    if access_model in ("open", "authorize"):
        return affiliation != "outcast"
    return affiliation not in ("none", "outcast")


def subscription_state(affiliation: str, access_model: str) -> str:
    """
    What a new subscription is: ``subscribed``, or ``pending`` where an owner has to decide (section 6.1.4).

    Raises:
        Forbidden: Of outcasts, and of those who publish only (sections 4.1 and 6.1.3.8).
        ClosedNode: Of those who are not on the whitelist (section 6.1.3.4).
    """
    if affiliation in ("outcast", "publish-only"):
        raise Forbidden("no subscription with this affiliation")
    if affiliation != "none" or access_model == "open":
        return "subscribed"
    if access_model == "authorize":
        return "pending"
    raise ClosedNode("the node is for those on its whitelist")


def check_retrieve(affiliation: str, access_model: str, subscribed: bool) -> None:
    """
    May one read the items?

    Raises:
        Forbidden: Of outcasts, and of those who publish only (section 6.5.9.10).
        ClosedNode: Of those who are not on the whitelist (section 6.5.9.8).
        SubscriptionRequired: Of those whom no owner let in (section 6.5.9.3).
    """
    if affiliation in ("outcast", "publish-only"):
        raise Forbidden("no items with this affiliation")
    if affiliation != "none" or access_model == "open":
        return
    if access_model != "authorize":
        raise ClosedNode("the node is for those on its whitelist")
    if not subscribed:
        raise SubscriptionRequired("the node is for subscribers")


def is_told(subscription: Subscription, affiliation: str, access_model: str) -> bool:
    """
    Does a subscription get events now?

    Affiliations and access model may be other ones than when it began.
    """
    if subscription.state != "subscribed" or subscription.options.get(DELIVER) == "0":
        return False
    if affiliation in ("outcast", "publish-only"):
        return False
    return affiliation != "none" or access_model != "whitelist"


def may_retract(affiliation: str, is_publisher: bool) -> bool:
    """Owners any item, everybody else who publishes their own (section 4.1, table 1)."""
    return affiliation == "owner" or (is_publisher and affiliation != "outcast")


def check_preconditions(options: Mapping[str, str], config: Mapping[str, str]) -> None:
    """
    Publish options of a node that keeps items are what its configuration has to be (section 7.1.5).

    Raises:
        PreconditionNotMet: It is not, or has no such option.
    """
    for var, wanted in options.items():
        value = config.get(var)
        if value is None or (_BOOLEANS.get(wanted, wanted) if _is_boolean(var) else wanted) != value:
            raise PreconditionNotMet(f"{var[:MAX_TEXT_OCTETS]} is another one")


def check_subscription_options(submitted: Mapping[str, str]) -> dict[str, str]:
    """
    The values that differ from the default; unknown ones are left out.

    Raises:
        InvalidOptions: Of a value that does not fit (section 6.3.6.2).
    """
    checked = {}
    for var in SUBSCRIPTION_OPTIONS.keys() & submitted.keys():
        if submitted[var] not in _BOOLEANS:
            raise InvalidOptions(f"{var} is true or false")
        checked[var] = _BOOLEANS[submitted[var]]
    return {var: value for var, value in checked.items() if value != SUBSCRIPTION_DEFAULTS[var]}


def items_kept(config: Mapping[str, str]) -> int:
    """How many items a node with these values of its options keeps."""
    if config.get(PERSIST_ITEMS) != "1":
        return 0
    most = config.get(MAX_ITEMS, "1")
    return MOST_ITEMS if most == "max" else min(int(most), MOST_ITEMS)


def may_own(affiliation: str) -> bool:
    """Configure, delete, and manage affiliations."""
    return affiliation == "owner"


def choices_of(var: str, features: Container[str]) -> tuple[str, ...]:
    """The values that a list offers at a node type with these features; none where it is no list."""
    return tuple(
        value for value in OPTIONS[var].values if (var, value) not in _NEEDS or _NEEDS[var, value] in features
    )


def check_config(
    submitted: Mapping[str, str], defaults: Mapping[str, str], features: Container[str]
) -> dict[str, str]:
    """
    The values of a submitted configuration as we keep them: booleans ``1`` and ``0``, unknown ones left out.

    Args:
        defaults: Of the node type; what is not among them is unknown there.
        features: Of the node type.

    Raises:
        UnsupportedAccessModel: Of access models.
        NotAcceptable: Of any other value that does not fit (section 8.2.5.5).
    """
    return {
        var: _checked(var, value, features)
        for var, value in submitted.items()
        if var in OPTIONS and var in defaults
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


def _is_boolean(var: str) -> bool:
    return var in OPTIONS and OPTIONS[var].type == "boolean"


def _checked(var: str, value: str, features: Container[str]) -> str:
    option = OPTIONS[var]
    if option.type == "boolean":
        if value not in _BOOLEANS:
            raise NotAcceptable(f"{var} is true or false")
        return _BOOLEANS[value]
    if option.values:
        choices = choices_of(var, features)
        if value not in choices:
            error = UnsupportedAccessModel if var == ACCESS_MODEL else NotAcceptable
            raise error(f"{var} is one of {', '.join(choices)}")
    if option.number:
        _check_number(var, value, features)
    if len(value.encode()) > MAX_TEXT_OCTETS:
        raise NotAcceptable(f"{var} is longer than {MAX_TEXT_OCTETS} octets")
    return value


def _check_number(var: str, value: str, features: Container[str]) -> None:
    keeps = "persistent-items" in features
    if keeps and var == MAX_ITEMS and value == "max":  # section 17.4.4, as much as there may be
        return
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise NotAcceptable(f"{var} is a whole number")
    if keeps and not 1 <= int(value) <= _MOST[var]:
        raise NotAcceptable(f"{var} is 1 to {_MOST[var]}")
