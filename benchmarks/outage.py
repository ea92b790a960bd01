"""A push service in trouble under load: what gets lost, how often it is tried, and what others feel of it."""

import asyncio
import contextlib
import os
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path

import httptools
import orjson
from attrs import field, frozen

from benchmarks.client import DOMAIN, Client, chat_message
from benchmarks.pipeline import Load as PipelineLoad
from benchmarks.pipeline import Pipeline, logged_in, number_in, token_of
from benchmarks.server import SERVER_INI, ServerProcess, free_port
from benchmarks.sink import ANSWER, text_of
from benchmarks.tally import percentile

INI = (
    SERVER_INI.replace("[mod_push]\n", "[mod_push]\ncollapse = {collapse}\n")
    .replace("connections = {connections}\n", "connections = 100\nrequest_timeout = {request_timeout}\n", 1)
    .replace("max_http_connections = {connections}\n", "{retry}\n")
)
PING = "<ping xmlns='urn:xmpp:ping'/>"
PING_PAUSE = 0.01  # seconds between an answer and the next ping
RETRY_AFTER = 2  # seconds

# What the service does with a request; None: it never answers. `down` has no service at all.
Behaviour = Callable[[], bytes | None]


def _refusal(status: str, header: Callable[[], str] = lambda: "") -> Behaviour:
    return lambda: f"HTTP/1.1 {status}\r\n{header()}content-length: 0\r\n\r\n".encode()


def _date() -> str:
    # Whole seconds, cut off: one more, so that it is in the future by what was asked for.
    return formatdate(time.time() + RETRY_AFTER + 1, usegmt=True)


FAULTS: dict[str, Behaviour] = {
    "down": lambda: None,
    "hanging": lambda: None,
    "500": _refusal("500 Internal Server Error"),
    "503": _refusal("503 Service Unavailable"),
    "429": _refusal("429 Too Many Requests", lambda: f"retry-after: {RETRY_AFTER}\r\n"),
    "429-date": _refusal("429 Too Many Requests", lambda: f"retry-after: {_date()}\r\n"),
}


@frozen
class Plan:
    """
    What happens to one server; times in seconds.

    Attributes:
        rate: Messages a second, to absent accounts.
        users: So many accounts, in turn.
        before, lasting, after: How long the load goes on before the fault, during it and behind it.
        retry: Keys of the bridge's section.
        patience: How long the last push may take behind the load's end.
    """

    rate: float = 300.0
    users: int = 200
    senders: int = 4
    before: float = 2.0
    lasting: float = 10.0
    after: float = 2.0
    collapse: bool = False
    max_attempts: int = 10
    retry_base: str = "1s"
    retry_cap: str = "5s"
    request_timeout: str = "2s"
    patience: float = 60.0

    @property
    def messages(self) -> int:
        return int(self.rate * (self.before + self.lasting + self.after))

    @property
    def longest(self) -> float:
        """Then the server stands still."""
        return self.before + self.lasting + self.after + self.patience + 30.0

    def settings(self, port: int) -> dict[str, object]:
        """For `INI`."""
        retry = {
            "max_http_connections": 100,
            "max_attempts": self.max_attempts,
            "retry_base": self.retry_base,
            "retry_cap": self.retry_cap,
        }
        return {
            "push_service": f"http://127.0.0.1:{port}",
            "more": "",
            "api_version": "v3",
            "log_level": "info",
            "offline_messages": self.messages,
            "collapse": "yes" if self.collapse else "no",
            "request_timeout": self.request_timeout,
            "retry": "\n".join(f"{key} = {value}" for key, value in retry.items()),
        }


class Ledger:
    """
    What the service was asked and what it took; messages go to the users in turn. Pure.

    Attributes:
        requests: How often each message came.
        taken: How often it was answered with 200.
        overtaken: How many were taken behind a newer one of the same user.
    """

    def __init__(self, users: int) -> None:
        self._users = users
        self._newest: dict[int, int] = {}
        self.sent: list[int] = []
        self.requests: Counter[int] = Counter()
        self.taken: Counter[int] = Counter()
        self.overtaken = 0

    def asked(self, number: int, device: str, is_taken: bool) -> None:
        """The service got the push of this message."""
        self.requests[number] += 1
        user = number % self._users
        if is_taken and device == token_of(user):
            self.taken[number] += 1
            if number < self._newest.get(user, -1):
                self.overtaken += 1
            else:
                self._newest[user] = number

    def lost(self, collapse: bool) -> int:
        """Messages that no push of theirs tells, nor, where that is enough, a newer one to the same user."""
        if collapse:
            return sum(self._newest.get(number % self._users, -1) < number for number in self.sent)
        return sum(number not in self.taken for number in self.sent)

    @property
    def duplicates(self) -> int:
        """How many were taken a second time."""
        return sum(count - 1 for count in self.taken.values())


class FaultyService:
    """A MongoosePush stand-in that is well until told otherwise."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        self.port = port
        self.ledger = ledger
        self.behaviour: Behaviour = lambda: ANSWER
        self.connections: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, backlog=1024
        )

    def close(self) -> None:
        """From one moment to the next: nobody listens, and what was connected is not."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in tuple(self.connections):
            transport.abort()

    @contextlib.asynccontextmanager
    async def trouble(self, fault: str) -> AsyncIterator[None]:
        """While this lasts it has this fault."""
        self.behaviour = FAULTS[fault]
        if fault == "down":
            self.close()
        try:
            yield
        finally:
            self.behaviour = lambda: ANSWER
            if fault == "down":
                await self.open()


class _Connection(asyncio.Protocol):
    """One kept-alive connection; the methods in lower case are asyncio's and httptools'."""

    def __init__(self, service: FaultyService) -> None:
        self._service = service
        self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._service.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        device, document = self._url.rpartition(b"/")[2].decode("ascii", "replace"), orjson.loads(self._body)
        self._url = self._body = b""
        number = number_in(text_of(document))
        answer = self._service.behaviour()
        self._service.ledger.asked(number, device, answer is ANSWER)
        if answer is not None:
            self._transport.write(answer)


@frozen
class Episode:
    """
    The figures of one fault; times in seconds.

    Attributes:
        requests: That reached the service while it was in trouble.
        tries: Of the push that was tried most often, as the server counts them.
        duplicates: Pushes that the service took a second time.
        recovered: From the end of the fault to the last push.
        queued: Rows in the queue after the server has stopped.
        pings: From ping to pong, shortest first, while the service was in trouble.
        pings_after: From the end of the fault to the last push.
        lines: What the server's log says of the push service.
    """

    fault: str
    collapse: bool
    max_attempts: int
    messages: int
    pushes: int
    requests: int
    tries: int
    lost: int
    duplicates: int
    overtaken: int
    recovered: float
    queued: int
    errors: int
    pings: list[float] = field(repr=False)
    pings_after: list[float] = field(repr=False)
    lines: list[str] = field(repr=False)

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing left, and nothing tried too often."""
        return not (self.lost or self.queued or self.errors) and self.tries <= self.max_attempts

    def as_json(self) -> dict[str, object]:
        names = (
            "fault",
            "collapse",
            "messages",
            "pushes",
            "requests",
            "tries",
            "lost",
            "duplicates",
            "overtaken",
        )
        figures: dict[str, object] = {name: getattr(self, name) for name in names}
        for name, pings in (("ping", self.pings), ("ping_after", self.pings_after)):
            figures |= {f"{name}_p{rank}_ms": percentile(pings, rank) * 1e3 for rank in (50, 99, 100)}
        return {**figures, "recovered": self.recovered, "lines": self.lines}


class Pinger:
    """
    A client that pings the server (XEP-0199), again and again.

    Attributes:
        pings: When each was sent, and how long the answer took.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_over = False
        self.pings: list[tuple[float, float]] = []

    def stop(self) -> None:
        """After the next answer. A cancellation may get lost in Python 3.11's ``wait_for``."""
        self._is_over = True

    async def run(self) -> None:
        """Until it is stopped."""
        while not self._is_over:
            start = time.perf_counter()
            await self._client.ask("get", PING, to=DOMAIN)
            self.pings.append((start, time.perf_counter() - start))
            await asyncio.sleep(PING_PAUSE)

    def between(self, start: float, end: float) -> list[float]:
        """How long those took, shortest first, that were sent in this time."""
        return sorted(took for at, took in self.pings if start <= at < end)


def measure(fault: str, plan: Plan) -> Episode:
    """Everything from an empty folder to the figures; this process and the server take a core each."""
    ours = os.sched_getaffinity(0)
    cores = sorted(ours)
    server_core = cores[0] if len(cores) > 1 else None
    if server_core is not None:
        os.sched_setaffinity(0, {cores[1]})
    try:
        with tempfile.TemporaryDirectory(prefix="xmpppush-outage-") as folder:
            return asyncio.run(_measure(fault, plan, Path(folder), server_core))
    finally:
        os.sched_setaffinity(0, ours)


async def _measure(fault: str, plan: Plan, folder: Path, core: int | None) -> Episode:
    ledger = Ledger(plan.users)
    # Not one of the system's choice: while nobody listens there an outgoing connection might take it.
    service = FaultyService(free_port(), ledger)
    await service.open()
    names = [f"sender{number}" for number in range(plan.senders)]
    server = ServerProcess(folder, plan.settings(service.port), {}, INI)
    server.add_users([*names, "pinger", *(f"user{number}" for number in range(plan.users))])
    server.start(core)
    try:
        await Pipeline(PipelineLoad(users=plan.users), server).prepare()
        async with asyncio.timeout(plan.longest), logged_in(names, server.port) as senders:
            client = await Client.login("127.0.0.1", server.port, "pinger")
            pinger = Pinger(client)
            pinging = asyncio.create_task(pinger.run())
            try:
                began, ended, done, during = await _act(fault, plan, senders, service)
            finally:
                pinger.stop()
                await asyncio.gather(pinging, return_exceptions=True)
            errors = sum(sender.errors for sender in senders)
        # The rows of the last pushes are still to be deleted.
        await asyncio.sleep(0.3)
    finally:
        server.stop()
        service.close()
    return Episode(
        fault=fault,
        collapse=plan.collapse,
        max_attempts=plan.max_attempts,
        messages=len(ledger.sent),
        pushes=len(ledger.taken),
        requests=during,
        tries=most_tries(folder / "var" / "xmpppush.db"),
        lost=ledger.lost(plan.collapse),
        duplicates=ledger.duplicates,
        overtaken=ledger.overtaken,
        recovered=done - ended,
        queued=server.rows("deliveries"),
        errors=errors,
        pings=pinger.between(began, ended),
        pings_after=pinger.between(ended, done),
        lines=[
            line for line in server.log_tail(1000).splitlines() if re.search("push service|gave up", line)
        ],
    )


async def _act(
    fault: str, plan: Plan, senders: list[Client], service: FaultyService
) -> tuple[float, float, float, int]:
    """Load and fault; returns when that began and ended and the last push was here, and its requests."""
    ledger = service.ledger
    sending = asyncio.create_task(_send(plan, senders, ledger))
    try:
        await asyncio.sleep(plan.before)
        began, before = time.perf_counter(), ledger.requests.total()
        async with service.trouble(fault):
            await asyncio.sleep(plan.lasting)
            during = ledger.requests.total() - before
        ended = time.perf_counter()
        await sending
    finally:
        sending.cancel()
    deadline = time.perf_counter() + plan.patience
    while ledger.lost(plan.collapse) and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)
    return began, ended, time.perf_counter(), during


async def _send(plan: Plan, senders: list[Client], ledger: Ledger) -> None:
    start = time.perf_counter()
    for number in range(plan.messages):
        if (early := start + number / plan.rate - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        user = number % plan.users
        # Always the same sender to a user: only its own next message replaces one.
        senders[user % len(senders)].writer.write(chat_message(number, f"user{user}@{DOMAIN}"))
        ledger.sent.append(number)


def most_tries(database: Path) -> int:
    """Tries of the push that had the most, by the trace of a server that has stopped."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT notes FROM traces").fetchall()
    notes = (note for (text,) in rows for note in orjson.loads(text))
    return max((note[-1].get("attempt", 0) for note in notes), default=0)
