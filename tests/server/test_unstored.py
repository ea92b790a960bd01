"""Pushes that wait in memory for the disk."""

import pytest
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock

from xmpppush.errors import StorageError
from xmpppush.server import unstored
from xmpppush.server.unstored import Unstored
from xmpppush.testing.builders import a_delivery


class Messages:
    """A store that works or not."""

    works = False

    def keep(self, message, deliveries, limit):
        assert message is None
        return succeed(tuple(deliveries)) if self.works else fail(StorageError("database or disk is full"))


class World:
    def __init__(self):
        self.clock, self.messages, self.sent, self.dropped = Clock(), Messages(), [], []
        self.unstored = Unstored(
            self.messages, self.clock, self.sent.extend, lambda some, error: self.dropped.extend(some)
        )


@pytest.fixture
def world():
    return World()


def pushes(count):
    return [a_delivery(node=f"n{number}") for number in range(count)]


def test_they_are_stored_in_their_order_when_the_disk_is_well(world, events):
    """However long that takes; two lines tell of it."""
    some = pushes(1200)
    for each in some:
        world.unstored.keep([each])
    world.clock.pump([5.0] * 100)
    assert world.sent == []
    world.messages.works = True
    world.clock.advance(5)
    assert world.sent == some
    assert [event["log_level"].name for event in events] == ["warn", "info"]
    assert events[-1]["count"] == 1200
    assert world.clock.getDelayedCalls() == []


def test_there_is_an_end_to_the_room(world, events, monkeypatch):
    """What is too much is dropped, and said once."""
    monkeypatch.setattr(unstored, "MOST", 10)
    for each in pushes(15):
        world.unstored.keep([each])
    assert len(world.dropped) == 5
    assert [event["log_level"].name for event in events] == ["warn", "error"]
    world.messages.works = True
    world.clock.advance(5)
    assert len(world.sent) == 10
    assert (events[-1]["count"], events[-1]["lost"]) == (10, 5)


@pytest.mark.parametrize("works", [True, False])
def test_stopping_tries_once_more(world, works):
    """Stored they are sent after the next start; else the trace says that they are lost."""
    world.unstored.keep(pushes(3))
    world.messages.works = works
    world.unstored.stop()
    assert world.sent == []
    assert len(world.dropped) == (0 if works else 3)
    assert world.clock.getDelayedCalls() == []
