"""Streams that other servers open: proofs, spoofing, limits."""

from base64 import b64encode
from random import Random

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from xmpppush.config.sections import LimitsSection, ListenSection
from xmpppush.server.s2s.dialback import DialbackKeys
from xmpppush.server.s2s.incoming import S2SFactory, ServerSide
from xmpppush.server.s2s.outgoing import NotReached
from xmpppush.server.s2s.policy import Policy
from xmpppush.testing.s2s import FakeTLS, RecordingRouter, ServerPeer
from xmpppush.testing.xmpp import MemoryTransport, names_of
from xmpppush.xep.namespaces import DIALBACK, SASL, STANZA_ERRORS, TLS

REMOTE, LOCAL = "mychat.com", "mypubsub.com"
LISTEN = ListenSection("s2s", "s2s", "tcp:5269")
MESSAGE = "<message from='bob@{}/x' to='alice@{}'><body>Hi</body></message>"
RESULT = "<db:result from='{}' to='{}'>{}</db:result>"


class World:
    """A listener for servers."""

    def __init__(self, proven=(), policy=None, limits=None, **listen):
        self.clock = Clock()
        self.tls = FakeTLS(*proven)
        self.router = RecordingRouter(LOCAL, f"pubsub.{LOCAL}")
        self.keys = DialbackKeys(b"secret")
        self.asked = []
        self.heard = []
        self.side = ServerSide(
            self.router,
            self.router.routes.keys,
            policy or Policy(),
            self.tls,
            self.keys,
            self.verify,
            self.heard.append,
            self.clock,
            Random(1),
        )
        self.factory = S2SFactory(evolve(LISTEN, **listen), limits or LimitsSection(), self.side)

    def verify(self, *about):
        answer = Deferred()
        self.asked.append((about, answer))
        return answer

    def connect(self, address="192.0.2.1"):
        transport = MemoryTransport(address)
        return ServerPeer(self.factory.buildProtocol(transport.getPeer()), transport)

    def secured(self, sender=REMOTE):
        """A server behind STARTTLS; returns it and its features."""
        peer = self.connect()
        peer.greet(sender, LOCAL)
        peer.receive()
        assert peer.ask(f"<starttls xmlns='{TLS}'/>").name == "proceed"
        assert peer.transport.tls == "incoming"
        peer.protocol.handshakeCompleted()
        peer.greet(sender, LOCAL)
        return peer, peer.receive_one()

    def dialled(self):
        """A server that is let in by dialback."""
        peer, _ = self.secured()
        peer.send(RESULT.format(REMOTE, LOCAL, "key"))
        self.asked[-1][1].callback("valid")
        assert peer.receive_one()["type"] == "valid"
        return peer


def external(identity=REMOTE):
    text = b64encode(identity.encode()).decode() if identity else "="
    return f"<auth xmlns='{SASL}' mechanism='EXTERNAL'>{text}</auth>"


def condition_of(element):
    """Of a dialback error."""
    assert element["type"] == "error"
    return next(str(c.name) for e in element.elements() for c in e.elements() if c.uri == STANZA_ERRORS)


def test_the_header_has_what_dialback_needs():
    """The db prefix, an id that nobody can guess, and our domain (XEP-0220 section 2)."""
    peer = World().connect()
    peer.greet(REMOTE, LOCAL)
    assert f"xmlns:db='{DIALBACK}'".encode() in peer.transport.value()
    peer.receive()
    assert (peer.header["from"], peer.header["to"]) == (LOCAL, REMOTE)
    assert len(peer.header["id"]) == 24


def test_tls_comes_first():
    """And is required, unless configured otherwise."""
    peer = World().connect()
    peer.greet(REMOTE, LOCAL)
    features = peer.receive_one()
    assert list(names_of(features)) == ["starttls"]
    assert list(names_of(features.starttls)) == ["required"]
    assert condition_of(peer.ask(RESULT.format(REMOTE, LOCAL, "key"))) == "policy-violation"
    assert next(names_of(peer.ask(external()))) == "encryption-required"


def test_without_tls_where_that_is_configured():
    """tls = none and optional let dialback in without it."""
    for tls in ("none", "optional"):
        world = World(tls=tls)
        peer = world.connect()
        peer.greet(REMOTE, LOCAL)
        assert "dialback" in names_of(peer.receive_one())
        peer.send(RESULT.format(REMOTE, LOCAL, "key"))
        assert world.asked[0][0] == (LOCAL, REMOTE, peer.header["id"], "key")


def test_external_with_a_certificate_for_the_domain():
    """RFC 6120 section 6, XEP-0178 section 3: then stanzas are taken."""
    world = World([REMOTE])
    peer, features = world.secured()
    assert list(names_of(features)) == ["mechanisms", "dialback"]
    assert peer.ask(external()).name == "success"
    peer.greet(REMOTE, LOCAL)
    assert list(names_of(peer.receive_one())) == ["dialback"]
    peer.send(MESSAGE.format(REMOTE, LOCAL))
    assert [stanza["from"] for stanza in world.router.routed] == ["bob@mychat.com/x"]
    assert world.heard == [REMOTE]
    assert world.side.streams == 1


def test_external_without_an_identity():
    """'=' is an empty one: the domain is the header's."""
    world = World([REMOTE])
    peer, _ = world.secured()
    assert peer.ask(external("")).name == "success"


@pytest.mark.parametrize(
    ("proven", "identity", "condition"),
    [
        ([], REMOTE, "not-authorized"),
        (["other.example"], REMOTE, "not-authorized"),
        ([REMOTE, "other.example"], "other.example", "invalid-authzid"),
        ([REMOTE], "bob@mychat.com", "invalid-authzid"),
        ([REMOTE], "a b@@", "invalid-authzid"),
    ],
)
def test_external_that_proves_nothing(proven, identity, condition, events):
    """Wrong certificates and identities; the log has why."""
    world = World(proven)
    peer, _ = world.secured()
    failure = peer.ask(external(identity))
    assert next(names_of(failure)) == condition
    assert [
        event for event in events if event["log_format"].startswith("server {remote} at {address} is not")
    ]
    assert not peer.protocol.remotes


def test_external_is_not_offered_without_a_proof():
    """A peer would only fail by it."""
    _, features = World(["other.example"]).secured()
    assert list(names_of(features)) == ["dialback"]


def test_our_own_domain_is_nobody_elses():
    """Whatever the certificate or a key says."""
    world = World([LOCAL])
    peer, _ = world.secured(LOCAL)
    assert next(names_of(peer.ask(external(LOCAL)))) == "not-authorized"
    assert condition_of(peer.ask(RESULT.format(LOCAL, LOCAL, "key"))) == "policy-violation"


def test_too_many_failed_proofs_end_the_stream():
    """RFC 6120 section 6.4.5."""
    peer, _ = World().secured()
    for _ in range(4):
        peer.ask(external())
    peer.send(external())
    assert peer.stream_error() == "policy-violation"


def test_dialback():
    """The domain's own server is asked, and what it says decides (XEP-0220 section 2.2)."""
    world = World()
    peer, _ = world.secured()
    peer.send(RESULT.format(REMOTE, LOCAL, "key"))
    assert peer.receive() == []
    (about, answer), *_ = world.asked
    assert about == (LOCAL, REMOTE, peer.header["id"], "key")
    answer.callback("valid")
    valid = peer.receive_one()
    assert (valid["from"], valid["to"], valid["type"]) == (LOCAL, REMOTE, "valid")
    peer.send(MESSAGE.format(REMOTE, LOCAL))
    assert len(world.router.routed) == 1


def test_a_forged_key(events):
    """The stream ends, and the log says who tried (XEP-0220 section 2.2.1)."""
    world = World()
    peer, _ = world.secured()
    peer.send(RESULT.format(REMOTE, LOCAL, "forged"))
    world.asked[0][1].callback("invalid")
    assert peer.receive_one()["type"] == "invalid"
    assert peer.ended
    (event,) = [event for event in events if "forged" in event["log_format"]]
    assert (event["remote"], event["address"]) == (REMOTE, "192.0.2.1")


def test_a_stanza_with_a_forged_key():
    """What comes along before the answer is refused, and the answer comes too late."""
    world = World()
    peer, _ = world.secured()
    peer.send(RESULT.format(REMOTE, LOCAL, "forged") + MESSAGE.format(REMOTE, LOCAL))
    assert peer.stream_error() == "not-authorized"
    assert world.router.routed == []
    assert world.asked[0][1].called


def test_a_domain_whose_own_server_is_not_reached():
    """XEP-0220 section 2.4: the stream stays."""
    world = World()
    peer, _ = world.secured()
    peer.send(RESULT.format(REMOTE, LOCAL, "key"))
    world.asked[0][1].errback(NotReached("connection refused"))
    assert condition_of(peer.receive_one()) == "remote-server-not-found"
    assert not peer.ended


def test_a_target_that_is_not_here():
    """XEP-0220 section 2.4.2: no stream error, other domains may use the stream."""
    world = World()
    peer, _ = world.secured()
    error = peer.ask(RESULT.format(REMOTE, "elsewhere.example", "key"))
    assert condition_of(error) == "item-not-found"
    assert error["from"] == "elsewhere.example"
    assert world.asked == []


def test_several_domains_on_one_stream():
    """Piggybacking (XEP-0220 section 2.6): each sender domain is proven for itself."""
    world = World()
    peer = world.dialled()
    peer.send(RESULT.format("rooms.mychat.com", f"pubsub.{LOCAL}", "key2"))
    peer.send(RESULT.format("evil.example", LOCAL, "key3"))
    world.asked[1][1].callback("valid")
    world.asked[2][1].callback("invalid")
    assert peer.receive()[0]["type"] == "valid"
    peer.send(MESSAGE.format("rooms.mychat.com", f"pubsub.{LOCAL}"))
    assert len(world.router.routed) == 1
    # Its other domains are not lost by one that is not its own.
    assert not peer.ended
    peer.send(MESSAGE.format("evil.example", LOCAL))
    assert peer.stream_error() == "invalid-from"


def test_a_certificate_is_better_than_a_key():
    """XEP-0344: who has one is not dialled back."""
    world = World([REMOTE])
    peer, _ = world.secured()
    assert peer.ask(RESULT.format(REMOTE, LOCAL, "key"))["type"] == "valid"
    assert world.asked == []


@pytest.mark.parametrize(
    ("policy", "listen"), [(Policy(verify=True), {}), (Policy(), {"dialback": False})], ids=["verify", "no"]
)
def test_dialback_is_not_enough(policy, listen):
    """Where a certificate is asked for, or dialback is switched off."""
    world = World(policy=policy, **listen)
    peer, _ = world.secured()
    assert condition_of(peer.ask(RESULT.format(REMOTE, LOCAL, "key"))) == "not-authorized"
    assert world.asked == []


@pytest.mark.parametrize("key", ["", "x" * 1025])
def test_keys_that_are_none(key):
    """Nobody is asked about them."""
    world = World()
    peer, _ = world.secured()
    assert condition_of(peer.ask(RESULT.format(REMOTE, LOCAL, key))) == "not-acceptable"
    assert world.asked == []


def test_many_domains_at_a_time():
    """Each costs us a stream to somewhere, so there is a limit."""
    world = World()
    peer, _ = world.secured()
    for number in range(11):
        peer.send(RESULT.format(f"d{number}.example", LOCAL, "key"))
    assert condition_of(peer.receive_one()) == "resource-constraint"
    assert len(world.asked) == 10


def test_the_same_request_twice():
    """It is asked about once."""
    world = World()
    peer, _ = world.secured()
    peer.send(RESULT.format(REMOTE, LOCAL, "key") * 2)
    assert len(world.asked) == 1


def test_an_answer_that_nobody_asked_for():
    """XEP-0220 section 3.1."""
    world = World()
    peer, _ = world.secured()
    peer.send(f"<db:result from='{REMOTE}' to='{LOCAL}' type='valid'/>")
    assert peer.stream_error() == "unsupported-stanza-type"


def test_keys_of_ours_are_confirmed():
    """XEP-0220 section 2.3; without any proof, by whoever asks."""
    world = World()
    peer, _ = world.secured()
    key = world.keys.key(REMOTE, LOCAL, "id1")
    ask = "<db:verify from='{}' to='{}' id='{}'>{}</db:verify>"
    answer = peer.ask(ask.format(REMOTE, LOCAL, "id1", key))
    assert (answer["from"], answer["to"], answer["id"]) == (LOCAL, REMOTE, "id1")
    assert answer["type"] == "valid"
    assert peer.ask(ask.format(REMOTE, LOCAL, "id2", key))["type"] == "invalid"
    assert peer.ask(ask.format("evil.example", LOCAL, "id1", key))["type"] == "invalid"
    assert condition_of(peer.ask(ask.format(REMOTE, "x.example", "id1", key))) == "item-not-found"


def test_stanzas_of_other_domains_are_refused():
    """invalid-from (RFC 6120 section 4.9.3.9), also for domains below a proven one, and for ours."""
    for sender in ("evil.example", f"x.{REMOTE}", LOCAL):
        world = World()
        peer = world.dialled()
        peer.send(MESSAGE.format(sender, LOCAL))
        assert peer.stream_error() == "invalid-from"
        assert world.router.routed == []


@pytest.mark.parametrize(
    ("stanza", "condition"),
    [
        (MESSAGE.format(REMOTE, "elsewhere.example"), "host-unknown"),
        (f"<message to='{LOCAL}'/>", "improper-addressing"),
        (f"<message from='{REMOTE}'/>", "improper-addressing"),
        (f"<message from='@{REMOTE}' to='{LOCAL}'/>", "improper-addressing"),
        (f"<noise from='{REMOTE}' to='{LOCAL}'/>", "unsupported-stanza-type"),
        (f"<message xmlns='jabber:client' from='{REMOTE}' to='{LOCAL}'/>", "unsupported-stanza-type"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>", "not-well-formed"),
        ("<?target?>", "restricted-xml"),
        ("<message from='mychat.com' to='mypubsub.com'><a:b/></message>", "bad-namespace-prefix"),
    ],
)
def test_what_ends_a_stream(stanza, condition):
    """Addresses, elements and XML that no server sends."""
    world = World()
    peer = world.dialled()
    peer.send(stanza)
    assert peer.stream_error() == condition
    assert world.router.routed == []


def test_a_bad_request_of_a_user_ends_nothing():
    """It is answered: all others of that server use the same stream."""
    world = World()
    peer = world.dialled()
    peer.send(f"<iq type='get' id='1' from='bob@{REMOTE}/x' to='{LOCAL}'/>")
    (answer,) = world.router.routed
    assert (answer["type"], answer["to"]) == ("error", f"bob@{REMOTE}/x")
    assert not peer.ended


def test_what_is_explicitly_of_the_stream_is_rewritten():
    """A client would take a body in jabber:server for no body."""
    world = World([REMOTE])
    peer, _ = world.secured()
    peer.ask(external())
    peer.send(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' version='1.0' from='mychat.com'"
        " xmlns:stream='http://etherx.jabber.org/streams' to='mypubsub.com'>"
    )
    peer.send(MESSAGE.format(REMOTE, LOCAL).replace("<body>", "<body xmlns='jabber:server'>"))
    (stanza,) = world.router.routed
    assert "raw" not in vars(stanza)


def test_sizes():
    """A stranger's element has 16 KiB, a stanza max_stanza_size, after dialback as well."""
    world = World(max_stanza_size=50_000)
    peer = world.dialled()
    peer.send(MESSAGE.format(REMOTE, LOCAL).replace("Hi", "x" * 40_000))
    assert len(world.router.routed) == 1
    peer.send(MESSAGE.format(REMOTE, LOCAL).replace("Hi", "x" * 50_000))
    assert peer.stream_error() == "policy-violation"
    peer, _ = world.secured()
    peer.send(f"<db:result from='{REMOTE}'>{'x' * 20_000}")
    assert peer.stream_error() == "policy-violation"


def test_keepalives_are_nothing():
    """Any amount of white space, once it is known who sends it."""
    peer = World().dialled()
    for _ in range(50):
        peer.send(" " * 10_000)
    assert not peer.ended


def test_who_proves_nothing_goes():
    """After [limits] unauthenticated_timeout; who is let in stays."""
    world = World()
    peer, _ = world.secured()
    world.clock.advance(30)
    assert peer.stream_error() == "connection-timeout"
    peer = world.dialled()
    world.clock.advance(3600)
    assert not peer.ended


def test_domains_that_are_not_talked_to():
    """By [s2s] block and allow."""
    world = World(policy=Policy(block=frozenset({"evil.example"})))
    peer = world.connect()
    peer.greet("evil.example", LOCAL)
    assert peer.stream_error() == "policy-violation"
    peer, _ = world.secured()
    assert condition_of(peer.ask(RESULT.format("x.evil.example", LOCAL, "key"))) == "policy-violation"


def test_a_header_for_nobody_here():
    """host-unknown (RFC 6120 section 4.9.3.6)."""
    peer = World().connect()
    peer.greet(REMOTE, "elsewhere.example")
    assert peer.stream_error() == "host-unknown"


def test_a_client_on_the_wrong_port():
    """invalid-namespace (RFC 6120 section 4.8.2)."""
    peer = World().connect()
    peer.open(LOCAL)
    assert peer.stream_error() == "invalid-namespace"


def test_connections_of_an_address():
    """[limits] connections_per_address, for servers by themselves."""
    world = World(limits=LimitsSection(connections_per_address=2))
    peers = [world.connect() for _ in range(3)]
    assert [peer.transport.aborting for peer in peers] == [False, False, True]
    peers[0].lose_connection()
    assert not world.connect().transport.aborting
    assert not world.connect("192.0.2.2").transport.aborting


def test_a_flood_is_read_later():
    """[limits] s2s_stanzas_per_second: nothing is dropped."""
    world = World(limits=LimitsSection(s2s_stanzas_per_second=10))
    peer = world.dialled()
    peer.send(MESSAGE.format(REMOTE, LOCAL) * 150)
    assert not peer.transport.is_reading
    world.clock.advance(6)
    assert peer.transport.is_reading
    assert len(world.router.routed) == 150


def test_a_lost_connection_leaves_nothing():
    """No timer, no request, no figure."""
    world = World()
    peer = world.dialled()
    peer.send(RESULT.format("d.example", LOCAL, "key"))
    peer.lose_connection(ConnectionLost())
    assert world.side.streams == 0
    assert world.asked[-1][1].called
    assert world.factory.connections == set()
    assert world.clock.getDelayedCalls() == []


def test_starttls_after_a_proof_is_too_late():
    """RFC 6120 section 5.3.1: it comes before the login."""
    world = World(tls="optional")
    peer = world.connect()
    peer.greet(REMOTE, LOCAL)
    peer.receive()
    peer.send(RESULT.format(REMOTE, LOCAL, "key"))
    assert peer.ask(f"<starttls xmlns='{TLS}'/>").name == "failure"


def test_stopping():
    """All are told, and the end is waited for."""
    world = World()
    peer = world.dialled()
    stopped = world.factory.close_all()
    assert peer.stream_error() == "system-shutdown"
    assert not stopped.called
    peer.lose_connection()
    assert stopped.called
    assert world.connect().transport.aborting
