"""The circuit breaker, which is told the time."""

import pytest

from xmpppush.mod_push_service_mongoosepush.breaker import FIRST_ROOM, THRESHOLD, UNLIMITED, Breaker
from xmpppush.mod_push_service_mongoosepush.retry import RetryPolicy


def a_breaker(full=100, chance=1.0, **policy):
    return Breaker(RetryPolicy(**policy), full, lambda: chance)


def opened(breaker, now=0.0, after=None):
    assert breaker.failed("device", "connection refused", now, after, unreachable=True)
    return breaker


def test_closed_there_is_room_for_all():
    """And successes need not be told."""
    breaker = a_breaker()
    assert (breaker.room, breaker.is_open, breaker.troubled) == (UNLIMITED, False, False)


def test_it_opens_after_failures_in_a_row():
    """Of different devices: one that always fails is its own business."""
    breaker = a_breaker()
    for _ in range(20):
        assert not breaker.failed("same", "429", 0.0)
    assert [breaker.failed(f"{number}", "503", 0.0) for number in range(THRESHOLD - 1)] == [
        *[False] * (THRESHOLD - 2),
        True,
    ]
    assert (breaker.room, breaker.until, breaker.reason) == (0, 1.0, "503")


def test_a_success_in_between_starts_the_count_again():
    """The push service works, then."""
    breaker = a_breaker()
    for number in range(20):
        assert not breaker.failed(f"{number}", "503", 0.0)
        breaker.succeeded()
    assert not breaker.troubled


def test_without_a_connection_it_opens_at_once():
    """The others would not get one either."""
    assert opened(a_breaker()).is_open


def test_one_probe_when_the_time_has_come():
    """And no second one before it is answered."""
    breaker = opened(a_breaker())
    assert not breaker.may_probe(0.9)
    assert breaker.may_probe(1.0)
    breaker.probe()
    assert not breaker.may_probe(99.0)
    assert breaker.is_open


def test_a_clock_that_is_set_back_does_not_put_the_probe_off():
    """No wait is longer than the cap."""
    breaker = opened(a_breaker(), 100_000.0)
    assert not breaker.may_probe(100_000.0 - 200.0)
    assert breaker.may_probe(5.0)


def test_each_probe_that_fails_doubles_the_wait_up_to_the_cap():
    """With jitter, and the same for any kind of failure."""
    breaker, now, waits = opened(a_breaker(cap=10.0)), 0.0, []
    for _ in range(5):
        now = breaker.until
        breaker.probe()
        assert breaker.failed("any", "503", now)
        waits.append(breaker.until - now)
    assert waits == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert opened(a_breaker(chance=0.0)).until == 0.5


@pytest.mark.parametrize(("after", "until"), [(0.5, 1.0), (30.0, 30.0), (9999.0, 300.0)])
def test_retry_after_is_honoured_up_to_the_cap(after, until):
    """Of the failure that opens it, and of those that were on their way."""
    assert opened(a_breaker(), after=after).until == until
    breaker = opened(a_breaker())
    assert not breaker.failed("other", "503", 0.0, after)
    assert breaker.until == until


def test_stragglers_do_not_make_it_wait_longer():
    """A hundred that were in flight fail after the first: that is one outage."""
    breaker = opened(a_breaker())
    for number in range(100):
        assert not breaker.failed(f"{number}", "connection lost", 0.5)
    assert breaker.until == 1.0


def test_behind_a_success_the_room_grows():
    """One more with each success, until it is as good as closed."""
    breaker = opened(a_breaker(full=10))
    breaker.probe()
    breaker.succeeded()
    assert breaker.room == FIRST_ROOM
    breaker.succeeded()
    assert (breaker.room, breaker.troubled) == (FIRST_ROOM + 1, True)
    for _ in range(5):
        breaker.succeeded()
    assert (breaker.room, breaker.troubled) == (UNLIMITED, False)
    assert opened(breaker).until == 1.0  # all is forgotten


def test_a_relapse_while_it_grows_waits_longer_than_the_first_time():
    """It was not well yet."""
    breaker = opened(a_breaker())
    breaker.probe()
    breaker.succeeded()
    assert opened(breaker, 10.0).until == 12.0


def test_a_probe_that_was_not_sent_leaves_its_place():
    """What was too old to be sent, say."""
    breaker = opened(a_breaker())
    breaker.probe()
    breaker.learnt_nothing(5.0)
    assert breaker.may_probe(5.0)
    closed = a_breaker()
    closed.learnt_nothing(5.0)
    assert closed.until is None
