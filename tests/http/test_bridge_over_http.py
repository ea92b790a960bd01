"""The bridge over a true pool, with a push service that does whatever it should not."""

import random

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, globalLogPublisher

from xmpppush.config.sections import BridgeSection, HTTPConnectionsSection
from xmpppush.http_connections import HTTPPool
from xmpppush.mod_push_service_mongoosepush.service import MongoosePushBridge
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_delivery
from xmpppush.testing.pushservice import Answer, ScriptedPushService

PUSHES = 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull"


def head(line, *headers):
    return "\r\n".join([f"HTTP/1.1 {line}", *headers, "Content-Length: 0", "", ""]).encode()


@pytest.fixture
def log():
    events = []

    def observe(event):
        if event["log_level"] >= LogLevel.info and event["log_namespace"].startswith("xmpppush"):
            events.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


class Chain:
    """A bridge with a store and a pool on the network in memory."""

    def __init__(self, clock, network):
        self.clock, self.network = clock, network
        self.messages = memory_storage().messages
        section = HTTPConnectionsSection("push", "http://push.example", connections=10)
        self.pool = HTTPPool(section, clock, endpoint_for=lambda origin: network, max_connections=10)
        self.bridge = MongoosePushBridge(
            BridgeSection("push", max_http_connections=10),
            self.pool,
            self.messages,
            clock,
            random.Random(0),
            lambda delivery: None,
        )
        self.bridge.startService()
        clock.advance(0)
        self.requests = 0

    def enqueue(self, count=PUSHES):
        for number in range(count):
            delivery = a_delivery(path=f"/{number}", created=self.clock.seconds())
            self.messages.keep(None, [delivery], 0).addCallback(lambda rows: self.bridge.enqueue(rows[0]))

    def rows(self):
        found = []
        self.messages.queued(0, 1000).addCallback(found.extend)
        return found

    def serve(self, seconds, misbehave=None):
        """Let time pass; each request is answered 200, or meets ``misbehave``."""
        for _ in range(int(seconds * 10)):
            for wire in list(self.network.wires):
                if wire.open and wire.value():
                    wire.take()
                    self.requests += 1
                    if misbehave is None:
                        wire.answer(OK)
                    else:
                        misbehave(wire)
            self.clock.advance(0.1)


@pytest.fixture
def chain(clock, network):
    return Chain(clock, network)


def half_an_answer(wire):
    wire.answer(OK[:30])
    wire.drop(ConnectionLost())


PASSING = {
    "hanging": lambda wire: None,
    "closing without an answer": lambda wire: wire.drop(),
    "closing mid-answer": half_an_answer,
    "nonsense": lambda wire: wire.answer(b"220 smtp.example ESMTP\r\n"),
    "endless": lambda wire: wire.answer(
        b"HTTP/1.1 503 Busy\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 70_000
    ),
    "dripping": lambda wire: wire.answer(b"HTTP/1.1 200 OK\r\nContent-"),
    "500": lambda wire: wire.answer(head("500 Oops")),
    "503": lambda wire: wire.answer(head("503 Busy")),
    "429": lambda wire: wire.answer(head("429 Slow down", "Retry-After: 15")),
    "redirect": lambda wire: wire.answer(head("302 Found", "Location: http://elsewhere.example/")),
}


@pytest.mark.parametrize("misbehave", PASSING.values(), ids=PASSING)
def test_what_may_pass_costs_no_push(chain, log, misbehave):
    """
    For a minute: nothing lost, a few requests each time the breaker asks, one line, and all is delivered.
    """
    chain.enqueue()
    chain.serve(60.0, misbehave)
    assert len(chain.rows()) == PUSHES
    assert chain.requests <= PUSHES + 10
    assert len(log) == 1
    chain.serve(200.0)
    assert chain.rows() == []
    assert chain.bridge.outcomes["delivered"] == PUSHES
    assert len(log) == 2
    assert chain.network.attempts == []


def test_an_answer_that_is_cut_behind_its_200_counts(chain):
    """The push service has it; asked again it would send it twice."""

    def cut(wire):
        wire.answer(OK[:-2])
        wire.drop(ConnectionLost())

    chain.enqueue()
    chain.serve(2.0, cut)
    assert (chain.requests, chain.rows()) == (PUSHES, [])


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
def test_nobody_there(chain, log, error):
    """Connections that are not made: one try at a time, nothing lost, one line."""
    chain.network.manual = True
    chain.enqueue()
    tries = 0
    for _ in range(600):
        while chain.network.attempts:
            tries += 1
            chain.network.refuse(error)
        chain.clock.advance(0.1)
    assert tries < 20
    assert len(chain.rows()) == PUSHES
    assert len(log) == 1
    chain.network.manual = False
    chain.serve(200.0)
    assert chain.rows() == []
    assert len(log) == 2


@pytest.mark.parametrize(
    ("answer", "outcome", "lines"),
    [("404 Not Found", "refused", 1), ("413 Too Large", "refused", 1), ("410 Gone", "unregistered", 0)],
)
def test_what_does_not_pass_is_tried_once(chain, log, answer, outcome, lines):
    """Another try would get the same answer."""
    chain.enqueue()
    chain.serve(2.0, lambda wire: wire.answer(head(answer)))
    assert (chain.requests, chain.rows()) == (PUSHES, [])
    assert chain.bridge.outcomes == {outcome: PUSHES}
    assert len(log) == lines


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_expires_between_two_pushes(issue, ca_file, log):
    """What is pushed then waits, and goes out with the new certificate."""
    from twisted.internet import reactor, ssl

    service = ScriptedPushService([Answer(close=True)])

    async def listen(pem, port=0):
        context = ssl.DefaultOpenSSLContextFactory(str(pem), str(pem))
        return reactor.listenSSL(port, service.factory(), context, interface="127.0.0.1")

    async def until(condition):
        for _ in range(500):
            if condition():
                return
            await deferLater(reactor, 0.01)
        raise AssertionError(log)

    port = await listen(issue("127.0.0.1"))
    number = port.getHost().port
    messages = memory_storage().messages
    pool = HTTPPool(HTTPConnectionsSection("push", f"https://127.0.0.1:{number}", ca_file=ca_file), reactor)
    bridge = MongoosePushBridge(
        BridgeSection("push", retry_base=0.1), pool, messages, reactor, random.Random(0), lambda _: None
    )
    bridge.startService()

    async def push(path):
        (row,) = await messages.keep(None, [a_delivery(path=path, created=reactor.seconds())], 0)
        bridge.enqueue(row)

    await push("/1")
    await until(lambda: bridge.outcomes["delivered"] == 1)
    await port.stopListening()
    port = await listen(issue("127.0.0.1", start=-3, end=-2), number)
    await push("/2")
    await until(lambda: bridge.outcomes["postponed"])
    assert await messages.queued_count() == 1
    await port.stopListening()
    port = await listen(issue("127.0.0.1"), number)
    await until(lambda: bridge.outcomes["delivered"] == 2)
    await bridge.stopService()
    await pool.stopService()
    await port.stopListening()
    assert [request.path for request in service.requests] == ["/1", "/2"]
    assert [line for line in log if "cannot be reached" in line] == [
        f"push service https://127.0.0.1:{number} of http_connections push cannot be reached:"
        " certificate verify failed: certificate has expired"
    ]
