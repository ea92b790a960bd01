"""Real TLS between two of ours on loopback: certificates, names, direct TLS."""

from random import Random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.protocols.tls import TLSMemoryBIOFactory

from xmpppush.certificates import CertificateStore
from xmpppush.config.sections import LimitsSection, ListenSection, TLSSection
from xmpppush.server.s2s.dialback import DialbackKeys
from xmpppush.server.s2s.federation import Federation
from xmpppush.server.s2s.incoming import S2SFactory, ServerSide
from xmpppush.server.s2s.policy import Policy
from xmpppush.server.s2s.targets import Target
from xmpppush.server.s2s.tls import S2STLS
from xmpppush.testing.federation import Authority
from xmpppush.testing.s2s import FakeTargets, RecordingRouter
from xmpppush.testing.sessions import stanza_of

LOCAL, REMOTE = "mychat.com", "mypubsub.com"


class Router(RecordingRouter):
    """Tells of the first stanza that comes."""

    def __init__(self, *domains):
        super().__init__(*domains)
        self.arrived = Deferred()

    def route(self, stanza):
        super().route(stanza)
        if not self.arrived.called:
            self.arrived.callback(stanza)


class Server:
    """One of ours, with a port for others."""

    def __init__(self, folder, domain, authority, certificate, policy, listen_tls="required"):
        section = TLSSection(certificate, certificate)
        self.router = Router(domain)
        self.targets = FakeTargets()
        tls = S2STLS(CertificateStore(folder, section), [domain], authority.ca_file)
        random = Random(1)
        self.federation = Federation(
            self.router, self.targets, policy, tls, DialbackKeys(domain.encode()), reactor, random
        )
        self.federation.startService()
        side = ServerSide(
            self.router,
            self.router.routes.keys,
            policy,
            tls,
            self.federation.keys,
            self.federation.verify,
            self.federation.heard_from,
            reactor,
            random,
        )
        self.factory = factory = S2SFactory(
            ListenSection("s2s", "s2s", "tcp:0", tls=listen_tls), LimitsSection(), side
        )
        if listen_tls == "direct":
            factory = TLSMemoryBIOFactory(tls.incoming(), False, factory)
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.target = Target("127.0.0.1", self.port.getHost().port, listen_tls == "direct")

    async def stop(self):
        self.federation.stopService()
        await self.port.stopListening()
        await self.factory.close_all()


class Pair:
    def __init__(self, tmp_path, stranger=False, verify=False, listen_tls="required"):
        authority = Authority(tmp_path / "authority")
        other = Authority(tmp_path / "other") if stranger else authority
        policy = Policy(verify=verify)
        self.ours = Server(
            tmp_path / "ours", LOCAL, authority, other.certificate_for(LOCAL), policy, listen_tls
        )
        self.theirs = Server(
            tmp_path / "theirs", REMOTE, authority, authority.certificate_for(REMOTE), policy, listen_tls
        )
        self.ours.targets.lookup = lambda _: succeed([self.theirs.target])
        self.theirs.targets.lookup = lambda _: succeed([self.ours.target])

    def send(self):
        message = f"<message from='bob@{LOCAL}/x' to='alice@{REMOTE}'><body>Hi</body></message>"
        self.ours.federation.send(stanza_of(message))

    async def stop(self):
        await self.ours.stop()
        await self.theirs.stop()


def known_by(events):
    line = "server {remote} at {address} is known by its {how}"
    return [event["how"] for event in events if event.get("log_format") == line]


@pytest.mark.parametrize("listen_tls", ["required", "direct"])
@pytest.mark.parametrize("stranger", [False, True], ids=["EXTERNAL", "dialback"])
@pytest_twisted.ensureDeferred
async def test_a_message_gets_there(tmp_path, events, listen_tls, stranger):
    """By STARTTLS and direct TLS, by our certificate where they trust it, else by dialback."""
    pair = Pair(tmp_path, stranger, listen_tls=listen_tls)
    try:
        pair.send()
        message = await pair.theirs.router.arrived.addTimeout(10, reactor)
    finally:
        await pair.stop()
    assert (message["from"], str(message.body)) == (f"bob@{LOCAL}/x", "Hi")
    assert known_by(events) == ["dialback key" if stranger else "certificate"]


@pytest_twisted.ensureDeferred
async def test_a_wrong_certificate(tmp_path, events):
    """With verify = yes a stranger's certificate is no way in."""
    pair = Pair(tmp_path, stranger=True, verify=True)
    try:
        pair.send()
        bounce = await pair.ours.router.arrived.addTimeout(10, reactor)
    finally:
        await pair.stop()
    assert bounce["type"] == "error"
    assert pair.theirs.router.routed == []
    assert known_by(events) == []
    refused = [event["reason"] for event in events if "is not let in" in event.get("log_format", "")]
    assert refused == ["its certificate is refused: certificate of an unknown authority"]
