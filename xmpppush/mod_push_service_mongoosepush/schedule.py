"""
Which delivery goes out next.

Pure: it is told what comes in, what became of it and what time it is. The rules, from the inside out:

* A device gets its notifications in order. The next one is sent when the last was answered or has been on
  its way for `GAP` seconds, so an answer that takes long delays nobody and overtaking is next to
  impossible. While one waits for another try, later ones wait behind it, and replace those of the same
  sender where that is wanted (``collapse``).
* Devices take turns: one that has a hundred notifications waiting does not hold one that has one.
* Services (fcm, apns) share the requests in flight: the one with fewer comes first, and none takes the
  last tenth from another that it has seen at work. So a slow one does not starve the others.
* Each service has a circuit breaker. What waits behind an open one was not tried, and nothing counts.
"""

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from xmpppush.mod_push_service_mongoosepush.breaker import Breaker
from xmpppush.mod_push_service_mongoosepush.payload import collapse_key
from xmpppush.mod_push_service_mongoosepush.retry import RetryPolicy
from xmpppush.model import Delivery

GAP = 0.05  # seconds between two starts to a device, unless the first is answered earlier
RESERVE = 10  # a service leaves one part in so many to each other one

IDLE, READY, HELD, RETRY = range(4)


class Lane:
    """
    One service of the push service.

    Attributes:
        ready: Devices whose turn has come, each with something to send.
        wake: Its entry among the times to come: when its breaker's probe may go.
    """

    __slots__ = ("breaker", "in_flight", "ready", "wake")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.ready: deque[Device] = deque()
        self.in_flight = 0
        self.wake: list[Any] | None = None


class Device:
    """
    One device with something waiting or in flight.

    Attributes:
        queue: What waits, by row number.
        state: ``READY``: in its lane; ``HELD``: for the answer or the gap; ``RETRY``: until ``not_before``;
            ``IDLE``: nothing waits.
        started: When its last request was sent.
        failures: Failed tries in a row.
        newest: What waits, by who sent it, while the device fails.
        wake: Its entry among the times to come.
    """

    # In the class until they differ: most devices come and go with one push.
    state = IDLE
    in_flight = 0
    started = 0.0
    not_before = 0.0
    failures = 0
    newest: dict[object, Delivery] | None = None
    wake: list[Any] | None = None

    def __init__(self, lane: Lane, delivery: Delivery) -> None:
        self.lane = lane
        self.queue: deque[Delivery] = deque((delivery,))


class Schedule:
    """
    All deliveries in memory.

    Every delivery that `next` gave comes back by exactly one of `succeeded`, `finished` and `failed`.

    Attributes:
        limit: How many may be in flight.
        in_flight: How many `next` gave that are not back yet.
        queued: How many wait.
        times: When what is to be looked at again; a heap, empty where `wake_time` has nothing to say.
    """

    def __init__(
        self, limit: int, policy: RetryPolicy, chance: Callable[[], float], collapse: bool = True
    ) -> None:
        """
        Args:
            limit: How many may be in flight.
            chance: 0.0 to 1.0, for the probes.
            collapse: While a device waits for another try, the newest of each sender is enough.
        """
        self.in_flight = 0
        self.queued = 0
        self.limit = limit
        self._policy = policy
        self._chance = chance
        self._collapse = collapse
        self._most = limit  # for one lane
        self._lanes: dict[str, Lane] = {}
        self._devices: dict[str, Device] = {}
        # A heap of [time, number, what]: a Device, a Lane or a Delivery, None where it is void.
        self.times: list[list[Any]] = []
        self._numbers = count()

    def lane(self, service: str) -> Lane:
        """The lane of a service."""
        lane = self._lanes.get(service)
        if lane is None:
            lane = Lane(Breaker(self._policy, self.limit, self._chance))
            self._lanes[service] = lane
            # With an app to each lane there may be many: the parts left for others end at a half.
            reserved = (len(self._lanes) - 1) * (self.limit // RESERVE)
            self._most = max(1, self.limit // 2, self.limit - reserved)
        return lane

    def add(self, delivery: Delivery, now: float) -> Sequence[Delivery]:
        """
        Take in a delivery.

        Returns:
            Those that it replaces, or itself where a newer one is there.
        """
        self.queued += 1
        key = _device_of(delivery)
        if not (delivery.next_try or delivery.attempts) and key not in self._devices:
            # As good as always, and once a push: no detours.
            lane = self._lanes.get(delivery.service) or self.lane(delivery.service)
            device = self._devices[key] = Device(lane, delivery)
            device.state = READY
            lane.ready.append(device)
            return ()
        if delivery.next_try > now and not delivery.attempts:
            # Put off by whoever made it: that holds nothing else.
            self._wake_at(delivery.next_try, delivery)
            return ()
        return self._line_up(delivery, now)

    def next(self, now: float) -> Delivery | None:
        """The delivery to send now, ``None`` where that is none."""
        if self.in_flight >= self.limit:
            return None
        best: Lane | None = None
        fewest = self._most
        for lane in self._lanes.values():
            if lane.ready and lane.in_flight < fewest:
                breaker = lane.breaker
                if lane.in_flight < breaker.room or (not lane.in_flight and breaker.may_probe(now)):
                    best, fewest = lane, lane.in_flight
        if best is None:
            return None
        if not best.breaker.room:
            best.breaker.probe()
        device = best.ready.popleft()
        delivery = device.queue.popleft()
        if device.newest is not None:
            key = collapse_key(delivery)
            if device.newest.get(key) is delivery:
                del device.newest[key]
        self.queued -= 1
        self.in_flight += 1
        best.in_flight += 1
        device.in_flight += 1
        device.started = now
        device.state = IDLE
        if device.queue:
            self._place(device, now)
        return delivery

    def succeeded(self, delivery: Delivery, now: float) -> Sequence[Delivery]:
        """
        It was delivered.

        Returns:
            Older ones of its sender that wait for another try and say nothing new any more.
        """
        device = self._devices[_device_of(delivery)]
        gone: Sequence[Delivery] = ()
        if device.failures or device.newest is not None:
            if device.newest:
                older = device.newest.get(collapse_key(delivery))
                if older is not None and older.id < delivery.id:
                    gone = (older,)
                    self._take_out(device, older)
            device.failures = 0
            device.newest = None
        if device.lane.breaker.troubled:
            self._answered(device.lane)
        self._back(device, delivery, now)
        return gone

    def finished(self, delivery: Delivery, now: float, answered: bool = True) -> None:
        """
        It is over with without being delivered.

        Args:
            answered: The push service said so; it works, then.
        """
        device = self._devices[_device_of(delivery)]
        breaker = device.lane.breaker
        if breaker.troubled:
            if answered:
                self._answered(device.lane)
            else:
                breaker.learnt_nothing(now)
        self._back(device, delivery, now)

    def failed(
        self,
        delivery: Delivery,
        reason: str,
        now: float,
        after: float | None = None,
        unreachable: bool = False,
    ) -> int:
        """
        It was not delivered for a reason that may pass; `postponed` or `dropped` comes next.

        Returns:
            How many tries for its device failed in a row.
        """
        device = self._devices[_device_of(delivery)]
        lane = device.lane
        if lane.breaker.failed(delivery.path, reason, now, after, unreachable):
            lane.wake = self._wake_at(lane.breaker.until or now, lane)
        device.failures += 1
        return device.failures

    def postponed(self, delivery: Delivery, now: float) -> Sequence[Delivery]:
        """A failed one is to be tried again at its ``next_try``; returns what is replaced, as `add`."""
        device = self._devices[_device_of(delivery)]
        device.not_before = max(device.not_before, delivery.next_try)
        self.queued += 1
        self._insert(device, delivery)
        gone = self._replaced(device, delivery)
        self._unplace(device)
        self._back(device, delivery, now)
        return gone

    def dropped(self, delivery: Delivery, now: float) -> None:
        """A failed one is not to be tried again."""
        self._back(self._devices[_device_of(delivery)], delivery, now)

    def closed_lanes(self) -> dict[str, str]:
        """Services that are left alone at the moment, and why."""
        return {service: lane.breaker.reason for service, lane in self._lanes.items() if lane.breaker.is_open}

    def is_held_up(self, delivery: Delivery) -> bool:
        """Does it wait for another try or an open breaker, and not just for its turn?"""
        device = self._devices.get(_device_of(delivery))
        if device is None:
            return True
        return bool(device.queue) and (device.state == RETRY or device.lane.breaker.is_open)

    def newest_like(self, delivery: Delivery) -> Delivery | None:
        """What waits in the place of one that was replaced, ``None`` where nothing does any more."""
        device = self._devices.get(_device_of(delivery))
        if device is None or device.newest is None:
            return None
        newest = device.newest.get(collapse_key(delivery))
        return newest if newest is not delivery else None

    def is_back(self, service: str, now: float) -> None:
        """A service is there again: a probe may be sent at once, for whichever device."""
        lane = self._lanes.get(service)
        if lane is None:
            return
        if lane.breaker.until is not None:
            lane.breaker.until = now
        for device in self._devices.values():
            if device.lane is lane and device.state == RETRY:
                self._unplace(device)
                device.not_before = now
                self._place(device, now)

    # Time.

    def wake_time(self) -> float | None:
        """When `wake` is to be called next."""
        times = self.times
        while times and times[0][2] is None:
            heappop(times)
        return times[0][0] if times else None

    def wake(self, now: float) -> list[Delivery]:
        """Whatever has become due is ready; returns what was replaced meanwhile, as `add`."""
        gone: list[Delivery] = []
        times = self.times
        while times and times[0][0] <= now:
            what = heappop(times)[2]
            if isinstance(what, Device):
                what.wake = None
                what.state = IDLE
                self._place(what, now)
            elif isinstance(what, Lane):
                until = what.breaker.until
                what.wake = self._wake_at(until, what) if until is not None and until > now else None
            elif what is not None:
                gone.extend(self._line_up(what, now))
        return gone

    def clear(self) -> list[Delivery]:
        """Forget all that waits, and return it; what is in flight stays."""
        left = [delivery for device in self._devices.values() for delivery in device.queue]
        left += [what for _, _, what in self.times if isinstance(what, Delivery)]
        self.times = [entry for entry in self.times if isinstance(entry[2], Lane)]
        heapify(self.times)
        for lane in self._lanes.values():
            lane.ready.clear()
        for path, device in list(self._devices.items()):
            device.queue.clear()
            device.newest, device.wake, device.state = None, None, IDLE
            if not device.in_flight:
                del self._devices[path]
        self.queued = 0
        return left

    def _wake_at(self, time: float, what: object) -> list[Any]:
        entry = [time, next(self._numbers), what]
        heappush(self.times, entry)
        return entry

    # Devices.

    def _line_up(self, delivery: Delivery, now: float) -> Sequence[Delivery]:
        device = self._devices.get(_device_of(delivery))
        if device is None:
            device = self._devices[_device_of(delivery)] = Device(self.lane(delivery.service), delivery)
            if delivery.attempts:
                self._resume(device, delivery)
            self._place(device, now)
            return ()
        self._insert(device, delivery)
        if delivery.attempts:
            self._resume(device, delivery)
        gone: Sequence[Delivery] = ()
        if device.failures or device.lane.breaker.is_open:
            gone = self._replaced(device, delivery)
        else:
            device.newest = None
        if device.state == IDLE:
            self._place(device, now)
        return gone

    def _resume(self, device: Device, delivery: Delivery) -> None:
        """It failed in an earlier life of this process."""
        device.failures = max(device.failures, delivery.attempts)
        device.not_before = max(device.not_before, delivery.next_try)

    def _insert(self, device: Device, delivery: Delivery) -> None:
        queue = device.queue
        queue.append(delivery)
        if len(queue) > 1 and queue[-2].id > delivery.id:
            device.queue = deque(sorted(queue, key=_number))

    def _place(self, device: Device, now: float) -> None:
        """Find the state of an idle device with something in its queue."""
        if device.not_before > now:
            # No wait is longer; if this one is, the clock was set back.
            device.not_before = min(device.not_before, now + self._policy.cap)
            device.state = RETRY
            device.wake = self._wake_at(device.not_before, device)
        elif device.in_flight and device.started <= now < device.started + GAP:
            # Compared as it is written down: 'now - started' may be below the gap when its time has come.
            device.state = HELD
            device.wake = self._wake_at(device.started + GAP, device)
        else:
            device.state = READY
            device.lane.ready.append(device)

    def _unplace(self, device: Device) -> None:
        if device.state == READY:
            device.lane.ready.remove(device)
        elif device.wake is not None:
            device.wake[2] = None
            device.wake = None
        device.state = IDLE

    def _back(self, device: Device, delivery: Delivery, now: float) -> None:
        """One of its requests is not in flight any more."""
        self.in_flight -= 1
        device.lane.in_flight -= 1
        device.in_flight -= 1
        if device.queue:
            if device.state == HELD and not device.in_flight:
                self._unplace(device)
            if device.state == IDLE:
                self._place(device, now)
        elif not device.in_flight:
            del self._devices[_device_of(delivery)]

    def _answered(self, lane: Lane) -> None:
        lane.breaker.succeeded()
        if lane.wake is not None and not lane.breaker.is_open:
            lane.wake[2] = None
            lane.wake = None

    # Replacing.

    def _replaced(self, device: Device, delivery: Delivery) -> Sequence[Delivery]:
        """What a delivery that has just come into the queue makes superfluous."""
        if not self._collapse:
            return ()
        newest = device.newest
        if newest is None:
            newest = device.newest = {}
            gone: list[Delivery] = []
            for each in tuple(device.queue):
                gone.extend(self._superseded(device, newest, each))
            return gone
        return self._superseded(device, newest, delivery)

    def _superseded(
        self, device: Device, newest: dict[object, Delivery], delivery: Delivery
    ) -> Sequence[Delivery]:
        key = collapse_key(delivery)
        if key is None:
            return ()
        other = newest.get(key)
        if other is None or other.id < delivery.id:
            newest[key] = delivery
        if other is None:
            return ()
        older = other if other.id < delivery.id else delivery
        device.queue.remove(older)
        self.queued -= 1
        return (older,)

    def _take_out(self, device: Device, delivery: Delivery) -> None:
        device.queue.remove(delivery)
        self.queued -= 1
        if not device.queue:
            self._unplace(device)


def _number(delivery: Delivery) -> int:
    return delivery.id


def _device_of(delivery: Delivery) -> str:
    """Its path; of an app's device with the app, for which another one's push service says nothing."""
    path, service = delivery.path, delivery.service
    return service + path if "@" in service else path
