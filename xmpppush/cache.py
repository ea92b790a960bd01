"""A bounded cache in front of a store."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MISSING: Any = object()


class ReadCache(Generic[K, V]):
    """
    The entries used last, and a rule that keeps a late answer of the database from staying.

    A reader notes `changes` before it asks and gives it to `put`. A writer calls `invalidate` when its
    transaction is over and before it tells anyone. Then whatever was read before the commit is either
    dropped by the `invalidate` or refused by the `put`.

    Attributes:
        changes: How many invalidations there were.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.changes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V:
        """The entry, or `MISSING`; ``None`` is an entry."""
        entries = self._entries
        entry = entries.get(key, MISSING)
        if entry is not MISSING:
            entries.move_to_end(key)
        return entry

    def put(self, key: K, entry: V, changes: int) -> None:
        """Keep what was read; `changes` is its value from before the reading."""
        if changes != self.changes:
            return
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def invalidate(self, key: K) -> None:
        """The database may say something else now."""
        self.changes += 1
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Nothing is certain any more."""
        self.changes += 1
        self._entries.clear()
