"""
The schema: numbered SQL files, and a table that says which of them a database has.

A database of a newer xmpppush is refused and left alone; one of an older is copied, then upgraded in one
transaction.
"""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from xmpppush.config.sections import StorageSection
from xmpppush.errors import SchemaTooNew, SchemaTooOld, StorageError
from xmpppush.storage.engine import connect, create_private

SCHEMA = Path(__file__).with_name("schema")

_FILE_NAME = re.compile(r"(\d{4})-[a-z0-9-]+\.sql")


@frozen
class SchemaState:
    """
    What a database has and what this xmpppush wants.

    Attributes:
        version: Of the database; 0: there is none yet.
        newest: Of this xmpppush.
    """

    path: Path
    version: int
    newest: int

    def __str__(self) -> str:
        if self.version == 0:
            return f"{self.path}: no database yet; schema {self.newest} when it is created"
        return f"{self.path}: schema {self.version}, newest {self.newest}"


@frozen
class Upgrade:
    """
    What was done to a database.

    Attributes:
        before, after: Versions; the same where there was nothing to do.
        backup: Copy of the database as it was, ``None`` where nothing could be lost.
    """

    path: Path
    before: int
    after: int
    backup: Path | None = None

    def __str__(self) -> str:
        if self.before == self.after:
            return f"{self.path}: has schema {self.after} already"
        if self.backup is None:
            return f"{self.path}: created with schema {self.after}"
        return f"{self.path}: upgraded from schema {self.before} to {self.after}; before: {self.backup}"


def path_of(section: StorageSection, data_dir: Path) -> Path:
    """
    The SQLite file of ``url``.

    Raises:
        StorageError: Another kind of database; its ``url`` may hold a password and is not shown.
    """
    kind, separator, name = section.url.partition(":///")
    if kind != "sqlite" or not separator or not name:
        raise StorageError("[storage] url: only sqlite:///FILE is supported in this version")
    return data_dir / name


def current(section: StorageSection, data_dir: Path = Path(), schema: Path = SCHEMA) -> SchemaState:
    """
    Look, and change nothing.

    Raises:
        StorageError: The file is no database of ours.
    """
    path = path_of(section, data_dir)
    newest = max(_files(schema))
    if not path.exists():
        return SchemaState(path, 0, newest)
    try:
        connection = connect(path)
        try:
            return SchemaState(path, _version_of(connection, path), newest)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error


def upgrade(section: StorageSection, data_dir: Path = Path(), schema: Path = SCHEMA) -> Upgrade:
    """
    Bring the database to the newest schema, or create it.

    Raises:
        SchemaTooNew: It is newer than this xmpppush.
        StorageError: The file cannot be used; the line says why.
    """
    return prepare(path_of(section, data_dir), True, schema)


def prepare(path: Path, auto_upgrade: bool, schema: Path = SCHEMA) -> Upgrade:
    """
    Make sure of a database with the newest schema, in WAL mode, readable for its owner alone.

    Raises:
        SchemaTooNew: It is newer than this xmpppush.
        SchemaTooOld: It is older, and ``auto_upgrade`` is off.
        StorageError: The file cannot be used; the line says why.
    """
    create_private(path)
    try:
        connection = connect(path)
        try:
            return _prepare(connection, path, auto_upgrade, schema)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageError(f"{path}: cannot be used: {error}") from error


def create_schema(connection: sqlite3.Connection, schema: Path = SCHEMA) -> None:
    """Give an empty database its tables."""
    _apply(connection, Path(":memory:"), _files(schema))


def _prepare(connection: sqlite3.Connection, path: Path, auto_upgrade: bool, schema: Path) -> Upgrade:
    files = _files(schema)
    newest = max(files)
    # Before anything is written to it: a newer or a foreign database stays as it is.
    version = _version_of(connection, path)
    if version > newest:
        raise SchemaTooNew(
            f"{path}: has schema {version} of a newer xmpppush; this one knows schemas up to {newest}"
        )
    if 0 < version < newest and not auto_upgrade:
        raise SchemaTooOld(
            f"{path}: has schema {version}, this xmpppush needs {newest}: run 'xmpppush db upgrade'"
        )
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StorageError(f"{path}: its file system cannot do write-ahead logging (a network folder?)")
    backup = None
    if 0 < version < newest:
        backup = _back_up(connection, path, version + 1)
    # Also where there is nothing to do: a file that cannot be written is better found now.
    _apply(connection, path, files)
    return Upgrade(path, version, newest, backup)


def _files(schema: Path) -> dict[int, Path]:
    """Schema files by version."""
    matches = {path: _FILE_NAME.fullmatch(path.name) for path in sorted(schema.iterdir())}
    return {int(match.group(1)): path for path, match in matches.items() if match is not None}


def _version_of(connection: sqlite3.Connection, path: Path) -> int:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "schema_versions" in tables:
        return int(connection.execute("SELECT coalesce(max(version), 0) FROM schema_versions").fetchone()[0])
    if tables:
        raise StorageError(f"{path}: is a database of another program")
    return 0


def _apply(connection: sqlite3.Connection, path: Path, files: dict[int, Path]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again, as another process may have been quicker.
        version = _version_of(connection, path)
        if version == 0:
            connection.execute(
                "CREATE TABLE schema_versions ("
                " version INTEGER PRIMARY KEY,"  # number of the file
                " name TEXT NOT NULL,"  # its name
                " applied REAL NOT NULL)"  # seconds since the epoch
            )
        for number in sorted(number for number in files if number > version):
            for statement in _statements(files[number].read_text("utf-8")):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_versions (version, name, applied) VALUES (?, ?, ?)",
                (number, files[number].name, time.time()),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """One by one, as ``executescript`` would commit the transaction it is called in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def _back_up(connection: sqlite3.Connection, path: Path, number: int) -> Path:
    """A copy beside the database, complete or not there; of an earlier attempt the copy is replaced."""
    backup = path.with_name(f"{path.name}.before-{number:04}")
    unfinished = path.with_name(f"{backup.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    create_private(unfinished)
    copy = connect(unfinished)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    os.replace(unfinished, backup)
    return backup
