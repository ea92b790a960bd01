"""What mod_push publishes to app servers that are not in this process."""

import json
from itertools import count
from random import Random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.words.protocols.jabber.error import StanzaError
from zope.interface.verify import verifyObject

from xmpppush.elsewhere import PublishQueue
from xmpppush.interfaces import IElsewhere
from xmpppush.mod_push.plugins import defaults
from xmpppush.mod_push.publisher import Publisher
from xmpppush.server.requests import Requests
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_registration
from xmpppush.testing.s2s import RecordingRouter
from xmpppush.testing.sessions import stanza_of
from xmpppush.xep.conditions import bounced, error_reply

ALICE, PUBSUB = "alice@mychat.com", "pubsub.mypubsub.com"
OPTIONS = {"service": "fcm", "device_id": "s3cret-token"}


class World:
    """A chat server whose app server is the test."""

    def __init__(self, reach=True, max_errors=3):
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.storage = memory_storage()
        self.router = RecordingRouter("mychat.com")
        numbers = count()
        self.requests = Requests(self.router, self.clock, lambda size: next(numbers).to_bytes(size, "big"))
        self.queue = self.new_queue(reach)
        self.publisher = Publisher(
            self.storage.registrations,
            self.storage.messages,
            defaults,
            None,
            None,
            self.clock,
            max_errors=max_errors,
            elsewhere=self.queue,
        )
        self.queue.publisher = self.publisher
        self.queue.startService()
        self.clock.advance(0)

    def new_queue(self, reach=True):
        return PublishQueue(
            self.requests,
            lambda domain: reach,
            ["mychat.com"],
            self.storage.messages,
            self.clock,
            Random(1),
        )

    def enabled(self, node="n1", **changes):
        registration = a_registration(
            account=ALICE, **{"pubsub": PUBSUB, "node": node, "options": OPTIONS, **changes}
        )
        self.storage.registrations.put(registration, 20)

    def message(self, body="Hi", sender="bob@mychat.com/x"):
        """A message for Alice, who is not there."""
        stanza = stanza_of(f"<message type='chat' from='{sender}' to='{ALICE}'><body>{body}</body></message>")
        coroutine = self.publisher.deliveries_for(ALICE, stanza, {})
        deliveries = Deferred.fromCoroutine(coroutine).result
        for delivery in self.storage.messages.keep(None, deliveries, 0).result if deliveries else ():
            self.publisher.enqueue(delivery)
        return deliveries

    @property
    def published(self):
        return self.router.routed

    def bodies(self):
        return [
            body
            for iq in self.published
            for body in ("Hi", "one", "two", "three")
            if f">{body}<" in iq.toXml()
        ]

    def answer(self, error=None, way=error_reply, number=-1):
        iq = self.published[number]
        if error is None:
            reply = stanza_of(f"<iq type='result' id='{iq['id']}' from='{iq['to']}' to='{iq['from']}'/>")
        else:
            reply = way(iq, error)
        assert self.requests.answered(reply)
        self.clock.advance(0)

    @property
    def registrations(self):
        return self.storage.registrations.list(None).result

    @property
    def queued(self):
        return self.storage.messages.queued(0, 99, True).result


def test_the_contract_holds():
    """zope.interface's own check."""
    assert verifyObject(IElsewhere, World().queue)


def test_a_publish():
    """XEP-0357 section 7: from the server itself, with summary and options; then it is over."""
    world = World()
    world.enabled()
    world.message()
    (iq,) = world.published
    assert (iq["type"], iq["from"], iq["to"]) == ("set", "mychat.com", PUBSUB)
    xml = iq.toXml()
    assert "<publish node='n1'><item><notification xmlns='urn:xmpp:push:0'>" in xml
    for text in ("bob@mychat.com", "Hi", "s3cret-token", "pubsub#publish-options"):
        assert text in xml
    assert len(world.queued) == 1
    world.answer()
    assert world.queued == ()
    assert world.queue.by_service["xmpp", "delivered"] == 1


def test_the_push_service_does_not_see_it():
    """Both queues are one table, and each takes its own at start."""
    world = World()
    world.enabled()
    (delivery,) = world.message()
    assert delivery.service == f"xmpp@{PUBSUB}"
    assert "s3cret-token" not in repr(delivery)
    assert world.storage.messages.queued(0, 99).result == ()


@pytest.mark.parametrize(
    "condition", ["remote-server-not-found", "remote-server-timeout", "internal-server-error"]
)
def test_an_app_server_that_is_not_reached(condition, events):
    """Costs no push and no registration, however long it takes, and is told once (issue 6, done when 4)."""
    world = World()
    world.enabled()
    world.message()
    for _ in range(20):
        world.answer(StanzaError(condition), lambda iq, error: bounced(iq, error, "connection refused"))
        before = len(world.published)
        for _ in range(62):
            if len(world.published) == before:
                world.clock.advance(1)
        assert len(world.published) == before + 1
    world.answer()
    assert world.queued == ()
    assert [registration.errors for registration in world.registrations] == [0]
    lines = [event["log_format"].format(**event) for event in events if "takes" in event["log_format"]]
    assert lines[0] == f"app server {PUBSUB} takes no notifications: connection refused; they wait"
    assert lines[1].startswith(f"app server {PUBSUB} takes notifications again after ")
    assert len(lines) == 2


def test_newer_ones_replace_those_that_wait():
    """One of each sender, so neither memory nor the phone is flooded when it is back."""
    world = World()
    world.enabled()
    world.message("one")
    world.answer(StanzaError("remote-server-timeout"), bounced)
    for body in ("two", "three"):
        world.message(body)
    world.clock.advance(0)
    assert len(world.queued) == 1
    world.clock.pump([1] * 5)
    assert world.bodies() == ["one", "three"]


def test_an_answer_of_type_wait():
    """May pass, and counts for nothing (XEP-0357 section 7)."""
    world = World()
    world.enabled()
    world.message()
    world.answer(StanzaError("resource-constraint", "wait"))
    assert len(world.queued) == 1
    world.clock.pump([1] * 3)
    world.answer()
    assert [registration.errors for registration in world.registrations] == [0]


def test_no_answer_at_all():
    """Is tried again."""
    world = World()
    world.enabled()
    world.message()
    world.clock.pump([1] * 33)
    assert len(world.published) == 2
    assert len(world.queued) == 1


def test_a_node_that_is_gone():
    """item-not-found of the app server itself ends the registration; ours does not."""
    world = World()
    world.enabled()
    world.message()
    world.answer(StanzaError("item-not-found"))
    assert world.registrations == ()
    assert world.queued == ()


def test_other_errors_count():
    """max_errors in a row suspend a registration; one success in between starts anew."""
    world = World()
    world.enabled()
    for error in (StanzaError("forbidden"), StanzaError("forbidden"), None):
        world.message()
        world.answer(error)
    assert [registration.errors for registration in world.registrations] == [0]
    for _ in range(3):
        world.message()
        world.answer(StanzaError("forbidden"))
    assert [registration.state for registration in world.registrations] == ["suspended"]
    assert world.message() == ()


def test_nonsense_for_an_error():
    """Counts as an error of the app server."""
    world = World()
    world.enabled()
    world.message()
    iq = world.published[-1]
    world.requests.answered(stanza_of(f"<iq type='error' id='{iq['id']}' from='{iq['to']}'/>"))
    world.clock.advance(0)
    assert [registration.errors for registration in world.registrations] == [1]
    assert world.queued == ()


def test_a_restart():
    """What had no answer is published again."""
    world = World()
    world.enabled()
    world.message()
    world.queue.stopService()
    queue = world.new_queue()
    queue.startService()
    world.clock.pump([0, 0.1])
    assert world.bodies() == ["Hi", "Hi"]


def test_one_app_server_does_not_hold_up_another():
    """Each has its own circuit breaker."""
    world = World()
    world.enabled()
    world.enabled("n2", pubsub="push.other.example")
    world.message()
    assert len(world.published) == 2
    world.answer(StanzaError("remote-server-timeout"), bounced, 0)
    world.answer(None, number=1)
    world.message("two", "carol@mychat.com/x")
    assert world.published[-1]["to"] == "push.other.example"


@pytest.mark.parametrize(
    ("pubsub", "reached"),
    [
        (PUBSUB, True),
        ("user@mypubsub.com", True),
        ("mychat.com", False),
        ("alice@mychat.com", False),
        ("@", False),
    ],
)
def test_what_is_elsewhere(pubsub, reached):
    """Everything but the domains of this process."""
    assert World().queue.reaches(pubsub) is reached
    assert World(reach=False).queue.reaches(pubsub) is False


def test_without_a_way():
    """Nothing is queued, and nothing is held against the registration."""
    world = World(reach=False)
    world.enabled()
    assert world.message() == ()
    assert world.publisher.decisions["unreachable"] == 1
    assert len(world.registrations) == 1


def test_the_body_says_who_sends():
    """That is how newer ones are told to replace it."""
    world = World()
    world.enabled()
    (delivery,) = world.message()
    assert json.loads(delivery.body)["tag"] == "bob@mychat.com"
