"""Collecting notes, and that every part notes what it decides."""

import random

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from xmpppush import trace as trace_module
from xmpppush.config.sections import BridgeSection
from xmpppush.errors import Forbidden, NodeNotFound, OfflineFull, StorageError, TryLater
from xmpppush.http_connections import Response
from xmpppush.interfaces import ITrace
from xmpppush.mod_push.handler import PushHandler
from xmpppush.mod_push.plugins import Chain, defaults
from xmpppush.mod_push.publisher import Publisher
from xmpppush.mod_push_service_mongoosepush.service import MongoosePushBridge
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_delivery, a_registration
from xmpppush.testing.sessions import stanza_of
from xmpppush.trace import DELAY, MANY, NO_TRACE, PRUNE_EVERY, STAGES, Decision, Trace, told

ALICE = "alice@localhost"
NOW = 1_800_000_000.0
MESSAGE = "<message id='m1' type='chat' from='bob@localhost/x' to='alice@localhost'><body>Hi</body></message>"


def now(deferred):
    """The result of a Deferred that has fired."""
    results = []
    deferred.addBoth(results.append)
    return results[0]


class Store:
    """Keeps what it is given, or fails."""

    def __init__(self):
        self.added = []
        self.pruned = []
        self.error = None

    def add(self, notes, limits):
        if self.error is not None:
            return fail(self.error)
        self.added.append((list(notes), limits))
        return succeed(None)

    def prune(self, limits):
        self.pruned.append(limits)
        return succeed(None)


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(NOW)
    return clock


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def trace(store, clock):
    return Trace(store, clock, 60.0, 1000)


# Collecting.


def test_the_contract_holds(trace):
    """The null object, too."""
    assert verifyObject(ITrace, trace)
    assert verifyObject(ITrace, NO_TRACE)


def test_ids_differ_and_sort_by_time(trace, clock, store):
    """Also those of the next process."""
    clock.advance(1)
    ids = [trace.begin(), trace.begin(), Trace(store, clock, 60.0, 1000).begin()]
    assert sorted(set(ids)) == ids


def test_notes_wait_for_company(trace, clock, store):
    """Those of a tenth of a second are one write."""
    trace.note("t1", ALICE, "n1", Decision.ACCEPTED, "no-session", sender="bob@localhost")
    clock.advance(DELAY / 2)
    trace.note("t1", ALICE, "n1", Decision.DELIVERED, "HTTP 200")
    assert store.added == []
    clock.advance(DELAY / 2)
    ((notes, limits),) = store.added
    assert notes == [
        ("t1", NOW, ALICE, "n1", "accepted", "no-session", {"sender": "bob@localhost"}),
        ("t1", NOW + DELAY / 2, ALICE, "n1", "delivered", "HTTP 200", {}),
    ]
    assert (limits.oldest, limits.max_notes) == (NOW + DELAY - 60.0, 1000)
    assert clock.getDelayedCalls() == []


def test_long_names_are_cut(trace, store):
    """A node may have a kilobyte of name, and in fpush's way of registering it is a device token."""
    trace.note("t1", ALICE, "n" * 1000, Decision.ONLINE)
    trace.note("t1", ALICE, "0123456789abcdef" * 4, Decision.ONLINE)
    trace.flush()
    assert [note[3] for note in store.added[0][0]] == ["nnnnnn...nnnn", "012345...cdef"]


def test_many_notes_do_not_wait(trace, clock, store):
    """What is in memory is bounded."""
    for _ in range(MANY):
        trace.note("t1", ALICE, "n1", Decision.ONLINE)
    assert len(store.added) == 1
    assert clock.getDelayedCalls() == []


def test_notes_that_cannot_be_stored_are_dropped(trace, clock, store):
    """Nobody waits for them, and the storage says itself what is wrong with it."""
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        store.error = StorageError("disk full")
        trace.note("t1", ALICE, "n1", Decision.ONLINE)
        clock.advance(DELAY)
        assert trace.dropped == 1
        assert events == []
        store.error = None
        trace.note("t2", ALICE, "n1", Decision.ONLINE)
        assert now(trace.flush()) is None
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [note[0] for notes, _ in store.added for note in notes] == ["t2"]


def test_it_prunes_at_start_and_every_hour(trace, clock, store):
    """Also where nothing happens; and a stop leaves nothing behind."""
    trace.startService()
    clock.advance(PRUNE_EVERY)
    assert [limits.oldest for limits in store.pruned] == [NOW - 60, NOW + PRUNE_EVERY - 60]
    trace.note("t1", ALICE, "n1", Decision.ONLINE)
    trace.stopService()
    assert len(store.added) == 1
    assert clock.getDelayedCalls() == []


def test_every_decision_has_a_stage():
    """The vocabulary is complete."""
    assert set(STAGES) == set(Decision)


def test_reasons_are_one_short_line():
    """Whatever an error says."""
    assert told(TryLater("a\nb  c")) == "a b c"
    assert told(Forbidden()) == "Forbidden"
    assert len(told(Forbidden("x" * 1000))) == trace_module.MAX_REASON


# What mod_push notes.


class PubSub:
    hosts = frozenset({"pubsub.localhost"})
    error = None

    def accept(self, publish):
        if self.error is not None:
            return fail(self.error)
        return succeed(a_delivery(account=publish.account, node=publish.node, trace=publish.trace))


class World:
    """A publisher and its trace."""

    def __init__(self, plugin=defaults, **settings):
        self.storage = memory_storage()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.trace = Trace(self.storage.traces, self.clock, 60.0, 1000)
        self.pubsub = PubSub()
        self.publisher = Publisher(
            self.storage.registrations,
            self.storage.messages,
            plugin,
            self.pubsub,
            None,
            self.clock,
            trace=self.trace,
            **settings,
        )

    def enable(self, *nodes):
        for node in nodes:
            self.storage.registrations.put(a_registration(node=node, resource=f"phone-{node}"), 20)

    def message(self, xml=MESSAGE, sessions=(), pushed=()):
        coroutine = self.publisher.deliveries_for(ALICE, stanza_of(xml), dict(sessions), pushed)
        return Deferred.fromCoroutine(coroutine).result

    def notes(self):
        self.trace.flush()
        return [(note.node, note.decision, note.reason) for note in now(self.storage.traces.of(ALICE, 100))]


class Session:
    hibernated, answering = False, True

    def __init__(self, resource, priority=0):
        self.resource, self.priority = resource, priority


def test_a_push_is_noted_with_its_message():
    """Under the id that the delivery carries on; the text of the message is nowhere."""
    world = World()
    world.enable("n1")
    (delivery,) = world.message()
    world.trace.flush()
    (note,) = now(world.storage.traces.story(delivery.trace))
    assert (note.account, note.node, note.decision, note.reason) == (ALICE, "n1", "accepted", "no-session")
    assert note.fields == {"sender": "bob@localhost", "message": "m1"}


def test_accounts_without_registration_make_no_notes():
    """Most messages of most servers are none of ours."""
    world = World()
    world.message()
    assert world.notes() == []


def test_who_gets_the_message_itself_is_noted():
    """Each device for itself."""
    world = World()
    world.enable("n1", "n2")
    world.message(sessions={"phone-n1": Session("phone-n1")})
    assert sorted(world.notes()) == [("n1", "online", "device-online"), ("n2", "accepted", "device-absent")]


def test_the_account_being_online_is_noted():
    """[mod_push] notify = account-offline."""
    world = World(notify="account-offline")
    world.enable("n1")
    world.message(sessions={"desk": Session("desk")})
    assert world.notes() == [("n1", "online", "account-online")]


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<message from='b@l' to='a@l'><active xmlns='jabber:x:chat'/></message>", "no-content"),
        ("<message type='headline' from='b@l' to='a@l'><body>x</body></message>", "headline"),
        ("<message type='error' from='b@l' to='a@l'><body>x</body></message>", "error"),
        (
            "<message from='b@l' to='a@l'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>",
            "no-store",
        ),
    ],
)
def test_what_is_no_push_says_why(xml, reason):
    """One note for the message, whatever the number of devices."""
    world = World()
    world.enable("n1", "n2")
    assert world.message(xml) == ()
    assert world.notes() == [("", "filtered", reason)]


class Against:
    name = "against"

    def __init__(self, **answers):
        self.__dict__.update({name: lambda *args, answer=answer: answer for name, answer in answers.items()})


@pytest.mark.parametrize(
    ("plugin", "notes"),
    [
        (Against(should_publish=False), [("", "filtered", "plugin against")]),
        (Against(prepare_notification=None), [("", "filtered", "plugin")]),
        (Against(publish_notification=()), [("n1", "filtered", "plugin")]),
    ],
)
def test_a_plugin_against_it_is_noted(plugin, notes):
    """In each of its three ways."""
    world = World(plugin=Chain([defaults, plugin]))
    world.enable("n1")
    assert world.message() == ()
    assert world.notes() == notes


def test_errors_of_the_app_server_are_noted():
    """And what they cost the registration, in the same story."""
    world = World(max_errors=2)
    world.enable("n1")
    world.pubsub.error = Forbidden("not you")
    world.message()
    world.message()
    refused = ("n1", "not published", "not you")
    assert world.notes() == [refused, refused, ("n1", "disabled", "errors")]
    world.enable("n2")
    world.pubsub.error = NodeNotFound("no such node")
    world.message()
    assert world.notes()[3:] == [
        ("n1", "suspended", "not you"),
        ("n2", "not published", "no such node"),
        ("n2", "removed", "node-gone"),
    ]


def test_an_app_server_out_of_reach_is_noted():
    """It would be the answer to why nothing comes."""
    world = World()
    world.storage.registrations.put(a_registration(pubsub="elsewhere.example"), 20)
    world.message()
    assert world.notes() == [("node-1", "not published", "no way to elsewhere.example")]


def test_what_could_not_be_stored_is_noted():
    """The sender got an error, so there is nothing to push."""
    world = World()
    world.enable("n1")
    world.publisher.dropped(world.message(), OfflineFull("1000 messages wait already"))
    assert world.notes() == [("n1", "accepted", "no-session"), ("n1", "not stored", "offline-full")]


def test_who_was_told_before_is_noted():
    """A message that is decided on again, for another device."""
    world = World()
    world.enable("n1")
    world.enable("n2")
    world.message(pushed={("pubsub.localhost", "n1")})
    assert world.notes() == [("n1", "filtered", "told-before"), ("n2", "accepted", "no-session")]


def test_a_message_that_every_device_was_told_of_is_no_story():
    """There was one before."""
    world = World()
    world.enable("n1")
    assert world.message(pushed={("pubsub.localhost", "n1")}) == ()
    assert world.notes() == []


def test_a_disable_is_noted():
    """One that disabled something."""
    world = World()
    world.enable("n1")
    handler = PushHandler(world.storage.registrations, world.publisher, world.clock, 20, world.trace)
    iq = stanza_of(
        "<iq type='set' id='1' from='alice@localhost/phone' to='alice@localhost'>"
        "<disable xmlns='urn:xmpp:push:0' jid='pubsub.localhost'/></iq>"
    )
    handler.on_disable(iq)
    handler.on_disable(iq)
    assert world.notes() == [("", "removed", "client")]


# What the bridge notes.


class Pool:
    """Answers with the codes it was given."""

    def __init__(self, answers):
        self.answers = answers

    def post(self, path, body):
        answer = self.answers.pop(0)
        return succeed(Response(answer, b"null", None)) if isinstance(answer, int) else fail(answer)


@pytest.mark.parametrize(
    ("answers", "notes"),
    [
        ([200], [("delivered", "HTTP 200", 1)]),
        ([503, 200], [("postponed", "503", 1), ("delivered", "HTTP 200", 2)]),
        (
            [TryLater("connection refused"), 500, 429],
            [("postponed", "connection refused", 1), ("postponed", "500", 2), ("given up", "429", 3)],
        ),
        ([400], [("refused", "400", 1)]),
        ([410], [("unregistered", "410", 1), ("removed", "device-gone", None)]),
    ],
)
def test_tries_and_outcomes_are_noted(answers, notes):
    """With the status or the reason, and which try it was."""
    world = World()
    section = BridgeSection("push", max_attempts=3)
    bridge = MongoosePushBridge(
        section,
        Pool(answers),
        world.storage.messages,
        world.clock,
        random.Random(1),
        world.publisher.unregistered,
        trace=world.trace,
    )
    bridge.startService()
    world.enable("node-1")
    world.publisher._push_service = bridge
    (delivery,) = now(world.storage.messages.keep(None, [a_delivery(created=NOW, trace="t1")], 0))
    bridge.enqueue(delivery)
    for _ in range(10):
        world.clock.advance(10)
    world.trace.flush()
    told = now(world.storage.traces.story("t1"))
    assert [(note.decision, note.reason, note.fields.get("attempt")) for note in told] == notes
    assert {note.account for note in told} == {ALICE}
    assert all("token-1" not in repr(note) for note in told)


def test_pushes_of_foreign_servers_are_under_the_pubsub_host():
    """Whose they are is known to that server alone."""
    world = World()
    bridge = MongoosePushBridge(
        BridgeSection("push"), Pool([200]), world.storage.messages, world.clock, random.Random(1), None,
        trace=world.trace,
    )  # fmt: skip
    bridge.startService()
    (delivery,) = now(world.storage.messages.keep(None, [a_delivery(account="", created=NOW)], 0))
    bridge.enqueue(delivery)
    world.clock.advance(1)
    world.trace.flush()
    (note,) = now(world.storage.traces.of("pubsub.localhost", 1))
    assert (note.trace, note.decision) == ("q1", "delivered")
