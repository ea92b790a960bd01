"""What Prosody, ejabberd and MongooseIM really sent, through our parser and readers."""

import json
import re
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest
from twisted.words.xish.domish import Element

from xmpppush.errors import BadStanza
from xmpppush.mod_push_service_mongoosepush.payload import request_for
from xmpppush.model import Notification, Publish, PushSummary
from xmpppush.server.parser import StreamParser
from xmpppush.xep.namespaces import CLIENT, PUSH
from xmpppush.xep.pubsub import publish_options, published, request_in
from xmpppush.xep.push import parse_disable, parse_enable, parse_notification, parse_summary

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
                (answer,) = stanzas_in(reply, CLIENT)
                yield title, request, answer["type"]


# Who is asked decides these, not the content.
ABOUT_THE_ADDRESS = re.compile(r"sent to|as iq get|unknown child in|push:1")
READERS = {"enable": parse_enable, "disable": parse_disable}


@pytest.mark.parametrize(
    ("title", "request_xml", "answer"),
    [
        pytest.param(*exchange, id=exchange[0])
        for exchange in exchanges("mongooseim-enable", "<enable", "<disable")
        if not ABOUT_THE_ADDRESS.search(exchange[0])
    ],
)
def test_enable_and_disable_are_judged_as_mongooseim_does(title, request_xml, answer):
    """A client that works with MongooseIM gets the same answers here."""
    (iq,) = stanzas_in(request_xml, CLIENT)
    child = next(iq.elements())
    try:
        READERS[child.name](child)
        ours = "result"
    except BadStanza:
        ours = "error"
    assert ours == answer


# MongooseIM's requests to MongoosePush are ours as well, value for value.


def requests_in(lines: list[tuple[str, str]]) -> Iterator[tuple[str, object]]:
    """Path and JSON of each request of a conversation."""
    for mark, text in lines:
        if mark == "H>":
            head, _, body = text.partition("\n   \n")
            yield head.removeprefix("POST ").partition(" HTTP/1.1")[0], json.loads(body)


def publishes_of(lines: list[tuple[str, str]]) -> Iterator[tuple[str, object, Publish]]:
    """Path, JSON and what we make of the publish that led to it."""
    (iq,) = stanzas_in(next(text for mark, text in lines if mark == "C>" and "<publish " in text), CLIENT)
    notification = parse_notification(published(iq)[1])
    publish = Publish("u32@localhost", "pubsub.localhost", "node-u32", notification, publish_options(iq))
    yield from ((path, body, publish) for path, body in requests_in(lines))


PUBLISHED = [
    pytest.param(*pushed, id=title)
    for title, lines in conversations("mongooseim-publish")
    for pushed in islice(publishes_of(lines) if any(mark == "H>" for mark, _ in lines) else (), 1)
    # Of a FORM_TYPE that is no summary MongooseIM takes the fields all the same.
    if "wrong FORM_TYPE" not in title
]


@pytest.mark.parametrize(("path", "body", "publish"), PUBLISHED)
def test_a_publish_becomes_the_request_that_mongooseim_makes(path, body, publish):
    """Path and JSON for version 3, numbers as numbers, extra fields of the summary included."""
    ours = request_for(publish, "v3")
    assert (ours[0], json.loads(ours[1])) == (path, expected_of(body))


def expected_of(body):
    """MongooseIM's JSON with the one difference: counts of a form are text to it, but for the first."""
    data = body.get("data", {})
    if "pending-subscription-count" in data:
        data["pending-subscription-count"] = int(data["pending-subscription-count"])
    return body


# Values that MongoosePush's schema types: MongooseIM sends every option as text.
TYPED = {"time_to_live": int, "mutable_content": lambda text: text == "true"}


def pushes_of(lines: list[tuple[str, str]]) -> Iterator[tuple[str, object, Publish]]:
    """Path, JSON and our publish for a message to a user who has enabled push in this conversation."""
    enables = [text for mark, text in lines if mark == "C>" and "<enable" in text]
    messages = [text for mark, text in lines if mark == "C>" and "<message" in text]
    posts = list(requests_in(lines))
    if len(enables) != 1 or not messages or not posts:
        return
    enabled = parse_enable(next(stanzas_in(enables[0], CLIENT)[0].elements()))
    (message,) = stanzas_in(messages[0], CLIENT)
    body = "".join(str(child) for child in message.elements() if child.name == "body")
    notification = Notification(PushSummary(1, None, "bob@localhost", body))
    yield *posts[0], Publish("localhost", enabled.pubsub, enabled.node, notification, enabled.options)


# We are stricter: percent-encoding, a service that no pool can have, a device id that is none, and TRUE,
# which is no boolean (MongooseIM takes all but "true" for false).
WHERE_WE_DIFFER = ("device_id with", "unknown service name", "empty device_id", "silent=TRUE")
PUSHED = [
    pytest.param(*pushed, id=title)
    for title, lines in conversations("mongooseim-push")
    if not any(word in title for word in WHERE_WE_DIFFER)
    for pushed in pushes_of(lines)
]


@pytest.mark.parametrize(("path", "body", "publish"), PUSHED)
def test_options_of_an_enable_become_the_request_that_mongooseim_makes(path, body, publish):
    """Every documented publish option is where MongooseIM puts it."""
    ours = request_for(publish, "v3")
    expected = {name: TYPED.get(name, lambda value: value)(value) for name, value in body.items()}
    assert (ours[0], json.loads(ours[1])) == (path, expected)


def test_both_tables_of_requests_have_something_in_them():
    """The captures are read, not skipped."""
    assert (len(PUBLISHED), len(PUSHED)) == (13, 15)
