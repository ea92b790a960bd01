"""
The bridge at work: deliveries in flight, those that wait for another try, and the queue on disk.

Every delivery is a row in the store until it has its final answer. In memory are at most ``capacity`` of
them; what does not fit is left on disk and fetched when there is room, in the same way as everything is
fetched at start. So a restart, a long outage and a full memory are one case.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.config.sections import BridgeSection
from xmpppush.errors import (
    DeliveryError,
    DeviceUnregistered,
    GivenUp,
    PushError,
    StorageError,
    TryLater,
)
from xmpppush.http.outage import Outage
from xmpppush.http_connections import HTTPPool, Response
from xmpppush.interfaces import IMessageStore, IPushService
from xmpppush.mod_push_service_mongoosepush.outcomes import outcome_of
from xmpppush.mod_push_service_mongoosepush.payload import SERVICES, Targets, body_for
from xmpppush.mod_push_service_mongoosepush.retry import RetryPolicy
from xmpppush.model import Delivery, Publish

CAPACITY = 50_000
PAGE = 500
STOP_TIME = 3.0  # seconds that stopping waits for answers
STORE_PAUSE = 5.0  # seconds before a store that failed is asked again

First = Callable[[PushError | None], None]


@implementer(IPushService)
class MongoosePushBridge(Service):
    """
    Delivers to a MongoosePush.

    Attributes:
        in_flight: Requests without an answer yet.
        outcomes: How many deliveries were ``delivered``, ``unregistered``, ``refused`` or ``given-up``,
            and how many tries were ``postponed``.
    """

    name = "mod_push_service_mongoosepush"
    _log = Logger()

    def __init__(
        self,
        section: BridgeSection,
        pool: HTTPPool,
        messages: IMessageStore,
        clock: Any,
        random: Random,
        on_unregistered: Callable[[Delivery], Any],
        *,
        services: tuple[str, ...] = SERVICES,
        capacity: int = CAPACITY,
    ) -> None:
        """
        Args:
            pool: The ``[http_connections]`` pool that ``pool_name`` names.
            clock: The reactor; its seconds are those of `Delivery.created`.
            random: Spreads the retries.
            on_unregistered: Told of each delivery whose device is gone; the delivery is settled behind it,
                and behind its Deferred, if it returns one.
            services: Names that the publish option ``service`` may have.
            capacity: Deliveries kept in memory at the most.
        """
        self.in_flight = 0
        self.outcomes: Counter[str] = Counter()
        self._limit = section.max_http_connections
        self._policy = RetryPolicy(section.retry_base, section.retry_cap, section.max_attempts, section.ttl)
        self._pool = pool
        self._messages = messages
        self._clock = clock
        self._random = random
        self._on_unregistered = on_unregistered
        self._targets = Targets(section.api_version, services)
        self._capacity = capacity
        self._outage = Outage()
        self._ready: deque[Delivery] = deque()
        self._waiting: list[tuple[float, int, Delivery]] = []  # a heap by next_try
        self._timer: IDelayedCall | None = None
        self._firsts: dict[int, First] = {}
        self._pumping = False
        # Numbers of the rows that are in memory, or were and are not yet gone from the store.
        self._known: set[int] = set()
        self._settled: list[int] = []
        self._storing = 0
        self._flush_call: IDelayedCall | None = None
        # Rows above this number may be on disk alone; None: there are none.
        self._behind: int | None = 0
        self._load_call: IDelayedCall | None = None
        self._gone_while_loading: set[int] | None = None
        self._stopped: Deferred[None] | None = None
        # When an account was removed: what is in memory of it from before is sent no more.
        self._removed: dict[str, float] = {}

    @property
    def queued(self) -> int:
        """Deliveries in memory that wait for their turn or for another try."""
        return len(self._ready) + len(self._waiting)

    def prepare(self, publish: Publish, created: float) -> Delivery:
        """The request for this notification; raises `PreconditionNotMet`."""
        target = self._targets.of(publish.options)
        body = body_for(target, publish)
        return Delivery(
            0, publish.account, publish.pubsub, publish.node, target.service, target.path, body, created
        )

    def enqueue(self, delivery: Delivery, first: First | None = None) -> None:
        """Take over a stored delivery (`IPushService.enqueue`)."""
        if delivery.id in self._known:
            # Fetched from the store a moment ago, before it was handed over.
            if first is not None:
                self._firsts[delivery.id] = first
            return
        if not self.running or len(self._known) >= self._capacity:
            self._leave_on_disk(delivery.id - 1)
            if first is not None:
                first(TryLater("queued"))
            return
        if first is not None:
            self._firsts[delivery.id] = first
        self._known.add(delivery.id)
        self._ready.append(delivery)
        if self.in_flight < self._limit:
            self._pump()

    def forget_account(self, account: str) -> None:
        """The account was removed, and its rows with it: send nothing of it that was there before."""
        self._removed[account] = self._clock.seconds()

    def _is_void(self, delivery: Delivery) -> bool:
        removed = self._removed.get(delivery.account)
        return removed is not None and delivery.created <= removed

    def _drop(self, delivery: Delivery) -> None:
        self._settle(delivery.id)
        self._tell_first(delivery, GivenUp("the account was removed"))

    # Sending.

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        ready, pool = self._ready, self._pool
        now = self._clock.seconds()
        try:
            while ready and self.in_flight < self._limit and self.running:
                delivery = ready.popleft()
                if self._removed and self._is_void(delivery):
                    self._drop(delivery)
                    continue
                if self._policy.is_too_old(now - delivery.created):
                    self._give_up(delivery, "too old")
                    continue
                self.in_flight += 1
                pool.post(delivery.path, delivery.body).addCallbacks(
                    self._answered, self._failed, (delivery,), errbackArgs=(delivery,)
                ).addErrback(self._bug)
        finally:
            self._pumping = False

    def _answered(self, response: Response, delivery: Delivery) -> None:
        self.in_flight -= 1
        error = outcome_of(response.code, response.body, response.retry_after)
        if error is None:
            if self._outage.since is not None:
                self._is_back()
            self.outcomes["delivered"] += 1
            self._settle(delivery.id)
            if self._firsts:
                self._tell_first(delivery, None)
        else:
            if isinstance(error, TryLater):
                self._is_troubled(error)
            self._conclude(delivery, error)
        if self._ready:
            self._pump()
        elif self._stopped is not None:
            self._check_stopped()

    def _failed(self, failure: Failure, delivery: Delivery) -> None:
        self.in_flight -= 1
        error = failure.value
        if not isinstance(error, DeliveryError):
            # A bug of ours must not lose the notification; it is tried again, up to its age.
            self._log.failure("request for node {node} failed", failure, node=delivery.node)
            error = TryLater("internal error")
        self._conclude(delivery, error)
        if self._ready:
            self._pump()
        self._check_stopped()

    def _bug(self, failure: Failure) -> None:
        self._log.failure("delivery could not be concluded", failure)

    # Concluding.

    def _conclude(self, delivery: Delivery, error: DeliveryError) -> None:
        """Whatever is not delivered."""
        if isinstance(error, TryLater) and self._is_void(delivery):
            self._drop(delivery)
            return
        if isinstance(error, TryLater):
            error = self._postpone(delivery, error)
        elif isinstance(error, DeviceUnregistered):
            self._forget_device(delivery)
        else:
            self.outcomes["refused"] += 1
            self._log.error(
                "push service refused a notification for node {node}: {reason}; it is lost",
                node=delivery.node,
                pubsub=delivery.pubsub,
                service=delivery.service,
                reason=str(error),
            )
            self._settle(delivery.id)
        self._tell_first(delivery, error)

    def _forget_device(self, delivery: Delivery) -> None:
        self.outcomes["unregistered"] += 1
        self._storing += 1

        def failed(failure: Failure) -> None:
            # The next push to the device says the same again.
            self._log.failure(
                "registration of node {node} could not be forgotten", failure, node=delivery.node
            )

        def forgotten(_: object) -> None:
            self._storing -= 1
            self._settle(delivery.id)

        maybeDeferred(self._on_unregistered, delivery).addErrback(failed).addCallback(forgotten)

    def _postpone(self, delivery: Delivery, error: TryLater) -> DeliveryError:
        now = self._clock.seconds()
        attempts = delivery.attempts + 1
        delay = self._policy.delay_after(attempts, error.after, self._random.random(), now - delivery.created)
        if delay is None:
            if self.running:
                return self._give_up(delivery, error.reason, attempts)
            # Most likely our stopping cut it off, which says nothing about the notification.
            delay = 0.0
        self.outcomes["postponed"] += 1
        delivery = evolve(delivery, attempts=attempts, next_try=now + delay)
        self._storing += 1
        maybeDeferred(self._messages.postpone, delivery).addErrback(self._not_stored).addCallback(
            self._stored
        )
        if self.running:
            self._wait(delivery)
        else:
            self._known.discard(delivery.id)
        return error

    def _stored(self, _: object) -> None:
        self._storing -= 1
        self._check_stopped()

    def _give_up(self, delivery: Delivery, reason: str, attempts: int | None = None) -> GivenUp:
        self.outcomes["given-up"] += 1
        error = GivenUp(reason)
        self._log.error(
            "gave up a notification for node {node} after {attempts} tries: {reason}",
            node=delivery.node,
            pubsub=delivery.pubsub,
            service=delivery.service,
            attempts=delivery.attempts if attempts is None else attempts,
            reason=reason,
        )
        self._settle(delivery.id)
        if attempts is None:
            self._tell_first(delivery, error)
        return error

    def _tell_first(self, delivery: Delivery, error: PushError | None) -> None:
        first = self._firsts.pop(delivery.id, None)
        if first is not None:
            try:
                first(error)
            except Exception:
                self._log.failure("outcome for node {node} could not be told", node=delivery.node)

    def _is_troubled(self, error: TryLater) -> None:
        if self._outage.failed(error.reason, self._clock.seconds()):
            self._log.warn("push service is in trouble: {reason}; notifications wait", reason=error.reason)

    def _is_back(self) -> None:
        lasted = self._outage.succeeded(self._clock.seconds())
        if lasted is not None:
            self._log.info("push service is well again after {seconds} s", seconds=round(lasted, 1))

    # Waiting for another try: one timer, for the earliest.

    def _wait(self, delivery: Delivery) -> None:
        heappush(self._waiting, (delivery.next_try, delivery.id, delivery))
        self._set_timer()

    def _set_timer(self) -> None:
        if not self._waiting:
            return
        due = self._waiting[0][0]
        if self._timer is not None:
            if self._timer.getTime() <= due:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while self._waiting and self._waiting[0][0] <= now:
            self._ready.append(heappop(self._waiting)[2])
        self._set_timer()
        self._pump()

    # Settling: the rows of one turn of the reactor at once.

    def _settle(self, number: int) -> None:
        self._settled.append(number)
        if self._flush_call is None:
            self._flush_call = self._clock.callLater(0, self._flush)
        self._check_stopped()

    def _flush(self) -> None:
        self._flush_call = None
        numbers, self._settled = self._settled, []
        self._storing += 1
        maybeDeferred(self._messages.settle, numbers).addCallbacks(
            self._is_settled, self._not_settled, (numbers,), errbackArgs=(numbers,)
        ).addErrback(self._bug)

    def _is_settled(self, _: object, numbers: Sequence[int]) -> None:
        self._storing -= 1
        self._known.difference_update(numbers)
        if self._gone_while_loading is not None:
            self._gone_while_loading.update(numbers)
        if self._behind is not None:
            self._load_soon(0)
        self._check_stopped()

    def _not_settled(self, failure: Failure, numbers: list[int]) -> None:
        """The rows stay known, so they are not sent again while we run; the store is asked again."""
        self._storing -= 1
        self._not_stored(failure)
        if self._stopped is None:
            self._settled.extend(numbers)
            if self._flush_call is None:
                self._flush_call = self._clock.callLater(STORE_PAUSE, self._flush)
        self._check_stopped()

    def _not_stored(self, failure: Failure) -> None:
        # The storage itself says once when it is out of order and when it is back.
        if not failure.check(StorageError):
            self._log.failure("queue could not be written", failure)

    # Fetching what is on disk alone.

    def _leave_on_disk(self, behind: int) -> None:
        self._behind = behind if self._behind is None else min(self._behind, behind)

    def _load_soon(self, delay: float) -> None:
        if self._load_call is None and self.running and len(self._known) <= self._capacity // 2:
            self._load_call = self._clock.callLater(delay, self._load)

    def _load(self) -> None:
        self._load_call = None
        if self._behind is None or self._gone_while_loading is not None:
            return
        behind, self._behind = self._behind, None
        self._gone_while_loading = set()
        maybeDeferred(self._messages.queued, behind, PAGE).addCallbacks(
            self._loaded, self._not_loaded, errbackArgs=(behind,)
        ).addErrback(self._bug)

    def _loaded(self, page: Sequence[Delivery]) -> None:
        # What was settled while the page was on its way may still be in it.
        gone, self._gone_while_loading = self._gone_while_loading or set(), None
        if not self.running:
            return
        now = self._clock.seconds()
        for delivery in page:
            if delivery.id in self._known or delivery.id in gone:
                continue
            self._known.add(delivery.id)
            if delivery.next_try > now:
                # A clock that was set back must not hold it longer than any delay may be.
                latest = now + self._policy.cap
                self._wait(delivery if delivery.next_try <= latest else evolve(delivery, next_try=latest))
            else:
                self._ready.append(delivery)
        if len(page) >= PAGE:
            self._leave_on_disk(page[-1].id)
        if self._behind is not None:
            self._load_soon(0)
        self._pump()

    def _not_loaded(self, failure: Failure, behind: int) -> None:
        self._gone_while_loading = None
        self._not_stored(failure)
        self._leave_on_disk(behind)
        self._load_soon(STORE_PAUSE)

    # Start and stop.

    def startService(self) -> None:
        """Resume what the store has."""
        super().startService()
        self._stopped = None
        self._behind = 0
        self._load_soon(0)

    def stopService(self) -> "Deferred[None]":
        """
        Send nothing more; fires when what is in flight has its outcome stored.

        After `STOP_TIME` it fires all the same: the store still has what is in flight then, and the next
        start sends it again. Everything else is in the store anyhow.
        """
        super().stopService()
        for call in (self._timer, self._load_call):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._load_call = None
        left = [*self._ready, *(delivery for _, _, delivery in self._waiting)]
        self._ready.clear()
        self._waiting.clear()
        for delivery in left:
            self._known.discard(delivery.id)
            self._tell_first(delivery, TryLater("queued"))
        self._stopped = Deferred()
        stopped = self._stopped
        self._check_stopped()
        if not stopped.called:
            limit = self._clock.callLater(STOP_TIME, stopped.callback, None)
            stopped.addCallback(lambda _: limit.cancel() if limit.active() else None)
        return stopped

    def _check_stopped(self) -> None:
        if self._stopped is None or self.in_flight or self._stopped.called:
            return
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush()  # comes back here when it is through
        elif not self._storing:
            self._stopped.callback(None)
