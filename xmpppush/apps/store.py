"""Registered devices, as functions of a cursor, behind a cache."""

from collections.abc import Mapping
from sqlite3 import Cursor
from types import MappingProxyType
from typing import Any

import orjson
from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

from xmpppush.apps.rules import hash_of
from xmpppush.cache import MISSING, ReadCache
from xmpppush.errors import LimitReached
from xmpppush.interfaces import IDatabase, IDeviceStore
from xmpppush.model import Device

_COLUMNS = (
    "host, node, app, way, key, owner, publisher, domain, token, secret, data, created, renewed, account"
)

_PLACES = ", ".join("?" * len(_COLUMNS.split(",")))


def select_device(cursor: Cursor, host: str, node: str) -> Device | None:
    cursor.execute(f"SELECT {_COLUMNS} FROM devices WHERE host = ? AND node = ?", (host, node))  # noqa: S608
    return _device_in(cursor)


def put_device(cursor: Cursor, device: Device, limit: int) -> Device:
    cursor.execute(
        f"SELECT {_COLUMNS} FROM devices WHERE host = ? AND key = ?",  # noqa: S608
        (device.host, device.key),
    )
    known = _device_in(cursor)
    if known is not None:
        cursor.execute(
            "UPDATE devices SET token = ?, data = ?, renewed = ?, account = ? WHERE host = ? AND node = ?",
            (device.token, _json(device.data), device.renewed, device.account, known.host, known.node),
        )
        return evolve(
            known, token=device.token, data=device.data, renewed=device.renewed, account=device.account
        )
    cursor.execute("SELECT count(*) FROM devices WHERE owner = ? AND app = ?", (device.owner, device.app))
    if cursor.fetchone()[0] >= limit:
        raise LimitReached(f"there are {limit} devices already")
    cursor.execute(
        f"INSERT INTO devices ({_COLUMNS}) VALUES ({_PLACES})",  # noqa: S608
        (
            device.host,
            device.node,
            device.app,
            device.way,
            device.key,
            device.owner,
            device.publisher,
            device.domain,
            device.token,
            device.secret,
            _json(device.data),
            device.created,
            device.renewed,
            device.account,
        ),
    )
    return device


def delete_device(cursor: Cursor, host: str, key: str) -> str | None:
    """The node that went, ``None`` where there was none."""
    rows = cursor.execute("SELECT node FROM devices WHERE host = ? AND key = ?", (host, key)).fetchall()
    cursor.execute("DELETE FROM devices WHERE host = ? AND key = ?", (host, key))
    return rows[0][0] if rows else None


def delete_same(cursor: Cursor, device: Device) -> bool:
    cursor.execute(
        "DELETE FROM devices WHERE host = ? AND node = ? AND token = ? AND renewed = ?",
        (device.host, device.node, device.token, device.renewed),
    )
    return cursor.rowcount > 0


def _device_in(cursor: Cursor) -> Device | None:
    rows = cursor.fetchall()
    if not rows:
        return None
    (row,) = rows
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Device(**{**values, "data": MappingProxyType(orjson.loads(values["data"]))})


def _json(data: Mapping[str, str]) -> str:
    return orjson.dumps(dict(data)).decode()


@implementer(IDeviceStore)
class SQLDeviceStore:
    """
    Devices by host and node, also the knowledge that there is none.

    Args:
        cached: How many at the most.
    """

    def __init__(self, database: IDatabase, cached: int = 100_000) -> None:
        self._database = database
        self._cache: ReadCache[tuple[str, str], Device | None] = ReadCache(cached)
        database.on_foreign_write(self._cache.clear)

    def get(self, host: str, node: str) -> "Device | Deferred[Device | None] | None":
        cached = self._cache.get((host, node))
        if cached is not MISSING:
            return cached
        reading = self._database.read(select_device, host, node)
        return reading.addCallback(self._have_read, (host, node), self._cache.changes)

    def put(self, device: Device, limit: int) -> "Deferred[Device]":
        return self._database.write(put_device, device, limit).addBoth(self._have_put)

    def remove(self, host: str, key: str) -> "Deferred[bool]":
        return self._database.write(delete_device, host, key).addBoth(self._have_removed, host)

    def remove_same(self, device: Device) -> "Deferred[bool]":
        return self._database.write(delete_same, device).addBoth(self._have_written, device.host, device.node)

    def invalidate(self, host: str, node: str) -> None:
        """The database says something else of this node now: the one way a cached entry goes."""
        self._cache.invalidate((host, node))

    def erase(self, cursor: Cursor, account: str) -> None:
        """The account goes, and with it its devices."""
        cursor.execute("DELETE FROM devices WHERE owner = ?", (hash_of(account),))

    def erased(self, account: str) -> None:
        # Which ones they were is gone with the rows, and accounts go rarely.
        self._cache.clear()

    def _have_put(self, outcome: Any) -> Any:
        if isinstance(outcome, Device):
            self.invalidate(outcome.host, outcome.node)
        else:  # nobody knows how far a commit came that failed
            self._cache.clear()
        return outcome

    def _have_removed(self, outcome: Any, host: str) -> Any:
        if isinstance(outcome, str):
            self.invalidate(host, outcome)
            return True
        if outcome is None:
            return False
        self._cache.clear()
        return outcome

    def _have_written(self, outcome: Any, host: str, node: str) -> Any:
        self.invalidate(host, node)
        return outcome

    def _have_read(self, device: Device | None, key: tuple[str, str], changes: int) -> Device | None:
        self._cache.put(key, device, changes)
        return device
