import pytest

from xmpppush.server.throttle import Throttle, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("/run/socket", "/run/socket"),
        ("", ""),
    ],
)
def test_network_of_an_address(address, network):
    """One customer's IPv6 addresses count as one; an IPv4 address is the same however it is written."""
    assert network_of(address) == network


def test_blocked_after_the_last_failure_until_the_window_is_over():
    """From the third failure on blocked, until the first of them is a window old."""
    throttle = Throttle(3, 60.0)
    assert [throttle.failed("a", now) for now in (0.0, 10.0)] == [False, False]
    assert not throttle.is_blocked("a", 10.0)
    assert throttle.failed("a", 20.0)
    assert throttle.is_blocked("a", 59.9)
    assert not throttle.is_blocked("b", 59.9)
    assert not throttle.is_blocked("a", 60.0)


def test_blocking_is_told_once():
    """Only the failure that blocks says so: the log has one line for it."""
    throttle = Throttle(2, 60.0)
    assert [throttle.failed("a", 0.0) for _ in range(4)] == [False, True, False, False]
    assert [throttle.failed("a", 100.0) for _ in range(2)] == [False, True]


def test_success_forgets():
    """After a success counting begins anew."""
    throttle = Throttle(2, 60.0)
    throttle.failed("a", 0.0)
    throttle.succeeded("a")
    throttle.succeeded("never seen")
    throttle.failed("a", 1.0)
    assert not throttle.is_blocked("a", 1.0)


def test_zero_never_blocks():
    """max_failures = 0 switches it off, and nothing is remembered."""
    throttle = Throttle(0, 60.0)
    assert not any(throttle.failed("a", 0.0) for _ in range(100))
    assert not throttle.is_blocked("a", 0.0)
    assert len(throttle) == 0


def test_memory_is_bounded():
    """However many names fail, the longest ago is forgotten."""
    throttle = Throttle(1, 60.0, capacity=10)
    for number in range(100):
        throttle.failed(str(number), 0.0)
    assert len(throttle) == 10
    assert throttle.is_blocked("99", 0.0)
    assert not throttle.is_blocked("0", 0.0)


def test_old_failures_are_forgotten_when_asked_about():
    """A name whose failures are all too old takes no room."""
    throttle = Throttle(3, 60.0)
    throttle.failed("a", 0.0)
    assert not throttle.is_blocked("a", 61.0)
    assert len(throttle) == 0
