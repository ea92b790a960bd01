"""Stream management (XEP-0198) as conversations in memory: connections, sessions, server and storage."""

from random import Random

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from xmpppush.config.sections import AuthSection, C2SSection, LimitsSection, ListenSection
from xmpppush.errors import StorageError
from xmpppush.interfaces import ISessionHost
from xmpppush.model import Account
from xmpppush.server import sm
from xmpppush.server.authenticator import AccountAuthenticator
from xmpppush.server.c2s import C2SFactory
from xmpppush.server.handlers import DomainHandlers, add_server_handlers
from xmpppush.server.host import XMPPServer
from xmpppush.server.resources import Resources
from xmpppush.server.router import Router
from xmpppush.server.sasl import derive_keys
from xmpppush.server.session import REQUEST_AFTER, REQUEST_AT
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_delivery
from xmpppush.testing.xmpp import MemoryTransport, StreamPeer

ALICE, BOB = "alice@localhost", "bob@localhost"
KEYS = derive_keys("secret")
SM = "xmlns='urn:xmpp:sm:3'"
START = 1_795_000_000


class Pushes:
    """An IPushDecider: one device, called ``phone``, that gets a push unless it is there and answers."""

    def __init__(self, devices=("phone",)):
        self.devices = devices
        self.back = []
        self.push_on_broken_stream = False
        self.sent = []
        self.asked = 0

    def dropped(self, deliveries, error):
        """Nothing is noted here."""

    def device_back(self, account, resource):
        self.back.append(resource)

    async def deliveries_for(self, account, stanza, sessions, pushed=(), have=()):
        self.asked += 1
        if account != ALICE or not stanza.body:
            return ()
        absent = []
        for device in self.devices:
            if device in have or ("pubsub.localhost", device) in pushed:
                continue
            session = sessions.get(device)
            if session is None or session.priority is None or session.hibernated or not session.answering:
                absent.append(device)
        return tuple(a_delivery(node=device, body=f"{device}: {stanza.body}".encode()) for device in absent)

    def enqueue(self, delivery):
        assert delivery.id
        self.sent.append(delivery.body.decode())


class SlowMessages:
    """The message store, with writes that are done when told to."""

    def __init__(self, messages):
        self._messages = messages
        self.slow = False
        self.waiting_for = []

    def __getattr__(self, name):
        return getattr(self._messages, name)

    def _later(self, call, *args):
        if not self.slow:
            return call(*args)
        started = Deferred()
        self.waiting_for.append(started)
        return started.addCallback(lambda _: call(*args))

    def keep(self, *args):
        return self._later(self._messages.keep, *args)

    def hand(self, *args):
        return self._later(self._messages.hand, *args)

    def go_on(self):
        self.slow = False
        waiting, self.waiting_for = self.waiting_for, []
        for started in waiting:
            started.callback(None)


class World:
    """A server with Alice and Bob; `restart` is what comes after kill -9."""

    def __init__(self, devices=("phone",)):
        self.clock = Clock()
        self.clock.advance(START)
        self.storage = memory_storage()
        self.storage.accounts.add([Account(ALICE, KEYS), Account(BOB, KEYS)])
        self.pushes = Pushes(devices)
        self.start()

    def start(self, resume_timeout=600.0, limit=1000):
        self.messages = SlowMessages(self.storage.messages)
        router, self.resources = Router(), Resources()
        handlers = DomainHandlers(router)
        add_server_handlers(handlers, self.storage.rosters, self.resources, lambda domain: [], self.clock)
        handlers.startService()
        self.host = XMPPServer(
            ["localhost"],
            router,
            self.resources,
            handlers,
            self.storage.accounts,
            self.messages,
            self.pushes,
            self.clock,
            limit,
            60.0,
        )
        self.host.startService()
        self.factory = C2SFactory(
            ListenSection("c2s", "c2s", tls="none", endpoint="tcp:0"),
            AuthSection(allow_plain_without_tls=True),
            LimitsSection(c2s_stanzas_per_second=0),
            None,
            AccountAuthenticator(self.storage.accounts),
            self.host,
            self.clock,
            Random(1),
            management=C2SSection(resume_timeout, 60.0),
        )

    def restart(self):
        self.clock.calls.clear()
        self.start()

    def log_in(self, user="alice"):
        transport = MemoryTransport()
        peer = StreamPeer(self.factory.buildProtocol(transport.getPeer()), transport)
        peer.open()
        peer.receive()
        assert peer.log_in_plain(user).name == "success"
        peer.open()
        peer.receive()
        return peer

    def bind(self, user="alice", resource="phone", present=True):
        peer = self.log_in(user)
        assert peer.bind(resource)["type"] == "result"
        if present:
            peer.send("<presence/>")
            peer.receive()
        return peer

    def managed(self, user="alice", resource="phone", present=True, enable="resume='true'"):
        """Binds, enables, becomes present; the presence that comes back is acknowledged."""
        peer = self.bind(user, resource, present=False)
        peer.id = peer.ask(f"<enable {SM} {enable}/>").getAttribute("id")
        if present:
            peer.send("<presence/>")
        peer.count = sum(element.uri is None for element in peer.receive())
        peer.send(f"<a {SM} h='{peer.count}'/>")
        return peer

    def resume(self, client, handled, user="alice"):
        """A new stream that asks for the session of a client; returns it and the first answer."""
        peer = self.log_in(user)
        peer.send(f"<resume {SM} previd='{client.id}' h='{handled}'/>")
        peer.got = peer.receive()
        return peer, peer.got.pop(0)

    def waiting(self, account=ALICE):
        return [body(message.xml) for message in self.storage.messages.waiting(account).result]

    def session(self, account=ALICE, resource="phone"):
        return self.resources.get(account, resource)


@pytest.fixture
def world():
    return World()


def chat(text="Hi", to=ALICE, kind="chat"):
    return f"<message to='{to}' type='{kind}' id='{text}'><body>{text}</body></message>"


def body(xml):
    return xml.partition("<body>")[2].partition("</body>")[0]


def bodies(elements):
    return [str(element.body) for element in elements if element.name == "message"]


def failure_of(element):
    assert (element.uri, element.name) == ("urn:xmpp:sm:3", "failed")
    return element.firstChildElement().name


def error_of(peer):
    """The stream error: its condition, and the application's."""
    (error,) = [element for element in peer.receive() if element.name == "error"]
    return [child.name for child in error.elements() if child.name != "text"], error


def test_it_is_what_it_promises(world):
    """The server is the host of its connections."""
    verifyObject(ISessionHost, world.host)


# Enabling (section 3)


def test_enable_without_resumption(world):
    """No id then."""
    client = world.bind()
    enabled = client.ask(f"<enable {SM}/>")
    assert (enabled.name, enabled.attributes) == ("enabled", {})


@pytest.mark.parametrize(("wish", "agreed"), [("", "600"), ("max='60'", "60"), ("max='9999'", "600")])
def test_enable_with_resumption(world, wish, agreed):
    """An id that nobody guesses, and the smaller of both time-outs."""
    enabled = world.bind().ask(f"<enable {SM} resume='1' {wish}/>")
    assert len(enabled["id"]) == 32
    assert (enabled["resume"], enabled["max"]) == ("true", agreed)


def test_a_client_may_not_want_to_wait_at_all(world):
    """max='0' is no resumption, and so is an operator's 0s."""
    assert "id" not in world.bind().ask(f"<enable {SM} resume='true' max='0'/>").attributes
    world.start(resume_timeout=0.0)
    assert "id" not in world.bind().ask(f"<enable {SM} resume='true'/>").attributes


def test_enable_at_the_wrong_time(world):
    """Before binding and a second time it fails, and the stream goes on."""
    client = world.log_in()
    assert failure_of(client.ask(f"<enable {SM}/>")) == "unexpected-request"
    client.bind("phone")
    assert client.ask(f"<enable {SM}/>").name == "enabled"
    assert failure_of(client.ask(f"<enable {SM}/>")) == "unexpected-request"
    assert client.ask(f"<r {SM}/>")["h"] == "0"


# Acknowledgements (section 4)


def test_handled_stanzas_are_counted_from_enable_on(world):
    """Messages, presence and requests; what belongs to the stream does not count, an error does."""
    client = world.managed(present=False)
    client.send("<presence/><iq type='get' id='1' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
    client.send("<message to='@'/><iq type='get'/>")
    client.receive()
    client.send(f"<r {SM}/><r {SM}/>")
    assert [element["h"] for element in client.receive()] == ["4", "4"]


def test_a_message_is_acknowledged_when_it_is_on_disk(world):
    """The <a/> waits for the commit, and for that of what came before."""
    bob = world.managed("bob")
    world.messages.slow = True
    bob.send(f"{chat('one')}<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq><r {SM}/>")
    assert [element.name for element in bob.receive()] == ["iq"]
    world.messages.go_on()
    answer = bob.receive_one()
    assert (answer.name, answer["h"]) == ("a", "3")
    assert world.waiting() == ["one"]


def test_what_came_after_the_request_does_not_delay_the_answer(world):
    """It is counted if it is done."""
    bob = world.managed("bob")
    bob.send(chat("one"))
    world.messages.slow = True
    bob.send(f"<r {SM}/>{chat('two')}")
    assert bob.receive_one()["h"] == "2"
    bob.send(f"<r {SM}/>")
    assert bob.receive() == []
    world.messages.go_on()
    assert bob.receive_one()["h"] == "3"


def test_a_busy_client_is_answered_all_the_same(world):
    """One <a/> for all requests that can be answered; the others wait for theirs."""
    bob = world.managed("bob")
    world.messages.slow = True
    for number in range(4):
        bob.send(f"{chat(str(number))}<r {SM}/>")
    waiting = world.messages.waiting_for
    waiting[0].callback(None)
    assert bob.receive_one()["h"] == "2"
    waiting[2].callback(None)
    assert bob.receive() == []
    waiting[1].callback(None)
    assert bob.receive_one()["h"] == "4"
    waiting[3].callback(None)
    assert bob.receive_one()["h"] == "5"


def test_an_acknowledgement_that_is_quicker_than_the_disk(world):
    """Nothing stays behind."""
    client, bob = world.managed(), world.bind("bob")
    world.messages.slow = True
    bob.send(chat("one"))
    client.send(f"<a {SM} h='2'/>")
    world.messages.go_on()
    world.clock.advance(1)
    assert world.waiting() == []


def test_a_session_that_ends_quicker_than_the_disk(world):
    """Its message is kept, and pushed for."""
    client, bob = world.managed(enable=""), world.bind("bob")
    world.messages.slow = True
    bob.send(chat("one"))
    client.lose_connection()
    assert world.pushes.sent == []
    world.messages.go_on()
    assert world.pushes.sent == ["phone: one"]
    assert world.waiting() == ["one"]


def test_more_than_was_sent_cannot_be_acknowledged(world):
    """Section 4: undefined-condition with both numbers, and no resumption afterwards."""
    client = world.managed()
    client.send(f"<a {SM} h='7'/>")
    names, error = error_of(client)
    assert names == ["undefined-condition", "handled-count-too-high"]
    (detail,) = [child for child in error.elements() if child.uri == "urn:xmpp:sm:3"]
    assert (detail["h"], detail["send-count"]) == ("7", "1")
    assert failure_of(world.resume(client, 1)[1]) == "item-not-found"


@pytest.mark.parametrize("attributes", ["", "h=''", "h='-1'", "h='x'", "h='4294967296'"])
def test_an_acknowledgement_without_a_number(world, attributes):
    """It does not follow the schema."""
    client = world.managed()
    client.send(f"<a {SM} {attributes}/>")
    assert error_of(client)[0] == ["invalid-xml"]


def test_acknowledgements_are_asked_for(world):
    """A second after the first stanza, or after the tenth; not again before the answer."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    assert [element.name for element in client.receive()] == ["message"]
    world.clock.advance(REQUEST_AFTER)
    assert [element.name for element in client.receive()] == ["r"]
    for number in range(2 * REQUEST_AT):
        bob.send(chat(str(number)))
    assert "r" not in [element.name for element in client.receive()]
    client.send(f"<a {SM} h='2'/>")
    assert [element.name for element in client.receive()] == ["r"]
    client.send(f"<a {SM} h='{client.count + 1 + 2 * REQUEST_AT}'/>")
    world.clock.advance(REQUEST_AFTER)
    assert client.receive() == []


def test_a_stanza_waits_on_disk_for_its_acknowledgement(world):
    """And is gone a moment after it; nobody gets it a second time in between."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    assert bodies(client.receive()) == ["one"]
    assert world.waiting() == ["one"]
    client.send(f"<a {SM} h='2'/>")
    desk = world.bind(resource="desk")
    assert bodies(desk.receive()) == []
    world.clock.advance(1)
    assert world.waiting() == []


def test_what_is_not_worth_storing_is_not_stored(world):
    """Chat states, hints; and nothing at all for a client without stream management."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(
        f"<message to='{ALICE}' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )
    bob.send(f"<message to='{ALICE}'><body>Hi</body><no-store xmlns='urn:xmpp:hints'/></message>")
    bob.send(chat("late", kind="headline"))
    assert len(client.receive()) == 3
    assert world.waiting() == []
    bob.send(chat("reply", to=BOB))
    assert world.waiting(BOB) == []


def test_a_client_that_never_acknowledges_is_disconnected(world, monkeypatch):
    """What it was sent waits in its place for the next session; in order, with what came after."""
    monkeypatch.setattr(sm, "MAX_UNACKED", 4)
    client, bob = world.managed(), world.bind("bob")
    for number in range(7):
        bob.send(chat(str(number)))
    world.clock.advance(0)
    assert error_of(client)[0] == ["policy-violation"]
    assert bodies(world.bind().receive()) == []
    world.clock.advance(1)


def test_messages_it_did_not_acknowledge_are_fetched_by_the_next(world, monkeypatch):
    """Once each, in order."""
    monkeypatch.setattr(sm, "MAX_UNACKED", 4)
    _client, bob = world.managed(), world.bind("bob")
    for number in range(7):
        bob.send(chat(str(number)))
    world.clock.advance(0)
    assert world.waiting() == [str(number) for number in range(7)]
    again = world.bind(present=False)
    again.send("<presence/>")
    assert bodies(again.receive()) == [str(number) for number in range(7)]
    assert world.waiting() == []


# Resumption (section 5)


def test_a_resumed_stream_goes_on_where_it_was(world):
    """Counters, presence, and every unacknowledged stanza once and in order."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one") + chat("two"))
    assert bodies(client.receive()) == ["one", "two"]
    client.lose_connection()
    session = world.session()
    assert session.hibernated
    assert session.priority == 0
    bob.send(chat("three"))
    back = list(world.pushes.back)
    client, resumed = world.resume(client, client.count + 1)
    assert (resumed.name, resumed["h"], resumed["previd"]) == ("resumed", "1", session.sm.id)
    assert bodies(client.got) == ["two", "three"]
    assert world.pushes.back == [*back, "phone"]  # what it missed, it gets
    assert world.session() is session
    bob.send(chat("four", to=f"{ALICE}/phone"))
    assert bodies(client.receive()) == ["four"]
    client.send(f"{chat('answer', to=BOB)}<r {SM}/><a {SM} h='5'/>")
    assert client.receive()[-1]["h"] == "2"
    assert bodies(bob.receive()) == ["answer"]
    world.clock.advance(700)
    assert world.waiting() == []
    assert world.session() is session


def test_a_stream_is_resumed_more_than_once(world):
    """The id stays the same."""
    client, bob = world.managed(), world.bind("bob")
    for number in range(3):
        client.lose_connection()
        bob.send(chat(str(number)))
        resumption = world.resume(client, client.count + number)
        resumption[0].id, resumption[0].count = client.id, client.count
        client = resumption[0]
        assert bodies(client.got) == [str(number)]


def test_a_living_stream_is_taken_over(world):
    """Section 5: the old one ends with conflict, and nothing is lost with it."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    again, resumed = world.resume(client, client.count)
    assert resumed.name == "resumed"
    assert error_of(client)[0] == ["conflict"]
    assert bodies(again.got) == ["one"]
    client.lose_connection()
    assert not world.session().hibernated


def test_nothing_is_resumed_before_it_is_on_disk(world):
    """Else the client would send again what is on its way there, and its reader would get it twice."""
    client = world.managed(resource="desk")
    world.messages.slow = True
    client.send(chat("one", to=BOB))
    client.lose_connection()
    again = world.log_in()
    again.send(f"<resume {SM} previd='{client.id}' h='{client.count}'/>")
    assert again.receive() == []
    assert not again.transport.is_reading
    world.messages.go_on()
    assert again.receive_one()["h"] == "2"
    assert again.transport.is_reading


def test_a_resumption_that_is_given_up_leaves_the_session(world):
    """The next try finds it."""
    client = world.managed(resource="desk")
    world.messages.slow = True
    client.send(chat("one", to=BOB))
    client.lose_connection()
    again = world.log_in()
    again.send(f"<resume {SM} previd='{client.id}' h='{client.count}'/>")
    again.lose_connection()
    assert world.session(resource="desk").hibernated
    world.messages.go_on()
    assert world.resume(client, client.count)[1].name == "resumed"


def test_resume_with_a_count_too_high(world):
    """The error of section 4; the session waits on for who counts right."""
    client = world.managed()
    client.lose_connection()
    peer = world.log_in()
    peer.send(f"<resume {SM} previd='{client.id}' h='9'/>")
    assert error_of(peer)[0] == ["undefined-condition", "handled-count-too-high"]
    assert world.resume(client, client.count)[1].name == "resumed"


@pytest.mark.parametrize(
    ("attributes", "condition"),
    [
        ("h='1'", "item-not-found"),
        ("h='1' previd=''", "item-not-found"),
        ("h='1' previd='guess'", "item-not-found"),
        ("previd='{id}'", "bad-request"),
        ("previd='{id}' h='x'", "bad-request"),
    ],
)
def test_resume_without_what_it_needs(world, attributes, condition):
    """It fails, and the client may bind a resource instead."""
    client = world.managed()
    client.lose_connection()
    peer = world.log_in()
    assert failure_of(peer.ask(f"<resume {SM} {attributes.format(id=client.id)}/>")) == condition
    assert peer.bind("desk")["type"] == "result"


def test_a_session_is_only_its_owners(world):
    """Knowing the id is not enough, and nothing is told."""
    client = world.managed()
    client.lose_connection()
    failed = world.resume(client, 1, user="bob")[1]
    assert (failure_of(failed), failed.attributes) == ("item-not-found", {})


def test_resume_at_the_wrong_time(world):
    """Once a resource is bound there is nothing to resume."""
    client, other = world.managed(), world.bind(resource="desk")
    assert failure_of(other.ask(f"<resume {SM} previd='{client.id}' h='1'/>")) == "unexpected-request"


def test_who_comes_too_late_learns_what_was_handled(world):
    """Section 5: <failed/> with h, so that the client knows what to send again."""
    client = world.managed()
    client.send(chat("one", to=BOB))
    client.lose_connection()
    world.clock.advance(600)
    assert world.session() is None
    failed = world.resume(client, 1)[1]
    assert (failure_of(failed), failed["h"]) == ("item-not-found", "2")


# What becomes of a session that is not resumed


def test_after_the_timeout_messages_wait_for_the_next_session(world):
    """Unavailable presence, then the messages, in order and with those that came later."""
    client, bob = world.managed(), world.bind("bob")
    desk = world.bind(resource="desk", present=False)
    desk.send("<presence><priority>-1</priority></presence>")
    desk.receive()
    client.receive()
    bob.send(chat("one"))
    client.lose_connection()
    bob.send(chat("two"))
    world.clock.advance(599)
    assert desk.receive() == []
    world.clock.advance(1)
    assert desk.receive_one()["type"] == "unavailable"
    bob.send(chat("three"))
    assert world.waiting() == ["one", "two", "three"]
    again = world.bind(present=False)
    again.send("<presence/>")
    assert bodies(again.receive()) == ["one", "two", "three"]
    assert world.waiting() == []


def test_after_the_timeout_another_present_session_gets_them(world):
    """At once; but not what it got itself already."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    client.lose_connection()
    desk = world.bind(resource="desk", present=False)
    desk.send("<presence/>")
    assert bodies(desk.receive()) == []
    bob.send(chat("both"))
    assert bodies(desk.receive()) == ["both"]
    world.clock.advance(600)
    assert bodies(desk.receive()) == ["one"]
    assert world.waiting() == []


def test_a_clients_smaller_maximum_wins(world):
    """Its session is over that much earlier."""
    client = world.managed(enable="resume='true' max='30'")
    client.lose_connection()
    world.clock.advance(30)
    assert world.session() is None


@pytest.mark.parametrize("ending", ["</stream:stream>", "<message", "<stupid/>"])
def test_who_leaves_on_purpose_or_by_a_fault_is_not_waited_for(world, ending):
    """Section 5: only a stream that was cut off is resumed."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    client.send(ending if ending != "<message" else "<message><x></message>")
    client.lose_connection()
    assert world.session() is None
    assert world.waiting() == ["one"]


def test_without_resumption_a_broken_stream_ends_its_session(world):
    """What it did not acknowledge is not lost all the same."""
    client, bob = world.managed(enable=""), world.bind("bob")
    bob.send(chat("one"))
    client.lose_connection()
    assert world.session() is None
    assert world.waiting() == ["one"]


def test_the_same_resource_again_gets_what_the_old_session_had(world):
    """RFC 6120 section 7.7.2.2; in order, and before what comes next."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one") + chat("two"))
    client.lose_connection()
    again = world.bind(present=False)
    again.send(f"<enable {SM}/><presence/>")
    assert bodies(again.receive()) == ["one", "two"]
    bob.send(chat("three"))
    assert bodies(again.receive()) == ["three"]
    again.send(f"<a {SM} h='3'/>")
    world.clock.advance(1)
    assert world.waiting() == ["three"]
    world.clock.advance(700)
    assert world.pushes.sent == ["phone: three"]


def test_requests_to_a_session_that_ends_are_answered(world):
    """RFC 6121 section 8.5.3.2.3; a groupchat message comes back as well, results and presence do not."""
    client, bob = world.managed(), world.bind("bob")
    full = f"{ALICE}/phone"
    client.lose_connection()
    bob.send(f"<iq type='get' id='q1' to='{full}'><ping xmlns='urn:xmpp:ping'/></iq>")
    bob.send(f"<iq type='result' id='q2' to='{full}'/><presence to='{full}'/>")
    bob.send(chat("room", to=full, kind="groupchat"))
    assert bob.receive() == []
    world.clock.advance(600)
    answers = bob.receive()
    assert [(answer["type"], answer["id"]) for answer in answers] == [("error", "q1"), ("error", "room")]


def test_kill_dash_nine_loses_nothing(world):
    """What a session had, acknowledged or not, live or not, is told apart by the disk alone."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one") + chat("two"))
    client.send(f"<a {SM} h='2'/>")
    world.clock.advance(1)
    bob.send(chat("three"))
    world.restart()
    again = world.bind(present=False)
    again.send("<presence/>")
    assert bodies(again.receive()) == ["two", "three"]


def test_two_clients_are_sent_a_message_and_one_has_it(world):
    """Then it is nobody's any more; whoever resumes still gets its copy."""
    phone, desk, bob = world.managed(), world.managed(resource="desk"), world.bind("bob")
    phone.receive()
    phone.count += 1
    phone.send(f"<a {SM} h='{phone.count}'/>")
    bob.send(chat("one"))
    desk.send(f"<a {SM} h='{desk.count + 1}'/>")
    world.clock.advance(0.5)
    assert world.waiting() == []
    phone.lose_connection()
    assert bodies(world.resume(phone, phone.count)[0].got) == ["one"]


def test_one_of_two_clients_does_not_acknowledge(world):
    """A message that both lost is one message."""
    phone, desk, bob = world.managed(), world.managed(resource="desk"), world.bind("bob")
    bob.send(chat("one"))
    phone.lose_connection()
    world.clock.advance(300)
    desk.lose_connection()
    world.clock.advance(600)
    assert world.waiting() == ["one"]


def test_many_offline_messages_wait_for_acknowledgements(world):
    """A client is not sent more than is kept for it; it gets all, once and in order."""
    bob = world.bind("bob")
    texts = [f"{number} {'x' * 50_000}" for number in range(30)]
    for text in texts:
        bob.send(chat(text))
    phone = world.managed(present=False)
    phone.send("<presence/>")
    got, count = [], 0
    bob.send(chat("last"))
    for _ in range(20):
        elements = phone.receive()
        got += bodies(elements)
        count += sum(element.uri is None for element in elements)
        phone.send(f"<a {SM} h='{count}'/>")
    assert got == [*texts, "last"]
    world.clock.advance(1)
    assert world.waiting() == []


# Pushes


def test_a_hibernated_phone_gets_a_push_for_each_message_once(world):
    """At its arrival, and not again when the session ends."""
    client, bob = world.managed(), world.bind("bob")
    client.lose_connection()
    bob.send(chat("one") + chat("two"))
    assert world.pushes.sent == ["phone: one", "phone: two"]
    world.clock.advance(5000)
    assert world.pushes.sent == ["phone: one", "phone: two"]
    assert world.waiting() == ["one", "two"]


def test_unacknowledged_messages_are_pushed_when_the_stream_breaks(world):
    """At once with the plugin ``enhanced``; once, whatever happens later."""
    world.pushes.push_on_broken_stream = True
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    assert world.pushes.sent == []
    client.lose_connection()
    assert world.pushes.sent == ["phone: one"]
    world.clock.advance(5000)
    world.restart()
    world.clock.advance(5000)
    assert world.pushes.sent == ["phone: one"]


def test_without_enhanced_the_client_has_the_time_to_come_back(world):
    """A push when its acknowledgement is overdue, and none when it resumes before that."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    client.lose_connection()
    world.clock.advance(30)
    client_2, _ = world.resume(client, client.count)
    client_2.send(f"<a {SM} h='{client.count + 1}'/>")
    world.clock.advance(100)
    assert world.pushes.sent == []
    bob.send(chat("two"))
    client_2.lose_connection()
    world.clock.advance(59)
    assert world.pushes.sent == []
    world.clock.advance(1)
    assert world.pushes.sent == ["phone: two"]
    world.clock.advance(5000)
    assert world.pushes.sent == ["phone: two"]


def test_a_client_that_owes_an_acknowledgement_counts_as_absent(world):
    """For what it owes, once, and for what comes then; until it answers."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    world.clock.advance(REQUEST_AFTER)
    world.clock.advance(59)
    assert world.session().answering
    world.clock.advance(1)
    assert not world.session().answering
    assert world.pushes.sent == ["phone: one"]
    bob.send(chat("two"))
    assert world.pushes.sent == ["phone: one", "phone: two"]
    client.send(f"<a {SM} h='3'/>")
    assert world.session().answering
    bob.send(chat("three"))
    assert world.pushes.sent == ["phone: one", "phone: two"]
    client.lose_connection()
    world.clock.advance(5000)
    assert world.pushes.sent == ["phone: one", "phone: two", "phone: three"]


def test_who_reconnects_under_its_resource_gets_no_push(world):
    """It has its messages a moment later."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    client.lose_connection()
    world.bind()
    world.clock.advance(1000)
    assert world.pushes.sent == []


def test_who_reconnects_and_goes_away_again_gets_one(world):
    """A new stream that never asked for messages is no reader."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    client.lose_connection()
    world.bind(present=False).lose_connection()
    assert world.pushes.sent == []
    world.clock.advance(60)
    assert world.pushes.sent == ["phone: one"]
    world.clock.advance(1000)
    world.restart()
    world.clock.advance(1000)
    assert world.pushes.sent == ["phone: one"]


def test_after_kill_dash_nine_pushes_are_made_up_for(world):
    """For what no client acknowledged and none fetched within ack_timeout; once."""
    _client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    world.restart()
    world.clock.advance(59)
    assert world.pushes.sent == []
    world.clock.advance(1)
    assert world.pushes.sent == ["phone: one"]
    world.restart()
    world.clock.advance(1000)
    assert world.pushes.sent == ["phone: one"]
    assert world.waiting() == ["one"]


def test_after_kill_dash_nine_who_is_back_needs_no_push(world):
    """Its messages are with it."""
    _client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    world.restart()
    again = world.managed()
    again.send(f"<a {SM} h='2'/>")
    world.clock.advance(1000)
    assert world.pushes.sent == []


@pytest.mark.parametrize("first", ["phone", "desk"])
def test_two_devices_in_either_order(first):
    """Exactly one push per device and message, hibernated or not (MongooseIM doubles here)."""
    world = World(("phone", "desk"))
    world.pushes.push_on_broken_stream = True
    clients, bob = {name: world.managed(resource=name) for name in ("phone", "desk")}, world.bind("bob")
    second = "desk" if first == "phone" else "phone"
    bob.send(chat("one"))
    clients[first].lose_connection()
    assert world.pushes.sent == [f"{first}: one"]
    bob.send(chat("two"))
    assert world.pushes.sent == [f"{first}: one", f"{first}: two"]
    clients[second].lose_connection()
    bob.send(chat("three"))
    world.clock.advance(5000)
    expected = [f"{device}: {text}" for device in ("phone", "desk") for text in ("one", "two", "three")]
    assert sorted(world.pushes.sent) == sorted(expected)
    world.restart()
    world.clock.advance(5000)
    assert len(world.pushes.sent) == 6
    assert world.waiting() == ["one", "two", "three"]


def test_a_restart_pushes_nothing_to_clients_that_are_back_soon(world):
    """The service is stopped before the listeners."""
    world.pushes.push_on_broken_stream = True
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    world.host.stopService()
    world.factory.close_all()
    client.lose_connection()
    assert world.pushes.sent == []
    assert world.waiting() == ["one"]


# Client state (XEP-0352)


def test_client_state(world):
    """Said without stream management too; a resumed stream begins as active."""
    client = world.managed()
    client.send("<inactive xmlns='urn:xmpp:csi:0'/>")
    assert not world.session().active
    client.lose_connection()
    client, _ = world.resume(client, 1)
    assert world.session().active
    client.send("<inactive xmlns='urn:xmpp:csi:0'/><active xmlns='urn:xmpp:csi:0'/>")
    assert world.session().active


def test_who_resumes_gets_its_copies_too(world):
    """XEP-0280: carbons stay enabled, and what was copied meanwhile is not lost."""
    phone, desk, bob = world.managed(), world.bind(resource="desk"), world.bind("bob")
    phone.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
    got = phone.count + sum(element.uri is None for element in phone.receive())
    phone.lose_connection()
    desk.send(chat("from my desk", to=BOB))
    assert bodies(bob.receive()) == ["from my desk"]
    copies = world.resume(phone, got)[0].got
    assert "from my desk" in copies[0].sent.toXml()
    assert world.session().carbons


# Disks that fail


class Broken:
    """A message store on a full disk; what it is asked for fails while it is."""

    def __init__(self, messages):
        self._messages = messages
        self.full = True

    def __getattr__(self, name):
        def call(*args):
            if self.full:
                return fail(StorageError("database or disk is full"))
            return getattr(self._messages, name)(*args)

        return call


def on_a_full_disk(world):
    broken = Broken(world.storage.messages)
    world.host._messages = world.host._handed._messages = world.host._offline._messages = broken
    world.host._unstored._messages = broken
    return broken


def test_on_a_full_disk_a_live_client_still_gets_its_messages(world):
    """Its sender is told of no error, as it would only send it again, and of no success before it is one."""
    client, bob = world.managed(), world.managed("bob")
    on_a_full_disk(world)
    bob.send(f"{chat('one')}<r {SM}/>")
    assert bodies(client.receive()) == ["one"]
    assert bob.receive() == []
    client.send(f"<a {SM} h='2'/>")
    assert [element.name for element in bob.receive()] == ["a"]


@pytest.mark.parametrize("how", ["breaks", "ends", "is silent"])
def test_on_a_full_disk_a_message_that_nobody_took_is_an_error(world, how):
    """The client was there when it was sent; now it is in memory alone, and its sender may send it again."""
    client, bob = world.managed(enable="" if how == "ends" else "resume='true'"), world.managed("bob")
    on_a_full_disk(world)
    bob.send(f"{chat('one')}<r {SM}/>")
    assert bob.receive() == []
    if how == "is silent":
        world.clock.pump([1.0] * 62)
    else:
        client.lose_connection()
    error, answer = [element for element in bob.receive() if element.name in ("message", "a")]
    assert (error["type"], error["id"], answer["h"]) == ("error", "one", "2")
    assert [child.name for child in error.error.elements()] == ["internal-server-error"]


def test_an_acknowledgement_that_is_quicker_than_a_broken_disk(world):
    """The client has the message: its sender need not know."""
    client, bob = world.managed(), world.managed("bob")
    world.messages.slow = True
    bob.send(f"{chat('one')}<r {SM}/>")
    client.send(f"<a {SM} h='2'/>")
    (waiting,) = world.messages.waiting_for
    waiting.errback(StorageError("database is locked"))
    assert [element.name for element in bob.receive()] == ["a"]


def test_on_a_full_disk_pushes_wait_for_it(world):
    """Of a message that another client got: stored when the disk is well again, and sent then, once."""
    client, bob = world.managed(resource="desk"), world.managed("bob")
    broken = on_a_full_disk(world)
    bob.send(f"{chat('one')}{chat('two')}<r {SM}/>")
    client.send(f"<a {SM} h='3'/>")
    assert [element.name for element in bob.receive()] == ["a"]
    world.clock.pump([1.0] * 12)
    assert world.pushes.sent == []
    broken.full = False
    world.clock.pump([1.0] * 12)
    assert world.pushes.sent == ["phone: one", "phone: two"]


def test_on_a_full_disk_the_sender_to_a_broken_stream_is_told(world):
    """Nobody has it."""
    client, bob = world.managed(), world.managed("bob")
    client.lose_connection()
    on_a_full_disk(world)
    bob.send(f"{chat('one')}<r {SM}/>")
    error, answer = bob.receive()
    assert (error["type"], error["id"], answer.name) == ("error", "one", "a")


def test_what_cannot_be_deleted_does_not_come_twice(world):
    """It is deleted when the disk is well again."""
    client, bob = world.managed(), world.bind("bob")
    bob.send(chat("one"))
    broken = on_a_full_disk(world)
    client.send(f"<a {SM} h='2'/>")
    world.clock.advance(1)
    broken.full = False
    assert world.waiting() == ["one"]
    desk = world.bind(resource="desk", present=False)
    desk.send("<presence/>")
    assert bodies(desk.receive()) == []
    assert world.waiting() == []
