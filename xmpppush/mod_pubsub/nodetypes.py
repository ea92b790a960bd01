"""Pubsub node types (``[mod_pubsub] plugins``): those built in, and finding anybody's."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import frozen
from twisted.plugin import getPlugins
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.errors import ConfigError, InvalidPayload, PreconditionNotMet
from xmpppush.interfaces import INodeType
from xmpppush.mod_pubsub.rules import ACCESS_MODEL, PUBLISH_MODEL, TITLE
from xmpppush.model import Node, Publish

PUSH_FEATURES = (
    "access-open",
    "access-whitelist",
    "config-node",
    "create-and-configure",
    "create-nodes",
    "delete-nodes",
    "instant-nodes",
    "member-affiliation",
    "modify-affiliations",
    "outcast-affiliation",
    "publish",
    "publish-only-affiliation",
    "publish-options",
    "publisher-affiliation",
    "retrieve-affiliations",
    "retrieve-default",
)

# MongooseIM's but for the publish model: with its ``open`` whoever hears of a node may push through it.
PUSH_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        TITLE: "",
        ACCESS_MODEL: "whitelist",  # XEP-0357 section 4: supported, and the default
        PUBLISH_MODEL: "publishers",
        "pubsub#type": "",
        "pubsub#max_payload_size": "60000",
        "pubsub#persist_items": "0",
        "pubsub#max_items": "1",
        "pubsub#subscribe": "0",
        "pubsub#deliver_payloads": "1",
        "pubsub#deliver_notifications": "1",
        "pubsub#notify_config": "0",
        "pubsub#notify_delete": "0",
        "pubsub#notify_retract": "0",
        "pubsub#notification_type": "headline",
        "pubsub#send_last_published_item": "on_sub_and_presence",
        "pubsub#presence_based_delivery": "1",
        "pubsub#purge_offline": "0",
    }
)

FLAT_FEATURES = tuple(
    sorted(
        (
            *PUSH_FEATURES,
            "access-authorize",
            "config-node-max",
            "delete-items",
            "item-ids",
            "last-published",
            "manage-subscriptions",
            "persistent-items",
            "purge-nodes",
            "retract-items",
            "retrieve-default-sub",
            "retrieve-items",
            "retrieve-subscriptions",
            "subscribe",
            "subscription-notifications",
            "subscription-options",
        )
    )
)

FLAT_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        TITLE: "",
        "pubsub#description": "",
        ACCESS_MODEL: "open",
        PUBLISH_MODEL: "publishers",
        "pubsub#type": "",
        "pubsub#max_payload_size": "60000",
        "pubsub#persist_items": "1",
        "pubsub#max_items": "10",
        "pubsub#subscribe": "1",
        "pubsub#deliver_payloads": "1",
        "pubsub#deliver_notifications": "1",
        "pubsub#notify_config": "0",
        "pubsub#notify_delete": "1",
        "pubsub#notify_retract": "1",
        "pubsub#notification_type": "headline",
        "pubsub#send_last_published_item": "on_sub",
    }
)


@implementer(INodeType)
@frozen
class PushNodeType:
    """``push``: items are notifications; they go to the push service and are not kept."""

    name: str = "push"
    features: tuple[str, ...] = PUSH_FEATURES
    defaults: Mapping[str, str] = PUSH_DEFAULTS
    pushes: bool = True

    def check_publish(self, node: Node, publish: Publish) -> None:
        """
        The options name a device of a push service.

        The tutorial's text says ``device``, MongooseIM's code ``device_id``: either will do.
        """
        options = publish.options
        if not options.get("service"):
            raise PreconditionNotMet("publish option service is missing")
        if not (options.get("device_id") or options.get("device")):
            raise PreconditionNotMet("publish option device_id is missing")

    def check_item(self, node: Node, publisher: str, payload: Element | None) -> None:
        """There are none."""
        raise InvalidPayload("a push node keeps no items")


@implementer(INodeType)
@frozen
class FlatNodeType:
    """``flat``: items are kept, and told to subscribers."""

    name: str = "flat"
    features: tuple[str, ...] = FLAT_FEATURES
    defaults: Mapping[str, str] = FLAT_DEFAULTS
    pushes: bool = False

    def check_publish(self, node: Node, publish: Publish) -> None:
        """Nobody who enables push for a flat node means it: no phone would ever hear of it."""
        raise InvalidPayload("a flat node takes no push notifications")

    def check_item(self, node: Node, publisher: str, payload: Element | None) -> None:
        """Anything."""


BUILT_IN: tuple[INodeType, ...] = (PushNodeType(), FlatNodeType())


def node_types_of(names: Sequence[str]) -> tuple[INodeType, ...]:
    """
    The node types of these names, in this order; ours and those in anybody's ``twisted/plugins/``.

    Raises:
        ConfigError: One of them is nowhere to be found.
    """
    known = {each.name: each for each in BUILT_IN}
    if not known.keys() >= set(names):
        known = {each.name: each for each in getPlugins(INodeType)} | known
    missing = [name for name in names if name not in known]
    if missing:
        installed = ", ".join(sorted(known))
        raise ConfigError(
            [f"[mod_pubsub] plugins: no node type '{name}'; installed: {installed}" for name in missing]
        )
    return tuple(known[name] for name in names)
