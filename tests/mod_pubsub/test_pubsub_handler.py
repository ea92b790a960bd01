"""
Conversations with a pubsub host.

The rows are those of MONGOOSEIM.md "Nodes" and of wire/mongooseim-{nodes,publish,disco}.txt where we
agree; where we do not, docs/differences.rst says why.
"""

import pytest
from attrs import evolve
from twisted.internet.defer import fail
from twisted.logger import globalLogPublisher

from xmpppush._wokkel import generic
from xmpppush.errors import DeviceUnregistered, Refused, StorageError, TryLater
from xmpppush.mod_pubsub import service
from xmpppush.model import Notification, PushSummary
from xmpppush.xep.push import revoked_nodes

ALICE = "alice@localhost/phone"
BOB = "bob@localhost/desk"
FAR = "eve@far.example/x"

NODE_CONFIG = "http://jabber.org/protocol/pubsub#node_config"
PUBLISH_OPTIONS = "http://jabber.org/protocol/pubsub#publish-options"
INFO = "http://jabber.org/protocol/disco#info"
ITEMS = "http://jabber.org/protocol/disco#items"
FEATURE = "http://jabber.org/protocol/pubsub#"


def pubsub(inside):
    return f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{inside}</pubsub>"


def owner(inside):
    return f"<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'>{inside}</pubsub>"


def form(form_type, fields, type="submit"):
    rest = "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in fields.items())
    form_type = f"<field var='FORM_TYPE'><value>{form_type}</value></field>" if form_type else ""
    return f"<x xmlns='jabber:x:data' type='{type}'>{form_type}{rest}</x>"


def configure(fields, node="n1", type="submit"):
    return owner(f"<configure node='{node}'>{form(NODE_CONFIG, fields, type)}</configure>")


def create_with(fields, node="n1"):
    return pubsub(f"<create node='{node}'/><configure>{form(NODE_CONFIG, fields)}</configure>")


def affiliate(jid, affiliation, node="n1"):
    change = f"<affiliation jid='{jid}' affiliation='{affiliation}'/>"
    return owner(f"<affiliations node='{node}'>{change}</affiliations>")


SUMMARY = form(
    "urn:xmpp:push:summary",
    {"message-count": "2", "last-message-sender": "x@y", "last-message-body": "hey"},
)
NOTIFICATION = f"<notification xmlns='urn:xmpp:push:0'>{SUMMARY}</notification>"
ITEM = f"<item>{NOTIFICATION}</item>"
OPTIONS = form(PUBLISH_OPTIONS, {"service": "fcm", "device_id": "tok"})


def publish(items=ITEM, options=OPTIONS, node="n1"):
    options = f"<publish-options>{options}</publish-options>" if options else ""
    return pubsub(f"<publish node='{node}'>{items}</publish>{options}")


def condition(answer):
    """``type/condition`` of an error, the element of pubsub#errors and its feature where there is one."""
    if answer["type"] == "result":
        return "result"
    (error,) = [child for child in answer.elements() if child.name == "error"]
    children = list(error.elements())
    assert children[0].uri == "urn:ietf:params:xml:ns:xmpp-stanzas"
    words = [f"{error['type']}/{children[0].name}"]
    for child in children[1:]:
        if child.uri == "http://jabber.org/protocol/pubsub#errors":
            words += [child.name, *child.attributes.values()]
    return " ".join(words)


def child(answer, *names):
    for name in names:
        (answer,) = [one for one in answer.elements() if one.name == name]
    return answer


def values(answer):
    """``var`` to value of the only form somewhere inside."""
    return {
        field["var"]: str(next(one for one in field.elements() if one.name == "value"))
        for field in child(answer).elements()
        if field.name == "field"
    }


# Creating


def test_create_echoes_the_node(host):
    """The tutorial's create; clients of MongooseIM get the answer they know."""
    answer = host.create()
    assert answer.toXml() == (
        "<iq to='alice@localhost/phone' from='pubsub.localhost' id='i1' type='result'>"
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='n1'/></pubsub></iq>"
    )


@pytest.mark.parametrize(
    ("request_xml", "answer"),
    [
        (pubsub("<create node='n2' type='push'/>"), "result"),
        (pubsub("<create node='n2'/>"), "result"),
        (pubsub("<create node='/home/é ☎' type='push'/>"), "result"),
        (pubsub(f"<create node='{'x' * 1024}' type='push'/>"), "result"),
        (pubsub("<create node='n1' type='push'/>"), "cancel/conflict"),
        (pubsub("<create type='push'/>"), "result"),
        (pubsub("<create node='' type='push'/>"), "result"),
        (pubsub(f"<create node='{'x' * 10000}'/>"), "modify/not-acceptable"),
        *(
            (
                pubsub(f"<create node='n2' type='{type}'/>"),
                "cancel/feature-not-implemented unsupported create-nodes",
            )
            for type in ("nosuch", "flat", "pep")
        ),
        (create_with({"pubsub#access_model": "whitelist", "pubsub#publish_model": "open"}, "n2"), "result"),
        (create_with({"pubsub#publish_model": "publishers"}, "n2"), "result"),
        (create_with({"pubsub#nosuch": "1"}, "n2"), "result"),
        (pubsub("<create node='n2'/><configure/>"), "result"),
        (
            create_with({"pubsub#access_model": "nosuch"}, "n2"),
            "modify/not-acceptable unsupported-access-model",
        ),
        (create_with({"pubsub#publish_model": "nosuch"}, "n2"), "modify/not-acceptable"),
        (create_with({"pubsub#persist_items": "maybe"}, "n2"), "modify/not-acceptable"),
        (
            pubsub(f"<create node='n2'/><configure>{form('urn:x', {'a': 'b'})}</configure>"),
            "modify/bad-request",
        ),
    ],
)
def test_create(host, request_xml, answer):
    """Beside a node n1 that is there already."""
    host.create()
    assert condition(host.ask(request_xml)) == answer


def test_create_conflicts_for_anybody(host):
    """Whoever's the node is."""
    host.create()
    assert condition(host.create(by=BOB)) == "cancel/conflict"


@pytest.mark.parametrize(
    ("access", "by", "answer"),
    [
        ("all", FAR, "result"),
        ("local", ALICE, "result"),
        ("local", FAR, "auth/forbidden"),
        ("none", ALICE, "cancel/not-allowed"),
    ],
)
def test_access_createnode(a_host, access, by, answer):
    """Who may create, as configured."""
    assert condition(a_host(access_createnode=access).create(by=by)) == answer


def test_max_nodes_per_user(a_host):
    """One more than the limit is resource-constraint, and deleting one makes room; others have their own."""
    host = a_host(max_nodes_per_user=2)
    assert [condition(host.create(node)) for node in ("a", "b", "c")] == [
        "result",
        "result",
        "wait/resource-constraint",
    ]
    assert condition(host.create("c", by=BOB)) == "result"
    host.ask(owner("<delete node='a'/>"))
    assert condition(host.create("d")) == "result"


# Every request is answered


@pytest.mark.parametrize(
    ("request_xml", "type", "answer"),
    [
        (pubsub(""), "set", "modify/bad-request"),
        (pubsub("<nosuch/>"), "set", "modify/bad-request"),
        (pubsub("<nosuch/>"), "get", "modify/bad-request"),
        (pubsub("<create node='x'/>"), "get", "modify/bad-request"),
        (pubsub("<create node='x'/><publish node='x'/>"), "set", "modify/bad-request"),
        (owner("<nosuch/>"), "set", "modify/bad-request"),
        (pubsub("<subscribe node='n1' jid='alice@localhost'/>"), "set", "subscribe"),
        (pubsub("<subscribe/>"), "set", "subscribe"),
        (pubsub("<subscribe node='n1' jid='a@@b'/>"), "set", "modify/jid-malformed"),
        (pubsub("<unsubscribe node='n1' jid='alice@localhost'/>"), "set", "subscribe"),
        (pubsub("<subscriptions/>"), "get", "retrieve-subscriptions"),
        (pubsub("<options node='n1' jid='alice@localhost'/>"), "get", "subscription-options"),
        (pubsub("<options node='n1' jid='alice@localhost'/>"), "set", "subscription-options"),
        (pubsub("<items node='n1'/>"), "get", "retrieve-items"),
        (pubsub("<items node='n1' max_items='x'/>"), "get", "retrieve-items"),
        (pubsub("<items/>"), "get", "modify/bad-request nodeid-required"),
        (pubsub("<retract node='n1'><item/></retract>"), "set", "persistent-items"),
        (owner("<purge node='n1'/>"), "set", "persistent-items"),
        (owner("<subscriptions node='n1'/>"), "get", "manage-subscriptions"),
        (owner("<subscriptions node='n1'/>"), "set", "manage-subscriptions"),
        (owner("<delete/>"), "set", "modify/bad-request nodeid-required"),
        ("<x xmlns='urn:nosuch'/>", "set", "cancel/service-unavailable"),
        ("<x xmlns='urn:nosuch'/>", "get", "cancel/service-unavailable"),
        ("<pubsub xmlns='urn:nosuch'/>", "set", "cancel/service-unavailable"),
        ("", "get", "cancel/service-unavailable"),
        ("<ping xmlns='urn:xmpp:ping'/>", "get", "result"),
        ("<query xmlns='jabber:iq:version'/>", "get", "result"),
    ],
)
def test_every_request_gets_one_answer(host, request_xml, type, answer):
    """Also what Wokkel passes over without a word."""
    if "/" not in answer and answer != "result":
        answer = f"cancel/feature-not-implemented unsupported {answer}"
    host.create()
    assert condition(host.ask(request_xml, type=type)) == answer


@pytest.mark.parametrize(
    "stanza",
    [
        "<message type='chat' from='alice@localhost/x' to='pubsub.localhost'><body>hi</body></message>",
        "<presence from='alice@localhost/x' to='pubsub.localhost'/>",
        "<presence type='subscribe' from='alice@localhost' to='pubsub.localhost'/>",
        "<iq type='result' id='i1' from='alice@localhost/x' to='pubsub.localhost'/>",
        "<iq type='error' id='i1' from='alice@localhost/x' to='pubsub.localhost'>"
        + pubsub("<create node='n'/>")
        + "<error type='cancel'/></iq>",
    ],
)
def test_nothing_else_is_answered(host, stanza):
    """Messages, presence, and answers to what nobody asked."""
    assert host.send(stanza) == []


@pytest.mark.parametrize("to", ["alice@pubsub.localhost", "pubsub.localhost/x"])
@pytest.mark.parametrize("request_xml", [pubsub("<create node='n'/>"), f"<query xmlns='{INFO}'/>"])
def test_only_the_host_itself_is_the_service(host, to, request_xml):
    """There are no accounts and no resources on it."""
    type = "set" if "create" in request_xml else "get"
    assert condition(host.ask(request_xml, type=type, to=to)) == "cancel/service-unavailable"


def test_storage_failure_is_wait_and_names_nothing(host, monkeypatch):
    """Our trouble, to be tried again, without its text."""
    monkeypatch.setattr(host.storage.nodes, "create", lambda *_: fail(StorageError("/var/disk")))
    answer = host.create()
    assert condition(answer) == "wait/internal-server-error"
    assert "/var/disk" not in answer.toXml().replace("<create", "")


def test_a_fault_of_ours_is_answered_and_logged_without_the_stanza(host, monkeypatch):
    """internal-server-error, and a traceback that holds no device token."""
    host.create()
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        monkeypatch.setattr(host.push_service, "prepare", lambda *_: {}["missing"])
        answer = host.ask(publish(options=OPTIONS.replace(">tok<", ">secret-token<")))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert condition(answer) == "wait/internal-server-error"
    (text,) = [event["log_text"] for event in events if event.get("isError") and event.get("failure")]
    assert "KeyError" in text
    assert "secret-token" not in text


# Deleting and configuring


def test_delete(host):
    """By its owner only; the second time it is not there."""
    host.create()
    assert condition(host.ask(owner("<delete node='n1'/>"), by=BOB)) == "auth/forbidden"
    assert condition(host.ask(owner("<delete node='n1'/>"))) == "result"
    assert condition(host.ask(owner("<delete node='n1'/>"))) == "cancel/item-not-found"


def test_configuration_is_the_owners(host):
    """Get, set, and who may."""
    host.create()
    assert condition(host.ask(owner("<configure node='n1'/>"), type="get", by=BOB)) == "auth/forbidden"
    assert condition(host.ask(configure({"pubsub#title": "t"}), by=BOB)) == "auth/forbidden"
    assert condition(host.ask(owner("<configure node='x'/>"), type="get")) == "cancel/item-not-found"
    assert condition(host.ask(configure({}, "x"))) == "cancel/item-not-found"
    answer = host.ask(configure({"pubsub#title": "t", "pubsub#notify_delete": "true"}))
    assert answer.children == []
    form_values = values(
        child(host.ask(owner("<configure node='n1'/>"), type="get"), "pubsub", "configure", "x")
    )
    assert form_values["FORM_TYPE"] == NODE_CONFIG
    assert form_values["pubsub#title"] == "t"
    assert form_values["pubsub#notify_delete"] == "true"
    assert form_values["pubsub#access_model"] == "whitelist"
    assert form_values["pubsub#publish_model"] == "publishers"


def test_configuration_that_is_not_sent_stays(host):
    """One option at a time; cancel changes nothing."""
    host.ask(create_with({"pubsub#title": "t", "pubsub#publish_model": "open"}))
    host.ask(configure({"pubsub#title": "u"}))
    assert condition(host.ask(configure({"pubsub#title": "v"}, type="cancel"))) == "result"
    form_values = values(
        child(host.ask(owner("<configure node='n1'/>"), type="get"), "pubsub", "configure", "x")
    )
    assert (form_values["pubsub#title"], form_values["pubsub#publish_model"]) == ("u", "open")


@pytest.mark.parametrize(
    ("request_xml", "answer"),
    [
        (owner("<configure node='n1'/>"), "modify/bad-request"),
        (configure({}, type="form"), "modify/bad-request"),
        (configure({"pubsub#notify_delete": "x"}), "modify/not-acceptable"),
        (configure({"pubsub#access_model": "roster"}), "modify/not-acceptable unsupported-access-model"),
        (configure({"pubsub#nosuch": "x"}), "result"),
        (owner("<configure/>"), "modify/bad-request nodeid-required"),
    ],
)
def test_bad_configuration(host, request_xml, answer):
    """Refused as a whole."""
    host.create()
    assert condition(host.ask(request_xml)) == answer


def test_default_configuration(host):
    """Of the default type, with the choices there are."""
    answer = child(host.ask(owner("<default/>"), type="get"), "pubsub", "default", "x")
    (model,) = [one for one in answer.elements() if one.getAttribute("var") == "pubsub#publish_model"]
    assert model["type"] == "list-single"
    options = [one["label"] for one in model.elements() if one.name == "option"]
    assert options == ["publishers", "open"]
    assert values(answer)["pubsub#publish_model"] == "publishers"


# Affiliations


def affiliations_of(host, node="n1"):
    answer = host.ask(owner(f"<affiliations node='{node}'/>"), type="get")
    return {one["jid"]: one["affiliation"] for one in child(answer, "pubsub", "affiliations").elements()}


def test_affiliations_at_creation(host):
    """The creator owns the node and its server may publish."""
    host.create()
    assert affiliations_of(host) == {"alice@localhost": "owner", "localhost": "publish-only"}


def test_owner_changes_affiliations(host):
    """The flow of MongooseIM's current documentation, and back again."""
    host.create()
    assert host.ask(affiliate("mychat.com", "publish-only")).children == []
    host.ask(affiliate("Bob@LOCALHOST/desk", "publisher"))
    host.ask(affiliate("localhost", "none"))
    assert affiliations_of(host) == {
        "alice@localhost": "owner",
        "bob@localhost": "publisher",
        "mychat.com": "publish-only",
    }


@pytest.mark.parametrize(
    ("request_xml", "by", "answer"),
    [
        (affiliate("bob@localhost", "owner"), BOB, "auth/forbidden"),
        (affiliate("bob@localhost", "owner"), "localhost", "auth/forbidden"),
        (affiliate("bob@localhost", "owner", "x"), ALICE, "cancel/item-not-found"),
        (affiliate("bob@localhost", "king"), ALICE, "modify/not-acceptable"),
        (affiliate("alice@localhost", "none"), ALICE, "modify/not-acceptable"),
        (affiliate("bob@@localhost", "owner"), ALICE, "modify/jid-malformed"),
        (owner("<affiliations node='n1'/>"), ALICE, "modify/bad-request"),
        (
            owner("<affiliations node='n1'><affiliation affiliation='owner'/></affiliations>"),
            ALICE,
            "modify/bad-request",
        ),
        (owner("<affiliations/>"), ALICE, "modify/bad-request nodeid-required"),
    ],
)
def test_refused_affiliations(host, request_xml, by, answer):
    """Nothing of it is done."""
    host.create()
    assert condition(host.ask(request_xml, by=by)) == answer
    assert affiliations_of(host) == {"alice@localhost": "owner", "localhost": "publish-only"}


def test_affiliations_are_listed_for_owners_only(host):
    """A publisher may not read them."""
    host.create()
    host.ask(affiliate("bob@localhost", "publisher"))
    answer = host.ask(owner("<affiliations node='n1'/>"), type="get", by=BOB)
    assert condition(answer) == "auth/forbidden"


def test_own_affiliations(host):
    """Everywhere, or at one node; nobody else's."""
    host.create("n1")
    host.create("n2")
    host.ask(affiliate("bob@localhost", "publisher", "n2"))

    def own(by, attribute=""):
        answer = host.ask(pubsub(f"<affiliations{attribute}/>"), type="get", by=by)
        return {one["node"]: one["affiliation"] for one in child(answer, "pubsub", "affiliations").elements()}

    assert own(ALICE) == {"n1": "owner", "n2": "owner"}
    assert own(ALICE, " node='n2'") == {"n2": "owner"}
    assert own(BOB) == {"n2": "publisher"}
    assert own(BOB, " node='n1'") == {}
    assert own(FAR) == {}


# Publishing


def test_publish(host):
    """The notification goes to the push service, and the answer has the item's id."""
    host.create()
    answer = host.ask(publish())
    item = child(answer, "pubsub", "publish", "item")
    assert (item.parent["node"], len(item["id"])) == ("n1", 20)
    (taken,) = host.push_service.publishes
    assert (taken.sender, taken.pubsub, taken.node, taken.account) == (
        "alice@localhost",
        "pubsub.localhost",
        "n1",
        "",
    )
    assert taken.notification == Notification(PushSummary(2, None, "x@y", "hey"))
    assert taken.options == {"service": "fcm", "device_id": "tok"}


def test_publish_keeps_the_item_id(host):
    """Where the publisher chose one."""
    host.create()
    answer = host.ask(publish(ITEM.replace("<item>", "<item id='mine'>")))
    assert child(answer, "pubsub", "publish", "item")["id"] == "mine"


@pytest.mark.parametrize(
    ("by", "answer"),
    [
        (ALICE, "result"),
        ("alice@localhost", "result"),
        ("localhost", "result"),
        (BOB, "auth/forbidden"),
        ("bob@localhost", "auth/forbidden"),
        (FAR, "auth/forbidden"),
        ("far.example", "auth/forbidden"),
    ],
)
def test_who_publishes(host, by, answer):
    """The owner and its server; not everybody on that server, and no stranger."""
    host.create()
    assert condition(host.ask(publish(), by=by)) == answer
    assert len(host.push_service.taken) == (answer == "result")


def test_publish_model_open(host):
    """Where the owner wants it, anybody but outcasts."""
    host.ask(create_with({"pubsub#publish_model": "open"}))
    assert condition(host.ask(publish(), by=FAR)) == "result"
    host.ask(affiliate("eve@far.example", "outcast"))
    assert condition(host.ask(publish(), by=FAR)) == "auth/forbidden"


@pytest.mark.parametrize(
    ("request_xml", "answer"),
    [
        (publish(node="x"), "cancel/item-not-found"),
        (publish(node=""), "modify/bad-request nodeid-required"),
        (publish(""), "modify/bad-request item-required"),
        (publish("<item/>"), "modify/bad-request payload-required"),
        (publish("<item><foo xmlns='urn:foo'/></item>"), "modify/bad-request invalid-payload"),
        (
            publish("<item><notification xmlns='urn:xmpp:push:1'/></item>"),
            "modify/bad-request invalid-payload",
        ),
        (publish(f"<item>{NOTIFICATION * 2}</item>"), "modify/bad-request invalid-payload"),
        (publish(ITEM * 2), "modify/bad-request invalid-payload"),
        (publish(options=""), "cancel/conflict precondition-not-met"),
        (publish(options=form(PUBLISH_OPTIONS, {"service": "fcm"})), "cancel/conflict precondition-not-met"),
        (
            publish(options=form(PUBLISH_OPTIONS, {"device_id": "t"})),
            "cancel/conflict precondition-not-met",
        ),
        (
            publish(options=form("urn:wrong", {"service": "fcm", "device_id": "t"})),
            "cancel/conflict precondition-not-met",
        ),
        (publish(options=form(PUBLISH_OPTIONS, {"service": "fcm", "device": "t"})), "result"),
        (publish("<item><notification xmlns='urn:xmpp:push:0'/></item>"), "result"),
        (publish(ITEM.replace(">2<", ">many<")), "result"),
        (publish(ITEM.replace("urn:xmpp:push:summary", "urn:wrong")), "result"),
        (publish(ITEM.replace("type='submit'", "type='form'")), "result"),
        (publish(options=OPTIONS.replace("type='submit'", "")), "result"),
    ],
)
def test_published_content(host, request_xml, answer):
    """What is refused, and what of other servers' habits is taken."""
    host.create()
    assert condition(host.ask(request_xml)) == answer
    assert len(host.push_service.taken) == (answer == "result")


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (None, "result"),
        (TryLater("busy"), "result"),
        (DeviceUnregistered("410"), "cancel/item-not-found"),
        (Refused("400"), "wait/internal-server-error"),
    ],
)
def test_outcomes(host, outcome, answer):
    """Of the first try; PEERS.md section 5 says what each does to the publishing server."""
    host.create()
    host.push_service.outcome = outcome
    reply = host.ask(publish())
    assert condition(reply) == answer
    assert "400" not in reply.toXml().replace("code='400'", "")


def test_slow_push_service(host):
    """The answer waits for the first try, ten seconds at the most, and others do not wait with it."""
    host.create()
    host.push_service.silent = True
    request = f"<iq type='set' id='p1' from='localhost' to='pubsub.localhost'>{publish()}</iq>"
    assert host.send(request) == []
    assert condition(host.create("n2")) == "result"
    del host.answers[:]
    host.clock.advance(10.0)
    (answer,) = host.answers
    assert (answer["id"], condition(answer)) == ("p1", "result")


def test_a_device_that_turns_out_to_be_gone_later(host):
    """XEP-0357 section 8: the owner is told in a headline; where the answer is still to come, that tells."""
    host.create()
    host.push_service.silent = True
    request = f"<iq type='set' id='p1' from='localhost' to='pubsub.localhost'>{publish()}</iq>"
    host.send(request)
    (delivery,) = host.push_service.taken
    host.pubsub.unregistered(delivery)
    assert host.answers == []
    host.clock.advance(10.0)
    del host.answers[:]
    host.pubsub.unregistered(delivery)
    (message,) = host.answers
    assert (message.name, message["type"], message["to"]) == ("message", "headline", "alice@localhost")
    assert revoked_nodes(message, "alice@localhost") == ["n1"]
    host.pubsub.unregistered(evolve(delivery, node="no such node"))
    assert len(host.answers) == 1


def test_memory_of_who_waits_is_bounded(host):
    """With too many the oldest are told what is true, that theirs is queued."""
    host.create()
    host.push_service.silent = True
    request = f"<iq type='set' id='p1' from='localhost' to='pubsub.localhost'>{publish()}</iq>"
    host.send(request)
    for _ in range(service.MAX_UNANSWERED):
        assert host.answers == []
        host.router.route(generic.parseXml(request.encode()))
    assert [condition(answer) for answer in host.answers] == ["result"]


def test_stop_while_somebody_waits(host):
    """The component stops cleanly: nothing is left ticking, nothing is raised."""
    host.create()
    host.push_service.silent = True
    host.send(f"<iq type='set' id='p1' from='localhost' to='pubsub.localhost'>{publish()}</iq>")
    host.component.stopService()
    assert host.clock.getDelayedCalls() == []


# Service discovery


def test_disco_info_of_the_host(host):
    """The identity that XEP-0357 asks for, and only features that are there."""
    query = child(host.ask(f"<query xmlns='{INFO}'/>", type="get"), "query")
    identities = {(one["category"], one["type"]) for one in query.elements() if one.name == "identity"}
    features = {one["var"] for one in query.elements() if one.name == "feature"}
    assert identities == {("pubsub", "service"), ("pubsub", "push")}
    assert {INFO, ITEMS, "urn:xmpp:push:0", "http://jabber.org/protocol/pubsub"} <= features
    assert {"urn:xmpp:ping", "jabber:iq:version"} <= features
    assert {FEATURE + name for name in ("create-nodes", "publish", "publish-options")} <= features
    assert {FEATURE + name for name in ("publish-only-affiliation", "access-whitelist")} <= features
    assert FEATURE + "instant-nodes" in features
    assert not {FEATURE + name for name in ("subscribe", "persistent-items", "purge-nodes")} & features


def test_features_without_node_creation(a_host):
    """access_createnode none is seen."""
    answer = a_host(access_createnode="none").ask(f"<query xmlns='{INFO}'/>", type="get").toXml()
    assert "create-nodes" not in answer
    assert "pubsub#publish'" in answer


def test_disco_items_lists_ones_own_nodes(host):
    """MongooseIM shows everybody's to everybody."""
    host.ask(create_with({"pubsub#title": "My phone"}))
    host.create("n2", by=BOB)
    query = child(host.ask(f"<query xmlns='{ITEMS}'/>", type="get"), "query")
    assert [one.attributes for one in query.elements()] == [
        {"jid": "pubsub.localhost", "node": "n1", "name": "My phone"}
    ]
    assert child(host.ask(f"<query xmlns='{ITEMS}'/>", type="get", by=FAR), "query").children == []


@pytest.mark.parametrize("namespace", [INFO, ITEMS])
@pytest.mark.parametrize(
    ("node", "by", "answer"),
    [
        ("n1", ALICE, "result"),
        ("n1", "localhost", "result"),
        ("n1", BOB, "cancel/item-not-found"),
        ("n1", FAR, "cancel/item-not-found"),
        ("x", ALICE, "cancel/item-not-found"),
    ],
)
def test_disco_of_a_node(host, namespace, node, by, answer):
    """For those affiliated; to others it is not there."""
    host.create()
    assert condition(host.ask(f"<query xmlns='{namespace}' node='{node}'/>", type="get", by=by)) == answer


def test_disco_of_an_open_node(host):
    """Access model open shows it to all but outcasts."""
    host.ask(create_with({"pubsub#access_model": "open"}))
    query = f"<query xmlns='{INFO}' node='n1'/>"
    answer = host.ask(query, type="get", by=FAR)
    assert "<identity category='pubsub' type='leaf'/>" in answer.toXml()
    host.ask(affiliate("eve@far.example", "outcast"))
    assert condition(host.ask(query, type="get", by=FAR)) == "cancel/item-not-found"
