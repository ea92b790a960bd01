"""
Two clocks: one that only goes on, for all that waits, and the system's, for all that is shown.

The system clock is set back and forth: by NTP after a boot, by hand, by a virtual machine that wakes up.
Twisted's timers go by it: set back an hour, they are all an hour late, and set forward a day, every
notification that waits is too old. So the reactor gets `steady_seconds`, and timers, retries, ``ttl`` and
time-outs do not notice. Time stamps (delayed delivery, trace, entity time, certificates) are read from
`WallClock`.
"""

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

WATCHED_EVERY = 10.0  # seconds
NOTICED = 2.0  # seconds; NTP steps by less only at its start, and leap seconds are no news


def steady_seconds(
    wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
) -> Callable[[], float]:
    """
    A clock of seconds since the epoch as the system clock had it now, and since then only forward.

    A restart begins with the system clock again, so what is on disk is compared with that.
    """
    began = wall() - steady()

    def seconds() -> float:
        # Asked a dozen times for each push, so not a method.
        return steady() + began

    return seconds


def keep_steady(reactor: Any, seconds: Callable[[], float] | None = None) -> None:
    """Have this reactor's timers go by steady time; before it has any."""
    reactor.seconds = seconds or steady_seconds()


@implementer(IReactorTime)
class WallClock:
    """
    The reactor's timers, and the system clock's time.

    ``seconds`` may go back: good for a time stamp, and for no difference.
    """

    def __init__(self, reactor: Any, now: Callable[[], float] = time.time) -> None:
        self._reactor = reactor
        self.seconds = now

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        later: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return later

    def getDelayedCalls(self) -> Any:
        return self._reactor.getDelayedCalls()


class ClockWatch(Service):
    """Tells the operator once of each time that the system clock was set."""

    _log = Logger()

    def __init__(self, reactor: Any, wall: WallClock) -> None:
        self.setName("clock")
        self._reactor = reactor
        self._wall = wall
        self._difference = 0.0
        self._calls = LoopingCall(self._look)
        self._calls.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._difference = self._wall.seconds() - self._reactor.seconds()
        self._calls.start(WATCHED_EVERY, now=False)

    def stopService(self) -> None:
        super().stopService()
        self._calls.stop()

    def _look(self) -> None:
        difference = self._wall.seconds() - self._reactor.seconds()
        step = difference - self._difference
        if abs(step) < NOTICED:
            return
        self._difference = difference
        self._log.warn(
            "the system clock was set {direction} by {seconds} s: time stamps follow it; retries, time-outs"
            " and ttl do not, until the next start",
            direction="forward" if step > 0 else "back",
            seconds=round(abs(step), 1),
        )
