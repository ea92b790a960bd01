"""The short way to read a publish gives what the long one gives, or nothing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpppush.server.parser import StreamParser
from xmpppush.xep.namespaces import COMPONENT, STREAMS
from xmpppush.xep.publishes import publish_at, publish_result
from xmpppush.xep.pubsub import publish_options, published, request_in
from xmpppush.xep.push import parse_notification

WIRE = Path(__file__).parents[1] / "data" / "wire"
LINES = [
    pytest.param(line, id=f"{path.stem}-{number}")
    for path in sorted(WIRE.glob("*.xml"))
    for number, line in enumerate(path.read_bytes().splitlines())
    if b"<publish " in line and line.startswith(b"<iq")
]
A_PUBLISH = (WIRE / "prosody-offline-body.xml").read_bytes().strip()


def parsed(data):
    stanzas = []
    parser = StreamParser(lambda _: None, stanzas.append, lambda: None, 1 << 20, COMPONENT)
    parser.feed(f"<stream:stream xmlns='{COMPONENT}' xmlns:stream='{STREAMS}'>".encode())
    parser.feed(data)
    (stanza,) = stanzas
    return stanza


def check_same(data):
    """Read both ways; returns whether the short one could."""
    request = publish_at(data, 0)
    if request is None:
        return False
    iq = parsed(data)
    item, payload = published(iq)
    assert (request.id, request.sender, request.to) == (iq["id"], iq["from"], iq["to"])
    assert request.item == (item or "")
    assert request.end == len(data)
    assert request.publish.node == request_in(iq)["node"]
    assert request.publish.notification == parse_notification(payload)
    assert request.publish.options == publish_options(iq)
    return True


@pytest.mark.parametrize("line", LINES)
def test_what_servers_sent_is_read_the_short_way(line):
    """Every publish that was captured is, and says the same."""
    opaque = b"<value>a</value><value>b</value>" in line
    assert check_same(line) or opaque


def test_it_begins_anywhere_and_says_where_it_ends():
    """A segment holds many; what is behind is somebody else's."""
    data = b"<presence/>" + A_PUBLISH + b"<iq"
    request = publish_at(data, 11)
    assert request is not None
    assert data[request.end :] == b"<iq"
    assert publish_at(data, 0) is None
    assert publish_at(A_PUBLISH[:-1], 0) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"type='set'", b"type='get'"),
        (b"type='set'", b"type='set' type='set'"),
        (b"to='push.chat.test'", b"to='a@push.chat.test'"),
        (b"to='push.chat.test'", b"to='push.chat.test/r'"),
        (b"from='chat.test'", b"from='@'"),
        (b" from='chat.test'", b""),
        (b"<field var='service'>", b"<field xmlns='urn:x' var='service'>"),
        (b"<field var='service'>", b"<field>"),
        (b"<field var='service'>", b"<field var='device_id'>"),
        (b"<value>fcm</value>", b"<value>f&#99;m</value>"),
        (b"<value>fcm</value>", b"<value>f<b/>m</value>"),
        (b"<value>fcm</value>", b"<value>f\r\nm</value>"),
        (b"<value>fcm</value>", b"<value>f\xffm</value>"),
        (b"<value>fcm</value>", b"<value>fcm</value> "),
        (b"<item>", b"<item><a/></item><item>"),
        (b"</pubsub>", b"<configure/></pubsub>"),
        (b"<notification xmlns='urn:xmpp:push:0'>", b"<notification xmlns='urn:xmpp:push:1'>"),
        (b"<publish node='", b"<publish node='&amp;"),
        (b"<x type='submit' xmlns='jabber:x:data'>", b"<x type='submit' xmlns='jabber:x:dat'>"),
        (b"<iq ", b"<iq xmlns='jabber:client' "),
        (b"from='chat.test'", b"from='chat<test'"),
        (b"<field type='text-single' var='message-count'>", b"<field var='last-message-body'>"),
        (b"<value>fcm</value>", b"<value>fcm</value><value>" + b"m" * 3000 + b"<b/></value>"),
    ],
)
def test_anything_else_is_left_to_the_parser(old, new):
    """Whatever is not quite the usual, or not right, is not read here."""
    changed = A_PUBLISH.replace(old, new, 1)
    assert changed != A_PUBLISH
    assert publish_at(changed, 0) is None


@pytest.mark.parametrize("value", ['"a\'b"', "'a\"b'"])
@pytest.mark.parametrize("name", [b"id", b"from", b"node", b"item id"])
def test_the_answer_is_xml_whatever_quotes_came(name, value):
    """A quote within the other ones, as servers may write it, ends no attribute of the answer."""
    data = A_PUBLISH.replace(b"<item>", b"<item id='i'>")
    head, _, tail = data.partition(name + b"='")
    resource = b"chat.test/" if name == b"from" else b""
    changed = (
        head + name + b"=" + value.encode()[:1] + resource + value.encode()[1:] + tail.partition(b"'")[2]
    )
    assert parsed(changed)["type"] == "set"
    request = publish_at(changed, 0)
    if request is not None:
        assert parsed(publish_result(request, request.item).encode())["type"] == "result"


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=20)


def escaped(text):
    return (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("'", "&apos;")
        .replace('"', "&quot;")
    )


@given(st.dictionaries(TEXT, TEXT, max_size=5), TEXT, st.sampled_from(["'", '"']))
def test_any_options_and_texts_are_read_alike(options, body, quote):
    """Where both ways can, they agree."""
    fields = "".join(
        f"<field var='{escaped(var)}'><value>{escaped(value)}</value></field>"
        for var, value in options.items()
    )
    data = A_PUBLISH.decode().replace("<field var='service'><value>fcm</value></field>", fields)
    data = data.replace("New Message!", escaped(body))
    check_same(data.replace("'", quote).encode())


def test_an_apostrophe_in_the_id_is_left_to_the_parser():
    """An id in double quotes may hold one; written out as it is, it would end our answer's attribute."""
    quoted = A_PUBLISH.replace(b"'", b'"')
    assert publish_at(quoted, 0) is not None
    assert publish_at(quoted.replace(b'id="', b"id=\"o'", 1), 0) is None


def test_what_is_remembered_is_of_the_same_words():
    """The same options are one object; others, or others' values, are not mixed up with them."""
    first, again = publish_at(A_PUBLISH, 0), publish_at(A_PUBLISH, 0)
    assert first is not None
    assert again is not None
    assert first.publish.options is again.publish.options
    for old, new in ((b"New Message!", b"a &lt;b&gt; > c"), (b"fcm", b"apns"), (b"<item>", b"<item id='i'>")):
        assert check_same(A_PUBLISH.replace(old, new))
    assert check_same(A_PUBLISH.replace(b"<value>fcm", b"<value>" + b"m" * 3000))


def test_the_answer_names_node_and_item():
    """XEP-0060 section 7.1.2, addresses swapped and the id as it came."""
    request = publish_at(A_PUBLISH.replace(b"<item>", b"<item id='i7'>"), 0)
    assert request is not None
    answer = parsed(publish_result(request, request.item).encode())
    assert (answer["type"], answer["id"]) == ("result", request.id)
    assert (answer["from"], answer["to"]) == ("push.chat.test", "chat.test")
    publish = answer.pubsub.publish
    assert (publish["node"], publish.item["id"]) == (request.publish.node, "i7")
