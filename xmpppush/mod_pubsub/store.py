"""Nodes and affiliations, as functions of a cursor, behind a cache; and the store of all that they have."""

from collections.abc import Mapping
from sqlite3 import Cursor
from types import MappingProxyType
from typing import Any

import orjson
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from xmpppush.cache import MISSING, ReadCache
from xmpppush.errors import NodeExists, TooManyNodes
from xmpppush.interfaces import IDatabase, INodeStore
from xmpppush.mod_pubsub import contents
from xmpppush.model import Item, Node, Subscription

_KEY = "host = ? AND name = ?"
# One statement, as each costs more than the rows do: of very many nodes most are read once a push.
_NODE = (
    "SELECT type, owner, config, created, jid, affiliation"
    " FROM nodes LEFT JOIN node_affiliations USING (host, name) WHERE host = ? AND name = ? ORDER BY jid"
)


def select_node(cursor: Cursor, host: str, name: str) -> Node | None:
    rows = cursor.execute(_NODE, (host, name)).fetchall()
    if not rows:
        return None
    node_type, owner, config, created, *_ = rows[0]
    affiliations = MappingProxyType({jid: affiliation for *_, jid, affiliation in rows if jid is not None})
    return Node(host, name, node_type, owner, MappingProxyType(orjson.loads(config)), affiliations, created)


def select_affiliated(cursor: Cursor, host: str, jid: str, affiliation: str | None) -> tuple[Node, ...]:
    """Nodes that know ``jid``, in this affiliation or, with ``None``, in any."""
    cursor.execute(
        "SELECT name FROM node_affiliations"
        " WHERE jid = ? AND host = ? AND affiliation = coalesce(?, affiliation) ORDER BY name",
        (jid, host, affiliation),
    )
    nodes = [select_node(cursor, host, name) for (name,) in cursor.fetchall()]
    return tuple(node for node in nodes if node is not None)


def insert_node(cursor: Cursor, node: Node, limit: int) -> None:
    cursor.execute(f"SELECT 1 FROM nodes WHERE {_KEY}", (node.host, node.name))  # noqa: S608
    if cursor.fetchall():
        raise NodeExists("there is a node with this name")
    cursor.execute("SELECT count(*) FROM nodes WHERE owner = ? AND host = ?", (node.owner, node.host))
    if cursor.fetchone()[0] >= limit:
        raise TooManyNodes(f"there are {limit} already")
    cursor.execute(
        "INSERT INTO nodes (host, name, type, owner, config, created) VALUES (?, ?, ?, ?, ?, ?)",
        (node.host, node.name, node.type, node.owner, _json(node.config), node.created),
    )
    _put_affiliations(cursor, node.host, node.name, node.affiliations)


def update_config(cursor: Cursor, host: str, name: str, config: Mapping[str, str], keep: int | None) -> bool:
    cursor.execute(f"UPDATE nodes SET config = ? WHERE {_KEY}", (_json(config), host, name))  # noqa: S608
    changed = cursor.rowcount > 0
    if keep is not None:
        contents.trim_items(cursor, host, name, keep)
    return changed


def change_affiliations(cursor: Cursor, host: str, name: str, changes: Mapping[str, str]) -> bool:
    cursor.execute(f"SELECT 1 FROM nodes WHERE {_KEY}", (host, name))  # noqa: S608
    if not cursor.fetchall():
        return False
    _put_affiliations(cursor, host, name, changes)
    return True


def delete_node(cursor: Cursor, host: str, name: str) -> bool:
    contents.delete_contents(cursor, host, name)
    cursor.execute(f"DELETE FROM node_affiliations WHERE {_KEY}", (host, name))  # noqa: S608
    cursor.execute(f"DELETE FROM nodes WHERE {_KEY}", (host, name))  # noqa: S608
    return cursor.rowcount > 0


def delete_nodes_of(cursor: Cursor, account: str) -> None:
    """Its nodes, and what it is at those of others: whoever gets its JID next shall inherit neither."""
    cursor.execute("SELECT host, name FROM nodes WHERE owner = ?", (account,))
    for host, name in cursor.fetchall():
        delete_node(cursor, host, name)
    cursor.execute("DELETE FROM node_affiliations WHERE jid = ?", (account,))
    contents.forget_account(cursor, account)


def _put_affiliations(cursor: Cursor, host: str, name: str, changes: Mapping[str, str]) -> None:
    cursor.executemany(
        "DELETE FROM node_affiliations WHERE host = ? AND name = ? AND jid = ?",
        [(host, name, jid) for jid in changes],
    )
    cursor.executemany(
        "INSERT INTO node_affiliations (host, name, jid, affiliation) VALUES (?, ?, ?, ?)",
        [(host, name, jid, affiliation) for jid, affiliation in changes.items() if affiliation != "none"],
    )


def _json(config: Mapping[str, str]) -> str:
    return orjson.dumps(dict(config)).decode()


@implementer(INodeStore)
class SQLNodeStore:
    """
    Nodes by host and name, also the knowledge that there is none.

    Args:
        cached: How many nodes at the most.
    """

    def __init__(self, database: IDatabase, cached: int = 100_000) -> None:
        self._database = database
        self._cache: ReadCache[tuple[str, str], Node | None] = ReadCache(cached)
        database.on_foreign_write(self._cache.clear)

    def known(self, host: str, name: str) -> Node | None:
        cached = self._cache.get((host, name))
        return None if cached is MISSING else cached

    def get(self, host: str, name: str) -> "Deferred[Node | None]":
        cached = self._cache.get((host, name))
        if cached is not MISSING:
            return succeed(cached)
        reading = self._database.read(select_node, host, name)
        return reading.addCallback(self._have_read, (host, name), self._cache.changes)

    def create(self, node: Node, limit: int) -> "Deferred[None]":
        return self._write(node.host, node.name, insert_node, node, limit)

    def configure(
        self, host: str, name: str, config: Mapping[str, str], keep: int | None = None
    ) -> "Deferred[bool]":
        return self._write(host, name, update_config, host, name, config, keep)

    def affiliate(self, host: str, name: str, changes: Mapping[str, str]) -> "Deferred[bool]":
        return self._write(host, name, change_affiliations, host, name, changes)

    def delete(self, host: str, name: str) -> "Deferred[bool]":
        return self._write(host, name, delete_node, host, name)

    def subscribe(
        self, subscription: Subscription, node_limit: int, account_limit: int
    ) -> "Deferred[Subscription | None]":
        write = self._database.write
        return write(contents.insert_subscription, subscription, node_limit, account_limit)

    def unsubscribe(self, host: str, name: str, jid: str) -> "Deferred[bool]":
        return self._database.write(contents.delete_subscription, host, name, jid)

    def change_subscription(
        self, host: str, name: str, jid: str, state: str | None, options: Mapping[str, str] | None
    ) -> "Deferred[bool]":
        return self._database.write(contents.update_subscription, host, name, jid, state, options)

    def subscriptions(self, host: str, name: str) -> "Deferred[tuple[Subscription, ...]]":
        return self._database.read(contents.select_subscriptions, host, name)

    def subscriptions_of(self, host: str, account: str) -> "Deferred[tuple[Subscription, ...]]":
        return self._database.read(contents.select_subscriptions_of, host, account)

    def publish(self, host: str, name: str, item: Item, keep: int, size: int) -> "Deferred[bool]":
        return self._database.write(contents.insert_item, host, name, item, keep, size)

    def retract(self, host: str, name: str, item_id: str) -> "Deferred[bool]":
        return self._database.write(contents.delete_item, host, name, item_id)

    def purge(self, host: str, name: str) -> "Deferred[int]":
        return self._database.write(contents.delete_items, host, name)

    def items(self, host: str, name: str, limit: int) -> "Deferred[tuple[Item, ...]]":
        return self._database.read(contents.select_items, host, name, limit)

    def item_ids(self, host: str, name: str) -> "Deferred[tuple[str, ...]]":
        return self._database.read(contents.select_item_ids, host, name)

    def item(self, host: str, name: str, item_id: str) -> "Deferred[Item | None]":
        return self._database.read(contents.select_item, host, name, item_id)

    def owned_by(self, host: str, owner: str) -> "Deferred[tuple[Node, ...]]":
        return self._database.read(select_affiliated, host, owner, "owner")

    def affiliated_with(self, host: str, jid: str) -> "Deferred[tuple[Node, ...]]":
        return self._database.read(select_affiliated, host, jid, None)

    def invalidate(self, host: str, name: str) -> None:
        """The database says something else of this node now: the one way a cached entry goes."""
        self._cache.invalidate((host, name))

    def erase(self, cursor: Cursor, account: str) -> None:
        """The account goes, and with it its nodes and affiliations."""
        delete_nodes_of(cursor, account)

    def erased(self, account: str) -> None:
        # Which ones it was affiliated with is gone with the rows, and accounts go rarely.
        self._cache.clear()

    def _write(self, host: str, name: str, function: Any, *args: object) -> "Deferred[Any]":
        return self._database.write(function, *args).addBoth(self._have_written, host, name)

    def _have_written(self, outcome: Any, host: str, name: str) -> Any:
        # Also after a failure: nobody knows how far a commit came that failed.
        self.invalidate(host, name)
        return outcome

    def _have_read(self, node: Node | None, key: tuple[str, str], changes: int) -> Node | None:
        self._cache.put(key, node, changes)
        return node
