"""Values with sensible fields, so that a test names only what it is about."""

from typing import Any

from xmpppush.model import (
    Delivery,
    Item,
    Node,
    Notification,
    OfflineMessage,
    Publish,
    PushSummary,
    Registration,
    Subscription,
)

OPTIONS = {"service": "fcm", "device_id": "token-1"}


def a_registration(**changes: Any) -> Registration:
    values: dict[str, Any] = {
        "account": "alice@localhost",
        "pubsub": "pubsub.localhost",
        "node": "node-1",
        "options": OPTIONS,
        "resource": "phone",
        "created": 1000.0,
    }
    return Registration(**{**values, **changes})


def a_summary(**changes: Any) -> PushSummary:
    values: dict[str, Any] = {
        "message_count": 1,
        "last_message_sender": "bob@localhost",
        "last_message_body": "Hello",
    }
    return PushSummary(**{**values, **changes})


def a_publish(**changes: Any) -> Publish:
    values: dict[str, Any] = {
        "sender": "localhost",
        "pubsub": "pubsub.localhost",
        "node": "node-1",
        "notification": Notification(a_summary()),
        "options": OPTIONS,
        "account": "alice@localhost",
    }
    return Publish(**{**values, **changes})


def a_delivery(**changes: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": 0,
        "account": "alice@localhost",
        "pubsub": "pubsub.localhost",
        "node": "node-1",
        "service": "fcm",
        "path": "/v3/notification/token-1",
        "body": b'{"service":"fcm","alert":{"title":"bob@localhost","body":"Hello"}}',
        "created": 1000.0,
    }
    return Delivery(**{**values, **changes})


def an_offline_message(**changes: Any) -> OfflineMessage:
    values: dict[str, Any] = {
        "id": 0,
        "account": "alice@localhost",
        "xml": "<message from='bob@localhost/x' to='alice@localhost'><body>Hello</body></message>",
        "created": 1000.0,
    }
    return OfflineMessage(**{**values, **changes})


def a_node(**changes: Any) -> Node:
    values: dict[str, Any] = {
        "host": "pubsub.localhost",
        "name": "node-1",
        "type": "push",
        "owner": "alice@localhost",
        "affiliations": {
            "alice@localhost": "owner",
            "localhost": "publish-only",
        },
        "created": 1000.0,
    }
    return Node(**{**values, **changes})


def a_subscription(**changes: Any) -> Subscription:
    values: dict[str, Any] = {
        "host": "pubsub.localhost",
        "node": "node-1",
        "jid": "bob@localhost",
        "account": "bob@localhost",
        "created": 1000.0,
    }
    return Subscription(**{**values, **changes})


def an_item(**changes: Any) -> Item:
    values: dict[str, Any] = {
        "id": "item-1",
        "publisher": "alice@localhost",
        "payload": "<x xmlns='urn:x'/>",
        "created": 1000.0,
    }
    return Item(**{**values, **changes})
