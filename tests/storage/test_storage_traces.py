"""A large trace: nobody waits for its being looked through or pruned."""

import threading
from itertools import pairwise

import pytest
import pytest_twisted
from twisted.internet import reactor

from xmpppush.config.sections import StorageSection
from xmpppush.model import TraceLimits
from xmpppush.storage import open_storage
from xmpppush.storage.memory import memory_storage
from xmpppush.storage.traces import PRUNED_NOTES, PRUNED_ROWS, insert_notes, prune_notes
from xmpppush.testing.stores import a_note

UNLIMITED = TraceLimits(0.0, 10**9)
BUSY = 1000  # notes in a row of a busy server


@pytest.fixture
def cursor():
    return memory_storage().database._connection.cursor()


def fill(cursor, rows, each):
    for number in range(rows):
        insert_notes(cursor, [([a_note(at=float(number))] * each, UNLIMITED)])


def kept(cursor):
    """Rows, and notes."""
    rows, oldest, newest = cursor.execute("SELECT count(*), min(number), max(number) FROM traces").fetchone()
    return rows, newest - oldest


@pytest.mark.parametrize("limits", [TraceLimits(0.0, 100), TraceLimits(10**6, 10**9)])
def test_a_round_of_pruning_is_short(cursor, limits):
    """By notes where rows are long, by rows where they are short; the rounds come to an end all the same."""
    fill(cursor, 20, BUSY)
    rounds = []
    while rows := prune_notes(cursor, limits):
        rounds.append(rows * BUSY)
    assert max(rounds) <= PRUNED_NOTES + BUSY
    assert sum(rounds) >= 19 * BUSY
    fill(cursor, 2000, 1)
    assert prune_notes(cursor, TraceLimits(10**6, 10**9)) <= PRUNED_ROWS * 10


def test_a_write_prunes_little_and_yet_enough(cursor):
    """What is far too much goes by and by, while as much comes."""
    fill(cursor, 100, BUSY)
    limits = TraceLimits(0.0, 20 * BUSY)
    notes = []
    for _ in range(200):
        insert_notes(cursor, [([a_note()] * BUSY, limits)])
        notes.append(kept(cursor)[1])
    gone = [before - after for before, after in pairwise(notes)]
    assert max(gone) <= 2 * BUSY  # of three thousand that go at the most, one came
    assert notes[-1] <= 21 * BUSY


def test_a_write_of_many_rows_prunes_as_many(cursor):
    """A writer that was held up brings much at once."""
    fill(cursor, 100, 10)
    limits = TraceLimits(0.0, 500)
    for _ in range(20):
        insert_notes(cursor, [([a_note()] * 10, limits) for _ in range(50)])
    assert kept(cursor)[1] <= 500 + 500


@pytest_twisted.ensureDeferred
async def test_looking_through_it_holds_up_no_write(tmp_path):
    """A person reads; messages must not wait for that."""
    storage = open_storage(StorageSection(url="sqlite:///xmpppush.db"), tmp_path, reactor)
    storage.startService()
    try:
        await storage.traces.add([a_note()], UNLIMITED)
        release = threading.Event()
        storage.database.write(lambda cursor: release.wait(10))
        notes = await storage.traces.of("alice@localhost", 1)
        release.set()
        assert notes == (a_note(),)
    finally:
        release.set()
        await storage.stopService()
