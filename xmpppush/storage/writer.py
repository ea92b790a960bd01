"""
Many writes, one commit.

A disk commits a few hundred times a second, a server keeps thousands of messages in that time: so what
waits is written as one transaction, and everybody waits for the same commit.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from attrs import define, field

from xmpppush.errors import PushError, StorageError

# A commit costs much the same for one row and for a hundred. So while writes come in quicker than one by
# one they are gathered: until none came for QUIET seconds, for LONGEST at the most. A lone write does not
# wait. At 3500 messages a second that is 140 commits instead of 1900, and a third less CPU for each.
QUIET = 0.002
LONGEST = 0.02


class Job(NamedTuple):
    """
    One call of `write` or `write_grouped`.

    Attributes:
        deferred: For the caller; nobody touches it in the writer's thread.
        args: Arguments after the cursor; of a grouped job its item alone.
    """

    deferred: Any
    function: Callable[..., Any]
    args: Any
    grouped: bool


@define
class Batch:
    """
    What became of jobs that shared a commit.

    Attributes:
        outcomes: A result or an exception for each job, in order.
        trouble: Why SQLite failed, ``None`` if it did not.
        changed: Rows were written, and are on disk.
        foreign: Another process wrote since the last batch.
        seconds: How long it took, commit included.
    """

    jobs: Sequence[Job]
    outcomes: list[Any] = field(factory=list)
    trouble: str | None = None
    changed: bool = False
    foreign: bool = False
    seconds: float = 0.0


class _TransactionLost(Exception):
    """SQLite rolled everything back by itself, as it does on a full disk."""


class Transactions:
    """Runs batches on a connection; all calls from one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._data_version = self._current_data_version()
        self._batch = Batch(())
        self.rollback_callbacks: list[Callable[[], object]] = []

    def run(self, jobs: Sequence[Job]) -> Batch:
        """Run the jobs as one transaction; raises nothing."""
        batch = self._batch = Batch(jobs)
        before = self._connection.total_changes
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            self._notice_foreign_writes()
            batch.outcomes = self._outcomes_of(jobs)
            self._cursor.execute("COMMIT")
            batch.changed = self._connection.total_changes != before
        except Exception as error:
            self._roll_back()
            batch.trouble = batch.trouble or str(error)
            # One each: a Failure writes on its exception.
            batch.outcomes = [StorageError(f"cannot write: {batch.trouble}") for _ in jobs]
        return batch

    def close(self) -> None:
        """No more batches."""
        self._connection.close()

    def _outcomes_of(self, jobs: Sequence[Job]) -> list[Any]:
        outcomes: list[Any] = [None] * len(jobs)
        groups: dict[Callable[..., Any], list[int]] = {}
        for number, job in enumerate(jobs):
            if job.grouped:
                groups.setdefault(job.function, []).append(number)
            else:
                self._run_groups(groups, jobs, outcomes)
                outcomes[number] = self._run_alone(job.function, job.args)
        self._run_groups(groups, jobs, outcomes)
        return outcomes

    def _run_groups(
        self, groups: dict[Callable[..., Any], list[int]], jobs: Sequence[Job], outcomes: list[Any]
    ) -> None:
        for function, numbers in groups.items():
            items = [jobs[number].args for number in numbers]
            results = self._run_alone(function, (items,))
            if isinstance(results, Exception):
                # Somewhere in there is a faulty one, and the others shall not suffer.
                results = [self._run_item(function, item) for item in items]
            for number, result in zip(numbers, results, strict=True):
                outcomes[number] = result
        groups.clear()

    def _run_item(self, function: Callable[..., Any], item: object) -> Any:
        results = self._run_alone(function, ([item],))
        return results if isinstance(results, Exception) else results[0]

    def _run_alone(self, function: Callable[..., Any], args: Sequence[object]) -> Any:
        """The function's result or, with all it did undone, its exception."""
        cursor = self._cursor
        cursor.execute("SAVEPOINT job")
        try:
            result = function(cursor, *args)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, _BY_CALLER):
                self._batch.trouble = str(error)
            # A refusal comes before anything is noted; what anybody may cause shall not cost the notes.
            if not isinstance(error, PushError):
                self._void()
            self._undo()
            return translated(error)
        cursor.execute("RELEASE job")
        return result

    def _undo(self) -> None:
        if not self._connection.in_transaction:
            raise _TransactionLost("the transaction was rolled back")
        self._cursor.execute("ROLLBACK TO job")
        self._cursor.execute("RELEASE job")

    def _roll_back(self) -> None:
        self._void()
        try:
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._batch.trouble = str(error)

    def _void(self) -> None:
        for callback in self.rollback_callbacks:
            callback()

    def _current_data_version(self) -> int:
        """A number that changes when another connection commits, and not when this one does."""
        return int(self._cursor.execute("PRAGMA data_version").fetchone()[0])

    def _notice_foreign_writes(self) -> None:
        data_version = self._current_data_version()
        if data_version != self._data_version:
            self._data_version = data_version
            self._batch.foreign = True
            self._void()


# A fault of the row, not of the database.
_BY_CALLER = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


def translated(error: Exception) -> Exception:
    """What a caller gets to see of an exception in a function of a cursor."""
    if isinstance(error, UnicodeError):
        # Its ``object`` is the whole text, and this may be a token.
        return StorageError("text that is not Unicode cannot be stored")
    if isinstance(error, sqlite3.Error) and not isinstance(error, _BY_CALLER):
        return StorageError(f"the database failed: {error}")
    return error


class Writer:
    """
    The one thread that writes.

    It is a daemon: a process that ends without `stop` does not hang, and what was not committed was not
    acknowledged to anybody.

    Args:
        report: Called in the writer's thread with every `Batch`, in order.
        closed: Called there at the very end.

    Attributes:
        busy_since: ``time.monotonic()`` at the begin of the batch that is being written, else ``None``.
    """

    def __init__(
        self,
        transactions: Transactions,
        report: Callable[[Batch], object],
        closed: Callable[[], object],
        quiet: float = QUIET,
        longest: float = LONGEST,
    ) -> None:
        self._transactions = transactions
        self._report = report
        self._closed = closed
        self._quiet = quiet
        self._longest = longest
        self.busy_since: float | None = None
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self.put = self._queue.put
        self._thread = threading.Thread(target=self._run, name="storage writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what was put before, close the connection, end."""
        self._queue.put(None)

    def _run(self) -> None:
        running = True
        while running:
            jobs = [self._queue.get()]
            began = time.monotonic()
            # No more than there is now: the reactor may add as quickly as we take.
            jobs += [self._queue.get() for _ in range(self._queue.qsize())]
            work = [job for job in jobs if job is not None]
            running = len(work) == len(jobs)
            if work:
                self._write(work)
            if running and len(work) > 1:
                self._gather(began + self._longest)
        self._transactions.close()
        self._closed()

    def _write(self, work: Sequence[Job]) -> None:
        self.busy_since = began = time.monotonic()
        batch = self._transactions.run(work)
        batch.seconds = time.monotonic() - began
        self.busy_since = None
        self._report(batch)

    def _gather(self, until: float) -> None:
        seen = -1
        while (waiting := self._queue.qsize()) != seen and time.monotonic() < until:
            seen = waiting
            time.sleep(self._quiet)
