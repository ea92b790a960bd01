"""Delays between tries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpppush.mod_push_service_mongoosepush.retry import RetryPolicy


@pytest.mark.parametrize(
    ("attempt", "delay"), [(1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 300.0), (10**6, 300.0)]
)
def test_delays_double_up_to_the_cap(attempt, delay):
    """With the luck that makes them longest."""
    assert RetryPolicy().delay_after(attempt, None, 1.0, 0.0) == delay


def test_chance_spreads():
    """Between half and the whole of it."""
    assert RetryPolicy(base=10.0).delay_after(1, None, 0.0, 0.0) == 5.0
    assert RetryPolicy(base=10.0).delay_after(1, None, 0.5, 0.0) == 7.5


@pytest.mark.parametrize(
    ("hint", "delay"), [(0.0, 1.0), (0.5, 1.0), (7.0, 7.0), (300.0, 300.0), (86400.0, 300.0)]
)
def test_the_hint_is_honoured_up_to_the_cap(hint, delay):
    """``retry_cap`` is the longest between two tries, whoever asks for more."""
    assert RetryPolicy().delay_after(1, hint, 1.0, 0.0) == delay


@pytest.mark.parametrize(
    ("limit", "attempt", "again"), [(3, 2, True), (3, 3, False), (1, 1, False), (0, 999, True)]
)
def test_max_attempts(limit, attempt, again):
    """Zero: no limit but the age."""
    assert (RetryPolicy(max_attempts=limit).delay_after(attempt, None, 0.5, 0.0) is not None) is again


def test_no_try_beyond_the_ttl():
    """A try that would come too late is none."""
    policy = RetryPolicy(base=10.0, ttl=100.0)
    assert policy.delay_after(1, None, 1.0, 90.0) == 10.0
    assert policy.delay_after(1, None, 1.0, 90.1) is None
    assert policy.is_too_old(100.1)
    assert not policy.is_too_old(100.0)


@given(st.integers(1, 10**9), st.none() | st.floats(0, 1e12), st.floats(0, 1), st.floats(-1e6, 1e9))
def test_a_delay_is_never_longer_than_the_cap_nor_past_the_ttl(attempt, hint, chance, age):
    """Whatever comes in."""
    policy = RetryPolicy()
    delay = policy.delay_after(attempt, hint, chance, age)
    assert delay is None or (0.0 < delay <= policy.cap and age + delay <= policy.ttl)
