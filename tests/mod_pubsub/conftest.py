"""A pubsub host in memory: requests in, answers out, at once."""

from collections.abc import Iterable
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush._wokkel import Router as WokkelRouter
from xmpppush._wokkel import XmlPipe, generic
from xmpppush.config.sections import ModPubsubSection
from xmpppush.interfaces import IPushService
from xmpppush.mod_pubsub.handler import pubsub_components
from xmpppush.mod_pubsub.service import PubSub
from xmpppush.model import Delivery, Publish
from xmpppush.storage.memory import memory_storage

HOST = "pubsub.localhost"


def parse(xml: str) -> Element:
    element: Element = generic.parseXml(xml.encode())
    return element


class QuietRouter(WokkelRouter):
    """Wokkel's router without its log line for each stanza."""

    def route(self, stanza: Element) -> None:
        self.routes[generic.jid.JID(stanza["to"]).host].send(stanza)


@implementer(IPushService)
class ScriptedPushService:
    """Says what it is told to say; ``silent`` never answers."""

    def __init__(self) -> None:
        self.outcome: Any = None
        self.silent = False
        self.taken: list[Delivery] = []
        self.publishes: list[Publish] = []
        self.firsts: list[Any] = []

    def prepare(self, publish: Publish, created: float) -> Delivery:
        self.publishes.append(publish)
        return Delivery(
            0, publish.account, publish.pubsub, publish.node, "fcm", "/v3/notification/t", b"{}", created
        )

    def enqueue(self, delivery: Delivery, first: Any = None) -> None:
        self.taken.append(delivery)
        self.firsts.append(first)
        if not self.silent:
            first(self.outcome)


class Host:
    """The conversation: `ask` sends an iq and returns the one answer."""

    def __init__(
        self,
        storage: Any,
        hosts: tuple[str, ...] = (HOST,),
        domains: Iterable[str] = ("localhost", "far.example"),
        **section: Any,
    ) -> None:
        """
        Args:
            domains: To which answers and events go.
        """
        self.storage = storage
        self.clock = Clock()
        self.push_service = ScriptedPushService()
        self.pubsub = PubSub(
            ModPubsubSection(hosts=hosts, **section),
            ("localhost",),
            storage.nodes,
            storage.messages,
            self.push_service,
            self.clock,
        )
        self.router = QuietRouter()
        self.answers: list[Element] = []
        for domain in domains:
            self.listen_for(domain)
        for component in pubsub_components(self.pubsub, self.router):
            component.startService()
            self.component = component

    def listen_for(self, domain: str) -> None:
        """What goes to this domain is among the answers, too."""
        pipe = XmlPipe()
        pipe.source.addObserver("/*", self.answers.append)
        self.router.addRoute(domain, pipe.sink)

    def send(self, xml: str) -> list[Element]:
        """Route a stanza; returns what came back so far."""
        del self.answers[:]
        self.router.route(parse(xml))
        return self.answers

    def ask(
        self, child: str, type: str = "set", by: str = "alice@localhost/phone", to: str = HOST
    ) -> Element:
        """Send an iq and return its one answer."""
        answers = self.send(f"<iq type='{type}' id='i1' from='{by}' to='{to}'>{child}</iq>")
        assert len(answers) == 1
        (answer,) = answers
        assert (answer["id"], answer["from"], answer["to"]) == ("i1", to, by)
        return answer

    def create(self, node: str = "n1", **ask: Any) -> Element:
        return self.ask(
            f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='{node}' type='push'/></pubsub>",
            **ask,
        )


@pytest.fixture
def storage():
    return memory_storage()


@pytest.fixture
def a_host(storage):
    def make(**section):
        return Host(storage, **section)

    return make


@pytest.fixture
def host(a_host):
    return a_host()
