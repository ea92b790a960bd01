"""Subscriptions and items of nodes, as functions of a cursor."""

from collections.abc import Mapping
from sqlite3 import Cursor
from types import MappingProxyType
from typing import Any

import orjson

from xmpppush.errors import NodeNotFound, TooManySubscriptions
from xmpppush.model import Item, Subscription

_NODE = "host = ? AND name = ?"
_SUBSCRIPTION = "host, name, jid, account, state, options, created"
_ITEM = "id, publisher, payload, created"


def insert_subscription(
    cursor: Cursor, subscription: Subscription, node_limit: int, account_limit: int
) -> Subscription | None:
    node = (subscription.host, subscription.node)
    cursor.execute(
        f"SELECT {_SUBSCRIPTION} FROM node_subscriptions WHERE {_NODE} AND jid = ?",  # noqa: S608
        (*node, subscription.jid),
    )
    found = _subscriptions(cursor)
    if found:
        return found[0]
    if not has_node(cursor, *node):
        raise NodeNotFound("no such node")
    cursor.execute(f"SELECT count(*) FROM node_subscriptions WHERE {_NODE}", node)  # noqa: S608
    if cursor.fetchone()[0] >= node_limit:
        raise TooManySubscriptions("the node has too many subscriptions")
    cursor.execute(
        "SELECT count(*) FROM node_subscriptions WHERE account = ? AND host = ?",
        (subscription.account, subscription.host),
    )
    if cursor.fetchone()[0] >= account_limit:
        raise TooManySubscriptions(f"there are {account_limit} already")
    cursor.execute(
        f"INSERT INTO node_subscriptions ({_SUBSCRIPTION}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            *node,
            subscription.jid,
            subscription.account,
            subscription.state,
            _json(subscription.options),
            subscription.created,
        ),
    )
    return None


def update_subscription(
    cursor: Cursor, host: str, name: str, jid: str, state: str | None, options: Mapping[str, str] | None
) -> bool:
    cursor.execute(
        "UPDATE node_subscriptions SET state = coalesce(?, state), options = coalesce(?, options)"  # noqa: S608
        f" WHERE {_NODE} AND jid = ?",
        (state, None if options is None else _json(options), host, name, jid),
    )
    return cursor.rowcount > 0


def delete_subscription(cursor: Cursor, host: str, name: str, jid: str) -> bool:
    cursor.execute(f"DELETE FROM node_subscriptions WHERE {_NODE} AND jid = ?", (host, name, jid))  # noqa: S608
    return cursor.rowcount > 0


def select_subscriptions(cursor: Cursor, host: str, name: str) -> tuple[Subscription, ...]:
    cursor.execute(
        f"SELECT {_SUBSCRIPTION} FROM node_subscriptions WHERE {_NODE} ORDER BY jid",  # noqa: S608
        (host, name),
    )
    return _subscriptions(cursor)


def select_subscriptions_of(cursor: Cursor, host: str, account: str) -> tuple[Subscription, ...]:
    cursor.execute(
        f"SELECT {_SUBSCRIPTION} FROM node_subscriptions"  # noqa: S608
        " WHERE account = ? AND host = ? ORDER BY name, jid",
        (account, host),
    )
    return _subscriptions(cursor)


def insert_item(cursor: Cursor, host: str, name: str, item: Item, keep: int, size: int) -> bool:
    if not has_node(cursor, host, name):
        return False
    if keep:
        delete_item(cursor, host, name, item.id)
        cursor.execute(f"SELECT coalesce(max(number), 0) FROM node_items WHERE {_NODE}", (host, name))  # noqa: S608
        number = cursor.fetchone()[0] + 1
        cursor.execute(
            "INSERT INTO node_items (host, name, id, number, publisher, payload, size, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                host,
                name,
                item.id,
                number,
                item.publisher,
                item.payload,
                len(item.payload.encode()),
                item.created,
            ),
        )
    trim_items(cursor, host, name, keep, size)
    return True


def trim_items(cursor: Cursor, host: str, name: str, keep: int, size: int | None = None) -> None:
    """Of the items published last so many stay, and no more than have ``size`` octets together."""
    cursor.execute(f"SELECT number, size FROM node_items WHERE {_NODE} ORDER BY number DESC", (host, name))  # noqa: S608
    octets = 0
    for count, (number, length) in enumerate(cursor.fetchall()):
        octets += length
        if count >= keep or (size is not None and octets > size):
            cursor.execute(f"DELETE FROM node_items WHERE {_NODE} AND number <= ?", (host, name, number))  # noqa: S608
            return


def delete_item(cursor: Cursor, host: str, name: str, item_id: str) -> bool:
    cursor.execute(f"DELETE FROM node_items WHERE {_NODE} AND id = ?", (host, name, item_id))  # noqa: S608
    return cursor.rowcount > 0


def delete_items(cursor: Cursor, host: str, name: str) -> int:
    cursor.execute(f"DELETE FROM node_items WHERE {_NODE}", (host, name))  # noqa: S608
    return cursor.rowcount


def select_items(cursor: Cursor, host: str, name: str, limit: int) -> tuple[Item, ...]:
    cursor.execute(
        f"SELECT {_ITEM} FROM node_items WHERE {_NODE} ORDER BY number DESC LIMIT ?",  # noqa: S608
        (host, name, limit),
    )
    return tuple(Item(*row) for row in reversed(cursor.fetchall()))


def select_item_ids(cursor: Cursor, host: str, name: str) -> tuple[str, ...]:
    cursor.execute(f"SELECT id FROM node_items WHERE {_NODE} ORDER BY number", (host, name))  # noqa: S608
    return tuple(item_id for (item_id,) in cursor.fetchall())


def select_item(cursor: Cursor, host: str, name: str, item_id: str) -> Item | None:
    cursor.execute(f"SELECT {_ITEM} FROM node_items WHERE {_NODE} AND id = ?", (host, name, item_id))  # noqa: S608
    rows = cursor.fetchall()
    return Item(*rows[0]) if rows else None


def delete_contents(cursor: Cursor, host: str, name: str) -> None:
    """All that a node has besides affiliations."""
    cursor.execute(f"DELETE FROM node_subscriptions WHERE {_NODE}", (host, name))  # noqa: S608
    delete_items(cursor, host, name)


def forget_account(cursor: Cursor, account: str) -> None:
    """Its subscriptions go; what it published at the nodes of others stays, and is nobody's."""
    cursor.execute("DELETE FROM node_subscriptions WHERE account = ?", (account,))
    cursor.execute("UPDATE node_items SET publisher = '' WHERE publisher = ?", (account,))


def has_node(cursor: Cursor, host: str, name: str) -> bool:
    cursor.execute(f"SELECT 1 FROM nodes WHERE {_NODE}", (host, name))  # noqa: S608
    return bool(cursor.fetchall())


def _subscriptions(cursor: Cursor) -> tuple[Subscription, ...]:
    return tuple(_subscription(*row) for row in cursor.fetchall())


def _subscription(
    host: str, name: str, jid: str, account: str, state: str, options: str, created: float
) -> Subscription:
    return Subscription(host, name, jid, account, state, MappingProxyType(orjson.loads(options)), created)


def _json(options: Mapping[str, str]) -> Any:
    return orjson.dumps(dict(options)).decode()
