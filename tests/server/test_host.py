"""The served domain: presence, messages, offline messages and requests, as conversations in memory."""

import re

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from xmpppush.errors import BadStanza, LimitReached, OfflineFull, StorageError
from xmpppush.mod_push.plugins import chain_of
from xmpppush.mod_push.publisher import Publisher
from xmpppush.model import Account, Registration
from xmpppush.server.handlers import DomainHandlers, add_server_handlers
from xmpppush.server.host import MAX_DIRECTED, MAX_SESSIONS, XMPPServer
from xmpppush.server.resources import Resources
from xmpppush.server.router import Router
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_delivery
from xmpppush.testing.sessions import RecordingSession
from xmpppush.xep.push import revocation

ALICE, BOB = "alice@localhost", "bob@localhost"


class Pushes:
    """An IPushDecider that wants a push for each message to an account without sessions."""

    push_on_broken_stream = False

    def __init__(self):
        self.sent = []
        self.lost = []
        self.back = []
        self.wanted = False
        self.nodes = None

    async def deliveries_for(self, account, stanza, sessions, pushed=(), have=()):
        if self.nodes is not None:
            nodes = [node for node in self.nodes(sessions) if ("pubsub.localhost", node) not in pushed]
            return tuple(a_delivery(account=account, node=node) for node in nodes)
        return (a_delivery(account=account),) if self.wanted and not sessions else ()

    def enqueue(self, delivery):
        self.sent.append(delivery)

    def dropped(self, deliveries, error):
        self.lost.append((deliveries, type(error)))

    def device_back(self, account, resource):
        self.back.append((account, resource))


class World:
    def __init__(self, limit=1000, publisher=False):
        self.clock = Clock()
        self.clock.advance(1_795_000_000)
        self.storage = memory_storage()
        self.pushes = Pushes()
        router, resources = Router(), Resources()
        registrations, messages = self.storage.registrations, self.storage.messages
        true_one = Publisher(registrations, messages, chain_of(["defaults"]), None, None, self.clock)
        handlers = DomainHandlers(router)
        add_server_handlers(
            handlers, self.storage.rosters, resources, lambda domain: ["pubsub.localhost"], self.clock
        )
        handlers.startService()
        self.host = XMPPServer(
            ["localhost"],
            router,
            resources,
            handlers,
            self.storage.accounts,
            self.storage.messages,
            true_one if publisher else self.pushes,
            self.clock,
            limit,
        )
        self.storage.accounts.add([Account(ALICE, {}), Account(BOB, {})])

    def session(self, account, resource=None, priority=None):
        session = RecordingSession(self.host, account, resource)
        if priority is not None:
            session.says(f"<presence><priority>{priority}</priority></presence>")
            session.sent.clear()
        return session

    def waiting(self, account=ALICE):
        return [message.xml for message in self.storage.messages.waiting(account).result]


@pytest.fixture
def world():
    return World()


def chat(to, body="Hi", kind="chat"):
    return f"<message to='{to}' type='{kind}' id='m1'><body>{body}</body></message>"


def test_pushes_that_cannot_be_stored_are_told():
    """The sender gets an error; the trace would otherwise end with an accepted push."""
    full = World(limit=0)
    full.pushes.wanted = True
    bob = full.session(BOB, "desk", 0)
    bob.says(chat(ALICE))
    assert full.pushes.sent == []
    assert full.pushes.lost == [((a_delivery(account=ALICE),), OfflineFull)]
    assert "service-unavailable" in bob.sent[-1]


# Binding


def test_a_resource_is_generated_where_none_is_asked_for(world):
    """RFC 6120 section 7.6."""
    first, second = world.session(ALICE), world.session(ALICE)
    assert first.resource
    assert first.resource != second.resource


def test_the_older_session_of_a_resource_ends_with_conflict(world):
    """RFC 6120 section 7.7.2.2: the newer one is the client that came back."""
    old = world.session(ALICE, "phone", 0)
    new = world.session(ALICE, "phone", 0)
    assert (old.closed, new.closed) == ("conflict", "")
    world.host.unbind(old)
    world.session(BOB).says(chat(ALICE))
    assert "Hi" in new.sent[-1]


@pytest.mark.parametrize("resource", ["", "x" * 1024])
def test_a_resource_that_is_none_is_refused(world, resource):
    """RFC 7622 section 3.4: 1 to 1023 octets."""
    with pytest.raises(BadStanza):
        RecordingSession(world.host, ALICE, resource)


def test_an_account_has_a_bounded_number_of_sessions(world):
    """A client that leaks connections does not fill the memory."""
    for _ in range(MAX_SESSIONS):
        world.session(ALICE)
    with pytest.raises(LimitReached):
        world.session(ALICE)


# Presence


def test_own_resources_see_each_other(world):
    """RFC 6121 sections 4.2.2 and 4.3.2."""
    desk = world.session(ALICE, "desk", 0)
    phone = world.session(ALICE, "phone")
    got = phone.says("<presence><show>away</show></presence>")
    assert "<show>away</show>" in desk.sent[-1]
    assert any("alice@localhost/desk" in xml for xml in got)
    world.host.unbind(phone)
    assert "type='unavailable'" in desk.sent[-1]
    assert "from='alice@localhost/phone'" in desk.sent[-1]


@pytest.mark.parametrize("priority", ["128", "-129", "high", "9" * 400, "1_0", "\u0663"])
def test_a_priority_that_is_none_is_a_bad_request(world, priority):
    """RFC 6121 section 4.7.2.3: -128 to 127."""
    session = world.session(ALICE, "phone")
    got = session.says(f"<presence><priority>{priority}</priority></presence>")
    assert "bad-request" in got[-1]
    assert session.priority is None


def test_directed_presence_reaches_its_target(world):
    """RFC 6121 section 4.6."""
    alice, bob = world.session(ALICE, "phone", 0), world.session(BOB, "desk")
    bob.says("<presence to='alice@localhost/phone'/>")
    assert "from='bob@localhost/desk'" in alice.sent[-1]
    before = len(alice.sent)
    bob.says("<presence to='alice@localhost/gone'/>")
    bob.says("<presence to='alice@localhost' type='subscribe'/>")
    assert len(alice.sent) == before


class Room:
    """Somewhere else, a chat room of a component."""

    def __init__(self, world):
        self.got = []
        world.host._router.routes["muc.test"] = self

    def send(self, stanza):
        self.got.append((stanza.getAttribute("type"), stanza["to"], stanza["from"]))


@pytest.mark.parametrize("how", ["unavailable", "gone"])
def test_who_was_told_learns_the_end(world, how):
    """RFC 6121 section 4.6.3: a room whose occupant is disconnected keeps no ghost of them."""
    room = Room(world)
    alice = world.session(ALICE, "phone", 0)
    for nick in ("a", "b"):
        alice.says(f"<presence to='room@muc.test/{nick}'/>")
    alice.says("<presence to='left@muc.test/a'/>")
    alice.says("<presence type='unavailable' to='left@muc.test/a'/>")
    alice.says("<presence type='subscribe' to='friend@muc.test'/>")
    room.got.clear()
    if how == "unavailable":
        alice.says("<presence type='unavailable'/>")
        assert room.got == [("unavailable", "room@muc.test/b", "alice@localhost/phone")]
    world.host.unbind(alice)
    assert room.got == [("unavailable", "room@muc.test/b", "alice@localhost/phone")]


def test_who_was_told_without_presence_of_ones_own(world):
    """Some join rooms and are nowhere else."""
    room, alice = Room(world), world.session(ALICE, "phone")
    alice.says("<presence to='room@muc.test/a'/>")
    world.host.unbind(alice)
    assert room.got[1:] == [("unavailable", "room@muc.test/a", "alice@localhost/phone")]


def test_only_so_many_are_told(world):
    """A client's memory here is bounded."""
    room, alice = Room(world), world.session(ALICE, "phone")
    for number in range(MAX_DIRECTED + 10):
        alice.says(f"<presence to='room{number}@muc.test'/>")
    room.got.clear()
    world.host.unbind(alice)
    assert len(room.got) == MAX_DIRECTED


# Messages


def test_a_message_reaches_all_present_resources(world):
    """RFC 6121 section 8.5.2.1.1; what is delivered is not kept."""
    desk, phone = world.session(ALICE, "desk", 0), world.session(ALICE, "phone", 5)
    bot = world.session(ALICE, "bot", -1)
    world.session(BOB, "x").says(chat(ALICE))
    for session in desk, phone:
        assert "<body>Hi</body>" in session.sent[-1]
        assert "from='bob@localhost/x'" in session.sent[-1]
    assert bot.sent == []
    assert world.waiting() == []


def test_a_message_without_address_is_for_oneself(world):
    """RFC 6120 section 10.3.1."""
    phone = world.session(ALICE, "phone", 0)
    got = phone.says("<message type='chat'><body>Note</body></message>")
    assert "Note" in got[-1]


def test_a_message_for_an_absent_account_waits_with_its_time(world):
    """XEP-0160 and XEP-0203; the first present session gets it, once."""
    assert world.session(BOB, "x").says(chat(ALICE)) == []
    phone = world.session(ALICE, "phone")
    got = phone.says("<presence/>")
    assert "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2026-11-18T" in got[-1]
    assert "<body>Hi</body>" in got[-1]
    assert world.session(ALICE, "desk").says("<presence/>")[-1].startswith("<presence")
    assert world.waiting() == []


def test_a_negative_priority_gets_no_offline_messages(world):
    """RFC 6121 section 8.5.2.2: not until it becomes present."""
    world.session(BOB, "x").says(chat(ALICE))
    phone = world.session(ALICE, "phone")
    assert not any("Hi" in xml for xml in phone.says("<presence><priority>-1</priority></presence>"))
    assert any("Hi" in xml for xml in phone.says("<presence><priority>1</priority></presence>"))


def test_offline_messages_keep_their_order(world):
    """Whoever reads them reads a conversation."""
    bob = world.session(BOB, "x")
    for number in range(5):
        bob.says(chat(ALICE, f"number {number}"))
    got = "".join(world.session(ALICE, "phone").says("<presence/>"))
    assert [got.index(f"number {number}") for number in range(5)] == sorted(
        got.index(f"number {number}") for number in range(5)
    )


@pytest.mark.parametrize(
    ("to", "kind"),
    [
        ("nobody@localhost", "chat"),
        ("nobody@localhost/x", "normal"),
        (ALICE, "groupchat"),
        ("localhost", "chat"),
    ],
)
def test_a_message_that_cannot_wait_is_answered(world, to, kind):
    """RFC 6121 sections 8.5.1 and 8.5.2.2.1."""
    got = world.session(BOB, "x").says(chat(to, kind=kind))
    assert "service-unavailable" in got[-1]
    assert "type='error'" in got[-1]


@pytest.mark.parametrize("kind", ["headline", "error"])
def test_a_message_nobody_waits_for_is_dropped(world, kind):
    """RFC 6121 section 8.5.2.2.1: no storage, and no answer."""
    assert world.session(BOB, "x").says(chat(ALICE, kind=kind)) == []
    assert world.waiting() == []


@pytest.mark.parametrize("connected", [None, -1, 0])
@pytest.mark.parametrize("to", [ALICE, f"{ALICE}/gone"])
def test_a_headline_tells_that_a_device_is_gone(to, connected):
    """XEP-0357 section 8: the registration goes, whether or not there is anybody to read the message."""
    world = World(publisher=True)
    world.storage.registrations.put(Registration(ALICE, "push.far", "n1", {}), 10)
    if connected is not None:
        world.session(ALICE, "phone", connected)
    message = revocation("push.far", "n1", ALICE)
    message["to"] = to
    world.host.send(message)
    assert world.storage.registrations.of(ALICE).result == ()
    assert world.waiting() == []


def test_a_full_mailbox_is_said_to_the_sender():
    """RFC 6121 section 8.5.2.2.1: nothing is lost silently."""
    world = World(limit=1)
    bob = world.session(BOB, "x")
    assert bob.says(chat(ALICE)) == []
    assert "service-unavailable" in bob.says(chat(ALICE))[-1]
    assert len(world.waiting()) == 1


def test_an_unreachable_domain_is_said_to_the_sender(world):
    """RFC 6120 section 8.3.3.16."""
    got = world.session(BOB, "x").says(chat("someone@elsewhere.example"))
    assert "remote-server-not-found" in got[-1]
    assert world.session(BOB, "y").says(chat("someone@elsewhere.example", kind="error")) == []


def test_a_push_is_stored_with_its_message_and_then_sent(world):
    """The row has its number when the push service gets it."""
    world.pushes.wanted = True
    world.session(BOB, "x").says(chat(ALICE))
    assert [delivery.id for delivery in world.pushes.sent] == [1]
    assert world.storage.messages.queued_count().result == 1
    assert len(world.waiting()) == 1


def test_no_push_where_the_message_is_refused(world):
    """What its sender was told did not arrive lights no phone."""
    world.pushes.wanted = True
    world.session(BOB, "x").says(chat(ALICE, kind="groupchat"))
    assert world.pushes.sent == []


# Never lost, never twice


class Busy(RecordingSession):
    """A session whose client does not read."""

    def flushed(self):
        self.reading = Deferred()  # kept: the collector would end who waits for it
        return self.reading


def a_busy_desk(world):
    """Bob, and Alice's desk that is still being handed what waited for it."""
    bob = world.session(BOB, "x")
    bob.says(chat(ALICE, "waiting"))
    desk = Busy(world.host, ALICE, "desk")
    desk.says("<presence/>")
    return bob, desk


def bodies(stanzas):
    return re.findall("<body>(.*?)</body>", "".join(stanzas))


def test_a_message_held_for_a_session_that_goes_is_stored(world):
    """Behind what was stored before."""
    bob, desk = a_busy_desk(world)
    bob.says(chat(ALICE, "held"))
    world.host.unbind(desk)
    assert bodies(world.waiting()) == ["waiting", "held"]


def test_a_message_held_for_one_session_and_sent_to_another_is_sent_once(world):
    """Whoever reads it at another device has it."""
    bob, desk = a_busy_desk(world)
    laptop = world.session(ALICE, "laptop", 0)
    bob.says(chat(ALICE, "held"))
    world.host.unbind(desk)
    assert bodies(laptop.sent) == ["held"]
    assert bodies(world.waiting()) == ["waiting"]


def test_a_device_is_told_once_of_a_message_that_was_held(world):
    """It gets its push when the message comes, and no further one when the other device's stream breaks."""
    bob, desk = a_busy_desk(world)
    world.pushes.nodes = lambda sessions: ["phone"] if "desk" in sessions else ["phone", "desk"]
    bob.says(chat(ALICE, "held"))
    assert [delivery.node for delivery in world.pushes.sent] == ["phone"]
    again = Busy(world.host, ALICE, "desk2")
    again.says("<presence/>")
    world.host.unbind(desk)
    world.host.unbind(again)
    assert [delivery.node for delivery in world.pushes.sent] == ["phone", "desk"]


@pytest.mark.parametrize("fault", [StorageError("disk is full"), RuntimeError("plugin")])
def test_a_message_that_was_read_is_not_bounced(world, fault, monkeypatch):
    """Its sender would send it again; the push of another device is what is lost."""
    bob, desk = world.session(BOB, "x"), world.session(ALICE, "desk", 0)
    world.pushes.nodes = lambda sessions: ["phone"]
    with monkeypatch.context() as patch:
        patch.setattr(world.host._messages, "keep", lambda *_args: fail(fault))
        assert bob.says(chat(ALICE)) == []

        async def broken(*_args):
            raise fault

        patch.setattr(world.pushes, "deliveries_for", broken)
        assert bob.says(chat(ALICE)) == []
    assert len(desk.sent) == 2


def test_a_message_that_is_stored_is_not_bounced(world, monkeypatch):
    """Whatever happens behind the commit: the next start sends the push."""

    def broken(delivery):
        raise RuntimeError("bug")

    monkeypatch.setattr(world.pushes, "enqueue", broken)
    world.pushes.wanted = True
    assert world.session(BOB, "x").says(chat(ALICE)) == []
    assert bodies(world.waiting()) == ["Hi"]


def test_a_faulty_plugin_costs_the_push_and_not_the_message(world):
    """Said in the log, with its traceback."""
    world.pushes.nodes = lambda sessions: 1 / 0
    assert world.session(BOB, "x").says(chat(ALICE)) == []
    assert bodies(world.waiting()) == ["Hi"]


# Requests


def ask(session, to, payload, kind="get"):
    to = f" to='{to}'" if to else ""
    return session.says(f"<iq type='{kind}' id='q1'{to}>{payload}</iq>")[-1]


def test_the_server_and_the_account_describe_themselves(world):
    """XEP-0030, XEP-0160."""
    session = world.session(ALICE, "phone")
    query = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
    server = ask(session, "localhost", query)
    assert "type='im'" in server
    for feature in ("urn:xmpp:ping", "jabber:iq:version", "urn:xmpp:time", "msgoffline"):
        assert f"var='{feature}'" in server
    assert "type='registered'" in ask(session, ALICE, query)
    assert "type='registered'" in ask(session, "", query)
    assert "service-unavailable" in ask(session, BOB, query)
    items = ask(session, "localhost", "<query xmlns='http://jabber.org/protocol/disco#items'/>")
    assert "jid='pubsub.localhost'" in items


def test_ping_version_and_time(world):
    """XEP-0199, XEP-0092 and XEP-0202."""
    session = world.session(ALICE, "phone")
    assert "type='result'" in ask(session, "localhost", "<ping xmlns='urn:xmpp:ping'/>")
    assert "<name>xmpppush</name>" in ask(session, "localhost", "<query xmlns='jabber:iq:version'/>")
    time = ask(session, "localhost", "<time xmlns='urn:xmpp:time'/>")
    assert "<utc>2026-11-18T" in time
    assert "<tzo>" in time


@pytest.mark.parametrize("to", ["", "localhost", ALICE, BOB, "bob@localhost/x", "nobody@localhost"])
@pytest.mark.parametrize("kind", ["get", "set"])
def test_an_unknown_request_is_answered(world, to, kind):
    """RFC 6120 section 8.4."""
    answer = ask(world.session(ALICE, "phone"), to, "<query xmlns='urn:unknown'/>", kind)
    assert "service-unavailable" in answer
    assert "id='q1'" in answer


def test_a_request_between_clients_is_passed_on(world):
    """RFC 6121 section 8.5.3.1; its answer as well."""
    alice, bob = world.session(ALICE, "phone"), world.session(BOB, "desk")
    bob.says("<iq type='get' id='q7' to='alice@localhost/phone'><ping xmlns='urn:xmpp:ping'/></iq>")
    assert "from='bob@localhost/desk'" in alice.sent[-1]
    alice.says("<iq type='result' id='q7' to='bob@localhost/desk'/>")
    assert "type='result'" in bob.sent[-1]


def test_the_roster_is_kept_and_pushed(world):
    """RFC 6121 section 2: get, set, push to whoever asked, remove."""
    phone, desk = world.session(ALICE, "phone"), world.session(ALICE, "desk")
    assert "<query xmlns='jabber:iq:roster'/>" in ask(desk, "", "<query xmlns='jabber:iq:roster'/>")
    item = "<item jid='{}' name='Bob' subscription='{}'><group>Friends</group></item>"
    added = item.format(BOB, "both")
    answer = ask(phone, "", f"<query xmlns='jabber:iq:roster'>{added}</query>", "set")
    assert "type='result'" in answer
    assert "name='Bob'" in desk.sent[-1]
    assert "type='set'" in desk.sent[-1]
    roster = ask(phone, "", "<query xmlns='jabber:iq:roster'/>")
    assert "subscription='none'" in roster  # the server's to say
    assert "<group>Friends</group>" in roster
    removed = item.format(BOB, "remove")
    assert "type='result'" in ask(phone, "", f"<query xmlns='jabber:iq:roster'>{removed}</query>", "set")
    assert "subscription='remove'" in desk.sent[-1]
    answer = ask(phone, "", f"<query xmlns='jabber:iq:roster'>{removed}</query>", "set")
    assert "item-not-found" in answer


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("", "bad-request"),
        ("<item jid='a@b'/><item jid='c@d'/>", "bad-request"),
        ("<item/>", "jid-malformed"),
        ("<item jid='@'/>", "jid-malformed"),
        ("<item jid='a@b'><group/></item>", "not-acceptable"),
        (f"<item jid='a@b' name='{'x' * 1024}'/>", "not-acceptable"),
        ("<item jid='alice@localhost'/>", "not-allowed"),
    ],
)
def test_a_bad_roster_set_is_refused(world, query, condition):
    """RFC 6121 section 2.3.3."""
    session = world.session(ALICE, "phone")
    assert condition in ask(session, "", f"<query xmlns='jabber:iq:roster'>{query}</query>", "set")


def test_somebody_elses_roster_is_forbidden(world):
    """RFC 6121 section 2.1.5."""
    session = world.session(ALICE, "phone")
    for kind in ("get", "set"):
        query = "<query xmlns='jabber:iq:roster'><item jid='c@d'/></query>"
        assert "forbidden" in ask(session, BOB, query, kind)


def test_mod_push_hears_when_a_device_is_back(world):
    """Each time that it becomes present, and only then: what it missed is counted from there."""
    phone = world.session(ALICE, "phone")
    phone.says("<presence><priority>-1</priority></presence>")
    assert world.pushes.back == []
    phone.says("<presence/>")
    phone.says("<presence><show>away</show></presence>")
    assert world.pushes.back == [(ALICE, "phone")]
    phone.says("<presence type='unavailable'/>")
    phone.says("<presence/>")
    assert world.pushes.back == [(ALICE, "phone")] * 2


# Carbons (XEP-0280)

CARBONS = "xmlns='urn:xmpp:carbons:2'"


def with_carbons(world, account, resource, priority=0):
    session = world.session(account, resource, priority)
    assert "type='result'" in ask(session, "", f"<enable {CARBONS}/>", "set")
    session.sent.clear()
    return session


def test_carbons_are_a_feature(world):
    """Section 3."""
    query = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
    assert "var='urn:xmpp:carbons:2'" in ask(world.session(ALICE, "phone"), "localhost", query)


def test_carbons_of_somebody_else_are_not_for_the_asking(world):
    """Section 4: a client speaks for itself."""
    assert "not-allowed" in ask(world.session(ALICE, "phone"), BOB, f"<enable {CARBONS}/>", "set")


def test_other_clients_get_copies_of_both_directions(world):
    """Sections 7 and 8: received and sent; not the one that got or sent it, and not who did not ask."""
    phone, desk = with_carbons(world, ALICE, "phone"), with_carbons(world, ALICE, "desk")
    silent, bob = world.session(ALICE, "silent", 0), world.session(BOB, "x", 0)
    for session in (phone, desk, silent):
        session.sent.clear()
    bob.says(chat(f"{ALICE}/phone", "Hi"))
    assert len(phone.sent) == 1
    assert "carbons" not in phone.sent[0]
    (copy,) = desk.sent
    assert f"<received {CARBONS}><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'" in copy
    assert "from='bob@localhost/x'" in copy
    desk.says(chat(BOB, "Hello"))
    assert "<sent " in phone.sent[-1]
    assert f"from='{ALICE}/desk'" in phone.sent[-1]
    assert silent.sent == []
    assert len(desk.sent) == 1
    assert "type='result'" in ask(phone, "", f"<disable {CARBONS}/>", "set")
    phone.sent.clear()
    desk.says(chat(BOB, "Hello"))
    assert phone.sent == []


def test_what_all_clients_get_is_not_copied(world):
    """Section 7: a message to the bare JID goes to each present one; the others get a copy."""
    phone, desk = with_carbons(world, ALICE, "phone"), with_carbons(world, ALICE, "desk", -1)
    world.session(BOB, "x").says(chat(ALICE))
    assert "carbons" not in phone.sent[-1]
    assert "<received" in desk.sent[-1]
    assert world.waiting() == []


BODY = "<body>Hi</body>"


@pytest.mark.parametrize(
    ("attributes", "content", "copied"),
    [
        ("type='chat'", "<active xmlns='http://jabber.org/protocol/chatstates'/>", True),
        ("", BODY, True),
        ("", "<x xmlns='urn:x'/>", False),
        ("type='headline'", BODY, False),
        ("type='groupchat'", BODY, False),
        ("type='chat'", BODY + "<private xmlns='urn:xmpp:carbons:2'/>", False),
        ("type='chat'", BODY + "<no-copy xmlns='urn:xmpp:hints'/>", False),
        ("type='chat'", "<received xmlns='urn:xmpp:carbons:2'/>", False),
    ],
)
def test_what_is_copied(world, attributes, content, copied):
    """Section 6, and no copies of what looks like one."""
    world.session(ALICE, "phone", 0)
    desk, bob = with_carbons(world, ALICE, "desk", -1), world.session(BOB, "x")
    desk.sent.clear()
    bob.says(f"<message to='{ALICE}/phone' {attributes}>{content}</message>")
    assert bool(desk.sent) is copied
