"""The storage as a service on the real reactor: threads, files, outages."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from xmpppush.config.sections import StorageSection
from xmpppush.errors import StorageError, TooManyRegistrations
from xmpppush.interfaces import IDatabase
from xmpppush.storage import RowCounts, engine, open_inline, open_storage
from xmpppush.storage.engine import InlineEngine, WriterEngine
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_delivery, a_registration, an_offline_message
from xmpppush.testing.stores import ALICE, BOB, PUBSUB, an_account, raised


@pytest.fixture
def storage(tmp_path):
    """A running storage on the real reactor."""
    storage = open_storage(StorageSection(), tmp_path / "var", reactor)
    storage.startService()
    yield storage
    pytest_twisted.blockon(storage.stopService())


def path_of(storage):
    return storage.database._path


def block_writer(storage):
    """Keep the writer's thread busy; returns what lets it go on."""
    release = threading.Event()
    storage.database.write(lambda cursor: release.wait(10))
    return release


def formats(events):
    return [event["log_format"] for event in events if event["log_namespace"].startswith("xmpppush.storage")]


def test_engines_provide_the_interface(storage):
    """Both do all that stores ask for."""
    assert verifyObject(IDatabase, storage.database)
    assert isinstance(storage.database, WriterEngine)
    assert verifyObject(IDatabase, memory_storage().database)
    assert isinstance(memory_storage().database, InlineEngine)


@pytest_twisted.ensureDeferred
async def test_what_waits_goes_in_one_commit(storage):
    """While the writer is busy writes pile up, and are then one transaction."""
    statements = []
    release = block_writer(storage)
    storage.database._writer._transactions._connection.set_trace_callback(statements.append)
    keeping = [storage.messages.keep(an_offline_message(), [a_delivery()], 200) for _ in range(100)]
    assert storage.backlog == 101
    release.set()
    await gatherResults(keeping)
    assert storage.backlog == 0
    assert statements.count("COMMIT") <= 2


@pytest_twisted.ensureDeferred
async def test_writes_complete_in_the_order_of_their_calls(storage):
    """Grouped or not, well or badly."""
    order = []
    calls = (
        lambda: storage.messages.settle([1]),
        lambda: storage.messages.waiting(ALICE),
        lambda: storage.registrations.put(a_registration(), 0),
    )
    for number in range(30):
        call = calls[number % 3]()
        call.addErrback(lambda failure: failure.trap(TooManyRegistrations))
        call.addCallback(lambda _result, number=number: order.append(number))
    await storage.messages.queued_count()
    assert order == list(range(30))


@pytest_twisted.ensureDeferred
async def test_a_bad_row_does_not_hurt_the_others(storage):
    """One keep that cannot be stored fails alone."""
    release = block_writer(storage)
    good = [storage.messages.keep(an_offline_message(xml=f"<m{number}/>"), (), 9) for number in range(4)]
    bad = storage.messages.keep(an_offline_message(xml=None), [a_delivery()], 9)
    good.append(storage.messages.keep(an_offline_message(xml="<m4/>"), (), 9))
    release.set()
    assert await raised(sqlite3.IntegrityError, bad)
    await gatherResults(good)
    assert [message.xml for message in await storage.messages.waiting(ALICE)] == [
        f"<m{n}/>" for n in range(5)
    ]
    assert await storage.messages.queued_count() == 0


@pytest_twisted.ensureDeferred
async def test_a_read_during_a_commit_leaves_nothing_stale(storage):
    """Not even when it is cached while the write is still in the writer's hands."""
    release = block_writer(storage)
    writing = storage.registrations.put(a_registration(), 5)
    assert await storage.registrations.of(ALICE) == ()
    assert storage.registrations.of(ALICE).called
    release.set()
    await writing
    assert await storage.registrations.of(ALICE) == (a_registration(),)


@pytest_twisted.ensureDeferred
async def test_producers_wait_for_the_backlog(storage, monkeypatch):
    """Pressure begins above the high-water mark and ends below the low-water mark."""
    monkeypatch.setattr(engine, "LOW_WATER", 3)
    monkeypatch.setattr("xmpppush.storage.HIGH_WATER", 5)
    assert storage.pressure() is None
    assert storage.drained().called
    release = block_writer(storage)
    for number in range(6):
        storage.messages.settle([number])
    waiting = storage.pressure()
    assert not waiting.called
    release.set()
    await waiting
    assert storage.backlog < 3


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_every_write(tmp_path):
    """What was asked for before is on disk, what comes after fails, and stopping twice is allowed."""
    storage = open_storage(StorageSection(), tmp_path, reactor)
    storage.startService()
    release = block_writer(storage)
    keeping = [storage.messages.keep(an_offline_message(), (), 99) for _ in range(20)]
    stopping = storage.stopService()
    late = storage.messages.settle([1])
    assert await raised(StorageError, late)
    again = storage.database.close()
    release.set()
    await stopping
    await again
    assert all(keep.called for keep in keeping)
    assert await raised(StorageError, storage.messages.queued(0, 1))
    assert await raised(StorageError, storage.messages.waiting(ALICE))
    await storage.database.close()
    inline = open_inline(StorageSection(), tmp_path)
    assert len(await inline.messages.waiting(ALICE)) == 20
    inline.close()


@pytest_twisted.ensureDeferred
async def test_it_is_closed_until_it_is_started(tmp_path):
    """twistd forks in between, and no thread or lock lives through a fork; then it may start again."""
    threads = threading.active_count()
    storage = open_storage(StorageSection(), tmp_path, reactor)
    assert threading.active_count() == threads
    assert await raised(StorageError, storage.accounts.get(ALICE))
    assert await raised(StorageError, storage.accounts.add([an_account()]))
    for _ in range(2):
        storage.startService()
        await storage.accounts.list()
        await storage.stopService()
    assert await raised(StorageError, storage.accounts.get(ALICE))


@pytest_twisted.ensureDeferred
async def test_only_the_owner_can_read_the_files(storage):
    """Whatever the umask is: database, write-ahead log, shared memory and folder."""
    await storage.messages.keep(an_offline_message(), (), 9)
    path = path_of(storage)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["xmpppush.db", "xmpppush.db-shm", "xmpppush.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_open_umask_or_an_old_file_makes_no_difference(tmp_path):
    """A database that others could read is closed to them."""
    umask = os.umask(0)
    try:
        open_inline(StorageSection(), tmp_path).close()
    finally:
        os.umask(umask)
    path = tmp_path / "xmpppush.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    open_inline(StorageSection(), tmp_path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest_twisted.ensureDeferred
async def test_a_database_that_is_locked_for_a_while_is_waited_for(storage):
    """Another process may hold it; the reactor goes on, and the write is done afterwards."""
    other = engine.connect(path_of(storage))
    other.execute("BEGIN IMMEDIATE")
    keeping = storage.messages.keep(an_offline_message(), (), 9)
    assert await storage.messages.queued(0, 1) == ()
    await deferToThread(lambda: None)
    assert not keeping.called
    other.execute("ROLLBACK")
    other.close()
    await keeping


@pytest_twisted.ensureDeferred
async def test_a_database_that_stays_locked_fails_the_writes(tmp_path, events, monkeypatch):
    """After the busy time each write fails; one line says so, and one that it is over."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.0)
    storage = open_storage(StorageSection(), tmp_path, reactor)
    storage.startService()
    other = engine.connect(path_of(storage))
    other.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        assert await raised(StorageError, storage.messages.keep(an_offline_message(), (), 9))
    other.execute("ROLLBACK")
    other.close()
    await storage.messages.keep(an_offline_message(), (), 9)
    await storage.messages.keep(an_offline_message(), (), 9)
    await storage.stopService()
    assert [text.split("{")[0] for text in formats(events)] == [
        "storage cannot write to ",
        "storage writes to ",
    ]


@pytest_twisted.ensureDeferred
async def test_a_full_disk_is_survived(storage, events):
    """Nothing is acknowledged while it is full, reading goes on, and it works again when there is room."""
    connection = storage.database._writer._transactions._connection
    await storage.messages.keep(an_offline_message(), (), 999)

    def limit(cursor, pages):
        cursor.execute(f"PRAGMA max_page_count = {pages}")

    used = connection.execute("PRAGMA page_count").fetchone()[0]
    await storage.database.write(limit, used)
    big = an_offline_message(xml="x" * 20_000)
    for _ in range(3):
        assert await raised(StorageError, storage.messages.keep(big, [a_delivery()], 999))
    assert len(await storage.messages.waiting(ALICE)) == 1
    assert await storage.messages.queued_count() == 0
    await storage.database.write(limit, 10**6)
    await storage.messages.keep(big, [a_delivery()], 2)
    assert len(await storage.messages.waiting(ALICE)) == 2
    assert len(formats(events)) == 2
    assert "x" * 100 not in str(events)


@pytest_twisted.ensureDeferred
async def test_trouble_lasts_until_a_write_works(storage):
    """What /health says of it."""

    def limit(cursor, pages):
        cursor.execute(f"PRAGMA max_page_count = {pages}")

    assert storage.database.trouble is None
    await storage.database.write(limit, 1)
    big = an_offline_message(xml="x" * 200_000)
    assert await raised(StorageError, storage.messages.keep(big, (), 999))
    assert storage.database.trouble == "database or disk is full"
    await storage.database.write(limit, 10**6)
    await storage.messages.keep(big, (), 999)
    assert storage.database.trouble is None


@pytest_twisted.ensureDeferred
async def test_a_write_without_end_is_trouble(storage, monkeypatch):
    """A disk that hangs fails nothing, and nothing works."""
    release = block_writer(storage)
    written = storage.messages.settle([1])
    while storage.database._writer.busy_since is None:
        await deferToThread(lambda: None)
    assert storage.database.trouble is None
    monkeypatch.setattr(engine, "STALLED", -1.0)
    assert storage.database.trouble == "writing takes very long"
    release.set()
    await written
    assert storage.database.trouble is None


@pytest_twisted.ensureDeferred
async def test_it_is_counted_how_long_things_take(storage):
    """A commit of many writes is one; so is a read that no cache knew."""
    before = sum(storage.database.seconds["write"].counts)
    release = block_writer(storage)
    keeping = [storage.messages.keep(an_offline_message(), (), 200) for _ in range(100)]
    release.set()
    await gatherResults(keeping)
    await storage.registrations.of(ALICE)
    await storage.registrations.of(ALICE)
    assert sum(storage.database.seconds["write"].counts) - before in (1, 2)
    assert storage.database.seconds["write"].total > 0
    assert sum(storage.database.seconds["read"].counts) == 1


@pytest_twisted.ensureDeferred
async def test_rows_are_counted_apart(storage):
    """Not in the reactor's thread, nor behind the writer."""
    assert await storage.row_counts() == RowCounts(0, 0)
    await storage.registrations.put(a_registration(), 5)
    await storage.messages.keep(None, [a_delivery(), a_delivery()], 0)
    threads = []
    await storage.database.read_apart(lambda cursor: threads.append(threading.current_thread()))
    assert threads[0] not in (threading.main_thread(), storage.database._writer._thread)
    release = block_writer(storage)
    assert await storage.row_counts() == RowCounts(1, 2)
    release.set()
    assert await raised(StorageError, storage.database.read_apart(lambda cursor: cursor.execute("SELECT x")))
    await storage.stopService()
    assert await raised(StorageError, storage.row_counts())


@pytest_twisted.ensureDeferred
async def test_a_fault_in_a_function_is_raised_as_it_is(storage):
    """A bug is not dressed up as a full disk."""

    def divide(cursor):
        return 1 / 0

    assert await raised(ZeroDivisionError, storage.database.write(divide))
    assert await raised(ZeroDivisionError, storage.database.read(divide))


@pytest_twisted.ensureDeferred
async def test_a_read_cannot_write(storage):
    """The reading connection only selects."""

    def delete(cursor):
        cursor.execute("DELETE FROM accounts")

    assert await raised(StorageError, storage.database.read(delete))


@pytest_twisted.ensureDeferred
async def test_the_command_line_works_beside_a_server(storage, tmp_path):
    """Both see each other's commits; the server's caches are right after its next write."""
    await storage.accounts.add([an_account(ALICE)])
    await storage.registrations.put(a_registration(), 5)
    assert await storage.registrations.of(ALICE) != ()
    with_command = open_inline(StorageSection(), tmp_path / "var")
    assert await with_command.accounts.list() == (ALICE,)
    assert with_command.registrations.remove(ALICE, PUBSUB, None).called
    await with_command.accounts.add([an_account(BOB)])
    with_command.close()
    assert await storage.accounts.list() == (ALICE, BOB)
    await storage.messages.settle([1])
    assert await storage.registrations.of(ALICE) == ()


def test_inline_needs_no_reactor(tmp_path):
    """Nothing of the command line's path imports one."""
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from xmpppush.config.sections import StorageSection
        from xmpppush.storage import open_inline
        storage = open_inline(StorageSection(), Path(sys.argv[1]))
        assert storage.accounts.list().result == ()
        storage.close()
        storage.close()
        assert "twisted.internet.reactor" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, timeout=60)


WRITING = """
import sys
from pathlib import Path
from twisted.internet import reactor
from xmpppush.config.sections import StorageSection
from xmpppush.storage import open_storage
from xmpppush.testing.builders import a_delivery, an_offline_message
storage = open_storage(StorageSection(), Path(sys.argv[1]), reactor)
storage.startService()
def keep(_=None):
    storage.messages.keep(an_offline_message(), [a_delivery()], 10**6).addCallback(kept)
def kept(deliveries):
    print(deliveries[0].id, flush=True)
    keep()
for _ in range(20):
    keep()
reactor.run()
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    """Every row that a killed process reported is there afterwards, message and delivery alike."""
    process = subprocess.Popen([sys.executable, "-c", WRITING, tmp_path], stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        acknowledged = [int(process.stdout.readline()) for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [
            int(line) for line in process.stdout.read().splitlines(keepends=True) if line[-1] == "\n"
        ]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        watchdog.cancel()
    storage = open_inline(StorageSection(), tmp_path)
    stored = {delivery.id for delivery in storage.messages.queued(0, 10**6).result}
    assert set(acknowledged) <= stored
    assert len(storage.messages.waiting(ALICE).result) == len(stored)
    storage.close()


def test_a_process_that_forgets_to_stop_does_not_hang(tmp_path):
    """The writer's thread keeps nobody alive."""
    program = WRITING.replace("reactor.run()", "")
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, timeout=60)
