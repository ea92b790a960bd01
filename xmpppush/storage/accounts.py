"""Accounts and their keys, as functions of a cursor."""

from collections.abc import Sequence
from sqlite3 import Cursor
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from xmpppush.errors import AccountExists
from xmpppush.interfaces import IAccountStore, IDatabase
from xmpppush.model import Account, ScramKeys


class HoldsAccountData(Protocol):
    """A store with rows of an account, which go when it goes."""

    def erase(self, cursor: Cursor, account: str) -> None:
        """Delete them; part of the transaction that removes the account."""

    def erased(self, account: str) -> None:
        """The transaction is over, well or badly: forget what is cached of it."""


def select_account(cursor: Cursor, jid: str) -> Account | None:
    rows = cursor.execute(
        "SELECT created, mechanism, salt, iterations, stored_key, server_key"
        " FROM accounts LEFT JOIN account_keys ON account = jid WHERE jid = ?",
        (jid,),
    ).fetchall()
    if not rows:
        return None
    keys = {row[1]: ScramKeys(*row[2:]) for row in rows if row[1] is not None}
    return Account(jid, keys, rows[0][0])


def insert_accounts(cursor: Cursor, accounts: Sequence[Account]) -> None:
    for account in accounts:
        cursor.execute(
            "INSERT INTO accounts (jid, created) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (account.jid, account.created),
        )
        if cursor.rowcount == 0:
            raise AccountExists(f"{account.jid}: is there already")
        _insert_keys(cursor, account)


def replace_account(cursor: Cursor, account: Account) -> bool:
    if not cursor.execute("SELECT 1 FROM accounts WHERE jid = ?", (account.jid,)).fetchall():
        return False
    cursor.execute("DELETE FROM account_keys WHERE account = ?", (account.jid,))
    _insert_keys(cursor, account)
    return True


def delete_account(cursor: Cursor, jid: str) -> bool:
    cursor.execute("DELETE FROM account_keys WHERE account = ?", (jid,))
    cursor.execute("DELETE FROM accounts WHERE jid = ?", (jid,))
    return cursor.rowcount > 0


def select_jids(cursor: Cursor) -> tuple[str, ...]:
    return tuple(jid for (jid,) in cursor.execute("SELECT jid FROM accounts ORDER BY jid"))


def _insert_keys(cursor: Cursor, account: Account) -> None:
    cursor.executemany(
        "INSERT INTO account_keys (account, mechanism, salt, iterations, stored_key, server_key)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [
            (account.jid, mechanism, keys.salt, keys.iterations, keys.stored_key, keys.server_key)
            for mechanism, keys in account.keys.items()
        ],
    )


@implementer(IAccountStore)
class SQLAccountStore:
    """
    Accounts, not cached: they are asked for once a login.

    Args:
        others: Stores whose rows of an account go with it.
    """

    def __init__(self, database: IDatabase, others: Sequence[HoldsAccountData] = ()) -> None:
        self._database = database
        self._others = tuple(others)

    def get(self, jid: str) -> "Deferred[Account | None]":
        return self._database.read(select_account, jid)

    def add(self, accounts: Sequence[Account]) -> "Deferred[None]":
        return self._database.write(insert_accounts, tuple(accounts))

    def replace(self, account: Account) -> "Deferred[bool]":
        return self._database.write(replace_account, account)

    def remove(self, jid: str) -> "Deferred[bool]":
        return self._database.write(self._remove, jid).addBoth(self._removed, jid)

    def list(self) -> "Deferred[tuple[str, ...]]":
        return self._database.read(select_jids)

    def _remove(self, cursor: Cursor, jid: str) -> bool:
        # Also where there is no such account: one that authenticates elsewhere has rows too.
        for store in self._others:
            store.erase(cursor, jid)
        return delete_account(cursor, jid)

    def _removed(self, outcome: Any, jid: str) -> Any:
        for store in self._others:
            store.erased(jid)
        return outcome
