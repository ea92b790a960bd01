"""
How functions of a cursor reach SQLite: through the writer's thread, or at once.

Both keep the same promises (`IDatabase`) with the same transactions.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from xmpppush.errors import StorageError
from xmpppush.http.outage import Outage
from xmpppush.interfaces import IDatabase
from xmpppush.metrics import Histogram
from xmpppush.storage.writer import Batch, Job, Transactions, Writer, translated

# Another process (the command line, a backup) may hold the lock so many seconds.
BUSY_TIMEOUT = 10.0
# Writes not yet committed: more, and producers shall wait; fewer again, and they go on.
HIGH_WATER = 5000
LOW_WATER = 1000
# A write that takes longer is trouble, whether or not it comes to an end.
STALLED = 3.0
WATCHED_EVERY = 1.0  # seconds
# Seconds: a read from the cache, a commit, a disk that has other things to do.
BOUNDS = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def connect(path: Path | str) -> sqlite3.Connection:
    """
    A connection in autocommit mode, to be used by one thread at a time.

    Raises:
        sqlite3.Error: As sqlite3 does.
    """
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    # Of WAL's modes only FULL has a commit on disk when it returns.
    connection.execute("PRAGMA synchronous = FULL")
    # Pages: rows that are settled before this much was written never move into the database itself.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
    return connection


def opened(path: Path) -> sqlite3.Connection:
    """As `connect`, raising `StorageError` with one line that names the file."""
    try:
        return connect(path)
    except sqlite3.Error as error:
        raise StorageError(f"{path}: cannot be opened: {error}") from error


def create_private(path: Path) -> None:
    """
    Make sure of a database file that nobody else can read; SQLite gives -wal and -shm the same mode.

    Raises:
        StorageError: The file or its folder cannot be had; one line that names the file.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            # Never open an existing one besides SQLite: closing it would drop the process's locks on it.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        elif path.is_dir():
            raise StorageError(f"{path}: is a folder, not a database")
        elif path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise StorageError(f"{path}: cannot be used: {error.strerror}") from error


@implementer(IDatabase)
class InlineEngine:
    """Every function at once and a transaction of its own; Deferreds have fired already."""

    backlog = 0
    trouble: str | None = None

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.seconds: dict[str, Histogram] = {}
        self._connection: sqlite3.Connection | None = connection
        self._transactions = Transactions(connection)
        self._foreign_write_callbacks: list[Callable[[], object]] = []

    def open(self) -> None:
        """It is open from the beginning."""

    def close(self) -> "Deferred[None]":
        """May be called twice."""
        if self._connection is not None:
            self._connection = None
            self._transactions.close()
        return succeed(None)

    def write(self, function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        return self._run(function, args, False)

    def write_grouped(self, function: Callable[..., Any], item: object) -> "Deferred[Any]":
        return self._run(function, item, True)

    def read(self, function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        return read_now(self._connection, function, args)

    read_apart = read

    def on_rollback(self, callback: Callable[[], object]) -> None:
        self._transactions.rollback_callbacks.append(callback)

    def on_foreign_write(self, callback: Callable[[], object]) -> None:
        self._foreign_write_callbacks.append(callback)

    def drained(self) -> "Deferred[None]":
        return succeed(None)

    def _run(self, function: Callable[..., Any], args: object, grouped: bool) -> "Deferred[Any]":
        if self._connection is None:
            return fail(StorageError("the storage is closed"))
        batch = self._transactions.run([Job(None, function, args, grouped)])
        if batch.foreign:
            for callback in self._foreign_write_callbacks:
                callback()
        outcome = batch.outcomes[0]
        return fail(outcome) if isinstance(outcome, Exception) else succeed(outcome)


def read_now(
    connection: sqlite3.Connection | None, function: Callable[..., Any], args: tuple[object, ...]
) -> "Deferred[Any]":
    """Run a function that only selects, as a fired Deferred; ``connection`` is ``None`` once closed."""
    if connection is None:
        return fail(StorageError("the storage is closed"))
    cursor = connection.cursor()
    try:
        return succeed(function(cursor, *args))
    except Exception as error:
        return fail(translated(error))
    finally:
        # A select not read to its end would pin this connection to what it saw then.
        cursor.close()


@implementer(IDatabase)
class WriterEngine:
    """
    Writes through the writer's thread, reads at once in the reactor's.

    SQLite answers a read from its cache within microseconds, which is less than a thread costs, and in
    WAL mode no write makes it wait.

    Nothing is open before `open`: twistd forks after the services were made, and neither threads nor
    SQLite's locks live through a fork.

    Attributes:
        backlog: Writes that are not committed yet.
        seconds: How long each ``write`` took, which is many writes with one commit, and each ``read``.
    """

    _log = Logger()

    def __init__(
        self,
        path: Path,
        reactor: IReactorFromThreads,
        connect: Callable[[Path], sqlite3.Connection] = connect,
    ) -> None:
        self.backlog = 0
        self.seconds = {"read": Histogram(BOUNDS), "write": Histogram(BOUNDS)}
        self._path = path
        self._reactor = reactor
        self._connect = connect
        self._reader: sqlite3.Connection | None = None
        self._writer: Writer | None = None
        self._put: Callable[[Job], None] | None = None
        self._rollback_callbacks: list[Callable[[], object]] = []
        self._foreign_write_callbacks: list[Callable[[], object]] = []
        self._waiting_for_room: list[Deferred[None]] = []
        self._closing: list[Deferred[None]] = []
        self._trouble: str | None = None
        self._outage = Outage()
        self._watching = LoopingCall(self._watch)
        self._watching.clock = cast(Any, reactor)

    def open(self) -> None:
        """
        Begin to take writes.

        Raises:
            StorageError: The file cannot be opened.
        """
        if self._writer is not None:
            return
        self._reader = self._connect(self._path)
        self._reader.execute("PRAGMA query_only = ON")
        transactions = Transactions(self._connect(self._path))
        transactions.rollback_callbacks = self._rollback_callbacks
        self._writer = Writer(
            transactions,
            report=lambda batch: self._reactor.callFromThread(self._committed, batch),
            closed=lambda: self._reactor.callFromThread(self._closed),
        )
        self._put = self._writer.put
        self._writer.start()
        self._watching.start(WATCHED_EVERY, now=False)

    def close(self) -> "Deferred[None]":
        """Take no more writes; fires when those taken are committed and the file is closed."""
        if self._writer is None:
            return succeed(None)
        if self._put is not None:
            self._put = None
            self._writer.stop()
        deferred: Deferred[None] = Deferred()
        self._closing.append(deferred)
        return deferred

    def write(self, function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        return self._queue(function, args, False)

    def write_grouped(self, function: Callable[..., Any], item: object) -> "Deferred[Any]":
        return self._queue(function, item, True)

    def read(self, function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        began = time.perf_counter()
        result = read_now(self._reader, function, args)
        self.seconds["read"].observe(time.perf_counter() - began)
        return result

    def read_apart(self, function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        """As `read`, for what takes long: in a thread and on a connection of its own."""
        if self._reader is None:
            return fail(StorageError("the storage is closed"))
        reactor = cast(IReactorThreads, self._reactor)
        return deferToThreadPool(reactor, reactor.getThreadPool(), self._read_apart, function, args)

    def _read_apart(self, function: Callable[..., Any], args: tuple[object, ...]) -> Any:
        try:
            connection = self._connect(self._path)
            try:
                return function(connection.cursor(), *args)
            finally:
                connection.close()
        except Exception as error:
            raise translated(error) from error

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written, by the last write or the one that does not end; ``None`` if it can."""
        return "writing takes very long" if self._is_stalled else self._trouble

    @property
    def _is_stalled(self) -> bool:
        since = self._writer.busy_since if self._writer is not None else None
        return since is not None and time.monotonic() - since > STALLED

    def _watch(self) -> None:
        """A write that does not end says nothing by itself."""
        if self._is_stalled and self._outage.failed("writing takes very long", time.monotonic()):
            self._log.warn(
                "storage waits for {file}: another process has it locked, or the disk is very slow;"
                " nothing is acknowledged that is not stored",
                file=str(self._path),
            )

    def on_rollback(self, callback: Callable[[], object]) -> None:
        self._rollback_callbacks.append(callback)

    def on_foreign_write(self, callback: Callable[[], object]) -> None:
        self._foreign_write_callbacks.append(callback)

    def drained(self) -> "Deferred[None]":
        """Fires when the backlog is below the low-water mark, at once where it is."""
        if self.backlog < LOW_WATER:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._waiting_for_room.append(deferred)
        return deferred

    def _queue(self, function: Callable[..., Any], args: object, grouped: bool) -> "Deferred[Any]":
        put = self._put
        if put is None:
            return fail(StorageError("the storage is not open"))
        deferred: Deferred[Any] = Deferred()
        self.backlog += 1
        put(Job(deferred, function, args, grouped))
        return deferred

    def _committed(self, batch: Batch) -> None:
        self.seconds["write"].observe(batch.seconds)
        if batch.foreign:
            for callback in self._foreign_write_callbacks:
                callback()
        self._tell_about_outage(batch)
        for job, outcome in zip(batch.jobs, batch.outcomes, strict=True):
            self.backlog -= 1
            if isinstance(outcome, Exception):
                job.deferred.errback(outcome)
            else:
                job.deferred.callback(outcome)
        if self._waiting_for_room and self.backlog < LOW_WATER:
            waiting, self._waiting_for_room = self._waiting_for_room, []
            for deferred in waiting:
                deferred.callback(None)

    def _tell_about_outage(self, batch: Batch) -> None:
        """
        A disk that is full fails every write; one line for all of them, and one when it is over.

        What is small may still find room where other things do not: such ups and downs are one outage.
        """
        now = time.monotonic()
        if batch.trouble is not None:
            self._trouble = batch.trouble
            if self._outage.failed(batch.trouble, now):
                self._log.error(
                    "storage cannot write to {file}: {reason}; nothing is acknowledged that is not stored",
                    file=str(self._path),
                    reason=batch.trouble,
                )
        elif batch.changed and self._outage.since is not None:
            self._trouble = None
            lasted = self._outage.succeeded(now)
            if lasted is not None:
                self._log.info(
                    "storage writes to {file} again after {seconds} s",
                    file=str(self._path),
                    seconds=round(lasted, 1),
                )

    def _closed(self) -> None:
        self._watching.stop()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._writer = None
        closing, self._closing = self._closing, []
        for deferred in closing:
            deferred.callback(None)
