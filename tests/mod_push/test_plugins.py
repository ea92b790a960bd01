"""The built-in plugins, and several of them as one."""

import pytest
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

from xmpppush.errors import ConfigError
from xmpppush.interfaces import IPushPlugin
from xmpppush.mod_push.plugins import BUILT_IN, Chain, chain_of, defaults
from xmpppush.model import Importance, Notification, PushSummary
from xmpppush.testing.builders import a_registration
from xmpppush.testing.plugins import CHECKS, MESSAGE
from xmpppush.testing.sessions import stanza_of

ALICE = "alice@localhost"
WRITTEN = stanza_of(MESSAGE)
PHONE, TABLET = a_registration(), a_registration(node="n2")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("plugin", BUILT_IN.values(), ids=lambda plugin: plugin.name)
def test_the_built_in_plugins_keep_the_contract(check, plugin):
    """The suite that anybody's plugin is held to."""
    check(plugin)


def test_the_interfaces_hold():
    """zope.interface's own check, of those that have every method."""
    assert verifyObject(IPushPlugin, defaults)
    assert verifyObject(IPushPlugin, BUILT_IN["hints"])
    assert verifyObject(IPushPlugin, Chain([defaults]))
    assert all(IPlugin.providedBy(plugin) for plugin in BUILT_IN.values())


class Quiet:
    """A plugin that leaves two methods out."""

    name = "quiet"

    def should_publish(self, account, stanza):
        return "Hello" not in str(stanza.body)


class Renames:
    name = "renames"

    def prepare_notification(self, account, stanza):
        return Notification(PushSummary(1, None, "Somebody", "Something"))

    def publish_notification(self, account, notification, registrations):
        return registrations[:1]


class Urges:
    name = "urges"

    def should_publish(self, account, stanza):
        return Importance(True, "boss", urgent=True)


class Broken:
    name = "broken"

    def should_publish(self, account, stanza):
        raise RuntimeError("a bug")

    prepare_notification = publish_notification = should_publish


def test_all_have_to_want_the_push():
    """The first that does not says why; a plain no is the plugin's."""
    assert Chain([defaults, Quiet()]).should_publish(ALICE, WRITTEN) == Importance(False, "plugin quiet")
    chain = Chain([defaults, Quiet()])
    assert chain.should_publish(ALICE, stanza_of("<message><body>x</body></message>")).reason == "message"
    assert chain.should_publish(ALICE, stanza_of("<message/>")).reason == "no-content"


def test_one_that_is_urgent_is_enough():
    """And its reason is the one that counts."""
    assert Chain([defaults, Urges()]).should_publish(ALICE, WRITTEN) == Importance(True, "boss", True)


def test_the_last_word_and_narrowing():
    """What is left out is as in defaults."""
    chain = Chain([defaults, Quiet(), Renames()])
    notification = chain.prepare_notification(ALICE, WRITTEN)
    assert notification.summary.last_message_sender == "Somebody"
    assert chain.publish_notification(ALICE, notification, (PHONE, TABLET)) == (PHONE,)
    chain = Chain([Quiet()])
    assert chain.prepare_notification(ALICE, WRITTEN).summary.last_message_body == "Hello"
    assert chain.publish_notification(ALICE, notification, (PHONE, TABLET)) == (PHONE, TABLET)


def test_a_broken_plugin_costs_no_push():
    """The defaults decide instead."""
    chain = Chain([Broken(), Renames()])
    assert chain.should_publish(ALICE, WRITTEN).push
    assert not chain.should_publish(ALICE, stanza_of("<message/>"))
    chain = Chain([Renames(), Broken()])
    notification = chain.prepare_notification(ALICE, WRITTEN)
    assert notification.summary.last_message_body == "Hello"
    assert chain.publish_notification(ALICE, notification, (PHONE, TABLET)) == (PHONE, TABLET)


def test_an_unknown_plugin_is_a_configuration_error():
    """One line, with what there is."""
    with pytest.raises(ConfigError, match=r"no plugin 'nope'; installed: .*defaults.*enhanced.*hints"):
        chain_of(["defaults", "nope"])
    assert chain_of(["defaults"]).name == "defaults"


def test_enhanced_asks_for_pushes_on_broken_streams():
    """In whatever company; the others do not."""
    assert chain_of(["enhanced"]).push_on_broken_stream
    assert chain_of(["defaults", "enhanced", "hints"]).push_on_broken_stream
    assert not chain_of(["defaults", "hints"]).push_on_broken_stream


STORE = "<store xmlns='urn:xmpp:hints'/>"


def call(action, hint=STORE):
    return stanza_of(
        "<message type='chat' from='bob@localhost/x'>"
        f"<{action} xmlns='urn:xmpp:jingle-message:0' id='c1'/>{hint}</message>"
    )


@pytest.mark.parametrize(
    ("stanza", "expected"),
    [
        (WRITTEN, Importance(True, "message")),
        (call("propose"), Importance(True, "call", urgent=True)),
        (call("retract"), Importance(True, "call-signal", urgent=True)),
        (call("retract", ""), Importance(False, "call-signal")),
        (call("retract", STORE + "<no-store xmlns='urn:xmpp:hints'/>"), Importance(False, "no-store")),
    ],
)
def test_hints_lets_calls_through(stanza, expected):
    """What ends a call as well, where its sender wants it stored."""
    assert BUILT_IN["hints"].should_publish(ALICE, stanza) == expected


def test_hints_says_which_call():
    """In fields for an app that rings by itself; MongooseIM's names."""
    notification = chain_of(["defaults", "hints"]).prepare_notification(ALICE, call("propose"))
    assert notification.extra == {
        "message-sender": "bob@localhost/x",
        "jingle-message": "propose",
        "jingle-session-id": "c1",
    }
    assert not BUILT_IN["hints"].prepare_notification(ALICE, WRITTEN).extra


def test_hints_shows_nobody_that_a_call_is_over():
    """Only a silent notification, which the app itself makes something of."""
    silent = a_registration(node="n3", options={"silent": "true"})
    everybody = (PHONE, silent)
    hints = BUILT_IN["hints"]
    for action, who in (("propose", everybody), ("retract", (silent,))):
        notification = hints.prepare_notification(ALICE, call(action))
        assert hints.publish_notification(ALICE, notification, everybody) == who
    assert hints.publish_notification(ALICE, Notification(), everybody) == everybody
