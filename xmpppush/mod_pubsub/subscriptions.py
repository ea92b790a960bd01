"""Subscribing to nodes that keep items, and deciding about subscriptions (XEP-0060 sections 6 and 8)."""

from collections.abc import Mapping, Sequence

from twisted.internet.interfaces import IReactorTime

from xmpppush.errors import (
    Forbidden,
    InvalidJid,
    InvalidSubid,
    NoSuchSubscriber,
    NotAcceptable,
    NotSubscribed,
    PendingSubscription,
    Unsupported,
)
from xmpppush.interfaces import INodeStore
from xmpppush.jids import JID
from xmpppush.mod_pubsub.events import Event
from xmpppush.mod_pubsub.lookup import Lookup
from xmpppush.mod_pubsub.rules import (
    ACCESS_MODEL,
    DELIVER_NOTIFICATIONS,
    DELIVER_PAYLOADS,
    MOST_SUBSCRIPTIONS,
    NOTIFICATION_TYPE,
    SEND_LAST,
    SUBSCRIBE,
    SUBSCRIPTION_DEFAULTS,
    affiliation_of,
    check_subscription_options,
    is_told,
    subscription_state,
)
from xmpppush.model import Node, Subscription


class Subscriptions:
    """
    Who is told of what happens at a node.

    Its methods return also what is to be sent now: it is on disk.
    """

    def __init__(self, nodes: INodeStore, lookup: Lookup, clock: IReactorTime) -> None:
        self._nodes = nodes
        self._lookup = lookup
        self._clock = clock

    # Subscribers

    async def subscribe(
        self, requester: JID, host: str, name: str, jid: JID, options: Mapping[str, str] | None
    ) -> tuple[Subscription, list[Event]]:
        """
        Subscribe an address of the requester's (section 6.1); again, with new options, where there are any.

        Raises:
            InvalidJid, PendingSubscription, TooManySubscriptions, InvalidOptions: As they say.
            Forbidden, ClosedNode: As `subscription_state` says.
            Unsupported: The node has no subscriptions, or none any more.
        """
        node = await self._lookup.offering("subscribe", requester, host, name)
        account = requester.userhost()
        if jid.userhost() != account:
            raise InvalidJid("only one's own address can be subscribed")
        checked = check_subscription_options(options or {})
        affiliation = affiliation_of(node, account)
        state = subscription_state(affiliation, self._lookup.value(node, ACCESS_MODEL))
        if self._lookup.value(node, SUBSCRIBE) == "0":
            raise Unsupported("subscribe")
        new = Subscription(host, name, jid.full(), account, state, checked, self._clock.seconds())
        there = await self._nodes.subscribe(new, MOST_SUBSCRIPTIONS, MOST_SUBSCRIPTIONS)
        if there is None:
            events = self._asked(node, new) if state == "pending" else await self.last_item(node, new)
            return new, events
        if there.state == "pending":
            raise PendingSubscription("an owner has not decided yet")
        if options is not None:
            await self._nodes.change_subscription(host, name, there.jid, None, checked)
        return there, []

    async def unsubscribe(self, requester: JID, host: str, name: str, jid: JID, subid: str | None) -> None:
        """
        End a subscription (section 6.2).

        Raises:
            Forbidden: It is somebody else's.
            NotSubscribed, InvalidSubid: As they say.
        """
        await self._lookup.offering("subscribe", requester, host, name)
        _check_own(requester, jid)
        if subid:
            raise InvalidSubid("subscriptions have no ids here")
        if not await self._nodes.unsubscribe(host, name, jid.full()):
            raise NotSubscribed("there is no such subscription")

    async def options(
        self, requester: JID, host: str, name: str, jid: JID, subid: str | None
    ) -> dict[str, str]:
        """
        All options of a subscription with their values (section 6.3).

        Raises:
            Forbidden, NoSuchSubscriber, InvalidSubid: As they say.
        """
        await self._lookup.offering("subscription-options", requester, host, name)
        _check_own(requester, jid)
        if subid:
            raise InvalidSubid("subscriptions have no ids here")
        for each in await self._nodes.subscriptions_of(host, requester.userhost()):
            if (each.node, each.jid) == (name, jid.full()):
                return {**SUBSCRIPTION_DEFAULTS, **each.options}
        raise NoSuchSubscriber("there is no such subscription")

    async def set_options(
        self, requester: JID, host: str, name: str, jid: JID, subid: str | None, options: Mapping[str, str]
    ) -> None:
        """Change options of a subscription (section 6.3.5); raises as `options`, and `InvalidOptions`."""
        current = await self.options(requester, host, name, jid, subid)
        checked = check_subscription_options({**current, **options})
        if not await self._nodes.change_subscription(host, name, jid.full(), None, checked):
            raise NoSuchSubscriber("there is no such subscription")

    async def default_options(self, requester: JID, host: str, name: str) -> Mapping[str, str]:
        """Options of a new subscription (section 6.4), to a node or, with ``""``, to any."""
        self._lookup.check_offered("subscription-options")
        if name:
            await self._lookup.offering("retrieve-default-sub", requester, host, name)
        return SUBSCRIPTION_DEFAULTS

    async def own(self, requester: JID, host: str, name: str | None) -> Sequence[Subscription]:
        """One's own subscriptions (section 5.6), at all nodes or at one."""
        self._lookup.check_offered("retrieve-subscriptions")
        found = await self._nodes.subscriptions_of(host, requester.userhost())
        return [each for each in found if name is None or each.node == name]

    # Owners

    async def of_node(self, requester: JID, host: str, name: str) -> Sequence[Subscription]:
        """All subscriptions of a node, for its owners (section 8.8.1)."""
        await self._managed(requester, host, name)
        return await self._nodes.subscriptions(host, name)

    async def change(
        self, requester: JID, host: str, name: str, changes: Mapping[str, str]
    ) -> tuple[None, list[Event]]:
        """
        Let subscribers in, or end their subscriptions (section 8.8.2): all of it or, raising, none.

        Nobody is subscribed who did not ask: the events would be unsolicited.

        Args:
            changes: JID as subscribed to ``subscribed`` or ``none``.

        Raises:
            NotAcceptable: There is no such state, or no such subscription.
        """
        node = await self._managed(requester, host, name)
        there = {each.jid: each for each in await self._nodes.subscriptions(host, name)}
        if not there.keys() >= changes.keys():
            raise NotAcceptable("there is no such subscription")
        if not set(changes.values()) <= {"subscribed", "none"}:
            raise NotAcceptable("a subscription becomes subscribed or none")
        events: list[Event] = []
        for jid, state in changes.items():
            if there[jid].state != state:
                events += await self._decide(node, there[jid], state == "subscribed")
        return None, events

    async def decide(
        self, requester: JID, host: str, name: str, jid: str, allow: bool
    ) -> tuple[None, list[Event]]:
        """An owner's answer to the question of `subscribe` (section 8.6); the first one counts."""
        node = await self._managed(requester, host, name)
        for each in await self._nodes.subscriptions(host, name):
            if each.jid == jid and each.state == "pending":
                return None, await self._decide(node, each, allow)
        return None, []

    async def _managed(self, requester: JID, host: str, name: str) -> Node:
        self._lookup.check_offered("manage-subscriptions")
        node = await self._lookup.owned(requester, host, name)
        if "manage-subscriptions" not in self._lookup.features_of(node):
            raise Unsupported("manage-subscriptions")
        return node

    async def _decide(self, node: Node, subscription: Subscription, allow: bool) -> list[Event]:
        host, name, jid = node.host, node.name, subscription.jid
        if allow:
            done = await self._nodes.change_subscription(host, name, jid, "subscribed", None)
        else:
            done = await self._nodes.unsubscribe(host, name, jid)
        if not done:
            return []
        state = "subscribed" if allow else "none"
        event = Event("subscription", name, (jid,), "normal", jid=jid, state=state)
        return [event, *(await self.last_item(node, subscription) if allow else ())]

    # Events

    async def told(self, node: Node) -> tuple[str, ...]:
        """Who gets the events of a node, where it has any."""
        if self._lookup.value(node, DELIVER_NOTIFICATIONS) == "0":
            return ()
        return self.told_of(node, await self._nodes.subscriptions(node.host, node.name))

    def told_of(self, node: Node, subscriptions: Sequence[Subscription]) -> tuple[str, ...]:
        """Those of ``subscriptions`` that get events now."""
        model = self._lookup.value(node, ACCESS_MODEL)
        return tuple(
            each.jid for each in subscriptions if is_told(each, affiliation_of(node, each.account), model)
        )

    async def last_item(self, node: Node, subscription: Subscription) -> list[Event]:
        """What a new subscriber is sent at once (section 6.1.7)."""
        value = self._lookup.value
        if value(node, SEND_LAST) in ("never", "") or value(node, DELIVER_NOTIFICATIONS) == "0":
            return []
        if subscription.options and not self.told_of(node, [subscription]):
            return []
        items = await self._nodes.items(node.host, node.name, 1)
        return [
            Event(
                "items",
                node.name,
                (subscription.jid,),
                value(node, NOTIFICATION_TYPE) or "headline",
                (item,),
                value(node, DELIVER_PAYLOADS) != "0",
                item.created,
            )
            for item in items
        ]

    def _asked(self, node: Node, subscription: Subscription) -> list[Event]:
        owners = tuple(
            jid for jid, affiliation in sorted(node.affiliations.items()) if affiliation == "owner"
        )
        return [Event("authorize", node.name, owners, "normal", jid=subscription.jid)]


def _check_own(requester: JID, jid: JID) -> None:
    if jid.userhost() != requester.userhost():
        raise Forbidden("the subscription is somebody else's")
