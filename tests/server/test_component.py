"""XEP-0114 from the component's side: conversations with a server, on a clock of their own."""

import hashlib
from pathlib import Path
from random import Random

import pytest
from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, NoRouteError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from xmpppush.config.sections import ComponentSection
from xmpppush.errors import DeviceUnregistered, Forbidden, StorageError
from xmpppush.server.component import (
    MAX_SHORT,
    MAX_STANZA,
    MAX_UNANSWERED,
    ComponentLink,
    EarlyAttachment,
    in_words,
)
from xmpppush.server.parser import stanza_of
from xmpppush.server.router import Router
from xmpppush.xep.namespaces import COMPONENT, STREAM_ERRORS, STREAMS

JID = "push.chat.test"
WIRE = Path(__file__).parents[1] / "data" / "wire"
A_PUBLISH = (WIRE / "prosody-offline-body.xml").read_bytes().strip()
HEADER = f"<?xml version='1.0'?><stream:stream xmlns='{COMPONENT}' xmlns:stream='{STREAMS}' id='s1'>".encode()


class Transport(StringTransport):
    aborted = False

    def abortConnection(self):
        self.aborted = True

    def loseWriteConnection(self):
        pass

    def setTcpNoDelay(self, on):
        pass

    def setTcpKeepAlive(self, on):
        pass


class Endpoint:
    """Connects when it is told to, to transports that can be looked into."""

    def __init__(self):
        self.tries = 0
        self.refuses = False
        self.streams = []

    def connect(self, factory):
        self.tries += 1
        if self.refuses:
            return fail(ConnectionRefusedError(111))
        stream = factory.buildProtocol(None)
        self.streams.append(stream)
        stream.makeConnection(Transport())
        return succeed(stream)


class PubSub:
    """Answers at once, or never, or with what it is told."""

    hosts = frozenset([JID])

    def __init__(self):
        self.has_node = True
        self.silent = False
        self.error = None
        self.offers = []
        self.waiting = []

    def offer(self, publish, answered):
        if not self.has_node:
            return False
        self.offers.append(publish)
        if self.silent:
            self.waiting.append(answered)
        else:
            answered(self.error)
        return True

    def answer_waiting(self):
        waiting, self.waiting = self.waiting, []
        for answered in waiting:
            answered(None)


class Host:
    """What the router has for the component's domain."""

    def __init__(self):
        self.stanzas = []

    def send(self, stanza):
        self.stanzas.append(stanza)


class Server:
    """The conversation: what the XMPP server says and sees."""

    def __init__(self, **arguments):
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.pubsub = PubSub()
        self.router = Router()
        self.host = self.router.routes[JID] = Host()
        self.link = ComponentLink(
            ComponentSection("", JID, "tcp:127.0.0.1:1", "s3cret"),
            self.router,
            self.pubsub,
            self.clock,
            Random(1),
            endpoint=self.endpoint,
            **arguments,
        )

    @property
    def stream(self):
        return self.endpoint.streams[-1]

    def says(self, data):
        self.stream.dataReceived(data if isinstance(data, bytes) else data.encode())

    def sees(self):
        """What came since it was last asked."""
        transport = self.stream.transport
        data = transport.value().decode()
        transport.clear()
        return data

    def sees_stanza(self):
        return stanza_of(self.sees())

    def hangs_up(self):
        self.stream.connectionLost(Failure(ConnectionRefusedError(104)))

    def accepts(self):
        self.says(HEADER)
        self.says("<handshake/>")
        self.sees()


@pytest.fixture
def server():
    server = Server()
    server.link.startService()
    return server


@pytest.fixture
def attached(server):
    server.accepts()
    return server


@pytest.fixture
def lines():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield lambda: [
        event["log_format"].format(**event)
        for event in events
        if event["log_namespace"].startswith("xmpppush.server.component")
    ]
    globalLogPublisher.removeObserver(events.append)


def test_the_handshake_proves_the_secret(server, lines):
    """XEP-0114 section 3: SHA-1 of the stream's id and the secret; then it is attached, and says so."""
    assert f'to="{JID}"' in server.sees()
    server.says(HEADER)
    assert server.sees() == f"<handshake>{hashlib.sha1(b's1s3cret').hexdigest()}</handshake>"
    assert server.link.trouble == "not attached yet"
    server.says("<handshake/>")
    assert server.link.trouble is None
    assert lines() == ["[component] attached to 192.168.1.1 as push.chat.test"]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("not-authorized", "wrong secret (not-authorized): '[component] secret' must be the one"),
        ("host-unknown", "the server knows no component push.chat.test (host-unknown)"),
        ("conflict", "another component is connected as push.chat.test (conflict)"),
        ("invalid-namespace", "the port is not one for components (invalid-namespace)"),
    ],
)
def test_a_refusal_is_explained_once(server, lines, condition, words):
    """In one line that names what to look at, not the secret; tries go on, further and further apart."""
    for _ in range(30):
        server.says(HEADER)
        server.says(f"<stream:error><{condition} xmlns='{STREAM_ERRORS}'/></stream:error></stream:stream>")
        server.hangs_up()
        server.clock.advance(60)
    (line,) = lines()
    assert words in line
    assert "s3cret" not in line
    assert words in server.link.trouble
    assert server.endpoint.tries == 31


def test_a_client_port_is_no_component_port(server, lines):
    """A header in another namespace is the wrong port."""
    server.says(HEADER.replace(COMPONENT.encode(), b"jabber:client"))
    assert "<invalid-namespace" in server.sees()
    server.hangs_up()
    assert "the port is not one for components" in lines()[0]


def test_an_hour_without_a_server_is_two_lines(attached, lines):
    """At its begin and at its end; in between there are tries, not more than one in some seconds."""
    attached.endpoint.refuses = True
    attached.hangs_up()
    for _ in range(3600):
        attached.clock.advance(1)
    assert 240 < attached.endpoint.tries < 600
    attached.endpoint.refuses = False
    attached.clock.advance(15)
    attached.accepts()
    lost, back = lines()
    assert "not attached as push.chat.test: connection lost" in lost
    assert "again, after 3" in back
    assert attached.link.trouble is None


def test_a_lost_stream_is_tried_again_at_once(attached):
    """What is published meanwhile is lost: no delay before the first try, short ones before the next."""
    attached.endpoint.refuses = True
    attached.hangs_up()
    attached.clock.advance(0)
    assert attached.endpoint.tries == 2
    attached.clock.pump([0.01] * 100)
    assert attached.endpoint.tries >= 5


def test_who_is_replaced_does_not_fight_back(attached):
    """A server that gives the name to the newcomer would have two take it from each other for ever."""
    attached.says(f"<stream:error><conflict xmlns='{STREAM_ERRORS}'/></stream:error></stream:stream>")
    attached.hangs_up()
    attached.clock.advance(2)
    assert attached.endpoint.tries == 1
    attached.clock.advance(3)
    assert attached.endpoint.tries == 2


def test_a_server_that_takes_us_and_hangs_up_is_not_hammered(attached, lines):
    """A log-in that is over at once is no success: the tries go further and further apart all the same."""
    for _ in range(600):
        if attached.stream.closed or attached.stream.broken:
            attached.clock.advance(0.1)
            continue
        if not attached.stream.attached:
            attached.accepts()
        attached.says("</stream:stream>")
        attached.hangs_up()
        attached.clock.advance(0.1)
    assert attached.endpoint.tries < 20
    assert len(lines()) < 2 * 20


def test_an_answer_does_not_come_before_the_log_in(attached):
    """What is answered while a new stream is not attached yet is dropped: anything before the handshake ends it."""
    attached.pubsub.silent = True
    attached.says(A_PUBLISH * 2)
    attached.hangs_up()
    attached.clock.advance(0)
    attached.sees()
    attached.pubsub.waiting.pop()(None)
    attached.pubsub.waiting.pop()(DeviceUnregistered("gone"))
    assert attached.sees() == ""
    attached.says(HEADER)
    assert attached.sees().startswith("<handshake>")
    attached.says("<handshake/>")
    assert attached.link.trouble is None
    assert attached.link.answers == {"result": 1, "item-not-found": 1}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (NoRouteError(113, "No route to host"), "no route to host"),
        (ConnectError(OSError(101, "Network is unreachable")), "network is unreachable"),
        (ConnectError(string="not today\nnor tomorrow."), "not today"),
        (DNSLookupError("push.example"), "no such host"),
        (TimeoutError(), "no answer"),
    ],
)
def test_connections_that_fail_are_explained_in_words(error, words):
    """A number says little to an operator."""
    assert words in in_words(Failure(error))
    assert not any(map(str.isdigit, in_words(Failure(error))))


def test_a_server_that_says_nothing_is_left(server):
    """No answer to the log-in: the connection is dropped."""
    server.clock.advance(20)
    assert server.stream.transport.aborted


@pytest.mark.parametrize("size", [None, 1, 100])
def test_publishes_are_answered(attached, size):
    """However they are cut into segments, with the addresses swapped and the id as it came."""
    data = A_PUBLISH * 3
    for start in range(0, len(data), size or len(data)):
        attached.says(data[start : start + (size or len(data))])
    assert len(attached.pubsub.offers) == 3
    assert attached.sees().count("type='result'") == 3
    assert attached.link.answers == {"result": 3}
    publish = attached.pubsub.offers[0]
    assert (publish.sender, publish.pubsub) == ("chat.test", JID)
    assert publish.options["service"] == "fcm"


def test_an_unusual_publish_goes_the_long_way(attached):
    """And so does everything else that is for the host."""
    attached.says(A_PUBLISH.replace(b"<item>", b"<item><!-- ").replace(b"<!-- ", b"<b/>"))
    attached.says("<iq type='get' id='d' from='chat.test' to='push.chat.test'><query xmlns='a'/></iq>")
    attached.says(A_PUBLISH)
    assert [stanza.name for stanza in attached.host.stanzas] == ["iq", "iq"]
    assert len(attached.pubsub.offers) == 1


def test_a_publish_to_another_kind_of_node_goes_the_long_way(attached):
    """To one that keeps items, to one that is not in memory, or to none; also one that is too long."""
    attached.pubsub.has_node = False
    attached.says(A_PUBLISH)
    attached.pubsub.has_node = True
    attached.says(A_PUBLISH.replace(b"New Message!", b"x" * MAX_SHORT))
    assert [stanza.name for stanza in attached.host.stanzas] == ["iq", "iq"]
    assert attached.pubsub.offers == []


@pytest.mark.parametrize(
    ("error", "type", "condition"),
    [
        (DeviceUnregistered("gone"), "cancel", "item-not-found"),
        (StorageError("full"), "wait", "internal-server-error"),
        (Forbidden("no"), "auth", "forbidden"),
        (RuntimeError("a bug"), "wait", "internal-server-error"),
    ],
)
def test_errors_are_answered(attached, error, type, condition):
    """A device that is gone is cancel/item-not-found; a fault of ours is to wait (PEERS.md section 5)."""
    attached.pubsub.error = error
    attached.says(A_PUBLISH)
    answer = attached.sees_stanza()
    assert (answer["type"], answer["to"], answer["from"]) == ("error", "chat.test", JID)
    assert answer.error["type"] == type
    assert next(answer.error.elements()).name == condition
    assert attached.link.answers == {condition: 1}


@pytest.mark.parametrize(
    "stanza",
    [
        "<iq type='get' id='d' from='chat.test' to='other.test'><a xmlns='b'/></iq>",
        "<iq type='get' id='d' from='me@ours.test/r' to='push.chat.test'><a xmlns='b'/></iq>",
        "<iq type='get' id='d' from='push.chat.test' to='push.chat.test'><a xmlns='b'/></iq>",
        "<iq type='get' id='d' from='chat.test' to='@'><a xmlns='b'/></iq>",
        "<iq type='get' id='d' from='chat.test'><a xmlns='b'/></iq>",
        "<iq type='get' id='d' to='push.chat.test'><a xmlns='b'/></iq>",
        A_PUBLISH.decode().replace("from='chat.test'", "from='ours.test'"),
        A_PUBLISH.decode().replace("to='push.chat.test'", "to='ours.test'"),
    ],
)
def test_the_server_speaks_for_others_only(attached, stanza):
    """Nothing that claims to be from a domain served here, or is not for the component, goes further."""
    ours = attached.router.routes["ours.test"] = Host()
    attached.says(stanza)
    assert attached.host.stanzas == attached.pubsub.offers == ours.stanzas == []


def test_a_stanza_against_the_limits_ends_nothing(attached):
    """Its sender is told; the next publish gets through."""
    attached.says(
        "<iq type='set' id='b' from='eve@chat.test/r' to='push.chat.test'>"
        + "<a>" * 5000
        + "</a>" * 5000
        + "</iq>"
    )
    answer = attached.sees_stanza()
    assert (answer["id"], answer["to"]) == ("b", "eve@chat.test/r")
    assert answer.error.firstChildElement().name == "policy-violation"
    attached.says(A_PUBLISH)
    assert "type='result'" in attached.sees()


@pytest.mark.parametrize("size", [100_000, 3 * MAX_STANZA])
def test_no_answer_is_larger_than_the_server_takes(attached, size):
    """An error echoes what it answers; Prosody ends the stream of a component that sends 512 KiB at once."""
    attached.says(
        "<iq type='get' id='p' from='a@chat.test/r' to='chat.test'>"
        f"<query xmlns='a' node='n'>{'>' * size}</query></iq>"
    )
    data = attached.sees()
    assert len(data) < 1000
    answer = stanza_of(data)
    assert (answer["type"], answer["id"], answer["to"]) == ("error", "p", "a@chat.test/r")
    assert [child.name for child in answer.elements()] == ["error"]
    # Of an answer that has to be so large there is none.
    attached.says(f"<iq type='get' id='{'>' * 200_000}' from='chat.test' to='chat.test'><q xmlns='a'/></iq>")
    assert attached.sees() == ""
    attached.says(A_PUBLISH)
    assert "type='result'" in attached.sees()


def test_reading_pauses_while_too_many_are_unanswered(attached):
    """Memory is bounded: TCP holds back the rest until half of them are answered."""
    attached.pubsub.silent = True
    attached.says(A_PUBLISH * (MAX_UNANSWERED + 5))
    assert attached.stream.transport.producerState == "paused"
    for answered in attached.pubsub.waiting[: MAX_UNANSWERED // 2]:
        answered(None)
    assert attached.stream.transport.producerState == "paused"
    for answered in attached.pubsub.waiting[MAX_UNANSWERED // 2 :]:
        answered(None)
    assert attached.stream.transport.producerState == "producing"


def test_reading_pauses_while_the_storage_is_behind():
    """As with clients."""
    relieved = Deferred()
    server = Server(backlog=lambda: relieved)
    server.link.startService()
    server.accepts()
    server.says(A_PUBLISH)
    assert server.stream.transport.producerState == "paused"
    relieved.callback(None)
    assert server.stream.transport.producerState == "producing"


def test_answers_of_the_host_go_out_by_the_component(attached):
    """The router knows its sender, not its domain."""
    attached.router.route(
        stanza_of("<message from='push.chat.test' to='romeo@chat.test'><body>a</body></message>")
    )
    assert "<message from='push.chat.test' to='romeo@chat.test'>" in attached.sees()
    attached.hangs_up()
    attached.router.route(stanza_of("<iq type='get' id='i' from='push.chat.test' to='chat.test'><a/></iq>"))
    (error,) = attached.host.stanzas
    assert error.error["type"] == "wait"
    attached.router.route(stanza_of("<iq type='result' id='i' from='push.chat.test' to='chat.test'/>"))
    assert len(attached.host.stanzas) == 1


def test_a_stop_answers_and_closes(attached):
    """Publishes that were taken are answered, what comes until the server closes is taken as well."""
    attached.pubsub.silent = True
    attached.says(A_PUBLISH)
    stopped = attached.link.stopService()
    seen = attached.sees()
    assert seen.index("type='result'") < seen.index("</stream:stream>")
    assert not stopped.called
    attached.pubsub.silent = False
    attached.says(A_PUBLISH)
    assert len(attached.pubsub.offers) == 2
    assert attached.sees() == ""
    attached.says("</stream:stream>")
    attached.hangs_up()
    assert stopped.called
    assert attached.clock.getDelayedCalls() == []


def test_a_stop_waits_for_the_disk_but_not_for_ever(attached):
    """What is not stored within seconds is answered by nobody; the server does not mind."""
    attached.pubsub.silent = True
    attached.pubsub.answer_waiting = lambda: None
    attached.says(A_PUBLISH)
    stopped = attached.link.stopService()
    assert "</stream:stream>" not in attached.sees()
    attached.clock.pump([0.02] * 260)
    assert "</stream:stream>" in attached.sees()
    attached.clock.advance(3)
    assert attached.stream.transport.aborted
    attached.hangs_up()
    assert stopped.called
    assert attached.clock.getDelayedCalls() == []


def test_a_stop_while_nothing_is_there(server):
    """Neither a connection that is being made nor a retry is left over."""
    server.endpoint.refuses = True
    server.hangs_up()
    server.clock.advance(0)
    assert server.link.stopService() is None
    assert server.clock.getDelayedCalls() == []


@pytest.fixture
def early():
    """A connection that was made before there is a link, and a server for a link to come."""
    endpoint, clock = Endpoint(), Clock()
    section = ComponentSection("", JID, "tcp:127.0.0.1:1", "s3cret")
    attachment = EarlyAttachment(section, clock, endpoint)
    server = Server(early=attachment)
    server.endpoint = endpoint
    server.attaching = attachment.attach()
    return server


def test_an_early_connection_is_taken_over(early):
    """It is attached and not read until there is a link; nothing of what came meanwhile is lost."""
    early.says(HEADER)
    early.sees()
    early.says(b"<handshake/><iq type='get' id='d' from='chat.test' to='push.chat.test'><q xmlns='a'/></iq>")
    assert early.attaching.result is True
    assert early.stream.transport.producerState == "paused"
    early.link.startService()
    assert early.link.trouble is None
    assert early.stream.transport.producerState == "producing"
    assert [stanza["id"] for stanza in early.host.stanzas] == ["d"]
    early.says(A_PUBLISH)
    assert "type='result'" in early.sees()
    assert early.endpoint.tries == 1


def test_where_only_one_may_be_attached_the_link_makes_its_own(early):
    """Prosody refuses the second connection with a conflict."""
    early.says(HEADER)
    early.says(f"<stream:error><conflict xmlns='{STREAM_ERRORS}'/></stream:error></stream:stream>")
    early.hangs_up()
    assert early.attaching.result is False
    early.link._endpoint = early.endpoint
    early.link.startService()
    assert early.endpoint.tries == 2
    early.accepts()
    assert early.link.trouble is None
