"""The app server itself: nodes, who may do what to them, and publishing. Knows no XML."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from random import Random, SystemRandom
from typing import Any
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.config.sections import ModPubsubSection
from xmpppush.errors import (
    DeviceUnregistered,
    Forbidden,
    NodeIdRequired,
    NodeNotFound,
    NotAcceptable,
    PushError,
    TryLater,
    Unsupported,
)
from xmpppush.interfaces import IAppDevices, IMessageStore, INodeStore, INodeType, IPubSub, IPushService
from xmpppush.jids import JID
from xmpppush.mod_pubsub.events import Event
from xmpppush.mod_pubsub.items import Items
from xmpppush.mod_pubsub.lookup import Lookup, pushes
from xmpppush.mod_pubsub.nodetypes import BUILT_IN
from xmpppush.mod_pubsub.rules import (
    DELIVER_PAYLOADS,
    NOTIFICATION_TYPE,
    NOTIFY_CONFIG,
    NOTIFY_DELETE,
    PUBLISH_MODEL,
    affiliation_of,
    affiliations_at_creation,
    check_affiliations,
    check_config,
    check_create,
    check_name,
    items_kept,
    may_publish,
    merged_config,
)
from xmpppush.mod_pubsub.subscriptions import Subscriptions
from xmpppush.model import Delivery, Node, Publish

ANSWER_WITHIN = 10.0  # seconds; s2s peers and clients give up on an iq after 15 to 60
MAX_UNANSWERED = 2000  # with more the oldest are told what is true: theirs is queued

Answered = Callable[[BaseException | None], object]


@implementer(IPubSub)
class PubSub:
    """
    mod_pubsub: the pubsub hosts of this process.

    Requesters and senders are prepared JIDs; ``host`` is one of `hosts`.

    Attributes:
        hosts: Its domains.
        types: The node types it offers, by name, the default first.
        on_gone: Told of a node whose device is gone where the publisher has its answer already: host, name
            and the owner's bare JID.
        lookup: Finds nodes for those who may know of them.
        subscriptions, items: Of nodes that are not for notifications.
    """

    on_gone: Callable[[str, str, str], object] | None = None

    def __init__(
        self,
        section: ModPubsubSection,
        domains: Collection[str],
        nodes: INodeStore,
        messages: IMessageStore,
        push_service: IPushService,
        clock: IReactorTime,
        random: Random | None = None,
        node_types: Sequence[INodeType] = BUILT_IN,
        apps: IAppDevices | None = None,
    ) -> None:
        self.hosts = frozenset(section.hosts)
        known = {type.name: type for type in node_types}
        self.types: Mapping[str, INodeType] = {name: known[name] for name in section.plugins if name in known}
        self._section = section
        self._domains = frozenset(domains)
        self._nodes = nodes
        self._messages = messages
        self._push_service = push_service
        self._clock = clock
        self._random = random or SystemRandom()
        self._apps = apps
        # Those who wait for their first try, by the number of the row: until when, and whom to tell.
        self._unanswered: dict[int, tuple[float, Answered]] = {}
        self._timer: IDelayedCall | None = None
        self._turns: WeakValueDictionary[tuple[str, str], DeferredLock] = WeakValueDictionary()
        self.lookup = Lookup(nodes, self.types)
        self.subscriptions = Subscriptions(nodes, self.lookup, clock)
        self.items = Items(nodes, self.lookup, self.subscriptions, clock)

    # Publishing

    def accept(self, publish: Publish) -> "Delivery | Deferred[Delivery]":
        """See `IPubSub.accept`. Once a push: no XML and no coroutine here."""
        return self._accept(publish, self._nodes.known(publish.pubsub, publish.node))

    def _accept(self, publish: Publish, node: Node | None) -> "Delivery | Deferred[Delivery]":
        if self._apps is not None:
            # Before our own nodes: whoever creates one with a device's name gets nothing by it.
            accepted = self._apps.accept(publish)
            if isinstance(accepted, Deferred):
                return accepted.addCallback(lambda found: found or self._to_node(publish))
            if accepted is not None:
                return accepted
        if node is not None:
            return self._delivery(node, publish)
        return self._to_node(publish)

    async def is_device(self, host: str, node: str, options: Mapping[str, str]) -> bool:
        """Is what is published there for a device that registered for an app?"""
        if self._apps is None:
            return False
        known = self._apps.knows(host, node, options)
        return await known if isinstance(known, Deferred) else known

    def _to_node(self, publish: Publish) -> "Deferred[Delivery]":
        return self.lookup.get(publish.pubsub, publish.node).addCallback(self._delivery, publish)

    def _delivery(self, node: Node | None, publish: Publish) -> Delivery:
        if node is None:
            raise NodeNotFound("no such node")
        node_type = self.types.get(node.type)
        if node_type is None:
            # The operator took the type out of the configuration and may put it back: were this a
            # final error, every server that publishes here would forget its registrations.
            raise TryLater(f"node type {node.type} is not configured")
        model = node.config.get(PUBLISH_MODEL) or node_type.defaults[PUBLISH_MODEL]
        if not may_publish(node.affiliations.get(publish.sender, "none"), model):
            raise Forbidden("the sender may not publish to this node")
        node_type.check_publish(node, publish)
        return self._push_service.prepare(publish, self._clock.seconds())

    async def publish(self, publish: Publish) -> None:
        """
        Take a notification of somebody else: check it, keep it, try it once.

        Returns when the first try is over, or after `ANSWER_WITHIN` seconds.

        Raises:
            PushError: What `accept` raises, and what the first try came to when it was final.
            StorageError: It could not be kept.
        """
        answer: Deferred[None] = Deferred()
        self._take(
            publish,
            self._nodes.known(publish.pubsub, publish.node),
            lambda error: answer.callback(None) if error is None else answer.errback(error),
        )
        await answer

    def offer(self, publish: Publish, answered: Answered) -> bool:
        """See `IPubSub.offer`. Once a push, as `accept`."""
        node = self._nodes.known(publish.pubsub, publish.node)
        if node is None:
            return False
        node_type = self.types.get(node.type)
        if node_type is not None and not pushes(node_type):
            return False
        self._take(publish, node, answered)
        return True

    def _take(self, publish: Publish, node: Node | None, answered: Answered) -> None:
        try:
            accepted = self._accept(publish, node)
        except Exception as error:
            answered(error)
            return
        if isinstance(accepted, Deferred):
            accepted.addCallback(self._keep, answered).addErrback(_tell, answered)
        else:
            self._keep(accepted, answered)

    def _keep(self, delivery: Delivery, answered: Answered) -> None:
        self._messages.keep(None, (delivery,), 0).addCallbacks(
            self._kept, _tell, (answered,), errbackArgs=(answered,)
        )

    def _kept(self, stored: tuple[Delivery, ...], answered: Answered) -> None:
        (delivery,) = stored
        number, now = delivery.id, self._clock.seconds()
        self._unanswered[number] = now + ANSWER_WITHIN, answered
        if len(self._unanswered) > MAX_UNANSWERED:
            self._answer_oldest()
        elif self._timer is None:
            self._timer = self._clock.callLater(ANSWER_WITHIN, self._out_of_time)
        self._push_service.enqueue(delivery, partial(self._tried, delivery))

    def _tried(self, delivery: Delivery, error: PushError | None) -> None:
        if isinstance(error, DeviceUnregistered) and self._apps is not None:
            # Told that the node is gone, a server would forget the device that just got a new token.
            renewed = self._apps.is_renewed(delivery)
            if isinstance(renewed, Deferred):
                renewed.addErrback(lambda _: False).addCallback(self._unless, delivery.id, error)
            else:
                self._unless(renewed, delivery.id, error)
        else:
            self._first(delivery.id, error)

    def _unless(self, renewed: bool, number: int, error: PushError) -> None:
        self._first(number, None if renewed else error)

    def _first(self, number: int, error: PushError | None) -> None:
        _, answered = self._unanswered.pop(number, (0.0, None))
        if not self._unanswered and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if answered is not None:
            # TryLater is no error to the publisher: the row is on disk and will be tried again. Were
            # it told to wait, a server that repeats publishes would push twice.
            answered(None if isinstance(error, TryLater) else error)

    def _out_of_time(self) -> None:
        """The same holds for who waits too long: it is queued."""
        self._timer = None
        now = self._clock.seconds()
        while self._unanswered:
            deadline, _ = self._unanswered[next(iter(self._unanswered))]
            if deadline > now:
                self._timer = self._clock.callLater(deadline - now, self._out_of_time)
                return
            self._answer_oldest()

    def _answer_oldest(self) -> None:
        self._first(next(iter(self._unanswered)), None)

    def answer_waiting(self) -> None:
        """Answer all who wait for a first try: we stop, and what they published is on disk."""
        while self._unanswered:
            self._answer_oldest()

    def unregistered(self, delivery: Delivery) -> "Deferred[None]":
        """
        The device is gone: fires when it is forgotten, if it is one of an app's.

        To a server elsewhere that published that is the answer or, where it has one, `on_gone` is told.
        """
        return Deferred.fromCoroutine(self._unregistered(delivery))

    async def _unregistered(self, delivery: Delivery) -> None:
        # Before anything is waited for: in a moment it is answered, by what the device came to.
        untold = delivery.id not in self._unanswered and not delivery.account
        owner = await self._apps.unregistered(delivery) if self._apps is not None else ""
        if not untold or delivery.pubsub not in self.hosts:
            return
        if not owner and "@" not in delivery.service:
            node = await self.lookup.get(delivery.pubsub, delivery.node)
            owner = node.owner if node is not None else ""
        if owner and self.on_gone is not None:
            self.on_gone(delivery.pubsub, delivery.node, owner)

    def item_id(self) -> str:
        """An id for an item, or a name for a node, that came without one."""
        return f"{self._random.getrandbits(80):020x}"

    # Nodes

    async def create(
        self, requester: JID, host: str, name: str | None, type_name: str | None, config: Mapping[str, str]
    ) -> str:
        """
        Create a node (XEP-0060 section 8.1); returns its name.

        Args:
            name: ``None`` or ``""``: an instant node (section 8.1.1), whose name nobody guesses.
            type_name: ``None``: the default type.
            config: As submitted.

        Raises:
            NodeIdRequired, NotAcceptable, NotAllowed, Forbidden, NodeExists, TooManyNodes: As they say.
            Unsupported: There is no such type here.
        """
        check_create(self._section.access_createnode, requester, self._domains)
        node_type = self._type(type_name)
        if not name and "instant-nodes" not in node_type.features:
            raise NodeIdRequired("a node of this type needs a name")
        defaults = node_type.defaults
        node = Node(
            host=host,
            name=check_name(name) if name else self.item_id(),
            type=node_type.name,
            owner=requester.userhost(),
            config=merged_config(defaults, {}, check_config(config, defaults, node_type.features)),
            affiliations=affiliations_at_creation(requester, pushes(node_type)),
            created=self._clock.seconds(),
        )
        await self._nodes.create(node, self._section.max_nodes_per_user)
        return node.name

    async def delete(self, requester: JID, host: str, name: str) -> tuple[None, list[Event]]:
        """Delete a node (section 8.4); whoever waits for an owner's decision is told, too."""
        node = await self.lookup.owned(requester, host, name)
        subscriptions = await self._nodes.subscriptions(host, name)
        if not await self._nodes.delete(host, name):
            raise NodeNotFound("no such node")
        if not subscriptions or self.lookup.value(node, NOTIFY_DELETE) != "1":
            return None, []
        told = tuple(each.jid for each in subscriptions)
        return None, [Event("delete", name, told, self._event_type(node))]

    async def configuration(self, requester: JID, host: str, name: str) -> tuple[Node, Mapping[str, str]]:
        """A node, and all its options with their values (section 8.2)."""
        node = await self.lookup.owned(requester, host, name)
        return node, self.lookup.config_of(node)

    async def configure(
        self, requester: JID, host: str, name: str, config: Mapping[str, str]
    ) -> tuple[None, list[Event]]:
        """Change options of a node; those not named stay. Items that are too many now go."""
        return await self._in_turn(host, name, self._configure, requester, host, name, config)

    async def _configure(
        self, requester: JID, host: str, name: str, config: Mapping[str, str]
    ) -> tuple[None, list[Event]]:
        node = await self.lookup.owned(requester, host, name)
        defaults = self.lookup.defaults_of(node)
        checked = check_config(config, defaults, self.lookup.features_of(node))
        merged = merged_config(defaults, node.config, checked)
        values = {**defaults, **merged}
        if not await self._nodes.configure(host, name, merged, items_kept(values) if defaults else None):
            raise NodeNotFound("no such node")
        if values.get(NOTIFY_CONFIG) != "1" or merged == node.config:
            return None, []
        told = await self.subscriptions.told(node)
        shown = values if values.get(DELIVER_PAYLOADS) != "0" else {}
        return None, [
            Event("configuration", name, told, self._event_type(node), config=shown)
        ] if told else []

    def default_configuration(self, type_name: str | None) -> tuple[INodeType, Mapping[str, str]]:
        """
        Options of a new node of this type or, with ``None`` or ``leaf``, of the default type (section 8.3).

        Raises:
            NotAcceptable: There is no such type here.
        """
        if type_name in (None, "leaf"):
            node_type = self._type(None)
        elif type_name in self.types:
            node_type = self.types[type_name]
        else:
            raise NotAcceptable("no such node type")
        return node_type, node_type.defaults

    async def affiliations(self, requester: JID, host: str, name: str) -> Mapping[str, str]:
        """Who is what at a node, for its owners (section 8.9.1)."""
        return (await self.lookup.owned(requester, host, name)).affiliations

    async def affiliate(self, requester: JID, host: str, name: str, changes: Mapping[str, str]) -> None:
        """Change affiliations: all of them or, raising why not, none (section 8.9.2)."""
        await self._in_turn(host, name, self._affiliate, requester, host, name, changes)

    async def _affiliate(self, requester: JID, host: str, name: str, changes: Mapping[str, str]) -> None:
        check_affiliations(await self.lookup.owned(requester, host, name), changes)
        if not await self._nodes.affiliate(host, name, changes):
            raise NodeNotFound("no such node")

    async def _in_turn(self, host: str, name: str, change: Any, *args: object) -> Any:
        """Change a node by what it is, once the changes before have made it that."""
        turn = self._turns.get((host, name))
        if turn is None:
            turn = self._turns[host, name] = DeferredLock()
        return await turn.run(lambda: Deferred.fromCoroutine(change(*args)))

    # What one may see

    async def affiliations_of(self, jid: JID, host: str, name: str | None) -> list[tuple[str, str]]:
        """One's own affiliations (section 5.7), at all nodes or at one, as node and affiliation."""
        bare = jid.userhost()
        if name is not None:
            node = await self.lookup.get(host, name)
            nodes: Sequence[Node] = (node,) if node is not None and bare in node.affiliations else ()
        else:
            nodes = await self._nodes.affiliated_with(host, bare)
        return [(node.name, affiliation_of(node, bare)) for node in nodes]

    async def owned_by(self, jid: JID, host: str) -> tuple[Node, ...]:
        """One's own nodes. Other people's are nobody's business; MongooseIM lists them all."""
        return await self._nodes.owned_by(host, jid.userhost())

    def features_of(self, node: Node | None) -> tuple[str, ...]:
        """Names of XEP-0060 features, of a node or, with ``None``, of the service."""
        types = self.types.values() if node is None else filter(None, [self.types.get(node.type)])
        features = {feature for type in types for feature in type.features}
        if self._section.access_createnode == "none":
            features -= {"create-nodes", "create-and-configure", "instant-nodes"}
        return tuple(sorted(features))

    def _type(self, name: str | None) -> INodeType:
        node_type = next(iter(self.types.values()), None) if name is None else self.types.get(name)
        if node_type is None:
            raise Unsupported("create-nodes", "no such node type")
        return node_type

    def _event_type(self, node: Node) -> str:
        return self.lookup.value(node, NOTIFICATION_TYPE) or "headline"


def _tell(failure: Failure, answered: Answered) -> None:
    answered(failure.value)
