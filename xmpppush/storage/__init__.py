"""
What must outlive the process: accounts, rosters, registrations, nodes, messages and deliveries.

The SQL is with the roles and in the modules here, as functions of a cursor; the engines run them.
"""

from pathlib import Path
from sqlite3 import Cursor

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from xmpppush.apps.store import SQLDeviceStore
from xmpppush.config.sections import StorageSection
from xmpppush.mod_pubsub.store import SQLNodeStore
from xmpppush.mod_push.store import SQLRegistrationStore
from xmpppush.storage.accounts import SQLAccountStore
from xmpppush.storage.engine import HIGH_WATER, InlineEngine, WriterEngine, opened
from xmpppush.storage.messages import SQLMessageStore
from xmpppush.storage.migrate import path_of, prepare
from xmpppush.storage.rosters import SQLRosterStore
from xmpppush.storage.traces import SQLTraceStore

__all__ = ["RowCounts", "Storage", "open_inline", "open_storage"]

_log = Logger()


@frozen
class RowCounts:
    """How many rows there are: what a restart finds again."""

    registrations: int
    deliveries: int


def count_rows(cursor: Cursor) -> RowCounts:
    counts = cursor.execute(
        "SELECT (SELECT count(*) FROM registrations), (SELECT count(*) FROM deliveries)"
    ).fetchone()
    return RowCounts(*counts)


class Storage(Service):
    """
    All stores on one database.

    Twisted stops the children of a service all at once: whoever still has something to write when it
    stops is to be stopped, and waited for, before this.

    Attributes:
        database: The `IDatabase` they share.
        accounts, rosters, registrations, nodes, devices, messages, traces: The stores, as in
            `xmpppush.interfaces`.
    """

    def __init__(self, database: InlineEngine | WriterEngine) -> None:
        self.setName("storage")
        self.database = database
        self.rosters = SQLRosterStore(database)
        self.registrations = SQLRegistrationStore(database)
        self.nodes = SQLNodeStore(database)
        self.devices = SQLDeviceStore(database)
        self.messages = SQLMessageStore(database)
        self.traces = SQLTraceStore(database)
        self.accounts = SQLAccountStore(
            database, (self.rosters, self.messages, self.registrations, self.nodes, self.devices, self.traces)
        )

    @property
    def backlog(self) -> int:
        """Writes that are not committed yet."""
        return self.database.backlog

    def row_counts(self) -> "Deferred[RowCounts]":
        """Counted anew, which takes its time with millions of rows, but nobody else's."""
        return self.database.read_apart(count_rows)

    def drained(self) -> "Deferred[None]":
        """Fires when the backlog is small, at once where it is."""
        return self.database.drained()

    def pressure(self) -> "Deferred[None] | None":
        """``None`` while there is room; else what to wait for before taking more from a client."""
        return self.database.drained() if self.database.backlog > HIGH_WATER else None

    def startService(self) -> None:
        """
        Open the database; an inline one is open already.

        Raises:
            StorageError: It cannot be opened.
        """
        self.database.open()
        super().startService()

    def stopService(self) -> "Deferred[None]":
        """Fires when every write so far is committed and the database is closed; later ones fail."""
        super().stopService()
        return self.close()

    def close(self) -> "Deferred[None]":
        """As `stopService`, for who uses it without a service tree."""
        # The storage itself says what it cannot write.
        self.registrations.save_missed().addErrback(lambda _: None)
        return self.database.close()


def open_storage(section: StorageSection, data_dir: Path, reactor: IReactorFromThreads) -> Storage:
    """
    The storage for a server: checked, upgraded and closed again; `Storage.startService` opens it.

    That is what a process needs that checks everything before it forks, and serves after.

    Raises:
        SchemaTooNew, SchemaTooOld: As they say.
        StorageError: The file cannot be used; one line that names it.
    """
    path = _prepared(section, data_dir)
    return Storage(WriterEngine(path, reactor))


def open_inline(section: StorageSection, data_dir: Path) -> Storage:
    """
    The same stores on the same file without reactor or thread: every Deferred has fired already.

    For the command line, also beside a running server, for whose lock it waits; `Storage.close` closes it.

    Raises:
        SchemaTooNew, SchemaTooOld, StorageError: As `open_storage`.
    """
    path = _prepared(section, data_dir)
    return Storage(InlineEngine(opened(path)))


def _prepared(section: StorageSection, data_dir: Path) -> Path:
    upgrade = prepare(path_of(section, data_dir), section.auto_upgrade)
    if upgrade.backup is not None:
        _log.info(
            "storage {file} upgraded from schema {before} to {after}; as it was it is kept in {backup}",
            file=str(upgrade.path),
            before=upgrade.before,
            after=upgrade.after,
            backup=str(upgrade.backup),
        )
    return upgrade.path
