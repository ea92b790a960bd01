"""TLS on loopback: whom we trust, and what the operator is told where we do not."""

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory

from xmpppush.config.sections import HTTPConnectionsSection
from xmpppush.errors import ConfigError, TryLater
from xmpppush.http_connections import HTTPPool
from xmpppush.testing.pushservice import ScriptedPushService

BODY = b'{"service":"fcm","alert":{"title":"a","body":"b"}}'


@pytest.fixture
def serve():
    """Serves a stand-in with a certificate file, or plainly; returns it with its port."""
    ports = []

    def serve(pem=None, interface="127.0.0.1"):
        service = ScriptedPushService()
        factory = service.factory()
        if pem is None:
            port = reactor.listenTCP(0, factory, interface=interface)
        else:
            context = DefaultOpenSSLContextFactory(str(pem), str(pem))
            port = reactor.listenSSL(0, factory, context, interface=interface)
        ports.append(port)
        service.port = port.getHost().port
        return service

    yield serve
    for port in ports:
        pytest_twisted.blockon(maybeDeferred(port.stopListening))


@pytest.fixture(params=["fast", "stock"])
def pool_to(request):
    """Makes pools on either agent, stopped in the end."""
    pools = []

    def make(server, **options):
        section = HTTPConnectionsSection("push", server, **{"request_timeout": 3.0, **options})
        pools.append(HTTPPool(section, reactor, agent=request.param))
        return pools[-1]

    yield make
    for pool in pools:
        pytest_twisted.blockon(pool.stopService())


async def reason_of(pool):
    with pytest.raises(TryLater) as caught:
        await pool.post("/v3/notification/x", BODY)
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_our_authority_is_trusted(serve, issue, ca_file, pool_to):
    """By name and by address."""
    service = serve(issue("localhost", "127.0.0.1"))
    for host in ("localhost", "127.0.0.1"):
        pool = pool_to(f"https://{host}:{service.port}/prefix", ca_file=ca_file)
        assert (await pool.post("/v3/notification/x", BODY)).code == 200
    assert [request.path for request in service.requests] == ["/prefix/v3/notification/x"] * 2
    assert service.requests[0].body == BODY
    assert service.requests[0].headers["host"] == f"localhost:{service.port}"


@pytest_twisted.ensureDeferred
async def test_the_system_store_does_not_trust_it(serve, issue, pool_to):
    """Nothing is sent, and the line says which key helps."""
    service = serve(issue("localhost"))
    reason = await reason_of(pool_to(f"https://localhost:{service.port}"))
    assert reason == "certificate verify failed: certificate of an unknown authority (set ca_file)"
    assert service.requests == []


@pytest_twisted.ensureDeferred
async def test_self_signed(serve, issue, pool_to):
    """The commonest of all faults."""
    service = serve(issue("localhost", by=None))
    reason = await reason_of(pool_to(f"https://localhost:{service.port}"))
    assert reason == "certificate verify failed: self-signed certificate (set ca_file)"
    assert service.requests == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("verify_as", ["localhost", "127.0.0.1"])
async def test_wrong_host(serve, issue, ca_file, pool_to, verify_as):
    """A certificate of the right authority for somebody else."""
    service = serve(issue("other.example", "*.third.example"))
    reason = await reason_of(pool_to(f"https://{verify_as}:{service.port}", ca_file=ca_file))
    assert reason == f"certificate is for other.example, *.third.example, not {verify_as}"
    assert service.requests == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"start": -3, "end": -2}, "certificate has expired"),
        ({"start": 2, "end": 3}, "certificate is not valid yet: check both clocks"),
    ],
)
async def test_out_of_its_time(serve, issue, ca_file, pool_to, times, reason):
    """Expired, or from the future."""
    service = serve(issue("localhost", **times))
    pool = pool_to(f"https://localhost:{service.port}", ca_file=ca_file)
    assert await reason_of(pool) == f"certificate verify failed: {reason}"
    assert service.requests == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("names", [["*.*.example"], []])
async def test_a_certificate_without_a_readable_name(serve, issue, ca_file, pool_to, names):
    """Twisted 26.10's own check lets it pass for any host, if its authority is trusted; ours does not."""
    service = serve(issue(*names))
    reason = await reason_of(pool_to(f"https://localhost:{service.port}", ca_file=ca_file))
    assert reason == "certificate has no readable name, so it is not for localhost"
    assert service.requests == []


@pytest_twisted.ensureDeferred
async def test_verify_no(serve, issue, pool_to):
    """Whoever answers will do."""
    service = serve(issue("other.example", by=None))
    pool = pool_to(f"https://localhost:{service.port}", verify=False)
    assert (await pool.post("/v3/notification/x", BODY)).code == 200


@pytest_twisted.ensureDeferred
async def test_ssl_cert_file_moves_the_system_store(serve, issue, ca_file, pool_to, monkeypatch):
    """OpenSSL's own variable."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    service = serve(issue("localhost"))
    pool = pool_to(f"https://localhost:{service.port}")
    assert (await pool.post("/v3/notification/x", BODY)).code == 200


@pytest_twisted.ensureDeferred
async def test_plain_http_behind_https(pool_to):
    """The scheme in ``server`` is wrong: a server answers the handshake with a 400."""

    class PlainServer(Protocol):
        def dataReceived(self, data):
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    port = reactor.listenTCP(0, Factory.forProtocol(PlainServer), interface="127.0.0.1")
    reason = await reason_of(pool_to(f"https://127.0.0.1:{port.getHost().port}"))
    await maybeDeferred(port.stopListening)
    assert reason == "TLS handshake failed: the server does not speak TLS on this port"


@pytest_twisted.ensureDeferred
async def test_https_behind_plain_http(serve, issue, pool_to):
    """And the other way round: a TLS alert, or nothing at all."""
    service = serve(issue("localhost"))
    reason = await reason_of(pool_to(f"http://127.0.0.1:{service.port}"))
    assert reason in (
        "answer is not HTTP",
        "connection closed without an answer",
        "connection lost",
        "connection lost in the middle of the answer",
        "ParseError",
    )
    assert service.requests == []


@pytest_twisted.ensureDeferred
async def test_nobody_listens(serve, pool_to):
    """A port that was free a moment ago."""
    service = serve()
    port = service.port
    pool = pool_to(f"http://127.0.0.1:{port}")
    assert (await pool.post("/v3/notification/x", BODY)).code == 200
    refused = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    free = refused.getHost().port
    await maybeDeferred(refused.stopListening)
    assert await reason_of(pool_to(f"http://127.0.0.1:{free}")) == "connection refused"


@pytest_twisted.ensureDeferred
async def test_a_server_that_says_nothing_in_the_handshake(pool_to, ca_file):
    """It accepts and is silent: the time-out holds, and no socket stays."""
    lost: Deferred = Deferred()

    class Silent(Protocol):
        def connectionLost(self, reason):
            lost.callback(None)

    port = reactor.listenTCP(0, Factory.forProtocol(Silent), interface="127.0.0.1")
    pool = pool_to(f"https://127.0.0.1:{port.getHost().port}", ca_file=ca_file, request_timeout=0.2)
    assert await reason_of(pool) in ("timed out connecting", "no answer in time", "no connection in time")
    await lost
    await maybeDeferred(port.stopListening)


@pytest.mark.parametrize(
    "content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_ca_file_that_is_none(tmp_path, content, pool_to):
    """It is said when the pool is made, not with the first push."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        pool_to("https://localhost", ca_file=path)
    assert caught.value.problems[0].startswith("[http_connections:push] ca_file: ")


@pytest.mark.parametrize(
    "server", ["embedded:", "localhost:8443", "https://", "https://a b", "https://a/ü", "http://x?y"]
)
def test_a_server_that_is_none(server, pool_to):
    """As `check-config` says, too."""
    with pytest.raises(ConfigError) as caught:
        pool_to(server)
    assert caught.value.problems[0].startswith("[http_connections:push] server: ")
