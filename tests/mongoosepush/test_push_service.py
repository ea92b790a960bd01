"""The push service as a Service, on real sockets."""

import pytest
import pytest_twisted
import treq.client
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from xmpppush.certificates import CertificateStore
from xmpppush.config.sections import MongoosePushSection, SandboxSection
from xmpppush.errors import ConfigError
from xmpppush.mongoosepush.sandbox import Sandbox
from xmpppush.mongoosepush.service import MongoosePush, interface_of

REQUEST = {"service": "fcm", "alert": {"title": "bob@localhost", "body": "Hello"}}


class Slow:
    """A provider whose answers are given by hand."""

    services = ("fcm",)

    def __init__(self):
        self.pushed = []

    def push(self, service, device_id, request):
        self.pushed.append(Deferred())
        return self.pushed[-1]


@implementer(IPolicyForHTTPS)
class Trusting:
    def __init__(self, ca_path):
        authority = ssl.Certificate.loadPEM(ca_path.read_bytes())
        self._policy = BrowserLikePolicyForHTTPS(ssl.trustRootFromCertificates([authority]))

    def creatorForNetloc(self, hostname, port):
        return self._policy.creatorForNetloc(hostname, port)


class Running:
    """A started service with a client that trusts its authority and keeps connections."""

    def __init__(self, folder, provider, endpoint="ssl:0:interface=127.0.0.1"):
        certificates = CertificateStore(folder)
        self.service = MongoosePush(
            MongoosePushSection(endpoint=endpoint), [provider], certificates, reactor, reactor
        )
        self.service.privilegedStartService()
        self.service.startService()
        self.pool = HTTPConnectionPool(reactor)
        policy = Trusting(certificates.ensure_authority())
        self.http = treq.client.HTTPClient(Agent(reactor, policy, pool=self.pool))

    def url(self, path, scheme="https", host="localhost"):
        return f"{scheme}://{host}:{self.service.port}{path}"

    async def stop(self):
        await self.pool.closeCachedConnections()
        await self.service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_push_over_https(tmp_path):
    """treq verifies our certificate, the sandbox has the notification, the connection is kept."""
    sandbox = Sandbox(SandboxSection(), reactor)
    running = Running(tmp_path, sandbox)
    try:
        for host in ("localhost", "127.0.0.1"):
            url = running.url("/v3/notification/tok%2F1", host=host)
            response = await running.http.post(url, json=REQUEST)
            assert (response.code, await response.content()) == (200, b"null")
        assert [each.device_id for each in sandbox.notifications] == ["tok/1"] * 2
        assert len(running.service._server.connections) == 2
        await (await running.http.get(running.url("/healthcheck"))).json()
        assert len(running.service._server.connections) == 2
    finally:
        await running.stop()


@pytest_twisted.ensureDeferred
async def test_a_push_without_tls(tmp_path):
    """A ``tcp:`` endpoint, for a proxy in front; no certificate is made."""
    sandbox = Sandbox(SandboxSection(), reactor)
    running = Running(tmp_path, sandbox, "tcp:0:interface=127.0.0.1")
    try:
        response = await running.http.post(
            running.url("/v1/notification/tok", "http"),
            json={"service": "apns", "title": "t", "body": "b"},
        )
        assert (response.code, await response.content()) == (200, b"null")
    finally:
        await running.stop()
    assert not (tmp_path / "tls" / "push-service.pem").exists()


@pytest_twisted.ensureDeferred
async def test_a_stop_lets_requests_finish(tmp_path):
    """The port is closed at once, the request in flight has its answer, then it has stopped."""
    slow = Slow()
    running = Running(tmp_path, slow)
    url = running.url("/v3/notification/tok")
    asked = running.http.post(url, json=REQUEST)
    while not slow.pushed:
        await _turn()
    stopped = running.service.stopService()
    await _turn()
    assert not stopped.called
    with pytest.raises(ConnectionRefusedError):
        await running.http.get(url)
    slow.pushed[0].callback(None)
    response = await asked
    assert await response.content() == b"null"
    await stopped
    assert running.service._server.connections == set()
    await running.pool.closeCachedConnections()


@pytest_twisted.ensureDeferred
async def test_a_big_upload_is_told_413_over_tls(tmp_path):
    """The client has the answer though it was still sending."""
    running = Running(tmp_path, Sandbox(SandboxSection(), reactor))
    try:
        response = await running.http.post(
            running.url("/v3/notification/tok"),
            data=b"x" * (9 * 1024 * 1024),
            headers={"content-type": "application/json"},
        )
        assert response.code == 413
        assert await response.json() == {"reason": "payload_too_large"}
    finally:
        await running.stop()


@pytest_twisted.ensureDeferred
async def test_a_taken_port_is_one_line(tmp_path):
    """With section, key, endpoint and the system's reason."""
    taken = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
    endpoint = f"ssl:{taken.getHost().port}:interface=127.0.0.1"
    try:
        service = MongoosePush(
            MongoosePushSection(endpoint=endpoint), [], CertificateStore(tmp_path), reactor, reactor
        )
        with pytest.raises(ConfigError) as error:
            service.privilegedStartService()
        assert error.value.problems == (
            f"[mongoosepush] endpoint: cannot listen on {endpoint}: address already in use",
        )
    finally:
        await taken.stopListening()


def test_an_endpoint_that_is_none_is_one_line(tmp_path):
    """Before anything opens."""
    section = MongoosePushSection(endpoint="nonsense:8443")
    with pytest.raises(ConfigError) as error:
        MongoosePush(section, [], CertificateStore(tmp_path), reactor, reactor)
    (line,) = error.value.problems
    assert line.startswith("[mongoosepush] endpoint: ")
    assert "nonsense" in line


def test_certificate_files_of_the_section_are_used(tmp_path):
    """``PUSH_HTTPS_CERTFILE``: one that is missing is named with its section."""
    section = MongoosePushSection(certfile=tmp_path / "none.pem", keyfile=tmp_path / "none.key")
    with pytest.raises(ConfigError) as error:
        MongoosePush(section, [], CertificateStore(tmp_path), reactor, reactor)
    assert error.value.problems[0].startswith("[mongoosepush] certfile: ")


@pytest.mark.parametrize(
    ("endpoint", "names"),
    [
        ("ssl:8443", ()),
        ("ssl:8443:interface=0.0.0.0", ()),
        ("ssl:8443:interface=10.1.2.3:backlog=9", ("10.1.2.3",)),
        (r"ssl:8443:interface=fd00\:\:1", ("fd00::1",)),
    ],
)
def test_the_bound_address_is_in_the_certificate(endpoint, names):
    """Unless it is all of them."""
    assert interface_of(endpoint) == names


def _turn():
    done = Deferred()
    reactor.callLater(0, done.callback, None)
    return done
