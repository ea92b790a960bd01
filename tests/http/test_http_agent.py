"""The agent on connections in memory: pooling, deadlines, and whatever a server may answer."""

import pytest
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError
from twisted.web.client import FileBodyProducer
from twisted.web.http_headers import Headers

from xmpppush.errors import TryLater
from xmpppush.http.agent import MAX_GRACE, MAX_IDLE_TIME, BadRequestTarget
from xmpppush.http.client import BytesProducer, JSONClient

URL = b"http://push.example:8000/v3/notification/abc"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull"


class Outcome:
    """A Deferred's result, once it is there."""

    def __init__(self, deferred):
        self.response = self.error = None
        deferred.addCallbacks(self._take, self._fail)

    def _take(self, response):
        self.response = response

    def _fail(self, failure):
        self.error = failure.value

    @property
    def pending(self):
        return self.response is None and self.error is None


@pytest.fixture
def post(agent_with):
    """Posts JSON through one agent."""
    client = JSONClient(agent_with(max_idle=2, max_connections=3, timeout=5.0))

    def post(body=b"{}", url=URL):
        return Outcome(client.post(url, body))

    post.agent = client._pooled
    return post


def test_the_request_is_minimal_and_exact(post, network):
    """Request line, Host with its port, our name, type and length: nothing else."""
    post(b'{"a":1}')
    from xmpppush import __version__

    assert network.wires[0].take() == (
        b"POST /v3/notification/abc HTTP/1.1\r\nHost: push.example:8000\r\n"
        b"User-Agent: xmpppush/" + __version__.encode() + b"\r\n"
        b'Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (b"http://push.example/", b"push.example"),
        (b"http://push.example:80/", b"push.example"),
        (b"http://[::1]:8080/", b"[::1]:8080"),
        (b"http://127.0.0.1:443/", b"127.0.0.1:443"),
        (b"http://PUSH.example/", b"push.example"),
    ],
)
def test_host_header(post, network, url, host):
    """RFC 9110 section 7.2: brackets for IPv6, no port where it is the scheme's own."""
    post(url=url)
    assert b"\r\nHost: " + host + b"\r\n" in network.wires[0].take()


def test_an_answer_is_complete_with_its_last_byte(post, network):
    """However the bytes are cut."""
    outcome = post()
    for position in range(len(OK)):
        assert outcome.pending
        network.wires[0].answer(OK[position : position + 1])
    assert (outcome.response.code, outcome.response.body) == (200, b"null")


def test_a_kept_alive_connection_is_used_again(post, network):
    """Two requests, one connection."""
    for _ in range(2):
        outcome = post()
        network.wires[0].answer(OK)
        assert outcome.response.code == 200
    assert len(network.wires) == 1


def test_the_next_request_may_be_sent_from_the_answer(post, network, agent_with):
    """The connection is back before the answer is handed over."""
    client = JSONClient(agent_with())
    done = client.post(URL, b"{}")
    done.addCallback(lambda _: client.post(URL, b"{}"))
    network.wires[0].answer(OK)
    assert len(network.wires) == 1
    network.wires[0].answer(OK)
    assert done.result.code == 200


def test_requests_in_flight_have_a_connection_each_up_to_the_limit(post, network):
    """No pipelining; the one too many waits for a connection that is free."""
    outcomes = [post() for _ in range(4)]
    assert len(network.wires) == 3
    network.wires[1].answer(OK)
    assert not outcomes[1].pending
    network.wires[1].answer(OK)
    assert not outcomes[3].pending


def test_idle_connections_beyond_the_limit_are_closed(post, network):
    """Two are kept of three."""
    for _ in range(3):
        post()
    for wire in network.wires:
        wire.answer(OK)
    assert [wire.open for wire in network.wires] == [True, True, False]


def test_an_old_idle_connection_is_not_used(post, network, clock):
    """The server may be closing it at this moment, and a POST is not sent twice."""
    post()
    network.wires[0].answer(OK)
    clock.advance(MAX_IDLE_TIME)
    post()
    assert not network.wires[0].open
    assert len(network.wires) == 2


def test_an_idle_connection_that_the_server_closes_is_forgotten(post, network):
    """The next request gets a new one."""
    post()
    network.wires[0].answer(OK)
    network.wires[0].drop()
    outcome = post()
    network.wires[1].answer(OK)
    assert outcome.response.code == 200


def test_a_lost_request_is_not_repeated(post, network):
    """Even on a used connection: the server may have acted upon it."""
    post()
    network.wires[0].answer(OK)
    outcome = post()
    network.wires[0].drop()
    assert isinstance(outcome.error, TryLater)
    assert str(outcome.error) == "connection closed without an answer"
    assert len(network.wires) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(), "connection refused"),
        (DNSLookupError(), "host name not found"),
        (ConnectionLost(), "connection lost"),
        (OSError("secret"), "OSError"),
    ],
)
def test_a_failed_connection_fails_its_request_with_a_reason(post, network, error, reason):
    """In words for the operator, with nothing of what the error carries."""
    network.manual = True
    outcome = post()
    network.refuse(error)
    assert isinstance(outcome.error, TryLater)
    assert str(outcome.error) == reason


def test_a_failed_connection_does_not_fail_who_is_served_meanwhile(post, network):
    """Waiting requests take whatever connection comes first."""
    first = post()
    network.manual = True
    second = post()
    network.wires[0].answer(OK)  # the second goes out here, its own connection still in the making
    network.refuse(ConnectionRefusedError())
    network.wires[0].answer(OK)
    assert first.response.code == second.response.code == 200


def test_every_waiting_request_fails_when_nothing_connects(post, network):
    """Also those beyond the limit, each with an attempt of its own."""
    network.manual = True
    outcomes = [post() for _ in range(5)]
    while network.attempts:
        network.refuse(ConnectionRefusedError())
    assert [str(outcome.error) for outcome in outcomes] == ["connection refused"] * 5


def test_deadline_in_flight(post, network, clock):
    """After the time-out the request fails and its connection, of unknown state, is closed."""
    outcome = post()
    clock.advance(4.9)
    assert outcome.pending
    clock.advance(0.1)
    assert str(outcome.error) == "no answer in time"
    assert not network.wires[0].open


def test_deadline_while_connecting(post, network, clock):
    """The attempt is given up, too."""
    network.manual = True
    outcome = post()
    cancelled = []
    network.attempts[0][1].addErrback(cancelled.append)
    clock.advance(5.0)
    assert str(outcome.error) in ("timed out connecting", "no connection in time")
    assert clock.getDelayedCalls() == []


def test_deadlines_share_one_timer(post, network, clock):
    """However many requests: one delayed call, and each runs out at its own time."""
    early = post()
    clock.advance(2.0)
    late = post()
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(3.0)
    assert not early.pending
    assert late.pending
    clock.advance(2.0)
    assert not late.pending
    assert clock.getDelayedCalls() == []


def test_an_answer_that_is_here_counts_though_we_come_late(post, network, clock):
    """A process that stood still finds the deadline over and the answer in its socket: no second POST."""
    outcome = post()
    clock.callLater(6.0, network.wires[0].answer, OK)  # the reading of the turn in which the timers ran
    clock.advance(7.0)
    clock.advance(MAX_GRACE)
    assert outcome.error is None
    assert outcome.response.code == 200
    assert clock.getDelayedCalls() == []


def test_what_waited_too_long_is_not_sent_in_the_last_moment(post, network, clock):
    """A connection that gets free behind the deadline would carry a POST that nobody waits for."""
    outcomes = [post() for _ in range(4)]
    clock.callLater(6.0, network.wires[0].answer, OK)
    clock.advance(7.0)
    assert str(outcomes[3].error) == "no connection in time"
    assert outcomes[1].pending
    clock.advance(MAX_GRACE)
    assert outcomes[0].response.code == 200
    assert [str(outcome.error) for outcome in outcomes[1:]] == [
        *["no answer in time"] * 2,
        "no connection in time",
    ]
    assert sum(wire.value().count(b"POST ") for wire in network.wires) == 3


def test_an_answer_may_be_late_when_we_are(post, network, clock):
    """A machine that stood still, or a clock put forward: the push service had no five seconds either."""
    outcome = post()
    clock.advance(100.0)
    clock.advance(MAX_GRACE - 0.1)
    network.wires[0].answer(OK)
    assert outcome.response.code == 200


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnu", 200), (b"HTTP/1.1 200 OK\r\nConte", 0)],
)
def test_the_status_of_an_answer_that_breaks_off_is_told(post, network, clock, answer, code):
    """Who posts need not post again what a server said yes to."""
    lost, late = post(), post()
    for wire in network.wires:
        wire.answer(answer)
    network.wires[0].drop(ConnectionLost())
    clock.advance(5.0)
    assert [getattr(outcome.error, "code", 0) for outcome in (lost, late)] == [code, code]


def test_cancelling_gives_a_request_up(agent_with, network, clock):
    """treq's own time-out works that way."""
    client = JSONClient(agent_with())
    done = client.post(URL, b"{}")
    outcome = Outcome(done)
    done.cancel()
    assert type(outcome.error).__name__ == "CancelledError"
    assert not network.wires[0].open


@pytest.mark.parametrize(
    ("answer", "code", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, b""),
        (CHUNKED + b"2\r\nnu\r\n2;x=y\r\nll\r\n0\r\nA: b\r\n\r\n", 200, b"null"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"null"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"null"),
        (b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", 599, b""),
    ],
)  # fmt: skip
def test_answers_that_keep_the_connection(post, network, answer, code, body):
    """The answer is read to its end, and the connection serves the next request."""
    outcome = post()
    network.wires[0].answer(answer)
    assert (outcome.response.code, outcome.response.body) == (code, body)
    assert network.wires[0].open
    again = post()
    network.wires[0].answer(OK)
    assert again.response.body == b"null"
    assert len(network.wires) == 1


def test_an_interim_answer_leaves_no_headers(post, network):
    """Those of a 103 do not belong to the answer."""
    outcome = post()
    network.wires[0].answer(b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n" + OK)
    assert outcome.response.header(b"retry-after") is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        OK + b"rubbish",
    ],
)
def test_answers_that_end_the_connection(post, network, answer):
    """What the server closes, or where more comes than was asked for: the answer counts, no more."""
    outcome = post()
    network.wires[0].answer(answer)
    assert (outcome.response.code, outcome.response.body) == (200, b"null")
    assert not network.wires[0].open
    post()
    assert len(network.wires) == 2


def test_http_1_0_keep_alive(post, network):
    """An old server that says so keeps the connection."""
    post()
    network.wires[0].answer(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
    assert network.wires[0].open


def test_a_body_that_ends_with_the_connection(post, network):
    """RFC 9112 section 6.3, rule 8, where the connection is closed properly."""
    outcome = post()
    network.wires[0].answer(b"HTTP/1.1 200 OK\r\n\r\nnu")
    network.wires[0].answer(b"ll")
    assert outcome.pending
    network.wires[0].drop()
    assert outcome.response.body == b"null"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nnu", ConnectionLost()),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnu", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nnu\r\n", None),
        (b"HTTP/1.1 200", None),
    ],
)
def test_a_truncated_answer_is_none(post, network, answer, error):
    """Half of an answer may mean anything."""
    outcome = post()
    network.wires[0].answer(answer)
    network.wires[0].drop(error)
    assert str(outcome.error) == "connection lost in the middle of the answer"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "answer is not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02P", "answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nnull", "answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n: c\r\n\r\n", "answer is not HTTP"),
        (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhi", "answer switches protocols"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 17000, "answer's headers are too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * 4000 + b"\r\n", "answer's headers are too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 66000, "answer is too long"),
        (CHUNKED + b"1;" + b"x" * 90000, "answer is too long"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "answer's headers are too long"),
    ],
)  # fmt: skip
def test_answers_that_are_none(post, network, answer, reason):
    """Rubbish and floods fail the request, bounded in memory, and cost the connection."""
    outcome = post()
    for position in range(0, len(answer), 8192):
        if network.wires[0].open:
            network.wires[0].answer(answer[position : position + 8192])
    assert isinstance(outcome.error, TryLater)
    assert str(outcome.error) == reason
    assert not network.wires[0].open


def test_an_answer_nobody_asked_for_ends_the_connection(post, network):
    """Else it would be taken for the answer to the next request."""
    post()
    network.wires[0].answer(OK)
    network.wires[0].answer(OK)
    assert not network.wires[0].open
    outcome = post()
    assert outcome.pending


@pytest.mark.parametrize("end", [b" HTTP/1.1\r\nX: y", b"\r\n", b"\x00", b"\x7f", "ü".encode(), b"a b"])
def test_nothing_gets_into_the_request_line(post, network, end):
    """A path with a space, a control character or non-ASCII is not sent."""
    outcome = post(url=URL + end)
    assert isinstance(outcome.error, BadRequestTarget)
    assert network.wires == []


@pytest.mark.parametrize(
    "url", [b"ftp://push.example/x", b"http:///x", b"http://a b/x", b"http://u:p@push.example/x", b"/x", b""]
)
def test_urls_that_are_none(post, network, url):
    """They fail and reach nobody."""
    assert isinstance(post(url=url).error, BadRequestTarget)
    assert network.wires == []


def test_close_waits_for_what_is_in_flight(post, network, clock):
    """Idle connections end at once, the busy one with its answer, and nothing is left ticking."""
    post()
    busy = post()
    network.wires[0].answer(OK)
    closed = Outcome(post.agent.close().addCallback(lambda _: "closed"))
    assert not network.wires[0].open
    assert closed.pending
    assert str(post().error) == "stopping"
    network.wires[1].answer(OK)
    assert busy.response.code == 200
    assert closed.response == "closed"
    assert not network.wires[1].open
    assert clock.getDelayedCalls() == []


def test_close_is_bounded_by_the_deadline(post, network, clock):
    """A server that never answers does not keep us."""
    post()
    closed = Outcome(post.agent.close().addCallback(lambda _: "closed"))
    clock.advance(5.0)
    assert closed.response == "closed"
    assert clock.getDelayedCalls() == []


def test_any_method_headers_and_producer(agent_with, network):
    """As ``IAgent`` it takes what treq makes; headers that rule the framing are its own."""
    from io import BytesIO

    agent = agent_with()
    headers = Headers({"X-A": ["1", "2"], "Content-Length": ["99"], "Host": ["other.example"]})
    outcome = Outcome(agent.request(b"PUT", URL, headers, BytesProducer(b"abc")))
    assert network.wires[0].take() == (
        b"PUT /v3/notification/abc HTTP/1.1\r\nX-A: 1\r\nX-A: 2\r\nHost: other.example\r\n"
        b"Content-Length: 3\r\n\r\nabc"
    )
    network.wires[0].answer(OK)
    assert outcome.response.code == 200

    class Cooperator:
        @staticmethod
        def cooperate(iterator):
            for _ in iterator:
                pass
            from types import SimpleNamespace

            from twisted.internet.defer import succeed

            return SimpleNamespace(whenDone=lambda: succeed(None))

    agent.request(b"POST", URL, None, FileBodyProducer(BytesIO(b"from a file"), cooperator=Cooperator()))
    assert network.wires[0].take().endswith(b"Content-Length: 11\r\n\r\nfrom a file")


def test_head_has_no_body(agent_with, network):
    """The length that its answer tells is of a body that does not come."""
    outcome = Outcome(agent_with().request(b"HEAD", URL))
    network.wires[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    assert (outcome.response.code, outcome.response.body) == (200, b"")


@pytest.mark.parametrize("method", [b"GET /x\r\nA:", b"CONNECT", b""])
def test_methods_that_are_none(agent_with, network, method):
    """They would be a way into the request line, or out of HTTP."""
    assert isinstance(Outcome(agent_with().request(method, URL)).error, BadRequestTarget)


def test_treq_works_on_the_agent(agent_with, network, clock):
    """Query, JSON, headers, gzip and response methods are treq's."""
    import gzip

    client = JSONClient(agent_with())
    done = client.post("http://push.example/x", json={"a": 1}, params={"q": "ü"}, reactor=clock, timeout=3)
    request = network.wires[0].take()
    assert request.startswith(b"POST /x?q=%C3%BC HTTP/1.1\r\n")
    assert request.endswith(b'{"a":1}')
    body = gzip.compress(b'{"b": 2}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    network.wires[0].answer(head + body)
    found = []
    done.addCallback(lambda response: response.json()).addCallback(found.append)
    assert found == [{"b": 2}]


def test_redirects_are_not_followed_on_the_short_way(post, network):
    """A push service that moved is for the operator to know."""
    outcome = post()
    network.wires[0].answer(
        b"HTTP/1.1 307 Temporary\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n"
    )
    assert outcome.response.code == 307
    assert len(network.wires) == 1
