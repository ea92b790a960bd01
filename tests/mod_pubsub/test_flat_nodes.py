"""Conversations with flat nodes: items are kept, and told to subscribers (XEP-0060 sections 6 to 8)."""

import pytest
from twisted.internet.defer import Deferred

from xmpppush.mod_pubsub.rules import MOST_ITEMS, MOST_SUBSCRIPTIONS
from xmpppush.testing.builders import a_subscription
from xmpppush.testing.pubsub import (
    AUTHORIZATION,
    INFO,
    ITEMS,
    NODE_CONFIG,
    PUBLISH_OPTIONS,
    SUBSCRIBE_OPTIONS,
    child,
    condition,
    fields_in,
    form,
    owner,
    pubsub,
)
from xmpppush.testing.sessions import stanza_of

ALICE, BOB, FAR = "alice@localhost/phone", "bob@localhost/desk", "eve@far.example/x"
ENTRY = "<entry xmlns='http://www.w3.org/2005/Atom'><title>One &amp; 1</title></entry>"
HOST = "pubsub.localhost"


class Flat:
    """A host with flat nodes: an answer to each request, and what is sent besides."""

    def __init__(self, host):
        self.host = host
        self.events = []

    def ask(self, xml, type="set", by=ALICE):
        """The answer to a request; `events` has the messages that went out with it."""
        answers = self.host.send(f"<iq type='{type}' id='i1' from='{by}' to='{HOST}'>{xml}</iq>")
        (answer,) = [each for each in answers if each.name == "iq"]
        self.events = [each for each in answers if each.name == "message"]
        assert (answer["id"], answer["from"], answer["to"]) == ("i1", HOST, by)
        return answer

    def says(self, xml, type="set", by=ALICE):
        return condition(self.ask(xml, type, by))

    def create(self, node="n1", by=ALICE, **config):
        fields = {f"pubsub#{var}": value for var, value in config.items()}
        configure = f"<configure>{form(NODE_CONFIG, fields)}</configure>"
        assert self.says(pubsub(f"<create node='{node}' type='flat'/>{configure}"), by=by) == "result"

    def configure(self, **config):
        fields = {f"pubsub#{var}": value for var, value in config.items()}
        return self.says(owner(f"<configure node='n1'>{form(NODE_CONFIG, fields)}</configure>"))

    def publish(self, item="i", payload=ENTRY, by=ALICE, options=None):
        inside = "" if item is None else f"<item{f' id={item!r}' if item else ''}>{payload}</item>"
        more = (
            "" if options is None else f"<publish-options>{form(PUBLISH_OPTIONS, options)}</publish-options>"
        )
        return self.says(pubsub(f"<publish node='n1'>{inside}</publish>{more}"), by=by)

    def subscribe(self, by=BOB, jid=None, options="", node="n1"):
        jid = by.partition("/")[0] if jid is None else jid
        return self.ask(pubsub(f"<subscribe node='{node}' jid='{jid}'/>{options}"), by=by)

    def affiliate(self, jid, affiliation):
        change = f"<affiliation jid='{jid}' affiliation='{affiliation}'/>"
        assert self.says(owner(f"<affiliations node='n1'>{change}</affiliations>")) == "result"

    def items(self, attributes="", inside="", by=ALICE):
        answer = self.ask(pubsub(f"<items node='n1'{attributes}>{inside}</items>"), "get", by)
        if answer["type"] == "error":
            return condition(answer)
        return [one["id"] for one in child(answer, "pubsub", "items").elements()]

    def decide(self, allow, by=ALICE, jid="bob@localhost", type="submit", node="n1"):
        fields = {"pubsub#node": node, "pubsub#subscriber_jid": jid, "pubsub#allow": allow}
        answer = form(AUTHORIZATION, fields, type)
        return list(self.host.send(f"<message from='{by}' to='{HOST}' id='m1'>{answer}</message>"))

    def told(self):
        """Who got an event, and which."""
        return [(each["to"], child(each, "event").firstChildElement().name) for each in self.events]


@pytest.fixture
def flat(a_host):
    return Flat(a_host(plugins=("push", "flat")))


# Publishing and being told


def test_publish_is_told_with_its_payload(flat):
    """To who subscribed, as a headline from the host, before the publisher has the answer."""
    flat.create()
    assert condition(flat.subscribe()) == "result"
    flat.host.clock.advance(60.0)
    assert flat.publish("i1") == "result"
    (message,) = flat.events
    assert (message["from"], message["to"], message["type"]) == (HOST, "bob@localhost", "headline")
    assert len(message["id"]) == 20
    assert child(message, "event").toXml() == (
        "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='n1'><item id='i1'>"
        f"{ENTRY}</item></items></event>"
    )


def test_everybody_gets_a_message_of_their_own(flat):
    """Each address once, with an id of its own."""
    flat.create()
    for jid in (BOB, "bob@localhost"):
        flat.subscribe(jid=jid)
    flat.subscribe(by=FAR)
    flat.publish()
    assert sorted(each["to"] for each in flat.events) == sorted([BOB, "bob@localhost", "eve@far.example"])
    assert len({each["id"] for each in flat.events}) == 3


@pytest.mark.parametrize(
    ("config", "type", "payload"),
    [
        ({}, "headline", True),
        ({"deliver_payloads": "0"}, "headline", False),
        ({"notification_type": "normal"}, "normal", True),
        ({"persist_items": "0"}, "headline", True),
        ({"deliver_notifications": "0"}, None, None),
    ],
)
def test_events_are_as_the_node_is_configured(flat, config, type, payload):
    """With or without payload, stored for who is away or not, or not at all (section 7.1.2)."""
    flat.create(**config)
    flat.subscribe()
    flat.publish()
    assert [(each["type"], "entry" in each.toXml()) for each in flat.events] == (
        [(type, payload)] if type else []
    )


@pytest.mark.parametrize(
    ("config", "item", "payload", "answer"),
    [
        ({}, None, "", "modify/bad-request item-required"),
        ({}, "i", "", "modify/bad-request payload-required"),
        ({}, "i", ENTRY * 2, "modify/bad-request invalid-payload"),
        ({}, "", ENTRY, "result"),
        ({}, "x" * 1024, ENTRY, "result"),
        ({}, "x" * 1025, ENTRY, "modify/not-acceptable"),
        ({"deliver_payloads": "0"}, "i", "", "result"),
        ({"deliver_payloads": "0", "persist_items": "0"}, None, "", "result"),
        ({"deliver_payloads": "0", "persist_items": "0"}, "i", "", "modify/bad-request item-forbidden"),
        ({"deliver_payloads": "0"}, None, "", "modify/bad-request item-required"),
        ({"type": "http://www.w3.org/2005/Atom"}, "i", ENTRY, "result"),
        ({"type": "urn:x"}, "i", ENTRY, "modify/bad-request invalid-payload"),
        ({"max_payload_size": "10"}, "i", ENTRY, "modify/not-acceptable payload-too-big"),
        ({}, "i", f"<x xmlns='urn:x'>{'é' * 30_000}</x>", "modify/not-acceptable payload-too-big"),
    ],
)
def test_what_is_published(flat, config, item, payload, answer):
    """The cases of section 7.1.3."""
    flat.create(**config)
    assert flat.publish(item, payload) == answer
    if answer != "result":
        assert flat.items() == []


def test_an_item_without_id_gets_one(flat):
    """Which the answer tells (section 7.1.2)."""
    flat.create()
    answer = flat.ask(pubsub(f"<publish node='n1'><item>{ENTRY}</item></publish>"))
    assert flat.items() == [child(answer, "pubsub", "publish", "item")["id"]]


def test_an_item_with_the_id_of_another_takes_its_place(flat):
    """A publish that is replayed is told again and kept once (section 13.9)."""
    flat.create()
    flat.subscribe()
    for _ in range(2):
        assert flat.publish("a") == "result"
        assert flat.told() == [("bob@localhost", "items")]
    assert flat.items() == ["a"]


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"pubsub#access_model": "open", "pubsub#persist_items": "true"}, "result"),
        ({"pubsub#access_model": "whitelist"}, "cancel/conflict precondition-not-met"),
        ({"pubsub#persist_items": "0"}, "cancel/conflict precondition-not-met"),
        ({"service": "fcm"}, "cancel/conflict precondition-not-met"),
        ({}, "result"),
    ],
)
def test_publish_options_are_preconditions(flat, options, answer):
    """Of the node's configuration; unknown ones fail (section 7.1.5)."""
    flat.create()
    assert flat.publish(options=options) == answer


@pytest.mark.parametrize(
    ("model", "affiliation", "subscribed", "answer"),
    [
        ("publishers", "none", True, "auth/forbidden"),
        ("publishers", "member", True, "auth/forbidden"),
        ("publishers", "publisher", False, "result"),
        ("publishers", "publish-only", False, "result"),
        ("open", "none", False, "result"),
        ("open", "outcast", False, "auth/forbidden"),
        ("subscribers", "none", False, "auth/forbidden"),
        ("subscribers", "none", True, "result"),
        ("subscribers", "outcast", True, "auth/forbidden"),
    ],
)
def test_who_publishes(flat, model, affiliation, subscribed, answer):
    """By affiliation and publish model (sections 4.1 and 4.5)."""
    flat.create(publish_model=model)
    if subscribed:
        flat.subscribe()
    flat.affiliate("bob@localhost", affiliation)
    assert flat.publish(by=BOB) == answer


def test_the_creators_server_is_nobody_to_a_flat_node(flat):
    """Only a push node lets it publish."""
    flat.create()
    assert flat.publish(by="localhost") == "auth/forbidden"


def test_what_is_answered_is_on_disk(flat, monkeypatch):
    """Neither the publisher nor a subscriber hears of it before."""
    flat.create()
    flat.subscribe()
    committing = Deferred()
    monkeypatch.setattr(flat.host.storage.nodes, "publish", lambda *args: committing)
    xml = pubsub(f"<publish node='n1'><item>{ENTRY}</item></publish>")
    answers = flat.host.send(f"<iq type='set' id='i1' from='{ALICE}' to='{HOST}'>{xml}</iq>")
    assert answers == []
    committing.callback(True)
    assert [each.name for each in answers] == ["message", "iq"]


# Subscribing


@pytest.mark.parametrize(
    ("access", "affiliation", "state"),
    [
        ("open", "none", "subscribed"),
        ("open", "outcast", "auth/forbidden"),
        ("open", "publish-only", "auth/forbidden"),
        ("whitelist", "none", "cancel/not-allowed closed-node"),
        ("whitelist", "member", "subscribed"),
        ("authorize", "none", "pending"),
        ("authorize", "publisher", "subscribed"),
        ("authorize", "outcast", "auth/forbidden"),
    ],
)
def test_who_subscribes(flat, access, affiliation, state):
    """By affiliation and access model (sections 4.1, 6.1.3 and 6.1.4)."""
    flat.create(access_model=access)
    flat.affiliate("bob@localhost", affiliation)
    answer = flat.subscribe()
    if answer["type"] == "error":
        assert condition(answer) == state
    else:
        subscription = child(answer, "pubsub", "subscription")
        assert subscription.attributes == {"node": "n1", "jid": "bob@localhost", "subscription": state}


@pytest.mark.parametrize(
    ("request_xml", "answer"),
    [
        ("<subscribe node='n1' jid='alice@localhost'/>", "modify/bad-request invalid-jid"),
        ("<subscribe node='n1' jid='localhost'/>", "modify/bad-request invalid-jid"),
        ("<subscribe node='n1'/>", "modify/bad-request jid-required"),
        ("<subscribe jid='bob@localhost'/>", "modify/bad-request nodeid-required"),
        ("<subscribe node='x' jid='bob@localhost'/>", "cancel/item-not-found"),
        ("<subscribe node='n1' jid='bob@localhost'/><options node='n1'/>", "modify/bad-request"),
        ("<unsubscribe node='n1' jid='bob@localhost'/>", "cancel/unexpected-request not-subscribed"),
        ("<unsubscribe node='n1' jid='alice@localhost'/>", "auth/forbidden"),
        ("<unsubscribe node='x' jid='bob@localhost'/>", "cancel/item-not-found"),
        ("<unsubscribe node='n1' jid='bob@localhost' subid='1'/>", "modify/not-acceptable invalid-subid"),
        ("<options node='n1' jid='bob@localhost'/>", "modify/bad-request"),
        (
            f"<options node='n1' jid='bob@localhost'>{form(SUBSCRIBE_OPTIONS, {})}</options>",
            "modify/unexpected-request not-subscribed",
        ),
        (
            f"<options node='n1' jid='alice@localhost'>{form(SUBSCRIBE_OPTIONS, {})}</options>",
            "auth/forbidden",
        ),
        (f"<options node='n1'>{form(SUBSCRIBE_OPTIONS, {})}</options>", "modify/bad-request jid-required"),
        ("<subscribe node='p' jid='bob@localhost'/>", "cancel/item-not-found"),
    ],
)
def test_refused_subscriptions(flat, request_xml, answer):
    """The cases of sections 6.1.3, 6.2.3 and 6.3.4; ``p`` is a push node that is none of Bob's business."""
    flat.create()
    flat.host.create("p")
    assert flat.says(pubsub(request_xml), by=BOB) == answer


def test_a_push_node_says_to_its_owner_what_it_has_not(flat):
    """The feature that is missing, not that there were no node."""
    flat.host.create("p")
    assert flat.says(pubsub("<subscribe node='p' jid='alice@localhost'/>")) == (
        "cancel/feature-not-implemented unsupported subscribe"
    )
    assert flat.says(owner("<purge node='p'/>")) == (
        "cancel/feature-not-implemented unsupported persistent-items"
    )
    assert flat.says(owner("<purge node='p'/>"), by=BOB) == "auth/forbidden"


def test_subscriptions_can_be_closed(flat):
    """pubsub#subscribe: what is there stays."""
    flat.create()
    flat.subscribe()
    flat.configure(subscribe="0")
    assert condition(flat.subscribe(by=FAR)) == "cancel/feature-not-implemented unsupported subscribe"
    flat.publish()
    assert flat.told() == [("bob@localhost", "items")]


def test_subscribing_twice_is_one_subscription(flat):
    """The second answer says the same."""
    flat.create()
    assert condition(flat.subscribe()) == condition(flat.subscribe()) == "result"
    flat.publish()
    assert flat.told() == [("bob@localhost", "items")]


def test_there_are_only_so_many_subscriptions(flat):
    """One more than the limit is policy-violation (section 6.1.3.9)."""
    flat.create()
    nodes = flat.host.storage.nodes
    for number in range(MOST_SUBSCRIPTIONS):
        jid = f"u{number}@localhost"
        nodes.subscribe(a_subscription(node="n1", jid=jid, account=jid), 9999, 9999)
    assert condition(flat.subscribe()) == "wait/policy-violation too-many-subscriptions"


def test_unsubscribing_ends_it(flat):
    """This address, not the others."""
    flat.create()
    flat.subscribe()
    flat.subscribe(jid=BOB)
    assert flat.says(pubsub(f"<unsubscribe node='n1' jid='{BOB}'/>"), by=BOB) == "result"
    flat.publish()
    assert flat.told() == [("bob@localhost", "items")]


def test_the_last_item_comes_with_a_new_subscription(flat):
    """With its own time; not with a repetition (section 6.1.7)."""
    flat.create()
    flat.publish("a")
    flat.host.clock.advance(60.0)
    flat.publish("b")
    flat.host.clock.advance(60.0)
    flat.subscribe()
    (message,) = flat.events
    assert child(message, "event", "items", "item")["id"] == "b"
    assert child(message, "delay")["stamp"] == "1970-01-01T00:01:00.000Z"
    flat.subscribe()
    assert flat.events == []


@pytest.mark.parametrize("config", [{"send_last_published_item": "never"}, {"persist_items": "0"}])
def test_no_last_item(flat, config):
    """Where the node does not send it, or has none."""
    flat.create(**config)
    flat.publish()
    flat.subscribe()
    assert flat.events == []


def options(fields, type="submit"):
    return f"<options>{form(SUBSCRIBE_OPTIONS, fields, type)}</options>"


def test_subscription_options(flat):
    """Given with the subscription, asked for, and changed (section 6.3)."""
    flat.create()
    flat.publish()
    flat.subscribe(options=options({"pubsub#deliver": "false", "pubsub#nosuch": "1"}))
    assert flat.events == []

    def asked():
        answer = flat.ask(pubsub("<options node='n1' jid='bob@localhost'/>"), "get", BOB)
        found = child(answer, "pubsub", "options")
        assert (found["node"], found["jid"]) == ("n1", "bob@localhost")
        return fields_in(child(found, "x"))

    assert asked() == {"FORM_TYPE": SUBSCRIBE_OPTIONS, "pubsub#deliver": "false"}
    flat.publish()
    assert flat.events == []
    to = "node='n1' jid='bob@localhost'"
    again = options({"pubsub#deliver": "1"}).replace("<options>", f"<options {to}>")
    assert flat.says(pubsub(again), by=BOB) == "result"
    assert asked()["pubsub#deliver"] == "true"
    flat.publish()
    assert flat.told() == [("bob@localhost", "items")]
    bad = options({"pubsub#deliver": "perhaps"}).replace("<options>", f"<options {to}>")
    assert flat.says(pubsub(bad), by=BOB) == "modify/bad-request invalid-options"
    cancelled = options({"pubsub#deliver": "0"}, "cancel").replace("<options>", f"<options {to}>")
    assert flat.says(pubsub(cancelled), by=BOB) == "result"
    assert asked()["pubsub#deliver"] == "true"


@pytest.mark.parametrize(
    ("attributes", "answer"),
    [
        ("", {"pubsub#deliver": "true"}),
        (" node='n1'", {"pubsub#deliver": "true"}),
        (" node='x'", "cancel/item-not-found"),
    ],
)
def test_default_subscription_options(flat, attributes, answer):
    """Of any node, or of this one (section 6.4)."""
    flat.create()
    found = flat.ask(pubsub(f"<default{attributes}/>"), "get")
    if found["type"] == "error":
        assert condition(found) == answer
    else:
        fields = fields_in(child(found, "pubsub", "default", "x"))
        assert fields == {"FORM_TYPE": SUBSCRIBE_OPTIONS, **answer}


def test_own_subscriptions(flat):
    """Everywhere or at one node; nobody else's (section 5.6)."""
    flat.create("n1", access_model="authorize")
    flat.create("n2")
    flat.subscribe()
    flat.subscribe(node="n2", jid=BOB)

    def own(by, attributes=""):
        answer = flat.ask(pubsub(f"<subscriptions{attributes}/>"), "get", by)
        return [
            (one["node"], one["jid"], one["subscription"])
            for one in child(answer, "pubsub", "subscriptions").elements()
        ]

    assert own(BOB) == [("n1", "bob@localhost", "pending"), ("n2", BOB, "subscribed")]
    assert own(BOB, " node='n2'") == [("n2", BOB, "subscribed")]
    assert own(ALICE) == []


# Asking an owner


def test_an_owner_lets_a_subscriber_in(flat):
    """Owners get the form; until one of them says yes nothing is told, then the last item (section 8.6)."""
    flat.create(access_model="authorize")
    flat.affiliate("carol@localhost", "owner")
    flat.publish("a")
    flat.subscribe()
    assert [each["to"] for each in flat.events] == ["alice@localhost", "carol@localhost"]
    question = child(flat.events[0], "x")
    assert question["type"] == "form"
    assert fields_in(question) == {
        "FORM_TYPE": AUTHORIZATION,
        "pubsub#node": "n1",
        "pubsub#subscriber_jid": "bob@localhost",
        "pubsub#allow": "false",
    }
    flat.publish("b")
    assert flat.events == []
    assert flat.items(by=BOB) == "auth/not-authorized not-subscribed"
    assert condition(flat.subscribe()) == "auth/not-authorized pending-subscription"
    state, last = flat.decide("true")
    assert child(state, "event", "subscription").attributes == {
        "node": "n1",
        "jid": "bob@localhost",
        "subscription": "subscribed",
    }
    assert (state["to"], state["type"]) == ("bob@localhost", "normal")
    assert child(last, "event", "items", "item")["id"] == "b"
    assert flat.items(by=BOB) == ["a", "b"]
    assert flat.decide("0", by="carol@localhost/x") == []
    flat.publish("c")
    assert flat.told() == [("bob@localhost", "items")]


def test_an_owner_turns_a_subscriber_down(flat):
    """It is told, and may ask again."""
    flat.create(access_model="authorize")
    flat.subscribe()
    (state,) = flat.decide("0")
    assert child(state, "event", "subscription")["subscription"] == "none"
    assert child(flat.subscribe(), "pubsub", "subscription")["subscription"] == "pending"


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ({"allow": "1", "by": BOB}, "auth/forbidden"),
        ({"allow": "1", "node": "x"}, "cancel/item-not-found"),
        ({"allow": "perhaps"}, "modify/bad-request"),
        ({"allow": "1", "jid": ""}, "modify/bad-request"),
        ({"allow": "1", "jid": "a@@b"}, "modify/jid-malformed"),
        ({"allow": "1", "type": "cancel"}, None),
        ({"allow": "1", "jid": "nobody@localhost"}, None),
    ],
)
def test_answers_that_decide_nothing(flat, answer, reply):
    """The subscription waits on."""
    flat.create(access_model="authorize")
    flat.subscribe()
    found = flat.decide(**answer)
    assert [condition(each) for each in found] == ([reply] if reply else [])
    flat.publish()
    assert flat.events == []


@pytest.mark.parametrize("to", [HOST, f"alice@{HOST}"])
def test_other_forms_and_errors_are_not_answered(flat, to):
    """Whatever form it is; and an error never, or two services would talk for ever."""
    flat.create(access_model="authorize")
    fields = {"pubsub#node": "n1", "pubsub#allow": "1"}
    for type, form_type in (("chat", "urn:x"), ("error", AUTHORIZATION)):
        message = f"<message type='{type}' from='{BOB}' to='{to}'>{form(form_type, fields)}</message>"
        assert flat.host.send(message) == []


# Reading


def test_items(flat):
    """All, the last ones, or those that are named (sections 6.5.2, 6.5.7 and 6.5.8)."""
    flat.create()
    for item in "abc":
        flat.publish(item)
    assert flat.items(by=BOB) == ["a", "b", "c"]
    assert flat.items(" max_items='2'") == ["b", "c"]
    assert flat.items(inside="<item id='c'/><item id='a'/><item id='x'/>") == ["a", "c"]
    assert flat.items(inside="<item id='x'/>") == []
    answer = flat.ask(pubsub("<items node='n1' max_items='1'/>"), "get")
    assert f"<item id='c'>{ENTRY}</item>" in answer.toXml()


@pytest.mark.parametrize(
    ("attributes", "answer"),
    [
        (" max_items='0'", "modify/bad-request"),
        (" max_items='-1'", "modify/bad-request"),
        (" max_items='x'", "modify/bad-request"),
        (f" max_items='{'9' * 5000}'", "modify/bad-request"),
        (" subid='1'", "modify/not-acceptable invalid-subid"),
    ],
)
def test_bad_requests_for_items(flat, attributes, answer):
    """Refused as a whole."""
    flat.create()
    assert flat.items(attributes) == answer


@pytest.mark.parametrize(
    ("access", "affiliation", "answer"),
    [
        ("open", "none", []),
        ("open", "outcast", "auth/forbidden"),
        ("open", "publish-only", "auth/forbidden"),
        ("whitelist", "none", "cancel/not-allowed closed-node"),
        ("whitelist", "member", []),
        ("authorize", "none", "auth/not-authorized not-subscribed"),
        ("authorize", "member", []),
    ],
)
def test_who_reads(flat, access, affiliation, answer):
    """By affiliation and access model (sections 4.1 and 6.5.9)."""
    flat.create(access_model=access)
    flat.affiliate("bob@localhost", affiliation)
    assert flat.items(by=BOB) == answer


def test_an_answer_is_no_larger_than_a_stanza_may_be(flat):
    """The last ones that fit, and how many there are (section 6.5.4); the others can be asked for."""
    flat.create()
    for item in "abcde":
        assert flat.publish(item, f"<x xmlns='urn:x'>{'y' * 59_000}</x>") == "result"
    answer = flat.ask(pubsub("<items node='n1'/>"), "get")
    assert [one["id"] for one in child(answer, "pubsub", "items").elements()] == ["c", "d", "e"]
    part = child(answer, "pubsub", "set")
    assert (child(part, "first")["index"], str(child(part, "first")), str(child(part, "last"))) == (
        "2",
        "c",
        "e",
    )
    assert str(child(part, "count")) == "5"
    assert flat.items(inside="<item id='a'/>") == ["a"]


def test_payloads_keep_their_namespaces(flat):
    """Also one without, and with prefixes that are declared further out."""
    flat.create()
    payload = "<a:one xmlns:a='urn:a' a:b='c'><two xmlns=''/><three xmlns='urn:t'/>text</a:one>"
    flat.subscribe()
    assert flat.publish("p", payload) == "result"
    message = stanza_of(flat.events[0].toXml())
    one = child(message, "event", "items", "item").firstChildElement()
    assert (one.uri, one.name, one.getAttribute(("urn:a", "b"))) == ("urn:a", "one", "c")
    assert [(each.uri, each.name) for each in one.elements()] == [("", "two"), ("urn:t", "three")]


# Retracting and purging


@pytest.mark.parametrize(
    ("request_xml", "by", "answer"),
    [
        ("<retract node='n1'><item id='a'/></retract>", ALICE, "result"),
        ("<retract node='n1'><item id='a'/></retract>", BOB, "auth/forbidden"),
        ("<retract node='n1'><item id='b'/></retract>", BOB, "result"),
        ("<retract node='n1'><item id='x'/></retract>", BOB, "cancel/item-not-found"),
        ("<retract node='n1'><item id='x'/></retract>", FAR, "auth/forbidden"),
        ("<retract node='n1'><item/></retract>", ALICE, "modify/bad-request item-required"),
        ("<retract node='n1'/>", ALICE, "modify/bad-request item-required"),
        ("<retract node='n1'><item id='a'/><item id='b'/></retract>", ALICE, "modify/bad-request"),
        ("<retract><item id='a'/></retract>", ALICE, "modify/bad-request nodeid-required"),
        ("<retract node='x'><item id='a'/></retract>", ALICE, "cancel/item-not-found"),
    ],
)
def test_retract(flat, request_xml, by, answer):
    """Owners retract any item, publishers their own (section 7.2)."""
    flat.create()
    flat.affiliate("bob@localhost", "publish-only")
    flat.publish("a")
    flat.publish("b", by=BOB)
    assert flat.says(pubsub(request_xml), by=by) == answer
    left = {"a", "b"} - ({request_xml.partition("id='")[2][0]} if answer == "result" else set())
    assert set(flat.items()) == left


@pytest.mark.parametrize(
    ("config", "notify", "told"),
    [("1", "", 1), ("0", "", 0), ("0", " notify='1'", 1), ("0", " notify='true'", 1)],
)
def test_retract_is_told(flat, config, notify, told):
    """Where the node or the request says so (section 7.2.2.1)."""
    flat.create(notify_retract=config)
    flat.subscribe()
    flat.publish("a")
    flat.ask(pubsub(f"<retract node='n1'{notify}><item id='a'/></retract>"))
    assert [child(each, "event", "items", "retract")["id"] for each in flat.events] == ["a"] * told


def test_purge(flat):
    """One event for all items; owners only (section 8.5)."""
    flat.create()
    flat.affiliate("bob@localhost", "publisher")
    flat.subscribe()
    for item in "ab":
        flat.publish(item)
    assert flat.says(owner("<purge node='n1'/>"), by=BOB) == "auth/forbidden"
    assert flat.says(owner("<purge node='x'/>")) == "cancel/item-not-found"
    assert flat.says(owner("<purge/>")) == "modify/bad-request nodeid-required"
    assert flat.says(owner("<purge node='n1'/>")) == "result"
    assert flat.told() == [("bob@localhost", "purge")]
    assert flat.items() == []


def test_a_node_that_keeps_nothing(flat):
    """Its items are told and gone; there is nothing to retract or purge."""
    flat.create(persist_items="0")
    assert flat.publish("a") == "result"
    assert flat.items() == []
    unsupported = "cancel/feature-not-implemented unsupported persistent-items"
    assert flat.says(pubsub("<retract node='n1'><item id='a'/></retract>")) == unsupported
    assert flat.says(owner("<purge node='n1'/>")) == unsupported


def test_max_items(flat):
    """The oldest go, also when there is less room from now on."""
    flat.create(max_items="2")
    for item in "abc":
        flat.publish(item)
    assert flat.items() == ["b", "c"]
    assert flat.configure(max_items="1") == "result"
    assert flat.items() == ["c"]
    assert flat.configure(persist_items="0") == "result"
    assert flat.configure(persist_items="1") == "result"
    assert flat.items() == []


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        ({"max_items": "max"}, "result"),
        ({"max_items": str(MOST_ITEMS)}, "result"),
        ({"max_items": str(MOST_ITEMS + 1)}, "modify/not-acceptable"),
        ({"max_items": "0"}, "modify/not-acceptable"),
        ({"max_payload_size": "65536"}, "result"),
        ({"max_payload_size": "65537"}, "modify/not-acceptable"),
        ({"max_payload_size": "max"}, "modify/not-acceptable"),
        ({"access_model": "roster"}, "modify/not-acceptable unsupported-access-model"),
        ({"access_model": "presence"}, "modify/not-acceptable unsupported-access-model"),
        ({"publish_model": "subscribers"}, "result"),
        ({"send_last_published_item": "on_sub_and_presence"}, "result"),
    ],
)
def test_configuration(flat, config, answer):
    """What the options of a flat node take."""
    flat.create()
    assert flat.configure(**config) == answer


# Owners


def test_a_new_configuration_is_told(flat):
    """Where the node says so, with the form unless it shows no payloads (section 8.2.5.3)."""
    flat.create()
    flat.subscribe()
    flat.configure(title="one")
    assert flat.events == []
    flat.configure(notify_config="1", title="two")
    (message,) = flat.events
    event = child(message, "event", "configuration")
    assert event["node"] == "n1"
    assert fields_in(child(event, "x"))["pubsub#title"] == "two"
    flat.configure(title="two")
    assert flat.events == []
    flat.configure(deliver_payloads="0")
    assert child(flat.events[0], "event", "configuration").children == []


def test_default_configuration_of_a_type(flat):
    """By the type of the request; ``leaf`` is the default type (section 8.3)."""

    def models(attributes):
        answer = child(flat.ask(owner(f"<default{attributes}/>"), "get"), "pubsub", "default", "x")
        (field,) = [one for one in answer.elements() if one.getAttribute("var") == "pubsub#access_model"]
        return [one["label"] for one in field.elements() if one.name == "option"]

    assert models(" type='flat'") == ["whitelist", "open", "authorize"]
    assert models("") == models(" type='leaf'") == models(" type='push'") == ["whitelist", "open"]
    assert flat.says(owner("<default type='collection'/>"), "get") == "modify/not-acceptable"


def test_a_deleted_node_is_told(flat):
    """To those who wait for a decision as well (section 8.4.2); then there is nothing left of it."""
    flat.create(access_model="authorize")
    flat.subscribe()
    flat.publish()
    assert flat.says(owner("<delete node='n1'/>"), by=BOB) == "auth/forbidden"
    assert flat.says(owner("<delete node='n1'/>")) == "result"
    assert flat.told() == [("bob@localhost", "delete")]
    flat.create()
    assert flat.items() == []
    flat.publish()
    assert flat.events == []


def test_a_deleted_node_is_not_told(flat):
    """Where it is configured not to be."""
    flat.create(notify_delete="0")
    flat.subscribe()
    flat.ask(owner("<delete node='n1'/>"))
    assert flat.events == []


def manage(jid, state):
    return owner(
        f"<subscriptions node='n1'><subscription jid='{jid}' subscription='{state}'/></subscriptions>"
    )


def test_owners_manage_subscriptions(flat):
    """They list them, let in, and end them; whoever it is about is told (section 8.8)."""
    flat.create(access_model="authorize")
    flat.subscribe()

    def listed():
        answer = flat.ask(owner("<subscriptions node='n1'/>"), "get")
        found = child(answer, "pubsub", "subscriptions")
        assert found["node"] == "n1"
        return [(one["jid"], one["subscription"]) for one in found.elements()]

    assert listed() == [("bob@localhost", "pending")]
    assert flat.says(manage("bob@localhost", "subscribed")) == "result"
    assert [child(each, "event", "subscription")["subscription"] for each in flat.events] == ["subscribed"]
    assert listed() == [("bob@localhost", "subscribed")]
    assert flat.says(manage("bob@localhost", "subscribed")) == "result"
    assert flat.events == []
    assert flat.says(manage("bob@localhost", "none")) == "result"
    assert [child(each, "event", "subscription")["subscription"] for each in flat.events] == ["none"]
    assert listed() == []


@pytest.mark.parametrize(
    ("request_xml", "by", "answer"),
    [
        (manage("bob@localhost", "none"), BOB, "auth/forbidden"),
        (manage("bob@localhost", "pending"), ALICE, "modify/not-acceptable"),
        (manage("eve@far.example", "subscribed"), ALICE, "modify/not-acceptable"),
        (manage("a@@b", "none"), ALICE, "modify/jid-malformed"),
        (manage("bob@localhost", "none").replace("n1", "x"), ALICE, "cancel/item-not-found"),
        (owner("<subscriptions node='n1'/>"), ALICE, "modify/bad-request"),
        (owner("<subscriptions/>"), ALICE, "modify/bad-request nodeid-required"),
        (
            manage("a@b", "none").replace("n1", "p"),
            ALICE,
            "cancel/feature-not-implemented unsupported manage-subscriptions",
        ),
    ],
)
def test_refused_changes_of_subscriptions(flat, request_xml, by, answer):
    """Nobody is subscribed who did not ask."""
    flat.create()
    flat.host.create("p")
    flat.subscribe()
    assert flat.says(request_xml, by=by) == answer
    flat.publish()
    assert flat.told() == [("bob@localhost", "items")]


@pytest.mark.parametrize(("access", "affiliation"), [("open", "outcast"), ("whitelist", "none")])
def test_who_may_not_know_any_more_is_not_told(flat, access, affiliation):
    """A subscription from before does not help."""
    flat.create()
    flat.subscribe()
    flat.affiliate("bob@localhost", affiliation)
    flat.configure(access_model=access)
    flat.publish()
    assert flat.events == []


# Service discovery


def test_disco_of_a_host_with_both_types(flat):
    """The features of both."""
    answer = flat.ask(f"<query xmlns='{INFO}'/>", "get").toXml()
    for feature in ("subscribe", "persistent-items", "access-authorize", "instant-nodes", "purge-nodes"):
        assert f"pubsub#{feature}'" in answer
    assert "multi-subscribe" not in answer


def test_disco_of_nodes_tells_what_each_can_do(flat):
    """A push node in the same place has no subscribers."""
    flat.create()
    flat.host.create("p")
    assert "pubsub#subscribe'" in flat.ask(f"<query xmlns='{INFO}' node='n1'/>", "get").toXml()
    assert "pubsub#subscribe'" not in flat.ask(f"<query xmlns='{INFO}' node='p'/>", "get").toXml()


@pytest.mark.parametrize(
    ("access", "info", "items"),
    [
        ("open", "result", "result"),
        ("authorize", "result", "auth/not-authorized not-subscribed"),
        ("whitelist", "cancel/item-not-found", "cancel/item-not-found"),
    ],
)
def test_disco_of_a_node(flat, access, info, items):
    """Who may not see it learns not that it is there; its items are for those who may read them."""
    flat.create(access_model=access)
    flat.publish("a")
    assert flat.says(f"<query xmlns='{INFO}' node='n1'/>", "get", BOB) == info
    assert flat.says(f"<query xmlns='{ITEMS}' node='n1'/>", "get", BOB) == items
    answer = flat.ask(f"<query xmlns='{ITEMS}' node='n1'/>", "get")
    assert [one.attributes for one in child(answer, "query").elements()] == [{"jid": HOST, "name": "a"}]


def test_instant_nodes(flat):
    """A name that nobody guesses, told in the answer (section 8.1.1)."""
    names = set()
    for type in ("push", "flat"):
        answer = flat.ask(pubsub(f"<create type='{type}'/>"))
        names.add(child(answer, "pubsub", "create")["node"])
    assert [len(name) for name in names] == [20, 20]
    answer = flat.ask(f"<query xmlns='{ITEMS}'/>", "get")
    assert {one["node"] for one in child(answer, "query").elements()} == names


def test_everything_is_there_after_a_restart(flat, a_host):
    """Another process on the same storage."""
    flat.create(access_model="authorize")
    flat.subscribe()
    flat.publish("a")
    later = Flat(a_host(plugins=("push", "flat")))
    assert later.items() == ["a"]
    _state, last = later.decide("1")
    assert child(last, "event", "items", "item")["id"] == "a"
    later.publish("b")
    assert later.told() == [("bob@localhost", "items")]
