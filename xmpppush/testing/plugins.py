"""
What every push plugin does (`IPushPlugin`).

Each check is a function of a plugin, which may leave methods out. Run all of `CHECKS` on yours::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(quiet_nights)
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.plugin import IPlugin
from twisted.words.xish.domish import Element

from xmpppush.config.values import name
from xmpppush.interfaces import IPushPlugin
from xmpppush.model import Importance, Notification, Registration
from xmpppush.testing.builders import a_registration
from xmpppush.testing.sessions import stanza_of

Check: TypeAlias = Callable[[Any], None]

CHECKS: list[Check] = []

ALICE = "alice@localhost"
METHODS = ("should_publish", "prepare_notification", "publish_notification")
MESSAGE = "<message type='chat' from='bob@localhost/x' to='alice@localhost'><body>Hello</body></message>"
# What a server meets: with and without text, encrypted, from nobody, and what a stranger makes up.
STANZAS = (
    MESSAGE,
    "<message/>",
    "<message from='bob@localhost/x'><body/></message>",
    "<message type='groupchat' from='room@muc.localhost/nick'><body>Hello</body></message>",
    "<message type='error' from='bob@localhost/x'><body>Hello</body><error type='cancel'/></message>",
    "<message type='nonsense' from='localhost'><body xml:lang='de'>Hallo</body><body>Hello</body></message>",
    "<message from='bob@localhost/x'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
    "<message from='bob@localhost/x'><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>",
    "<message from='bob@localhost/x'><propose xmlns='urn:xmpp:jingle-message:0'/>"
    "<store xmlns='urn:xmpp:hints'/></message>",
    "<message from='bob@localhost/x'><encrypted xmlns='eu.siacs.conversations.axolotl'/></message>",
    "<message from='bob@localhost/x'>text<body><b xmlns='x'/>tail</body>more</message>",
)


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


@check
def a_plugin_is_found_by_its_name(plugin: Any) -> None:
    """It is a Twisted plugin, and ``plugin_module`` can name it."""
    assert IPlugin.providedBy(plugin), "declare @implementer(IPlugin, IPushPlugin)"
    assert IPushPlugin.providedBy(plugin), "declare @implementer(IPlugin, IPushPlugin)"
    assert name(plugin.name) == plugin.name


@check
def a_plugin_decides_something(plugin: Any) -> None:
    """One of the methods or of the attributes of the contract is there."""
    assert any(hasattr(plugin, method) for method in (*METHODS, "push_on_broken_stream"))


@check
def a_plugin_answers_yes_or_no_about_every_stanza(plugin: Any) -> None:
    """Whatever a stranger sends raises nothing; a reason is short and says nothing of the message."""
    if not hasattr(plugin, "should_publish"):
        return
    for stanza in _stanzas():
        answer = plugin.should_publish(ALICE, stanza)
        assert isinstance(answer, bool | Importance), answer
        if isinstance(answer, Importance):
            assert 0 < len(answer.reason) <= 40
            assert "Hello" not in answer.reason
            assert "bob" not in answer.reason


@check
def a_plugin_words_every_stanza(plugin: Any) -> None:
    """A notification, whose further fields are text, or none."""
    if not hasattr(plugin, "prepare_notification"):
        return
    for stanza in _stanzas():
        notification = plugin.prepare_notification(ALICE, stanza)
        assert notification is None or isinstance(notification, Notification)
        if notification is not None:
            assert all(isinstance(text, str) for pair in notification.extra.items() for text in pair)


@check
def a_plugin_only_narrows(plugin: Any) -> None:
    """It returns a tuple of some of the registrations that it got, in their order, also of none."""
    if not hasattr(plugin, "publish_notification"):
        return
    registrations = tuple(a_registration(node=f"n{number}") for number in range(3))
    for given in (registrations, registrations[:1], ()):
        chosen = plugin.publish_notification(ALICE, Notification(), given)
        assert isinstance(chosen, tuple)
        assert list(chosen) == [each for each in given if _is_among(each, chosen)]


@check
def a_plugin_changes_no_stanza(plugin: Any) -> None:
    """The message goes on to other sessions and to the disk."""
    for stanza in _stanzas():
        before = stanza.toXml()
        for method in METHODS[:2]:
            if hasattr(plugin, method):
                getattr(plugin, method)(ALICE, stanza)
        assert stanza.toXml() == before


def _stanzas() -> list[Element]:
    return [stanza_of(xml) for xml in STANZAS]


def _is_among(registration: Registration, chosen: tuple[Registration, ...]) -> bool:
    return any(each is registration for each in chosen)
