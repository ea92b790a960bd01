"""Publishing to nodes that keep items, and reading what is there (XEP-0060 sections 6.5, 7 and 8.5)."""

from collections.abc import Mapping, Sequence

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.words.xish.domish import Element

from xmpppush.errors import (
    Forbidden,
    InvalidPayload,
    InvalidSubid,
    ItemForbidden,
    ItemNotFound,
    ItemRequired,
    NodeNotFound,
    PayloadRequired,
    PayloadTooBig,
    Unsupported,
)
from xmpppush.interfaces import INodeStore
from xmpppush.jids import JID
from xmpppush.mod_pubsub.events import Event
from xmpppush.mod_pubsub.lookup import Lookup
from xmpppush.mod_pubsub.rules import (
    ACCESS_MODEL,
    DELIVER_PAYLOADS,
    MAX_PAYLOAD_SIZE,
    MOST_IN_AN_ANSWER,
    MOST_ITEMS,
    MOST_OCTETS,
    MOST_PAYLOAD,
    NOTIFICATION_TYPE,
    NOTIFY_RETRACT,
    PERSIST_ITEMS,
    PUBLISH_MODEL,
    TYPE,
    affiliation_of,
    check_name,
    check_preconditions,
    check_retrieve,
    items_kept,
    may_publish,
    may_retract,
)
from xmpppush.mod_pubsub.subscriptions import Subscriptions
from xmpppush.model import Item, Node


@frozen
class Published:
    """
    A publish as it came in.

    Attributes:
        item: Is there an ``<item/>`` at all?
        id: ItemID, ``None`` where the service chooses one.
        payload: ``None``: the item is empty.
        xml: The payload as `Item` has it, ``""`` for none.
        options: Publish options.
    """

    item: bool
    id: str | None
    payload: Element | None
    xml: str
    options: Mapping[str, str]


@frozen
class Found:
    """
    What was asked for.

    Attributes:
        items: Oldest first.
        count: How many there are, where ``items`` are only the last of them; else ``None``.
    """

    items: Sequence[Item]
    count: int | None = None


class Items:
    """
    What was published.

    Its methods return also what is to be sent now: it is on disk.
    """

    def __init__(
        self, nodes: INodeStore, lookup: Lookup, subscriptions: Subscriptions, clock: IReactorTime
    ) -> None:
        self._nodes = nodes
        self._lookup = lookup
        self._subscriptions = subscriptions
        self._clock = clock

    async def publish(
        self, requester: JID, node: Node, published: Published, new_id: str
    ) -> tuple[str, list[Event]]:
        """
        Take an item (section 7.1); returns its id.

        Raises:
            Forbidden, InvalidPayload, PayloadTooBig, PreconditionNotMet: As they say.
            NodeNotFound: The node was deleted meanwhile.
        """
        config = self._lookup.config_of(node)
        publisher = requester.userhost()
        await self._check_publisher(node, publisher, config)
        check_preconditions(published.options, config)
        self._check_item(node, publisher, published, config)
        item = Item(check_name(published.id or new_id), publisher, published.xml, self._clock.seconds())
        if not await self._nodes.publish(node.host, node.name, item, items_kept(config), MOST_OCTETS):
            raise NodeNotFound("no such node")
        # Of a node that neither keeps nor shows items there is only this: something happened.
        items = (item,) if published.item else ()
        payloads = config.get(DELIVER_PAYLOADS) != "0"
        return item.id, await self._events("items", node, items, payloads)

    async def retract(
        self, requester: JID, host: str, name: str, item_id: str, notify: bool
    ) -> tuple[None, list[Event]]:
        """
        Delete an item (section 7.2).

        Args:
            notify: The request asks to tell subscribers, whatever the node's configuration says.

        Raises:
            Unsupported: The node keeps none.
            Forbidden: It is somebody else's.
            ItemNotFound: There is none with this id.
        """
        node = await self._keeping(requester, host, name)
        publisher = requester.userhost()
        affiliation = affiliation_of(node, publisher)
        item = await self._nodes.item(host, name, item_id)
        if item is None and affiliation in ("owner", "publisher", "publish-only"):
            raise ItemNotFound("no such item")
        if item is None or not may_retract(affiliation, item.publisher == publisher):
            raise Forbidden("the item is somebody else's")
        if not await self._nodes.retract(host, name, item_id):
            raise ItemNotFound("no such item")
        notify = notify or self._lookup.value(node, NOTIFY_RETRACT) == "1"
        return None, await self._events("retract", node, (item,)) if notify else []

    async def purge(self, requester: JID, host: str, name: str) -> tuple[None, list[Event]]:
        """
        Delete all items, for owners (section 8.5).

        Raises:
            Unsupported: The node keeps none (section 8.5.3.3).
        """
        node = await self._lookup.owned(requester, host, name)
        features = self._lookup.features_of(node)
        if "persistent-items" not in features or self._lookup.value(node, PERSIST_ITEMS) != "1":
            raise Unsupported("persistent-items")
        if "purge-nodes" not in features:
            raise Unsupported("purge-nodes")
        await self._nodes.purge(host, name)
        notify = self._lookup.value(node, NOTIFY_RETRACT) == "1"
        return None, await self._events("purge", node) if notify else []

    async def retrieve(
        self,
        requester: JID,
        host: str,
        name: str,
        ids: Sequence[str],
        limit: int | None,
        subid: str | None,
    ) -> Found:
        """
        The items of a node (section 6.5): those of these ids or, without any, the last ones.

        What does not fit into a stanza is left out, the oldest first.

        Raises:
            Forbidden, ClosedNode, SubscriptionRequired: As `check_retrieve` says.
            InvalidSubid, Unsupported: As they say.
        """
        await self._readable(requester, host, name)
        if subid:
            raise InvalidSubid("subscriptions have no ids here")
        items: Sequence[Item] = await self._nodes.items(
            host, name, MOST_ITEMS if ids else limit or MOST_ITEMS
        )
        if ids:
            wanted = set(ids)
            items = [item for item in items if item.id in wanted]
        kept = _fitting(items)
        return Found(kept, len(items) if len(kept) < len(items) else None)

    async def ids(self, requester: JID, host: str, name: str) -> Sequence[str]:
        """The ids of a node's items, for service discovery (section 5.5); none where it keeps none."""
        node = await self._lookup.visible(requester, host, name)
        if "retrieve-items" not in self._lookup.features_of(node):
            return ()
        await self._readable(requester, host, name)
        return await self._nodes.item_ids(host, name)

    async def _keeping(self, requester: JID, host: str, name: str) -> Node:
        node = await self._lookup.offering("persistent-items", requester, host, name)
        if "delete-items" not in self._lookup.features_of(node):
            raise Unsupported("delete-items")
        if self._lookup.value(node, PERSIST_ITEMS) != "1":
            raise Unsupported("persistent-items")
        return node

    async def _readable(self, requester: JID, host: str, name: str) -> Node:
        node = await self._lookup.offering("retrieve-items", requester, host, name)
        account = requester.userhost()
        affiliation, model = affiliation_of(node, account), self._lookup.value(node, ACCESS_MODEL)
        subscribed = model == "authorize" and await self._is_subscribed(node, account)
        check_retrieve(affiliation, model, subscribed)
        return node

    async def _check_publisher(self, node: Node, publisher: str, config: Mapping[str, str]) -> None:
        affiliation, model = affiliation_of(node, publisher), config[PUBLISH_MODEL]
        if may_publish(affiliation, model):
            return
        if model == "subscribers" and affiliation != "outcast" and await self._is_subscribed(node, publisher):
            return
        raise Forbidden("the sender may not publish to this node")

    async def _is_subscribed(self, node: Node, account: str) -> bool:
        return any(
            each.node == node.name and each.state == "subscribed"
            for each in await self._nodes.subscriptions_of(node.host, account)
        )

    def _check_item(
        self, node: Node, publisher: str, published: Published, config: Mapping[str, str]
    ) -> None:
        """Section 7.1.3, from 7.1.3.5 on."""
        keeps, shows = items_kept(config) > 0, config.get(DELIVER_PAYLOADS) != "0"
        if published.item and not keeps and not shows:
            raise ItemForbidden("the node takes no items")
        if not published.item and (keeps or shows):
            raise ItemRequired("the item is missing")
        payload = published.payload
        if payload is None and shows:
            raise PayloadRequired("the item is empty")
        if len(published.xml.encode()) > min(int(config.get(MAX_PAYLOAD_SIZE) or MOST_PAYLOAD), MOST_PAYLOAD):
            raise PayloadTooBig("the payload is too big")
        if payload is not None and config.get(TYPE) and payload.uri != config[TYPE]:
            raise InvalidPayload("the payload is not of the node's type")
        check = getattr(self._lookup.type_of(node), "check_item", None)
        if check is not None:
            check(node, publisher, payload)

    async def _events(
        self, kind: str, node: Node, items: tuple[Item, ...] = (), payloads: bool = True
    ) -> list[Event]:
        told = await self._subscriptions.told(node)
        type = self._lookup.value(node, NOTIFICATION_TYPE) or "headline"
        return [Event(kind, node.name, told, type, items, payloads)] if told else []


def _fitting(items: Sequence[Item]) -> list[Item]:
    """The last of them that fit into an answer, one at the least."""
    kept: list[Item] = []
    octets = 0
    for item in reversed(items):
        octets += len(item.payload.encode()) + len(item.id.encode()) + 64
        if kept and octets > MOST_IN_AN_ANSWER:
            break
        kept.append(item)
    return kept[::-1]
