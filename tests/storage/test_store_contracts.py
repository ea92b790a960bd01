"""The one contract suite, on every storage there is."""

import pytest
import pytest_twisted
from twisted.internet import reactor

from xmpppush.config.sections import StorageSection
from xmpppush.storage import open_inline, open_storage
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.stores import CHECKS

OPENERS = {
    "writer": lambda data_dir: open_storage(StorageSection(), data_dir, reactor),
    "inline": lambda data_dir: open_inline(StorageSection(), data_dir),
    "memory": lambda data_dir: memory_storage(),
}


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest_twisted.ensureDeferred
async def test_contract(check, opener, tmp_path):
    """What the contract promises, every storage does."""
    storage = opener(tmp_path)
    storage.startService()
    try:
        await check(storage)
    finally:
        await storage.stopService()
