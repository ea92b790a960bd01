"""What registered devices get, from whom, and how much of it."""

import gc
import json
import tracemalloc

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from xmpppush.apps.limits import RateLimited, Windows
from xmpppush.config.sections import AppSection
from xmpppush.errors import DeviceUnregistered
from xmpppush.interfaces import IAppDevices, IDeviceStore, IPushService
from xmpppush.testing.apps import APPS, HOST, World, condition_of, form
from xmpppush.xep.push import revoked_nodes

P2 = "register-push-fcm"


def taken(world):
    return [
        (delivery.service, delivery.path, json.loads(delivery.body)) for delivery in world.push_service.taken
    ]


def devices(world):
    return world.storage.database.read(lambda c: c.execute("SELECT * FROM devices").fetchall()).result


def test_the_contracts_hold(world):
    """zope.interface's own check."""
    assert verifyObject(IAppDevices, world.apps)
    assert verifyObject(IDeviceStore, world.storage.devices)
    assert verifyObject(IPushService, RateLimited(world.push_service, None, world.clock, {}))


def test_a_publish_with_the_secret_is_delivered(world):
    """To the token, by the app's own options: those of the publish say nothing."""
    got = world.register()
    answer = world.publish(got["node"], secret=got["secret"], service="apns", device_id="other", mode="dev")
    assert answer["type"] == "result"
    ((service, path, body),) = taken(world)
    assert (service, path) == ("fcm@conversations", "/v3/notification/T1")
    assert (body["service"], body["mode"], list(body["data"])) == ("fcm", "prod", ["account"])


@pytest.mark.parametrize(
    ("by", "secret", "condition"),
    [
        ("localhost", "wrong", "auth forbidden"),
        ("localhost", "", "auth forbidden"),
        ("localhost", None, "auth forbidden"),
        ("alice@localhost", "é", "auth forbidden"),
        ("far.example", "right", "cancel item-not-found"),
        ("alice@far.example", "right", "cancel item-not-found"),
        ("mallory@localhost", "right", "cancel item-not-found"),
    ],
)
def test_others_are_refused(world, by, secret, condition):
    """p2's conditions; a stranger learns not even that the node is there."""
    got = world.register()
    options = {"secret": got["secret"] if secret == "right" else secret} if secret is not None else {"x": "y"}
    assert condition_of(world.publish(got["node"], by=by, **options)) == condition
    assert taken(world) == []


def test_a_wrong_secret_is_no_node_to_mod_push_appserver(world):
    """Its own condition."""
    form_type = "https://github.com/tmolitor-stud-tu/mod_push_appserver/#v1-register-push"
    got = world.register("v1-register-push", FORM_TYPE=form_type, type="apns", node="D", token="T")
    assert condition_of(world.publish(got["node"], secret="no")) == "cancel item-not-found"
    assert world.publish(got["node"], by="alice@localhost", secret=got["secret"])["type"] == "result"


FORM = "https://github.com/tmolitor-stud-tu/mod_push_appserver/#v1-register-push"
# The five ways of docs/registration.rst: how one registers, and what a publish without the right secret gets
# from the account's own server, and from another one.
REFUSALS = {
    "create": (None, {}, "cancel conflict precondition-not-met", "auth forbidden"),
    "p2": (P2, {"token": "T", "android-id": "D"}, "auth forbidden", "cancel item-not-found"),
    "appserver": (
        "v1-register-push",
        {"FORM_TYPE": FORM, "type": "apns", "node": "D", "token": "T"},
        "cancel item-not-found",
        "cancel item-not-found",
    ),
    "tigase": (  # has none: the node is the secret
        "register-device",
        {"provider": "siskin:1", "device-token": "T"},
        None,
        "cancel item-not-found",
    ),
    "fpush": (None, {}, "cancel item-not-found", "cancel item-not-found"),  # nor has this: the token is it
}


@pytest.mark.parametrize("options", [{}, {"secret": ""}, {"secret": "wrong"}, {"secret": "wrong" * 5000}])
@pytest.mark.parametrize("way", REFUSALS)
def test_a_wrong_secret_in_each_way(world, events, way, options):
    """Refused in that way's words, strangers alike with the right one; nothing goes out, no log has it."""
    command, fields, own, foreign = REFUSALS[way]
    node, right = "T" * 21, ""
    if command is not None:
        got = world.register(command, **fields)
        node, right = got["node"], got.get("secret", "")
    elif way == "create":
        node = "my-node"
        create = f"<create xmlns='http://jabber.org/protocol/pubsub' node='{node}' type='push'/>"
        world.ask(f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{create}</pubsub>")
    del events[:]
    answer = world.publish(node, **options)
    if own is None:
        assert answer["type"] == "result"
        world.push_service.taken.clear()
    else:
        assert condition_of(answer) == own
    assert condition_of(world.publish(node, by="far.example", **{**options, "secret": right})) == foreign
    assert condition_of(world.publish(node[:-1] + "x", **options)) == "cancel item-not-found"
    assert taken(world) == []
    assert "wrong" not in repr(events)


def test_tigase_needs_no_secret(world):
    """The node's name is as good as one, and only the user's server may use it."""
    got = world.register("register-device", provider="siskin:1", **{"device-token": "T"})
    assert world.publish(got["node"])["type"] == "result"
    assert condition_of(world.publish(got["node"], by="far.example")) == "cancel item-not-found"
    ((_, _, body),) = taken(world)
    assert body["alert"]["body"] == "Hi"
    assert body["data"] == {"account": "alice@localhost"}


FORM_TYPE = "https://github.com/tmolitor-stud-tu/mod_push_appserver/#v1-register-push"
DEVICE = {"service": "fcm", "device_id": "T"}
# Answers to the owner's server with the right secret, with a wrong one and without; to another server.
ANSWERS = {
    # Of these three none gives out a secret, so one that comes is nobody's business.
    "tutorial": ("result", "result", "result", "auth forbidden"),
    "tigase": ("result", "result", "result", "cancel item-not-found"),
    "fpush": ("result", "result", "result", "result"),  # whoever knows a token
    "p2": ("result", "auth forbidden", "auth forbidden", "cancel item-not-found"),
    "appserver": ("result", *["cancel item-not-found"] * 3),
}


@pytest.mark.parametrize("way", ANSWERS)
def test_each_way_looks_at_the_secret_that_it_gave(world, way):
    """Also at an empty one, one that is a beginning of the right one, and one that is no ASCII."""
    right, wrong, without, elsewhere = ANSWERS[way]
    options, got = {"x": "y"}, {}
    if way == "tutorial":
        world.ask("<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='n' type='push'/></pubsub>")
        got, options = {"node": "n"}, DEVICE
    elif way == "p2":
        got = world.register()
    elif way == "appserver":
        got = world.register("v1-register-push", FORM_TYPE=FORM_TYPE, type="apns", node="D", token="T")
    elif way == "tigase":
        got = world.register("register-device", provider="siskin:1", **{"device-token": "T"})
    else:
        got, options = {"node": "T" * 64}, {"pushModule": "monal"}

    def answer(by="localhost", **more):
        said = world.publish(got["node"], by=by, **{**options, **more})
        return "result" if said["type"] == "result" else condition_of(said)

    secret = got.get("secret", "s3cret")
    assert answer(secret=secret) == right
    pushed = len(taken(world))
    assert [answer(secret=each) for each in ("", secret[:-1], f"{secret}x", "\u00e9")] == [wrong] * 4
    assert answer() == without
    assert (len(taken(world)) > pushed) == (wrong == "result")
    assert answer(by="far.example", secret=secret) == elsewhere


def test_a_device_that_registers_again_is_the_same_with_its_new_token(world):
    """Node and secret stay, so the server need not be told."""
    first = world.register()
    second = world.register(P2, token="T2", **{"android-id": "D1"})
    assert first == second
    world.publish(first["node"], secret=first["secret"])
    assert taken(world)[0][1] == "/v3/notification/T2"
    assert len(devices(world)) == 1


def test_the_same_device_of_another_account_is_another(world):
    """Who knows an id cannot take over what it stands for."""
    alice, mallory = (
        world.register(),
        world.register(by="mallory@localhost/x", token="M", **{"android-id": "D1"}),
    )
    assert alice["node"] != mallory["node"]
    gone = world.command("unregister-push-fcm", form(**{"device-id": "D1"}), by="mallory@localhost/x")
    assert gone["type"] == "result"
    assert world.publish(alice["node"], secret=alice["secret"])["type"] == "result"


def test_a_room_may_publish(world):
    """p2's field muc: then it is the room, and not the user's server."""
    got = world.register(token="T", muc="room@far.example", **{"device-id": "D1"})
    assert condition_of(world.publish(got["node"], secret=got["secret"])) == "cancel item-not-found"
    assert world.publish(got["node"], by="far.example", secret=got["secret"])["type"] == "result"
    assert sorted(taken(world)[0][2]["data"]) == ["account", "channel"]


def test_what_is_kept_names_nobody(world):
    """Neither the account nor the device's id is in the table."""
    world.register(token="T1", **{"android-id": "92afd7a91cdba9a0"})
    text = repr(devices(world))
    assert "alice" not in text
    assert "92afd7a91cdba9a0" not in text


def test_devices_go_with_the_account(world):
    """Whoever gets its JID next inherits none."""
    got = world.register()
    world.storage.accounts.remove("alice@localhost")
    assert devices(world) == []
    assert condition_of(world.publish(got["node"], secret=got["secret"])) == "cancel item-not-found"


def test_users_have_so_many_devices_and_no_more():
    """[app:NAME] max_devices_per_user; a repeat needs no room."""
    world = World((AppSection("a", "fcm", p2=("*",), max_devices_per_user=2),))
    for number in (1, 2, 1):
        world.register(token="T", **{"device-id": f"D{number}"})
    third = world.command(P2, form(token="T", **{"device-id": "D3"}))
    assert condition_of(third) == "wait resource-constraint"
    world.register(by="bob@localhost/x", token="T", **{"device-id": "D3"})


def test_users_register_so_often_and_no_more():
    """[app:NAME] registrations_per_minute."""
    world = World((AppSection("a", "fcm", p2=("*",), registrations_per_minute=2),))
    world.register(), world.register()
    assert (
        condition_of(world.command(P2, form(token="T", **{"device-id": "D"}))) == "wait resource-constraint"
    )
    world.clock.advance(60)
    world.register()


def test_each_app_counts_registrations_by_itself():
    """What a user does at one app takes nothing from another; what is kept of a JID is a hash."""
    world = World(
        (
            AppSection("a", "fcm", p2=("a",), registrations_per_minute=1),
            AppSection("b", "fcm", p2=("b",), registrations_per_minute=1),
        )
    )
    for package in "ab":
        by = f"{'a' * 1000}@localhost/x"
        world.register(P2, by=by, package=package, token="T", **{"device-id": "D"})
    assert {len(key) for key in world.apps._registrations._counts} == {64}


def test_domains_are_allowed_by_name():
    """[app:NAME] domains: others neither register nor publish."""
    apps = (AppSection("a", "fcm", p2=("*",), push_module=("m",), domains=("far.example",)),)
    world = World(apps)
    assert condition_of(world.command(P2, form(token="T", **{"device-id": "D"}))) == "auth forbidden"
    got = world.register(by="alice@far.example/x", token="T", **{"device-id": "D"})
    assert world.publish(got["node"], by="far.example", secret=got["secret"])["type"] == "result"
    assert condition_of(world.publish("T" * 64, pushModule="m")) == "auth forbidden"


def test_domains_publish_so_fast_and_no_faster():
    """[app:NAME] domain_rate: others than ours are told to wait."""
    world = World((AppSection("a", "fcm", push_module=("m",), domain_rate=1),))
    for _ in range(10):
        assert world.publish("T" * 64, by="far.example", pushModule="m")["type"] == "result"
    refused = world.publish("T" * 64, by="far.example", pushModule="m")
    assert condition_of(refused) == "wait internal-server-error"
    assert world.publish("T" * 64, pushModule="m")["type"] == "result"
    world.clock.advance(10)
    assert world.publish("T" * 64, by="far.example", pushModule="m")["type"] == "result"


def test_fpush_publishes_to_the_token(world):
    """The module says the app, or nothing does and * is there; the content stays here."""
    assert world.publish("a" * 64, pushModule="monal")["type"] == "result"
    assert world.publish("b" * 64)["type"] == "result"
    (service, path, body), (_, second, _) = taken(world)
    assert (service, path, second) == (
        "apns@monal",
        f"/v3/notification/{'a' * 64}",
        f"/v3/notification/{'b' * 64}",
    )
    assert body["alert"] == {"title": "localhost", "body": "New message", "badge": 2}


def test_fpush_refuses_modules_it_does_not_have():
    """bad-request, as fpush."""
    world = World((AppSection("a", "fcm", push_module=("m",)),))
    assert condition_of(world.publish("T" * 64, pushModule="x")) == "modify bad-request"
    assert condition_of(world.publish("T" * 64)) == "cancel item-not-found"


@pytest.mark.parametrize("module", [{"pushModule": "monal"}, {}])
def test_no_node_is_too_long_for_us(world, module):
    """Where nodes are tokens anybody can make up any: one is refused, and thousands are not remembered."""
    assert condition_of(world.publish("x" * 4001, **module)) == "cancel item-not-found"
    tracemalloc.start()
    try:
        world.publish("x" * 3900, **module)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100):
            world.publish(f"{number}{'x' * 3900}", **module)
            del world.push_service.taken[:]
            world.storage.messages.settle([world.storage.messages.queued(0, 1).result[0].id])
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000


@pytest.mark.parametrize("type", ["push", "flat"])
def test_a_node_with_a_devices_name_takes_nothing_away(world, type):
    """Whoever creates one gets none of the device's notifications."""
    got = world.register()
    world.ask(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'>"
        f"<create node='{got['node']}' type='{type}'/></pubsub>",
        by="mallory@far.example/x",
    )
    assert world.publish(got["node"], secret=got["secret"])["type"] == "result"
    assert len(taken(world)) == 1


def test_an_app_that_is_not_configured_any_more_is_waited_for(world):
    """The operator may put it back: servers are not to forget their registrations."""
    got = world.register()
    world.apps._apps.pop("conversations")
    answer = world.publish(got["node"], secret=got["secret"])
    assert condition_of(answer) == "wait internal-server-error"


def test_a_device_that_is_gone_is_forgotten(world):
    """Unless it registered again since."""
    got = world.register()
    world.publish(got["node"], secret=got["secret"])
    (delivery,) = world.push_service.taken
    world.clock.advance(1)
    world.register()
    Deferred.fromCoroutine(world.apps.unregistered(delivery))
    assert len(devices(world)) == 1
    world.publish(got["node"], secret=got["secret"])
    Deferred.fromCoroutine(world.apps.unregistered(world.push_service.taken[1]))
    assert devices(world) == []
    assert condition_of(world.publish(got["node"], secret=got["secret"])) == "cancel item-not-found"


@pytest.mark.parametrize(
    ("app", "command", "fields", "told"),
    [
        ({"p2": ("*",), "keep_account": True}, P2, {"token": "T", "device-id": "D"}, True),
        ({"p2": ("*",)}, P2, {"token": "T", "device-id": "D"}, False),
        ({"tigase": ("t:1",)}, "register-device", {"device-token": "T", "provider": "t:1"}, True),
        (
            {"p2": ("*",), "keep_account": True},
            P2,
            {"token": "T", "device-id": "D", "muc": "r@far.example"},
            False,
        ),
    ],
)
def test_a_server_is_told_of_a_device_that_turns_out_to_be_gone(app, command, fields, told):
    """XEP-0357 section 8, once the publish has its answer, and where it is known whom to tell."""
    world = World((AppSection("a", "fcm", **app),))
    got = world.register(command, by="alice@far.example/x", **fields)
    options = {"secret": got["secret"]} if "secret" in got else {"x": "y"}
    world.publish(got["node"], by="far.example", **options)
    del world.answers[:]
    world.pubsub.unregistered(world.push_service.taken[0])
    assert devices(world) == []
    assert len(world.answers) == told
    for message in world.answers:
        assert (message["from"], message["to"], message["type"]) == (HOST, "alice@far.example", "headline")
        assert revoked_nodes(message, "alice@far.example") == [got["node"]]
    world.pubsub.unregistered(world.push_service.taken[0])
    assert len(world.answers) == told


def test_where_the_answer_tells_there_is_no_message():
    """And none for accounts of this server, whose registrations mod_push removes itself."""
    world = World((AppSection("a", "fcm", p2=("*",), keep_account=True),))
    got = world.register(by="alice@far.example/x", token="T", **{"device-id": "D"})
    world.push_service.enqueue = lambda delivery, first: waiting.append((delivery, first))
    waiting = []
    with pytest.raises(ValueError, match="not enough values"):  # no answer yet
        world.publish(got["node"], by="far.example", secret=got["secret"])
    ((delivery, first),) = waiting
    world.pubsub.unregistered(delivery)
    first(DeviceUnregistered("gone"))
    assert devices(world) == []
    (answer,) = world.answers
    assert condition_of(answer) == "cancel item-not-found"
    again = world.register(by="alice@far.example/x", token="T", **{"device-id": "D"})
    world.pubsub.unregistered(evolve(delivery, id=99, node=again["node"], account="alice@localhost"))
    assert devices(world) == []
    assert [answer.name for answer in world.answers] == ["iq"]


def test_bursts_are_limited():
    """[app:NAME] rate_limit: the first at once, the last at the end, a result for all of them."""
    world = World(
        APPS,
        lambda service, messages, clock: RateLimited(service, messages, clock, {"fcm@conversations": 5.0}),
    )
    got = world.register()
    for _ in range(4):
        assert world.publish(got["node"], secret=got["secret"])["type"] == "result"
    assert len(taken(world)) == 1
    assert len(world.storage.messages.queued(0, 10).result) == 2
    world.clock.advance(5)
    assert len(taken(world)) == 2
    world.clock.advance(5)
    assert len(taken(world)) == 2


@pytest.mark.parametrize(
    "inside",
    [
        "<jingle xmlns='tigase:push:jingle:0' action='propose' sid='s'><media>audio</media></jingle>",
        "<encrypted xmlns='tigase:push:encrypt:0' iv='aXY=' type='voip'>dGV4dA==</encrypted>",
        "<x xmlns='jabber:x:data'><field var='priority'><value>high</value></field></x>",
    ],
)
def test_calls_are_not_limited(inside):
    """Delayed it rings in vain, and what comes after it says nothing of it."""
    world = World(APPS, lambda *inner: RateLimited(*inner, {"fcm@conversations": 5.0}))
    got = world.register()
    for _ in range(2):
        world.publish(got["node"], secret=got["secret"])
    secret = (
        "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>"
        "<value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
        f"<field var='secret'><value>{got['secret']}</value></field></x></publish-options>"
    )
    call = f"<item><notification xmlns='urn:xmpp:push:0'>{inside}</notification></item>"
    world.ask(
        f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{got['node']}'>{call}</publish>"
        f"{secret}</pubsub>",
        by="localhost",
    )
    assert len(taken(world)) == 2
    world.clock.advance(5)
    assert len(taken(world)) == 3


def test_windows_count_each_key_by_itself(world):
    """And begin anew."""
    windows = Windows(10.0, world.clock)
    assert [windows.has_room("a", 1), windows.has_room("a", 1), windows.has_room("b", 1)] == [
        True,
        False,
        True,
    ]
    assert windows.has_room("a", 0)
    world.clock.advance(10)
    assert windows.has_room("a", 1)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("token", "answer"), [("T1", "result"), ("T2", "result"), (None, "error")])
def test_a_device_that_registered_again_is_not_said_to_be_gone(world, token, answer, cached):
    """A server that hears item-not-found forgets the node, which may have a new token by then."""
    got = world.register()
    world.push_service.silent = True
    world.send(world.a_publish(got["node"], secret=got["secret"]), by="localhost")
    if token is not None:
        world.clock.advance(1)
        world.register(P2, token=token, **{"android-id": "D1"})
    if not cached:
        world.storage.devices._cache.clear()
    del world.answers[:]
    (first,) = world.push_service.firsts
    first(DeviceUnregistered("410"))
    assert [iq["type"] for iq in world.answers] == [answer]


def test_what_went_to_an_old_token_goes_to_the_new_one(world):
    """The push was accepted, and the device is not gone: it only has another token."""
    got = world.register()
    world.publish(got["node"], secret=got["secret"])
    (delivery,) = world.push_service.taken
    world.register(P2, token="T2", **{"android-id": "D1"})
    Deferred.fromCoroutine(world.apps.unregistered(delivery))
    _, again = world.push_service.taken
    assert (again.path, again.body) == ("/v3/notification/T2", delivery.body)
    assert [row.path for row in world.storage.messages.queued(0, 9).result][-1] == "/v3/notification/T2"
    Deferred.fromCoroutine(world.apps.unregistered(again))
    assert devices(world) == []


@pytest.mark.parametrize("token", [".", "..", "é" * 2000])
def test_a_token_that_no_request_can_name_is_refused_at_once(world, token):
    """Else the first publish would say so, to a server that forgets the registration for it."""
    answer = world.command(P2, form(token=token, **{"device-id": "D"}))
    assert condition_of(answer) == "modify bad-request"
    values = {"FORM_TYPE": FORM, "type": "apns", "node": "D", "token": token}
    assert condition_of(world.command("v1-register-push", form(**values))) == "modify not-acceptable"
    assert devices(world) == []
