"""What happens to a database when it is opened."""

import shutil
import sqlite3
import stat

import pytest

from xmpppush.config.sections import StorageSection
from xmpppush.errors import SchemaTooNew, SchemaTooOld, StorageError
from xmpppush.storage import open_inline, open_storage
from xmpppush.storage.migrate import SCHEMA, current, prepare, upgrade
from xmpppush.testing.stores import ALICE, an_account

SECTION = StorageSection()
OURS = sorted(path.name for path in SCHEMA.glob("*.sql"))
VERSIONS = [int(name[:4]) for name in OURS]
NEWEST = VERSIONS[-1]
NEXT = NEWEST + 1


@pytest.fixture
def path(tmp_path):
    return tmp_path / "xmpppush.db"


@pytest.fixture
def later_schema(tmp_path):
    """A folder with our schema files and one after them."""
    schema = tmp_path / "schema"
    shutil.copytree(SCHEMA, schema)
    (schema / f"{NEXT:04}-colours.sql").write_text(
        "-- a comment; with a semicolon\n"
        "CREATE TABLE colours (name TEXT NOT NULL DEFAULT 'a;b');\n"
        "INSERT INTO colours VALUES ('red');\n"
        "ALTER TABLE accounts ADD COLUMN colour TEXT"
    )
    (schema / "notes.txt").write_text("no schema")
    return schema


def with_an_account(tmp_path):
    """A database of our newest schema that has something to lose."""
    storage = open_inline(SECTION, tmp_path)
    storage.accounts.add([an_account()])
    storage.close()


def rows(path, sql):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def files_in(folder):
    return sorted(file.name for file in folder.iterdir() if file.is_file())


def test_a_new_database_gets_the_newest_schema(tmp_path, path, later_schema):
    """Also with auto_upgrade off, and without a copy: there was nothing."""
    done = prepare(path, False, later_schema)
    assert (done.before, done.after, done.backup) == (0, NEXT, None)
    names = [*OURS, f"{NEXT:04}-colours.sql"]
    assert rows(path, "SELECT version, name FROM schema_versions") == [
        (int(name[:4]), name) for name in names
    ]
    assert str(done) == f"{path}: created with schema {NEXT}"


def test_an_older_database_is_copied_and_upgraded(tmp_path, path, later_schema):
    """The copy is as it was before, and for its owner alone; what was in the database is still there."""
    with_an_account(tmp_path)
    done = prepare(path, True, later_schema)
    backup = tmp_path / f"xmpppush.db.before-{NEXT:04}"
    assert (done.before, done.after, done.backup) == (NEWEST, NEXT, backup)
    assert rows(path, "SELECT jid, colour FROM accounts") == [(ALICE, None)]
    assert rows(path, "SELECT name FROM colours") == [("red",)]
    assert rows(backup, "SELECT jid FROM accounts") == [(ALICE,)]
    assert rows(backup, "SELECT max(version) FROM schema_versions") == [(NEWEST,)]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert files_in(tmp_path) == ["xmpppush.db", backup.name]
    assert prepare(path, True, later_schema).backup is None


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_databases_of_every_released_version_are_upgraded(tmp_path, path, version):
    """What waits in them still waits afterwards."""
    schema = tmp_path / "schema"
    schema.mkdir()
    for name in OURS[: VERSIONS.index(version) + 1]:
        shutil.copy(SCHEMA / name, schema)
    prepare(path, True, schema)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO accounts VALUES (?, 1000.0)", (ALICE,))
    connection.execute(
        "INSERT INTO deliveries (account, pubsub, node, service, path, body, created, attempts, next_try)"
        " VALUES (?, 'pubsub.localhost', 'n1', 'fcm', '/v3/notification/t', x'7b7d', 1000.0, 2, 1010.0)",
        (ALICE,),
    )
    connection.commit()
    connection.close()
    storage = open_inline(SECTION, tmp_path)
    try:
        (delivery,) = storage.messages.queued(0, 10).result
        assert (delivery.account, delivery.node, delivery.attempts) == (ALICE, "n1", 2)
        assert storage.accounts.list().result == (ALICE,)
    finally:
        storage.close()
    assert (tmp_path / f"xmpppush.db.before-{version + 1:04}").exists()


def test_an_older_database_is_left_alone_without_auto_upgrade(tmp_path, path, later_schema):
    """The line says what to run."""
    with_an_account(tmp_path)
    with pytest.raises(
        SchemaTooOld, match=rf"xmpppush\.db: has schema {NEWEST}, .* run 'xmpppush db upgrade'"
    ):
        prepare(path, False, later_schema)
    assert files_in(tmp_path) == ["xmpppush.db"]
    assert upgrade(SECTION, tmp_path, later_schema).after == NEXT
    assert prepare(path, False, later_schema).before == NEXT


def test_an_upgrade_that_fails_changes_nothing(tmp_path, path, later_schema):
    """All of its statements or none; and it may be tried again."""
    with_an_account(tmp_path)
    (later_schema / f"{NEXT + 1:04}-wrong.sql").write_text(
        "CREATE TABLE shapes (n);\nCREATE TABLE accounts (n);"
    )
    with pytest.raises(StorageError, match=r"xmpppush\.db: .*accounts already exists"):
        prepare(path, True, later_schema)
    assert current(SECTION, tmp_path).version == NEWEST
    assert rows(path, "SELECT name FROM sqlite_schema WHERE name IN ('colours', 'shapes')") == []
    (later_schema / f"{NEXT + 1:04}-wrong.sql").unlink()
    assert prepare(path, True, later_schema).after == NEXT


def test_a_newer_database_is_refused_by_name_and_left_alone(tmp_path, path, later_schema):
    """Not a byte of it changes."""
    prepare(path, True, later_schema)
    before = path.read_bytes()
    for opening in (
        lambda: open_storage(SECTION, tmp_path, None),
        lambda: open_inline(SECTION, tmp_path),
        lambda: upgrade(SECTION, tmp_path),
    ):
        with pytest.raises(
            SchemaTooNew, match=rf"xmpppush\.db: has schema {NEXT} of a newer xmpppush.* up to {NEWEST}"
        ):
            opening()
    assert path.read_bytes() == before
    assert current(SECTION, tmp_path).version == NEXT


def test_looking_changes_nothing(tmp_path, path):
    """Neither where there is no database nor where there is one."""
    state = current(SECTION, tmp_path)
    assert (state.version, state.newest) == (0, NEWEST)
    assert "no database yet" in str(state)
    assert files_in(tmp_path) == []
    with_an_account(tmp_path)
    assert str(current(SECTION, tmp_path)) == f"{path}: schema {NEWEST}, newest {NEWEST}"
    assert files_in(tmp_path) == ["xmpppush.db"]


def test_a_file_that_is_no_database_is_named(tmp_path, path):
    """And left as it is."""
    path.write_bytes(b"This is a diary, and no database at all. " * 200)
    for opening in (lambda: open_storage(SECTION, tmp_path, None), lambda: current(SECTION, tmp_path)):
        with pytest.raises(StorageError, match=r"^/.*xmpppush\.db: cannot be .*: file is not a database$"):
            opening()
    assert path.read_bytes().startswith(b"This is a diary")


def test_a_damaged_database_is_named(tmp_path, path):
    """One whose pages are gone cannot be used."""
    with_an_account(tmp_path)
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 50_000)
    with pytest.raises(StorageError, match=r"xmpppush\.db: cannot be used"):
        open_storage(SECTION, tmp_path, None)


def test_a_database_of_another_program_is_left_alone(tmp_path, path):
    """Its tables are not ours to add to."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match="is a database of another program"):
        open_storage(SECTION, tmp_path, None)
    assert rows(path, "SELECT name FROM sqlite_schema") == [("bookmarks",)]


def test_what_is_in_the_way_is_named(tmp_path, path):
    """A folder instead of a file, a file instead of a folder."""
    path.mkdir()
    with pytest.raises(StorageError, match=r"xmpppush\.db: is a folder"):
        open_storage(SECTION, tmp_path, None)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/xmpppush\.db: cannot be used: "):
        open_storage(SECTION, tmp_path / "file", None)


def test_another_kind_of_database_is_refused_without_its_password(tmp_path):
    """PostgreSQL comes later."""
    section = StorageSection(url="postgresql://push:hunter2@db/push")
    with pytest.raises(StorageError) as caught:
        open_storage(section, tmp_path, None)
    assert "hunter2" not in str(caught.value)


def test_an_absolute_url_wins_over_data_dir(tmp_path):
    """The configuration resolves relative ones already."""
    elsewhere = tmp_path / "elsewhere" / "push.db"
    open_inline(StorageSection(url=f"sqlite:///{elsewhere}"), tmp_path / "var").close()
    assert elsewhere.exists()
    assert not (tmp_path / "var").exists()
