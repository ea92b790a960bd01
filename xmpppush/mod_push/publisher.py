"""Publishes to app servers (XEP-0357 section 7): from a message to the deliveries it calls for."""

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.coroutines import start
from xmpppush.errors import NodeNotFound, PushError, StorageError, TryLater
from xmpppush.interfaces import (
    IMessageStore,
    IPubSub,
    IPushDecider,
    IPushPlugin,
    IPushService,
    IRegistrationStore,
    ISession,
)
from xmpppush.jids import parse_jid
from xmpppush.mod_push.rules import redacted, to_notify
from xmpppush.model import Delivery, Notification, Publish, PushSummary, Registration

_EMPTY = Notification()


@implementer(IPushDecider)
class Publisher:
    """
    Decides on each message and publishes to the app servers of this process.

    Args:
        pubsub: The app server of this process, ``None`` where it has none. Others are reached over
            s2s or as components, which this version has not yet.
        push_service: Takes the stored deliveries.
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
        include_body: bool = True,
        include_sender: bool = True,
        max_errors: int = 10,
    ) -> None:
        self._registrations = registrations
        self._messages = messages
        self._plugin = plugin
        self._pubsub = pubsub
        self._push_service = push_service
        self._clock = clock
        self._notify = notify
        self._include_body = include_body
        self._include_sender = include_sender
        self._max_errors = max_errors
        self._unreachable: set[str] = set()

    async def deliveries_for(
        self, account: str, stanza: Element, sessions: Mapping[str, ISession]
    ) -> tuple[Delivery, ...]:
        registrations = await self._registrations.of(account)
        if not registrations:
            return ()
        registrations = to_notify(registrations, sessions, self._notify)
        if not registrations or not self._plugin.should_publish(account, stanza):
            return ()
        notification = self._plugin.prepare_notification(account, stanza)
        if notification is None:
            return ()
        registrations = self._plugin.publish_notification(account, notification, registrations)
        if not (self._include_body and self._include_sender):
            notification = redacted(notification, self._include_body, self._include_sender)
        deliveries = []
        for registration in registrations:
            try:
                deliveries.append(await self._accept(registration, notification))
            except PushError as error:
                # Not waited for: the sender's next message would overtake this one.
                start(self._publish_failed(registration, error), self._not_noted, registration)
            else:
                if registration.errors:
                    start(self._forget_errors(registration), self._not_noted, registration)
        return tuple(deliveries)

    async def _accept(self, registration: Registration, notification: Notification) -> Delivery:
        if self._pubsub is None or registration.pubsub not in self._pubsub.hosts:
            raise AppServerUnreachable(registration.pubsub)
        return await self._pubsub.accept(self._publish(registration, notification))

    def _publish(self, registration: Registration, notification: Notification) -> Publish:
        account = registration.account
        return Publish(
            sender=account.partition("@")[2],  # the server itself (XEP-0357 section 7)
            pubsub=registration.pubsub,
            node=registration.node,
            notification=notification,
            options=registration.options,
            account=account,
        )

    async def _forget_errors(self, registration: Registration) -> None:
        await self._registrations.forget_errors(registration.account, registration.pubsub, registration.node)

    def _not_noted(self, failure: Failure, registration: Registration) -> None:
        """The next push finds the same again."""
        if not failure.check(StorageError):  # said once by the storage
            self._log.failure(
                "outcome for node {node} could not be noted", failure=failure, node=registration.node
            )

    async def _publish_failed(self, registration: Registration, error: PushError) -> None:
        """
        XEP-0357 section 7: an error may disable a registration, a passing or local one must not.
        """
        if isinstance(error, AppServerUnreachable):
            # Ours to put right, and no reason to forget a device.
            if registration.pubsub not in self._unreachable and len(self._unreachable) < 1000:
                self._unreachable.add(registration.pubsub)
                self._log.warn(
                    "no way to app server {pubsub}: this version reaches those of its own process only",
                    pubsub=registration.pubsub,
                )
            return
        if isinstance(error, TryLater | StorageError):
            self._log.warn(
                "push for {account} to node {node} was not possible: {reason}",
                account=registration.account,
                node=registration.node,
                reason=str(error),
            )
            return
        if isinstance(error, NodeNotFound):
            if not await self._registrations.remove_same(registration):
                return
            self._log.info(
                "registration of {account} removed: {pubsub} has no node {node} any more",
                account=registration.account,
                pubsub=registration.pubsub,
                node=registration.node,
            )
            return
        errors = await self._registrations.count_error(
            registration.account, registration.pubsub, registration.node
        )
        if errors >= self._max_errors:
            await self._registrations.remove_same(registration)
        self._log.warn(
            "publish for {account} to node {node} refused ({errors} of {max_errors}): {reason}",
            account=registration.account,
            node=registration.node,
            errors=errors,
            max_errors=self._max_errors,
            reason=str(error) or type(error).__name__,
        )

    def enqueue(self, delivery: Delivery) -> None:
        assert self._push_service is not None
        self._push_service.enqueue(delivery)

    async def check(self, registration: Registration) -> None:
        """Warn, at enable, of a registration whose first push would fail; it is kept all the same."""
        try:
            await self._accept(registration, Notification(PushSummary(1, None, registration.account, "")))
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
        for registration in await self._registrations.of(delivery.account):
            if (
                (registration.pubsub, registration.node) == (delivery.pubsub, delivery.node)
                and registration.created <= delivery.created
                and self._is_device(registration, delivery)
                and await self._registrations.remove_same(registration)
            ):
                self._log.info(
                    "registration of {account} removed: push service says node {node}'s device is gone",
                    account=delivery.account,
                    node=delivery.node,
                )

    def _is_device(self, registration: Registration, delivery: Delivery) -> bool:
        """Is the delivery on its way to the device that the registration stands for?"""
        assert self._push_service is not None
        try:
            now = self._push_service.prepare(self._publish(registration, _EMPTY), delivery.created)
        except PushError:
            return False
        return (now.service, now.path) == (delivery.service, delivery.path)

    async def test(self, account: str, body: str | None) -> list[str]:
        """
        Send a test notification to every device of an account, over the real path.

        Returns:
            A line for each registration: its node and what became of it.
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
            try:
                delivery = await self._accept(registration, notification)
                (stored,) = await self._messages.keep(None, [delivery], 0)
                outcome = await self._first_outcome(stored)
            except PushError as error:
                outcome = error
            said = "the push service took it" if outcome is None else f"{type(outcome).__name__}: {outcome}"
            lines.append(f"{registration.pubsub} {registration.node}: {said}")
        return lines

    async def _first_outcome(self, delivery: Delivery) -> PushError | None:
        outcome: Deferred[PushError | None] = Deferred()
        assert self._push_service is not None
        self._push_service.enqueue(delivery, outcome.callback)
        return await outcome


class AppServerUnreachable(PushError):
    """The app server is in another process, or nowhere."""
