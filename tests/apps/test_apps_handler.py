"""Registration as clients meet it (XEP-0050), well-meaning and hostile ones."""

import pytest

from xmpppush.config.sections import AppSection
from xmpppush.testing.apps import HOST, World, condition_of, form, values_in

COMMANDS = "http://jabber.org/protocol/commands"
P2 = "register-push-fcm"
GOOD = {"token": "T1", "android-id": "D1"}


def disco(world, kind, node=""):
    node = f" node='{node}'" if node else ""
    return world.ask(f"<query xmlns='http://jabber.org/protocol/disco#{kind}'{node}/>", "get")


def test_commands_are_discovered(world):
    """XEP-0050 section 2: the feature, the list, and what each of them is."""
    assert f"var='{COMMANDS}'" in disco(world, "info").toXml()
    items = disco(world, "items", COMMANDS)
    nodes = [item["node"] for item in items.query.elements()]
    assert nodes == [
        "register-push-apns",
        "unregister-push-apns",
        "register-push-fcm",
        "unregister-push-fcm",
        "v1-register-push",
        "v1-unregister-push",
        "register-device",
        "unregister-device",
    ]
    assert "command-list" in disco(world, "info", COMMANDS).toXml()
    for node in nodes:
        found = disco(world, "info", node).toXml()
        assert "category='automation'" in found
        assert "type='command-node'" in found
        assert disco(world, "items", node)["type"] == "result"
    assert condition_of(disco(world, "info", "register-push-nowhere")) == "cancel item-not-found"


def test_without_apps_there_are_no_commands():
    """Neither discovered nor executed: nobody takes the request."""
    world = World(apps=())
    assert COMMANDS not in disco(world, "info").toXml()
    assert condition_of(world.command(P2, form(**GOOD))) == "cancel service-unavailable"


def test_apps_are_registered_for_at_their_own_hosts():
    """[app:NAME] host: elsewhere its commands do not exist."""
    world = World(apps=(AppSection("a", "fcm", hosts=("other.example",), p2=("*",)),))
    assert condition_of(world.command(P2, form(**GOOD))) == "cancel service-unavailable"


def test_p2_answers_in_its_own_words(world):
    """As Conversations reads it: PEERS.md section 1.7."""
    answer = world.command(P2, form(**GOOD))
    command = answer.command
    assert (command["node"], command["status"], command.x["type"]) == (P2, "completed", "form")
    values = values_in(answer)
    assert list(values) == ["jid", "node", "secret"]
    assert values["jid"] == HOST
    assert (len(values["node"]), len(values["secret"])) == (22, 24)


def test_appserver_answers_in_its_own_words(world):
    """As ChatSecure and Monal read it: PEERS.md section 1.6."""
    answer = world.command("v1-register-push", v1("v1-register-push", token="T"))
    assert (answer.command["status"], answer.command.x["type"]) == ("complete", "form")
    types = [(field["var"], field["type"]) for field in answer.command.x.elements()]
    assert types == [("jid", "jid-single"), ("node", "text-single"), ("secret", "text-single")]
    answer = world.command("v1-unregister-push", v1("v1-unregister-push"))
    assert values_in(answer) == {"jid": HOST, "node": "STABLE"}


def v1(command, **more):
    form_type = f"https://github.com/tmolitor-stud-tu/mod_push_appserver/#{command}"
    return form(**{"FORM_TYPE": form_type, "type": "apns", "node": "STABLE", **more}) if command else ""


def test_tigase_answers_in_its_own_words(world):
    """As Siskin reads it: a node and no secret."""
    fields = {"provider": "siskin:1", "device-token": "T"}
    answer = world.command("register-device", form(**fields))
    assert answer.command.x["type"] == "result"
    assert list(values_in(answer)) == ["node"]
    answer = world.command("unregister-device", form(**fields))
    assert (answer["type"], answer.command["status"], answer.command.x) == ("result", "completed", None)


def test_a_form_is_asked_for_and_filled_in(world):
    """XEP-0050 section 2.4: execute, a form, complete."""
    shown = world.command(P2).command
    assert shown["status"] == "executing"
    assert shown.actions["execute"] == "complete"
    assert [f["var"] for f in shown.x.elements() if f.name == "field"] == ["token", "device-id", "muc"]
    done = world.command(P2, form(**GOOD), "action='complete'", shown["sessionid"])
    assert done.command["status"] == "completed"
    assert done.command["sessionid"] == shown["sessionid"]
    again = world.command(P2, form(**GOOD), "action='complete'", shown["sessionid"])
    assert condition_of(again) == "modify bad-request bad-sessionid"


def test_an_error_leaves_the_session(world):
    """Whoever mistyped may try again."""
    session = world.command(P2).command["sessionid"]
    assert condition_of(world.command(P2, form(token="T"), "", session)) == "modify bad-request"
    assert world.command(P2, form(**GOOD), "", session)["type"] == "result"


def test_a_session_can_be_cancelled(world):
    """Example 10; then it is over."""
    session = world.command(P2).command["sessionid"]
    answer = world.command(P2, "", "action='cancel'", session)
    assert (answer.command["status"], answer.command["sessionid"]) == ("canceled", session)
    over = world.command(P2, form(**GOOD), "action='complete'", session)
    assert condition_of(over) == "modify bad-request bad-sessionid"


def test_a_session_expires(world):
    """XEP-0050 section 4.4."""
    session = world.command(P2).command["sessionid"]
    world.clock.advance(601)
    answer = world.command(P2, form(**GOOD), "action='complete'", session)
    assert condition_of(answer) == "cancel not-allowed session-expired"


def test_a_session_is_somebodys(world):
    """Of one JID, one resource and one command."""
    session = world.command(P2).command["sessionid"]
    for node, by in (
        (P2, "mallory@localhost/phone"),
        (P2, "alice@localhost/other"),
        ("unregister-push-fcm", "alice@localhost/phone"),
    ):
        answer = world.command(node, form(**GOOD), "action='complete'", session, by=by)
        assert condition_of(answer) == "modify bad-request bad-sessionid"


MANY = form(**{f"f{number}": "x" for number in range(30)})
HUGE = form(token="x" * 20_000, device="y")


@pytest.mark.parametrize(
    ("node", "action", "session", "inside", "condition"),
    [
        ("nothing", "", "", form(**GOOD), "cancel item-not-found"),
        ("", "", "", form(**GOOD), "modify bad-request"),
        (P2, "action='destroy'", "", form(**GOOD), "modify bad-request malformed-action"),
        (P2, "action='prev'", "", form(**GOOD), "modify bad-request bad-action"),
        (P2, "action='next'", "", form(**GOOD), "modify bad-request bad-action"),
        (P2, "action='cancel'", "", "", "modify bad-request bad-sessionid"),
        (P2, "action='complete'", "", "", "modify bad-request bad-payload"),
        (P2, "action='complete'", "1-1-abc", form(**GOOD), "modify bad-request bad-sessionid"),
        (P2, "action='execute'", "éé", form(**GOOD), "modify bad-request bad-sessionid"),
        (P2, "action='execute'", "x" * 300, form(**GOOD), "modify bad-request bad-sessionid"),
        (P2, "", "", MANY, "modify bad-request bad-payload"),
        (P2, "", "", HUGE, "modify bad-request bad-payload"),
        (P2, "", "", form(**GOOD) * 2, "modify bad-request bad-payload"),
        (P2, "", "", form("result", **GOOD), "modify bad-request bad-payload"),
        (P2, "", "", form(token="x" * 5000, **{"device-id": "D"}), "modify bad-request"),
        (P2, "", "", form(token="T", muc="@", **{"device-id": "x"}), "modify jid-malformed"),
        (P2, "", "", form(token="T", **{"device-id": "x" * 2000}), "modify bad-request"),
        ("register-push-apns", "", "", form(package="other", **GOOD), "cancel item-not-found"),
        ("unregister-push-fcm", "", "", form(**{"device-id": "D9"}), "cancel item-not-found"),
        ("v1-register-push", "", "", form(type="apns"), "modify not-acceptable"),
        ("v1-register-push", "", "", v1("x", token="T"), "modify not-acceptable"),
        ("v1-register-push", "", "", v1("v1-register-push", token="T", type="gcm"), "modify not-acceptable"),
        ("register-device", "", "", form(provider="x", **{"device-token": "T"}), "cancel item-not-found"),
        ("register-device", "", "", form(provider="siskin:1"), "modify bad-request"),
    ],
)
def test_what_is_wrong_is_said(world, node, action, session, inside, condition):
    """The exact condition, and nothing is registered."""
    assert condition_of(world.command(node, inside, action, session)) == condition
    assert rows(world) == 0


def rows(world):
    def count(cursor):
        return cursor.execute("SELECT count(*) FROM devices").fetchone()[0]

    return world.storage.database.read(count).result


def test_a_session_goes_only_forward(world):
    """There is one form: no way back and no next one; and it is to be filled in."""
    session = world.command(P2).command["sessionid"]
    for action, inside, name in (
        ("prev", form(**GOOD), "bad-action"),
        ("next", form(**GOOD), "bad-action"),
        ("complete", "", "bad-payload"),
    ):
        answer = world.command(P2, inside, f"action='{action}'", session)
        assert condition_of(answer) == f"modify bad-request {name}"


def test_commands_are_sets_to_the_host(world):
    """Not gets, and not to somebody on it."""
    command = f"<command xmlns='{COMMANDS}' node='{P2}'/>"
    assert condition_of(world.ask(command, "get")) == "modify bad-request"
    assert condition_of(world.ask(command, to=f"x@{HOST}")) == "cancel service-unavailable"


def test_only_accounts_register(world):
    """A server or component has no phone."""
    assert condition_of(world.command(P2, form(**GOOD), by="localhost")) == "auth forbidden"


def test_no_answer_tells_a_token(world):
    """Nor a device id: errors go through logs."""
    answer = world.command("unregister-push-fcm", form(**{"device-id": "very-private"})).error.toXml()
    assert "very-private" not in answer
