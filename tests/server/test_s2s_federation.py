"""Streams that we open: negotiation, what waits meanwhile, and what becomes of it."""

from collections import deque
from random import Random

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock

from xmpppush.errors import NoSuchServer, TryLater
from xmpppush.server.s2s import federation as module
from xmpppush.server.s2s.dialback import DialbackKeys
from xmpppush.server.s2s.federation import Federation
from xmpppush.server.s2s.outgoing import NotReached
from xmpppush.server.s2s.policy import Policy
from xmpppush.server.s2s.targets import Target
from xmpppush.testing.s2s import FakeTargets, FakeTLS, RecordingRouter, ServerPeer
from xmpppush.testing.sessions import stanza_of
from xmpppush.testing.xmpp import names_of
from xmpppush.xep.conditions import bounce_reason
from xmpppush.xep.namespaces import DIALBACK_FEATURE, SASL, TLS

LOCAL, REMOTE = "mychat.com", "mypubsub.com"
STARTTLS = f"<starttls xmlns='{TLS}'/>"
EXTERNAL = f"<mechanisms xmlns='{SASL}'><mechanism>EXTERNAL</mechanism></mechanisms>"
DIALBACK_ERRORS = f"<dialback xmlns='{DIALBACK_FEATURE}'><errors/></dialback>"
VALID = f"<db:result from='{REMOTE}' to='{LOCAL}' type='valid'/>"


class World:
    """A federation whose connections the test answers."""

    def __init__(self, proven=(), policy=None):
        self.clock = Clock()
        self.router = RecordingRouter(LOCAL)
        self.targets = FakeTargets()
        self.tls = FakeTLS(*proven)
        self.keys = DialbackKeys(b"secret")
        self.connecting = deque()
        self.refused = False
        self.federation = Federation(
            self.router,
            self.targets,
            policy or Policy(),
            self.tls,
            self.keys,
            self.clock,
            Random(1),
            self.connect,
        )
        self.federation.startService()

    def connect(self, target, factory, options):
        if self.refused:
            return fail(ConnectionRefusedError())
        connected = Deferred()
        self.connecting.append((target, factory, options, connected))
        return connected

    def send(self, number=1, to=REMOTE, **attributes):
        more = "".join(f" {name}='{value}'" for name, value in attributes.items())
        stanza = (
            f"<message from='bob@{LOCAL}/x' to='alice@{to}' id='m{number}'{more}><body>Hi</body></message>"
        )
        self.federation.send(stanza_of(stanza))

    def accept(self):
        """The other server takes the next connection."""
        _, factory, options, connected = self.connecting.popleft()
        protocol = factory.buildProtocol(None)
        peer = ServerPeer(protocol)
        if options is not None:
            protocol.secure = True
        connected.callback(protocol)
        return peer

    def secured(self):
        """... and is behind STARTTLS, its header sent."""
        peer = self.accept()
        assert peer.receive() == []
        peer.greet(REMOTE, LOCAL, "id1")
        peer.offer(STARTTLS)
        assert peer.receive_one().name == "starttls"
        peer.send(f"<proceed xmlns='{TLS}'/>")
        assert peer.transport.tls == ("outgoing", LOCAL, REMOTE, False)
        assert peer.receive() == []
        peer.greet(REMOTE, LOCAL, "id2")
        return peer

    def established(self):
        """... and has let us in by dialback."""
        peer = self.secured()
        peer.offer(DIALBACK_ERRORS)
        assert peer.receive_one().name == "result"
        peer.send(VALID)
        return peer

    @property
    def returned(self):
        """Conditions of what went back, and why."""
        return [
            (str(next(next(stanza.elements(None, "error")).elements()).name), bounce_reason(stanza))
            for stanza in self.router.routed
        ]


@pytest.fixture
def lines(events):
    """What an operator reads."""

    def read():
        return [
            event["log_format"].format(**event)
            for event in events
            if event.get("log_namespace", "").startswith("xmpppush.server.s2s")
        ]

    return read


def test_a_stanza_opens_a_stream(lines):
    """TLS, dialback, and then it is sent; further ones go at once."""
    world = World()
    world.send(1)
    world.send(2)
    assert world.federation.queued == 2
    peer = world.accept()
    peer.receive()
    assert (peer.header["from"], peer.header["to"]) == (LOCAL, REMOTE)
    assert peer.header["version"] == "1.0"
    peer.greet(REMOTE, LOCAL, "id1")
    peer.offer(STARTTLS)
    peer.receive()
    peer.send(f"<proceed xmlns='{TLS}'/>")
    peer.greet(REMOTE, LOCAL, "id2")
    peer.offer(DIALBACK_ERRORS)
    result = peer.receive_one()
    assert (result["from"], result["to"]) == (LOCAL, REMOTE)
    assert str(result) == world.keys.key(REMOTE, LOCAL, "id2")
    peer.send(VALID)
    assert [stanza["id"] for stanza in peer.receive()] == ["m1", "m2"]
    world.send(3)
    sent = peer.receive_one()
    assert (sent["id"], sent.uri) == ("m3", None)
    assert (world.federation.streams, world.federation.queued) == (1, 0)
    assert lines() == [
        "stream to mypubsub.com for mychat.com: known there by our dialback, TLS; it is not proven"
        " (certificate of an unknown authority)"
    ]


def test_external():
    """With a certificate of ours that they take (XEP-0178 section 3)."""
    world = World([REMOTE])
    world.send()
    peer = world.secured()
    peer.offer(EXTERNAL + DIALBACK_ERRORS)
    auth = peer.receive_one()
    assert (auth.name, auth["mechanism"], str(auth)) == ("auth", "EXTERNAL", "bXljaGF0LmNvbQ==")
    peer.send(f"<success xmlns='{SASL}'/>")
    peer.receive()
    peer.greet(REMOTE, LOCAL, "id3")
    peer.offer()
    assert peer.receive_one()["id"] == "m1"


def test_external_refused_is_dialback():
    """On the same stream, where they leave it open."""
    world = World()
    world.send()
    peer = world.secured()
    peer.offer(EXTERNAL)
    peer.receive()
    assert peer.ask(f"<failure xmlns='{SASL}'><not-authorized/></failure>").name == "result"
    peer.send(VALID)
    assert peer.receive_one()["id"] == "m1"


def test_external_refused_with_the_stream():
    """Or on a new one, where they close it."""
    world = World()
    world.send()
    peer = world.secured()
    peer.offer(EXTERNAL)
    peer.receive()
    peer.send(f"<failure xmlns='{SASL}'><not-authorized/></failure></stream:stream>")
    peer.lose_connection()
    peer = world.secured()
    peer.offer(EXTERNAL)
    assert peer.receive_one().name == "result"


def test_direct_tls():
    """XEP-0368: no STARTTLS is waited for."""
    world = World([REMOTE])
    world.targets.found[REMOTE] = [Target("192.0.2.1", 5270, True)]
    world.send()
    assert world.connecting[0][2] == ("outgoing", LOCAL, REMOTE, True)
    peer = world.accept()
    peer.receive()
    peer.greet(REMOTE, LOCAL, "id1")
    peer.offer(EXTERNAL)
    assert peer.receive_one().name == "auth"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy(), "it offers no TLS"),
        (Policy(tls="optional", verify=True), "it offers no TLS"),
    ],
)
def test_no_tls(policy, reason, lines):
    """Is no stream, by default."""
    world = World(policy=policy)
    world.send()
    peer = world.accept()
    peer.greet(REMOTE, LOCAL, "id1")
    peer.offer(DIALBACK_ERRORS)
    ((condition, why),) = world.returned
    assert condition == "remote-server-timeout"
    assert why == f"{reason} (192.0.2.1:5269)"
    assert lines() == [
        f"mypubsub.com is not reached for mychat.com: {reason} (192.0.2.1:5269);"
        " what is sent there is returned until it is"
    ]


def test_no_tls_where_that_is_configured():
    """Dialback does without, and servers from before XMPP 1.0 have no features."""
    world = World(policy=Policy(tls="optional"))
    world.send()
    peer = world.accept()
    peer.receive()
    peer.greet(REMOTE, LOCAL, "id1", version="")
    assert peer.receive_one().name == "result"


def test_a_wrong_certificate():
    """With verify = yes nothing is said to who shows it, and it is told as what it is."""
    world = World(policy=Policy(verify=True))
    world.send()
    peer = world.secured()
    peer.offer(EXTERNAL + DIALBACK_ERRORS)
    ((_, why),) = world.returned
    assert why.startswith("its certificate is refused: certificate of an unknown authority")
    assert [element.name for element in peer.receive()] == []
    assert peer.ended


@pytest.mark.parametrize(
    ("answer", "condition", "reason"),
    [
        (
            f"<db:result from='{REMOTE}' to='{LOCAL}' type='invalid'/>",
            "internal-server-error",
            "dialback: it finds our key invalid",
        ),
        (
            f"<db:result from='{REMOTE}' to='{LOCAL}' type='error'><error type='cancel'>"
            "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>",
            "remote-server-timeout",
            "dialback: item-not-found",
        ),
        (
            f"<db:result from='evil.example' to='{LOCAL}' type='valid'/>",
            "remote-server-timeout",
            "it breaks the protocol: invalid-from",
        ),
        (
            "<message from='a@mypubsub.com' to='b@mychat.com'/>",
            "remote-server-timeout",
            "it breaks the protocol: unsupported-stanza-type",
        ),
        (
            "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            "remote-server-timeout",
            "stream error policy-violation",
        ),
        ("</stream:stream>", "remote-server-timeout", "it closed the stream"),
        ("<!-- -->", "remote-server-timeout", "it breaks the protocol: restricted-xml"),
        ("<db:result>" + "x" * 20_000, "remote-server-timeout", "it breaks the protocol: policy-violation"),
    ],
)
def test_dialback_that_fails(answer, condition, reason):
    """XEP-0220 section 2.1.1: what waits goes back with the right error, and the log has why."""
    world = World()
    world.send()
    peer = world.secured()
    peer.offer(DIALBACK_ERRORS)
    peer.receive()
    peer.send(answer)
    ((found, why),) = world.returned
    assert found == condition
    assert why.startswith(reason)
    assert peer.ended or peer.protocol.closed


def test_a_result_that_was_not_asked_for():
    """Nothing is sent to who skips the proof: it may be meant for another stream."""
    world = World()
    world.send()
    peer = world.secured()
    peer.send(VALID)
    assert world.federation.streams == 0
    assert len(world.returned) == 1


def test_stanzas_on_our_stream_are_nobodys():
    """They come on streams that others open."""
    world = World()
    world.send()
    peer = world.established()
    peer.send(f"<message from='alice@{REMOTE}' to='bob@{LOCAL}'><body>psst</body></message>")
    assert world.router.routed == []
    assert not peer.ended


def test_a_server_that_accepts_and_never_answers(lines):
    """Not for longer than 20 seconds; nothing is left ticking but the sweep."""
    world = World()
    world.send()
    peer = world.accept()
    world.clock.advance(20)
    assert peer.transport.aborting
    assert world.returned == [("remote-server-timeout", "it does not answer (192.0.2.1:5269)")]
    assert len(world.clock.getDelayedCalls()) == 1


def test_what_waits_for_30_seconds_goes_back():
    """remote-server-timeout, while the connection is still tried."""
    world = World()
    world.send()
    world.clock.advance(10)
    world.send(2)
    world.clock.advance(20)
    assert world.returned == [("remote-server-timeout", "it takes too long")]
    world.clock.advance(10)
    assert len(world.returned) == 2
    assert (world.federation.queued, world.federation.waiting_bytes) == (0, 0)


def test_servers_are_tried_one_after_the_other(lines):
    """In the order of DNS; the last one's reason is told."""
    world = World()
    world.targets.found[REMOTE] = [Target("192.0.2.1", 5269, False), Target("2001:db8::1", 5269, False)]
    world.send()
    world.connecting.popleft()[3].errback(ConnectionRefusedError())
    target, *_ = world.connecting[0]
    assert target.host == "2001:db8::1"
    world.connecting.popleft()[3].errback(ConnectionRefusedError())
    assert world.returned == [("remote-server-timeout", "connection refused ([2001:db8::1]:5269)")]
    assert world.targets.forgotten == [REMOTE]


@pytest.mark.parametrize(
    ("error", "condition", "reason"),
    [
        (NoSuchServer("not in DNS"), "remote-server-not-found", "DNS: not in DNS"),
        (TryLater("DNS does not answer"), "remote-server-timeout", "DNS: DNS does not answer"),
    ],
)
def test_dns(error, condition, reason):
    """A domain that is not there is another matter than a name server that is not."""
    world = World()
    world.targets.found[REMOTE] = error
    world.send()
    assert world.returned == [(condition, reason)]


def test_a_domain_that_failed_fails_fast(lines):
    """Until its back-off is over, with one line in the log; then it is tried again, and that is told."""
    world = World()
    world.refused = True
    world.send()
    assert len(world.returned) == 1
    world.refused = False
    world.send()
    assert len(world.returned) == 2
    assert not world.connecting
    world.clock.advance(1)
    world.send(3)
    peer = world.established()
    assert peer.receive_one()["id"] == "m3"
    assert [line.partition(":")[0] for line in lines()] == [
        "mypubsub.com is not reached for mychat.com",
        "mypubsub.com is reached again for mychat.com, after 1.0 s",
    ]


def test_the_back_off_grows_and_is_bounded():
    """From a second to a minute, with jitter."""
    world = World()
    world.refused = True
    waits = []
    for _ in range(12):
        world.send()
        peer = world.federation._peers[LOCAL, REMOTE]
        waits.append(peer.until - world.clock.seconds())
        world.clock.rightNow = peer.until
    assert 0.5 <= waits[0] <= 1.0
    assert max(waits) <= 60.0
    assert min(waits[-3:]) >= 30.0


def test_a_sign_of_life_ends_the_back_off():
    """Its server has just proven its domain to us: it is up."""
    world = World()
    world.refused = True
    world.send()
    world.refused = False
    world.federation.heard_from(REMOTE)
    world.send()
    assert len(world.connecting) == 1


def test_memory_is_bounded(monkeypatch):
    """By number and by size; the sender is told to wait."""
    monkeypatch.setattr(module, "MAX_STANZAS", 3)
    world = World()
    for number in range(5):
        world.send(number)
    assert [condition for condition, _ in world.returned] == ["resource-constraint"] * 2
    monkeypatch.setattr(module, "MAX_STANZAS", 1000)
    monkeypatch.setattr(module, "MAX_BYTES", 500)
    for number in range(5):
        world.send(number)
    assert world.federation.waiting_bytes <= 500
    assert world.federation.bounces["resource-constraint"] > 2


def test_domains_are_bounded(monkeypatch):
    """Users choose them."""
    monkeypatch.setattr(module, "MAX_PEERS", 2)
    world = World()
    for number in range(3):
        world.send(number, to=f"d{number}.example")
    assert [condition for condition, _ in world.returned] == ["resource-constraint"]


def test_failed_domains_make_room(monkeypatch):
    """A user who writes to many that are not there takes nobody's place."""
    monkeypatch.setattr(module, "MAX_PEERS", 2)
    world = World()
    world.refused = True
    for number in range(5):
        world.send(number, to=f"d{number}.example")
    assert [condition for condition, _ in world.returned] == ["remote-server-timeout"] * 5


def test_an_attempt_that_helps_nobody_any_more():
    """Ends when the last stanza that waited for it went back; the next one begins another."""
    world = World()
    world.send()
    world.clock.advance(30)
    assert world.returned == [("remote-server-timeout", "it takes too long")]
    assert not world.federation._peers[LOCAL, REMOTE].is_busy
    world.clock.advance(60)
    world.connecting.clear()
    world.send(2)
    assert world.established().receive_one()["id"] == "m2"


def test_a_peer_that_does_not_read():
    """What it does not take waits, and goes back in time."""
    world = World()
    world.send()
    peer = world.established()
    peer.receive()
    peer.protocol.pauseProducing()
    world.send(2)
    assert peer.receive() == []
    peer.protocol.resumeProducing()
    assert peer.receive_one()["id"] == "m2"
    peer.protocol.pauseProducing()
    world.send(3)
    world.clock.advance(30)
    assert world.returned == [("remote-server-timeout", "it takes too long")]


def test_a_stream_that_ends_is_opened_again():
    """With the next stanza, and without a back-off: most likely it restarts over there."""
    world = World()
    world.send()
    world.established().lose_connection(ConnectionLost())
    assert world.federation.streams == 0
    world.send(2)
    assert world.established().receive_one()["id"] == "m2"


def test_idle_streams_are_closed_and_forgotten():
    """After ten minutes without a stanza."""
    world = World()
    world.send()
    peer = world.established()
    peer.receive()
    for _ in range(5):
        world.clock.advance(60)
    world.send(2)
    assert peer.receive_one()["id"] == "m2"
    for _ in range(9):
        world.clock.advance(60)
    assert not peer.ended
    for _ in range(3):
        world.clock.advance(60)
    assert peer.receive() == []
    assert peer.ended
    assert world.federation._peers == {}


def test_nobody_speaks_for_others_through_us(events):
    """What is not from a domain of ours is dropped."""
    world = World()
    world.federation.send(stanza_of(f"<message from='a@evil.example' to='b@{REMOTE}'/>"))
    assert not world.connecting
    assert [event for event in events if "not here dropped" in event["log_format"]]


def test_domains_that_are_not_talked_to():
    """By [s2s] block: as if they were not there."""
    world = World(policy=Policy(block=frozenset({REMOTE})))
    world.send()
    assert world.returned == [("remote-server-not-found", "not permitted by [s2s]")]


def test_errors_and_goodbyes_are_not_answered():
    """RFC 6120 section 8.3.1; nobody waits for what became of an unavailable presence."""
    world = World()
    world.refused = True
    world.send(type="error")
    world.federation.send(stanza_of(f"<presence type='unavailable' from='b@{LOCAL}/x' to='a@{REMOTE}'/>"))
    assert world.router.routed == []


def test_lines_are_bounded(lines):
    """A user may write to a thousand domains that are not there."""
    world = World()
    world.refused = True
    for number in range(100):
        world.send(to=f"d{number}.example")
    assert len(lines()) == 20


def test_verification():
    """The domain's own server is asked on a stream of its own (XEP-0220 section 2.2.2)."""
    world = World()
    answer = world.federation.verify(LOCAL, REMOTE, "their<id>", "key&")
    peer = world.secured()
    peer.offer(EXTERNAL + DIALBACK_ERRORS)
    asked = peer.receive_one()
    assert (asked.name, asked["id"], str(asked)) == ("verify", "their<id>", "key&")
    peer.send(f"<db:verify from='{REMOTE}' to='{LOCAL}' id='their&lt;id>' type='valid'/>")
    assert answer.result == "valid"
    peer.receive()
    assert peer.ended


@pytest.mark.parametrize(
    "attributes",
    [
        f"from='{REMOTE}' to='{LOCAL}' id='id9' type='valid'",
        f"from='evil.example' to='{LOCAL}' id='id8' type='valid'",
        f"from='{REMOTE}' to='x.{LOCAL}' id='id8' type='valid'",
    ],
)
def test_verification_of_something_else(attributes):
    """An answer to what was not asked counts as none (XEP-0220 section 3.1)."""
    world = World()
    answer = world.federation.verify(LOCAL, REMOTE, "id8", "key")
    peer = world.secured()
    peer.offer()
    peer.receive()
    peer.send(f"<db:verify {attributes}/>")
    failed = []
    answer.addErrback(failed.append)
    assert failed[0].check(NotReached)


def test_verification_given_up():
    """The stream that asked is gone: so is ours, and no other server is tried."""
    world = World()
    world.targets.found[REMOTE] = [Target("192.0.2.1", 5269, False)] * 2
    answer = world.federation.verify(LOCAL, REMOTE, "id8", "key")
    peer = world.accept()
    answer.addErrback(lambda _: None)
    answer.cancel()
    assert peer.transport.aborting
    assert not world.connecting


def test_stopping():
    """Streams are closed, what waits goes back, and nothing ticks."""
    world = World()
    world.send()
    peer = world.established()
    peer.receive()
    world.send(2, to="other.example")
    world.federation.stopService()
    assert [why for _, why in world.returned] == ["the server is stopping"]
    peer.receive()
    assert peer.ended
    peer.lose_connection()
    assert world.clock.getDelayedCalls() == []


def test_traffic_is_counted():
    """For /metrics."""
    world = World()
    world.send()
    world.established()
    assert world.federation.traffic.sent["message"] == 1
    assert list(names_of(stanza_of("<a><b/></a>"))) == ["b"]
