"""Contact lists, as functions of a cursor."""

from sqlite3 import Cursor

import orjson
from twisted.internet.defer import Deferred
from zope.interface import implementer

from xmpppush.interfaces import IDatabase, IRosterStore
from xmpppush.model import RosterItem


def select_roster(cursor: Cursor, account: str) -> tuple[RosterItem, ...]:
    rows = cursor.execute(
        "SELECT jid, name, group_names, subscription FROM roster_items WHERE account = ? ORDER BY jid",
        (account,),
    )
    return tuple(
        RosterItem(jid, name, tuple(orjson.loads(groups)), subscription)
        for jid, name, groups, subscription in rows
    )


def put_roster_item(cursor: Cursor, account: str, item: RosterItem) -> None:
    cursor.execute(
        "INSERT INTO roster_items (account, jid, name, group_names, subscription) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (account, jid) DO UPDATE SET name = excluded.name,"
        " group_names = excluded.group_names, subscription = excluded.subscription",
        (account, item.jid, item.name, orjson.dumps(item.groups).decode(), item.subscription),
    )


def delete_roster_item(cursor: Cursor, account: str, jid: str) -> bool:
    cursor.execute("DELETE FROM roster_items WHERE account = ? AND jid = ?", (account, jid))
    return cursor.rowcount > 0


@implementer(IRosterStore)
class SQLRosterStore:
    """Rosters, not cached: they are asked for once a session."""

    def __init__(self, database: IDatabase) -> None:
        self._database = database

    def get(self, account: str) -> "Deferred[tuple[RosterItem, ...]]":
        return self._database.read(select_roster, account)

    def put(self, account: str, item: RosterItem) -> "Deferred[None]":
        return self._database.write(put_roster_item, account, item)

    def remove(self, account: str, jid: str) -> "Deferred[bool]":
        return self._database.write(delete_roster_item, account, jid)

    def erase(self, cursor: Cursor, account: str) -> None:
        """The account goes, and with it its roster."""
        cursor.execute("DELETE FROM roster_items WHERE account = ?", (account,))

    def erased(self, account: str) -> None:
        """Nothing is cached."""
