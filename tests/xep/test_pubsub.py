"""What is read of XEP-0060 beside Wokkel."""

import time

import pytest

from xmpppush._wokkel import generic
from xmpppush.errors import (
    BadForm,
    BadStanza,
    InvalidPayload,
    ItemRequired,
    NodeIdMissing,
    PayloadRequired,
)
from xmpppush.jids import BadJid
from xmpppush.xep.pubsub import (
    affiliations,
    configuration,
    create_type,
    publish_options,
    published,
    request_in,
)

CONFIG = (
    "<x xmlns='jabber:x:data' type='{type}'><field var='FORM_TYPE'>"
    "<value>http://jabber.org/protocol/pubsub#{name}</value></field>"
    "<field var='pubsub#title'><value>a</value></field><field var='pubsub#title'><value>b</value></field></x>"
)


def iq(inside, type="set", owner=False):
    ns = "http://jabber.org/protocol/pubsub" + ("#owner" if owner else "")
    return generic.parseXml(f"<iq type='{type}'><pubsub xmlns='{ns}'>{inside}</pubsub></iq>".encode())


@pytest.mark.parametrize(
    ("inside", "type", "owner", "name"),
    [
        ("<create node='n'/><configure/>", "set", False, "create"),
        ("<create/>", "set", False, "create"),
        ("<publish node='n'/><publish-options/>", "set", False, "publish"),
        ("<options node='n'/><subscribe node='n' jid='a@b'/>", "set", False, "subscribe"),
        ("<items node='n'/><set xmlns='http://jabber.org/protocol/rsm'/>", "get", False, "items"),
        ("<default/>", "get", True, "default"),
        ("<delete node='n'/>", "set", True, "delete"),
    ],
)
def test_request_in(inside, type, owner, name):
    """The one element that says what is wanted."""
    assert request_in(iq(inside, type, owner)).name == name


@pytest.mark.parametrize(
    ("inside", "type", "owner"),
    [
        ("", "set", False),
        ("<nosuch/>", "set", False),
        ("<create node='n'/>", "get", False),
        ("<create node='n'/>", "set", True),
        ("<delete node='n'/>", "set", False),
        ("<create node='n'/><publish node='n'/>", "set", False),
        ("<create node='a'/><create node='b'/>", "set", False),
        ("<create xmlns='urn:other' node='n'/>", "set", False),
        ("<delete xmlns='http://jabber.org/protocol/pubsub#owner' node='n'/>", "set", False),
    ],
)
def test_no_request_or_two(inside, type, owner):
    """Nothing that is known there, or more than one: bad-request."""
    with pytest.raises(BadStanza):
        request_in(iq(inside, type, owner))


def test_no_pubsub_element():
    """An iq without it never gets here, and would be told so."""
    with pytest.raises(BadStanza):
        request_in(generic.parseXml(b"<iq type='set'><pubsub xmlns='urn:x'/></iq>"))


@pytest.mark.parametrize("node", ["", " node=''"])
@pytest.mark.parametrize(
    ("name", "type", "owner"),
    [
        ("publish", "set", False),
        ("configure", "get", True),
        ("configure", "set", True),
        ("delete", "set", True),
        ("affiliations", "get", True),
        ("affiliations", "set", True),
    ],
)
def test_node_is_missing(name, type, owner, node):
    """What is about a node has to name it."""
    with pytest.raises(NodeIdMissing):
        request_in(iq(f"<{name}{node}/>", type, owner))


@pytest.mark.parametrize(
    "inside", ["<subscribe node='n' jid='@@'/>", "<publish node='n'><item jid='a@'/></publish>"]
)
def test_malformed_addresses(inside):
    """Wokkel would fail on them with internal-server-error."""
    with pytest.raises(BadJid):
        request_in(iq(inside))


@pytest.mark.parametrize(
    ("attribute", "type"), [("type='push'", "push"), ("", None), ("type=''", None), ("type='x'", "x")]
)
def test_create_type(attribute, type):
    """The node type, which Wokkel does not read."""
    assert create_type(iq(f"<create node='n' {attribute}/>")) == type


def test_configuration_of_a_create():
    """The form beside create, none needed; the last of a field counts."""
    form = CONFIG.format(type="submit", name="node_config")
    assert configuration(iq(f"<create node='n'/><configure>{form}</configure>")) == {"pubsub#title": "b"}
    assert configuration(iq("<create node='n'/><configure/>")) == {}
    assert configuration(iq("<create node='n'/>")) == {}


def test_configuration_of_a_node():
    """A form is needed; cancel leaves things as they are."""
    form = CONFIG.format(type="submit", name="node_config")
    cancel = "<x xmlns='jabber:x:data' type='cancel'/>"
    assert configuration(iq(f"<configure node='n'>{form}</configure>", owner=True)) == {"pubsub#title": "b"}
    assert configuration(iq(f"<configure node='n'>{cancel}</configure>", owner=True)) is None


@pytest.mark.parametrize(
    "form",
    [
        "",
        CONFIG.format(type="form", name="node_config"),
        CONFIG.format(type="", name="node_config"),
        CONFIG.format(type="submit", name="publish-options"),
    ],
)
def test_bad_configuration(form):
    """No form, not submitted, or a form for something else."""
    with pytest.raises(BadForm):
        configuration(iq(f"<configure node='n'>{form}</configure>", owner=True))


def test_affiliations():
    """Bare JID to affiliation as sent; other elements are ignored."""
    changes = (
        "<affiliation jid='Bob@Localhost/x' affiliation='publisher'/>"
        "<affiliation jid='chat.example' affiliation='none'/><other/>"
    )
    assert affiliations(iq(f"<affiliations node='n'>{changes}</affiliations>", owner=True)) == {
        "bob@localhost": "publisher",
        "chat.example": "none",
    }


def test_addresses_have_an_end_together():
    """Each is prepared at some microseconds a character, whoever asks."""
    many = "".join(f"<affiliation jid='{'É' * 500}@b{n}' affiliation='member'/>" for n in range(200))
    before = time.process_time()
    with pytest.raises(BadStanza, match="addresses"):
        request_in(iq(f"<affiliations node='n'>{many}</affiliations>", owner=True))
    assert time.process_time() - before < 0.3


@pytest.mark.parametrize(
    "changes",
    [
        "",
        "<affiliation affiliation='owner'/>",
        "<affiliation jid='a@b'/>",
        "<affiliation jid='' affiliation='owner'/>",
        "<affiliation jid='a@@b' affiliation='owner'/>",
        "<affiliation jid='a@b' affiliation='owner'/><affiliation jid='A@b/r' affiliation='none'/>",
    ],
)
def test_bad_affiliations(changes):
    """A JID or affiliation missing or malformed, a JID twice, nothing at all."""
    with pytest.raises(BadStanza):
        affiliations(iq(f"<affiliations node='n'>{changes}</affiliations>", owner=True))


def test_publish_options():
    """Read from the stanza, where Wokkel leaves None."""
    form = (
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>"
        "<value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
        "<field var='secret'><value>s</value></field><field var='z'/></x>"
    )
    assert publish_options(iq(f"<publish node='n'/><publish-options>{form}</publish-options>")) == {
        "secret": "s",
        "z": "",
    }
    assert publish_options(iq("<publish node='n'/><publish-options/>")) == {}
    assert publish_options(iq("<publish node='n'/>")) == {}


def test_published():
    """Id and payload; white space between elements is nothing."""
    item_id, payload = published(iq("<publish node='n'> <item id='i'> <a xmlns='urn:a'/> </item> </publish>"))
    assert (item_id, payload.uri) == ("i", "urn:a")


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ("", ItemRequired),
        ("<item/>", PayloadRequired),
        ("<item>text</item>", PayloadRequired),
        ("<item><a/></item><item><a/></item>", InvalidPayload),
        ("<item><a/><a/></item>", InvalidPayload),
    ],
)
def test_bad_items(items, error):
    """Exactly one item with exactly one payload."""
    with pytest.raises(error):
        published(iq(f"<publish node='n'>{items}</publish>"))
