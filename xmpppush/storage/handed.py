"""
Messages that a session is getting and has not acknowledged, as functions of a cursor.

They are rows among the offline messages, so that nothing moves when the session ends.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from sqlite3 import Cursor
from typing import Any, TypeAlias

from xmpppush.cache import MISSING, ReadCache
from xmpppush.model import Delivery, OfflineMessage

InsertKept: TypeAlias = "Callable[[Cursor, Sequence[Any]], Sequence[Any]]"
Handed: TypeAlias = "tuple[OfflineMessage, Sequence[Delivery]]"


def insert_handed(
    counts: "ReadCache[str, int]", insert_kept: InsertKept, cursor: Cursor, items: Sequence[Handed]
) -> list[tuple[int, tuple[Delivery, ...]]]:
    """
    Messages with their deliveries; the results are the row number and the stored deliveries.

    Args:
        insert_kept: Inserts deliveries, as for `IMessageStore.keep`.
    """
    cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = 'offline_messages'")
    row = cursor.fetchone()
    first = (row[0] if row is not None else 0) + 1
    rows = [
        (number, message.account, message.xml, message.created, message.push_due)
        for number, (message, _) in enumerate(items, first)
    ]
    for start in range(0, len(rows), 64):
        some = rows[start : start + 64]
        places = ", ".join(["(?, ?, ?, ?, ?)"] * len(some))
        cursor.execute(
            f"INSERT INTO offline_messages (id, account, xml, created, push_due) VALUES {places}",  # noqa: S608
            tuple(chain.from_iterable(some)),
        )
    for message, _ in items:
        count = counts.get(message.account)
        if count is not MISSING:
            counts.put(message.account, count + 1, counts.changes)
    kept: list[tuple[Delivery, ...]] = [()] * len(items)
    wanted = [number for number, (_, deliveries) in enumerate(items) if deliveries]
    if wanted:
        results = insert_kept(cursor, [(None, items[number][1], 0) for number in wanted])
        for number, deliveries in zip(wanted, results, strict=True):
            kept[number] = deliveries
    return list(zip(range(first, first + len(items)), kept, strict=True))


def insert_decided(
    insert_kept: InsertKept, cursor: Cursor, message_id: int, deliveries: Sequence[Delivery], final: bool
) -> tuple[Delivery, ...]:
    """The deliveries of a handed message; ``final``: no more are due."""
    if final:
        cursor.execute("UPDATE offline_messages SET push_due = 0 WHERE id = ?", (message_id,))
    if not deliveries:
        return ()
    kept: tuple[Delivery, ...] = insert_kept(cursor, [(None, deliveries, 0)])[0]
    return kept


def select_due(cursor: Cursor, after: int, limit: int) -> tuple[OfflineMessage, ...]:
    cursor.execute(
        "SELECT id, account, xml, created, push_due FROM offline_messages"
        " WHERE push_due = 1 AND id > ? ORDER BY id LIMIT ?",
        (after, limit),
    )
    return tuple(
        OfflineMessage(number, account, xml, created, bool(due))
        for number, account, xml, created, due in cursor
    )
