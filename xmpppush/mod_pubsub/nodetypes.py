"""The built-in pubsub node types (``[mod_pubsub] plugins``)."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen
from zope.interface import implementer

from xmpppush.errors import PreconditionNotMet
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


@implementer(INodeType)
@frozen
class PushNodeType:
    """``push``: items are notifications; they go to the push service and are not kept."""

    name: str = "push"
    features: tuple[str, ...] = PUSH_FEATURES
    defaults: Mapping[str, str] = PUSH_DEFAULTS

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


BUILT_IN = (PushNodeType(),)
