"""Many writes in one transaction, and what a bad one does to the others."""

import sqlite3
from types import SimpleNamespace

import pytest

from xmpppush.errors import LimitReached, StorageError
from xmpppush.storage.engine import connect
from xmpppush.storage.writer import Job, Transactions


@pytest.fixture
def database(tmp_path):
    """A table of positive numbers, batches on it, and its committed statements."""
    connection = connect(tmp_path / "test.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE numbers (n INTEGER UNIQUE CHECK (n > 0), padding)")
    statements = []
    connection.set_trace_callback(statements.append)
    transactions = Transactions(connection)
    yield SimpleNamespace(
        path=tmp_path / "test.db",
        connection=connection,
        transactions=transactions,
        commits=lambda: statements.count("COMMIT"),
        numbers=lambda: [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY rowid")],
    )
    connection.close()


def insert(cursor, number):
    cursor.execute("INSERT INTO numbers (n) VALUES (?)", (number,))
    return number


def insert_then_raise(cursor, number, error):
    insert(cursor, number)
    raise error


def insert_each(cursor, numbers):
    cursor.executemany("INSERT INTO numbers (n) VALUES (?)", [(number,) for number in numbers])
    return [-number for number in numbers]


def count(cursor):
    return cursor.execute("SELECT count(*) FROM numbers").fetchone()[0]


def plain(function, *args):
    return Job(None, function, args, False)


def grouped(function, item):
    return Job(None, function, item, True)


def test_a_batch_is_one_commit(database):
    """A hundred writes cost one commit, and each gets its own result in order."""
    batch = database.transactions.run([plain(insert, number) for number in range(1, 101)])
    assert batch.outcomes == list(range(1, 101))
    assert database.commits() == 1
    assert batch.changed
    assert batch.trouble is None


def test_grouped_writes_are_one_call(database):
    """A function gets all its items of the batch, though others are between them."""
    calls = []

    def note(cursor, items):
        calls.append(list(items))
        return items

    jobs = [grouped(note, 1), grouped(insert_each, 7), grouped(note, 2)]
    assert database.transactions.run(jobs).outcomes == [1, -7, 2]
    assert calls == [[1, 2]]


def test_a_plain_write_is_a_barrier(database):
    """It sees the grouped writes before it, and not those after it."""
    jobs = [
        grouped(insert_each, 1),
        grouped(insert_each, 2),
        plain(count),
        grouped(insert_each, 3),
        plain(count),
    ]
    assert database.transactions.run(jobs).outcomes == [-1, -2, 2, -3, 3]


def test_a_failing_write_is_undone_alone(database):
    """What it did before it raised is gone, what the others did is there."""
    error = ValueError("no")
    jobs = [plain(insert, 1), plain(insert_then_raise, 2, error), plain(insert, 3)]
    assert database.transactions.run(jobs).outcomes == [1, error, 3]
    assert database.numbers() == [1, 3]


def test_a_bad_row_in_a_group_fails_alone(database):
    """The group is done again one by one."""
    jobs = [grouped(insert_each, number) for number in (1, 2, -3, 4)]
    outcomes = database.transactions.run(jobs).outcomes
    assert isinstance(outcomes[2], sqlite3.IntegrityError)
    assert outcomes[:2] + outcomes[3:] == [-1, -2, -4]
    assert database.numbers() == [1, 2, 4]
    assert database.commits() == 1


def test_a_result_may_be_a_refusal(database):
    """Where a grouped function returns an exception for an item, nothing is done again."""
    refusal = LimitReached()

    def refuse_two(cursor, items):
        return [refusal if item == 2 else item for item in items]

    assert database.transactions.run([grouped(refuse_two, 1), grouped(refuse_two, 2)]).outcomes == [
        1,
        refusal,
    ]


def test_notes_are_void_after_a_rollback(database):
    """Whoever remembers what it wrote is told; a refusal, which anybody can cause, voids nothing."""
    told = []
    database.transactions.rollback_callbacks.append(lambda: told.append(True))
    database.transactions.run([plain(insert_then_raise, 1, LimitReached())])
    assert told == []
    database.transactions.run([plain(insert_then_raise, 1, KeyError())])
    assert told == [True]


def test_text_that_is_no_unicode_is_not_shown(database):
    """The exception of the codec holds the whole text; ours does not."""

    def insert_text(cursor):
        cursor.execute("INSERT INTO numbers (n, padding) VALUES (1, ?)", ("secret\ud800",))

    (outcome,) = database.transactions.run([plain(insert_text)]).outcomes
    assert isinstance(outcome, StorageError)
    assert "secret" not in repr(outcome)


def test_a_full_disk_fails_every_write_of_the_batch(database):
    """SQLite rolls back by itself then: nothing of the batch is there, and nobody is told otherwise."""
    pages = database.connection.execute("PRAGMA page_count").fetchone()[0]
    database.connection.execute(f"PRAGMA max_page_count = {pages + 3}")

    def insert_much(cursor, number):
        cursor.execute("INSERT INTO numbers VALUES (?, ?)", (number, b"x" * 30_000))

    batch = database.transactions.run([plain(insert, 1), plain(insert_much, 2), plain(insert, 3)])
    kept = [number for number, outcome in zip((1, 2, 3), batch.outcomes, strict=True) if outcome == number]
    assert database.numbers() == kept
    assert isinstance(batch.outcomes[1], StorageError)
    assert "full" in batch.trouble


def test_a_commit_that_fails_fails_them_all(database):
    """Nothing is reported as stored, each write has an exception of its own, the next batch works."""
    connection = database.connection
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("CREATE TABLE pairs (n INTEGER REFERENCES numbers (n) DEFERRABLE INITIALLY DEFERRED)")

    def insert_lone(cursor):
        cursor.execute("INSERT INTO pairs VALUES (99)")

    batch = database.transactions.run([plain(insert, 1), plain(insert_lone)])
    assert [type(outcome) for outcome in batch.outcomes] == [StorageError, StorageError]
    assert batch.outcomes[0] is not batch.outcomes[1]
    assert not batch.changed
    assert database.numbers() == []
    assert database.transactions.run([plain(insert, 1)]).outcomes == [1]


def test_another_process_is_noticed(database):
    """Its commits are seen with the next batch, our own are not mistaken for one."""
    assert not database.transactions.run([plain(insert, 1)]).foreign
    assert not database.transactions.run([plain(insert, 2)]).foreign
    other = connect(database.path)
    insert(other.cursor(), 3)
    other.close()
    assert database.transactions.run([plain(insert, 4)]).foreign
    assert not database.transactions.run([plain(insert, 5)]).foreign
