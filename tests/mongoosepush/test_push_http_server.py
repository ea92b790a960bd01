"""The HTTP server under the push service, octet by octet."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher

from xmpppush.mongoosepush.http_server import LINGER, REQUEST_TIMEOUT, Answer, HTTPServerFactory

NULL = Answer(200, b"null")
POST = b"POST /path HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """A server with a handler and one client."""

    def __init__(self, handler=None, **options):
        self.requests = []
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.factory = HTTPServerFactory(
            handler or self.handle,
            lambda request, status, reason: Answer(status, reason.encode()),
            self.clock,
            lambda size: b"\x00" * size,
            **{"max_connections": 10, **options},
        )
        self.connect()

    def connect(self):
        self.protocol, self.transport = self.factory.buildProtocol(None), StringTransport()
        self.transport.abortConnection = self.transport.loseConnection
        self.protocol.makeConnection(self.transport)

    def handle(self, request):
        self.requests.append(request)
        return NULL

    def send(self, *chunks):
        for chunk in chunks:
            self.protocol.dataReceived(chunk)
        return self.output()

    def output(self):
        value = self.transport.value()
        self.transport.clear()
        return value


def statuses(output):
    return [int(part[:3]) for part in output.split(b"HTTP/1.1 ")[1:]]


def test_an_answer_to_the_octet():
    """The headers of MongoosePush, and nothing of the server's version."""
    assert Server().send(POST) == (
        b"HTTP/1.1 200 OK\r\n"
        b"server: xmpppush\r\n"
        b"date: Sun, 09 Sep 2001 01:46:40 GMT\r\n"
        b"cache-control: max-age=0, private, must-revalidate\r\n"
        b"content-type: application/json; charset=utf-8\r\n"
        b"x-request-id: AAAAAAAAAAAAAAAAAAAA\r\n"
        b"content-length: 4\r\n\r\nnull"
    )


def test_a_request_arrives_whole():
    """Method, path without query, headers in lower case and joined, body."""
    server = Server()
    server.send(b"POST /p%2F?q=1 HTTP/1.1\r\nACCEPT: a\r\nAccept: b\r\nContent-Length: 2\r\n\r\n{}")
    (request,) = server.requests
    assert (request.method, request.path, request.content) == ("POST", b"/p%2F", b"{}")
    assert request.headers == {"accept": "a, b", "content-length": "2"}


def test_octets_one_by_one():
    """However the network cuts it."""
    server = Server()
    assert statuses(server.send(*[bytes([octet]) for octet in POST * 2])) == [200, 200]
    assert server.requests[0] == server.requests[1]


def test_a_chunked_body():
    """Of unknown length."""
    server = Server()
    server.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    )
    assert server.requests[0].content == b"{}"


def test_a_request_id_is_echoed():
    """From 20 characters on, and only of harmless characters; else a new one is made."""
    for given, echoed in (("a" * 20, True), ("short", False), ("a" * 201, False), ("a b" * 10, False)):
        request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: %b\r\n\r\n" % given.encode()
        assert (b"x-request-id: %b\r\n" % given.encode() in Server().send(request)) is echoed


def test_head_has_no_body():
    """But the length that it would have."""
    output = Server().send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"content-length: 4\r\n" in output
    assert output.endswith(b"\r\n\r\n")


def test_further_headers_of_an_answer():
    """Such as Retry-After."""
    server = Server(lambda request: Answer(429, b"{}", (("retry-after", "2"),)))
    output = server.send(POST)
    assert output.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nretry-after: 2\r\n" in output


@pytest.mark.parametrize(
    "request_",
    [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
)
def test_connections_that_end_with_the_answer(request_):
    """Where the client wants it; what it sends afterwards is not even read."""
    server = Server()
    assert b"connection: close\r\n" in server.send(request_)
    assert server.transport.disconnecting
    assert server.send(POST) == b""
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nbad header: x\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_the_connection(data):
    """400, and nothing else is read."""
    server = Server()
    assert statuses(server.send(data)) == [400]
    assert server.send(POST) == b""
    assert server.requests == []
    server.clock.advance(LINGER)
    assert server.transport.disconnecting


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_other_protocols_are_declined(request_):
    """The request is answered as any other and is the last of its connection."""
    server = Server()
    output = server.send(request_ + POST)
    assert statuses(output) == [200]
    assert b"connection: close" in output
    assert server.transport.disconnecting
    assert len(server.requests) == 1


def test_ambiguous_lengths_are_refused():
    """Content-Length beside Transfer-Encoding is how requests are smuggled (RFC 9112 section 6.3)."""
    server = Server()
    output = server.send(
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + POST
    )
    assert statuses(output) == [400]
    assert server.requests == []


def test_a_body_that_says_it_is_too_big_is_refused_at_once():
    """413 after the headers; the rest is thrown away until the client closes or its time is over."""
    server = Server(max_body=100)
    output = server.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n")
    assert statuses(output) == [413]
    assert b"connection: close" in output
    assert server.send(b"x" * 1000) == b""
    assert not server.transport.disconnecting
    server.clock.advance(LINGER)
    assert server.transport.disconnecting
    assert server.requests == []


def test_lengths_beyond_any_number_are_refused():
    """Also those that would be slow to read as a number."""
    output = Server().send(b"POST / HTTP/1.1\r\nContent-Length: " + b"1" * 19 + b"\r\n\r\n")
    assert statuses(output) == [413]


def test_a_chunked_body_that_grows_too_big_is_refused():
    """As soon as it does, and without keeping what came."""
    server = Server(max_body=100)
    server.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert server.send(b"32\r\n" + b"x" * 50 + b"\r\n") == b""
    assert statuses(server.send(b"33\r\n" + b"x" * 51 + b"\r\n")) == [413]
    assert statuses(server.send(b"0\r\n\r\n")) == []
    assert server.requests == []


def test_a_body_as_big_as_allowed():
    """The limit itself is within."""
    server = Server(max_body=100)
    assert statuses(server.send(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n", b"x" * 100)) == [200]


def test_a_large_request_may_come_at_once():
    """A body is no head, however many octets of it come with the head; nor is the next request."""
    request = b"POST / HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000
    server = Server()
    assert statuses(server.send(request)) == [200]
    assert statuses(server.send(request + request)) == [200, 200]


def test_headers_without_end_are_refused():
    """Whether many or one."""
    for start, more in ((b"", b"a: b\r\n" * 100), (b"a: ", b"b" * 1000)):
        server = Server()
        output = server.send(b"GET / HTTP/1.1\r\n" + start)
        for _ in range(40):
            output += server.send(more)
        assert statuses(output) == [431]


def test_expect_100_continue():
    """curl waits for it with bigger bodies."""
    server = Server()
    head, body = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", b"{}"
    assert server.send(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert statuses(server.send(body)) == [200]


def test_pipelined_requests_are_answered_in_order():
    """One at a time; reading pauses while one is being answered."""
    answers = []

    def handle(request):
        answers.append(Deferred())
        return answers[-1]

    server = Server(handle)
    assert server.send(POST * 3) == b""
    assert len(answers) == 1
    assert server.transport.producerState == "paused"
    answers[0].callback(Answer(200, b"1"))
    assert server.output().endswith(b"\r\n\r\n1")
    assert len(answers) == 2
    answers[1].callback(Answer(404, b"2"))
    answers[2].callback(Answer(200, b"3"))
    assert statuses(server.output()) == [404, 200]
    assert server.transport.producerState == "producing"


def test_a_client_that_reads_no_answers_sends_no_requests():
    """While its answers are not taken nothing more is read or handled."""
    server = Server()
    server.transport.producer.pauseProducing()
    assert server.transport.producerState == "paused"
    assert server.send(POST * 2) == b""
    assert server.requests == []
    server.transport.producer.resumeProducing()
    assert statuses(server.output()) == [200, 200]
    assert server.transport.producerState == "producing"


def test_an_answer_to_a_client_that_has_gone():
    """Nobody is written to, and nothing is left ticking."""
    answer = Deferred()
    server = Server(lambda request: answer)
    server.send(POST)
    server.protocol.connectionLost()
    answer.callback(NULL)
    assert server.output() == b""
    assert server.clock.getDelayedCalls() == []


@pytest.mark.parametrize("late", [False, True])
def test_a_handler_that_fails(late):
    """500, and the fault in the log, once."""
    log, answer = [], Deferred()

    def handle(request):
        if late:
            return answer
        raise RuntimeError

    globalLogPublisher.addObserver(log.append)
    try:
        server = Server(handle)
        output = server.send(POST)
        if late:
            answer.errback(RuntimeError())
            output = server.output()
        server.protocol.connectionLost()
    finally:
        globalLogPublisher.removeObserver(log.append)
    assert statuses(output) == [500]
    assert len(log) == 1
    assert "/path" not in str(log)


def test_idle_connections_are_closed():
    """After a minute, with or without a request before."""
    server = Server()
    server.clock.advance(REQUEST_TIMEOUT - 1)
    server.send(POST)
    server.clock.advance(REQUEST_TIMEOUT - 1)
    assert not server.transport.disconnecting
    server.clock.advance(1)
    assert server.transport.disconnecting


def test_a_request_that_trickles_is_closed():
    """An octet now and then buys no time: a minute is for the whole request."""
    server = Server()
    server.clock.advance(30)
    for octet in POST[:12]:
        server.send(bytes([octet]))
        server.clock.advance(5)
    assert server.transport.disconnecting


def test_connections_are_bounded():
    """Those too many are turned away; that is logged once, not for each."""
    log = []
    globalLogPublisher.addObserver(log.append)
    try:
        server = Server(max_connections=2)
        server.connect()
        assert [server.factory.buildProtocol(None) for _ in range(3)] == [None] * 3
        assert len(log) == 1
        server.protocol.connectionLost()
        assert server.factory.buildProtocol(None) is not None
    finally:
        globalLogPublisher.removeObserver(log.append)


def test_draining():
    """Idle connections close at once, others after their answer."""
    answer = Deferred()
    server = Server(lambda request: answer)
    busy, busy_transport = server.protocol, server.transport
    server.send(POST)
    server.connect()
    idle, idle_transport = server.protocol, server.transport
    done = []
    server.factory.drain().addCallback(done.append)
    assert idle_transport.disconnecting
    assert not busy_transport.disconnecting
    idle.connectionLost()
    answer.callback(NULL)
    assert b"connection: close" in busy_transport.value()
    assert busy_transport.disconnecting
    assert done == []
    busy.connectionLost()
    assert done == [None]
    assert server.clock.getDelayedCalls() == []


def test_draining_without_connections():
    """Is done at once."""
    server = Server()
    server.protocol.connectionLost()
    done = []
    server.factory.drain().addCallback(done.append)
    assert done == [None]
