"""The server under test: a process of its own, pinned to a core, and what it used."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from benchmarks.client import DOMAIN, PASSWORD
from benchmarks.population import populate

TICK = os.sysconf("SC_CLK_TCK")
SERVER_INI = """\
[server]
domains = {domain}
data_dir = var
log_level = {log_level}

[storage]
url = sqlite:///xmpppush.db

[listen:c2s]
endpoint = tcp:{port}:interface=127.0.0.1
tls = none

[auth]
allow_plain_without_tls = yes

[mod_push]
[mod_pubsub]

[http_connections:mongoose_push_http]
server = {push_service}
connections = {connections}

[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
api_version = {api_version}
max_http_connections = {connections}

{more}
[limits]
c2s_stanzas_per_second = 0
connections_per_address = 10000
offline_messages_per_user = {offline_messages}
"""


@frozen
class Usage:
    """
    What a process has used since it began.

    Attributes:
        cpu: Seconds of user and system time, all threads.
        main_thread: Those of the thread that runs the reactor.
        rss: Resident bytes now.
    """

    cpu: float
    main_thread: float
    rss: int


class ServerFailed(Exception):
    """The server did not start, or ended; the text has the end of its log."""


class ServerProcess:
    """``twistd -n xmpppush`` on a configuration of its own in ``folder``: ``ini`` with the settings in it."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        environ: Mapping[str, str],
        ini: str = SERVER_INI,
    ) -> None:
        self.port = free_port()
        self._folder = folder
        self._ini = folder / "server.ini"
        self._ini.write_text(ini.format(domain=DOMAIN, port=self.port, **settings), encoding="utf-8")
        self._log = folder / "server.log"
        self._environ = {**os.environ, **environ}
        self._process: subprocess.Popen[bytes] | None = None

    def add_users(self, users: list[str]) -> None:
        """Through the real command, before the start."""
        lines = "".join(f"{user}@{DOMAIN}\t{PASSWORD}\n" for user in users)
        done = subprocess.run(
            [str(script("xmpppush")), "-c", str(self._ini), "user", "add", "--batch", "-"],
            input=lines.encode(),
            capture_output=True,
        )
        if done.returncode:
            raise ServerFailed((done.stdout + done.stderr).decode(errors="replace"))

    def populate(self, count: int) -> None:
        """So many accounts with a registration, before the start; see `benchmarks.population`."""
        populate(self._folder / "var", count)

    def start(self, core: int | None, profile: Path | None = None, under: Sequence[str] = ()) -> float:
        """
        Start it and wait for its port; returns how many seconds that took.

        Args:
            core: The only one it may use.
            profile: Run under cProfile, which writes there at the end.
            under: Command that runs it, valgrind for one; then the start takes its time.
        """
        command = [*under, sys.executable, str(script("twistd")), "-n", "--pidfile=", "--no_save"]
        if profile is not None:
            command += [f"--profile={profile}", "--profiler=cprofile", "--savestats"]
        ours, began = os.sched_getaffinity(0), time.monotonic()
        with self._log.open("wb") as log:
            if core is not None:
                os.sched_setaffinity(0, {core})  # inherited
            try:
                self._process = subprocess.Popen(
                    [*command, "xmpppush", "-c", str(self._ini)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environ,
                    cwd=self._folder,
                )
            finally:
                os.sched_setaffinity(0, ours)
        self._wait_for_port(time.monotonic() + (300 if under else 30))
        return time.monotonic() - began

    def _wait_for_port(self, deadline: float) -> None:
        while True:
            self.check()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    self.stop()
                    raise ServerFailed(self.log_tail()) from None
                time.sleep(0.05)

    def check(self) -> None:
        """Raises `ServerFailed` when it has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise ServerFailed(f"exit code {self._process.returncode}\n{self.log_tail()}")

    @property
    def pid(self) -> int:
        """Number of the process."""
        assert self._process is not None
        return self._process.pid

    def usage(self) -> Usage:
        assert self._process is not None
        proc = Path(f"/proc/{self._process.pid}")
        resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        main_thread = proc / "task" / str(self._process.pid)
        return Usage(cpu_in(proc / "stat"), cpu_in(main_thread / "stat"), resident)

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def rows(self, table: str) -> int:
        """How many rows a table has, of a server that has stopped."""
        database = sqlite3.connect(self._folder / "var" / "xmpppush.db")
        try:
            return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        finally:
            database.close()

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def cpu_in(stat: Path) -> float:
    """utime and stime of a ``/proc`` stat file, in seconds (proc(5))."""
    # The name, in parentheses, may hold spaces.
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def script(name: str) -> Path:
    """A console script of this interpreter's environment."""
    return Path(sys.executable).with_name(name)


def free_port() -> int:
    """
    A port that nobody listens on, below the ephemeral range.

    A load generator's own outgoing connections take ports of that range and would make the bind fail.
    """
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free port")
