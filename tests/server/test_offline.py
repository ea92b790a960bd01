"""Handing over offline messages while the disk is slow and sessions come and go."""

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from xmpppush.errors import StorageError
from xmpppush.server.handed import HandedMessages
from xmpppush.server.offline import BATCH, MAX_HELD, PORTION, OfflineMessages
from xmpppush.server.resources import Resources
from xmpppush.testing.builders import an_offline_message
from xmpppush.testing.sessions import stanza_of

LONG = f"<message><body>{'x' * PORTION}</body></message>"


class SlowMessages:
    """Only what handing over needs of an IMessageStore; `waiting` answers when told to."""

    def __init__(self, *bodies):
        self.rows = [
            an_offline_message(id=number, xml=f"<message><body>{body}</body></message>")
            for number, body in enumerate(bodies, 1)
        ]
        self.asked = []

    def waiting(self, account, after=0, limit=None):
        self.wanted = after, limit
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self):
        after, limit = self.wanted
        self.asked[-1].callback(tuple(row for row in self.rows if row.id > after)[:limit])

    def forget(self, ids):
        self.rows = [row for row in self.rows if row.id not in ids]
        return succeed(None)


class Session:
    def __init__(self, account="alice@localhost"):
        self.account = self.full = account
        self.got = []
        self.closed = []

    def send(self, stanza):
        self.got.append(str(stanza.body))

    managed = False

    def send_xml(self, xml, what=None):
        self.send(stanza_of(xml))

    def close(self, condition, text=""):
        self.closed.append(condition)

    def flushed(self):
        return self.reading

    reading = succeed(True)


@pytest.fixture
def rerouted():
    return []


@pytest.fixture
def messages():
    return SlowMessages("one", "two")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def offline(messages, rerouted, clock):
    handed = HandedMessages(messages, Resources(), None, clock)
    return OfflineMessages(messages, clock, lambda held: rerouted.append(str(held.stanza.body)), handed)


def send(offline, session, body):
    xml = f"<message><body>{body}</body></message>"
    return offline.send(session, stanza_of(xml), xml)


def test_what_arrives_meanwhile_comes_afterwards(offline, messages):
    """The order is the sender's."""
    session = Session()
    offline.flush(session)
    send(offline, session, "three")
    assert session.got == []
    messages.answer()
    send(offline, session, "four")
    assert session.got == ["one", "two", "three", "four"]
    assert messages.rows == []


def test_other_sessions_do_not_wait(offline, messages):
    """Only the one that is being served."""
    offline.flush(Session())
    other = Session("bob@localhost")
    send(offline, other, "hello")
    assert other.got == ["hello"]


def test_two_sessions_do_not_both_get_them(offline, messages):
    """The first one to be present is served."""
    first, second = Session(), Session()
    offline.flush(first)
    offline.flush(second)
    messages.answer()
    messages.answer()
    assert (first.got, second.got) == (["one", "two"], [])


def test_nothing_is_forgotten_for_a_session_that_went_away(offline, messages, rerouted):
    """They wait on, or go to the next session; what was held for it is routed anew."""
    first, second = Session(), Session()
    offline.flush(first)
    send(offline, first, "three")
    offline.flush(second)
    offline.gone(first)
    assert rerouted == ["three"]
    messages.answer()
    assert first.got == []
    assert len(messages.rows) == 2
    messages.answer()
    assert second.got == ["one", "two"]


def test_a_client_that_does_not_read_loses_nothing(offline, messages):
    """They are forgotten in portions, each when it is on its way."""
    messages.rows += [an_offline_message(id=number, xml=LONG) for number in (3, 4)]
    session = Session()
    session.reading = Deferred()
    offline.flush(session)
    messages.answer()
    assert session.got == ["one", "two", "x" * PORTION]
    assert len(messages.rows) == 4
    reading, session.reading = session.reading, Deferred()
    reading.callback(True)
    assert len(session.got) == 4
    assert [row.id for row in messages.rows] == [4]
    session.reading.callback(False)
    assert [row.id for row in messages.rows] == [4]


def test_few_are_read_at_a_time(offline, messages):
    """A mailbox may be larger than our memory, and its owner may never read."""
    messages.rows = [an_offline_message(id=number, xml=LONG) for number in range(1, 2 * BATCH)]
    session = Session()
    session.reading = Deferred()
    offline.flush(session)
    messages.answer()
    assert messages.wanted == (0, BATCH)
    reading, session.reading = session.reading, succeed(True)
    reading.callback(True)
    assert len(session.got) == BATCH
    messages.answer()
    assert messages.wanted == (BATCH, BATCH)
    assert len(session.got) == 2 * BATCH - 1
    assert len(messages.asked) == 2
    assert messages.rows == []


def test_a_client_that_never_reads_is_thrown_out(offline, messages, clock, rerouted):
    """What is held for it has an end, as what is sent to it has; it is routed anew then."""
    session = Session()
    offline.flush(session)
    for _ in range(MAX_HELD // PORTION - 1):
        send(offline, session, "x" * PORTION)
    clock.advance(1)
    assert session.closed == []
    for _ in range(3):
        assert send(offline, session, "x" * PORTION) is not None
    assert session.closed == []  # not while messages are being routed
    clock.advance(0)
    assert session.closed == ["resource-constraint"]
    offline.gone(session)
    assert len(rerouted) == MAX_HELD // PORTION + 2


def test_what_somebody_else_got_is_not_routed_anew(offline, rerouted):
    """The account's other session would show it twice."""
    session = Session()
    offline.flush(session)
    send(offline, session, "both").elsewhere = True
    send(offline, session, "one")
    offline.gone(session)
    assert rerouted == ["one"]


def test_what_the_disk_cannot_forget_is_not_handed_over_twice(offline, messages):
    """A full disk takes no deletes either; they are made up for with the next session."""
    messages.rows.append(an_offline_message(id=3, xml=LONG))
    messages.rows.append(an_offline_message(id=4, xml="<message><body>four</body></message>"))
    forget, messages.forget = messages.forget, lambda ids: fail(StorageError("disk is full"))
    first, second, third = Session(), Session(), Session()
    offline.flush(first)
    messages.answer()
    assert first.got == ["one", "two", "x" * PORTION, "four"]
    offline.gone(first)
    offline.flush(second)
    messages.answer()
    assert second.got == []
    messages.forget = forget
    messages.rows.append(an_offline_message(id=5, xml="<message><body>five</body></message>"))
    offline.flush(third)
    messages.answer()
    assert third.got == ["five"]
    assert messages.rows == []


def test_a_failing_disk_does_not_hold_the_new_ones_back(offline, messages):
    """Said in the log; the stored ones stay where they are."""
    session = Session()
    offline.flush(session)
    send(offline, session, "three")
    messages.asked[-1].errback(OSError("disk"))
    assert session.got == ["three"]
    assert len(messages.rows) == 2
