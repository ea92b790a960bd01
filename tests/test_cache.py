"""The cache in front of the stores."""

from xmpppush.cache import MISSING, ReadCache


def test_what_was_used_longest_ago_goes_first():
    """A full cache gives up the entry that nobody asked for."""
    cache = ReadCache(2)
    cache.put("a", 1, cache.changes)
    cache.put("b", 2, cache.changes)
    cache.get("a")
    cache.put("c", 3, cache.changes)
    assert [cache.get(key) for key in "abc"] == [1, MISSING, 3]
    assert len(cache) == 2


def test_none_is_an_entry():
    """That there is nothing is worth remembering."""
    cache = ReadCache(2)
    cache.put("a", None, cache.changes)
    assert cache.get("a") is None
    assert cache.get("b") is MISSING


def test_an_answer_from_before_an_invalidation_is_not_kept():
    """A read that was under way while something changed may be of before the change."""
    cache = ReadCache(2)
    before = cache.changes
    cache.invalidate("a")
    cache.put("a", "old", before)
    assert cache.get("a") is MISSING


def test_invalidated_entries_are_gone():
    """One, or all."""
    cache = ReadCache(4)
    for key in "abc":
        cache.put(key, key, cache.changes)
    cache.invalidate("a")
    assert [cache.get(key) for key in "abc"] == [MISSING, "b", "c"]
    before = cache.changes
    cache.clear()
    assert len(cache) == 0
    cache.put("b", "old", before)
    assert cache.get("b") is MISSING
