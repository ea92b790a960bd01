"""What a served domain answers to requests, where it takes more than a conversation to see."""

import pytest

from xmpppush._wokkel import generic
from xmpppush.model import RosterItem
from xmpppush.server.handlers import MAX_ROSTER_SIZE, RosterHandler, size_of
from xmpppush.server.resources import Resources
from xmpppush.storage.memory import memory_storage

ALICE = "alice@localhost"


class Rosters:
    """The roster handler in front of a store in memory."""

    def __init__(self):
        self.store = memory_storage().rosters
        self.handler = RosterHandler(self.store, Resources())

    def set(self, item):
        """Returns the condition of the error, or None."""
        xml = (
            f"<iq xmlns='' type='set' id='i' from='{ALICE}/r' to='{ALICE}'>"
            f"<query xmlns='jabber:iq:roster'>{item}</query></iq>"
        )
        found = []
        self.handler.on_set(generic.parseXml(xml.encode())).addBoth(found.append)
        return None if found == [None] else found[0].value.condition

    def size(self):
        found: list[tuple[RosterItem, ...]] = []
        self.store.get(ALICE).addCallback(found.append)
        return sum(map(size_of, found[0]))


def an_item(jid, groups):
    text = "x" * 1000
    return f"<item jid='{jid}'>{''.join(f'<group>{n}{text}</group>' for n in range(groups))}</item>"


@pytest.fixture
def rosters():
    return Rosters()


def test_a_roster_has_an_end(rosters):
    """It is sent in one piece: one that grew for ever would fill our memory, and its client never got it."""
    answers = [rosters.set(an_item(f"c{n}@x", 100)) for n in range(20)]
    assert answers[0] is None
    assert answers[-1] == "not-allowed"
    assert 0 < rosters.size() <= MAX_ROSTER_SIZE


def test_a_full_roster_can_be_made_smaller(rosters):
    """Whoever replaces a contact by less of it, or removes one, is not held up."""
    while rosters.set(an_item(f"c{rosters.size()}@x", 100)) is None:
        pass
    assert rosters.set(an_item("c0@x", 100)) is None
    assert rosters.set(an_item("c0@x", 1)) is None
    assert rosters.set("<item jid='c0@x' subscription='remove'/>") is None
