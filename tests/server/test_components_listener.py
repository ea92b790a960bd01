"""XEP-0114 from the server's side: components that attach, and those that must not."""

import hashlib
import socket
from contextlib import suppress
from random import Random
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from xmpppush.config.sections import LimitsSection, ListenSection
from xmpppush.server.components import (
    LOOK_EVERY,
    LOOKS,
    MAX_STRANGERS,
    STOP_TIMEOUT,
    AttachedComponents,
    ComponentFactory,
    octets_unacknowledged,
)
from xmpppush.server.parser import BEFORE_AUTHENTICATION, stanza_of
from xmpppush.server.router import Router
from xmpppush.server.stream import MAX_OUTPUT
from xmpppush.testing.xmpp import MemoryTransport, StreamPeer
from xmpppush.xep.namespaces import COMPONENT
from xmpppush.xep.xml import relayed_xml, to_xml

MUC = "muc.chat.test"
SECRET = "s3cret"
HELLO = f"<message from='room@{MUC}' to='alice@chat.test'><body>hi</body></message>"


class Host:
    """What the router has for a domain of the server's own."""

    def __init__(self):
        self.stanzas = []

    def send(self, stanza):
        self.stanzas.append(stanza)


class Peer(StreamPeer):
    """The component's end of a stream."""

    def open(self, domain=MUC, namespace=COMPONENT):
        self.send(
            f"<?xml version='1.0'?><stream:stream xmlns='{namespace}'"
            f" xmlns:stream='http://etherx.jabber.org/streams' to='{domain}'>"
        )

    def prove(self, secret=SECRET):
        self.receive()
        proof = hashlib.sha1((self.header["id"] + secret).encode()).hexdigest()
        self.send(f"<handshake>{proof}</handshake>")


class World:
    """A server with a listener for components."""

    def __init__(self, limits=None, **arguments):
        self.clock = Clock()
        self.router = Router()
        self.host = self.router.routes["chat.test"] = Host()
        self.gone, self.back = [], []
        self.components = AttachedComponents(self.router, self.clock, self.gone.append, self.back.append)
        self.unacknowledged = {}
        self.factory = ComponentFactory(
            ListenSection(
                "component", "component", "tcp:1", "none", 10_000, secrets={MUC: SECRET, "irc.test": "other"}
            ),
            limits or LimitsSection(),
            self.components,
            self.clock,
            Random(1),
            unacknowledged=lambda transport: self.unacknowledged.get(transport, 0),
            **arguments,
        )

    def connect(self, **arguments):
        transport = MemoryTransport(**arguments)
        return Peer(self.factory.buildProtocol(transport.getPeer()), transport)

    def attach(self, domain=MUC, secret=SECRET):
        peer = self.connect()
        peer.open(domain)
        peer.prove(secret)
        assert [element.name for element in peer.receive()] == ["handshake"]
        return peer

    def route(self, xml):
        self.router.route(stanza_of(xml))


@pytest.fixture
def world():
    return World()


def lines(events):
    return [event["log_format"].format(**event) for event in events if event.get("log_format")]


def test_handshake(world, events):
    """The right secret is answered with an empty handshake; the header names the component and an id."""
    peer = world.connect()
    peer.open()
    peer.receive()
    assert (peer.header["from"], len(peer.header["id"])) == (MUC, 32)
    assert "version" not in peer.header.attributes
    peer.prove()
    (answer,) = peer.receive()
    assert (answer.name, answer.children) == ("handshake", [])
    assert world.components.names == [MUC]
    assert [line for line in lines(events) if "attached" in line] == [
        f"component {MUC} is attached, from 192.0.2.1"
    ]
    assert not world.clock.getDelayedCalls()


def test_ids_differ(world):
    """Who heard one handshake cannot use it again."""
    first, second = world.connect(), world.connect()
    for peer in (first, second):
        peer.open()
        peer.receive()
    assert first.header["id"] != second.header["id"]


@pytest.mark.parametrize(
    ("domain", "namespace", "condition"),
    [
        ("chat.test", COMPONENT, "host-unknown"),
        ("strange.test", COMPONENT, "host-unknown"),
        ("@@", COMPONENT, "host-unknown"),
        ("", COMPONENT, "improper-addressing"),
        (MUC, "jabber:client", "invalid-namespace"),
        (MUC, "jabber:component:connect", "invalid-namespace"),
    ],
)
def test_refused_headers(world, domain, namespace, condition):
    """A stream that is not for a configured component ends with the right error, in a stream of ours."""
    peer = world.connect()
    peer.open(domain, namespace)
    assert peer.stream_error() == condition
    assert peer.ended
    assert peer.transport.write_closed


def test_domains_are_prepared(world):
    """A component may write its domain in capitals."""
    world.attach("MUC.Chat.Test")
    assert world.components.present == {"irc.test": False, MUC: True}


def test_wrong_secret(world, events):
    """It is not-authorized, said once however often it is tried, and without the secrets."""
    for _ in range(3):
        peer = world.connect()
        peer.open()
        peer.prove("other")  # another component's
        assert peer.stream_error() == "not-authorized"
        peer.lose_connection()
    assert [line for line in lines(events) if "refused" in line] == [
        f"[listen:component] component {MUC} at 192.0.2.1 refused: not-authorized: wrong secret"
    ]
    assert "s3cret" not in " ".join(lines(events))
    world.attach()


@pytest.mark.parametrize("handshake", ["", "\u00e9", "0" * 40, "A" * 10_000])
def test_strange_handshakes(world, handshake):
    """Whatever is no proof is refused."""
    peer = world.connect()
    peer.open()
    peer.send(f"<handshake>{handshake}</handshake>")
    assert peer.stream_error() == "not-authorized"


def test_nothing_before_the_handshake(world):
    """A stanza of who has proved nothing ends the stream and goes nowhere."""
    peer = world.connect()
    peer.open()
    peer.send(HELLO)
    assert peer.stream_error() == "not-authorized"
    assert not world.host.stanzas


@pytest.mark.parametrize(
    "data",
    [
        b"<stream:stream " + b"a" * BEFORE_AUTHENTICATION,
        b"<stream:stream " + b"a='b' " * BEFORE_AUTHENTICATION,
        b" " * (BEFORE_AUTHENTICATION + 1),
    ],
)
def test_too_much_before_the_handshake(world, data):
    """A stranger's memory is bounded."""
    peer = world.connect()
    for start in range(0, len(data), 1000):
        peer.send(data[start : start + 1000])
    assert peer.stream_error() in ("policy-violation", "not-well-formed")
    assert peer.transport.write_closed


def test_large_handshake(world):
    """Nor does an element before the handshake grow."""
    peer = world.connect()
    peer.open()
    peer.receive()
    peer.send("<handshake>")
    for _ in range(20):
        peer.send("<a>" * 300)
    assert peer.stream_error() == "policy-violation"


@pytest.mark.parametrize(
    ("xml", "condition"),
    [
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><x/>", "restricted-xml"),
        ("<!-- x --><x/>", "restricted-xml"),
        ("<?php x ?><x/>", "restricted-xml"),
        ("<message></iq>", "not-well-formed"),
        ("<x:message/>", "bad-namespace-prefix"),
        ("<message>&lol;</message>", "restricted-xml"),
    ],
)
def test_xml_tricks(world, xml, condition):
    """What RFC 6120 section 11.1 forbids ends the stream, also of an attached component."""
    peer = world.attach()
    peer.send(xml)
    assert peer.stream_error() in (condition, "not-well-formed")
    assert world.components.names == []


def test_handshake_takes_no_for_ever(world):
    """Who does not prove itself in time has to go."""
    peer = world.connect()
    peer.open()
    world.clock.advance(29.9)
    assert peer.stream_error() is None
    world.clock.advance(0.2)
    assert peer.stream_error() == "connection-timeout"
    world.clock.advance(10)
    assert peer.transport.aborting


def test_strangers_do_not_keep_components_out(world):
    """However many connect and say nothing, there is room for the next one."""
    strangers = [world.connect() for _ in range(MAX_STRANGERS)]
    world.attach()
    assert strangers[0].stream_error() == "resource-constraint"
    assert [peer.transport.write_closed for peer in strangers[:3]] == [True, False, False]


# Stanzas.


def test_stanzas_go_both_ways(world):
    """In one namespace on the component's stream, in none between; extensions keep theirs."""
    peer = world.attach()
    peer.send(HELLO)
    (got,) = world.host.stanzas
    assert to_xml(got) == HELLO
    assert relayed_xml(got) == HELLO
    world.route(
        f"<message to='room@{MUC}' from='alice@chat.test/x'><body>hi</body><x xmlns='urn:x'/></message>"
    )
    data = peer.transport.value().decode()
    assert data == (
        f"<message to='room@{MUC}' from='alice@chat.test/x'><body>hi</body><x xmlns='urn:x'/></message>"
    )


def test_iq_and_presence(world):
    """Requests, answers and presence, directed and of any type, are passed on as they are."""
    peer = world.attach()
    for xml in (
        f"<iq type='get' id='1' from='{MUC}' to='alice@chat.test/x'><ping xmlns='urn:xmpp:ping'/></iq>",
        f"<iq type='result' id='2' from='{MUC}' to='alice@chat.test/x'/>",
        f"<presence from='room@{MUC}/alice' to='alice@chat.test/x'><priority>1</priority></presence>",
        f"<presence type='subscribe' from='room@{MUC}' to='alice@chat.test'/>",
    ):
        peer.send(xml)
        assert to_xml(world.host.stanzas.pop()) == xml


def test_components_reach_each_other(world):
    """What one sends to the other goes there."""
    first, second = world.attach(), world.attach("irc.test", "other")
    first.send(f"<message from='{MUC}' to='x@irc.test'><body>hi</body></message>")
    assert second.receive_one()["to"] == "x@irc.test"


def test_written_out_namespace(world):
    """A stanza that names the component namespace itself arrives in nobody's."""
    peer = world.attach()
    peer.send(
        f"<message xmlns='{COMPONENT}' from='{MUC}' to='alice@chat.test'>"
        f"<body xmlns='{COMPONENT}'>hi</body></message>"
    )
    (got,) = world.host.stanzas
    assert relayed_xml(got) == f"<message from='{MUC}' to='alice@chat.test'><body>hi</body></message>"


def test_children_of_jabber_client(world):
    """slixmpp writes a body in the clients' namespace; it is the message's body, what is forwarded is not."""
    peer = world.attach()
    peer.send(
        f"<message from='{MUC}' to='alice@chat.test'><body xmlns='jabber:client'>hi</body>"
        "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'/></forwarded></message>"
    )
    (got,) = world.host.stanzas
    assert str(got.body) == "hi"
    assert got.body.uri is None
    assert got.forwarded.firstChildElement().uri == "jabber:client"


@pytest.mark.parametrize(
    ("xml", "condition"),
    [
        ("<message from='alice@chat.test' to='bob@chat.test'/>", "invalid-from"),
        ("<message from='x.muc.chat.test' to='bob@chat.test'/>", "invalid-from"),
        ("<message from='a@@b' to='bob@chat.test'/>", "invalid-from"),
        ("<message to='bob@chat.test'/>", "improper-addressing"),
        ("<message from='' to='bob@chat.test'/>", "improper-addressing"),
        (f"<message from='{MUC}'/>", "improper-addressing"),
        (f"<message from='{MUC}' to=''/>", "improper-addressing"),
        (f"<route from='{MUC}' to='bob@chat.test'/>", "unsupported-stanza-type"),
        ("<handshake/>", "unsupported-stanza-type"),
        (f"<message xmlns='jabber:client' from='{MUC}' to='bob@chat.test'/>", "invalid-namespace"),
    ],
)
def test_refused_stanzas(world, events, xml, condition):
    """A spoofed or senseless stanza goes nowhere and ends the stream; one line says why."""
    peer = world.attach()
    peer.send(xml + HELLO)
    assert peer.stream_error() == condition
    assert not world.host.stanzas
    assert world.components.names == []
    (line,) = [line for line in lines(events) if "is gone" in line]
    assert condition in line


@pytest.mark.parametrize(
    ("attributes", "condition"),
    [
        ("type='get' id='1' to='a@@b'", "jid-malformed"),
        ("type='get' to='alice@chat.test'", "bad-request"),
        ("type='strange' id='1' to='alice@chat.test'", "bad-request"),
        ("type='get' id='1' to='strange.test'", "remote-server-not-found"),
    ],
)
def test_stanza_errors(world, attributes, condition):
    """What a gateway's user may have done wrong is answered, and the stream goes on."""
    peer = world.attach()
    peer.send(f"<iq from='u@{MUC}' {attributes}><x xmlns='urn:x'/></iq>")
    answer = peer.receive_one()
    assert answer["type"] == "error"
    assert answer["to"] == f"u@{MUC}"
    assert condition in answer.toXml()
    peer.send(HELLO)
    assert len(world.host.stanzas) == 1


def test_large_stanza(world):
    """One that is too large is answered, what follows is taken."""
    peer = world.attach()
    body = "x" * 20_000
    peer.send(f"<message from='u@{MUC}' to='alice@chat.test'><body>{body}</body></message>{HELLO}")
    assert "policy-violation" in peer.receive_one().toXml()
    assert [to_xml(stanza) for stanza in world.host.stanzas] == [HELLO]


@pytest.mark.parametrize(("piece", "most"), [("x" * 1000, 20), (">", 1000)])
def test_a_tag_without_an_end(world, piece, most):
    """Memory and time for one are bounded, however it comes."""
    peer = world.attach()
    peer.send(f"<message from='{MUC}' to='")
    pieces = 0
    while not peer.protocol.closed and pieces <= most:
        peer.send(piece)
        pieces += 1
    assert pieces <= most
    assert peer.stream_error() in ("policy-violation", "not-well-formed")


def test_many_names(world):
    """All the different names that a gateway's users think of do not add up."""
    peer = world.attach()
    for number in range(3000):
        peer.send(
            f"<message from='{MUC}' to='a@chat.test'><n{number}{'x' * 40} xmlns='u:{number}'/></message>"
        )
    assert peer.stream_error() is None
    assert len(world.host.stanzas) == 3000


# Absent.


def test_absent(world):
    """Where the component is not there the sender learns that it may come back, and nothing is kept."""
    world.route(f"<iq type='get' id='1' from='alice@chat.test/x' to='{MUC}'><x xmlns='urn:x'/></iq>")
    (answer,) = world.host.stanzas
    assert answer["id"] == "1"
    assert "<remote-server-timeout" in answer.toXml()
    assert answer.error["type"] == "wait"
    peer = world.attach()
    assert peer.receive() == []


@pytest.mark.parametrize(
    "xml",
    [
        f"<iq type='result' id='1' from='alice@chat.test/x' to='{MUC}'/>",
        f"<message type='error' from='alice@chat.test/x' to='{MUC}'/>",
        f"<presence type='unavailable' from='alice@chat.test/x' to='{MUC}'/>",
    ],
)
def test_absent_without_an_answer(world, xml):
    """What must not be answered is not."""
    world.route(xml)
    assert not world.host.stanzas


def test_two_absent_components(world):
    """An error is not answered with an error."""
    peer = world.attach()
    peer.send(f"<message from='{MUC}' to='x@irc.test'><body>hi</body></message>")
    assert "remote-server-timeout" in peer.receive_one().toXml()


def test_gone_and_back(world, events):
    """A component that lost its connection is absent until it is back."""
    peer = world.attach()
    peer.lose_connection()
    assert world.components.addresses == {"irc.test": "", MUC: ""}
    assert (world.back, world.gone) == ([MUC], [MUC])
    world.attach()
    assert world.back == [MUC, MUC]
    assert world.components.addresses[MUC] == "192.0.2.1"
    assert len([line for line in lines(events) if "is gone" in line]) == 1


def test_goodbye(world):
    """A closing tag is answered with ours."""
    peer = world.attach()
    peer.send("</stream:stream>")
    peer.receive()
    assert peer.ended
    assert world.components.names == []


# Two of them.


def test_the_first_one_stays(world, events):
    """A second component of the same domain is told of the conflict as soon as the first shows life."""
    first = world.attach()
    second = world.connect()
    second.open()
    second.prove()
    assert second.receive() == []
    assert first.transport.value() == b" "
    world.clock.advance(LOOK_EVERY)
    assert second.stream_error() == "conflict"
    first.send(HELLO)
    assert len(world.host.stanzas) == 1
    assert [line for line in lines(events) if "refused" in line]


def test_not_two_that_wait(world):
    """While one waits for the first to answer, a third is in conflict at once."""
    world.attach()
    second, third = world.connect(), world.connect()
    for peer in (second, third):
        peer.open()
        peer.prove()
    assert third.stream_error() == "conflict"
    assert second.stream_error() is None


def test_a_dead_one_makes_room(world, events):
    """Where nobody acknowledges what is sent to the first one, the second takes its place."""
    first = world.attach()
    world.unacknowledged[first.transport] = 1
    second = world.connect()
    second.open()
    second.prove()
    world.clock.advance(LOOK_EVERY)
    assert second.receive() == []
    world.clock.pump([LOOK_EVERY] * LOOKS)
    assert [element.name for element in second.receive()] == ["handshake"]
    assert first.transport.aborting
    first.lose_connection()
    world.route(f"<message to='{MUC}' from='alice@chat.test'/>")
    assert len(second.receive()) == 1
    assert [line for line in lines(events) if "a new one is there" in line]
    assert not world.clock.getDelayedCalls()


def test_a_reset_makes_room_at_once(world):
    """The machine of the first one is back and knows nothing of the old connection."""
    first = world.attach()
    second = world.connect()
    second.open()
    second.prove()
    first.lose_connection()
    assert [element.name for element in second.receive()] == ["handshake"]
    assert not world.clock.getDelayedCalls()


def test_a_newcomer_that_leaves(world):
    """A newcomer that goes before it is decided leaves nothing behind."""
    first = world.attach()
    second = world.connect()
    second.open()
    second.prove()
    second.lose_connection()
    world.clock.advance(LOOK_EVERY)
    first.lose_connection()
    assert world.components.names == []
    world.attach()
    assert not world.clock.getDelayedCalls()


def test_two_listeners(world):
    """A domain that may attach at two listeners is one domain."""
    other = World()
    other.factory.components = world.components
    world.attach()
    second = other.connect()
    second.open()
    second.prove()
    world.clock.advance(LOOK_EVERY)
    assert second.stream_error() == "conflict"


# Limits.


def test_a_component_that_does_not_read(world, events):
    """Its output is bounded: it is disconnected, and the log says why."""
    peer = world.attach()
    peer.protocol.pauseProducing()
    body = "x" * 100_000
    for _ in range(MAX_OUTPUT // 100_000 + 1):
        world.route(f"<message to='{MUC}' from='alice@chat.test'><body>{body}</body></message>")
    assert peer.transport.aborting
    assert world.components.names == []
    assert [line for line in lines(events) if "is gone: it does not read what it gets" in line]


def test_rate():
    """Faster than it may it is read later, and nothing is dropped."""
    world = World(LimitsSection(component_stanzas_per_second=1))
    peer = world.attach()
    peer.send(HELLO * 12)
    assert len(world.host.stanzas) == 12
    assert not peer.transport.is_reading
    world.clock.advance(2)
    assert peer.transport.is_reading


def test_full_storage():
    """While the storage is full nothing more is read."""
    relieved = Deferred()
    world = World(backlog=lambda: relieved)
    peer = world.attach()
    peer.send(HELLO)
    assert not peer.transport.is_reading
    relieved.callback(None)
    assert peer.transport.is_reading


def test_a_fault_of_ours(world, monkeypatch):
    """What goes wrong behind is answered and logged without the stanza; the component goes on."""
    peer = world.attach()
    monkeypatch.setattr(world.host, "send", lambda stanza: 1 / 0)
    peer.send(HELLO)
    assert "internal-server-error" in peer.receive_one().toXml()


# The end.


def test_shutdown(world):
    """All streams end with system-shutdown; the rest is cut off after a while."""
    peer, stranger = world.attach(), world.connect()
    stopped = []
    world.factory.close_all().addCallback(stopped.append)
    assert peer.stream_error() == "system-shutdown"
    assert stranger.stream_error() == "system-shutdown"
    peer.lose_connection()
    assert not stopped
    world.clock.advance(STOP_TIMEOUT)
    assert stopped
    assert stranger.transport.aborting


def test_shutdown_without_anybody(world):
    """Nothing to wait for."""
    assert world.factory.close_all().called


def test_stream_error_of_the_component(world, events):
    """An error of theirs is not answered with one, and its name is logged."""
    peer = world.attach()
    peer.send("<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
    assert peer.stream_error() is None
    assert peer.ended
    assert [line for line in lines(events) if "it says system-shutdown" in line]


def test_what_is_not_acknowledged():
    """The system tells of a TCP connection; of what has no socket nobody can tell."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as ours, server.accept()[0] as theirs:
            transport = SimpleNamespace(getHandle=lambda: ours)
            assert octets_unacknowledged(transport) == 0
            ours.setblocking(False)
            sent = 0
            with suppress(BlockingIOError):
                while True:
                    sent += ours.send(bytes(65536))
            assert 0 < octets_unacknowledged(transport) <= sent
            assert octets_unacknowledged(SimpleNamespace(transport=transport)) > 0
            theirs.close()
        assert octets_unacknowledged(transport) == 0
    assert octets_unacknowledged(MemoryTransport()) == 0
