"""App servers elsewhere: what is sent to them, and what their answers mean."""

import pytest
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element

from xmpppush.errors import AppServerUnreachable, DeviceUnregistered, Refused, TryLater, Unreachable
from xmpppush.mod_push.remote import MAX_LANES, SHARED_LANES, NoPushService, RemoteAppServers
from xmpppush.testing.builders import a_publish
from xmpppush.xep.xml import to_xml

ACCOUNT, PUBSUB, NODE = "alice@chat.test", "pubsub.test", "a node"


class World:
    """App servers that answer as they are told."""

    def __init__(self):
        self.clock = Clock()
        self.sent, self.told = [], []
        self.answer = None
        self.remote = RemoteAppServers(self._ask, lambda host: host != "nowhere.test", self.clock)
        self.remote.told = lambda *what: self.told.append(what)

    def _ask(self, iq):
        self.sent.append(to_xml(iq))
        return succeed(Element((None, "iq"))) if self.answer is None else fail(self.answer)

    def delivery(self, pubsub=PUBSUB, **changes):
        return self.remote.delivery(
            a_publish(
                **{"account": ACCOUNT, "sender": "chat.test", "pubsub": pubsub, "node": NODE, **changes}
            )
        )

    def post(self, answer=None, **changes):
        """Publish; returns the response or the error."""
        self.answer = answer
        delivery = self.delivery(**changes)
        outcome = []
        self.remote.post(delivery.path, delivery.body).addBoth(outcome.append)
        return getattr(outcome[0], "value", outcome[0])


@pytest.fixture
def world():
    return World()


def test_publish(world):
    """The server's domain publishes the notification, with its options (XEP-0357 section 7)."""
    assert world.post(options={"secret": "s3cret<"}).code == 200
    (xml,) = world.sent
    assert xml.startswith("<iq type='set' from='chat.test' to='pubsub.test'><pubsub xmlns=")
    assert "<publish node='a node'><item><notification xmlns='urn:xmpp:push:0'>" in xml
    assert "s3cret&lt;" in xml
    assert "alice" not in xml.replace("last-message", "")
    assert world.told == [(ACCOUNT, PUBSUB, NODE, None)]


def test_the_row_keeps_secrets(world):
    """Neither options nor body are in what is logged of a delivery."""
    assert "s3cret" not in repr(world.delivery(options={"secret": "s3cret"}))


def test_nowhere(world):
    """Where there is no way nothing waits for one."""
    with pytest.raises(AppServerUnreachable):
        world.delivery("nowhere.test")


@pytest.mark.parametrize(
    ("condition", "kind", "expected"),
    [
        ("item-not-found", "cancel", DeviceUnregistered),
        ("item-not-found", "wait", TryLater),
        ("internal-server-error", "wait", TryLater),
        ("internal-server-error", "cancel", TryLater),
        ("remote-server-not-found", "cancel", TryLater),
        ("remote-server-timeout", "cancel", TryLater),
        ("resource-constraint", "cancel", TryLater),
        ("forbidden", "auth", Refused),
        ("service-unavailable", "cancel", Refused),
        ("undefined-condition", "cancel", Refused),
    ],
)
def test_errors(world, condition, kind, expected):
    """What may pass waits, a node that is gone is gone, the rest counts against the registration."""
    error = world.post(StanzaError(condition, kind))
    assert type(error) is expected
    refused = [(ACCOUNT, PUBSUB, NODE, f"{condition} ({kind})")] if expected is Refused else []
    assert world.told == refused


def test_no_way_there(world, events):
    """A fault of our own costs nothing; it is told once, and once that it is over."""
    for _ in range(3):
        assert type(world.post(AppServerUnreachable("not connected"))) is Unreachable
    world.clock.advance(60)
    world.post()
    said = [event["log_format"].format(**event) for event in events if event.get("log_format")]
    assert said == [
        "app server pubsub.test takes no pushes: not connected; they wait",
        "app server pubsub.test takes pushes again after 60.0 s",
    ]
    assert world.told == [(ACCOUNT, PUBSUB, NODE, None)]


def test_lanes(world):
    """A user who enables a thousand hosts makes a bounded number of lanes; the first hosts have their own."""
    first = world.delivery().service
    lanes = {world.delivery(f"h{number}.test").service for number in range(1000)}
    assert first == "xmpp@pubsub.test"
    assert len(lanes | {first}) <= MAX_LANES + SHARED_LANES
    assert world.delivery().service == first
    # One that is unreachable must not hold up the others of its lane.
    assert type(world.post(AppServerUnreachable("x"), pubsub="h999.test")) is TryLater


def test_a_fault_of_ours(world):
    """Is no answer of theirs, and stays loud."""
    assert isinstance(world.post(ValueError("x")), ValueError)


def test_no_push_service():
    """What was meant for a push service that is not configured any more waits."""
    outcome = []
    NoPushService().post("/v3/notification/x", b"{}").addErrback(outcome.append)
    assert outcome[0].check(TryLater)
