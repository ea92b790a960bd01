"""A store that was filled by multiplying rows is one that the stores read."""

import pytest
from twisted.internet.defer import succeed

from benchmarks.pipeline import Load
from benchmarks.population import populate
from xmpppush.config.sections import StorageSection
from xmpppush.storage import RowCounts, count_rows, open_inline


def fired(deferred):
    results = []
    (deferred or succeed(None)).addBoth(results.append)
    return results[0]


def test_every_account_is_as_if_it_had_enabled_push(tmp_path):
    """With keys, its node, its affiliations and its registration; and nothing of the template is left."""
    populate(tmp_path / "var", 120)
    storage = open_inline(StorageSection(url="sqlite:///xmpppush.db"), tmp_path / "var")
    try:
        assert fired(storage.database.read(count_rows)) == RowCounts(120, 0)
        assert len(fired(storage.accounts.list())) == 120
        assert fired(storage.accounts.get("user119@localhost")).keys
        node = fired(storage.nodes.get("pubsub.localhost", "node-119"))
        assert node.owner == "user119@localhost"
        assert dict(node.affiliations) == {"user119@localhost": "owner", "localhost": "publish-only"}
        (registration,) = fired(storage.registrations.of("user119@localhost"))
        assert (registration.node, registration.options["device_id"]) == ("node-119", "token-119")
        assert not fired(storage.accounts.get("user#@localhost"))
    finally:
        storage.close()


@pytest.mark.parametrize(("registrations", "users"), [(0, 5), (5, 5), (1000, 5)])
def test_recipients_differ(registrations, users):
    """And are the same in each run of the command."""
    recipients = Load(users=users, registrations=registrations).recipients()
    assert len(set(recipients)) == users
    assert list(recipients) == list(Load(users=users, registrations=registrations).recipients())
    assert all(number < max(registrations, users) for number in recipients)
