"""What Prosody, ejabberd and MongooseIM really sent, through our parser and readers."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from twisted.words.xish.domish import Element

from xmpppush.errors import BadStanza
from xmpppush.model import PushSummary
from xmpppush.server.parser import StreamParser
from xmpppush.xep.namespaces import PUSH
from xmpppush.xep.pubsub import publish_options, published, request_in
from xmpppush.xep.push import parse_disable, parse_enable, parse_summary

WIRE = Path(__file__).parents[1] / "data" / "wire"
COMPONENT = "jabber:component:accept"
PUBLISHES = [
    path.stem
    for path in sorted(WIRE.glob("*.xml"))
    if not path.stem.endswith(("-enable-replies", "-disco-to-component"))
]

# What each server makes of a message with a body, and of one that has nothing to show (INTEROP.md).
WITH_TEXT = {
    "prosody": PushSummary(message_count=1, last_message_body="New Message!"),
    "ejabberd": PushSummary(last_message_body="New message"),
}
WITHOUT_TEXT = {"prosody": PushSummary(message_count=1), "ejabberd": PushSummary()}
NOTHING_TO_SHOW = {
    "include-full-nobody",
    "include-nodummy-body",
    "include-nodummy-nobody",
    "include-nodummy-omemo",
    "include-none-body",
    "include-none-nobody",
    "include-none-omemo",
    "include-sender-nobody",
    "keepalive-idle",
    "mam-offline-composing",
    "mam-own-outgoing",
    "offline-empty-body",
    "offline-groupchat-subject",
    "offline-marker-displayed",
    "offline-nobody-composing",
    "offline-nobody-empty",
    "offline-nobody-receipt",
    "offline-normal-subject-only",
    "sm-hibernated-composing",
    "sm-hibernated-iq",
    "sm-hibernated-subscribe",
}
A_BODY = "Wherefore <art> thou & 🌹?"
SPECIAL = {
    "prosody-include-full-body": [
        PushSummary(1, last_message_sender="juliet3a5afa@full.test/phone", last_message_body=A_BODY)
    ],
    # Of a message it cannot read Prosody tells the sender at most.
    "prosody-include-full-nobody": [PushSummary(1, last_message_sender="juliet3a5afa@full.test/phone")],
    "prosody-include-full-omemo": [PushSummary(1, last_message_sender="juliet3a5afa@full.test/phone")],
    "prosody-two-nodes-one-reenabled": [WITH_TEXT["prosody"]] * 2,
    "ejabberd-include-full-body": [
        PushSummary(last_message_sender="juliet2b1030@full.test/phone", last_message_body=A_BODY)
    ],
    "ejabberd-include-full-omemo": [
        PushSummary(last_message_sender="juliet2b1030@full.test/phone", last_message_body="(encrypted)")
    ],
    "ejabberd-include-sender-body": [PushSummary(last_message_sender="juliet99a022@sender.test/phone")],
    "ejabberd-include-sender-omemo": [PushSummary(last_message_sender="juliet99a022@sender.test/phone")],
    "ejabberd-keepalive-message": [WITH_TEXT["ejabberd"], WITHOUT_TEXT["ejabberd"]],
    # Where Prosody says that there is a message, ejabberd says nothing of a call.
    "ejabberd-mam-jingle-propose": [WITHOUT_TEXT["ejabberd"]],
    "ejabberd-offline-jingle-propose": [WITHOUT_TEXT["ejabberd"]],
    # Prosody makes one push of a burst, or of two presences; ejabberd one of each.
    "ejabberd-sm-hibernated-burst10": [WITH_TEXT["ejabberd"]] * 10,
    "ejabberd-sm-hibernated-subscribe": [WITHOUT_TEXT["ejabberd"]] * 2,
}


def stanzas_in(xml: str, namespace: str = COMPONENT) -> list[Element]:
    """The stanzas of ``xml`` as our parser gives them to the handlers."""
    stanzas: list[Element] = []
    parser = StreamParser(lambda root: None, stanzas.append, lambda: None, 1 << 20, namespace)
    parser.feed(
        f"<stream:stream xmlns='{namespace}' xmlns:stream='http://etherx.jabber.org/streams'>{xml}".encode()
    )
    return stanzas


def captured(name: str) -> list[Element]:
    """The stanzas of a capture; our parser takes no comments, so those are cut out."""
    text = (WIRE / f"{name}.xml").read_text(encoding="utf-8")
    return stanzas_in(re.sub(r"<!--.*?-->", "", text))


def expected_summaries(name: str) -> list[PushSummary]:
    """From the name of the capture: what its publishes say."""
    server, _, event = name.partition("-")
    return SPECIAL.get(name) or [(WITHOUT_TEXT if event in NOTHING_TO_SHOW else WITH_TEXT)[server]]


def test_no_capture_is_forgotten():
    """Every table entry is about a capture that is there."""
    assert len(PUBLISHES) == 76
    assert SPECIAL.keys() <= set(PUBLISHES)
    assert {name.partition("-")[2] for name in PUBLISHES} >= NOTHING_TO_SHOW


@pytest.mark.parametrize("name", PUBLISHES)
def test_captured_summaries_are_read(name):
    """Missing forms, forms of type form, fields without value and labels: all read alike."""
    payloads = [published(iq)[1] for iq in captured(name)]
    assert {(payload.uri, payload.name) for payload in payloads} == {(PUSH, "notification")}
    assert [parse_summary(payload) for payload in payloads] == expected_summaries(name)


@pytest.mark.parametrize("name", PUBLISHES)
def test_captured_publishes_name_a_node_and_an_id(name):
    """The publisher is a domain without a user, the node is there, and the id survives as it is."""
    for iq in captured(name):
        assert "@" not in iq["from"]
        assert request_in(iq)["node"]
        assert len(iq["id"]) >= 64
        assert iq.uri is None


@pytest.mark.parametrize(
    "name", [name for name in PUBLISHES if "two-nodes" not in name and "opaque" not in name]
)
def test_captured_publish_options_are_read(name):
    """The options come back as the client enabled them, in their order."""
    for iq in captured(name):
        assert list(publish_options(iq).items()) == [
            ("service", "fcm"),
            ("device_id", f"tok-{request_in(iq)['node']}"),
            ("mode", "prod"),
            ("click_action", "open.chat"),
        ]


@pytest.mark.parametrize("name", ["prosody-two-nodes-one-reenabled", "ejabberd-two-nodes-one-reenabled"])
def test_options_of_the_last_enable_count(name):
    """The node that was enabled twice has the second token, under the tutorial's name for it."""
    options = publish_options(captured(name)[0])
    assert options == {"service": "apns", "device": "replaced-token", "mode": "dev"}


@pytest.mark.parametrize("name", ["prosody-publish-options-opaque", "ejabberd-publish-options-opaque"])
def test_unknown_options_are_kept(name):
    """A second value is left out, a missing one is empty, entities and non-ASCII text are whole."""
    options = publish_options(captured(name)[0])
    assert options == {"secret": "eruio234vzxc2kla-91", "list": "a", "z": "", "u": "é<&🌹"}


@pytest.mark.parametrize("name", ["prosody-enable-replies", "ejabberd-enable-replies"])
def test_replies_with_language_and_errors_parse(name):
    """Fourteen answers, among them xml:lang and nested error elements, come through whole."""
    replies = captured(name)
    assert len(replies) == 14
    assert {reply["type"] for reply in replies} == {"result", "error"}
    for reply in replies:
        (again,) = stanzas_in(reply.toXml(defaultUri=COMPONENT))
        assert again.toXml() == reply.toXml()


# MongooseIM 6.2.1: its answer to each <enable/> and <disable/> is what our readers decide as well.


def conversations(name: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Title and (mark, text) lines of each conversation; text that goes on in the next line is joined."""
    for block in (WIRE / f"{name}.txt").read_text(encoding="utf-8").split("\n=== ")[1:]:
        title, *lines = block.split("\n")
        marked: list[tuple[str, str]] = []
        for line in lines:
            if line[:2] in ("C>", "S>", "H>", "H<"):
                marked.append((line[:2], re.sub(r"^\[\w+\] ", "", line[3:])))
            elif marked and not line.startswith("#"):
                marked[-1] = (marked[-1][0], f"{marked[-1][1]}\n{line}")
        yield title, marked


def exchanges(name: str, *wanted: str) -> Iterator[tuple[str, str, str]]:
    """Title, request and type of the answer, for requests whose text holds one of ``wanted``."""
    for title, lines in conversations(name):
        for (mark, request), (next_mark, reply) in pairwise(lines):
            if mark == "C>" and next_mark == "S>" and any(word in request for word in wanted):
                (answer,) = stanzas_in(reply, "jabber:client")
                yield title, request, answer["type"]


# Who is asked decides these, not the content.
ABOUT_THE_ADDRESS = re.compile(r"sent to|as iq get|unknown child in|push:1")
READERS = {"enable": parse_enable, "disable": parse_disable}
# jids.parse_jid takes a JID that begins with @: twisted.words gives None, not "", for the missing user.
NOT_YET = {"enable with jid @domain only": pytest.mark.xfail(strict=True)}


@pytest.mark.parametrize(
    ("title", "request_xml", "answer"),
    [
        pytest.param(*exchange, id=exchange[0], marks=NOT_YET.get(exchange[0], ()))
        for exchange in exchanges("mongooseim-enable", "<enable", "<disable")
        if not ABOUT_THE_ADDRESS.search(exchange[0])
    ],
)
def test_enable_and_disable_are_judged_as_mongooseim_does(title, request_xml, answer):
    """A client that works with MongooseIM gets the same answers here."""
    (iq,) = stanzas_in(request_xml, "jabber:client")
    child = next(iq.elements())
    try:
        READERS[child.name](child)
        ours = "result"
    except BadStanza:
        ours = "error"
    assert ours == answer
