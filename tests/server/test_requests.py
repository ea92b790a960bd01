"""Requests of the server itself, and their answers."""

import pytest
from twisted.internet.task import Clock
from twisted.words.protocols.jabber.error import StanzaError

from xmpppush.errors import TryLater, Unreachable
from xmpppush.server.requests import Requests
from xmpppush.testing.s2s import RecordingRouter
from xmpppush.testing.sessions import stanza_of
from xmpppush.xep.conditions import bounced, error_reply

IQ = "<iq type='set' from='mychat.com' to='pubsub.mypubsub.com'><q xmlns='x'/></iq>"


class World:
    def __init__(self):
        self.clock, self.router = Clock(), RecordingRouter()
        self.requests = Requests(self.router, self.clock, lambda size: b"\x01" * size)
        self.outcomes = []
        self.requests.ask(stanza_of(IQ)).addBoth(self.outcomes.append)
        (self.iq,) = self.router.routed

    def answer(self, kind="result", sender="pubsub.mypubsub.com", number=None):
        number = number or self.iq["id"]
        xml = f"<iq type='{kind}' id='{number}' from='{sender}' to='mychat.com'/>"
        return self.requests.answered(stanza_of(xml))


@pytest.mark.parametrize("kind", ["result", "error"])
def test_an_answer(kind):
    """A result or an error of whom was asked, once."""
    world = World()
    assert world.answer(kind)
    assert world.outcomes[0]["type"] == kind
    assert not world.answer(kind)
    assert world.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"sender": "evil.example"},
        {"sender": "a@pubsub.mypubsub.com"},
        {"sender": "@"},
        {"number": "0"},
    ],
)
def test_answers_of_others(wrong):
    """Who was not asked cannot answer (RFC 6120 section 8.1.3)."""
    world = World()
    assert not world.answer(**wrong)
    assert world.outcomes == []
    assert len(world.requests) == 1


def test_no_answer():
    """Is given up after a while."""
    world = World()
    world.clock.advance(30)
    assert world.outcomes[0].check(TryLater)
    assert not world.answer()
    assert len(world.requests) == 0


def test_what_comes_back_is_no_answer():
    """An error that we made on the way is told from the same one of theirs."""
    error = StanzaError("remote-server-not-found")
    world = World()
    assert world.requests.answered(bounced(world.iq, error, "DNS: not in DNS"))
    assert world.outcomes[0].check(Unreachable)
    assert world.outcomes[0].value.reason == "DNS: not in DNS"
    world = World()
    assert world.requests.answered(error_reply(world.iq, error))
    assert world.outcomes[0]["type"] == "error"
