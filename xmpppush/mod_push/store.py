"""Registrations, as functions of a cursor, behind a cache."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from sqlite3 import Cursor
from types import MappingProxyType
from typing import Any, TypeAlias

import orjson
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from xmpppush.cache import MISSING, ReadCache
from xmpppush.errors import TooManyRegistrations
from xmpppush.interfaces import IDatabase, IRegistrationStore
from xmpppush.mod_push.extensions import from_json, to_json
from xmpppush.model import ACTIVE, SUSPENDED, Registration

_COLUMNS = (
    "account, pubsub, node, options, resource, created, errors, state, reason, next_try, missed, extensions"
)
_OF_ACCOUNT = f"SELECT {_COLUMNS} FROM registrations WHERE account = ? ORDER BY created, pubsub, node"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM registrations ORDER BY account, created, pubsub, node"  # noqa: S608
_KEY = "account = ? AND pubsub = ? AND node = ?"

# Account, pubsub and node.
Key: TypeAlias = tuple[str, str, str]

# Counts of missed messages kept in memory at the most, those to be saved aside.
COUNTED = 100_000


def select_registrations(cursor: Cursor, account: str | None) -> tuple[Registration, ...]:
    """Of one account, oldest first, or of all, by account."""
    cursor.execute(_ALL) if account is None else cursor.execute(_OF_ACCOUNT, (account,))
    return tuple(
        Registration(
            account, pubsub, node, MappingProxyType(orjson.loads(options)), *rest, from_json(extensions)
        )  # type: ignore[call-arg]  # mypy cannot count what is in rest
        for account, pubsub, node, options, *rest, extensions in cursor
    )


def put_registration(cursor: Cursor, registration: Registration, limit: int) -> None:
    key = (registration.account, registration.pubsub, registration.node)
    # A repeat needs no room of its own (XEP-0357 section 5).
    if not cursor.execute(f"SELECT 1 FROM registrations WHERE {_KEY}", key).fetchall():  # noqa: S608
        cursor.execute("SELECT count(*) FROM registrations WHERE account = ?", (registration.account,))
        if cursor.fetchone()[0] >= limit:
            raise TooManyRegistrations(f"there are {limit} already")
    cursor.execute(
        f"INSERT INTO registrations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
        " ON CONFLICT (account, pubsub, node) DO UPDATE SET options = excluded.options,"
        " resource = excluded.resource, created = excluded.created, errors = excluded.errors,"
        " state = excluded.state, reason = excluded.reason, next_try = excluded.next_try,"
        " missed = excluded.missed, extensions = excluded.extensions",
        (
            *key,
            _json(registration.options),
            registration.resource,
            registration.created,
            registration.errors,
            registration.state,
            registration.reason,
            registration.next_try,
            registration.missed,
            to_json(registration.extensions),
        ),
    )


def delete_registrations(cursor: Cursor, account: str, pubsub: str, node: str | None) -> int:
    cursor.execute(
        "DELETE FROM registrations WHERE account = ? AND pubsub = ? AND node = coalesce(?, node)",
        (account, pubsub, node),
    )
    return cursor.rowcount


def delete_same(cursor: Cursor, registration: Registration) -> bool:
    cursor.execute(
        f"DELETE FROM registrations WHERE {_KEY} AND created = ? AND options = ?",  # noqa: S608
        (
            registration.account,
            registration.pubsub,
            registration.node,
            registration.created,
            _json(registration.options),
        ),
    )
    return cursor.rowcount > 0


def count_error(cursor: Cursor, account: str, pubsub: str, node: str) -> int:
    rows = cursor.execute(
        f"UPDATE registrations SET errors = errors + 1 WHERE {_KEY} RETURNING errors",  # noqa: S608
        (account, pubsub, node),
    ).fetchall()
    return int(rows[0][0]) if rows else 0


def reset_errors(cursor: Cursor, account: str, pubsub: str, node: str) -> None:
    cursor.execute(
        "UPDATE registrations SET errors = 0, state = ?, reason = '', next_try = 0"  # noqa: S608
        f" WHERE {_KEY} AND (errors <> 0 OR state <> ?)",
        (ACTIVE, account, pubsub, node, ACTIVE),
    )


def suspend_registration(
    cursor: Cursor, account: str, pubsub: str, node: str, reason: str, next_try: float
) -> None:
    cursor.execute(
        # Without an error in a row it was enabled again in the meantime.
        f"UPDATE registrations SET state = ?, reason = ?, next_try = ? WHERE {_KEY} AND errors <> 0",  # noqa: S608
        (SUSPENDED, reason, next_try, account, pubsub, node),
    )


def update_missed(cursor: Cursor, counts: Sequence[tuple[int, str, str, str]]) -> None:
    cursor.executemany(f"UPDATE registrations SET missed = ? WHERE {_KEY}", counts)  # noqa: S608


def _json(options: Mapping[str, str]) -> str:
    return orjson.dumps(dict(options)).decode()


@implementer(IRegistrationStore)
class SQLRegistrationStore:
    """
    Registrations by account, also the knowledge that an account has none.

    Args:
        cached: Of how many accounts at the most.
    """

    def __init__(self, database: IDatabase, cached: int = 100_000) -> None:
        self._database = database
        self._cache: ReadCache[str, tuple[Registration, ...]] = ReadCache(cached)
        # Accounts with writes under way, and how many: of them the cache tells how it was before.
        self._changing: Counter[str] = Counter()
        # Where there is an entry it counts, not the row or the cache; the oldest entries come first.
        self._missed: dict[Key, int] = {}
        self._unsaved: dict[Key, None] = {}
        database.on_foreign_write(self._cache.clear)

    def known(self, account: str) -> tuple[Registration, ...] | None:
        cached = self._cache.get(account)
        return None if cached is MISSING else cached

    def of(self, account: str) -> "Deferred[tuple[Registration, ...]]":
        cached = self._cache.get(account)
        if cached is not MISSING:
            return succeed(cached)
        reading = self._database.read(select_registrations, account)
        return reading.addCallback(self._have_read, account, self._cache.changes)

    def put(self, registration: Registration, limit: int) -> "Deferred[None]":
        key = (registration.account, registration.pubsub, registration.node)
        self._missed[key] = registration.missed
        self._unsaved.pop(key, None)
        return self._write(registration.account, put_registration, registration, limit)

    def remove(self, account: str, pubsub: str, node: str | None) -> "Deferred[int]":
        return self._write(account, delete_registrations, account, pubsub, node)

    def remove_same(self, registration: Registration) -> "Deferred[bool]":
        return self._write(registration.account, delete_same, registration)

    def count_error(self, account: str, pubsub: str, node: str) -> "Deferred[int]":
        return self._write(account, count_error, account, pubsub, node)

    def forget_errors(self, account: str, pubsub: str, node: str) -> "Deferred[None]":
        # After nearly every push there is nothing to forget, and nothing shall be written then.
        cached = self._cache.get(account)
        if cached is not MISSING and account not in self._changing:
            key = (pubsub, node)
            if not any(
                (entry.errors or entry.state != ACTIVE) and (entry.pubsub, entry.node) == key
                for entry in cached
            ):
                return succeed(None)
        return self._write(account, reset_errors, account, pubsub, node)

    def suspend(self, account: str, pubsub: str, node: str, reason: str, next_try: float) -> "Deferred[None]":
        return self._write(account, suspend_registration, account, pubsub, node, reason, next_try)

    def count_missed(self, registration: Registration) -> int:
        key = (registration.account, registration.pubsub, registration.node)
        missed = self._missed.get(key)
        missed = (registration.missed if missed is None else missed) + 1
        self._missed[key] = missed
        self._unsaved[key] = None
        return missed

    def device_back(self, account: str, resource: str) -> "Deferred[bool]":
        return self.of(account).addCallback(self._is_back, resource)

    def _is_back(self, registrations: tuple[Registration, ...], resource: str) -> bool:
        changed = False
        for registration in registrations:
            if registration.resource == resource:
                key = (registration.account, registration.pubsub, registration.node)
                if self._missed.get(key, registration.missed):
                    self._missed[key] = 0
                    self._unsaved[key] = None
                    changed = True
        return changed

    def save_missed(self, limit: int | None = None) -> "Deferred[int]":
        if limit is None:
            limit = len(self._unsaved)
        keys = list(islice(self._unsaved, max(limit, len(self._unsaved) - COUNTED)))
        if not keys:
            return succeed(0)
        for key in keys:
            del self._unsaved[key]
        counts = [(self._missed[key], *key) for key in sorted(keys)]
        saving = self._database.write(update_missed, counts)
        return saving.addCallbacks(self._have_saved, self._not_saved, errbackArgs=(keys,))

    def _have_saved(self, _: object) -> int:
        """Let go of the oldest; their rows, read anew, say the same."""
        for key in tuple(islice(self._missed, max(0, len(self._missed) - COUNTED))):
            if key not in self._unsaved:
                del self._missed[key]
                self.invalidate(key[0])
        return len(self._unsaved)

    def _not_saved(self, failure: Any, keys: Sequence[Key]) -> Any:
        self._unsaved.update(dict.fromkeys(keys))
        return failure

    def list(self, account: str | None) -> "Deferred[tuple[Registration, ...]]":
        return self._database.read(select_registrations, account)

    def invalidate(self, account: str) -> None:
        """The database says something else of this account now: the one way a cached entry goes."""
        self._cache.invalidate(account)

    def erase(self, cursor: Cursor, account: str) -> None:
        """The account goes, and with it its registrations."""
        cursor.execute("DELETE FROM registrations WHERE account = ?", (account,))

    def erased(self, account: str) -> None:
        self.invalidate(account)

    def _write(self, account: str, function: Any, *args: object) -> "Deferred[Any]":
        self._changing[account] += 1
        return self._database.write(function, *args).addBoth(self._have_written, account)

    def _have_written(self, outcome: Any, account: str) -> Any:
        # Also after a failure: nobody knows how far a commit came that failed.
        self.invalidate(account)
        self._changing[account] -= 1
        if not self._changing[account]:
            del self._changing[account]
        return outcome

    def _have_read(
        self, registrations: tuple[Registration, ...], account: str, changes: int
    ) -> tuple[Registration, ...]:
        self._cache.put(account, registrations, changes)
        return registrations
