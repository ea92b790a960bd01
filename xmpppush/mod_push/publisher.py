"""Publishes to app servers (XEP-0357 section 7): from a message to the deliveries it calls for."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from os import urandom
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.batches import Batches
from xmpppush.coroutines import start
from xmpppush.errors import (
    AppServerUnreachable,
    DeliveryError,
    DeviceUnregistered,
    OfflineFull,
    PushError,
    StorageError,
    TryLater,
)
from xmpppush.http.outage import Outage
from xmpppush.interfaces import (
    IMessageStore,
    IPubSub,
    IPushDecider,
    IPushPlugin,
    IPushService,
    IRegistrationStore,
    IRosterStore,
    ISession,
    ITrace,
)
from xmpppush.jids import parse_jid
from xmpppush.mod_push.extensions import IV_SIZE, extended, left_out_by
from xmpppush.mod_push.privacy import DEFAULT_PRIVACY, Privacy
from xmpppush.mod_push.remote import RemoteAppServers
from xmpppush.mod_push.rules import (
    Verdict,
    all_active,
    counted,
    is_urgent,
    is_waiting,
    reads,
    sender_of,
    still_to_tell,
    to_notify,
    urgent,
    verdict_on,
    why_not_there,
)
from xmpppush.mod_push.workers import Workers
from xmpppush.model import (
    ACTIVE,
    REMOTE,
    SUSPENDED,
    Delivery,
    Importance,
    Notification,
    Publish,
    PushSummary,
    Registration,
)
from xmpppush.trace import NO_TRACE, Decision, node_name, told
from xmpppush.xep.push import revoked_nodes

# How often counts of missed messages are written, in seconds, and how many at a time: each is a row
# somewhere in a large table, 10 to 40 microseconds, so they are not written with their push. What a crash
# costs is a number on an app's icon.
SAVE_MISSED_AFTER = 5.0
SAVED_AT_ONCE = 500
MAX_REASON = 200
MAX_IN_TRACE = 100  # characters of a stanza id or an address

DECISIONS = ("push", "online", "filtered", "suspended", "unreachable", "refused")
_EMPTY = Notification()
_PLUGIN = Importance(True, "plugin")


@implementer(IPushDecider)
class Publisher:
    """
    Decides on each message and publishes to the app servers of this process.

    Args:
        pubsub: The app server of this process, ``None`` where it has none.
        push_service: Takes the stored deliveries.
        max_errors: Errors in a row that suspend a registration.
        suspend_retry: Seconds until a suspended one is tried again.
        batch_window: Seconds, see `Batches`; ``0.0``: every push at once.
        notify_inactive: Is an urgent message pushed to a connected device, too, whose client is inactive?
        trace: Told of each decision about a message that a registration concerns.
        virtual_hosts: Pubsub hosts that there are not: what would be published to any node of them goes
            straight to the push service, by the options given at enable.
        rosters: Who is unknown to an account, for registrations that ask.
        random_octets: Makes so many of them, for encryption.
        remote: The way to app servers elsewhere, ``None`` where there is none.

    Attributes:
        decisions: How many registrations that a message concerned got a ``push``, or did not: ``online``,
            their device reads the message itself; ``filtered``, it is no message to push, or a plugin
            left them out; ``suspended``, they wait for a later try; ``unreachable``, there is no way to
            the app server; ``refused``, it answered with an error.
    """

    _log = Logger()

    def __init__(
        self,
        registrations: IRegistrationStore,
        messages: IMessageStore,
        plugin: IPushPlugin,
        pubsub: IPubSub | None,
        push_service: IPushService | None,
        clock: IReactorTime,
        notify: str = "device-offline",
        privacy: Privacy = DEFAULT_PRIVACY,
        max_errors: int = 10,
        suspend_retry: float = 86400.0,
        batch_window: float = 0.0,
        notify_inactive: bool = False,
        trace: ITrace = NO_TRACE,
        workers: int = 100,
        virtual_hosts: Iterable[str] = (),
        rosters: IRosterStore | None = None,
        random_octets: Callable[[int], bytes] = urandom,
        remote: RemoteAppServers | None = None,
    ) -> None:
        self._registrations = registrations
        self._messages = messages
        self._plugin = plugin
        self.push_on_broken_stream = bool(getattr(plugin, "push_on_broken_stream", False))
        self._pubsub = pubsub
        self._push_service = push_service
        self._clock = clock
        self._notify = notify
        self._notify_inactive = notify_inactive
        self._privacy = privacy
        self._max_errors = max_errors
        self._suspend_retry = suspend_retry
        self._batches = Batches(batch_window, clock, self._send, self._drop) if batch_window else None
        self._trace = trace
        self._workers = Workers(workers)
        self._virtual_hosts = frozenset(virtual_hosts)
        self._rosters = rosters
        self._random_octets = random_octets
        self._remote = remote
        if remote is not None:
            remote.told = self._remote_told
        self._unreachable: set[str] = set()
        self._outages: dict[str, Outage] = {}  # by pubsub JID, of those that had one
        self._saving: IDelayedCall | None = None
        self.decisions: Counter[str] = Counter(dict.fromkeys(DECISIONS, 0))

    async def deliveries_for(
        self,
        account: str,
        stanza: Element,
        sessions: Mapping[str, ISession],
        pushed: Collection[tuple[str, str]] = (),
        have: Collection[str] = (),
    ) -> tuple[Delivery, ...]:
        enabled = self._registrations.known(account)
        if enabled is None:
            enabled = await self._registrations.of(account)
        told_before: Sequence[Registration] = ()
        if pushed or have:
            told_before = [each for each in enabled if (each.pubsub, each.node) in pushed]
            enabled = still_to_tell(enabled, pushed, have, self._notify)
        if not enabled:
            return ()
        attributes = stanza.attributes
        publisher, any_suspended = attributes.get("from"), False
        for registration in enabled:
            if registration.pubsub == publisher and self._is_revocation(account, publisher, stanza):
                return ()
            if registration.state != ACTIVE:
                any_suspended = True
        trace = self._trace.begin()
        note = partial(
            self._trace.note,
            trace,
            account,
            sender=sender_of(stanza)[:MAX_IN_TRACE],
            message=attributes.get("id", "")[:MAX_IN_TRACE],
        )
        for registration in told_before:
            note(registration.node, Decision.FILTERED, "told-before")
        registrations = to_notify(enabled, sessions, self._notify)
        importance: bool | Importance | None = None
        asleep: Sequence[Registration] = ()
        if len(registrations) < len(enabled) and self._notify_inactive and not all_active(sessions):
            importance = self._plugin.should_publish(account, stanza)
            if is_urgent(importance):
                absent, registrations = registrations, to_notify(enabled, sessions, self._notify, True)
                asleep = left_out(registrations, absent)
        if len(registrations) < len(enabled):
            why = "account-online" if self._notify == "account-offline" else "device-online"
            self.decisions["online"] += len(enabled) - len(registrations)
            for registration in left_out(enabled, registrations):
                resource = registration.resource
                if self._notify == "account-offline":
                    resource = next((name for name, each in sessions.items() if reads(each)), "")
                note(registration.node, Decision.ONLINE, why, resource=resource)
            if not registrations:
                return ()
        if importance is None:
            importance = self._plugin.should_publish(account, stanza)
        if not importance:
            self.decisions["filtered"] += len(registrations)
            note("", Decision.FILTERED, getattr(importance, "reason", "plugin"))
            return ()
        notification = self._plugin.prepare_notification(account, stanza)
        if notification is None:
            self.decisions["filtered"] += len(registrations)
            note("", Decision.FILTERED, "plugin")
            return ()
        if any_suspended:
            waiting, registrations = registrations, self._without_waiting(registrations)
            self.decisions["suspended"] += len(waiting) - len(registrations)
            for registration in left_out(waiting, registrations):
                next_try = registration.next_try
                note(registration.node, Decision.SUSPENDED, registration.reason, until=next_try)
        wanted = self._plugin.publish_notification(account, notification, registrations)
        if len(wanted) < len(registrations):
            self.decisions["filtered"] += len(registrations) - len(wanted)
            for registration in left_out(registrations, wanted):
                note(registration.node, Decision.FILTERED, "plugin")
        at_once = False
        if type(importance) is Importance and importance.urgent:
            at_once = True
            notification = urgent(notification)
        notification = self._privacy.applied_to(notification)
        deliveries = []
        for registration in wanted:
            says = counted(notification, self._registrations.count_missed(registration))
            if registration.extensions is not None:
                asked = await self._as_asked_for(registration, says, stanza, importance)
                if isinstance(asked, str):
                    self.decisions["filtered"] += 1
                    note(registration.node, Decision.FILTERED, asked)
                    continue
                says = asked
            try:
                accepted = self._accept(registration, says, trace)
                delivery = accepted if isinstance(accepted, Delivery) else await accepted
            except PushError as error:
                self.decisions["unreachable" if isinstance(error, AppServerUnreachable) else "refused"] += 1
                note(registration.node, Decision.NOT_PUBLISHED, told(error))
                # Not waited for: the sender's next message would overtake this one.
                start(self._publish_failed(registration, error, trace), self._not_noted, registration)
                continue
            if self._outages:
                self._is_well(registration.pubsub)
            self.decisions["push"] += 1
            why = "no-session"
            if sessions:
                why = why_not_there(sessions.get(registration.resource))
                if registration in asleep:
                    why = "device-inactive"
            note(registration.node, Decision.ACCEPTED, why)
            if registration.errors and not delivery.service.startswith(REMOTE):
                start(self._succeeded(registration, trace), self._not_noted, registration)
            if self._batches is not None and not at_once:
                delivery = self._batches.place(delivery)
                if delivery.next_try:
                    note(registration.node, Decision.BATCHED, "burst")
            deliveries.append(delivery)
        if self._saving is None:
            self._save_soon()
        return tuple(deliveries)

    async def _as_asked_for(
        self,
        registration: Registration,
        notification: Notification,
        stanza: Element,
        importance: bool | Importance,
    ) -> Notification | str:
        """The notification in the registration's own way, or why its own filters are against it."""
        extensions, account = registration.extensions, registration.account
        assert extensions is not None
        why = importance if isinstance(importance, Importance) else _PLUGIN
        roster: frozenset[str] | None = None
        if extensions.ignore_unknown and self._rosters is not None:
            roster = frozenset(item.jid for item in await self._rosters.get(account)) | {account}
        against = left_out_by(extensions, stanza, why, roster)
        return against or extended(notification, extensions, stanza, why, self._random_octets(IV_SIZE))

    def dropped(self, deliveries: Iterable[Delivery], error: Exception) -> None:
        reason = "offline-full" if isinstance(error, OfflineFull) else told(error)
        for delivery in deliveries:
            self._trace.note(delivery.trace, delivery.account, delivery.node, Decision.NOT_STORED, reason)

    def _without_waiting(self, registrations: tuple[Registration, ...]) -> tuple[Registration, ...]:
        """Those that are not suspended; the others' devices miss the message all the same."""
        now = self._clock.seconds()
        waiting = [each for each in registrations if is_waiting(each, now, self._suspend_retry)]
        for registration in waiting:
            self._registrations.count_missed(registration)
        return tuple(registration for registration in registrations if registration not in waiting)

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = self._clock.callLater(SAVE_MISSED_AFTER, self._save_missed)

    def _save_missed(self) -> None:
        self._saving = None
        start(self._save_some(), self._count_failed)

    async def _save_some(self) -> None:
        if await self._registrations.save_missed(SAVED_AT_ONCE):
            self._save_soon()

    def _is_revocation(self, account: str, pubsub: str, stanza: Element) -> bool:
        """XEP-0357 section 8: does the app server say that a node is nothing for this account any more?"""
        nodes = revoked_nodes(stanza, account)
        for node in nodes:
            start(self._revoke(account, pubsub, node), self._not_noted, Registration(account, pubsub, node))
        return bool(nodes)

    async def _revoke(self, account: str, pubsub: str, node: str) -> None:
        if await self._registrations.remove(account, pubsub, node):
            self._trace.note(self._trace.begin(), account, node, Decision.REMOVED, "app-server")
            self._log.info(
                "registration of {account} removed: {pubsub} disabled node {node}",
                account=account,
                pubsub=pubsub,
                node=node,
            )

    def _accept(
        self, registration: Registration, notification: Notification, trace: str = ""
    ) -> Delivery | Awaitable[Delivery]:
        """The delivery, or what to await where that takes time: then it takes a worker, too."""
        if self._pubsub is None or registration.pubsub not in self._pubsub.hosts:
            if registration.pubsub in self._virtual_hosts and self._push_service is not None:
                publish = self._publish(registration, notification, trace)
                delivery: Delivery = self._push_service.prepare(publish, self._clock.seconds())
                return delivery
            if self._remote is None:
                raise AppServerUnreachable(f"no way to {registration.pubsub}")
            return self._remote.delivery(self._publish(registration, notification, trace))
        publish = self._publish(registration, notification, trace)
        if not self._workers.free:
            return self._accept_later(self._pubsub, publish)
        accepted = self._pubsub.accept(publish)
        if isinstance(accepted, Delivery):
            return accepted
        self._workers.free -= 1
        return accepted.addBoth(self._worker_done)

    async def _accept_later(self, pubsub: IPubSub, publish: Publish) -> Delivery:
        await self._workers.turn()
        self._workers.free -= 1
        try:
            accepted = pubsub.accept(publish)
            return await accepted if isinstance(accepted, Deferred) else accepted
        finally:
            self._workers.done()

    def _worker_done(self, result: Any) -> Any:
        self._workers.done()
        return result

    def _publish(self, registration: Registration, notification: Notification, trace: str = "") -> Publish:
        account = registration.account
        return Publish(
            sender=account.partition("@")[2],  # the server itself (XEP-0357 section 7)
            pubsub=registration.pubsub,
            node=registration.node,
            notification=notification,
            options=registration.options,
            account=account,
            trace=trace,
        )

    def _is_well(self, pubsub: str) -> None:
        outage = self._outages.get(pubsub)
        lasted = outage.succeeded(self._clock.seconds()) if outage is not None else None
        if lasted is not None:
            self._log.info(
                "app server {pubsub} takes pushes again after {seconds} s",
                pubsub=pubsub,
                seconds=round(lasted, 1),
            )

    def _remote_told(self, account: str, pubsub: str, node: str, refusal: str | None) -> None:
        """What an app server elsewhere made of a publish that it got."""
        known = self._registrations.known(account) if refusal is None else None
        if known is not None and not any(
            each.errors for each in known if (each.pubsub, each.node) == (pubsub, node)
        ):
            return
        start(
            self._note_remote(account, pubsub, node, refusal),
            self._not_noted,
            Registration(account, pubsub, node),
        )

    async def _note_remote(self, account: str, pubsub: str, node: str, refusal: str | None) -> None:
        for registration in await self._registrations.of(account):
            if (registration.pubsub, registration.node) == (pubsub, node):
                if refusal is not None:
                    await self._publish_failed(registration, PushError(refusal), self._trace.begin())
                elif registration.errors:
                    await self._succeeded(registration, self._trace.begin())

    async def _succeeded(self, registration: Registration, trace: str) -> None:
        account, node = registration.account, registration.node
        await self._registrations.forget_errors(account, registration.pubsub, node)
        if registration.state == SUSPENDED:
            self._trace.note(trace, account, node, Decision.REVIVED, "published")
            self._log.info(
                "registration of {account} for node {node} works again", account=account, node=node
            )

    def _not_noted(self, failure: Failure, registration: Registration) -> None:
        """The next push finds the same again."""
        if not failure.check(StorageError):  # said once by the storage
            self._log.failure(
                "outcome for node {node} could not be noted", failure=failure, node=registration.node
            )

    async def _publish_failed(self, registration: Registration, error: PushError, trace: str) -> None:
        """
        XEP-0357 section 7: an error may disable a registration, a passing or local one must not.
        """
        if isinstance(error, AppServerUnreachable):
            # Ours to put right, and no reason to forget a device.
            if registration.pubsub not in self._unreachable and len(self._unreachable) < 1000:
                self._unreachable.add(registration.pubsub)
                self._log.warn(
                    "no way to app server {pubsub}: it is none of this process, nor an attached component",
                    pubsub=registration.pubsub,
                )
            return
        verdict = verdict_on(error)
        reason = (str(error) or type(error).__name__)[:MAX_REASON]
        if verdict is Verdict.PASSING:
            if isinstance(error, StorageError):
                return  # said once by the storage
            outage = self._outages.setdefault(registration.pubsub, Outage())
            if outage.failed(reason, self._clock.seconds()):
                self._log.warn(
                    "app server {pubsub} takes no pushes: {reason}; those of this time are lost",
                    pubsub=registration.pubsub,
                    reason=reason,
                )
            return
        if verdict is Verdict.GONE:
            if not await self._remove(registration, trace, "node-gone"):
                return
            self._log.info(
                "registration of {account} removed: {pubsub} has no node {node} any more",
                account=registration.account,
                pubsub=registration.pubsub,
                node=registration.node,
            )
            return
        key = (registration.account, registration.pubsub, registration.node)
        errors = await self._registrations.count_error(*key)
        self._log.warn(
            "publish for {account} to node {node} refused ({errors} of {max_errors}): {reason}",
            account=registration.account,
            node=registration.node,
            errors=errors,
            max_errors=self._max_errors,
            reason=reason,
        )
        if errors >= self._max_errors:
            next_try = self._clock.seconds() + self._suspend_retry
            await self._registrations.suspend(*key, reason, next_try)
            self._trace.note(
                trace, registration.account, registration.node, Decision.DISABLED, "errors", until=next_try
            )
            self._log.warn(
                "registration of {account} for node {node} suspended; the next try is in {seconds} s",
                account=registration.account,
                node=registration.node,
                seconds=self._suspend_retry,
            )

    def device_back(self, account: str, resource: str) -> None:
        start(self._device_back(account, resource), self._count_failed)

    async def _device_back(self, account: str, resource: str) -> None:
        if await self._registrations.device_back(account, resource):
            self._save_soon()
        if self._batches is not None:
            for registration in await self._registrations.of(account):
                if registration.resource == resource:
                    self._batches.forget((account, registration.pubsub, registration.node))

    def _count_failed(self, failure: Failure) -> None:
        if not failure.check(StorageError):  # said once by the storage
            self._log.failure("what devices missed could not be noted", failure)

    async def _remove(self, registration: Registration, trace: str, reason: str) -> bool:
        removed = await self._registrations.remove_same(registration)
        if removed:
            self._trace.note(trace, registration.account, registration.node, Decision.REMOVED, reason)
        return removed

    def enqueue(self, delivery: Delivery) -> None:
        if delivery.next_try and self._batches is not None:
            self._batches.hold(delivery)
        else:
            self._send(delivery)

    def _drop(self, ids: Sequence[int]) -> None:
        # A row that stays is sent after the next start, which is better than none.
        self._messages.settle(ids).addErrback(lambda _: None)

    def _send(self, delivery: Delivery) -> None:
        assert self._push_service is not None
        self._push_service.enqueue(delivery)

    async def check(self, registration: Registration) -> None:
        """Warn, at enable, of a registration whose first push would fail; it is kept all the same."""
        try:
            summary = PushSummary(1, None, registration.account, "")
            accepted = self._accept(registration, Notification(summary))
            if not isinstance(accepted, Delivery):
                await accepted
        except PushError as error:
            self._log.warn(
                "{account} enabled node {node} of {pubsub}, which will get no push: {reason}",
                account=registration.account,
                node=registration.node,
                pubsub=registration.pubsub,
                reason=str(error) or type(error).__name__,
            )

    def unregistered(self, delivery: Delivery) -> "Deferred[None]":
        """
        The push service says that the device is gone (410): so is its registration.

        Not the one of a device that took over the node since, nor one enabled anew while the delivery
        waited for its turn: should that be gone, too, its next push says so.
        """
        return Deferred.fromCoroutine(self._unregistered(delivery))

    async def _unregistered(self, delivery: Delivery) -> None:
        elsewhere = delivery.service.startswith(REMOTE)
        for registration in await self._registrations.of(delivery.account):
            if (
                (registration.pubsub, registration.node) == (delivery.pubsub, delivery.node)
                and registration.created <= delivery.created
                and await self._is_device(registration, delivery)
                and await self._remove(
                    registration, delivery.trace, "node-gone" if elsewhere else "device-gone"
                )
            ):
                self._log.info(
                    "registration of {account} removed: {pubsub} has no node {node} any more"
                    if elsewhere
                    else "registration of {account} removed: push service says node {node}'s device is gone",
                    pubsub=delivery.pubsub,
                    account=delivery.account,
                    node=delivery.node,
                )

    async def _is_device(self, registration: Registration, delivery: Delivery) -> bool:
        """Is the delivery on its way to the device that the registration stands for?"""
        assert self._push_service is not None
        try:
            if "@" in delivery.service:  # only the app server knows which device that is
                accepted = self._accept(registration, _EMPTY)
                now = accepted if isinstance(accepted, Delivery) else await accepted
            else:
                now = self._push_service.prepare(self._publish(registration, _EMPTY), delivery.created)
        except PushError:
            return False
        return (now.service, now.path) == (delivery.service, delivery.path)

    async def test(self, account: str, body: str | None) -> list[tuple[str, bool]]:
        """
        Send a test notification to every device of an account, over the real path.

        Returns:
            For each registration a line, its node and what became of it, and whether the push service took
            it.
        """
        account = parse_jid(account).userhost()
        notification = Notification(
            PushSummary(
                message_count=1,
                last_message_sender=parse_jid(account).host,
                last_message_body=body or "Test notification",
            )
        )
        lines = []
        for registration in await self._registrations.of(account):
            outcome: PushError | None
            trace = self._trace.begin()
            try:
                accepted = self._accept(registration, notification, trace)
                delivery = accepted if isinstance(accepted, Delivery) else await accepted
                self._trace.note(trace, account, registration.node, Decision.ACCEPTED, "test")
                (stored,) = await self._messages.keep(None, [delivery], 0)
                outcome = await self._first_outcome(stored)
            except PushError as error:
                self._trace.note(trace, account, registration.node, Decision.NOT_PUBLISHED, told(error))
                outcome = error
            name = node_name(registration.node)
            lines.append((f"{registration.pubsub} {name}: {_became(outcome)}", outcome is None))
        return lines

    async def _first_outcome(self, delivery: Delivery) -> PushError | None:
        outcome: Deferred[PushError | None] = Deferred()
        assert self._push_service is not None
        self._push_service.enqueue(delivery, outcome.callback)
        return await outcome


def _became(outcome: PushError | None) -> str:
    """What became of a test notification, for the operator who sent it."""
    if outcome is None:
        return "the push service took it"
    why = told(outcome)
    match outcome:
        case TryLater():
            return f"not yet: {why}; it waits, and 'push trace' tells what becomes of it"
        case DeviceUnregistered():
            return f"the push service does not know the device any more: {why}"
        case DeliveryError():
            return f"the push service did not take it: {why}"
        case _:
            return f"the app server did not take it: {why}"


def left_out(before: Iterable[Registration], after: Iterable[Registration]) -> list[Registration]:
    """Those that a decision took out."""
    left = {(registration.pubsub, registration.node) for registration in after}
    return [each for each in before if (each.pubsub, each.node) not in left]
