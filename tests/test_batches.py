"""Bursts on a clock: the first push of a window and the last."""

from twisted.internet.task import Clock

from xmpppush.batches import Batches
from xmpppush.testing.builders import a_delivery


class World:
    def __init__(self, seconds=10.0):
        self.clock = Clock()
        self.clock.advance(1000)
        self.sent, self.dropped, self.number = [], [], 0
        self.batches = Batches(
            seconds, self.clock, lambda delivery: self.sent.append(delivery.id), self.dropped.extend
        )

    def push(self, **changes):
        """From placed to stored and handed over, as the publisher does it."""
        self.number += 1
        placed = self.batches.place(a_delivery(id=self.number, **changes))
        self.stored(placed)

    def stored(self, placed):
        if placed.next_try:
            self.batches.hold(placed)
        else:
            self.sent.append(placed.id)


def test_of_a_burst_the_first_and_the_last_are_sent():
    """The ones between are dropped, each as soon as it is replaced."""
    world = World()
    for _ in range(5):
        world.push()
        world.clock.advance(1)
    assert (world.sent, world.dropped) == ([1], [2, 3, 4])
    world.clock.advance(4.9)
    assert world.sent == [1]
    world.clock.advance(0.1)
    assert world.sent == [1, 5]


def test_a_lone_push_waits_for_nothing():
    """Neither before nor after its window; nothing is left ticking."""
    world = World()
    world.push()
    world.clock.advance(10)
    world.push()
    assert world.sent == [1, 2]
    world.clock.advance(10)
    assert world.clock.getDelayedCalls() == []


def test_a_burst_that_goes_on_gets_one_push_a_window():
    """The one at the end of a window opens the next."""
    world = World()
    for _ in range(25):
        world.push()
        world.clock.advance(1)
    assert world.sent == [1, 10, 20]
    world.clock.pump([1] * 20)
    assert world.sent == [1, 10, 20, 25]
    assert world.clock.getDelayedCalls() == []


def test_devices_do_not_wait_for_each_other():
    """A window is one registration's."""
    world = World()
    world.push(node="a")
    world.clock.advance(5)
    world.push(node="b")
    world.push(node="a")
    world.push(account="bob@localhost", node="a")
    assert world.sent == [1, 2, 4]
    world.push(node="b")
    world.clock.advance(5)
    assert world.sent == [1, 2, 4, 3]
    world.clock.advance(5)
    assert world.sent == [1, 2, 4, 3, 5]


def test_what_is_held_is_dropped_when_the_device_is_back():
    """It has the messages by then; the window stays."""
    world = World()
    world.push()
    world.push()
    world.batches.forget(("alice@localhost", "pubsub.localhost", "node-1"))
    world.batches.forget(("alice@localhost", "pubsub.localhost", "node-1"))
    world.batches.forget(("alice@localhost", "pubsub.localhost", "unknown"))
    assert world.dropped == [2]
    world.push()
    world.clock.advance(10)
    assert world.sent == [1, 3]


def test_what_is_stored_after_its_window_is_sent_at_once():
    """A slow disk loses nothing."""
    world = World()
    world.push()
    late = world.batches.place(a_delivery(id=2))
    world.clock.advance(11)
    world.stored(late)
    assert world.sent == [1, 2]
