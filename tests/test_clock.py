"""The system clock is set, and nothing that waits notices."""

import pytest
from twisted.internet import reactor
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from xmpppush import tap
from xmpppush.clock import ClockWatch, WallClock, keep_steady, steady_seconds

NOW = 1_800_000_000.0
HOUR = 3600.0


class Times:
    """What the system would say."""

    def __init__(self):
        self.wall, self.steady = NOW, 77.0

    def pass_by(self, seconds):
        self.wall += seconds
        self.steady += seconds

    def seconds(self):
        return steady_seconds(lambda: self.wall, lambda: self.steady)


@pytest.fixture
def times():
    return Times()


class Reactor(ReactorBase):
    """Twisted's timers, and nothing else of a reactor."""

    def installWaker(self):
        """Nobody wakes it."""


@pytest.mark.parametrize("step", [-HOUR, HOUR, -NOW])
def test_a_step_changes_no_timer(times, step):
    """Neither those that were set before it nor those after."""
    timers = Reactor()
    keep_steady(timers, times.seconds())
    called = []
    timers.callLater(10, called.append, "before")
    timers.runUntilCurrent()
    times.wall += step
    timers.callLater(10, called.append, "after")
    times.pass_by(9)
    timers.runUntilCurrent()
    assert called == []
    times.pass_by(2)
    timers.runUntilCurrent()
    assert sorted(called) == ["after", "before"]


def test_it_begins_with_the_time_of_the_system(times):
    """So it can be compared with what an earlier process wrote."""
    seconds = times.seconds()
    assert seconds() == NOW
    times.wall -= HOUR
    times.pass_by(5)
    assert seconds() == NOW + 5
    assert times.seconds()() == NOW + 5 - HOUR


def test_the_server_keeps_its_reactor_steady(monkeypatch):
    """As soon as twistd asks for the service, before there is any timer of ours."""
    monkeypatch.setattr(reactor, "seconds", reactor.seconds)  # and back again
    options = tap.Options()
    options.parent, options.configuration = {}, None
    tap.makeService(options)
    assert reactor.seconds.__qualname__.startswith("steady_seconds")


def test_time_stamps_follow_the_system(times):
    """They are for people; the timers are the reactor's."""
    clock = Clock()
    wall = WallClock(clock, lambda: times.wall)
    verifyObject(IReactorTime, wall)
    times.wall -= HOUR
    assert wall.seconds() == NOW - HOUR
    called = []
    wall.callLater(3, called.append, 1)
    assert wall.getDelayedCalls() == clock.getDelayedCalls() != []
    clock.advance(3)
    assert called == [1]


def test_each_step_is_told_once(times, events):
    """And not what NTP does all the time."""
    clock = Clock()
    clock.advance(NOW)
    watch = ClockWatch(clock, WallClock(clock, lambda: times.wall))
    watch.startService()

    def minutes(count):
        for _ in range(count * 6):
            times.wall += 10
            clock.advance(10)

    minutes(2)
    times.wall += 0.5
    minutes(2)
    assert events == []
    times.wall -= HOUR
    minutes(5)
    times.wall += 2 * HOUR
    minutes(5)
    assert [(event["direction"], round(event["seconds"])) for event in events] == [
        ("back", 3600),
        ("forward", 7200),
    ]
    watch.stopService()
    assert clock.getDelayedCalls() == []
