"""The contract suite of INodeType on the types that are built in, and finding those that are not."""

import pytest
from twisted.words.xish.domish import Element
from zope.interface.verify import verifyObject

from xmpppush.errors import ConfigError, InvalidPayload
from xmpppush.interfaces import INodeType
from xmpppush.mod_pubsub.nodetypes import BUILT_IN, node_types_of
from xmpppush.testing.builders import a_node
from xmpppush.testing.nodetypes import CHECKS

PUSH, FLAT = BUILT_IN


@pytest.mark.parametrize("node_type", BUILT_IN, ids=lambda node_type: node_type.name)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, node_type):
    """What every node type does."""
    check(node_type)


@pytest.mark.parametrize("node_type", BUILT_IN, ids=lambda node_type: node_type.name)
def test_built_in_types_leave_nothing_out(node_type):
    """They have also what a plugin need not have."""
    verifyObject(INodeType, node_type)


def test_a_push_node_has_no_items():
    """Nobody asks it about one; if anybody does, there are none."""
    with pytest.raises(InvalidPayload):
        PUSH.check_item(a_node(), "alice@localhost", Element(("urn:x", "x")))


def test_types_are_found_in_the_order_of_the_configuration():
    """The first is the default."""
    assert node_types_of(["flat", "push"]) == (FLAT, PUSH)


def test_a_type_that_is_not_installed_is_a_problem():
    """One line for each."""
    with pytest.raises(ConfigError) as caught:
        node_types_of(["push", "nosuch", "pep"])
    assert [line.partition(";")[0] for line in caught.value.problems] == [
        "[mod_pubsub] plugins: no node type 'nosuch'",
        "[mod_pubsub] plugins: no node type 'pep'",
    ]
