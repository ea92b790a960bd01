"""Finding a node for somebody who asks for it, and what its type offers."""

from collections.abc import Mapping

from twisted.internet.defer import Deferred, succeed

from xmpppush.errors import Forbidden, NodeNotFound, TryLater, Unsupported
from xmpppush.interfaces import INodeStore, INodeType
from xmpppush.jids import JID
from xmpppush.mod_pubsub.rules import ACCESS_MODEL, MAX_NODE_OCTETS, affiliation_of, may_own, may_see
from xmpppush.model import Node


class Lookup:
    """
    Nodes by host and name, for who may know of them.

    Attributes:
        types: The node types on offer, by name, the default first.
    """

    def __init__(self, nodes: INodeStore, types: Mapping[str, INodeType]) -> None:
        self.types = types
        self._nodes = nodes

    def get(self, host: str, name: str) -> "Deferred[Node | None]":
        """The node, if there is one."""
        # The store remembers what is not there too: not by names of any length that strangers make up.
        return self._nodes.get(host, name) if len(name) <= MAX_NODE_OCTETS else succeed(None)

    async def existing(self, host: str, name: str) -> Node:
        """
        Raises:
            NodeNotFound: There is none.
        """
        node = await self.get(host, name)
        if node is None:
            raise NodeNotFound("no such node")
        return node

    async def owned(self, requester: JID, host: str, name: str) -> Node:
        """
        A node, for its owners.

        Raises:
            NodeNotFound, Forbidden: As they say.
        """
        node = await self.existing(host, name)
        if not may_own(affiliation_of(node, requester.userhost())):
            raise Forbidden("only an owner may do that")
        return node

    async def visible(self, requester: JID, host: str, name: str) -> Node:
        """
        A node, for whoever may see it.

        Raises:
            NodeNotFound: There is none, or none for this one.
        """
        node = await self.existing(host, name)
        model = self.value(node, ACCESS_MODEL) or "whitelist"
        if not may_see(affiliation_of(node, requester.userhost()), model):
            raise NodeNotFound("no such node")
        return node

    async def offering(self, feature: str, requester: JID, host: str, name: str) -> Node:
        """
        A node that can do this; what ``requester`` may do there is not looked at.

        Raises:
            Unsupported: It cannot, or no node here can.
            NodeNotFound: There is none; or it cannot, and is none of this one's business.
        """
        self.check_offered(feature)
        node = await self.existing(host, name)
        if feature not in self.type_of(node).features:
            await self.visible(requester, host, name)
            raise Unsupported(feature)
        return node

    def check_offered(self, feature: str) -> None:
        """
        Raises:
            Unsupported: No node type has this feature.
        """
        if not any(feature in node_type.features for node_type in self.types.values()):
            raise Unsupported(feature)

    def type_of(self, node: Node) -> INodeType:
        """
        Raises:
            TryLater: The operator took it out of the configuration, and may put it back.
        """
        node_type = self.types.get(node.type)
        if node_type is None:
            raise TryLater(f"node type {node.type} is not configured")
        return node_type

    def defaults_of(self, node: Node) -> Mapping[str, str]:
        """Defaults of its type, none where the type is not configured any more."""
        node_type = self.types.get(node.type)
        return node_type.defaults if node_type is not None else {}

    def features_of(self, node: Node) -> tuple[str, ...]:
        """Features of its type, none where the type is not configured any more."""
        node_type = self.types.get(node.type)
        return node_type.features if node_type is not None else ()

    def value(self, node: Node, var: str) -> str:
        """The value of an option of its configuration, ``""`` where there is no such option."""
        value = node.config.get(var)
        return self.defaults_of(node).get(var, "") if value is None else value

    def config_of(self, node: Node) -> dict[str, str]:
        """All options of its configuration."""
        return {**self.defaults_of(node), **node.config}


def pushes(node_type: INodeType) -> bool:
    """Is it for notifications? A type of somebody else need not say so."""
    return bool(getattr(node_type, "pushes", True))
