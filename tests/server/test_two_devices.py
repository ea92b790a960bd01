"""
Two devices of one account, in hibernation and out of it, in each order: one push for a device and message.

Sessions, server, push rules and stores are the real ones, connections swallow what they get. What happens
is written as words: ``m`` a message to the account, and of a device (``p`` phone, ``d`` desk) ``-`` its
stream breaks, ``+`` it resumes, ``a`` it acknowledges what it got, ``!`` its session ends by itself, ``*``
it binds its resource anew. ``w`` is waiting until acknowledgements are overdue, ``t`` until broken streams
can be resumed no longer.
"""

from itertools import combinations, count

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from xmpppush.mod_push.plugins import chain_of
from xmpppush.mod_push.publisher import Publisher
from xmpppush.server.handlers import DomainHandlers, add_server_handlers
from xmpppush.server.host import XMPPServer
from xmpppush.server.resources import Resources
from xmpppush.server.router import Router
from xmpppush.server.session import REQUEST_AFTER, Session
from xmpppush.server.sm import StreamManagement
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_delivery, a_registration
from xmpppush.testing.sessions import RecordingSession, stanza_of

ACK_TIMEOUT, RESUME_TIMEOUT = 60.0, 600.0
DEVICES = {"p": "phone", "d": "desk"}
NUMBERS = count()


class Connection:
    """Takes what is sent and drops it."""

    def send_xml(self, xml):
        """Nobody reads it."""

    def flushed(self):
        done = Deferred()
        done.callback(True)
        return done

    def close(self, condition, text=""):
        """Its end is another letter."""


class PubSub:
    """An app server that takes all."""

    hosts = frozenset({"pubsub.localhost"})

    def accept(self, publish):
        done = Deferred()
        summary = publish.notification.summary
        body = f"{publish.node} {summary.last_message_body} {summary.message_count}"
        done.callback(a_delivery(account=publish.account, node=publish.node, body=body.encode()))
        return done


class PushService:
    """
    Attributes:
        sent: Node, message and message-count of each push.
    """

    def __init__(self):
        self.sent = []

    def enqueue(self, delivery, first=None):
        assert delivery.id
        node, text, missed = delivery.body.decode().split()
        self.sent.append((node, text, int(missed)))


class World:
    """A server; each `play` is about an account of its own."""

    def __init__(self, plugin="defaults", notify="device-offline"):
        self.clock = Clock()
        self.clock.advance(1_795_000_000)
        self.storage, self.service = memory_storage(), PushService()
        router, self.resources = Router(), Resources()
        handlers = DomainHandlers(router)
        add_server_handlers(handlers, self.storage.rosters, self.resources, lambda domain: [], self.clock)
        handlers.startService()
        registrations, messages = self.storage.registrations, self.storage.messages
        publisher = Publisher(
            registrations, messages, chain_of([plugin]), PubSub(), self.service, self.clock, notify
        )
        self.host = XMPPServer(
            ["localhost"],
            router,
            self.resources,
            handlers,
            self.storage.accounts,
            messages,
            publisher,
            self.clock,
            1000,
            ACK_TIMEOUT,
        )
        self.host.startService()
        self.bob = RecordingSession(self.host, "bob@localhost", "desk")

    def begin(self):
        """A new account with both devices enabled, connected and up to date."""
        self.account = f"alice{next(NUMBERS)}@localhost"
        self.service.sent.clear()
        self.messages = 0
        self.sessions, self.has = {}, set()
        for device in DEVICES.values():
            registration = a_registration(account=self.account, node=device, resource=device)
            self.storage.registrations.put(registration, 20)
            self.bind(device)
        for session in self.sessions.values():
            self.acknowledge(session)

    def bind(self, device):
        session = Session(Connection(), self.account, self.host, self.clock, ACK_TIMEOUT)
        session.bound(self.host.bind(session, self.account, device))
        session.manage(StreamManagement(f"{self.account}/{next(NUMBERS)}", RESUME_TIMEOUT))
        self.host.stanza(session, stanza_of(f"<presence from='{session.full}'/>"))
        self.sessions[device] = session
        self.acknowledge(session)

    def message(self):
        """Bob writes to the account."""
        self.messages += 1
        self.bob.says(f"<message type='chat' to='{self.account}'><body>{self.messages}</body></message>")

    def acknowledge(self, session):
        """The client has all that it was sent."""
        got = (str(stanza_of(sent.xml).body) for sent in session.sm.unacked if "<body>" in sent.xml)
        self.has.update((session.resource, text) for text in got)
        session.acknowledge(session.sm._acked + len(session.sm.unacked))

    def play(self, events):
        """Let this happen, and time go on until nothing more will; returns the pushes."""
        self.begin()
        for event in events:
            if event == "m":
                self.message()
            elif event == "w":
                self.clock.advance(REQUEST_AFTER)
                self.clock.advance(ACK_TIMEOUT)
            elif event == "t":
                self.clock.advance(RESUME_TIMEOUT)
            else:
                self.happens(self.sessions[DEVICES[event[0]]], event[1])
        for _ in range(4):
            self.clock.advance(RESUME_TIMEOUT)
        return sorted(self.service.sent)

    def happens(self, session, what):
        if what == "*":
            self.bind(session.resource)
        elif session.ended:
            return
        elif what == "a" and not session.hibernated:
            self.acknowledge(session)
        elif what == "-" and not session.hibernated:
            self.host.broken(session)
        elif what == "+" and session.hibernated:
            session.attach(Connection())
            self.host.resumed(session)
        elif what == "!":
            self.host.unbind(session)


def told(pushes):
    """The pushes without their counts."""
    return [push[:2] for push in pushes]


@pytest.fixture(scope="module", params=["defaults", "enhanced"])
def world(request):
    return World(request.param)


def merged(first, second):
    """Both, each in its own order, in all ways to put them together."""
    for places in combinations(range(len(first) + len(second)), len(first)):
        one, two = iter(first), iter(second)
        yield [next(one) if at in places else next(two) for at in range(len(first) + len(second))]


def orders(messages):
    """What may happen to each device around so many messages, in every order."""
    phone = (["p-"], ["p-", "p+"], ["p-", "p+", "pa"], ["pa", "p-"], ["p-", "p*"], ["p!"])
    desk = (["d-"], ["d-", "d+"], ["da", "d-"], ["da"], [])
    for one in phone:
        for other in desk:
            for both in merged(one, other):
                for events in merged(["m"] * messages, both):
                    yield tuple(events)


@pytest.mark.parametrize("messages", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_never_two_pushes_for_a_device_and_message(world, messages):
    """Whatever comes after what; and one for each message that a device never got."""
    for events in sorted(set(orders(messages))):
        pushes = told(world.play(events))
        assert len(pushes) == len(set(pushes)), (events, pushes)
        if "p*" in events:
            continue  # a client that is there gets no push, though another one has what it missed
        missed = {(device, text) for device in DEVICES.values() for text in "12"[:messages]} - world.has
        assert missed <= set(pushes), (events, pushes)


# Both devices, the messages that each has a push for, and the same again with the plugin `enhanced`.
@pytest.mark.parametrize(
    ("events", "phone", "desk"),
    [
        # Both in hibernation when the message comes.
        ("p- d- m", "1", "1"),
        ("d- p- m", "1", "1"),
        ("p- d- m p+ pa", "1", "1"),
        ("p- d- m w t", "1", "1"),
        ("p- d- m t", "1", "1"),
        # One of them.
        ("p- m da", "1", ""),
        ("d- m pa", "", "1"),
        ("p- m da t", "1", ""),
        ("p- m d-", "1", "1"),
        ("p- m d- t", "1", "1"),
        ("p- m p+ d-", "1", "1"),
        # Back before it.
        ("p- p+ m pa da", "", ""),
        ("p- d- p+ m pa", "", "1"),
        ("p- d- d+ m da", "1", ""),
        # None, and then the stream breaks with it unacknowledged.
        ("m p-", "1", "1"),
        ("m da p-", "1", ""),
        ("m pa d-", "", "1"),
        ("m p- d-", "1", "1"),
        ("m d- p-", "1", "1"),
        ("m d- p- t", "1", "1"),
        ("m d- w p- w t", "1", "1"),
        ("m p! d-", "1", "1"),
        ("m d! p!", "1", "1"),
        # It has the message, so it needs no push when the other one goes.
        ("m pa p- d-", "", "1"),
        ("m pa p! d!", "", "1"),
        ("m da d- p- w", "1", ""),
        ("m da d! p-", "1", ""),
        ("m pa p- w d!", "", "1"),
        # Alive and silent.
        ("m w", "1", "1"),
        ("m w p- d-", "1", "1"),
        ("m w pa p- d! t", "1", "1"),
        ("m pa w d-", "", "1"),
        # Several messages.
        ("m p- m d- m", "123", "123"),
        ("m d- m p- m", "123", "123"),
        ("m p- m p+ pa m pa d-", "12", "123"),
        # The session ends, another one gets what it left.
        ("p! m da", "1", ""),
        ("p! d! m", "1", "1"),
        ("p! m d-", "1", "1"),
        ("p! m p* pa d-", "1", "1"),
    ],
)
def test_one_push_for_each_device_that_does_not_get_it(world, events, phone, desk):
    """By table; with `enhanced` there are the same pushes, only some of them earlier."""
    expected = [("desk", each) for each in desk] + [("phone", each) for each in phone]
    if world.host._push.push_on_broken_stream and events == "m p- m p+ pa m pa d-":
        assert expected[-2:] == [("phone", "1"), ("phone", "2")]
    elif events == "m p- m p+ pa m pa d-":
        expected.remove(("phone", "1"))  # it was back in time
    assert told(world.play(events.split())) == expected


@pytest.mark.parametrize(
    ("events", "missed"),
    [
        ("p- m w t", {("phone", "1"): 1, ("desk", "1"): 1}),
        ("p- d- m m t m", {("phone", "1"): 1, ("phone", "2"): 2, ("phone", "3"): 3}),
        ("p- m d- w m", {("phone", "1"): 1, ("phone", "2"): 2, ("desk", "1"): 1, ("desk", "2"): 2}),
        ("m p- w m w t m", {("phone", "1"): 1, ("phone", "2"): 2, ("phone", "3"): 3}),
    ],
)
def test_a_late_decision_counts_no_message_twice(world, events, missed):
    """message-count is what the device missed, however often its sessions gave reason to think about it."""
    counts = {push[:2]: push[2] for push in world.play(events.split())}
    assert counts.items() >= missed.items()


@pytest.mark.parametrize(
    ("events", "pushes"),
    [("m da d! p-", []), ("m p- d-", ["desk", "phone"]), ("p- m d! t", ["desk", "phone"])],
)
def test_account_offline(events, pushes):
    """MongooseIM's rule: a push for all while nobody reads; and none for what somebody has read."""
    world = World("enhanced", "account-offline")
    assert [node for node, _, _ in world.play(events.split())] == pushes


@pytest.mark.parametrize("plugin", ["defaults", "enhanced"])
@pytest.mark.parametrize("events", ["p- d- m t", "m pa p- d-", "m w pa p- d! t", "m p- m d- m", "m p- p* m"])
def test_all_of_it_is_forgotten(plugin, events):
    """Nothing is remembered of messages that are through."""
    world = World(plugin)
    world.play(events.split())
    for session in world.sessions.values():
        world.host.unbind(session)
    world.bind("tablet")
    world.clock.advance(1)
    assert world.storage.messages.waiting(world.account).result == ()
    assert not world.host._handed._by_id


def test_a_session_that_comes_back_while_it_is_decided():
    """It was there, so it had no push; should its stream break again it needs one."""
    world = World("enhanced")
    world.begin()
    phone, registrations = world.sessions["phone"], world.storage.registrations
    world.host.broken(world.sessions["desk"])
    world.host.broken(phone)
    found = registrations.of(world.account).result
    reading = Deferred()
    registrations.known, registrations.of = lambda account: None, lambda account: reading
    world.message()
    phone.attach(Connection())
    world.host.resumed(phone)
    del registrations.known, registrations.of
    reading.callback(found)
    assert told(world.service.sent) == [("desk", "1")]
    world.host.broken(phone)
    assert told(world.service.sent) == [("desk", "1"), ("phone", "1")]


def test_a_message_that_was_held_for_a_third_client():
    """It goes before it gets it; both devices had their push, and one of them gets the message and breaks."""
    world = World("enhanced")
    world.begin()
    for session in world.sessions.values():
        world.host.unbind(session)
    world.message()
    tablet = RecordingSession(world.host, world.account, "tablet")
    flushed = Deferred()
    tablet.flushed = lambda: flushed
    tablet.says("<presence/>")
    world.message()
    assert [body for body in tablet.sent if "<body>2" in body] == []
    world.bind("desk")
    world.host.unbind(tablet)
    flushed.callback(False)
    desk = world.sessions["desk"]
    assert any("<body>2</body>" in sent.xml for sent in desk.sm.unacked)
    world.host.broken(desk)
    world.clock.advance(5000)
    assert sorted(told(world.service.sent)) == [(node, text) for node in ("desk", "phone") for text in "12"]
