"""Named pools on connections in memory."""

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel, globalLogPublisher

from xmpppush.config.sections import HTTPConnectionsSection
from xmpppush.errors import ConfigError, Refused, TryLater
from xmpppush.http.outage import QUIET, Outage
from xmpppush.http.responses import parse_retry_after
from xmpppush.http_connections import HTTPPool


@pytest.fixture
def pool_with(clock, network):
    def make(server="http://push.example", **options):
        section = HTTPConnectionsSection("push", server, **options)
        return HTTPPool(section, clock, endpoint_for=lambda origin: network)

    return make


@pytest.fixture
def log():
    events = []

    def observe(event):
        if event["log_level"] >= LogLevel.info and event["log_namespace"].startswith("xmpppush"):
            events.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def result_of(deferred):
    results = []
    deferred.addBoth(results.append)
    return results[0] if results else None


def answered(pool, network, head, body=b"null"):
    """The response to a request that is answered so."""
    done = pool.post("/x", b"{}")
    wire = next(wire for wire in network.wires if wire.open and wire.value())
    wire.take()
    wire.answer(b"HTTP/1.1 " + head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return result_of(done)


@pytest.mark.parametrize(
    ("server", "target"),
    [
        ("http://push.example", b"/v3/notification/a"),
        ("http://push.example/", b"/v3/notification/a"),
        ("http://push.example/prefix/", b"/prefix/v3/notification/a"),
        ("http://[::1]:8443/p", b"/p/v3/notification/a"),
    ],
)
def test_the_path_goes_behind_the_servers_own(pool_with, network, server, target):
    """With one slash between them."""
    pool_with(server).post("/v3/notification/a", b"{}")
    assert network.wires[0].value().startswith(b"POST " + target + b" HTTP/1.1\r\n")


def test_a_response(pool_with, network):
    """Code and body; Retry-After in seconds where it is no success."""
    pool = pool_with()
    response = answered(pool, network, b"503 Busy\r\nretry-AFTER: 120", b"later")
    assert (response.code, response.body, response.retry_after) == (503, b"later", 120.0)
    response = answered(pool, network, b"200 OK\r\nRetry-After: 120")
    assert (response.code, response.retry_after) == (200, None)
    assert "later" not in repr(response)


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 70000\r\n\r\n" + b"x" * 66_000, b"Content-Length: 4\r\n\r\nnu"]
)
def test_a_yes_counts_though_its_body_does_not_come(pool_with, network, rest, log):
    """The push service has the notification; asked again it would send it again."""
    done = pool_with().post("/x", b"{}")
    wire = network.wires[0]
    for position in range(0, len(rest), 8192):
        head = b"" if position else b"HTTP/1.1 200 OK\r\n"
        if wire.open:
            wire.answer(head + rest[position : position + 8192])
    wire.drop()
    assert result_of(done).code == 200
    assert log == []


def test_a_no_without_its_body_is_none(pool_with, network):
    """Its body would have told what the status means."""
    done = pool_with().post("/x", b"{}")
    network.wires[0].answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 40\r\n\r\n{")
    network.wires[0].drop()
    assert result_of(done).check(TryLater)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (b"0", 0.0),
        (b" 120 ", 120.0),
        (b"-5", None),
        (b"1.5", None),
        (b"99999999999", None),
        ("٣".encode(), None),
        (b"Thu, 01 Jan 1970 00:20:00 GMT", 200.0),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (b"Thursday, 01-Jan-70 00:20:00 GMT", 200.0),
        (b"Thu, 01 Jan 1970 99:99:99 GMT", None),
        (b"soon", None),
        (b"", None),
        (b"1" * 5000, None),
    ],
)
def test_retry_after(value, seconds):
    """RFC 9110 section 10.2.3: seconds or a date; here it is 1000 seconds past the epoch."""
    assert parse_retry_after(value, 1000.0) == seconds


def test_an_outage_is_logged_when_it_begins_and_ends(pool_with, network, clock, log):
    """One line each, with what the operator needs."""
    pool = pool_with()
    network.manual = True
    for _ in range(5):
        done = pool.post("/x", b"{}")
        network.refuse(ConnectionRefusedError())
        failure = result_of(done)
        assert failure.check(TryLater)
        clock.advance(2.0)
    network.manual = False
    assert answered(pool, network, b"503 Busy").code == 503
    answered(pool, network, b"200 OK")
    assert log == [
        "push service http://push.example of http_connections push cannot be reached: connection refused",
        "push service http://push.example of http_connections push answers again after 10.0 s",
    ]


def test_an_outage_that_comes_and_goes_is_not_a_flood():
    """A line at most for each half minute and direction."""
    outage = Outage()
    assert outage.failed("a", 0.0)
    assert outage.succeeded(1.0) == 1.0
    assert not outage.failed("a", 2.0)
    assert outage.succeeded(3.0) is None
    assert outage.failed("a", QUIET)
    assert not outage.failed("b", QUIET + 1)
    assert outage.failed("b", 2 * QUIET)
    assert not outage.failed("b", 3 * QUIET)
    assert outage.succeeded(3 * QUIET) == 2 * QUIET
    assert outage.succeeded(3 * QUIET) is None


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/ü", "/a\x00"])
def test_a_path_that_is_none(pool_with, network, path):
    """Refused, and nothing is sent."""
    assert result_of(pool_with().post(path, b"{}")).check(Refused)
    assert network.wires == []


def test_stop_drains(pool_with, network, clock):
    """What is in flight gets its answer, what comes then is told to try later."""
    pool = pool_with()
    done = pool.post("/x", b"{}")
    stopped = pool.stopService()
    assert result_of(pool.post("/x", b"{}")).check(TryLater)
    assert not stopped.called
    network.wires[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert result_of(done).code == 200
    assert stopped.called
    assert clock.getDelayedCalls() == []


def test_stop_is_bounded(pool_with, network, clock):
    """In flight, connecting and waiting requests fail after a second."""
    pool = pool_with()
    outcomes = [pool.post("/x", b"{}")]
    network.manual = True
    outcomes += [pool.post("/x", b"{}") for _ in range(150)]
    stopped = pool.stopService()
    clock.advance(0.9)
    assert not stopped.called
    network.attempts[0][1].addErrback(lambda _: None)
    clock.advance(0.1)
    assert all(result_of(outcome).check(TryLater) for outcome in outcomes)
    assert stopped.called
    assert clock.getDelayedCalls() == []


def test_the_environment_chooses_the_agent(pool_with, monkeypatch):
    """For the benchmark; a wrong word is no silent default."""
    monkeypatch.setenv("XMPPPUSH_HTTP_AGENT", "stock")
    assert type(pool_with()._client).__name__ == "_StockClient"
    monkeypatch.setenv("XMPPPUSH_HTTP_AGENT", "quick")
    with pytest.raises(ConfigError):
        pool_with()


def test_statuses_are_counted(pool_with, network):
    """What came, and what never came."""
    pool = pool_with()
    assert pool.statuses == {200: 0, "none": 0}
    answered(pool, network, b"200 OK")
    answered(pool, network, b"503 Busy")
    assert pool.trouble is None
    done = pool.post("/x", b"{}")
    network.wires[-1].drop()
    failure = result_of(done)
    assert failure.check(TryLater)
    assert pool.statuses == {200: 1, 503: 1, "none": 1}
    assert pool.trouble == str(failure.value)
    answered(pool, network, b"503 Busy")
    assert pool.trouble is None


def test_a_key_is_sent_and_not_shown(pool_with, network):
    """``Authorization: Bearer`` (RFC 6750 section 2.1) with each request, and in no repr."""
    pool = pool_with(api_key="abc.DEF==")
    for _ in range(2):
        pool.post("/x", b"{}")
        assert network.wires[-1].take().count(b"\r\nAuthorization: Bearer abc.DEF==\r\n") == 1
    assert "abc" not in repr(pool._section)


def test_the_other_agent_sends_the_key_too(pool_with, monkeypatch):
    """Without sharing its headers with treq, which adds to them."""
    monkeypatch.setenv("XMPPPUSH_HTTP_AGENT", "stock")
    client = pool_with(api_key="abc")._client
    sent = []

    async def post(url, headers, **kwargs):
        sent.append(headers.getRawHeaders("authorization"))
        headers.addRawHeader("authorization", "more")
        raise ConnectionRefusedError

    client._client.post = post
    for _ in range(2):
        client.post(b"/x", b"{}").addErrback(lambda _: None)
    assert sent == [["Bearer abc"]] * 2
