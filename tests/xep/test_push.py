"""XEP-0357: enable and disable as strict as MongooseIM, notifications as loose as servers write them."""

import pytest

from xmpppush._wokkel import generic
from xmpppush.errors import BadForm, BadStanza
from xmpppush.jids import BadJid
from xmpppush.model import Call, Encrypted, Notification, PushExtras, PushSummary
from xmpppush.testing.builders import a_publish
from xmpppush.xep.pubsub import publish_options, published, request_in
from xmpppush.xep.push import (
    Disable,
    Enable,
    notification_element,
    parse_disable,
    parse_enable,
    parse_notification,
    parse_summary,
    publish_content,
    publish_iq,
)
from xmpppush.xep.xml import to_xml

OPTIONS = "http://jabber.org/protocol/pubsub#publish-options"
FORM_TYPE = f"<field var='FORM_TYPE'><value>{OPTIONS}</value></field>"
SERVICE = "<field var='service'><value>fcm</value></field>"


def parse(xml):
    return generic.parseXml(xml.encode())


def enable(inside="", jid="jid='pubsub.localhost'", node="node='n1'"):
    return parse(f"<enable xmlns='urn:xmpp:push:0' {jid} {node}>{inside}</enable>")


def disable(attributes):
    return parse(f"<disable xmlns='urn:xmpp:push:0' {attributes}/>")


def form(fields, type=" type='submit'"):
    return f"<x xmlns='jabber:x:data'{type}>{fields}</x>"


def notification(inside=""):
    return parse(f"<notification xmlns='urn:xmpp:push:0'>{inside}</notification>")


def test_tutorial_enable():
    """The tutorial's stanza: service, device, silent, topic."""
    fields = "".join(
        f"<field var='{var}'><value>{value}</value></field>"
        for var, value in (("service", "apns"), ("device", "tok"), ("mode", "dev"), ("click_action", "a"))
    )
    assert parse_enable(enable(form(FORM_TYPE + fields))) == (
        "pubsub.localhost",
        "n1",
        {"service": "apns", "device": "tok", "mode": "dev", "click_action": "a"},
    )


# From here on wire/mongooseim-enable.txt row by row.


@pytest.mark.parametrize(
    ("inside", "options"),
    [
        ("", {}),
        (form(FORM_TYPE), {}),
        (form(FORM_TYPE + "<field var='device_id'><value/></field>"), {"device_id": ""}),
        (form(FORM_TYPE + "<field var='whatever'><value>x</value></field>"), {"whatever": "x"}),
        (form(FORM_TYPE + SERVICE + SERVICE.replace("fcm", "apns")), {"service": "apns"}),
        (form(FORM_TYPE + SERVICE) + form(FORM_TYPE + SERVICE.replace("fcm", "apns")), {"service": "fcm"}),
        ("<y xmlns='urn:y'/>", {}),
    ],
)
def test_accepted_forms(inside, options):
    """What MongooseIM accepts."""
    assert parse_enable(enable(inside)).options == options


@pytest.mark.parametrize(
    "inside",
    [
        form(""),
        form(SERVICE),
        form("<field var='FORM_TYPE'><value>urn:wrong</value></field>" + SERVICE),
        form("<field var='FORM_TYPE'/>" + SERVICE),
        form(FORM_TYPE + SERVICE, " type='form'"),
        form(FORM_TYPE + SERVICE, " type='cancel'"),
        form(FORM_TYPE + SERVICE, ""),
        form(FORM_TYPE + "<field var='device_id'><value>t</value><value>u</value></field>"),
        form(FORM_TYPE + "<field var='device_id'/>"),
        form(FORM_TYPE + "<field var='device_id'><value>" + "x" * 17000 + "</value></field>"),
    ],
)
def test_refused_forms(inside):
    """What MongooseIM answers bad-request, and what is too large to keep."""
    with pytest.raises(BadForm):
        parse_enable(enable(inside))


@pytest.mark.parametrize("jid", ["", "jid=''", "jid='a@@b'", "jid='@localhost'", "jid='a@b/'", "jid=' '"])
def test_jid_missing_empty_or_invalid(jid):
    """bad-request, not jid-malformed."""
    for read, request in ((parse_enable, enable(jid=jid)), (parse_disable, disable(jid))):
        with pytest.raises(BadStanza) as caught:
            read(request)
        assert not isinstance(caught.value, BadJid)


@pytest.mark.parametrize("node", ["", "node=''", f"node='{'x' * 10000}'"])
def test_enable_with_node_missing_empty_or_too_long(node):
    """bad-request."""
    with pytest.raises(BadStanza):
        parse_enable(enable(node=node))


@pytest.mark.parametrize(
    ("jid", "pubsub"),
    [
        ("pubsub.localhost/res", "pubsub.localhost"),
        ("PUBSUB.LocalHost", "pubsub.localhost"),
        ("bob@localhost", "bob@localhost"),
        ("push.example.org", "push.example.org"),
    ],
)
def test_jid_is_bare_and_prepared(jid, pubsub):
    """With a resource, in capitals, a user's, a foreign domain's: all are kept bare."""
    assert parse_enable(enable(jid=f"jid='{jid}'")).pubsub == pubsub
    assert parse_disable(disable(f"jid='{jid}'")) == Disable(pubsub, None)


def test_node_is_opaque():
    """Any characters, as they are."""
    assert parse_enable(enable(node="node='/Home/é ☎'")).node == "/Home/é ☎"


def test_disable_with_node():
    """One node, and forms inside are ignored."""
    assert parse_disable(disable("jid='pubsub.localhost' node='n1'")) == ("pubsub.localhost", "n1")


def test_disable_with_empty_node():
    """bad-request: it is neither one node nor all of them."""
    with pytest.raises(BadStanza):
        parse_disable(disable("jid='pubsub.localhost' node=''"))


def test_token_is_no_part_of_repr():
    """The options hold the device token."""
    assert "tok" not in repr(Enable("pubsub.localhost", "n1", {"device_id": "tok"}))


SUMMARY = """<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>
  <field var='message-count'><value>2</value></field>
  <field var='pending-subscription-count'/>
  <field var='last-message-sender' type='jid-single'><value>bob@localhost/x</value></field>
  <field var='last-message-body'><value>Hello</value></field>
  <field var='jingle-session-id'><value>j1</value></field>"""


@pytest.mark.parametrize("type", [" type='form'", " type='submit'", " type='result'", ""])
def test_summary_of_any_form_type(type):
    """Prosody sends type form, ejabberd submit, XEP-0357's example none."""
    assert parse_notification(notification(form(SUMMARY, type))) == Notification(
        PushSummary(2, None, "bob@localhost/x", "Hello"), {"jingle-session-id": "j1"}
    )


def test_bare_notification():
    """ejabberd's for a message without a body: nothing to say, nothing wrong."""
    assert parse_notification(notification()) == Notification()


def test_summary_without_form_type():
    """The first form without FORM_TYPE is taken for the summary; one of another FORM_TYPE is not."""
    count = "<field var='message-count'><value>3</value></field>"
    other = "<field var='FORM_TYPE'><value>urn:other</value></field>"
    assert parse_summary(notification(form(other) + form(count))).message_count == 3
    assert parse_summary(notification(form(other + count))) == PushSummary()
    assert parse_summary(notification(form(count) + form(SUMMARY))).message_count == 2


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1", 1),
        (" 12 ", 12),
        ("007", 7),
        ("", None),
        ("one", None),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("²", None),
        ("٣", None),
        ("9" * 9, 999999999),
        ("9" * 10, None),
        ("9" * 5000, None),
    ],
)
def test_counts(text, count):
    """A count that is none is None; nothing is raised, not for 5000 digits either."""
    fields = f"<field var='message-count'><value>{text}</value></field>"
    assert parse_summary(notification(form(fields))).message_count == count


def test_empty_sender_and_body_are_none():
    """Prosody sends fields without value for what it does not tell."""
    fields = "<field var='last-message-sender'/><field var='last-message-body'><value/></field>"
    assert parse_summary(notification(form(fields))) == PushSummary()


@pytest.mark.parametrize(
    "content",
    [
        Notification(),
        Notification(PushSummary(0, 3, "bob@localhost", "<b>&amp;</b> 'é🌹'"), {"x": "", "y": "]]>"}),
    ],
)
def test_notification_reads_back(content):
    """What is built reads as it was."""
    assert parse_notification(parse(notification_element(content).toXml())) == content


def test_publish_iq():
    """A publish to an app server elsewhere, as XEP-0357 section 7 has it."""
    publish = a_publish(node="é&'", options={"device_id": "tok", "service": "fcm"})
    iq = parse(publish_iq(publish, "p1").toXml())
    assert {**iq.attributes} == {"type": "set", "id": "p1", "from": "localhost", "to": "pubsub.localhost"}
    request = request_in(iq)
    assert (request.name, request["node"]) == ("publish", "é&'")
    item_id, payload = published(iq)
    assert item_id is None
    assert (payload.uri, payload.name) == ("urn:xmpp:push:0", "notification")
    assert parse_notification(payload) == publish.notification
    assert publish_options(iq) == publish.options


@pytest.mark.parametrize(
    "content",
    [
        Notification(),
        Notification(PushSummary(0, 3, "bob@localhost", "<b>&amp;</b> 'é🌹'"), {"x<'": "", "y": "]]>"}),
        Notification(PushSummary(1), {}, PushExtras("high", Call("session-initiate", "s'1", ("audio",)))),
        Notification(extras=PushExtras(encrypted=Encrypted("iv", "text&", True))),
    ],
)
@pytest.mark.parametrize("options", [{}, {"device_id": "tok<&'\"", "a'b": ""}])
def test_publish_content(content, options):
    """The quick way writes what the elements would be."""
    publish = a_publish(node="é&'\"", notification=content, options=options)
    assert publish_content(publish) == to_xml(publish_iq(publish, "p1").firstChildElement(), "jabber:server")


def test_publish_iq_without_options():
    """No publish-options element where the registration had no form."""
    assert "publish-options" not in publish_iq(a_publish(options={}), "p1").toXml()
