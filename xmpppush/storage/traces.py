"""
The delivery trace, as functions of a cursor.

Notes are written by the thousand and read by hand: a row is a JSON list of those that came together, found
by looking for the text of an account or an id in it. Rows go oldest first, a few with each write.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from sqlite3 import Cursor
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from zope.interface import implementer

from xmpppush.interfaces import IDatabase, ITraceStore
from xmpppush.model import TraceLimits, TraceNote

# How much goes in one go, while writes wait: rows, and about so many notes in them. A row of a busy server
# has a thousand.
PRUNED_ROWS = 20
PRUNED_NOTES = 2000
PAGE = 20_000  # notes looked through in one go


def insert_notes(cursor: Cursor, items: Sequence[tuple[Sequence[Any], TraceLimits]]) -> list[None]:
    before = number = _newest(cursor)
    for notes, _ in items:
        number += len(notes)
        cursor.execute(
            "INSERT INTO traces (number, until, notes) VALUES (?, ?, ?)",
            (number, notes[-1][1], _json(notes)),
        )
    # Twice what comes goes, so that it gets less where there is too much.
    most = max(PRUNED_NOTES, 2 * (number - before))
    _prune(cursor, number, items[-1][1], max(PRUNED_ROWS, 2 * len(items)), most)
    return [None] * len(items)


def prune_notes(cursor: Cursor, limits: TraceLimits) -> int:
    """How many rows went; there may be more."""
    return _prune(cursor, _newest(cursor), limits, PRUNED_ROWS * 10, PRUNED_NOTES)


def _prune(cursor: Cursor, newest: int, limits: TraceLimits, rows: int, notes: int) -> int:
    cursor.execute(
        "DELETE FROM traces WHERE number IN (SELECT number FROM traces ORDER BY number LIMIT ?)"
        " AND number <= (SELECT min(number) FROM traces) + ? AND (number <= ? OR until < ?)",
        (rows, notes, newest - limits.max_notes, limits.oldest),
    )
    return cursor.rowcount


def _newest(cursor: Cursor) -> int:
    cursor.execute("SELECT max(number) FROM traces")
    return cursor.fetchone()[0] or 0


def select_notes(cursor: Cursor, text: str, below: int | None) -> tuple[list[TraceNote], int]:
    """
    The notes of a page of rows that have ``text``, a JSON string, in them; the newest row first.

    Args:
        below: Where the page ends; ``None``: with the newest.

    Returns:
        Them, and the ``below`` of the next page, 0 after the last one.
    """
    if below is None:
        below = _newest(cursor) + 1
    cursor.execute(
        "SELECT notes FROM traces WHERE number >= ? AND number < ? AND instr(notes, ?) > 0"
        " ORDER BY number DESC",
        (below - PAGE, below, text),
    )
    notes = [TraceNote(*note) for (row,) in cursor for note in reversed(orjson.loads(row))]
    cursor.execute("SELECT max(number) FROM traces WHERE number < ?", (below - PAGE,))
    highest = cursor.fetchone()[0]
    return notes, 0 if highest is None else highest + 1


def _json(value: object) -> str:
    # What is no text after all (a lone surrogate) shall not cost the other notes.
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return orjson.dumps(_clean(value)).decode()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value if isinstance(value, int | float | None) else _clean(str(value))


@implementer(ITraceStore)
class SQLTraceStore:
    """What was noted, in the database of everything else."""

    def __init__(self, database: IDatabase) -> None:
        self._database = database

    def add(self, notes: Sequence[Any], limits: TraceLimits) -> "Deferred[None]":
        return self._database.write_grouped(insert_notes, (notes, limits))

    def prune(self, limits: TraceLimits) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._prune(limits))

    async def _prune(self, limits: TraceLimits) -> None:
        # In portions, so that nobody else waits long.
        while await self._database.write(prune_notes, limits):
            pass

    def of(self, account: str, stories: int) -> "Deferred[tuple[TraceNote, ...]]":
        return Deferred.fromCoroutine(
            self._select(orjson.dumps(account).decode(), lambda note: note.account == account, stories)
        )

    def story(self, trace: str) -> "Deferred[tuple[TraceNote, ...]]":
        return Deferred.fromCoroutine(
            self._select(orjson.dumps(trace).decode(), lambda note: note.trace == trace, 1)
        )

    async def _select(
        self, text: str, is_wanted: Callable[[TraceNote], bool], stories: int
    ) -> tuple[TraceNote, ...]:
        found: list[TraceNote] = []
        traces: set[str] = set()
        below: int | None = None
        while below != 0:
            # Neither the reactor nor a write waits for a look through everything.
            page: Awaitable[tuple[list[TraceNote], int]] = self._database.read_apart(
                select_notes, text, below
            )
            notes, below = await page
            found += _of_the_last(filter(is_wanted, notes), traces, stories)
        return tuple(reversed(found))

    def erase(self, cursor: Cursor, account: str) -> None:
        """The account goes, and with it what was noted about it."""
        text = orjson.dumps(account).decode()
        cursor.execute("SELECT number FROM traces WHERE instr(notes, ?) > 0", (text,))
        for (number,) in cursor.fetchall():
            cursor.execute("SELECT notes FROM traces WHERE number = ?", (number,))
            left = [note for note in orjson.loads(cursor.fetchone()[0]) if note[2] != account]
            if left:
                cursor.execute("UPDATE traces SET notes = ? WHERE number = ?", (_json(left), number))
            else:
                cursor.execute("DELETE FROM traces WHERE number = ?", (number,))

    def erased(self, account: str) -> None:
        """Nothing is cached."""


def _of_the_last(notes: Iterable[TraceNote], traces: set[str], stories: int) -> list[TraceNote]:
    """Of notes, the newest first, those of the last stories; ``traces`` grows to their ids."""
    kept = []
    for note in notes:
        if note.trace not in traces:
            if len(traces) >= stories:
                continue
            traces.add(note.trace)
        kept.append(note)
    return kept
