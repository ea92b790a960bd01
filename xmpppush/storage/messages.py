"""
Offline messages and the queue of deliveries, as functions of a cursor.

Every push passes here twice, once kept and once settled: both take many at a time.
"""

from collections.abc import Sequence
from functools import cache, partial
from itertools import chain
from sqlite3 import Cursor
from typing import TypeAlias

import orjson
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from xmpppush.cache import MISSING, ReadCache
from xmpppush.errors import OfflineFull
from xmpppush.interfaces import IDatabase, IMessageStore
from xmpppush.model import Delivery, OfflineMessage
from xmpppush.storage.handed import insert_decided, insert_handed, select_due

# How many messages wait for an account; the writer's thread alone touches it.
Counts: TypeAlias = "ReadCache[str, int]"
Kept: TypeAlias = "tuple[OfflineMessage | None, Sequence[Delivery], int]"

_COLUMNS = "id, account, pubsub, node, service, path, body, created, attempts, next_try, trace"


def insert_kept(
    counts: Counts, cursor: Cursor, items: Sequence[Kept]
) -> list[tuple[Delivery, ...] | OfflineFull]:
    """Messages with their deliveries; the result for a message too many is `OfflineFull`."""
    results: list[tuple[Delivery, ...] | OfflineFull] = []
    messages: list[tuple[object, ...]] = []
    rows: list[tuple[object, ...]] = []
    number = _last_delivery(cursor)
    _know_counts(counts, cursor, items)
    for message, deliveries, limit in items:
        if message is not None:
            account = message.account
            waiting = _count_waiting(counts, cursor, account)
            if waiting >= limit:
                results.append(OfflineFull(f"{waiting} messages wait already"))
                continue
            counts.put(account, waiting + 1, counts.changes)
            messages.append((account, message.xml, message.created))
        kept = []
        for delivery in deliveries:
            number += 1
            row = (
                number,
                delivery.account,
                delivery.pubsub,
                delivery.node,
                delivery.service,
                delivery.path,
                delivery.body,
                delivery.created,
                delivery.attempts,
                delivery.next_try,
                delivery.trace,
            )
            rows.append(row)
            kept.append(Delivery(*row))
        results.append(tuple(kept))
    _insert(cursor, "offline_messages (account, xml, created)", 3, messages)
    _insert(cursor, f"deliveries ({_COLUMNS})", 11, rows)
    return results


def _last_delivery(cursor: Cursor) -> int:
    """The highest row number ever used; none between here and the commit is given to anybody else."""
    cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = 'deliveries'")
    row = cursor.fetchone()
    return row[0] if row is not None else 0


def _insert(cursor: Cursor, table: str, width: int, rows: Sequence[tuple[object, ...]]) -> None:
    """
    Insert rows, many to a statement.

    Each step of a statement lets go of the interpreter's lock, and the reactor's thread then has it for
    a while: fewer steps, less waiting.
    """
    start = 0
    for size in (64, 8, 1):
        sql = f"INSERT INTO {table} VALUES {_placeholders(width, size)}"  # noqa: S608
        while len(rows) - start >= size:
            cursor.execute(sql, tuple(chain.from_iterable(rows[start : start + size])))
            start += size


@cache
def _placeholders(width: int, size: int) -> str:
    row = f"({', '.join('?' * width)})"
    return ", ".join([row] * size)


def _know_counts(counts: Counts, cursor: Cursor, items: Sequence[Kept]) -> None:
    """Count for all accounts of the batch at once that are not known yet: each step has its price."""
    unknown = {message.account for message, _, _ in items if message is not None}
    unknown = {account for account in unknown if counts.get(account) is MISSING}
    if len(unknown) < 2:
        return
    accounts = list(unknown)
    cursor.execute(
        "SELECT json_group_array((SELECT count(*) FROM offline_messages WHERE account = value))"
        " FROM json_each(?)",
        (orjson.dumps(accounts).decode(),),
    )
    for account, count in zip(accounts, orjson.loads(cursor.fetchone()[0]), strict=True):
        counts.put(account, count, counts.changes)


def _count_waiting(counts: Counts, cursor: Cursor, account: str) -> int:
    count = counts.get(account)
    if count is MISSING:
        cursor.execute("SELECT count(*) FROM offline_messages WHERE account = ?", (account,))
        count = cursor.fetchone()[0]
    return count


def select_waiting(cursor: Cursor, account: str, after: int, limit: int) -> tuple[OfflineMessage, ...]:
    cursor.execute(
        "SELECT id, account, xml, created, push_due FROM offline_messages"
        " WHERE account = ? AND id > ? ORDER BY id LIMIT ?",
        (account, after, limit),
    )
    return tuple(
        OfflineMessage(number, account, xml, created, bool(due))
        for number, account, xml, created, due in cursor
    )


def delete_messages(counts: Counts, cursor: Cursor, ids: Sequence[int]) -> None:
    cursor.execute(
        "DELETE FROM offline_messages WHERE id IN (SELECT value FROM json_each(?)) RETURNING account",
        (orjson.dumps(ids).decode(),),
    )
    for account in {account for (account,) in cursor.fetchall()}:
        counts.invalidate(account)


def delete_deliveries(cursor: Cursor, items: Sequence[Sequence[int]]) -> list[None]:
    cursor.executemany("DELETE FROM deliveries WHERE id = ?", [(number,) for ids in items for number in ids])
    return [None] * len(items)


def update_deliveries(cursor: Cursor, items: Sequence[Delivery]) -> list[None]:
    cursor.executemany(
        "UPDATE deliveries SET attempts = ?, next_try = ? WHERE id = ?",
        [(delivery.attempts, delivery.next_try, delivery.id) for delivery in items],
    )
    return [None] * len(items)


def select_queued(cursor: Cursor, after: int, limit: int) -> tuple[Delivery, ...]:
    cursor.execute(f"SELECT {_COLUMNS} FROM deliveries WHERE id > ? ORDER BY id LIMIT ?", (after, limit))  # noqa: S608
    return tuple(Delivery(*row) for row in cursor)


def count_queued(cursor: Cursor) -> int:
    return int(cursor.execute("SELECT count(*) FROM deliveries").fetchone()[0])


@implementer(IMessageStore)
class SQLMessageStore:
    """
    What must never be lost.

    Args:
        counted: For how many accounts it is remembered how many messages wait.
    """

    def __init__(self, database: IDatabase, counted: int = 100_000) -> None:
        self._database = database
        self._counts: Counts = ReadCache(counted)
        database.on_rollback(self._counts.clear)
        # One object each, as calls are grouped by it.
        self._insert_kept = partial(insert_kept, self._counts)
        self._insert_handed = partial(insert_handed, self._counts, self._insert_kept)
        self._insert_decided = partial(insert_decided, self._insert_kept)
        self._delete_messages = partial(delete_messages, self._counts)

    def keep(
        self, message: OfflineMessage | None, deliveries: Sequence[Delivery], limit: int
    ) -> "Deferred[tuple[Delivery, ...]]":
        return self._database.write_grouped(self._insert_kept, (message, deliveries, limit))

    def hand(
        self, message: OfflineMessage, deliveries: Sequence[Delivery]
    ) -> "Deferred[tuple[int, tuple[Delivery, ...]]]":
        return self._database.write_grouped(self._insert_handed, (message, deliveries))

    def decided(
        self, message_id: int, deliveries: Sequence[Delivery], final: bool
    ) -> "Deferred[tuple[Delivery, ...]]":
        return self._database.write(self._insert_decided, message_id, tuple(deliveries), final)

    def due(self, after: int, limit: int) -> "Deferred[tuple[OfflineMessage, ...]]":
        return self._database.write(select_due, after, limit)  # walks the table

    def waiting(
        self, account: str, after: int = 0, limit: int | None = None
    ) -> "Deferred[tuple[OfflineMessage, ...]]":
        # A write, to be behind every keep that was asked for before.
        return self._database.write(select_waiting, account, after, -1 if limit is None else limit)

    def forget(self, ids: Sequence[int]) -> "Deferred[None]":
        if not ids:
            return succeed(None)
        return self._database.write(self._delete_messages, tuple(ids))

    def settle(self, ids: Sequence[int]) -> "Deferred[None]":
        return self._database.write_grouped(delete_deliveries, ids)

    def postpone(self, delivery: Delivery) -> "Deferred[None]":
        return self._database.write_grouped(update_deliveries, delivery)

    def queued(self, after: int, limit: int) -> "Deferred[tuple[Delivery, ...]]":
        return self._database.read(select_queued, after, limit)

    def queued_count(self) -> "Deferred[int]":
        # Walks the table, so not in the reactor's thread.
        return self._database.write(count_queued)

    def erase(self, cursor: Cursor, account: str) -> None:
        """The account goes, and with it what waits for it."""
        cursor.execute("DELETE FROM offline_messages WHERE account = ?", (account,))
        cursor.execute("DELETE FROM deliveries WHERE account = ?", (account,))
        self._counts.invalidate(account)

    def erased(self, account: str) -> None:
        """Nothing is cached in the reactor's thread."""
