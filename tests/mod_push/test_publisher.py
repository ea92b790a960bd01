"""From a message to its deliveries, and what an app server's errors do to a registration."""

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from xmpppush.errors import (
    ConfigError,
    DeviceUnregistered,
    Forbidden,
    NodeNotFound,
    PreconditionNotMet,
    TryLater,
)
from xmpppush.interfaces import IPushDecider, IPushPlugin
from xmpppush.mod_push.plugins import Chain, chain_of, defaults
from xmpppush.mod_push.publisher import Publisher
from xmpppush.model import Notification, PushSummary
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
        self.publisher = Publisher(
            self.storage.registrations,
            self.storage.messages,
            plugin,
            self.pubsub,
            self.push_service,
            Clock(),
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


def test_what_leaves_the_server_is_the_operators_choice():
    """[mod_push] include_body and include_sender."""
    world = World(include_body=False, include_sender=False)
    world.enabled()
    world.deliveries()
    assert world.pubsub.published[0].notification == Notification(PushSummary(1, None, None, None))


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


def test_errors_in_a_row_end_a_registration():
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
    assert len(world.registrations) == 1
    world.deliveries()
    assert world.registrations == ()


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
    assert lines == ["pubsub.localhost n1: the push service took it"]
    assert world.pubsub.published[0].notification.summary.last_message_body == "Ping"
    assert [delivery.id for delivery in world.push_service.enqueued] == [1]
    world.push_service.outcome = DeviceUnregistered("unregistered")
    lines = Deferred.fromCoroutine(world.publisher.test(ALICE, None)).result
    assert lines == ["pubsub.localhost n1: DeviceUnregistered: unregistered"]


def test_enable_warns_of_what_cannot_work():
    """The registration is kept: the node may be made afterwards."""
    world = World()
    registration = world.enabled()
    world.pubsub.error = NodeNotFound("no such node")
    Deferred.fromCoroutine(world.publisher.check(registration))
    assert len(world.registrations) == 1


class Quiet:
    """A plugin that leaves two methods out."""

    name = "quiet"

    def should_publish(self, account, stanza):
        return "quiet" not in str(stanza.body)


class Renames:
    name = "renames"

    def prepare_notification(self, account, stanza):
        return Notification(PushSummary(1, None, "Somebody", "Something"))

    def publish_notification(self, account, notification, registrations):
        return registrations[:1]


def test_plugins_are_chained():
    """All must want the push; the last word on its content; each narrows whom it goes to."""
    world = World(plugin=Chain([defaults, Quiet(), Renames()]))
    world.enabled(node="n1")
    world.enabled(node="n2")
    assert world.deliveries(MESSAGE.replace("Hi", "quiet!")) == ()
    assert [delivery.node for delivery in world.deliveries()] == ["n1"]
    assert world.pubsub.published[0].notification.summary.last_message_sender == "Somebody"


def test_an_unknown_plugin_is_a_configuration_error():
    """One line, with what there is."""
    with pytest.raises(ConfigError, match=r"no plugin 'nope'; installed: .*defaults"):
        chain_of(["defaults", "nope"])
    assert chain_of(["defaults"]).name == "defaults"
