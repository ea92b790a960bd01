"""PubSub: accepting a publish of this process, and waiting for the first try of another's."""

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface.verify import verifyObject

from xmpppush.errors import (
    DeviceUnregistered,
    Forbidden,
    GivenUp,
    NodeNotFound,
    NotAcceptable,
    PreconditionNotMet,
    Refused,
    StorageError,
    TryLater,
    Unsupported,
)
from xmpppush.interfaces import IPubSub
from xmpppush.jids import parse_jid
from xmpppush.testing.builders import a_node, a_publish

HOST = "pubsub.localhost"


def outcome(deferred):
    """What a fired Deferred holds: its result, or its exception."""
    found = []
    deferred.addBoth(found.append)
    assert found, "not fired"
    return getattr(found[0], "value", found[0])


def accept(pubsub, publish):
    """A Deferred of the delivery, whether it is known at once or not."""
    return maybeDeferred(pubsub.accept, publish)


@pytest.fixture
def node(host):
    node = a_node()
    outcome(host.storage.nodes.create(node, 10))
    return node


def published(host, publish):
    return Deferred.fromCoroutine(host.pubsub.publish(publish))


def test_interface(host):
    """It keeps the contract."""
    assert verifyObject(IPubSub, host.pubsub)
    assert host.pubsub.hosts == {HOST}


def test_accept(host, node):
    """The delivery of the push service, stamped now; nothing is stored or sent."""
    host.clock.advance(1234.0)
    delivery = outcome(accept(host.pubsub, a_publish()))
    assert (delivery.id, delivery.account, delivery.created) == (0, "alice@localhost", 1234.0)
    assert host.push_service.taken == []
    assert outcome(host.storage.messages.queued_count()) == 0


def slowly(store, name):
    """Have a method of a store do its work only when the returned list's first entry is called."""
    waiting, do_it = [], getattr(store, name)

    def put_off(*arguments):
        done = Deferred()
        waiting.append(lambda: do_it(*arguments).chainDeferred(done))
        return done

    setattr(store, name, put_off)
    return waiting


def test_changes_of_an_owner_do_not_undo_each_other(host, node):
    """Clients need not wait for an answer before the next request, and the disk takes its time."""
    alice, waiting = parse_jid("alice@localhost/phone"), slowly(host.storage.nodes, "configure")
    for config in ({"pubsub#title": "A"}, {"pubsub#notify_delete": "1"}):
        Deferred.fromCoroutine(host.pubsub.configure(alice, HOST, node.name, config))
    while waiting:
        waiting.pop(0)()
    _, config = outcome(Deferred.fromCoroutine(host.pubsub.configuration(alice, HOST, node.name)))
    assert (config["pubsub#title"], config["pubsub#notify_delete"]) == ("A", "1")


def test_a_node_keeps_an_owner_whoever_leaves_first(host, node):
    """Two owners that go at the same time."""
    alice, bob = parse_jid("alice@localhost/phone"), parse_jid("bob@localhost/desk")
    outcome(host.storage.nodes.affiliate(HOST, node.name, {"bob@localhost": "owner"}))
    waiting = slowly(host.storage.nodes, "affiliate")
    left = [
        Deferred.fromCoroutine(host.pubsub.affiliate(who, HOST, node.name, {who.userhost(): "none"}))
        for who in (alice, bob)
    ]
    while waiting:
        waiting.pop(0)()
    assert outcome(left[0]) is None
    assert isinstance(outcome(left[1]), NotAcceptable)
    # And a change that was refused keeps none of the later ones from its turn.
    changed = Deferred.fromCoroutine(
        host.pubsub.affiliate(bob, HOST, node.name, {"carol@localhost": "publisher"})
    )
    waiting.pop(0)()
    assert outcome(changed) is None


@pytest.mark.parametrize("length", [1025, 10_000, 200_000])
def test_no_node_has_a_name_like_that(host, length):
    """Nobody looks for it, and no cache remembers that it is not there."""
    asked = []
    host.storage.nodes.get = lambda *key: asked.append(key)
    alice, name = parse_jid("alice@localhost/phone"), "x" * length
    assert isinstance(outcome(accept(host.pubsub, a_publish(node=name))), NodeNotFound)
    for asking in (
        host.pubsub.delete(alice, HOST, name),
        host.pubsub.configuration(alice, HOST, name),
        host.pubsub.lookup.visible(alice, HOST, name),
    ):
        assert isinstance(outcome(Deferred.fromCoroutine(asking)), NodeNotFound)
    assert outcome(Deferred.fromCoroutine(host.pubsub.affiliations_of(alice, HOST, name))) == []
    assert asked == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"node": "other"}, NodeNotFound),
        ({"pubsub": "other.localhost"}, NodeNotFound),
        ({"sender": "far.example"}, Forbidden),
        ({"sender": "eve@localhost"}, Forbidden),
        ({"options": {"service": "fcm"}}, PreconditionNotMet),
    ],
)
def test_accept_refuses(host, node, changes, error):
    """What is wrong, as one exception."""
    assert isinstance(outcome(accept(host.pubsub, a_publish(**changes))), error)
    assert host.push_service.publishes == []


def test_open_node_takes_all_but_outcasts(host):
    """publish_model open, configured."""
    node = a_node(config={"pubsub#publish_model": "open"}, affiliations={"eve@localhost": "outcast"})
    outcome(host.storage.nodes.create(node, 10))
    assert outcome(accept(host.pubsub, a_publish(sender="far.example"))).node == "node-1"
    assert isinstance(outcome(accept(host.pubsub, a_publish(sender="eve@localhost"))), Forbidden)


def test_node_of_a_type_no_longer_configured(host):
    """That passes: no server shall forget its registrations for a line in our configuration."""
    outcome(host.storage.nodes.create(a_node(type="flat"), 10))
    assert isinstance(outcome(accept(host.pubsub, a_publish())), TryLater)


def test_publish_is_stored_before_it_is_tried(host, node):
    """The push service gets the row with its number."""
    assert outcome(published(host, a_publish())) is None
    (delivery,) = host.push_service.taken
    assert delivery.id > 0
    assert outcome(host.storage.messages.queued(0, 10)) == (delivery,)
    assert host.clock.getDelayedCalls() == []


@pytest.mark.parametrize("error", [DeviceUnregistered("gone"), Refused("400"), GivenUp("8 tries")])
def test_final_outcome_of_the_first_try(host, node, error):
    """The publisher learns it."""
    host.push_service.outcome = error
    assert outcome(published(host, a_publish())) is error
    assert host.clock.getDelayedCalls() == []


def test_passing_trouble_is_no_error(host, node):
    """It is queued, and a publisher told to wait would push it a second time."""
    host.push_service.outcome = TryLater("busy", 3.0)
    assert outcome(published(host, a_publish())) is None


def test_no_outcome_within_ten_seconds(host, node):
    """Then the answer is that it is queued; what comes later changes nothing."""
    host.push_service.silent = True
    answer = published(host, a_publish())
    host.clock.advance(9.9)
    assert not answer.called
    host.clock.advance(0.1)
    assert outcome(answer) is None
    host.push_service.firsts[0](DeviceUnregistered("late"))
    assert host.clock.getDelayedCalls() == []


def test_stopping_answers_all_who_wait(host, node):
    """Nothing is left ticking."""
    host.push_service.silent = True
    answers = [published(host, a_publish()), published(host, a_publish())]
    host.pubsub.answer_waiting()
    assert [outcome(answer) for answer in answers] == [None, None]
    host.push_service.firsts[0](Refused("late"))
    assert host.clock.getDelayedCalls() == []


def test_what_cannot_be_stored_is_not_tried(host, node, monkeypatch):
    """The publisher is told to wait, as nothing is kept."""

    def keep(*args):
        raise StorageError("the disk is full")

    monkeypatch.setattr(host.storage.messages, "keep", keep)
    assert isinstance(outcome(published(host, a_publish())), StorageError)
    assert host.push_service.taken == []


def test_node_types_come_from_the_configuration(a_host):
    """The first is the default; one that nobody provides is not offered."""
    host = a_host(plugins=("nosuch", "push"))
    assert list(host.pubsub.types) == ["push"]
    create = host.pubsub.create(parse_jid("alice@localhost/x"), HOST, "n", None, {})
    assert outcome(Deferred.fromCoroutine(create)) == "n"
    none = a_host(plugins=())
    create = none.pubsub.create(parse_jid("alice@localhost/x"), HOST, "m", None, {})
    assert isinstance(outcome(Deferred.fromCoroutine(create)), Unsupported)


def test_created_node(host):
    """What a create stores."""
    host.clock.advance(7.0)
    config = {"pubsub#title": "Phone", "pubsub#publish_model": "publishers", "pubsub#nosuch": "x"}
    create = host.pubsub.create(parse_jid("alice@localhost/phone"), HOST, "n1", "push", config)
    outcome(Deferred.fromCoroutine(create))
    assert outcome(host.storage.nodes.get(HOST, "n1")) == evolve(
        a_node(name="n1"), config={"pubsub#title": "Phone"}, created=7.0
    )


def test_item_ids(host):
    """Twenty hex digits, not guessable."""
    assert len({host.pubsub.item_id() for _ in range(10)}) == 10
    assert len(host.pubsub.item_id()) == 20
