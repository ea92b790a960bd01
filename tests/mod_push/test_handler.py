"""Enable and disable (XEP-0357 sections 5 and 6) as a client meets them."""

import pytest
from twisted.internet.task import Clock

from xmpppush.mod_push.handler import PushHandler
from xmpppush.server.handlers import DomainHandlers, add_server_handlers
from xmpppush.server.host import XMPPServer
from xmpppush.server.resources import Resources
from xmpppush.server.router import Router
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.sessions import RecordingSession


class Checks:
    """What the handler tells the publisher."""

    def __init__(self):
        self.checked = []

    async def check(self, registration):
        self.checked.append(registration)


class World:
    def __init__(self, limit=20):
        self.storage = memory_storage()
        self.checks = Checks()
        clock, router, resources = Clock(), Router(), Resources()
        clock.advance(1000)
        handlers = DomainHandlers(router)
        PushHandler(self.storage.registrations, self.checks, clock, limit).setHandlerParent(handlers)
        add_server_handlers(handlers, self.storage.rosters, resources, lambda domain: [], clock)
        handlers.startService()
        self.host = XMPPServer(
            ["localhost"],
            router,
            resources,
            handlers,
            self.storage.accounts,
            self.storage.messages,
            None,
            clock,
        )
        self.phone = RecordingSession(self.host, "alice@localhost", "phone")

    def ask(self, payload, to="", kind="set"):
        to = f" to='{to}'" if to else ""
        return self.phone.says(f"<iq type='{kind}' id='x1'{to}>{payload}</iq>")[-1]

    @property
    def registrations(self):
        return self.storage.registrations.list(None).result


@pytest.fixture
def world():
    return World()


def form(*fields, form_type="http://jabber.org/protocol/pubsub#publish-options", kind="submit"):
    values = [("FORM_TYPE", form_type), *fields] if form_type else fields
    return (
        f"<x xmlns='jabber:x:data' type='{kind}'>"
        + "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in values)
        + "</x>"
    )


def enable(content="", jid="pubsub.localhost", node="node-1"):
    return f"<enable xmlns='urn:xmpp:push:0' jid='{jid}' node='{node}'>{content}</enable>"


def disable(node="", jid="pubsub.localhost"):
    node = f" node='{node}'" if node else ""
    return f"<disable xmlns='urn:xmpp:push:0' jid='{jid}'{node}/>"


@pytest.mark.parametrize("to", ["", "alice@localhost", "localhost"])
def test_enable_keeps_the_registration(world, to):
    """To one's own account, without address, or to one's server."""
    answer = world.ask(enable(form(("service", "fcm"), ("device_id", "t1"))), to)
    assert "type='result'" in answer
    (registration,) = world.registrations
    assert (registration.account, registration.pubsub, registration.node) == (
        "alice@localhost",
        "pubsub.localhost",
        "node-1",
    )
    assert dict(registration.options) == {"service": "fcm", "device_id": "t1"}
    assert (registration.resource, registration.created) == ("phone", 1000.0)
    assert world.checks.checked == [registration]


def test_enable_again_replaces_the_options(world):
    """XEP-0357 section 5: of the same JID and node the last enable counts."""
    world.ask(enable(form(("device_id", "old"))))
    world.ask(enable(form(("device_id", "new"))))
    assert [registration.options["device_id"] for registration in world.registrations] == ["new"]


@pytest.mark.parametrize("to", ["bob@localhost", "bob@localhost/x"])
@pytest.mark.parametrize("request_", [enable(), disable()])
def test_other_peoples_registrations_are_not_touched(world, to, request_):
    """Neither enabled nor disabled."""
    answer = world.ask(request_, to)
    assert "forbidden" in answer or "service-unavailable" in answer
    assert world.registrations == ()


@pytest.mark.parametrize(
    "request_",
    [
        "<enable xmlns='urn:xmpp:push:0' node='n'/>",
        "<enable xmlns='urn:xmpp:push:0' jid='' node='n'/>",
        "<enable xmlns='urn:xmpp:push:0' jid='@domain' node='n'/>",
        "<enable xmlns='urn:xmpp:push:0' jid='pubsub.localhost'/>",
        "<enable xmlns='urn:xmpp:push:0' jid='pubsub.localhost' node=''/>",
        enable(form(form_type="")),
        enable(form(form_type="wrong")),
        enable(form(kind="form")),
        enable("<x xmlns='jabber:x:data'/>"),
        "<disable xmlns='urn:xmpp:push:0'/>",
        "<disable xmlns='urn:xmpp:push:0' jid=''/>",
        "<disable xmlns='urn:xmpp:push:0' jid='pubsub.localhost' node=''/>",
        "<other xmlns='urn:xmpp:push:0'/>",
    ],
)
def test_what_is_a_bad_request(world, request_):
    """MongooseIM's rules; nothing is kept."""
    answer = world.ask(request_)
    assert "<bad-request" in answer
    assert "type='modify'" in answer
    assert world.registrations == ()


def test_a_get_is_not_allowed(world):
    """As MongooseIM and ejabberd answer it."""
    assert "not-allowed" in world.ask(enable(), kind="get")


def test_a_wrong_namespace_is_nobodys(world):
    """It is answered all the same."""
    answer = world.ask("<enable xmlns='urn:xmpp:push:1' jid='a' node='b'/>")
    assert "service-unavailable" in answer


def test_disable_of_one_node_and_of_all(world):
    """XEP-0357 section 6; a result even where there was nothing."""
    for node in ("n1", "n2", "n3"):
        world.ask(enable(node=node))
    world.ask(enable(jid="other.localhost", node="n1"))
    assert "type='result'" in world.ask(disable("n1"))
    assert [(r.pubsub, r.node) for r in world.registrations] == [
        ("other.localhost", "n1"),
        ("pubsub.localhost", "n2"),
        ("pubsub.localhost", "n3"),
    ]
    assert "type='result'" in world.ask(disable())
    assert [(r.pubsub, r.node) for r in world.registrations] == [("other.localhost", "n1")]
    assert "type='result'" in world.ask(disable())
    assert "type='result'" in world.ask(disable("unknown"))


def test_registrations_are_capped():
    """[mod_push] max_registrations; a repeat needs no room."""
    world = World(limit=2)
    world.ask(enable(node="n1"))
    world.ask(enable(node="n2"))
    assert "resource-constraint" in world.ask(enable(node="n3"))
    assert "type='result'" in world.ask(enable(node="n2"))
    assert len(world.registrations) == 2


@pytest.mark.parametrize("to", ["alice@localhost", "localhost", ""])
def test_push_is_advertised(world, to):
    """XEP-0357 section 4: on the account; on the domain too, where clients of MongooseIM look."""
    answer = world.ask("<query xmlns='http://jabber.org/protocol/disco#info'/>", to, "get")
    assert "var='urn:xmpp:push:0'" in answer


ENCRYPT = (
    "<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm'>AAECAwQFBgcICQoLDA0ODw==</encrypt>"
    "<muted xmlns='tigase:push:filter:muted:0'><item jid='bot@localhost'/></muted>"
)


def test_extensions_are_kept(world):
    """Tigase's elements, with the registration; the next enable counts, also without them."""
    assert "type='result'" in world.ask(enable(ENCRYPT))
    (registration,) = world.registrations
    assert registration.extensions.key == bytes(range(16))
    assert registration.extensions.muted == {"bot@localhost"}
    world.ask(enable())
    assert world.registrations[0].extensions is None


def test_unusable_extensions_are_refused(world):
    """Rather no push than one in clear text."""
    assert "bad-request" in world.ask(enable(ENCRYPT.replace("128", "256")))
    assert world.registrations == ()


def test_extensions_are_advertised_on_the_account(world):
    """Siskin asks there."""
    query = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
    account, domain = world.ask(query, kind="get"), world.ask(query, "localhost", "get")
    for feature in ("tigase:push:encrypt:aes-128-gcm", "tigase:push:filter:muted:0", "tigase:push:jingle:0"):
        assert f"'{feature}'" in account or f'"{feature}"' in account
        assert feature not in domain
