"""
The bridge at work: deliveries in flight, those that wait for another try, and the queue on disk.

Every delivery is a row in the store until it has its final answer. In memory are at most ``capacity`` of
them; what does not fit is left on disk and fetched when there is room, in the same way as everything is
fetched at start. So a restart, a long outage and a full memory are one case.

What is sent when is the `Schedule`'s decision; here it is carried out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Protocol

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred
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
    Refused,
    StorageError,
    TryLater,
    Unreachable,
)
from xmpppush.http.outage import QUIET, Outage
from xmpppush.http_connections import Response
from xmpppush.interfaces import IMessageStore, IPushService, ITrace
from xmpppush.metrics import Histogram
from xmpppush.mod_push_service_mongoosepush.outcomes import outcome_of
from xmpppush.mod_push_service_mongoosepush.payload import SERVICES, Targets, body_for
from xmpppush.mod_push_service_mongoosepush.retry import RetryPolicy
from xmpppush.mod_push_service_mongoosepush.schedule import Schedule
from xmpppush.model import REMOTE, Delivery, Publish
from xmpppush.trace import NO_TRACE, Decision, told

CAPACITY = 50_000
FOREIGN_TARGETS = 8192
PAGE = 500
STOP_TIME = 3.0  # seconds that stopping waits for answers
MAX_LINES = 10  # about lost notifications in half a minute
MAX_REASONS = 100  # whose lost notifications are counted between the lines
STORE_PAUSE = 5.0  # seconds before a store that failed is asked again
OUTCOMES = ("delivered", "unregistered", "refused", "given-up", "collapsed", "postponed")
# Seconds: from a push service next door to one that was down for a night.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)


class RequestPool(Protocol):
    """What of an `HTTPPool` the bridge needs."""

    @property
    def trouble(self) -> str | None: ...

    def post(self, path: str, body: bytes) -> "Deferred[Response]": ...


First = Callable[[PushError | None], None]
NO_POOLS: Mapping[str, RequestPool] = MappingProxyType({})


def _not_configured(_path: str, _body: bytes) -> "Deferred[Response]":
    return fail(TryLater("the app is not configured"))


class Losses:
    """Lost notifications, boiled down to lines worth logging: one for each reason in half a minute."""

    def __init__(self) -> None:
        self._until = float("-inf")
        self._said: set[str] = set()
        self._unsaid: dict[str, int] = {}

    def worth_a_line(self, reason: str, now: float) -> int | None:
        """One more; returns how many for this reason were not told before, ``None``: nor is this one."""
        if now >= self._until:
            self._until = now + QUIET
            self._said.clear()
        if reason in self._said or len(self._said) >= MAX_LINES:
            if reason in self._unsaid or len(self._unsaid) < MAX_REASONS:
                self._unsaid[reason] = self._unsaid.get(reason, 0) + 1
            return None
        self._said.add(reason)
        return self._unsaid.pop(reason, 0)


def trace_of(delivery: Delivery) -> str:
    """Id of its story; what an earlier version stored, or a foreign server published, has none of its own."""
    return delivery.trace or f"q{delivery.id}"


@implementer(IPushService)
class MongoosePushBridge(Service):
    """
    Delivers to a MongoosePush.

    Attributes:
        by_service: By service and outcome how many deliveries were ``delivered``, ``unregistered``,
            ``refused``, ``given-up`` or ``collapsed``, and how many tries were ``postponed``.
        latency: Seconds from accepting a message to the push service's final answer.
    """

    name = "mod_push_service_mongoosepush"
    _log = Logger()

    def __init__(
        self,
        section: BridgeSection,
        pool: RequestPool,
        messages: IMessageStore,
        clock: Any,
        random: Random,
        on_unregistered: Callable[[Delivery], Any],
        *,
        services: tuple[str, ...] = SERVICES,
        capacity: int = CAPACITY,
        trace: ITrace = NO_TRACE,
        collapse: bool = True,
        pools: Mapping[str, RequestPool] = NO_POOLS,
    ) -> None:
        """
        Args:
            pool: The ``[http_connections]`` pool that ``pool_name`` names: an `HTTPPool` or what does as
                one for a push service in this process.
            clock: The reactor; its seconds are those of `Delivery.created`.
            random: Spreads the retries.
            on_unregistered: Told of each delivery whose device is gone; the delivery is settled behind it,
                and behind its Deferred, if it returns one.
            services: Names that the publish option ``service`` may have.
            capacity: Deliveries kept in memory at the most.
            trace: Told of each try that failed, and of each outcome.
            collapse: ``[mod_push] collapse``: while a push to a device waits for another try, later ones
                of its sender replace it.
            pools: Those of the apps, by `Delivery.service` (``fcm@NAME``), and under `REMOTE` what publishes
                to app servers elsewhere.
        """
        self.by_service: Counter[tuple[str, str]] = Counter(
            {(service, outcome): 0 for service in services for outcome in OUTCOMES}
        )
        self.latency = Histogram(BOUNDS)
        self._policy = RetryPolicy(section.retry_base, section.retry_cap, section.max_attempts, section.ttl)
        self._pool = pool
        self._pools = pools
        self._messages = messages
        self._clock = clock
        self._random = random
        self._on_unregistered = on_unregistered
        self._targets = Targets(section.api_version, services)
        # Apart, as what other servers publish is the same object only for a while.
        self._foreign_targets = Targets(section.api_version, services, FOREIGN_TARGETS)
        self._capacity = capacity
        self._trace = trace
        self._schedule = Schedule(section.max_http_connections, self._policy, random.random, collapse)
        self._outages: dict[str, Outage] = {}  # by service, of those that had one
        self._losses: dict[type[PushError], Losses] = {Refused: Losses(), GivenUp: Losses()}
        self._timer: IDelayedCall | None = None
        self._timer_due = 0.0
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
    def outcomes(self) -> Counter[str]:
        """As `by_service`, of all services; what there was none of is left out."""
        outcomes: Counter[str] = Counter()
        for (_, outcome), number in self.by_service.items():
            outcomes[outcome] += number
        return +outcomes

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return self._schedule.in_flight

    @property
    def queued(self) -> int:
        """Deliveries in memory that wait for their turn or for another try."""
        return self._schedule.queued

    @property
    def outages(self) -> dict[str, str]:
        """Services (fcm, apns) to which nothing is sent at the moment but probes, and why."""
        return self._schedule.closed_lanes()

    @property
    def trouble(self) -> str | None:
        """Why nothing gets through at present, as far as the last answer tells."""
        for pool in (self._pool, *self._pools.values()):
            if pool.trouble:
                return pool.trouble
        reasons = [
            f"{service}: {outage.reason}"
            for service, outage in sorted(self._outages.items())
            if outage.since is not None and not service.startswith(REMOTE)
        ]
        return "; ".join(reasons) or None

    def prepare(self, publish: Publish, created: float) -> Delivery:
        """The request for this notification; raises `PreconditionNotMet`."""
        target = (self._targets if publish.account else self._foreign_targets).of(publish.options)
        body = body_for(target, publish)
        service = target.service
        if publish.route is not None:
            service = f"{service}@{publish.route.app}"
        return Delivery(
            0,
            publish.account,
            publish.pubsub,
            publish.node,
            service,
            target.path,
            body,
            created,
            trace=publish.trace,
        )

    def enqueue(self, delivery: Delivery, first: First | None = None) -> None:
        """Take over a stored delivery (`IPushService.enqueue`)."""
        if delivery.id in self._known:
            # Fetched from the store a moment ago, before it was handed over.
            if first is not None:
                self._firsts[delivery.id] = first
            return
        if not self.running or len(self._known) >= self._capacity or self._is_behind:
            self._leave_on_disk(delivery.id - 1)
            self._load_soon(0)
            if first is not None:
                first(self._waits())
            return
        self._known.add(delivery.id)
        schedule, now = self._schedule, self._clock.seconds()
        gone = schedule.add(delivery, now)
        if gone:
            self._replaced(gone)
        if first is not None:
            if delivery.next_try > now or schedule.is_held_up(delivery):
                first(self._waits())
            else:
                self._firsts[delivery.id] = first
        if schedule.in_flight < schedule.limit:
            self._pump(now)

    def _waits(self) -> TryLater:
        return TryLater(self.trouble or "others are before it")

    def forget_account(self, account: str) -> None:
        """The account was removed, and its rows with it: send nothing of it that was there before."""
        self._removed[account] = self._clock.seconds()

    def is_back(self, service: str) -> None:
        """What could not be reached can be again: nothing for it waits any longer."""
        self._schedule.is_back(service, self._clock.seconds())
        self._pump()

    def _is_void(self, delivery: Delivery) -> bool:
        removed = self._removed.get(delivery.account)
        return removed is not None and delivery.created <= removed

    def _drop(self, delivery: Delivery) -> None:
        self._settle(delivery.id)
        self._tell_first(delivery, GivenUp("the account was removed"))

    # Sending.

    def _pump(self, now: float | None = None) -> None:
        if self._pumping or not self.running:
            return
        self._pumping = True
        schedule, pool = self._schedule, self._pool
        if now is None:
            now = self._clock.seconds()
        try:
            while schedule.queued and (delivery := schedule.next(now)) is not None:
                if self._removed and self._is_void(delivery):
                    schedule.finished(delivery, now, answered=False)
                    self._drop(delivery)
                    continue
                if self._policy.is_too_old(now - delivery.created):
                    schedule.finished(delivery, now, answered=False)
                    self._give_up(delivery, "too old")
                    continue
                post = pool.post if "@" not in delivery.service else self._post_for_app(delivery.service)
                post(delivery.path, delivery.body).addCallbacks(
                    self._answered, self._failed, (delivery,), errbackArgs=(delivery,)
                )
        finally:
            self._pumping = False
        if schedule.times and (self._timer is None or schedule.times[0][0] < self._timer_due):
            self._set_timer()

    def _post_for_app(self, service: str) -> "Callable[[str, bytes], Deferred[Response]]":
        # All app servers elsewhere are one pool.
        pool = self._pools.get(REMOTE if service.startswith(REMOTE) else service)
        # Anywhere else its tokens are nobody's business, and the operator may put the app back.
        return pool.post if pool is not None else _not_configured

    # The two raise nothing; an errback behind them would cost more than all they do.

    def _answered(self, response: Response, delivery: Delivery) -> None:
        try:
            self._has_answer(response, delivery)
        except Exception:
            self._bug(Failure())

    def _failed(self, failure: Failure, delivery: Delivery) -> None:
        try:
            self._has_none(failure, delivery)
        except Exception:
            self._bug(Failure())

    def _has_answer(self, response: Response, delivery: Delivery) -> None:
        code, now = response.code, self._clock.seconds()
        error = None if 200 <= code < 300 else outcome_of(code, response.body, response.retry_after)
        if error is None or not isinstance(error, TryLater):
            self.latency.observe(now - delivery.created)
            if self._outages:
                self._is_well(delivery.service)
        if error is None:
            gone = self._schedule.succeeded(delivery, now)
            if gone:
                self._replaced(gone, delivery)
            # As `_count` and `_note` do it, but this is where nearly every push comes by.
            self.by_service[delivery.service, "delivered"] += 1
            self._trace.note(
                delivery.trace or trace_of(delivery),
                delivery.account or delivery.pubsub,
                delivery.node,
                Decision.DELIVERED,
                f"HTTP {code}",
                service=delivery.service,
                attempt=delivery.attempts + 1,
            )
            self._settle(delivery.id)
            if self._firsts:
                self._tell_first(delivery, None)
        else:
            if isinstance(error, TryLater):
                self._is_troubled(delivery.service, error)
            self._conclude(delivery, error)
        schedule = self._schedule
        if schedule.queued and schedule.in_flight < schedule.limit:
            self._pump(now)
        if self._stopped is not None:
            self._check_stopped()

    def _has_none(self, failure: Failure, delivery: Delivery) -> None:
        error = failure.value
        if not isinstance(error, DeliveryError):
            # A bug of ours must not lose the notification; it is tried again, up to its age.
            self._log.failure("request for node {node} failed", failure, node=delivery.node)
            error = TryLater("internal error")
        self._conclude(delivery, error, answered=False)
        self._pump()
        self._check_stopped()

    def _bug(self, failure: Failure) -> None:
        self._log.failure("delivery could not be concluded", failure)

    # Concluding.

    def _count(self, delivery: Delivery, outcome: str) -> None:
        self.by_service[delivery.service, outcome] += 1

    def _note(
        self, delivery: Delivery, decision: Decision, reason: str, attempt: int, **fields: object
    ) -> None:
        """Tell the trace; what a foreign server published is there under the pubsub JID."""
        self._trace.note(
            trace_of(delivery),
            delivery.account or delivery.pubsub,
            delivery.node,
            decision,
            reason,
            service=delivery.service,
            attempt=attempt,
            **fields,
        )

    def _conclude(self, delivery: Delivery, error: DeliveryError, answered: bool = True) -> None:
        """Whatever is not delivered."""
        now = self._clock.seconds()
        if isinstance(error, TryLater) and self._is_void(delivery):
            self._schedule.failed(delivery, error.reason, now, error.after, isinstance(error, Unreachable))
            self._schedule.dropped(delivery, now)
            self._drop(delivery)
            return
        if isinstance(error, TryLater):
            error = self._postpone(delivery, error, now)
        else:
            self._schedule.finished(delivery, now, answered)
            if isinstance(error, DeviceUnregistered):
                self._note(delivery, Decision.UNREGISTERED, told(error), delivery.attempts + 1)
                self._forget_device(delivery)
            else:
                self._count(delivery, "refused")
                self._note(delivery, Decision.REFUSED, told(error), delivery.attempts + 1)
                self._lost(
                    Refused,
                    "push service refused a notification for node {node}: {reason}; it is lost",
                    delivery,
                    str(error),
                )
                self._settle(delivery.id)
        self._tell_first(delivery, error)

    def _lost(
        self, kind: type[PushError], sentence: str, delivery: Delivery, reason: str, **more: object
    ) -> None:
        """Say so, but not a thousand times; the counters and the trace have each."""
        unsaid = self._losses[kind].worth_a_line(reason, self._clock.seconds())
        if unsaid is not None:
            self._log.error(
                sentence + " ({unsaid} more since the last such line)" if unsaid else sentence,
                node=delivery.node,
                pubsub=delivery.pubsub,
                service=delivery.service,
                reason=reason,
                unsaid=unsaid,
                **more,
            )

    def _replaced(self, gone: Iterable[Delivery], by: Delivery | None = None) -> None:
        """
        Newer ones tell what these would have.

        The newer row is on disk, so nothing is lost by deleting the older; with a crash in between both
        are sent.

        Args:
            by: What replaced them, where that does not wait any more.
        """
        for delivery in gone:
            self._count(delivery, "collapsed")
            newer = self._schedule.newest_like(delivery) or by
            into = "" if newer is None else trace_of(newer)
            self._note(delivery, Decision.COLLAPSED, "", delivery.attempts, into=into)
            self._settle(delivery.id)
            self._tell_first(delivery, TryLater("replaced by a newer one"))

    def _forget_device(self, delivery: Delivery) -> None:
        self._count(delivery, "unregistered")
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

    def _postpone(self, delivery: Delivery, error: TryLater, now: float) -> DeliveryError:
        schedule = self._schedule
        in_a_row = schedule.failed(delivery, error.reason, now, error.after, isinstance(error, Unreachable))
        attempts = delivery.attempts + 1
        age = now - delivery.created
        delay = self._policy.delay_after(attempts, error.after, self._random.random(), age, in_a_row)
        if delay is None:
            if self.running:
                schedule.dropped(delivery, now)
                return self._give_up(delivery, error.reason, attempts)
            # Most likely our stopping cut it off, which says nothing about the notification.
            delay = 0.0
        self._count(delivery, "postponed")
        self._note(delivery, Decision.POSTPONED, told(error), attempts, delay=round(delay, 1))
        delivery = evolve(delivery, attempts=attempts, next_try=now + delay)
        self._storing += 1
        maybeDeferred(self._messages.postpone, delivery).addErrback(self._not_stored).addCallback(
            self._stored
        )
        if self.running:
            self._replaced(schedule.postponed(delivery, now))
        else:
            schedule.dropped(delivery, now)
            self._known.discard(delivery.id)
        return error

    def _stored(self, _: object) -> None:
        self._storing -= 1
        self._check_stopped()

    def _give_up(self, delivery: Delivery, reason: str, attempts: int | None = None) -> GivenUp:
        self._count(delivery, "given-up")
        error = GivenUp(reason)
        tries = delivery.attempts if attempts is None else attempts
        most = self._policy.max_attempts
        limit = "max_attempts" if most and tries >= most else "ttl"
        self._note(delivery, Decision.GIVEN_UP, told(error), tries, limit=limit)
        self._lost(
            GivenUp,
            "gave up a notification for node {node} after {attempts} tries: {reason}",
            delivery,
            reason,
            attempts=tries,
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

    def _is_troubled(self, service: str, error: TryLater) -> None:
        outage = self._outages.setdefault(service, Outage())
        if outage.failed(error.reason, self._clock.seconds()):
            self._log.warn(
                "push service has trouble with {service}: {reason}; notifications wait",
                service=service,
                reason=error.reason,
            )

    def _is_well(self, service: str) -> None:
        outage = self._outages.get(service)
        lasted = outage.succeeded(self._clock.seconds()) if outage is not None else None
        if lasted is not None:
            self._log.info(
                "push service is well again with {service} after {seconds} s",
                service=service,
                seconds=round(lasted, 1),
            )

    # Waiting for another try: one timer, for the earliest.

    def _set_timer(self) -> None:
        """For the first of the times to come; where that became void meanwhile, `_due` finds nothing."""
        due = self._schedule.wake_time()
        if due is None:
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._due)

    def _due(self) -> None:
        self._timer = None
        self._replaced(self._schedule.wake(self._clock.seconds()))
        self._pump()

    # Settling: the rows of one turn of the reactor at once.

    def _settle(self, number: int) -> None:
        self._settled.append(number)
        if self._flush_call is None:
            self._flush_call = self._clock.callLater(0, self._flush)
        if self._stopped is not None:
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

    @property
    def _is_behind(self) -> bool:
        """
        Are there older rows that are, or may be, on disk alone? Newer ones wait for them there.

        Otherwise a device would get its notifications in another order.
        """
        return self._behind is not None or self._gone_while_loading is not None

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
            # A clock that was set back must not hold it longer than any delay may be.
            latest = now + self._policy.cap
            if delivery.next_try > latest:
                delivery = evolve(delivery, next_try=latest)
            self._replaced(self._schedule.add(delivery, now))
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
        self._set_timer()

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
        for delivery in self._schedule.clear():
            self._known.discard(delivery.id)
            self._tell_first(delivery, TryLater("the server is stopping"))
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
