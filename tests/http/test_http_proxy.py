"""CONNECT: what is asked of a proxy, and what becomes of its answers."""

from base64 import b64encode

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from xmpppush.errors import TryLater, Unreachable
from xmpppush.http.agent import PooledAgent
from xmpppush.http.client import JSONClient
from xmpppush.http.proxy import (
    ConnectEndpoint,
    IStreamClientEndpoint,
    Proxy,
    endpoint_factory,
    parse_proxy,
)
from xmpppush.testing.pushservice import ScriptedPushService

PROXY = Proxy("proxy.example", 3128)


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example:3128", PROXY),
        ("HTTP://PROXY.example:3128/", PROXY),
        ("http://me:p%40ss%3A@10.0.0.1:8080", Proxy("10.0.0.1", 8080, "me", "p@ss:")),
        ("http://[::1]:3128", Proxy("::1", 3128)),
        ("", None),
    ],
)
def test_parse(text, proxy):
    """User and password percent-decoded; nothing is no proxy."""
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "proxy.example:3128",
        "http://proxy.example",
        "http://proxy.example:0",
        "http://proxy.example:99999",
        "http://proxy.example:x",
        "http://:3128",
        "http://proxy.example:3128/path",
        "http://proxy.example:3128?q",
        "http://proxy.example:3128#f",
        "http://pro xy:3128",
        "http://proxy\r\n:3128",
        "http://a%3Ab:secret@proxy.example:3128",
        "https://me:secret@proxy.example:3128",
        "socks5://me:secret@proxy.example:1080",
    ],
)
def test_parse_refuses(text):
    """One line that says what is expected and never the password."""
    with pytest.raises(ValueError, match=r"not http://\[user:password@\]host:port|colon in") as caught:
        parse_proxy(text)
    assert "secret" not in str(caught.value)


def test_nothing_secret_in_repr():
    """Neither user nor password."""
    shown = repr(Proxy("h", 1, "mallory", "secret")) + str(Proxy("::1", 1, "mallory", "secret"))
    assert "mallory" not in shown
    assert "secret" not in shown
    assert "[::1]:1" in shown


class Echo(Protocol):
    """Keeps what it gets."""

    def __init__(self):
        self.got = b""
        self.lost = None

    def dataReceived(self, data):
        self.got += data

    def connectionLost(self, reason):
        self.lost = reason


@pytest.fixture
def connect(network, clock):
    """Starts to connect through the proxy; returns the Deferred and the proxy's end, if there is one."""

    def connect(proxy=PROXY, host="fcm.googleapis.com", port=443):
        endpoint = ConnectEndpoint(network, proxy, host, port, clock, 5.0)
        assert verifyObject(IStreamClientEndpoint, endpoint)
        result = []
        factory = Factory.forProtocol(Echo)
        connecting = endpoint.connect(factory)
        connecting.addBoth(result.append)
        wire = network.wires[-1] if network.wires else None
        return connecting, result, wire

    return connect


def reason_of(result):
    (failure,) = result
    assert isinstance(failure, Failure)
    assert failure.check(Unreachable)
    return str(failure.value)


def test_what_is_asked(connect):
    """Host and port, and nobody's name."""
    _, result, wire = connect()
    assert wire.take() == b"CONNECT fcm.googleapis.com:443 HTTP/1.1\r\nHost: fcm.googleapis.com:443\r\n\r\n"
    assert result == []


def test_user_and_password(connect):
    """Basic (RFC 7617), in UTF-8."""
    _, _, wire = connect(Proxy("p", 1, "me", "pä:ss"))
    credentials = b64encode("me:pä:ss".encode())
    assert b"\r\nProxy-Authorization: Basic " + credentials + b"\r\n" in wire.take()


def test_names_and_addresses(connect):
    """IPv6 in brackets, international names in ASCII."""
    assert connect(host="::1")[2].take().startswith(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")
    assert connect(host="bücher.example")[2].take().startswith(b"CONNECT xn--bcher-kva.example:443 ")
    with pytest.raises(ValueError, match="not a host name"):
        connect(host="a\r\nb")


def test_the_tunnel(connect, clock):
    """Behind the proxy's answer the connection is the protocol's own."""
    _, result, wire = connect()
    wire.take()
    wire.answer(b"HTTP/1.1 200 Connection esta")
    wire.answer(b"blished\r\nVia: x\r\n\r\nfirst ")
    (protocol,) = result
    assert isinstance(protocol, Echo)
    wire.answer(b"bytes")
    assert protocol.got == b"first bytes"
    protocol.transport.write(b"hello")
    assert wire.take() == b"hello"
    wire.drop()
    assert protocol.lost is not None
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Auth\r\n\r\n", "proxy answered 407: it wants a user and password"),
        (b"HTTP/1.0 403 No\r\n", "proxy answered 403: it does not let us connect there"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", "proxy answered 502: it cannot reach the host"),
        (b"HTTP/1.1 400 \r\n\r\n", "proxy answered 400"),
        (b"SSH-2.0-OpenSSH_9.2p1 hello\r\n", "proxy does not answer in HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n", "proxy does not answer in HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "proxy does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000, "proxy's answer is too long"),
    ],
)
def test_refusals(connect, clock, answer, reason):
    """Each in words; the connection is closed and nothing ticks."""
    _, result, wire = connect()
    wire.answer(answer)
    assert reason_of(result) == reason
    assert not wire.open
    assert clock.getDelayedCalls() == []


def test_a_wrong_password(connect):
    """It was given, so it is wrong."""
    _, result, wire = connect(Proxy("p", 1, "me", "x"))
    wire.answer(b"HTTP/1.1 407 Auth\r\n\r\n")
    assert reason_of(result) == "proxy answered 407: it does not take this user and password"


def test_a_proxy_that_says_nothing(connect, clock):
    """Bounded in time."""
    _, result, wire = connect()
    wire.answer(b"HTTP/1.1 200 OK\r\n")
    clock.advance(5.0)
    assert reason_of(result) == "proxy gives no answer in time"
    assert not wire.open


def test_a_proxy_that_closes(connect):
    """No answer at all."""
    _, result, wire = connect()
    wire.drop()
    assert reason_of(result) == "proxy closed the connection without an answer"


def test_a_proxy_that_is_not_there(network, connect, clock):
    """The reason says that it is the proxy."""
    network.manual = True
    _, result, _ = connect()
    network.refuse(ConnectionRefusedError())
    assert reason_of(result) == "proxy: connection refused"
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("manual", [True, False])
def test_cancelling(network, connect, clock, manual):
    """Before the proxy is there, and while it thinks."""
    network.manual = manual
    connecting, result, wire = connect()
    connecting.cancel()
    assert result[0].check(CancelledError)
    assert wire is None or not wire.open
    assert clock.getDelayedCalls() == []


def test_an_agent_says_why(network):
    """The reason of the proxy is what the request fails with."""
    clock = Clock()
    agent = PooledAgent(
        clock, endpoint_to=lambda host, port: ConnectEndpoint(network, PROXY, host, port, clock)
    )
    result = []
    agent.request(b"POST", b"http://push.example/x").addBoth(result.append)
    network.wires[0].answer(b"HTTP/1.1 407 Auth\r\n\r\n")
    assert reason_of(result) == "proxy answered 407: it wants a user and password"


# On the real reactor, with TLS inside.


class RealProxy(Protocol):
    """A CONNECT proxy that connects to one port whatever name is asked for."""

    def connectionMade(self):
        self.head = b""
        self.other = None

    def dataReceived(self, data):
        if self.other is not None:
            self.other.transport.write(data)
            return
        self.head += data
        if b"\r\n\r\n" in self.head:
            self.factory.heads.append(self.head)
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.factory.target)
            endpoint.connect(Factory.forProtocol(Pipe)).addCallback(self.join)

    def join(self, other):
        self.other, other.other = other, self
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")

    def connectionLost(self, reason):
        if self.other is not None:
            self.other.transport.loseConnection()


class Pipe(Protocol):
    """The other end."""

    def dataReceived(self, data):
        self.other.transport.write(data)

    def connectionLost(self, reason):
        self.other.transport.loseConnection()


@pytest.fixture
def real_proxy(issue):
    """A service with a certificate for provider.example, and a proxy to it."""
    service = ScriptedPushService()
    pem = str(issue("provider.example"))
    ports = [
        reactor.listenSSL(0, service.factory(), DefaultOpenSSLContextFactory(pem, pem), interface="127.0.0.1")
    ]
    factory = Factory.forProtocol(RealProxy)
    factory.noisy = False
    factory.heads = []
    factory.target = ports[0].getHost().port
    ports.append(reactor.listenTCP(0, factory, interface="127.0.0.1"))
    factory.port = ports[1].getHost().port
    factory.service = service
    yield factory
    for port in ports:
        pytest_twisted.blockon(maybeDeferred(port.stopListening))


@pytest_twisted.ensureDeferred
async def test_tls_through_the_tunnel(real_proxy, ca_file):
    """The certificate is checked for the provider's name, which only the proxy looks up; kept alive."""
    proxy = parse_proxy(f"http://u:p@127.0.0.1:{real_proxy.port}")
    way = endpoint_factory(reactor, proxy)
    agent = PooledAgent(reactor, ca_file=ca_file, endpoint_to=way)
    client = JSONClient(agent)
    for _ in range(2):
        assert (await client.post(b"https://provider.example/x", b"{}")).code == 200
    with pytest.raises(TryLater, match=r"certificate is for provider\.example, not other\.example"):
        await client.post(b"https://other.example/x", b"{}")
    assert [head.split()[1] for head in real_proxy.heads] == [b"provider.example:443", b"other.example:443"]
    assert real_proxy.service.connections == 1 + 1
    await agent.close()
