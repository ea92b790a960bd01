"""Requests of the server's own, and what may count as their answer."""

import pytest
from twisted.internet.task import Clock
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element

from xmpppush.errors import AppServerUnreachable
from xmpppush.server.parser import stanza_of
from xmpppush.server.requests import ANSWER_TIMEOUT, Requests, error_in
from xmpppush.server.router import Router

STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"


class World:
    """A served domain with requests, and a host that gets them."""

    def __init__(self):
        self.clock = Clock()
        self.router = Router()
        self.router.routes["chat.test"] = self
        self.got = []
        self.router.routes["pubsub.test"] = type(
            "Host", (), {"send": lambda _, stanza: self.got.append(stanza)}
        )()
        numbers = iter(range(100))
        self.requests = Requests(self.router, self.clock, lambda size: next(numbers).to_bytes(size))
        self.left = []

    def send(self, stanza):
        """As the XMPP server does with answers."""
        if not self.requests.answered(stanza):
            self.left.append(stanza)

    def ask(self, to="pubsub.test"):
        iq = Element((None, "iq"), attribs={"type": "set", "from": "chat.test", "to": to})
        outcome = []
        self.requests.ask(iq).addBoth(outcome.append)
        return outcome

    def answer(self, xml):
        self.router.route(stanza_of(xml.replace("ID", self.got[-1]["id"])))


@pytest.fixture
def world():
    return World()


def test_result(world):
    """The result of who was asked is the answer, once, and nothing is left ticking."""
    outcome = world.ask()
    world.answer("<iq type='result' id='ID' from='pubsub.test' to='chat.test'/>")
    assert outcome[0]["type"] == "result"
    world.answer("<iq type='result' id='ID' from='pubsub.test' to='chat.test'/>")
    assert len(world.left) == 1
    assert not world.clock.getDelayedCalls()


def test_error(world):
    """An error of who was asked is a stanza error."""
    outcome = world.ask()
    world.answer(
        "<iq type='error' id='ID' from='pubsub.test' to='chat.test'>"
        f"<error type='auth'><forbidden xmlns='{STANZAS}'/><text xmlns='{STANZAS}'>no</text></error></iq>"
    )
    error = outcome[0].value
    assert isinstance(error, StanzaError)
    assert (error.condition, error.type, error.text) == ("forbidden", "auth", "no")


@pytest.mark.parametrize("sender", ["other.test", "x@pubsub.test", "@", ""])
def test_answers_of_others(world, sender):
    """Whoever guesses an id is still not who was asked."""
    outcome = world.ask()
    world.answer(f"<iq type='result' id='ID' from='{sender}' to='chat.test'/>")
    assert outcome == []
    assert len(world.left) == 1


def test_no_way(world):
    """What our own router has no way for is no answer of theirs."""
    outcome = world.ask("nowhere.test")
    assert outcome[0].check(AppServerUnreachable)
    assert not world.clock.getDelayedCalls()


def test_silence(world):
    """Nobody is waited for for ever."""
    outcome = world.ask()
    world.clock.advance(ANSWER_TIMEOUT)
    assert outcome[0].check(AppServerUnreachable)


def test_gone(world):
    """With a component its answers go."""
    one, other = world.ask(), world.ask("x@pubsub.test/y")
    world.requests.gone("chat.test")
    assert one == other == []
    world.requests.gone("pubsub.test")
    assert one[0].check(AppServerUnreachable)
    assert other[0].check(AppServerUnreachable)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("", ("undefined-condition", "cancel")),
        ("<error/>", ("undefined-condition", "cancel")),
        ("<error type='strange'/>", ("undefined-condition", "cancel")),
        (f"<error type='wait'><strange xmlns='{STANZAS}'/></error>", ("undefined-condition", "wait")),
        (f"<error><item-not-found xmlns='{STANZAS}'/></error>", ("item-not-found", "cancel")),
        (
            f"<error><text xmlns='{STANZAS}'>x</text><conflict xmlns='{STANZAS}'/></error>",
            ("conflict", "cancel"),
        ),
        (f"<error type='wait'><gone xmlns='{STANZAS}'>xmpp:x</gone></error>", ("gone", "wait")),
    ],
)
def test_errors_as_they_come(xml, expected):
    """Whatever stands in an error, something is made of it."""
    error = error_in(stanza_of(f"<iq type='error'>{xml}</iq>"))
    assert (error.condition, error.type or "cancel") == expected
