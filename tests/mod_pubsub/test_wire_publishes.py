"""What Prosody and ejabberd really sent, put to a pubsub host: each publish gets the answer it should."""

from pathlib import Path

import pytest
from twisted.words.xish.domish import Element

from xmpppush.errors import DeviceUnregistered, Refused, TryLater
from xmpppush.model import Node
from xmpppush.server.parser import StreamParser
from xmpppush.testing.pubsub import child, condition

WIRE = Path(__file__).parents[1] / "data" / "wire"
COMPONENT = "jabber:component:accept"
CAPTURES = [
    path.stem
    for path in sorted(WIRE.glob("*.xml"))
    if not path.stem.endswith(("-enable-replies", "-disco-to-component"))
]


def captured(stem: str) -> list[Element]:
    """The stanzas of a capture, as our parser makes them, with the octets they came in."""
    stanzas: list[Element] = []
    parser = StreamParser(lambda root: None, stanzas.append, lambda: None, 1 << 20, COMPONENT)
    parser.feed(
        f"<stream:stream xmlns='{COMPONENT}' xmlns:stream='http://etherx.jabber.org/streams'>".encode()
    )
    parser.feed((WIRE / f"{stem}.xml").read_bytes())
    return stanzas


class AppServer:
    """A host under the name that the captures are addressed to, with a node for each of them."""

    def __init__(self, host, publishes):
        self.host = host
        for iq in publishes:
            self.name = iq["to"]
            node = child(iq, "pubsub", "publish")["node"]
            affiliations = {"romeo@chat.test": "owner", iq["from"]: "publish-only"}
            host.storage.nodes.create(Node(iq["to"], node, "push", "romeo@chat.test", {}, affiliations), 99)

    def answers(self, publishes):
        """One for each, addressed back with the id it had."""
        del self.host.answers[:]
        for iq in publishes:
            self.host.router.route(iq)
        for iq, answer in zip(publishes, self.host.answers, strict=True):
            assert (answer["id"], answer["from"], answer["to"]) == (iq["id"], iq["to"], iq["from"])
        return [condition(answer) for answer in self.host.answers]


@pytest.fixture
def serve(a_host):
    def serve(publishes):
        hosts = tuple(sorted({iq["to"] for iq in publishes}))
        return AppServer(a_host(hosts=hosts, domains={iq["from"] for iq in publishes}), publishes)

    return serve


def options_of(iq):
    return [field["var"] for field in child(iq, "pubsub", "publish-options", "x").elements()]


def is_for_a_device(iq):
    """Some clients of the captures enabled push without any options, or with others than ours."""
    options = [one for one in child(iq, "pubsub").elements() if one.name == "publish-options"]
    names = set(options_of(iq)) if options else set()
    return "service" in names and bool({"device_id", "device"} & names)


@pytest.mark.parametrize("stem", CAPTURES)
def test_a_captured_publish_is_taken(serve, stem):
    """Every form type, valueless field, bare notification, burst, and id of any shape."""
    publishes = captured(stem)
    server = serve(publishes)
    expected = [
        "result" if is_for_a_device(iq) else "cancel/conflict precondition-not-met" for iq in publishes
    ]
    assert server.answers(publishes) == expected
    taken = server.host.push_service.publishes
    assert len(taken) == expected.count("result")
    for publish in taken:
        assert publish.account == ""
        assert publish.options["service"] in ("fcm", "apns")
        assert publish.notification.summary.message_count in (1, None)


def test_most_of_the_captures_are_for_a_device():
    """The table above is not empty."""
    publishes = [iq for stem in CAPTURES for iq in captured(stem)]
    assert len(publishes) > 80
    assert sum(map(is_for_a_device, publishes)) > 0.9 * len(publishes)


def test_a_burst_is_a_push_for_each(serve):
    """ejabberd does not merge what a hibernated session missed; each has its answer."""
    publishes = captured("ejabberd-sm-hibernated-burst10")
    assert len(publishes) == 10
    assert serve(publishes).answers(publishes) == ["result"] * 10


def test_a_publish_that_comes_again_is_answered_again(serve):
    """Under the same id: neither server repeats one, so it is somebody's second push."""
    publishes = captured("prosody-offline-body") * 2
    server = serve(publishes)
    assert server.answers(publishes) == ["result"] * len(publishes)
    assert len(server.host.push_service.taken) == len(publishes)


@pytest.mark.parametrize("stem", ["prosody-offline-body", "ejabberd-offline-body"])
@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (TryLater("busy"), "result"),
        (DeviceUnregistered("gone"), "cancel/item-not-found"),
        (Refused("400"), "wait/internal-server-error"),
    ],
)
def test_real_servers_learn_what_became_of_it(serve, stem, outcome, answer):
    """ejabberd deletes a registration at the first error that is not ``wait`` (INTEROP.md)."""
    publishes = captured(stem)
    server = serve(publishes)
    server.host.push_service.outcome = outcome
    assert server.answers(publishes) == [answer] * len(publishes)


@pytest.mark.parametrize("stem", ["prosody-offline-body", "ejabberd-offline-body"])
def test_a_node_that_is_gone(serve, stem):
    """Both servers stop, sooner or later."""
    publishes = captured(stem)
    server = serve(publishes)
    for iq in publishes:
        server.host.storage.nodes.delete(iq["to"], child(iq, "pubsub", "publish")["node"])
    assert server.answers(publishes) == ["cancel/item-not-found"] * len(publishes)


@pytest.mark.parametrize("stem", ["prosody-offline-body", "ejabberd-offline-body"])
@pytest.mark.parametrize("sender", ["evil.test", "romeo@evil.test", "juliet@chat.test/balcony"])
def test_a_publish_from_somebody_else(serve, stem, sender):
    """Another domain, or another user of the server that may: what its server may is not theirs."""
    publishes = captured(stem)
    server = serve([*publishes])
    server.host.listen_for(sender.partition("@")[2].partition("/")[0] or sender)
    for iq in publishes:
        iq["from"] = sender
    assert server.answers(publishes) == ["auth/forbidden"] * len(publishes)
    assert server.host.push_service.taken == []


@pytest.mark.parametrize(
    ("size", "answer"), [(60_000, "result"), (70_000, "modify/not-acceptable payload-too-big")]
)
@pytest.mark.parametrize("raw", [True, False])
def test_a_notification_that_no_push_service_takes(serve, size, answer, raw):
    """Refused before it is kept, whether or not the octets that it came in are at hand."""
    publishes = captured("prosody-offline-body")[:1]
    server = serve(publishes)
    (iq,) = publishes
    item = child(iq, "pubsub", "publish", "item")
    item.firstChildElement().addElement(("urn:x", "x"), content="y" * size)
    if raw:
        iq.raw = iq.toXml().encode()
    else:
        iq.__dict__.pop("raw", None)
    assert server.answers(publishes) == [answer]


def test_five_megabytes_in_one_publish(serve):
    """Whatever let it through: one answer, nothing kept."""
    publishes = captured("ejabberd-offline-body")[:1]
    server = serve(publishes)
    (iq,) = publishes
    iq.__dict__.pop("raw", None)
    child(iq, "pubsub", "publish", "item").firstChildElement().addContent("é" * 2_500_000)
    assert server.answers(publishes) == ["modify/not-acceptable payload-too-big"]
    assert server.host.push_service.publishes == []
