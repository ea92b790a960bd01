"""
What every pubsub node type does (`INodeType`).

Each check is a function of a node type. Run all of `CHECKS` on yours::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(notice_board)
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.plugin import IPlugin
from twisted.words.xish.domish import Element

from xmpppush.config.values import name
from xmpppush.errors import InvalidPayload, PushError
from xmpppush.interfaces import INodeType
from xmpppush.mod_pubsub.nodetypes import BUILT_IN, FLAT_FEATURES
from xmpppush.mod_pubsub.rules import ACCESS_MODEL, OPTIONS, PUBLISH_MODEL, check_config
from xmpppush.testing.builders import a_node, a_publish
from xmpppush.testing.sessions import stanza_of

Check: TypeAlias = Callable[[Any], None]

CHECKS: list[Check] = []

ALICE = "alice@localhost"
# What a stranger may publish, beside nothing.
PAYLOADS = (
    "<x xmlns='urn:nosuch'/>",
    "<entry xmlns='http://www.w3.org/2005/Atom'><title>Hello</title></entry>",
    "<note xmlns='urn:nosuch'>text<b xmlns='urn:other'/>tail</note>",
    "<notification xmlns='urn:xmpp:push:0'/>",
)
# Without these a node type is of no use, or its nodes of no more.
NEEDED = ("create-nodes", "delete-nodes", "config-node", "publish")


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


@check
def a_node_type_is_found_by_its_name(node_type: Any) -> None:
    """It provides the contract, is a Twisted plugin unless built in, and ``plugins`` can name it."""
    assert INodeType.providedBy(node_type), "declare @implementer(IPlugin, INodeType)"
    assert node_type in BUILT_IN or IPlugin.providedBy(node_type), "declare @implementer(IPlugin, INodeType)"
    assert name(node_type.name) == node_type.name


@check
def a_node_type_has_features_that_there_are(node_type: Any) -> None:
    """Service discovery tells of them, and each is something that mod_pubsub does."""
    assert isinstance(node_type.features, tuple)
    assert set(node_type.features) <= set(FLAT_FEATURES), set(node_type.features) - set(FLAT_FEATURES)
    assert set(NEEDED) <= set(node_type.features), set(NEEDED) - set(node_type.features)
    if is_for_pushes(node_type):
        assert not {"persistent-items", "subscribe", "retrieve-items"} & set(node_type.features)


@check
def a_node_type_has_defaults_that_its_options_take(node_type: Any) -> None:
    """Each is an option, in the spelling that is kept; access and publish model are among them."""
    defaults = node_type.defaults
    assert set(defaults) <= set(OPTIONS), set(defaults) - set(OPTIONS)
    assert {ACCESS_MODEL, PUBLISH_MODEL} <= set(defaults)
    assert check_config(defaults, defaults, node_type.features) == dict(defaults)


@check
def a_node_type_that_pushes_judges_publishes(node_type: Any) -> None:
    """It takes the publish of the tutorial, or says in one of our exceptions what is wrong with it."""
    if not is_for_pushes(node_type):
        return
    for options in ({"service": "fcm", "device_id": "t"}, {}, {"secret": ""}):
        _judges(node_type.check_publish, a_node(type=node_type.name), a_publish(options=options))


@check
def a_node_type_that_does_not_push_refuses_notifications(node_type: Any) -> None:
    """No phone would hear of them."""
    if is_for_pushes(node_type):
        return
    try:
        node_type.check_publish(a_node(type=node_type.name), a_publish())
    except InvalidPayload:
        return
    raise AssertionError("check_publish takes a notification that goes nowhere")


@check
def a_node_type_judges_every_item(node_type: Any) -> None:
    """Whatever a stranger publishes, also nothing, is taken or refused, and not changed."""
    if is_for_pushes(node_type) or not hasattr(node_type, "check_item"):
        return
    node = a_node(type=node_type.name)
    _judges(node_type.check_item, node, ALICE, None)
    for payload in _payloads():
        before = payload.toXml()
        _judges(node_type.check_item, node, ALICE, payload)
        assert payload.toXml() == before


def is_for_pushes(node_type: Any) -> bool:
    return bool(getattr(node_type, "pushes", True))


def _judges(function: Callable[..., object], *args: object) -> None:
    """It returns nothing, or raises one of ours, whose text goes to the sender and perhaps into a log."""
    said = ""
    try:
        assert function(*args) is None
    except PushError as refusal:
        said = str(refusal)
    assert "Hello" not in said


def _payloads() -> list[Element]:
    return [stanza_of(xml) for xml in PAYLOADS]
