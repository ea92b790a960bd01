"""What the outage benchmark counts, and what it has to find: a real server, a push service in trouble."""

import pytest

from benchmarks.outage import FAULTS, Ledger, Plan, measure
from benchmarks.pipeline import token_of

USERS = 3


def a_ledger(sent, taken):
    ledger = Ledger(USERS)
    ledger.sent.extend(range(sent))
    for number in taken:
        ledger.asked(number, token_of(number % USERS), True)
    return ledger


@pytest.mark.parametrize(
    ("taken", "lost", "lost_collapsed", "twice", "overtaken"),
    [
        ([0, 1, 2, 3, 4, 5], 0, 0, 0, 0),
        ([3, 4, 5], 3, 0, 0, 0),
        ([0, 1, 2, 3, 5], 1, 1, 0, 0),
        ([], 6, 6, 0, 0),
        ([3, 0, 1, 4, 2, 5, 5], 0, 0, 1, 1),
    ],
)
def test_what_is_lost(taken, lost, lost_collapsed, twice, overtaken):
    """A newer push to the same user tells of the older message as well, where pushes are collapsed."""
    ledger = a_ledger(6, taken)
    assert (ledger.lost(False), ledger.lost(True)) == (lost, lost_collapsed)
    assert (ledger.duplicates, ledger.overtaken) == (twice, overtaken)


def test_what_was_not_taken_does_not_count():
    """A request that got an error, or is for somebody else's device."""
    ledger = a_ledger(1, [])
    ledger.asked(0, token_of(0), False)
    ledger.asked(0, token_of(1), True)
    assert (ledger.requests[0], ledger.lost(False)) == (2, 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_can_be_acted(fault):
    """An answer is whole HTTP, or there is none."""
    answer = FAULTS[fault]()
    assert answer is None or (answer.startswith(b"HTTP/1.1 ") and answer.endswith(b"\r\n\r\n"))


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "collapse"), [*((fault, False) for fault in FAULTS), ("down", True)])
def test_a_push_service_in_trouble(fault, collapse):
    """
    Some hundred messages a second for absent devices: each has its push in the end, or with collapse a
    newer one of its sender has. None is tried too often, and the log tells of beginning and end.
    """
    plan = Plan(
        users=50,
        before=0.5,
        lasting=2.0,
        after=0.5,
        collapse=collapse,
        retry_base="100ms",
        retry_cap="1s",
        request_timeout="1s" if fault == "hanging" else "5s",
    )
    episode = measure(fault, plan)
    assert (episode.lost, episode.queued, episode.errors) == (0, 0, 0), episode
    assert 1 < episode.tries <= plan.max_attempts or collapse
    assert episode.messages == plan.messages
    assert (episode.pushes < episode.messages) is collapse
    # On a busy machine a healthy service may miss a second, too, which makes it an outage of its own.
    assert len(episode.lines) == 2 or (fault == "hanging" and len(episode.lines) <= 6), episode.lines
