"""Requests to a listener of type http, octet by octet."""

import json
from base64 import b64encode
from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from xmpppush.admin.health import Check
from xmpppush.admin.metrics import Figures
from xmpppush.admin.site import (
    COUNT_TIMEOUT,
    IDLE_TIMEOUT,
    MAX_BODY,
    STOP_TIMEOUT,
    AdminFactory,
    AdminResource,
)
from xmpppush.config.sections import AdminSection
from xmpppush.errors import StorageError
from xmpppush.server.throttle import Throttle, network_of

ROWS = SimpleNamespace(registrations=7, deliveries=3)


class Transport(StringTransport):
    aborted = False

    def abortConnection(self):
        self.aborted = True


class World:
    """A listener with clients in memory."""

    def __init__(self, password="", metrics=True, **options):
        self.clock = Clock()
        self.checks = [Check("storage")]
        self.rows = succeed(ROWS)
        self.counted = 0
        self.resource = AdminResource(
            AdminSection(password, metrics),
            Figures(checks=lambda: self.checks),
            self.count,
            Throttle(3, 60.0),
            network_of,
            self.clock,
        )
        self.factory = AdminFactory(self.resource, self.clock, **options)
        self.factory.doStart()

    def count(self):
        self.counted += 1
        return self.rows

    def connect(self, peer="127.0.0.1"):
        address = UNIXAddress("") if peer is None else IPv4Address("TCP", peer, 54321)
        transport = Transport(peerAddress=address)
        protocol = self.factory.buildProtocol(address)
        protocol.makeConnection(transport)
        return protocol, transport

    def ask(self, path="/health", method="GET", peer="127.0.0.1", body=b"", **headers):
        """Status, headers and JSON (or text) of the answer; ``None``: there is none yet."""
        protocol, transport = self.connect(peer)
        headers = {"Host": "localhost", **{name.replace("_", "-"): text for name, text in headers.items()}}
        if body:
            headers["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        protocol.dataReceived(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return read(transport)


def read(transport):
    if not transport.value():
        return None
    head, _, body = transport.value().decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}
    answer = json.loads(body) if body and "json" in headers["content-type"] else body
    return SimpleNamespace(
        status=int(status.split()[1]), phrase=status.split(maxsplit=2)[2], headers=headers, body=answer
    )


def basic(password):
    return f"Basic {b64encode(f'admin:{password}'.encode()).decode()}"


@pytest.fixture
def log():
    lines = []

    def observe(event):
        if event["log_namespace"].startswith("xmpppush"):
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize("password", ["", "sesam"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.1"])
def test_health_is_for_everybody(password, peer):
    """A load balancer has no password."""
    world = World(password)
    answer = world.ask("/health", peer=peer, X_Forwarded_For="192.0.2.2")
    assert (answer.status, answer.body["status"]) == (200, "pass")
    assert answer.headers["cache-control"] == "no-store"
    world.checks.append(Check("push service", "connection refused"))
    answer = world.ask("/health", peer=peer)
    assert (answer.status, answer.body["failing"]) == (503, ["push service"])


@pytest.mark.parametrize("path", ["/metrics", "/", "/api/openapi.json"])
@pytest.mark.parametrize(
    ("password", "request_", "status"),
    [
        ("", {}, None),
        ("", {"peer": "192.0.2.1"}, 403),
        ("", {"X_Forwarded_For": "192.0.2.1"}, 403),
        ("", {"Forwarded": "for=192.0.2.1"}, 403),
        ("", {"Via": ""}, 403),
        ("", {"Host": "attacker.example:5280"}, 403),
        ("", {"Host": "localhost:5280"}, None),
        ("", {"Host": "[::1]:5280"}, None),
        ("", {"Host": "127.0.0.1:5280"}, None),
        ("", {"peer": None, "Host": "xmpppush"}, None),
        ("sesam", {}, 401),
        ("sesam", {"Authorization": basic("else")}, 401),
        ("sesam", {"Authorization": basic("")}, 401),
        ("sesam", {"Authorization": basic("sesam")}, None),
        ("sesam", {"peer": "192.0.2.1", "Authorization": basic("sesam")}, None),
    ],
)
def test_the_rest_is_not(path, password, request_, status):
    """Not even whether there is such a path."""
    expected = status or (200 if path == "/metrics" else 404)
    answer = World(password).ask(path, **request_)
    assert answer.status == expected
    if status:
        assert answer.body.keys() == {"error", "reason"}
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_metrics():
    """As text, with what the database counted."""
    answer = World().ask("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "xmpppush_push_registrations 7.0\n" in answer.body


def test_metrics_switched_off():
    """[admin] metrics = no: there is no such path, and the database is left alone."""
    world = World(metrics=False)
    answer = world.ask("/metrics")
    assert (answer.status, answer.body["error"], world.counted) == (404, "not-found", 0)


@pytest.mark.parametrize("path", ["/", "/metrics/", "/Health", "/health/x", "//metrics", "/%6detrics", "/.."])
def test_other_paths(path):
    """404 as JSON, saying what there is; the web page is still to come."""
    answer = World().ask(path)
    assert (answer.status, answer.body["error"]) == (404, "not-found")
    assert "/health and /metrics" in answer.body["reason"]


def test_a_query_does_not_matter():
    """Some monitors add one against caches."""
    assert World().ask("/health?t=1").status == 200


def test_head():
    """The headers of GET, and no body."""
    answer = World().ask("/health", "HEAD")
    assert (answer.status, answer.body) == (200, "")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods(method):
    """405 that says which ones there are."""
    answer = World().ask("/health", method, body=b"x")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_a_body_without_end():
    """Nobody gets us to keep it."""
    world = World()
    protocol, transport = world.connect()
    protocol.dataReceived(b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n")
    for _ in range(MAX_BODY // 1024):
        protocol.dataReceived(b"x" * 1024)
    assert not transport.aborted
    protocol.dataReceived(b"x")
    assert transport.aborted


def test_guessing_the_password(log):
    """After some wrong ones from an address no more are looked at for a while, and it is said once."""
    world = World("sesam")
    for _ in range(3):
        assert world.ask("/metrics", Authorization=basic("guess")).status == 401
    answer = world.ask("/metrics", Authorization=basic("sesam"))
    assert (answer.status, answer.headers["retry-after"]) == (429, "60")
    assert answer.phrase == "Too Many Requests"
    assert world.ask("/health").status == 200
    assert world.ask("/metrics", peer="192.0.2.1", Authorization=basic("sesam")).status == 200
    world.clock.advance(61)
    assert world.ask("/metrics", Authorization=basic("sesam")).status == 200
    assert log == ["no more [admin] passwords from 127.0.0.1 for a while: too many wrong ones"]


def test_asking_without_a_password_is_no_guess():
    """A browser does so each time before it asks its user."""
    world = World("sesam")
    assert [world.ask("/metrics").status for _ in range(5)] == [401] * 5
    assert world.ask("/metrics", Authorization=basic("sesam")).status == 200


def test_a_database_that_does_not_answer():
    """The rest is shown without it, and it is not asked again meanwhile."""
    world = World()
    world.rows = counting = Deferred()
    first, second = world.connect(), world.connect()
    for protocol, _ in (first, second):
        protocol.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    world.clock.advance(COUNT_TIMEOUT)
    for _, transport in (first, second):
        answer = read(transport)
        assert answer.status == 200
        assert "\nxmpppush_push_registrations" not in answer.body
    assert world.ask("/metrics") is None
    assert world.counted == 1
    counting.callback(ROWS)
    world.rows = succeed(ROWS)
    assert "xmpppush_notifications_queued 3.0" in world.ask("/metrics").body
    assert world.counted == 2


def test_a_database_that_fails(log):
    """Said once, not with each scrape."""
    world = World()
    for _ in range(3):
        world.rows = fail(StorageError("disk I/O error"))
        assert world.ask("/metrics").status == 200
    assert log == ["rows for /metrics cannot be counted: disk I/O error"]


def test_a_fault_of_ours():
    """500 as JSON, without a traceback for the world."""
    world = World()
    world.checks = None
    answer = world.ask("/health")
    assert (answer.status, answer.body["error"]) == (500, "internal-error")


def test_who_left_gets_no_answer():
    """A client that does not wait for the database costs nothing."""
    world = World()
    world.rows = counting = Deferred()
    protocol, transport = world.connect()
    protocol.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    protocol.connectionLost(Failure(ConnectionDone()))
    counting.callback(ROWS)
    assert transport.value() == b""
    assert world.clock.getDelayedCalls() == []


def test_a_connection_is_kept_alive_for_a_while():
    """Prometheus uses it again; an idle one is closed."""
    world = World()
    protocol, transport = world.connect()
    for _ in range(2):
        protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert transport.value().count(b"200 OK") == 2
    world.clock.advance(IDLE_TIMEOUT)
    assert transport.disconnecting


def test_too_many_connections(log):
    """They are dropped at once, which is said once."""
    world = World(max_connections=2)
    first, _ = world.connect()
    world.connect()
    assert [world.connect()[1].aborted for _ in range(2)] == [True, True]
    first.connectionLost(Failure(ConnectionDone()))
    assert not world.connect()[1].aborted
    assert log == ["2 connections to a listener of type http: refusing more"]


def test_stopping():
    """Open connections are closed, those that stay are cut off."""
    world = World()
    idle, idle_transport = world.connect()
    _, other_transport = world.connect()
    stopped = []
    world.factory.close_all().addCallback(stopped.append)
    assert idle_transport.disconnecting
    assert other_transport.disconnecting
    idle.connectionLost(Failure(ConnectionDone()))
    assert not stopped
    world.clock.advance(STOP_TIMEOUT)
    assert stopped
    assert other_transport.aborted


def test_stopping_with_nobody_there():
    """At once, and nothing is left ticking."""
    world = World()
    stopped = []
    world.factory.close_all().addCallback(stopped.append)
    assert stopped
    assert world.clock.getDelayedCalls() == []
    assert world.connect()[1].aborted
