"""From a message to its deliveries, and what an app server's errors do to a registration."""

from collections import Counter
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from xmpppush.config.sections import StorageSection
from xmpppush.errors import (
    DeviceUnregistered,
    Forbidden,
    GivenUp,
    NodeNotFound,
    PreconditionNotMet,
    Refused,
    StorageError,
    TryLater,
)
from xmpppush.interfaces import IPushDecider, IPushPlugin
from xmpppush.mod_push.plugins import Chain, defaults
from xmpppush.mod_push.privacy import Privacy
from xmpppush.mod_push.publisher import Publisher
from xmpppush.model import Extensions, Notification, PushSummary, RosterItem
from xmpppush.storage import open_inline
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_delivery, a_registration
from xmpppush.testing.sessions import stanza_of

ALICE = "alice@localhost"
MESSAGE = "<message type='chat' from='bob@localhost/x' to='alice@localhost'><body>Hi</body></message>"


class PubSub:
    hosts = frozenset({"pubsub.localhost"})

    def __init__(self):
        self.published = []
        self.error = None

    def accept(self, publish):
        if self.error is not None:
            return fail(self.error)
        self.published.append(publish)
        return succeed(a_delivery(account=publish.account, node=publish.node))


class PushService:
    def __init__(self):
        self.outcome = None
        self.enqueued = []

    def prepare(self, publish, created):
        if "device_id" not in publish.options:
            raise PreconditionNotMet("publish option 'device_id' is missing")
        return a_delivery(
            service=publish.options.get("service", "fcm"),
            path=f"/v3/notification/{publish.options['device_id']}",
            created=created,
        )

    def enqueue(self, delivery, first=None):
        self.enqueued.append(delivery)
        if first is not None:
            first(self.outcome)


class World:
    def __init__(self, plugin=defaults, **settings):
        self.storage = memory_storage()
        self.pubsub, self.push_service = PubSub(), PushService()
        self.clock = Clock()
        self.publisher = Publisher(
            self.storage.registrations,
            self.storage.messages,
            plugin,
            self.pubsub,
            self.push_service,
            self.clock,
            **settings,
        )

    def enabled(self, **changes):
        registration = a_registration(**changes)
        self.storage.registrations.put(registration, 20)
        return registration

    def deliveries(self, message=MESSAGE, sessions=()):
        coroutine = self.publisher.deliveries_for(ALICE, stanza_of(message), dict(sessions))
        return Deferred.fromCoroutine(coroutine).result

    @property
    def registrations(self):
        return self.storage.registrations.list(None).result


def test_the_contracts_hold():
    """zope.interface's own check."""
    assert verifyObject(IPushDecider, World().publisher)
    assert verifyObject(IPushPlugin, defaults)
    assert verifyObject(IPushPlugin, Chain([defaults]))


def test_each_registration_is_published_to():
    """XEP-0357 section 7: from the server itself, with what was given at enable."""
    world = World()
    world.enabled(node="n1")
    world.enabled(node="n2", options={"service": "apns", "device_id": "t2"})
    assert [delivery.node for delivery in world.deliveries()] == ["n1", "n2"]
    first, second = world.pubsub.published
    assert (first.sender, first.pubsub, first.account) == ("localhost", "pubsub.localhost", ALICE)
    assert first.notification == Notification(PushSummary(1, None, "bob@localhost", "Hi"))
    assert dict(second.options) == {"service": "apns", "device_id": "t2"}


def test_nothing_enabled_nothing_published():
    """And no plugin is asked."""
    assert World(plugin=None).deliveries() == ()


def test_a_message_that_is_no_push():
    """Chat states light no phone."""
    world = World()
    world.enabled()
    assert world.deliveries(MESSAGE.replace("<body>Hi</body>", "")) == ()


def test_a_plugin_is_asked_once():
    """What it answers may cost it something, or change."""

    class Counting:
        name = "counting"
        asked = 0

        def should_publish(self, account, stanza):
            self.asked += 1
            return True

    plugin = Counting()
    world = World(Chain([plugin]))
    world.enabled()
    assert len(world.deliveries()) == 1
    assert plugin.asked == 1


def test_what_leaves_the_server_is_the_operators_choice():
    """[mod_push] include_body, include_sender and hidden_body_text."""
    world = World(privacy=Privacy(include_body=False, include_sender=False, hidden_body_text="Psst"))
    world.enabled()
    world.deliveries()
    assert world.pubsub.published[0].notification == Notification(PushSummary(1, None, None, "Psst"))


def test_a_node_that_is_gone_ends_the_registration():
    """XEP-0357 section 7; the other registrations stay."""
    world = World()
    world.enabled()
    world.pubsub.error = NodeNotFound("no such node")
    assert world.deliveries() == ()
    assert world.registrations == ()


@pytest.mark.parametrize("error", [TryLater("down"), None])
def test_passing_and_local_trouble_ends_no_registration(error):
    """A fault of ours, or an app server we cannot reach, costs nobody their push."""
    world = World(max_errors=1)
    world.enabled(pubsub="pubsub.localhost" if error else "pubsub.elsewhere.example")
    world.pubsub.error = error
    assert world.deliveries() == ()
    assert [registration.errors for registration in world.registrations] == [0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            TryLater("node type flat is not configured"),
            [
                "app server pubsub.localhost takes no pushes: node type flat is not configured;"
                " those of this time are lost",
                "app server pubsub.localhost takes pushes again after 60.0 s",
            ],
        ),
        (StorageError("disk is full"), []),  # the storage says so
    ],
)
def test_passing_trouble_is_a_line_and_not_one_a_push(error, said):
    """One when it begins and one when it ends."""
    world, lines = World(), []

    def observe(event):
        if event.get("log_namespace", "").startswith("xmpppush"):
            lines.append(event["log_format"].format(**event))

    world.enabled()
    globalLogPublisher.addObserver(observe)
    try:
        world.pubsub.error = error
        for _ in range(60):
            world.deliveries()
            world.clock.advance(1.0)
        world.pubsub.error = None
        world.deliveries()
        world.deliveries()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert lines == said


def test_errors_in_a_row_suspend_a_registration():
    """[mod_push] max_errors; a success in between starts the count anew."""
    world = World(max_errors=3)
    world.enabled()
    world.pubsub.error = Forbidden("not you")
    world.deliveries()
    world.deliveries()
    world.pubsub.error = None
    assert len(world.deliveries()) == 1
    assert [registration.errors for registration in world.registrations] == [0]
    world.pubsub.error = Forbidden("not you")
    world.deliveries()
    world.deliveries()
    (registration,) = world.registrations
    assert (registration.errors, registration.state) == (2, "active")
    world.deliveries()
    (registration,) = world.registrations
    assert (registration.state, registration.reason, registration.errors) == ("suspended", "not you", 3)
    assert registration.next_try == 86400.0


def suspended(**settings):
    """A world with a registration that was suspended just now."""
    world = World(max_errors=1, suspend_retry=100.0, **settings)
    world.enabled()
    world.pubsub.error = Forbidden("not you")
    world.deliveries()
    world.pubsub.error = None
    assert [registration.state for registration in world.registrations] == ["suspended"]
    return world


def test_a_suspended_registration_is_left_alone_and_then_tried_again():
    """[mod_push] suspend_retry; when it works it is as before."""
    world = suspended()
    world.clock.advance(99.9)
    assert world.deliveries() == ()
    assert world.pubsub.published == []
    world.clock.advance(0.1)
    assert len(world.deliveries()) == 1
    (registration,) = world.registrations
    assert (registration.state, registration.reason, registration.errors, registration.next_try) == (
        "active",
        "",
        0,
        0.0,
    )
    # The device missed those three, too.
    assert world.pubsub.published[0].notification.summary.message_count == 3


def test_a_suspended_registration_that_fails_again_waits_again():
    """As long as before."""
    world = suspended()
    world.clock.advance(100)
    world.pubsub.error = Forbidden("still not")
    world.deliveries()
    (registration,) = world.registrations
    assert (registration.state, registration.reason, registration.next_try) == ("suspended", "still not", 200)


def test_enabling_again_revives_a_suspended_registration():
    """The client knows best; other registrations were not touched."""
    world = suspended()
    other = world.enabled(node="n2")
    world.enabled()
    assert len(world.deliveries()) == 2
    assert other in world.registrations
    assert {registration.state for registration in world.registrations} == {"active"}


@pytest.mark.parametrize(
    "revocation",
    [
        "<pubsub xmlns='http://jabber.org/protocol/pubsub' node='node-1'>{}</pubsub>",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'>"
        "<affiliations node='node-1'>{}</affiliations></pubsub>",
    ],
)
def test_the_app_server_disables_a_registration(revocation):
    """XEP-0357 section 8, also as XEP-0060 section 8.9.4 has it; the other node stays."""
    world = World()
    world.enabled()
    world.enabled(node="n2")
    content = revocation.format(f"<affiliation jid='{ALICE}' affiliation='none'/>")
    assert world.deliveries(f"<message from='pubsub.localhost' to='{ALICE}'>{content}</message>") == ()
    assert [registration.node for registration in world.registrations] == ["n2"]


@pytest.mark.parametrize(
    ("sender", "jid", "affiliation"),
    [
        ("bob@localhost/x", ALICE, "none"),
        ("other.localhost", ALICE, "none"),
        ("pubsub.localhost", "bob@localhost", "none"),
        ("pubsub.localhost", "@@", "none"),
        ("pubsub.localhost", ALICE, "publish-only"),
    ],
)
def test_nobody_else_disables_a_registration(sender, jid, affiliation):
    """Only the app server itself, only for this account, and only with none."""
    world = World()
    world.enabled()
    world.deliveries(
        f"<message from='{sender}' to='{ALICE}'>"
        "<pubsub xmlns='http://jabber.org/protocol/pubsub' node='node-1'>"
        f"<affiliation jid='{jid}' affiliation='{affiliation}'/></pubsub></message>"
    )
    assert len(world.registrations) == 1


def test_an_app_server_may_write_messages():
    """They are pushes like any other's."""
    world = World()
    world.enabled()
    assert len(world.deliveries(MESSAGE.replace("bob@localhost/x", "pubsub.localhost"))) == 1


def counts(world):
    return [publish.notification.summary.message_count for publish in world.pubsub.published]


def test_the_count_is_what_each_device_missed():
    """Of each device for itself; from one on when it is back."""
    world = World()
    world.enabled(node="n1", resource="phone")
    world.deliveries()
    world.enabled(node="n2", resource="tablet", created=2000.0)
    world.deliveries()
    assert counts(world) == [1, 2, 1]
    world.publisher.device_back(ALICE, "phone")
    world.deliveries()
    assert counts(world)[3:] == [1, 2]


def test_a_storage_that_closes_writes_all_counts(tmp_path):
    """Nobody's badge suffers from a restart on purpose."""
    storage = open_inline(StorageSection(), tmp_path)
    for number in range(3):
        registration = a_registration(node=f"n{number}")
        storage.registrations.put(registration, 20)
        storage.registrations.count_missed(registration)
    storage.close()
    storage = open_inline(StorageSection(), tmp_path)
    assert [registration.missed for registration in storage.registrations.of(ALICE).result] == [1, 1, 1]
    storage.close()


def test_counts_are_written_a_few_at_a_time(monkeypatch):
    """However many devices are away, the disk has time for messages."""
    monkeypatch.setattr("xmpppush.mod_push.publisher.SAVED_AT_ONCE", 2)
    world = World()
    for number in range(5):
        world.enabled(node=f"n{number}")
    world.deliveries()
    saved = []
    for _ in range(3):
        world.clock.advance(5)
        saved.append(sum(registration.missed for registration in world.registrations))
    assert saved == [2, 4, 5]
    assert world.clock.getDelayedCalls() == []


def test_the_count_survives_a_restart():
    """It is written once for a burst, some seconds later, and when the storage closes."""
    world = World()
    world.enabled()
    for _ in range(3):
        world.deliveries()
    assert [registration.missed for registration in world.registrations] == [0]
    world.clock.advance(5)
    assert [registration.missed for registration in world.registrations] == [3]
    assert world.clock.getDelayedCalls() == []
    world.publisher.device_back(ALICE, "phone")
    world.clock.advance(5)
    assert [registration.missed for registration in world.registrations] == [0]
    world.publisher.device_back(ALICE, "phone")
    assert world.clock.getDelayedCalls() == []


CALL = MESSAGE.replace("<body>Hi</body>", "<propose xmlns='urn:xmpp:jingle-message:0' id='c'/>")


def test_of_a_burst_the_first_and_the_last_are_pushed():
    """[mod_push] batch_window; what is held waits in the queue on disk."""
    world = World(batch_window=10.0)
    world.enabled()
    for body in ("one", "two", "three"):
        for delivery in world.deliveries(MESSAGE.replace("Hi", body)):
            (stored,) = world.storage.messages.keep(None, [delivery], 0).result
            world.publisher.enqueue(stored)
    assert [delivery.id for delivery in world.push_service.enqueued] == [1]
    queued = world.storage.messages.queued(0, 9).result
    assert [(delivery.id, delivery.next_try) for delivery in queued] == [(1, 0.0), (3, 10.0)]
    world.clock.advance(10)
    assert [delivery.id for delivery in world.push_service.enqueued] == [1, 3]


def test_a_call_waits_for_no_window():
    """It is urgent, and says so."""
    world = World(batch_window=10.0)
    world.enabled()
    world.deliveries()
    (delivery,) = world.deliveries(CALL)
    assert delivery.next_try == 0.0
    assert world.pubsub.published[-1].notification.extra == {"priority": "high"}


CALL = MESSAGE.replace("<body>Hi</body>", "<propose xmlns='urn:xmpp:jingle-message:0' id='c1'/>")


class Session:
    priority, hibernated, answering = 0, False, True

    def __init__(self, resource, active):
        self.resource, self.active = resource, active


@pytest.mark.parametrize(
    ("setting", "message", "active", "pushes"),
    [(True, CALL, False, 1), (True, CALL, True, 0), (True, MESSAGE, False, 0), (False, CALL, False, 0)],
)
def test_a_call_wakes_an_app_in_the_background(setting, message, active, pushes):
    """[mod_push] notify_inactive: it is connected, and perhaps nobody lets it ring."""
    world = World(notify_inactive=setting)
    world.enabled()
    sessions = {"phone": Session("phone", active), "desk": Session("desk", True)}
    assert len(world.deliveries(message, sessions)) == pushes
    assert world.publisher.decisions["push"] == pushes
    assert world.publisher.decisions["online"] == 1 - pushes


def test_what_is_held_is_not_pushed_when_the_device_is_back():
    """It has the messages by then."""
    world = World(batch_window=10.0)
    world.enabled()
    world.deliveries()
    (held,) = world.deliveries()
    (stored,) = world.storage.messages.keep(None, [held], 0).result
    world.publisher.enqueue(stored)
    world.publisher.device_back(ALICE, "phone")
    world.clock.advance(20)
    assert world.push_service.enqueued == []
    assert world.storage.messages.queued(0, 9).result == ()


def test_a_dead_device_ends_its_registration():
    """The push service's 410."""
    world = World()
    world.enabled(node="n1")
    world.enabled(node="n2")
    world.publisher.unregistered(a_delivery(node="n1"))
    assert [registration.node for registration in world.registrations] == ["n2"]


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"service": "fcm", "device_id": "token-2"}},
        {"options": {"service": "apns", "device_id": "token-1"}},
        {"options": {}},
        {"created": 1000.1},
    ],
)
def test_an_old_devices_end_does_not_hit_the_new_one(changes):
    """The delivery waited for its retry while the node was enabled again, with another token or anew."""
    world = World()
    world.enabled(**changes)
    world.publisher.unregistered(a_delivery(created=1000.0))
    assert len(world.registrations) == 1


def test_a_device_enabled_at_the_last_moment_stays():
    """The verdict was read before the new registration is on disk."""
    world = World()
    old = world.enabled()
    of, world.storage.registrations.of = world.storage.registrations.of, lambda account: succeed((old,))
    world.enabled(created=2000.0, options={"service": "fcm", "device_id": "token-2"})
    world.publisher.unregistered(a_delivery(created=1500.0))
    world.pubsub.error = NodeNotFound("no such node")
    world.deliveries()
    world.storage.registrations.of = of
    assert [registration.created for registration in world.registrations] == [2000.0]


def test_what_errors_do_to_a_registration_holds_no_message_up():
    """A message that waited for the disk here would be overtaken by the next one of its sender."""
    world = World(max_errors=2)
    world.enabled(errors=1)
    registrations = world.storage.registrations
    registrations.remove_same = registrations.forget_errors = lambda *_args: Deferred()
    assert len(world.deliveries()) == 1
    for error in (NodeNotFound("no such node"), Forbidden("not you")):
        world.pubsub.error = error
        assert world.deliveries() == ()
    registrations.count_error = lambda *_args: Deferred()
    assert world.deliveries() == ()


def test_a_test_notification_takes_the_real_path():
    """It is stored and sent like any other, and says what became of it."""
    world = World()
    world.enabled(node="n1")
    lines = Deferred.fromCoroutine(world.publisher.test("Alice@localhost", "Ping")).result
    assert lines == [("pubsub.localhost n1: the push service took it", True)]
    assert world.pubsub.published[0].notification.summary.last_message_body == "Ping"
    assert [delivery.id for delivery in world.push_service.enqueued] == [1]
    world.push_service.outcome = DeviceUnregistered("unregistered")
    lines = Deferred.fromCoroutine(world.publisher.test(ALICE, None)).result
    ((line, taken),) = lines
    assert line == "pubsub.localhost n1: the push service does not know the device any more: unregistered"
    assert not taken


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            TryLater("connection refused"),
            "not yet: connection refused; it waits, and 'push trace' tells what",
        ),
        (GivenUp("too old"), "the push service did not take it: too old"),
        (Refused("400 bad"), "the push service did not take it: 400 bad"),
    ],
)
def test_a_test_notification_says_in_words_why_it_did_not_get_through(error, said):
    """Names of exceptions mean nothing to an operator."""
    world = World()
    world.enabled(node="n1")
    world.push_service.outcome = error
    ((line, taken),) = Deferred.fromCoroutine(world.publisher.test(ALICE, None)).result
    assert line.startswith(f"pubsub.localhost n1: {said}")
    assert not taken


def test_a_test_notification_that_the_app_server_refuses():
    """It is told apart from what the push service says."""
    world = World()
    world.enabled(node="n1")
    world.pubsub.error = NodeNotFound("no such node")
    assert Deferred.fromCoroutine(world.publisher.test(ALICE, None)).result == [
        ("pubsub.localhost n1: the app server did not take it: no such node", False)
    ]


def test_enable_warns_of_what_cannot_work():
    """The registration is kept: the node may be made afterwards."""
    world = World()
    registration = world.enabled()
    world.pubsub.error = NodeNotFound("no such node")
    Deferred.fromCoroutine(world.publisher.check(registration))
    assert len(world.registrations) == 1


def test_decisions_are_counted():
    """For each registration that a message concerns: the operator sees why there was a push, or none."""

    class Nobody:
        name = "nobody"

        def publish_notification(self, account, notification, registrations):
            return registrations[:1]

    world = World(plugin=Chain([defaults, Nobody()]))
    assert world.deliveries() == ()
    assert set(world.publisher.decisions.values()) == {0}
    for node in ("n1", "n2", "n3"):
        world.enabled(node=node, resource=node)
    reading = {"n3": SimpleNamespace(resource="n3", priority=0, hibernated=False, answering=True)}
    world.deliveries(sessions=reading)
    assert world.publisher.decisions == Counter(push=1, filtered=1, online=1)
    world.deliveries(MESSAGE.replace("<body>Hi</body>", ""))
    assert world.publisher.decisions == Counter(push=1, filtered=4, online=1)
    world.pubsub.error = Forbidden("no")
    world.deliveries()
    assert world.publisher.decisions["refused"] == 1
    world.pubsub.hosts = frozenset()
    world.deliveries()
    assert world.publisher.decisions["unreachable"] == 1


def test_a_registration_filters_for_itself():
    """One device mutes the sender, the other does not."""
    world = World()
    world.enabled(node="n1", extensions=Extensions(muted=frozenset(["bob@localhost"])))
    world.enabled(node="n2")
    assert [delivery.node for delivery in world.deliveries()] == ["n2"]
    assert world.publisher.decisions["filtered"] == 1


def test_strangers_are_those_not_in_the_roster():
    """Who asks for that gets a push of contacts alone."""
    world = World()
    world.publisher._rosters = world.storage.rosters
    world.enabled(extensions=Extensions(ignore_unknown=True))
    assert world.deliveries() == ()
    world.storage.rosters.put(ALICE, RosterItem("bob@localhost"))
    assert len(world.deliveries()) == 1


def test_a_registration_with_a_key_gets_nothing_in_clear():
    """Each time with another iv."""
    world = World(random_octets=_octets())
    world.enabled(extensions=Extensions(key=bytes(16)))
    world.deliveries(), world.deliveries()
    told = [publish.notification for publish in world.pubsub.published]
    assert [each.summary for each in told] == [PushSummary(), PushSummary()]
    assert told[0].extras.encrypted.iv != told[1].extras.encrypted.iv


def _octets():
    ivs = iter([b"a" * 12, b"b" * 12])
    return lambda size: next(ivs)[:size]


def test_virtual_hosts_need_no_app_server():
    """[mod_push] virtual_pubsub_hosts: by the options of enable, whatever the node."""
    world = World(virtual_hosts=["v.localhost"])
    world.publisher._pubsub = None
    world.enabled(pubsub="v.localhost", node="any")
    world.enabled(pubsub="w.localhost")
    (delivery,) = world.deliveries()
    assert delivery.path == "/v3/notification/token-1"
    assert world.publisher.decisions["unreachable"] == 1


def test_a_virtual_registration_goes_with_its_device():
    """410, as anywhere."""
    world = World(virtual_hosts=["v.localhost"])
    world.enabled(pubsub="v.localhost", node="node-1", created=0.0)
    world.publisher.unregistered(a_delivery(pubsub="v.localhost"))
    assert world.registrations == ()


def test_a_registered_device_that_is_gone_is_known_by_the_app_server():
    """Its registration names no device: the app server says which one it is."""
    world = World()
    options = {"pushModule": "m"}
    world.enabled(options=options, created=0.0)
    world.publisher.unregistered(a_delivery(service="fcm@a", path="/other"))
    assert len(world.registrations) == 1
    world.pubsub.accept = lambda publish: a_delivery(service="fcm@a")
    world.publisher.unregistered(a_delivery(service="fcm@a"))
    assert world.registrations == ()


class Remote:
    """App servers elsewhere, for which deliveries are made."""

    def delivery(self, publish):
        return a_delivery(
            account=publish.account, pubsub=publish.pubsub, node=publish.node, service="xmpp@else.test"
        )


def elsewhere(**settings):
    """A world with a registration at an app server that is not in this process."""
    world = World(remote=Remote(), **settings)
    world.enabled(node="n1", pubsub="else.test")
    return world


def test_an_app_server_elsewhere_gets_a_delivery():
    """It is queued like any other; that it was made says nothing about earlier errors."""
    world = elsewhere()
    (delivery,) = world.deliveries()
    assert delivery.service == "xmpp@else.test"
    assert world.publisher.decisions["push"] == 1


def test_refusals_of_an_app_server_elsewhere_count():
    """So many in a row suspend the registration; one success and the count begins anew."""
    world = elsewhere(max_errors=2)
    told = world.publisher._remote.told
    told(ALICE, "else.test", "n1", "forbidden (auth)")
    world.deliveries()
    assert [registration.errors for registration in world.registrations] == [1]
    told(ALICE, "else.test", "n1", None)
    assert [registration.errors for registration in world.registrations] == [0]
    for _ in range(2):
        told(ALICE, "else.test", "n1", "forbidden (auth)")
    assert [registration.state for registration in world.registrations] == ["suspended"]
    told(ALICE, "else.test", "unknown", "forbidden (auth)")


def test_a_node_that_is_gone_elsewhere(events):
    """item-not-found of its app server removes the registration, and the log says whose word that was."""
    world = elsewhere()
    (delivery,) = world.deliveries()
    world.publisher.unregistered(delivery)
    assert not world.registrations
    assert "has no node" in [event["log_format"] for event in events if "log_format" in event][-1]
