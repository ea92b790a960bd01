"""
The contracts between the roles, and with plugins (zope.interface).

The types are in the signatures, the promises in the docstrings: what is raised, what may be called
twice, what order means. Every ``Deferred`` of a store fires after the transaction is on disk.
"""

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.words.xish.domish import Element
from zope.interface import Attribute, Interface

from xmpppush.errors import PushError
from xmpppush.model import (
    Account,
    Delivery,
    Device,
    Importance,
    Item,
    Node,
    Notification,
    OfflineMessage,
    Publish,
    Registration,
    RosterItem,
    ScramKeys,
    Subscription,
    TraceLimits,
    TraceNote,
)


class IDatabase(Interface):
    """
    Where the stores run their SQL: functions of a cursor, each call of one a transaction.

    The functions run in another thread (`write`) or at once, and touch nothing but the cursor, their
    arguments and what they own. Writes take effect, and their Deferreds fire, in the order of the calls.
    """

    def write(function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        """
        Run ``function(cursor, *args)``; fires with what it returned once that is on disk.

        Many writes share one commit; one that raises is undone alone.

        Raises:
            StorageError: Disk full, locked, closed, ...: nothing of it is kept.
        """

    def write_grouped(function: Callable[..., Any], item: object) -> "Deferred[Any]":
        """
        As `write`, for what happens all the time: ``function(cursor, items)`` gets many items at once.

        It returns a list with a result for each; an exception in there fails that item alone, which must
        not have written anything then. Grouped functions must commute with each other within a commit;
        a plain `write` between them is a barrier.
        """

    def read(function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        """Run ``function(cursor, *args)`` on what is committed; it only selects."""

    def read_apart(function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        """As `read`, for what takes long: neither the reactor nor a write waits for it."""

    def on_rollback(callback: Callable[[], object]) -> None:
        """
        Have ``callback`` called where writes run, when what a function noted beside the database is void.
        """

    def on_foreign_write(callback: Callable[[], object]) -> None:
        """
        Have ``callback`` called in the reactor thread when another process wrote.

        Noticed with the next write, so caches are wrong until then at the longest.
        """


class IAccountStore(Interface):
    """Accounts and their keys (never passwords)."""

    def get(jid: str) -> "Deferred[Account | None]":
        """The account of this bare JID."""

    def add(accounts: Sequence[Account]) -> "Deferred[None]":
        """Add all of them or, raising `AccountExists` for the first that is there already, none."""

    def replace(account: Account) -> "Deferred[bool]":
        """New keys for an account; False where there is none."""

    def remove(jid: str) -> "Deferred[bool]":
        """Remove the account with its roster, offline messages, registrations and queued deliveries."""

    def list() -> "Deferred[tuple[str, ...]]":
        """All bare JIDs, sorted."""


class IRosterStore(Interface):
    """Contact lists (RFC 6121 section 2)."""

    def get(account: str) -> "Deferred[tuple[RosterItem, ...]]":
        """Sorted by JID."""

    def put(account: str, item: RosterItem) -> "Deferred[None]":
        """Add the item or replace the one with its JID."""

    def remove(account: str, jid: str) -> "Deferred[bool]":
        """False where it was not there."""


class IRegistrationStore(Interface):
    """XEP-0357 registrations behind a write-through cache."""

    def known(account: str) -> "tuple[Registration, ...] | None":
        """As `of` where the answer is in memory, the rule on the hot path; ``None``: ask."""

    def of(account: str) -> "Deferred[tuple[Registration, ...]]":
        """All of one account, oldest first; already fired where cached."""

    def put(registration: Registration, limit: int) -> "Deferred[None]":
        """
        Add it, or replace the one with its account, pubsub and node (section 5: the last enable counts).

        Raises:
            TooManyRegistrations: It would be number ``limit`` + 1 of its account.
        """

    def remove(account: str, pubsub: str, node: str | None) -> "Deferred[int]":
        """
        Forget registrations (section 6).

        Args:
            node: One node, or ``None`` for all nodes of ``pubsub``.

        Returns:
            How many there were. Zero is no error: clients repeat themselves.
        """

    def remove_same(registration: Registration) -> "Deferred[bool]":
        """
        Forget this very registration; False where it is gone, or was enabled again since it was read.

        For verdicts about a registration: they take a while, and a client may be quicker.
        """

    def count_error(account: str, pubsub: str, node: str) -> "Deferred[int]":
        """One more publish error in a row; returns how many, 0 where there is no such registration."""

    def forget_errors(account: str, pubsub: str, node: str) -> "Deferred[None]":
        """A publish went through: no errors, and suspended no longer."""

    def suspend(account: str, pubsub: str, node: str, reason: str, next_try: float) -> "Deferred[None]":
        """It gets nothing until ``next_try``; a new enable (`put`) or `forget_errors` ends that."""

    def count_missed(registration: Registration) -> int:
        """
        One more message that called for a push to this device; returns how many since it was last there.

        At once and in memory; `save_missed` brings it to the disk.
        """

    def device_back(account: str, resource: str) -> "Deferred[bool]":
        """The session of this resource gets messages now: it has missed none. Was there a count to reset?"""

    def save_missed(limit: int | None = None) -> "Deferred[int]":
        """
        Write the counts that changed, those that wait longest first; returns how many still wait.

        Args:
            limit: So many, or more where too many wait; ``None``: all. A storage that closes writes all.
        """

    def list(account: str | None) -> "Deferred[tuple[Registration, ...]]":
        """Of one account or, with ``None``, of all, sorted by account."""


class INodeStore(Interface):
    """Pubsub nodes and affiliations behind a write-through cache; their subscriptions and items."""

    def known(host: str, name: str) -> "Node | None":
        """
        The node where it is in memory, the rule on the hot path.

        ``None``: there is none, or it is to be asked for.
        """

    def get(host: str, name: str) -> "Deferred[Node | None]":
        """Already fired where cached."""

    def create(node: Node, limit: int) -> "Deferred[None]":
        """
        Raises:
            NodeExists: There is one with its host and name.
            TooManyNodes: It would be number ``limit`` + 1 of its owner on that host.
        """

    def configure(
        host: str, name: str, config: Mapping[str, str], keep: int | None = None
    ) -> "Deferred[bool]":
        """
        Replace its config; False where there is no such node.

        Args:
            keep: So many of its items stay, those published last; ``None``: all.
        """

    def affiliate(host: str, name: str, changes: Mapping[str, str]) -> "Deferred[bool]":
        """Set affiliations, ``none`` removes one; False where there is no such node."""

    def delete(host: str, name: str) -> "Deferred[bool]":
        """The node goes, with its affiliations, subscriptions and items; False where there is none."""

    def subscribe(
        subscription: Subscription, node_limit: int, account_limit: int
    ) -> "Deferred[Subscription | None]":
        """
        Add a subscription, unless there is one with its host, node and JID.

        Returns:
            The one that was there, ``None`` where it was added.

        Raises:
            NodeNotFound: There is no such node.
            TooManySubscriptions: It would be one too many of its node, or of its account on that host.
        """

    def unsubscribe(host: str, name: str, jid: str) -> "Deferred[bool]":
        """False where there is no such subscription."""

    def change_subscription(
        host: str, name: str, jid: str, state: str | None, options: Mapping[str, str] | None
    ) -> "Deferred[bool]":
        """Replace what is not ``None``; False where there is no such subscription."""

    def subscriptions(host: str, name: str) -> "Deferred[tuple[Subscription, ...]]":
        """Of a node, pending ones too, sorted by JID."""

    def subscriptions_of(host: str, account: str) -> "Deferred[tuple[Subscription, ...]]":
        """Of a bare JID, with and without resource, sorted by node and JID."""

    def publish(host: str, name: str, item: Item, keep: int, size: int) -> "Deferred[bool]":
        """
        Add an item, in place of the one with its id; False where there is no such node.

        Args:
            keep: So many items stay, those published last; 0: it is not kept.
            size: And no more than have so many octets together.
        """

    def retract(host: str, name: str, item_id: str) -> "Deferred[bool]":
        """False where there is no such item."""

    def purge(host: str, name: str) -> "Deferred[int]":
        """Remove all items; returns how many there were."""

    def items(host: str, name: str, limit: int) -> "Deferred[tuple[Item, ...]]":
        """The items published last, ``limit`` at the most, oldest first."""

    def item_ids(host: str, name: str) -> "Deferred[tuple[str, ...]]":
        """The ids of all items, oldest first."""

    def item(host: str, name: str, item_id: str) -> "Deferred[Item | None]":
        """One item."""

    def owned_by(host: str, owner: str) -> "Deferred[tuple[Node, ...]]":
        """Nodes of which ``owner`` is an owner, sorted by name."""

    def affiliated_with(host: str, jid: str) -> "Deferred[tuple[Node, ...]]":
        """Nodes that know ``jid`` in any affiliation, sorted by name."""


class IDeviceStore(Interface):
    """Devices that registered for an app, behind a write-through cache."""

    def get(host: str, node: str) -> "Device | Deferred[Device | None] | None":
        """The device of this node; a Deferred only where that is not in memory."""

    def put(device: Device, limit: int) -> "Deferred[Device]":
        """
        Add it, or give the one with its host and key its token, data and time.

        Returns:
            The device as it is now: of one that was there, node and secret stay.

        Raises:
            LimitReached: It would be number ``limit`` + 1 of its owner for its app.
        """

    def remove(host: str, key: str) -> "Deferred[bool]":
        """False where it was not there."""

    def remove_same(device: Device) -> "Deferred[bool]":
        """Forget it unless it was registered again since it was read."""


class IMessageStore(Interface):
    """Offline messages and the queue of deliveries: what must never be lost."""

    def keep(
        message: OfflineMessage | None, deliveries: Sequence[Delivery], limit: int
    ) -> "Deferred[tuple[Delivery, ...]]":
        """
        Store both in one transaction; in the order of the calls.

        Returns:
            The deliveries with their row numbers.

        Raises:
            OfflineFull: ``limit`` messages wait for this account already; nothing is stored.
        """

    def hand(
        message: OfflineMessage, deliveries: Sequence[Delivery]
    ) -> "Deferred[tuple[int, tuple[Delivery, ...]]]":
        """
        Store both, the message for the time that a session needs to acknowledge it.

        No limit applies: a session holds only so many. It is one of those that wait, with ``push_due``
        as it says, until it is forgotten.

        Returns:
            The message's row number, and the deliveries with theirs.
        """

    def decided(
        message_id: int, deliveries: Sequence[Delivery], final: bool
    ) -> "Deferred[tuple[Delivery, ...]]":
        """
        Store the deliveries for a handed message, which may be forgotten by now.

        Args:
            final: No more pushes are due for it.

        Returns:
            The deliveries with their row numbers.
        """

    def due(after: int, limit: int) -> "Deferred[tuple[OfflineMessage, ...]]":
        """Those with ``push_due`` and a row number above ``after``, in its order, ``limit`` at the most."""

    def waiting(
        account: str, after: int = 0, limit: int | None = None
    ) -> "Deferred[tuple[OfflineMessage, ...]]":
        """
        The account's offline messages in the order they were kept, which is that of their ``id``.

        Args:
            after: Only those with a higher ``id``.
            limit: So many at the most.

        Ordered behind every `keep` called before it, though that may not have fired yet.
        """

    def forget(ids: Sequence[int]) -> "Deferred[None]":
        """Offline messages that were delivered."""

    def settle(ids: Sequence[int]) -> "Deferred[None]":
        """Deliveries that got their final answer."""

    def postpone(delivery: Delivery) -> "Deferred[None]":
        """Keep its ``attempts`` and ``next_try``."""

    def queued(after: int, limit: int) -> "Deferred[tuple[Delivery, ...]]":
        """Deliveries with a row number above ``after``, in its order, ``limit`` at the most."""

    def queued_count() -> "Deferred[int]":
        """How many deliveries wait."""


class ITraceStore(Interface):
    """What was noted about pushes (`xmpppush.trace`)."""

    def add(notes: "Sequence[tuple[Any, ...]]", limits: TraceLimits) -> "Deferred[None]":
        """Keep notes, with the fields of a `TraceNote` each, oldest first; some beyond the limits go."""

    def prune(limits: TraceLimits) -> "Deferred[None]":
        """Forget all that is beyond the limits."""

    def of(account: str, stories: int) -> "Deferred[tuple[TraceNote, ...]]":
        """
        The notes of the account's last ``stories`` stories, in the order they were added.

        Ordered behind every `add` called before it, though that may not have fired yet.
        """

    def story(trace: str) -> "Deferred[tuple[TraceNote, ...]]":
        """The notes of one story, in the same way."""


class IAuthenticator(Interface):
    """Accounts elsewhere: an LDAP, an HTTP service, ... The default is the account store."""

    def keys(jid: str, mechanism: str) -> "Deferred[ScramKeys | None]":
        """Keys for ``SCRAM-SHA-1`` or ``SCRAM-SHA-256``; ``None``: no such account, or not by SCRAM."""

    def check_password(jid: str, password: str) -> "Deferred[bool]":
        """Is that the password (SASL PLAIN, inside TLS)? False for an unknown account."""


class ISession(Interface):
    """A bound client connection as the server sees it."""

    jid = Attribute("Its full JID as a `JID`.")
    full = Attribute("Its full JID as text.")
    account = Attribute("Its bare JID as text.")
    resource = Attribute("Its resource.")
    priority = Attribute("Priority of its last available presence, ``None`` while unavailable.")
    presence = Attribute("Its last available presence stanza, ``None`` while unavailable.")
    interested = Attribute("Has it asked for the roster? Then it gets roster pushes (RFC 6121 section 2.2).")
    sm = Attribute("Its `StreamManagement`, ``None`` without.")
    managed = Attribute("Does its client acknowledge what it gets (XEP-0198)?")
    hibernated = Attribute("Its stream broke and may be resumed; what is sent waits for that.")
    answering = Attribute("False while its client owes an acknowledgement for longer than it may.")
    carbons = Attribute("Does it want copies of what other resources send and get (XEP-0280)?")
    active = Attribute("Does somebody look at the client, as far as it says (XEP-0352)?")

    def send(stanza: Element) -> None:
        """Send a stanza (elements of the stream's own namespace have uri ``None``)."""

    def send_xml(xml: str, what: object = None) -> None:
        """
        Send an already serialised stanza.

        Args:
            what: For `ISessionHost.acknowledged` and for the end of a session that is ``managed``: a
                message that is stored until then, or an `Element` to be answered if nobody gets it.
        """

    def flushed() -> "Deferred[bool]":
        """
        Fires with True when what was sent is on its way, with False when the session ends before.

        A client that acknowledges has then acknowledged enough to be sent more.
        """

    def close(condition: str, text: str = "") -> None:
        """
        End the stream with a stream error (RFC 6120 section 4.9.3), such as ``conflict``, and the session.
        """

    def hibernate() -> None:
        """Its stream broke: from now on it is ``hibernated``, for some time."""

    def unacknowledged() -> "list[Any]":
        """What its client did not acknowledge, in order, as `send_xml` was told what it is."""

    def end() -> "list[Any]":
        """The host forgets it; returns, for the last time, what is `unacknowledged`."""


class ISessionHost(Interface):
    """What client connections need of the server behind them."""

    domains = Attribute("Frozenset of the domains served.")

    def bind(session: ISession, account: str, resource: str | None) -> str:
        """
        Give a connection its resource (RFC 6120 section 7) and make it reachable.

        An asked-for resource that is taken ends the older session with ``conflict``.

        Returns:
            The resource, generated where none was asked for.

        Raises:
            BadStanza: The resource is no resource.
            LimitReached: The account has too many sessions.
        """

    def unbind(session: ISession) -> None:
        """The session is over; may be called twice."""

    def stanza(session: ISession, stanza: Element) -> "Deferred[Any] | None":
        """
        A stanza of a bound session, ``from`` stamped with its full JID.

        Errors are answered, never raised.

        Returns:
            ``None``, or what fires when the stanza, or what became of it, is on disk; it does not fail.
        """

    def enabled(session: ISession) -> None:
        """It is ``managed`` from now on, and may be resumed if its `StreamManagement` has an id."""

    def resumable(account: str, resumption_id: str) -> "tuple[ISession | None, int | None]":
        """
        The session of this id, and how many stanzas of its client were handled (XEP-0198 section 5).

        Returns:
            Without the session where it is over, without either where it never was one of this account.
        """

    def acknowledged(session: ISession, what: Sequence[object]) -> None:
        """The client has these, named as they were sent."""

    def resumed(session: ISession) -> None:
        """A broken stream goes on (XEP-0198 section 5)."""

    def broken(session: ISession) -> None:
        """The stream of a session that may be resumed broke: it is ``hibernated``."""

    def overdue(session: ISession) -> None:
        """The client is no longer ``answering``."""


class IPushPlugin(Interface):
    """
    The push decision (``[mod_push] plugin_module``). Methods left out behave like ``defaults``.

    All of them are called in the reactor's thread and once a message or more: they must not wait. One
    that raises is logged, and ``defaults`` decides on that message instead of the whole chain.

    An attribute ``push_on_broken_stream``, true, asks for a push as soon as a stream breaks that still owes
    messages, not only when its time to be resumed is over.
    """

    name = Attribute("The name that the configuration uses.")

    def should_publish(account: str, stanza: Element) -> bool | Importance:
        """
        Is this message, which no fitting session took, worth a push?

        A `Importance` also says why, for ``xmpppush push trace``, and whether it is urgent.
        """

    def prepare_notification(account: str, stanza: Element) -> Notification | None:
        """What the push says; ``None``: no push after all."""

    def publish_notification(
        account: str, notification: Notification, registrations: tuple[Registration, ...]
    ) -> tuple[Registration, ...]:
        """Which of the registrations get it."""


class INodeType(Interface):
    """
    A pubsub node type (``[mod_pubsub] plugins``).

    Its features and defaults say what its nodes can do: a request that needs a feature which the type does
    not have is refused with ``unsupported``, an access model ``x`` is offered where the feature ``access-x``
    is there, and an option is offered where it has a default.

    All of it is called in the reactor's thread, and must not wait.
    """

    name = Attribute("The name that ``<create type=''>`` uses.")
    features = Attribute("Tuple of XEP-0060 feature names, without the ``pubsub#`` prefix.")
    defaults = Attribute("Default node configuration: ``pubsub#...`` to value.")
    pushes = Attribute(
        "True: what is published are notifications, for a push service. False: items, for subscribers. "
        "May be left out, which is true."
    )

    def check_publish(node: Node, publish: Publish) -> None:
        """
        Of a type that ``pushes``: raises what is wrong with this publish.

        Any other type raises `InvalidPayload` here: mod_push of this process brings notifications only.
        """

    def check_item(node: Node, publisher: str, payload: Element | None) -> None:
        """
        Of a type that does not: raises what is wrong with this item; may be left out.

        Called when publisher (a bare JID), size and options are found to be right.
        """


class IPushService(Interface):
    """Where an app server's notifications go: the bridge to a MongoosePush, ..."""

    def prepare(publish: Publish, created: float) -> Delivery:
        """
        The request for this notification; pure.

        Raises:
            PreconditionNotMet: The options lack ``service`` or ``device_id``.
        """

    def enqueue(delivery: Delivery, first: "Callable[[PushError | None], None] | None" = None) -> None:
        """
        Take over a stored delivery: try it, again where that may help, and settle it.

        Args:
            first: Called with the outcome of the first try: ``None``, or `DeviceUnregistered`,
                `TryLater` (it stays queued), `Refused`.
        """


class IPushProvider(Interface):
    """A push service's way out: fcm, apns, sandbox, ..."""

    services = Attribute("Tuple of the service names that it takes.")

    def push(service: str, device_id: str, request: Mapping[str, object]) -> "Deferred[None]":
        """
        Send one notification, a validated v3 request of MONGOOSEPUSH.md without ``service``.

        Raises:
            DeviceUnregistered: The device is gone.
            TryLater: The provider is busy or unreachable.
            Refused: The provider finds the request wrong.
        """


class IPubSub(Interface):
    """The app server, as the XMPP server of the same process calls it."""

    hosts = Attribute("Frozenset of its domains.")

    def accept(publish: Publish) -> "Delivery | Deferred[Delivery]":
        """
        Check a publish and make the delivery of it; stores nothing.

        Returns:
            A Deferred only where the node is not in memory: awaiting what is there costs microseconds.

        Raises (or fails with):
            NodeNotFound: No such node.
            Forbidden: The sender may not publish there.
            PreconditionNotMet: The node's type wants other publish options.
            InvalidPayload: The node takes no notifications.
        """

    def offer(publish: Publish, answered: Callable[[BaseException | None], object]) -> bool:
        """
        Take a notification that another server published: check it, keep it, try it.

        Args:
            answered: Called once, at once or later: with ``None`` when it is through or at least on disk,
                or with why it is not taken, what `accept` raises and final answers of the push service.

        Returns:
            Whether it is for a node that is known here and now, and is for notifications. Where it is not,
            nothing was done, and a handler has to find out.
        """

    def answer_waiting() -> None:
        """Answer all that were offered and are on disk: their first try is not waited for any longer."""


class IAppDevices(Interface):
    """The devices that registered for an app, as the pubsub service asks for them before its own nodes."""

    def accept(publish: Publish) -> "Delivery | Deferred[Delivery | None] | None":
        """
        As `IPubSub.accept`; ``None``: there is no such device.

        Raises (or fails with), besides:
            TryLater: The publisher's domain sent too many.
        """

    def knows(host: str, node: str, options: Mapping[str, str]) -> "bool | Deferred[bool]":
        """Is what is published there, with these options, for a device of ours, and for no node?"""

    def is_renewed(delivery: Delivery) -> "bool | Deferred[bool]":
        """Did its device register again since it was made? Then the device is not gone, whoever says so."""

    def unregistered(delivery: Delivery) -> "Coroutine[Deferred[Any], Any, str]":
        """
        The push service says that the device is gone (410): forget it.

        Not one that registered again since the delivery was made: where that was with another token, the
        notification is sent to that.

        Returns:
            Bare JID of its owner where it was forgotten and that is known, else ``""``.
        """


class ITrace(Interface):
    """
    Where the parts say what they decide about a push, so that it can be explained afterwards.

    None of it waits or raises, and it is cheap enough for the hot path.
    """

    def begin() -> str:
        """The id of a new story: a message met a registration."""

    def note(trace: str, account: str, node: str, decision: str, reason: str = "", **fields: object) -> None:
        """
        Note something now.

        Args:
            trace: Id of the story.
            account: As in `TraceNote`, like all of these.
            decision: An `xmpppush.trace.Decision`.
            reason: One of `xmpppush.trace.REASONS`, or a text that is fit for a log.
            fields: Strings and numbers; no text of a message, no device token, no secret.
        """

    def flush() -> "Deferred[None]":
        """Fires when all that was noted can be read, as far as it could be stored."""


class IRouter(Interface):
    """Stanzas by the domain of their ``to``."""

    def route(stanza: Element) -> "Deferred[Any] | None":
        """
        Deliver it or answer the error; ``to`` and ``from`` are set and valid.

        Returns:
            As `ISessionHost.stanza`.
        """


class IPushDecider(Interface):
    """mod_push, as the XMPP server asks it about each message for one of its accounts."""

    push_on_broken_stream = Attribute(
        "Are pushes for unacknowledged messages wanted as soon as a stream breaks?"
    )

    def deliveries_for(
        account: str,
        stanza: Element,
        sessions: Mapping[str, ISession],
        pushed: Collection[tuple[str, str]] = (),
        have: Collection[str] = (),
    ) -> "Coroutine[Deferred[Any], Any, tuple[Delivery, ...]]":
        """
        The notifications that this message calls for, not stored yet.

        Args:
            sessions: The account's connected resources.
            pushed: Where it was decided on before: the pubsub JIDs and nodes of the registrations that were
                told of it. They get no other push, and their devices miss no other message.
            have: The resources that have the message by now, so that their devices need no push.
        """

    def enqueue(delivery: Delivery) -> None:
        """It is stored: send it."""

    def dropped(deliveries: Iterable[Delivery], error: Exception) -> None:
        """
        They are not sent after all.

        Args:
            error: Why neither they nor the message could be stored.
        """

    def device_back(account: str, resource: str) -> None:
        """The session of this resource gets messages (again): nothing is missed any more."""
