"""Frozen values that the roles share. They know no reactor, no store and no XML."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import field, frozen

if TYPE_CHECKING:
    from attrs import frozen as quick
else:
    from functools import partial

    from attrs import define

    # Made by the dozen for each push: attrs' way of freezing makes that four times as slow. mypy sees
    # them frozen and holds everybody to it.
    quick = partial(define, unsafe_hash=True)

NOTHING: Mapping[str, str] = MappingProxyType({})

# States of a registration.
ACTIVE, SUSPENDED = "active", "suspended"


@frozen
class ScramKeys:
    """
    What a server keeps of a password (RFC 5802 section 3); the password itself is nowhere.

    Attributes:
        salt, stored_key, server_key: Raw octets.
        iterations: How often the hash was applied, 4096 or more.
    """

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@frozen
class Account:
    """
    A local account.

    Attributes:
        jid: Bare JID, prepared (lower case).
        keys: ``SCRAM-SHA-1`` and ``SCRAM-SHA-256`` to their keys.
        created: Seconds since the epoch.
    """

    jid: str
    keys: Mapping[str, ScramKeys] = field(repr=False)
    created: float = 0.0


@frozen
class Room:
    """What a device wants of a room: ``always``, ``mentioned`` (its ``nick`` is) or ``never``."""

    allow: str
    nick: str = ""


@frozen
class Extensions:
    """
    What Tigase's elements in ``<enable/>`` ask for (`xmpppush.xep.tigase`).

    Attributes:
        key: 16 octets for AES-128-GCM, ``b""``: nothing is encrypted.
        max_size: Octets that are encrypted at the most.
        priority: It wants to be told how urgent a notification is.
        muted: Bare JIDs of whom it wants none.
        ignore_unknown: It wants none of people who are not in the roster.
        rooms: Rooms that it wants some of; ``None``: of all of them.
        jingle: It can ring.
    """

    key: bytes = field(default=b"", repr=False)
    max_size: int = 3000
    priority: bool = False
    muted: frozenset[str] = frozenset()
    ignore_unknown: bool = False
    rooms: Mapping[str, Room] | None = None
    jingle: bool = False


@frozen
class Call:
    """A call, as Tigase's notifications tell of it: which step, which call, audio or video."""

    action: str
    sid: str
    media: tuple[str, ...] = ()


@frozen
class Encrypted:
    """What only the device can read: both in base64, the tag at the text's end."""

    iv: str
    text: str = field(repr=False)
    voip: bool = False


@frozen
class PushExtras:
    """
    What of Tigase's is in a notification.

    Attributes:
        priority: ``high``, ``low`` or ``""``.
        encrypted: In place of the summary.
    """

    priority: str = ""
    call: Call | None = None
    encrypted: Encrypted | None = None


@frozen
class Registration:
    """
    One enabled push target of one account (XEP-0357 section 5).

    Attributes:
        account: Bare JID of the user.
        pubsub: JID of the app server's pubsub service, without resource.
        node: Node there, not empty, opaque to us.
        options: The publish-options form without its FORM_TYPE, ``var`` to first value, ``""`` for an
            empty field. Holds the device token and the secret: never in logs or ``repr``.
        resource: Resource of the session that enabled it: the device this registration stands for.
        created: Seconds since the epoch, of the last enable.
        errors: Publish errors in a row.
        state: `ACTIVE`, or `SUSPENDED` until ``next_try``; one that was removed is no row any more.
        reason: Why it is suspended, ``""`` while it is not.
        next_try: When a suspended one is tried again, seconds since the epoch.
        missed: Messages that called for a push since the device was last there, as of the last save.
        extensions: Its own wishes, in Tigase's words; ``None``: none.
    """

    account: str
    pubsub: str
    node: str
    options: Mapping[str, str] = field(default=NOTHING, repr=False)
    resource: str = ""
    created: float = 0.0
    errors: int = 0
    state: str = ACTIVE
    reason: str = ""
    next_try: float = 0.0
    missed: int = 0
    extensions: Extensions | None = None


@frozen
class Importance:
    """
    Is this message a push? True or false itself, with the reason for who asks afterwards.

    Attributes:
        push: Yes or no.
        reason: A word or two with hyphens, such as ``chat-state``; never anything of the message.
        urgent: Somebody waits for an answer now (a call): it shall wake the device and is not batched.
    """

    push: bool
    reason: str
    urgent: bool = False

    def __bool__(self) -> bool:
        return self.push


@quick
class PushSummary:
    """
    The summary form of a notification (XEP-0357 section 7, ``urn:xmpp:push:summary``).

    A field that is missing, empty or nonsense is ``None``.
    """

    message_count: int | None = None
    pending_subscription_count: int | None = None
    last_message_sender: str | None = None
    last_message_body: str | None = field(default=None, repr=False)


@quick
class Notification:
    """
    What is published to a push node: the content of ``<notification xmlns='urn:xmpp:push:0'/>``.

    Attributes:
        summary: The fields XEP-0357 names.
        extra: Further fields of the summary form, ``var`` to first value; a plugin may add its own.
        extras: What of Tigase's is beside the form.
    """

    summary: PushSummary = PushSummary()
    extra: Mapping[str, str] = field(default=NOTHING, repr=False)
    extras: PushExtras | None = None


@quick
class Route:
    """
    How the app that a device belongs to has its notifications sent; the operator's word, not a client's.

    Attributes:
        app: Name of its ``[app:NAME]``.
        tags: Pools of the push service.
        data: Fields that the app finds in the notification.
    """

    app: str
    tags: tuple[str, ...] = ()
    data: Mapping[str, str] = field(default=NOTHING, repr=False)


@quick
class Publish:
    """
    A notification on its way to an app server (XEP-0357 section 7).

    Attributes:
        sender: Bare JID or domain that publishes: the user's server.
        pubsub: JID of the pubsub service.
        node: Node there.
        options: The publish-options, as in `Registration.options`.
        account: Bare JID whose registration this is, ``""`` where a foreign server publishes.
        trace: Id of its story (`ITrace`), ``""``: none.
        route: Of a device that registered for an app.
    """

    sender: str
    pubsub: str
    node: str
    notification: Notification
    options: Mapping[str, str] = field(default=NOTHING, repr=False)
    account: str = ""
    trace: str = ""
    route: Route | None = None


@quick
class Delivery:
    """
    A notification for one device, ready for the push service: a row of the durable queue.

    Attributes:
        id: Number of its row, ``0`` before it is stored.
        account, pubsub, node: As in `Publish`.
        service: ``fcm``, ``apns`` or whatever the registration named; ``fcm@NAME`` of an ``[app:NAME]``.
        path: Request path with version and percent-encoded device id (a secret).
        body: The JSON, UTF-8.
        created: Seconds since the epoch when the message was accepted.
        attempts: How many tries failed so far.
        next_try: Seconds since the epoch; ``0.0``, or less: at once.
        trace: As in `Publish`.
    """

    id: int
    account: str
    pubsub: str
    node: str
    service: str
    path: str = field(repr=False)
    body: bytes = field(repr=False)
    created: float
    attempts: int = 0
    next_try: float = 0.0
    trace: str = ""


REMOTE = "xmpp@"
"""What `Delivery.service` begins with where an app server elsewhere is to get it; its host follows."""


@quick
class OfflineMessage:
    """
    A message that waits for its account (XEP-0160).

    Attributes:
        id: Number of its row, ``0`` before it is stored.
        account: Bare JID it is for.
        xml: The stanza as it will be sent, ``<delay/>`` (XEP-0203) included, without namespace
            declaration for the stream's own namespace.
        created: Seconds since the epoch.
        push_due: A session is getting it, and the devices behind it had no push for it.
    """

    id: int
    account: str
    xml: str = field(repr=False)
    created: float
    push_due: bool = False


@frozen
class Node:
    """
    A pubsub node (XEP-0060).

    Attributes:
        host: Domain of the pubsub service.
        name: NodeID, not empty.
        type: Name of its `INodeType`, such as ``push``.
        owner: Bare JID of its creator.
        config: Options of ``pubsub#node_config`` that differ from the type's defaults, ``var``
            (with ``pubsub#``) to value, as strings; booleans are ``1`` and ``0``.
        affiliations: Bare JID or domain to ``owner``, ``publisher``, ``publish-only``, ``member``
            or ``outcast``; ``none`` is no entry.
    """

    host: str
    name: str
    type: str
    owner: str
    config: Mapping[str, str] = NOTHING
    affiliations: Mapping[str, str] = NOTHING
    created: float = 0.0


@frozen
class Device:
    """
    A device that registered with the app server for an app (docs/registration.rst).

    Attributes:
        host: JID that it registered with.
        node: Random; where its notifications are published to.
        app: Name of the ``[app:NAME]``.
        way: How it registered: ``p2``, ``appserver`` or ``tigase``.
        key: Hash of who registered which device; a repeat is recognised by it.
        owner: Hash of the bare JID that registered it.
        publisher: Hash of the bare JID that publishes: the owner's, or that of a room.
        domain: Domain of that JID, whose server publishes.
        token: The push service knows it by that.
        secret: Random, given to the owner alone; ``""``: this way has none.
        data: What its app wants to find in each notification.
        created, renewed: First and last registration, seconds since the epoch.
        account: Bare JID of the owner, where the app keeps it; ``""``: nobody can be told of anything.
    """

    host: str
    node: str
    app: str
    way: str
    key: str
    owner: str
    publisher: str
    domain: str
    token: str = field(repr=False)
    secret: str = field(default="", repr=False)
    data: Mapping[str, str] = field(default=NOTHING, repr=False)
    created: float = 0.0
    renewed: float = 0.0
    account: str = ""


@frozen
class Subscription:
    """
    Somebody who is told of what happens at a node (XEP-0060 section 6.1). One for each JID and node.

    Attributes:
        host, node: As in `Node`.
        jid: Where the events go: bare, or with a resource.
        account: ``jid`` without its resource.
        state: ``subscribed``, or ``pending`` until an owner decides.
        options: Options of ``pubsub#subscribe_options`` that differ from the default.
    """

    host: str
    node: str
    jid: str
    account: str
    state: str = "subscribed"
    options: Mapping[str, str] = NOTHING
    created: float = 0.0


@frozen
class Item:
    """
    What was published to a node that keeps items (XEP-0060 section 7.1).

    Attributes:
        id: ItemID, unique in its node.
        publisher: Bare JID.
        payload: XML that declares its namespaces itself, ``""`` for none.
        created: Seconds since the epoch.
    """

    id: str
    publisher: str
    payload: str = field(default="", repr=False)
    created: float = 0.0


@frozen
class RosterItem:
    """A contact (RFC 6121 section 2.1): bare JID, name, groups and subscription state."""

    jid: str
    name: str = ""
    groups: tuple[str, ...] = ()
    subscription: str = "none"


@frozen
class SandboxNotification:
    """
    What a phone would have got from FCM or APNs, kept by the sandbox provider.

    Attributes:
        content: The provider's own JSON structure.
        received: Seconds since the epoch.
    """

    service: str
    device_id: str = field(repr=False)
    mode: str
    content: Mapping[str, Any] = field(repr=False)
    received: float


class TraceNote(NamedTuple):
    """
    One thing that was decided about a push, or happened to it (`xmpppush.trace`).

    Attributes:
        trace: Id of the story it belongs to.
        at: Seconds since the epoch.
        account: Bare JID; the pubsub JID where a foreign server published.
        node: The registration's, ``""`` where it is about the message as such.
        decision: An `xmpppush.trace.Decision`; a newer xmpppush may have written others.
        reason: One of `xmpppush.trace.REASONS`, or a text.
        fields: ``sender`` and ``message`` (its stanza id) of a message; ``service``, ``attempt`` (which
            try, from 1) and ``delay`` (seconds to the next one) of a try at the push service.
    """

    trace: str
    at: float
    account: str
    node: str
    decision: str
    reason: str = ""
    fields: Mapping[str, Any] = NOTHING


@frozen
class TraceLimits:
    """
    How much of the trace is kept.

    Attributes:
        oldest: Seconds since the epoch; notes from before go.
        max_notes: The most that stay, about.
    """

    oldest: float
    max_notes: int
