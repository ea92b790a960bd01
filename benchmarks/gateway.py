"""The push service alone: HTTPS REST in, APNs over HTTP/2 and TLS out."""

import asyncio
import os
import select
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from attrs import asdict, frozen

from benchmarks.apns_sink import listen_apns, write_credentials
from benchmarks.server import ServerProcess
from benchmarks.sink import text_of
from benchmarks.tally import Tally, percentile
from benchmarks.yardstick import yardstick_on

GATEWAY_INI = """\
[server]
domains =
data_dir = var
log_level = {log_level}

[mongoosepush]
endpoint = ssl:{port}:interface=127.0.0.1

[mongoosepush:apns:prod]
key_id = ABC123DEFG
team_id = DEF123GHIJ
p8_file = token.p8
default_topic = com.example.app
endpoint = 127.0.0.1:{apns_port}
ca_file = apns-ca.pem
"""


@frozen
class GatewayRun:
    """Figures of one run; CPU in microseconds of the server process for each request."""

    requests: int
    missing: int
    strange: int
    refused: int
    wall: float
    requests_per_second: float
    cpu_us: float
    busy: float
    rss: int
    p50: float
    p99: float


@frozen
class GatewayResult:
    """All runs; ``yardstick`` as in `benchmarks.pipeline`."""

    runs: tuple[GatewayRun, ...]
    yardstick: float
    log: str

    @property
    def is_clean(self) -> bool:
        return not any(run.missing or run.strange or run.refused for run in self.runs)

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    def middle(self, name: str) -> float:
        return median(float(getattr(run, name)) for run in self.runs)


class Gateway:
    """So many connections, each with one request at a time, as an HTTP pool of MongooseIM has them."""

    def __init__(self, server: ServerProcess, connections: int) -> None:
        self._server = server
        self._connections = connections
        self._patience = 10.0
        self._tally = Tally(0, 0)

    def on_request(self, device: str, request: dict[str, object] | None) -> None:
        number = number_in(text_of(request))
        self._tally.arrived(number if device == device_of(number) else -1, time.perf_counter())

    def run(self, first: int, requests: int) -> GatewayRun:
        """One run, in a thread of its own: the other one is the sink's."""
        self._tally = tally = Tally(first, requests)
        sockets = [self._connect() for _ in range(self._connections)]
        before, start = self._server.usage(), time.perf_counter()
        latencies, refused = self._exchange(sockets, iter(range(first, first + requests)))
        after, wall = self._server.usage(), time.perf_counter() - start
        latencies.sort()
        cpu = after.cpu - before.cpu
        return GatewayRun(
            requests=requests,
            missing=tally.missing,
            strange=tally.strange + tally.duplicates,
            refused=refused,
            wall=wall,
            requests_per_second=requests / wall,
            cpu_us=cpu / requests * 1e6,
            busy=cpu / wall,
            rss=after.rss,
            p50=percentile(latencies, 50),
            p99=percentile(latencies, 99),
        )

    def _connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self._server.port), 10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain)

    def _exchange(self, sockets: Sequence[ssl.SSLSocket], numbers: Iterator[int]) -> tuple[list[float], int]:
        """
        Latencies, and how many answers were no 200.

        Sockets and epoll: asyncio's TLS takes longer for a request than the server does.
        """
        latencies: list[float] = []
        begun: dict[int, float] = {}
        by_number = {each.fileno(): each for each in sockets}
        poll = select.epoll()
        refused = 0

        def send(connection: ssl.SSLSocket) -> None:
            number = next(numbers, None)
            if number is None:
                poll.unregister(connection.fileno())
                by_number.pop(connection.fileno())
                connection.close()
                return
            now = begun[connection.fileno()] = time.perf_counter()
            self._tally.sent(number, now)
            connection.send(request_of(number))

        for connection in sockets:
            poll.register(connection.fileno(), select.EPOLLIN)
            send(connection)
        while by_number:
            ready = poll.poll(self._patience)
            if not ready:
                break  # what is not answered by now is missing
            for descriptor, _ in ready:
                connection = by_number[descriptor]
                # An answer is one write and a TLS record; after the first there are tickets to skip.
                answer = connection.recv(65536)
                latencies.append(time.perf_counter() - begun[descriptor])
                refused += not answer.startswith(b"HTTP/1.1 200 ")
                send(connection)
        return latencies, refused


def device_of(number: int) -> str:
    """A token of Apple's length."""
    return f"{number % 500:064x}"


def number_in(alert: str) -> int:
    digits = alert[1:].partition(" ")[0]
    return int(digits) if alert.startswith("#") and digits.isdecimal() else -1


def request_of(number: int) -> bytes:
    """As MongooseIM sends it: strings for numbers, about 200 bytes."""
    body = (
        '{"service":"apns","mode":"prod","priority":"high","time_to_live":"3600",'
        '"alert":{"title":"romeo@localhost",'
        f'"body":"#{number} Wherefore art thou Romeo?",'
        '"badge":1,"tag":"romeo@localhost","sound":"default"}}'
    ).encode()
    return (
        f"POST /v3/notification/{device_of(number)} HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def measure_gateway(requests: int, runs: int, connections: int, profile: Path | None = None) -> GatewayResult:
    """From an empty folder to the figures; the server has a core, load and APNs have another."""
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="xmpppush-benchmark-") as folder:
        return asyncio.run(_measure(requests, runs, connections, Path(folder), server_core, profile))


async def _measure(
    requests: int, runs: int, connections: int, folder: Path, core: int | None, profile: Path | None
) -> GatewayResult:
    gateway: Gateway | None = None

    def listener(device: str, request: dict[str, object] | None) -> None:
        assert gateway is not None
        gateway.on_request(device, request)

    write_credentials(folder)
    sink = await listen_apns(listener, folder)
    settings = {"apns_port": sink.sockets[0].getsockname()[1], "log_level": "info"}
    server = ServerProcess(folder, settings, {}, GATEWAY_INI)
    yardstick = yardstick_on(core)
    await asyncio.to_thread(server.start, core, profile)
    try:
        gateway = Gateway(server, connections)
        await asyncio.to_thread(gateway.run, 0, 200)  # connects, and fills caches
        results = [
            await asyncio.to_thread(gateway.run, 1000 + number * requests, requests) for number in range(runs)
        ]
    finally:
        await asyncio.to_thread(server.stop)
        sink.close()
    return GatewayResult(tuple(results), (yardstick + yardstick_on(core)) / 2, server.log_tail())
