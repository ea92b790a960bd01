"""A storage that fails under a real server: what was acknowledged stays, the rest is told, no restart."""

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress

import pytest

from xmpppush.testing.managed import ManagedStream
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for
from xmpppush.testing.stanzas import push_requests

INI = """
[server]
domains = localhost
[auth]
allow_plain_without_tls = yes
[limits]
c2s_stanzas_per_second = 0
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
tls = none
[mod_push]
collapse = no
[mod_pubsub]
[http_connections:mongoose_push_http]
server = https://localhost:{port}
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
"""

PING = "<iq type='get' to='localhost' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>"
LONG = "." * 20_000  # what a message has besides its name: a disk is full sooner


class FileSizeLimit:
    """A server that may write no file beyond a size (RLIMIT_FSIZE), which needs no rights and no disk."""

    SIZE = 1024 * 1024

    def __init__(self, folder):
        self.folder = folder

    def fill(self, server):
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (self.SIZE, resource.RLIM_INFINITY))

    def free(self, server):
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def unmount(self):
        """There is nothing to."""


class SmallDisk:
    """A file system of its own, that something else fills."""

    def __init__(self, folder):
        self.folder = folder / "disk"
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(self.folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user can mount nothing")

    def fill(self, server):
        with (self.folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(b"." * 4096):
                pass

    def free(self, server):
        (self.folder / "filler").unlink()

    def unmount(self):
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture(
    params=[
        pytest.param(FileSizeLimit, id="limit"),
        pytest.param(SmallDisk, id="disk", marks=pytest.mark.slow),
    ]
)
def disk(request, tmp_path):
    disk = request.param(tmp_path)
    yield disk
    disk.unmount()


@pytest.fixture
def stand_in(tmp_path):
    with StandIn(tmp_path) as stand_in:
        yield stand_in


def serve(folder, stand_in):
    server = ServerProcess(folder, INI.format(port=stand_in.port, ca=stand_in.ca_file))
    accounts = folder / "accounts"
    accounts.write_text("alice@localhost\talice\nbob@localhost\tbob\n")
    server.command("user", "add", "--batch", str(accounts))
    return server


class Talk:
    """Bob, whose messages Alice's phone is told of, and what he knows of them."""

    def __init__(self, server):
        self.server = server
        self.sent = []
        self.failed = []
        self._acknowledged = asyncio.Event()
        self._count = 0

    async def begin(self):
        address = self.server.address("listen:c2s")
        alice = await ManagedStream.log_in(address, "alice@localhost/phone", "alice")
        for request in push_requests():
            await alice.ask(request)
        await alice.close()
        self.stream = await ManagedStream.log_in(address, "bob@localhost/desk", "bob", self._got, self._told)
        self._reading = asyncio.ensure_future(self.stream.run())

    def write(self, count, text=LONG):
        for _ in range(count):
            name = f"m{len(self.sent)}"
            self.sent.append(name)
            self.stream.send(
                f"<message to='alice@localhost' type='chat' id='{name}'><body>{name} {text}</body></message>"
            )

    async def all_acknowledged(self, seconds=30):
        async with asyncio.timeout(seconds):
            while self._count < len(self.sent):
                self._acknowledged.clear()
                await self._acknowledged.wait()

    @property
    def kept(self):
        """Acknowledged without an error."""
        return [name for name in self.sent if name not in self.failed]

    def _got(self, message):
        error = message.error
        assert (error["type"], error.firstChildElement().name) == ("wait", "internal-server-error")
        assert "disk" not in message.toXml()  # that is the operator's concern
        self.failed.append(message["id"])

    def _told(self, count):
        self._count = count
        self._acknowledged.set()

    async def end(self):
        self.stream.cut()
        await self._reading

    async def fetched(self):
        """What waits for Alice."""
        names = []
        stream = await ManagedStream.log_in(
            self.server.address("listen:c2s"),
            "alice@localhost/laptop",
            "alice",
            on_message=lambda message: names.append(message["id"]),
        )
        stream.send("<presence/>")
        reading = asyncio.ensure_future(stream.run())
        await asyncio.to_thread(wait_for, "nothing waits", lambda: not rows(self.server, "offline_messages"))
        stream.cut()
        await reading
        return names


def rows(server, table):
    with closing(sqlite3.connect(f"file:{server.data_dir}/xmpppush.db?mode=ro", uri=True)) as database:
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def lines_with(server, text):
    return [line for line in server.log.read_text().splitlines() if text in line]


def test_a_full_disk_is_told_and_survived(disk, tmp_path, stand_in):
    """Errors while it is full, nothing acknowledged is lost, and all is well when there is room again."""
    with serve(disk.folder, stand_in) as server:
        talk = Talk(server)
        asyncio.run(full_for_a_while(talk, disk))
        told = [request["json"]["alert"]["body"].split()[0] for request in stand_in.requests()]
        assert set(told) == set(talk.kept)
        assert talk.failed
        assert len(lines_with(server, "storage cannot write to ")) == 1
        assert len(lines_with(server, "storage writes to ")) == 1
        assert lines_with(server, "is lost") == []
        assert lines_with(server, "Traceback") == []


async def full_for_a_while(talk, disk):
    await talk.begin()
    talk.write(5)
    await talk.all_acknowledged()
    assert talk.failed == []
    disk.fill(talk.server)
    while not talk.failed:
        talk.write(20)
        await talk.all_acknowledged()
    for _ in range(3):
        talk.write(20)
        await talk.all_acknowledged()
    alice = await ManagedStream.log_in(talk.server.address("listen:c2s"), "alice@localhost/phone", "alice")
    await alice.ask(PING)  # the rest of the server works
    alice.cut()
    disk.free(talk.server)
    failed = len(talk.failed)
    talk.write(20)
    await talk.all_acknowledged()
    assert len(talk.failed) == failed
    await asyncio.to_thread(wait_for, "every push is through", lambda: not rows(talk.server, "deliveries"))
    assert await talk.fetched() == talk.kept
    await talk.end()


LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


class Lock:
    """Another process, which has the database for itself; a context manager."""

    def __init__(self, server):
        self._command = [sys.executable, "-c", LOCK, str(server.data_dir / "xmpppush.db")]

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout.readline() == b"locked\n"

    def __exit__(self, *_error):
        self._process.communicate()


@pytest.mark.slow
def test_a_database_that_is_locked_for_five_seconds_delays_the_answer(tmp_path, stand_in):
    """Nobody is told of an error, nothing else waits for it, and the operator reads why it took so long."""
    with serve(tmp_path, stand_in) as server:
        talk = Talk(server)
        asyncio.run(locked_for_a_while(talk))
        assert talk.failed == []
        told = [request["json"]["alert"]["body"].split()[0] for request in stand_in.requests()]
        assert told == talk.sent
        (line,) = lines_with(server, "storage waits for ")
        assert "another process has it locked" in line
        assert len(lines_with(server, "storage writes to ")) == 1
        assert lines_with(server, "storage cannot write") == lines_with(server, "Traceback") == []


async def locked_for_a_while(talk):
    await talk.begin()
    talk.write(1)
    await talk.all_acknowledged()
    slowest = 0.0
    with Lock(talk.server):
        talk.write(20)
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            began = time.monotonic()
            # Login, which reads, and a request.
            alice = await ManagedStream.log_in(
                talk.server.address("listen:c2s"), "alice@localhost/phone", "alice"
            )
            await alice.ask(PING)
            alice.cut()
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.2)
        assert rows(talk.server, "offline_messages") == 1
    await talk.all_acknowledged(10)
    assert slowest < 2  # with a machine that has other things to do, and far from 5
    await asyncio.to_thread(wait_for, "every push is through", lambda: not rows(talk.server, "deliveries"))
    assert await talk.fetched() == talk.sent
    await talk.end()


@pytest.mark.slow
def test_a_full_disk_and_a_kill(tmp_path, stand_in):
    """What was acknowledged before is there afterwards; the server starts on a full disk, too."""
    disk = SmallDisk(tmp_path)
    server = serve(disk.folder, stand_in)
    try:
        server.start()
        talk = Talk(server)
        asyncio.run(full_and_killed(talk, disk))
        server.stop(signal.SIGKILL)
        server.start()
        disk.free(server)
        assert asyncio.run(talk.fetched()) == talk.kept
        wait_for("every push is through", lambda: not rows(server, "deliveries"))
        told = {request["json"]["alert"]["body"].split()[0] for request in stand_in.requests()}
        assert told == set(talk.kept)
    finally:
        with suppress(AssertionError):
            server.stop()
        disk.unmount()


async def full_and_killed(talk, disk):
    await talk.begin()
    disk.fill(talk.server)
    while not talk.failed:
        talk.write(20)
        await talk.all_acknowledged()
    await talk.end()


def test_a_newer_database_is_not_served(tmp_path, stand_in):
    """One line says what it is, the exit code says no, and not a byte of it changes."""
    server = serve(tmp_path, stand_in)
    path = server.data_dir / "xmpppush.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO schema_versions VALUES (9999, '9999-from-the-future.sql', 0)")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(AssertionError, match="the server ended with 1"):
        server.start()
    (line,) = lines_with(server, "9999")
    assert f"{path}: has schema 9999 of a newer xmpppush; this one knows schemas up to " in line
    assert lines_with(server, "Traceback") == []
    assert path.read_bytes() == before
