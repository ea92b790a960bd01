"""The whole chain under load: chat messages in over c2s, notifications out over HTTP."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from statistics import median

from attrs import asdict, frozen

from benchmarks.apns_sink import listen_apns, write_credentials
from benchmarks.client import DOMAIN, Client, chat_message
from benchmarks.server import ServerProcess, Usage
from benchmarks.sink import listen, text_of
from benchmarks.tally import Tally, percentile
from benchmarks.yardstick import yardstick_on

EMBEDDED_INI = """
[mongoosepush]
endpoint = tcp:0:interface=127.0.0.1

[mongoosepush:apns:prod]
key_id = ABC123DEFG
team_id = DEF123GHIJ
p8_file = token.p8
default_topic = com.example.app
endpoint = 127.0.0.1:{apns_port}
ca_file = apns-ca.pem
"""
CHUNK = 16384  # bytes a sender writes at once where no window or rate says less


@frozen
class Load:
    """
    What is sent.

    Attributes:
        messages: In each run.
        users: Absent accounts, each with one registration; they get the messages in turn.
        registrations: Accounts with a registration in the store before the server starts, ``users`` of them
            at random get messages; 0: the users alone, who log in and enable push themselves.
        senders: Connections that write them, in turn.
        in_flight: Messages whose push has not arrived yet, at the most; 0: as TCP lets.
        rate: Messages a second; 0: no pacing.
        runs: How often, on the same server.
        patience: Seconds without an arrival after which the rest is missing.
    """

    messages: int = 20_000
    users: int = 500
    registrations: int = 0
    senders: int = 20
    in_flight: int = 0
    rate: float = 0.0
    runs: int = 3
    patience: float = 30.0

    def recipients(self) -> Sequence[int]:
        """Numbers of the accounts that get messages, in their order."""
        if not self.registrations:
            return range(self.users)
        return Random(1).sample(range(self.registrations), self.users)


@frozen
class Setup:
    """
    What it is sent to.

    Attributes:
        agent: ``fast`` or ``stock``: XMPPPUSH_HTTP_AGENT.
        connections: ``max_http_connections``.
        delay: Seconds that the push service takes to answer.
        embedded: Through the push service of the same process to APNs over HTTP/2 and TLS.
        profile: Run the server under cProfile, which writes there; figures are then worth nothing.
    """

    agent: str = "fast"
    api_version: str = "v3"
    connections: int = 100
    log_level: str = "info"
    delay: float = 0.0
    profile: Path | None = None
    embedded: bool = False


@frozen
class Run:
    """
    The figures of one run; times in seconds, memory in bytes, CPU in microseconds of the server process.

    Attributes:
        cpu_us: For each push, all threads.
        reactor_us: The part of it that the reactor's thread has.
        busy: CPU by wall-clock time between the first write and the last arrival.
        p50, p99: From the write into the sender's socket to the arrival of the POST.
        errors: Stanza errors that the senders got back.
        first, wall: From the first write to the first arrival, and to the last.
    """

    pushes: int
    missing: int
    duplicates: int
    strange: int
    errors: int
    first: float
    wall: float
    pushes_per_second: float
    cpu_us: float
    reactor_us: float
    busy: float
    rss: int
    p50: float
    p99: float


@frozen
class Result:
    """
    All runs.

    Attributes:
        queued, offline: Rows in the database after the server has stopped.
        start: Seconds from starting the process until its port was open.
        rss_at_start: Bytes, then.
        yardstick: See `benchmarks.yardstick`, of this machine at this time.
        log: The last lines of the server's log.
    """

    runs: tuple[Run, ...]
    queued: int
    offline: int
    start: float
    rss_at_start: int
    yardstick: float
    log: str

    @property
    def is_clean(self) -> bool:
        """Every message became one push, for its device, and the queue is empty."""
        return not self.queued and not any(run.missing or run.duplicates or run.strange for run in self.runs)

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    def middle(self, name: str) -> float:
        """The median of one figure."""
        return median(float(getattr(run, name)) for run in self.runs)


class Pipeline:
    """Sends what ``load`` says and listens for what comes out at the other end."""

    def __init__(self, load: Load, server: ServerProcess, delay: float = 0.0, service: str = "fcm") -> None:
        self._load = load
        self._recipients = load.recipients()
        self._delay = delay
        self._service = service
        self._server = server
        self._tally = Tally(0, 0)
        self._room = asyncio.Semaphore(load.in_flight) if load.in_flight else None

    def on_request(self, device: str, request: dict[str, object] | None) -> None:
        """The sink's listener: counts a push for its message if it is for the right device."""
        now = time.perf_counter()
        number = number_in(text_of(request))
        right = device == token_of(self._recipient(number))
        if self._tally.arrived(number if right else -1, now) and self._room is not None:
            self._room.release()

    def _recipient(self, number: int) -> int:
        return self._recipients[number % len(self._recipients)]

    async def prepare(self) -> None:
        """Every user logs in, creates a node, enables push and leaves."""
        waiting = iter(range(self._load.users))

        async def some() -> None:
            for user in waiting:
                client = await Client.login("127.0.0.1", self._server.port, f"user{user}")
                await client.enable_push(f"node-{user}", token_of(user), self._service)
                await client.close()

        await asyncio.gather(*(some() for _ in range(10)))

    def stanza(self, number: int) -> bytes:
        """What makes this push."""
        return chat_message(number, f"user{self._recipient(number)}@{DOMAIN}")

    async def run(self, senders: Sequence[Client], first: int) -> Run:
        """One run, of messages numbered from ``first``."""
        self._tally = tally = Tally(first, self._load.messages)
        numbers = range(first, first + self._load.messages)
        stanzas = [self.stanza(number) for number in numbers]
        shares = [
            list(zip(numbers, stanzas, strict=True))[start :: len(senders)] for start in range(len(senders))
        ]
        errors = sum(sender.errors for sender in senders)
        before, start = self._server.usage(), time.perf_counter()
        sending = asyncio.gather(*(self._send(*pair, start) for pair in zip(senders, shares, strict=True)))
        at_end = await self._wait_for_the_last(sending)
        # The rows of the last pushes are still to be deleted: that is part of the price.
        await asyncio.sleep(0.5 + self._delay)
        after = self._server.usage()
        wall = tally.last_arrival - start if tally.pushes else time.perf_counter() - start
        latencies = tally.latencies()
        each = 1e6 / max(tally.pushes, 1)
        return Run(
            pushes=tally.pushes,
            missing=tally.missing,
            duplicates=tally.duplicates,
            strange=tally.strange,
            errors=sum(sender.errors for sender in senders) - errors,
            first=max(tally.first_arrival - start, 0.0),
            wall=wall,
            pushes_per_second=tally.pushes / wall,
            cpu_us=(after.cpu - before.cpu) * each,
            reactor_us=(after.main_thread - before.main_thread) * each,
            busy=(at_end.cpu - before.cpu) / wall,
            rss=after.rss,
            p50=percentile(latencies, 50),
            p99=percentile(latencies, 99),
        )

    async def _send(self, sender: Client, share: list[tuple[int, bytes]], start: float) -> None:
        if self._load.rate:
            await self._send_paced(sender, share, start)
        elif self._room is not None:
            await self._send_in_window(sender, share, self._room)
        else:
            await self._send_all(sender, share)

    async def _send_paced(self, sender: Client, share: list[tuple[int, bytes]], start: float) -> None:
        for number, stanza in share:
            due = start + number % self._load.messages / self._load.rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            self._write(sender, number, stanza)

    async def _send_in_window(
        self, sender: Client, share: list[tuple[int, bytes]], room: asyncio.Semaphore
    ) -> None:
        for number, stanza in share:
            await room.acquire()
            self._write(sender, number, stanza)

    async def _send_all(self, sender: Client, share: list[tuple[int, bytes]]) -> None:
        each = max(1, CHUNK // len(share[0][1])) if share else 1
        for start in range(0, len(share), each):
            now = time.perf_counter()
            chunk = share[start : start + each]
            for number, _ in chunk:
                self._tally.sent(number, now)
            sender.writer.write(b"".join(stanza for _, stanza in chunk))
            await sender.writer.drain()
            await asyncio.sleep(0)

    def _write(self, sender: Client, number: int, stanza: bytes) -> None:
        self._tally.sent(number, time.perf_counter())
        sender.writer.write(stanza)

    async def _wait_for_the_last(self, sending: asyncio.Future[list[None]]) -> Usage:
        """Until all are written and all pushes are here, or none came for ``patience``."""
        quiet_since, seen = time.perf_counter(), self._tally.pushes
        while self._tally.missing or not sending.done():
            await asyncio.sleep(0.02)
            self._server.check()
            if self._tally.pushes != seen:
                quiet_since, seen = time.perf_counter(), self._tally.pushes
            elif time.perf_counter() - quiet_since > self._load.patience:
                # A window that waits for lost pushes would never open.
                sending.cancel()
                break
        usage = self._server.usage()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        return usage


def measure(load: Load, setup: Setup) -> Result:
    """Everything from an empty folder to the figures; this process and the server take a core each."""
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="xmpppush-benchmark-") as folder:
        return asyncio.run(serve(load, setup, Path(folder), server_core))


async def serve(
    load: Load,
    setup: Setup,
    folder: Path,
    core: int | None,
    under: Sequence[str] = (),
    pipeline: type[Pipeline] = Pipeline,
) -> Result:
    """As `measure`, in ``folder``; ``under`` as in `ServerProcess.start`."""
    running: Pipeline | None = None

    def listener(device: str, request: dict[str, object] | None) -> None:
        assert running is not None
        running.on_request(device, request)

    if setup.embedded:
        write_credentials(folder)
        sink = await listen_apns(listener, folder)
    else:
        sink = await listen(listener, delay=setup.delay)
    port = sink.sockets[0].getsockname()[1]
    settings = {
        "push_service": "embedded:" if setup.embedded else f"http://127.0.0.1:{port}",
        "more": EMBEDDED_INI.format(apns_port=port) if setup.embedded else "",
        "api_version": setup.api_version,
        "connections": setup.connections,
        "log_level": setup.log_level,
        "offline_messages": load.messages * load.runs,
    }
    server = ServerProcess(folder, settings, {"XMPPPUSH_HTTP_AGENT": setup.agent})
    names = [f"sender{number}" for number in range(load.senders)]
    yardstick = yardstick_on(core)
    if load.registrations:
        server.populate(load.registrations)
    server.add_users(names if load.registrations else [*names, *(f"user{n}" for n in range(load.users))])
    start = await asyncio.to_thread(server.start, core, setup.profile, under)
    try:
        rss_at_start = server.usage().rss
        running = pipeline(load, server, setup.delay, "apns" if setup.embedded else "fcm")
        if not load.registrations:
            await running.prepare()
        async with logged_in(names, server.port) as senders:
            runs = [await running.run(senders, number * load.messages) for number in range(load.runs)]
    finally:
        server.stop()
        sink.close()
    yardstick = (yardstick + yardstick_on(core)) / 2
    queued, offline = server.rows("deliveries"), server.rows("offline_messages")
    return Result(tuple(runs), queued, offline, start, rss_at_start, yardstick, server.log_tail())


@contextlib.asynccontextmanager
async def logged_in(names: list[str], port: int) -> AsyncIterator[list[Client]]:
    """Sessions for these users, closed at the end."""
    clients = [await Client.login("127.0.0.1", port, name) for name in names]
    watchers = [asyncio.create_task(client.watch()) for client in clients]
    try:
        yield clients
    finally:
        for client in clients:
            await client.close()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)


def token_of(user: int) -> str:
    """The device of this user."""
    return f"token-{user}"


def number_in(text: str) -> int:
    """The message's number in the text of its push, -1 for none."""
    digits = text[1:].partition(" ")[0]
    return int(digits) if text.startswith("#") and digits.isdecimal() else -1
