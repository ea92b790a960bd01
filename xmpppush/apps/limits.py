"""How often: registrations of a user, publishes of a domain, pushes to a device."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from xmpppush.batches import Batches
from xmpppush.errors import PushError, TryLater
from xmpppush.interfaces import IMessageStore, IPushService
from xmpppush.model import Delivery, Notification, Publish

MAX_KEYS = 100_000
CALL = -1.0  # a time that is over, on disk too: `Delivery.next_try` of what rings


class Windows:
    """
    Counts what happens in windows of time, all of them of one length and at the same time.

    Args:
        seconds: How long a window is.
    """

    def __init__(self, seconds: float, clock: IReactorTime) -> None:
        self._seconds = seconds
        self._clock = clock
        self._window = 0
        self._counts: Counter[str] = Counter()

    def has_room(self, key: str, limit: int) -> bool:
        """One more, of ``limit`` at the most in a window; 0: no limit."""
        if not limit:
            return True
        window = int(self._clock.seconds() / self._seconds)
        if window != self._window or len(self._counts) >= MAX_KEYS:
            self._window = window
            self._counts.clear()
        self._counts[key] += 1
        return self._counts[key] <= limit


def is_call(notification: Notification) -> bool:
    """Shall a phone ring: as other servers say it in Tigase's way, or mod_push here in its own?"""
    extras = notification.extras
    if extras is not None and (extras.call is not None or (extras.encrypted and extras.encrypted.voip)):
        return True
    return notification.extra.get("priority") == "high"


@implementer(IPushService)
class RateLimited:
    """
    A push service whose devices get so much and no more (``[app:NAME] rate_limit``).

    Of what comes for a device within a window the first goes on at once, the last at the window's end; those
    between are dropped, since the last says all that they would have. Whoever published is answered at once.
    Calls are not counted: none is told of by what comes after it, nor of any use at the window's end.

    Args:
        windows: `Delivery.service` to seconds; what is not in it has no limit.
    """

    def __init__(
        self, push_service: IPushService, messages: IMessageStore, clock: Any, windows: Mapping[str, float]
    ) -> None:
        self._push_service = push_service
        self._messages = messages
        self._batches = {
            service: Batches(seconds, clock, push_service.enqueue, self._drop)
            for service, seconds in windows.items()
        }

    def prepare(self, publish: Publish, created: float) -> Delivery:
        delivery: Delivery = self._push_service.prepare(publish, created)
        if delivery.service in self._batches and is_call(publish.notification):
            return evolve(delivery, next_try=CALL)
        return delivery

    def enqueue(self, delivery: Delivery, first: Any = None) -> None:
        batches = self._batches.get(delivery.service)
        if batches is None or delivery.next_try == CALL:
            self._push_service.enqueue(delivery, first)
            return
        placed = batches.place(delivery)
        if placed is delivery:
            self._push_service.enqueue(delivery, first)
            return
        # On disk as well: a restart is not to send them all at once.
        self._messages.postpone(placed).addErrback(lambda _: None)
        batches.hold(placed)
        if first is not None:
            reason: PushError = TryLater("rate limit of the device")
            first(reason)

    def _drop(self, ids: Any) -> None:
        # A row that stays is sent after the next start, which is better than none.
        self._messages.settle(ids).addErrback(lambda _: None)
