"""A pubsub host with apps, in memory: requests in, answers out, at once."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush._wokkel import Router as WokkelRouter
from xmpppush._wokkel import XmlPipe, generic
from xmpppush.apps.handler import handlers_for
from xmpppush.apps.service import Apps
from xmpppush.config.sections import AppSection, ModPubsubSection
from xmpppush.interfaces import IPushService
from xmpppush.mod_pubsub.handler import pubsub_components
from xmpppush.mod_pubsub.service import PubSub
from xmpppush.mod_push_service_mongoosepush.payload import request_for
from xmpppush.model import Delivery, Publish
from xmpppush.storage.memory import memory_storage

HOST = "push.localhost"
APPS = (
    AppSection("conversations", "fcm", p2=("*",)),
    AppSection("monal", "apns", p2=("im.monal",), appserver=True, push_module=("monal", "*")),
    AppSection("siskin", "apns", tigase=("siskin:1",)),
)


class QuietRouter(WokkelRouter):
    """Wokkel's router without its log line for each stanza."""

    def route(self, stanza: Element) -> None:
        self.routes[generic.jid.JID(stanza["to"]).host].send(stanza)


@implementer(IPushService)
class PushService:
    """Prepares as the bridge does, takes everything, and says what it is told to say, or nothing yet."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []
        self.outcome: Any = None
        self.silent = False
        self.firsts: list[Any] = []

    def prepare(self, publish: Publish, created: float) -> Delivery:
        path, body = request_for(publish, "v3", ("fcm", "apns"))
        service = f"{publish.options['service']}@{publish.route.app}" if publish.route else "fcm"
        return Delivery(0, publish.account, publish.pubsub, publish.node, service, path, body, created)

    def enqueue(self, delivery: Delivery, first: Any = None) -> None:
        self.taken.append(delivery)
        if self.silent:
            self.firsts.append(first)
        elif first is not None:
            first(self.outcome)


class World:
    """`ask` sends an iq and returns its one answer."""

    def __init__(self, apps: Sequence[AppSection] = APPS, wrap: Any = lambda service, *_: service) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.storage = memory_storage()
        self.push_service = PushService()
        service = wrap(self.push_service, self.storage.messages, self.clock)
        self.apps = Apps(
            apps, self.storage.devices, service, self.clock, ["localhost"], messages=self.storage.messages
        )
        self.pubsub = PubSub(
            ModPubsubSection(hosts=(HOST,), plugins=("push", "flat")),
            ("localhost",),
            self.storage.nodes,
            self.storage.messages,
            service,
            self.clock,
            apps=self.apps,
        )
        self.router = QuietRouter()
        self.answers: list[Any] = []
        for domain in ("localhost", "far.example"):
            pipe = XmlPipe()
            pipe.source.addObserver("/*", self.answers.append)
            self.router.addRoute(domain, pipe.sink)
        (component,) = pubsub_components(self.pubsub, self.router, handlers_for(self.apps, self.clock))
        component.startService()

    def ask(
        self, child: str, type: str = "set", by: str = "alice@localhost/phone", to: str = HOST
    ) -> Element:
        self.send(child, type, by, to)
        (answer,) = self.answers
        assert (answer["id"], answer["from"], answer["to"]) == ("i1", to, by)
        return answer

    def send(self, child: str, type: str = "set", by: str = "alice@localhost/phone", to: str = HOST) -> None:
        """Send an iq; what comes back is in `answers`."""
        del self.answers[:]
        self.router.route(_parsed(f"<iq type='{type}' id='i1' from='{by}' to='{to}'>{child}</iq>".encode()))

    def command(
        self, node: str, form: str = "", action: str = "action='execute'", session: str = "", **ask: Any
    ) -> Element:
        """Execute a command."""
        session = f" sessionid='{session}'" if session else ""
        return self.ask(
            f"<command xmlns='http://jabber.org/protocol/commands' node='{node}' {action}{session}>"
            f"{form}</command>",
            **ask,
        )

    def register(
        self, node: str = "register-push-fcm", /, by: str = "alice@localhost/phone", **fields: str
    ) -> dict[str, str]:
        """Values of the answer's form."""
        fields = fields or {"token": "T1", "android-id": "D1"}
        answer = self.command(node, form(**fields), by=by)
        assert answer["type"] == "result", answer.toXml()
        return values_in(answer)

    def publish(self, node: str, by: str = "localhost", **options: str) -> Element:
        """Publish as servers do."""
        return self.ask(self.a_publish(node, **options), by=by)

    def a_publish(self, node: str, **options: str) -> str:
        """The content of such a request."""
        fields = "".join(
            f"<field var='{var}'><value>{value}</value></field>" for var, value in options.items()
        )
        form_xml = (
            "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>"
            "<value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
            f"{fields}</x></publish-options>"
            if options
            else ""
        )
        return (
            f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'><item>"
            "<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='form'>"
            "<field var='FORM_TYPE'><value>urn:xmpp:push:summary</value></field>"
            "<field var='message-count'><value>2</value></field>"
            "<field var='last-message-sender'><value>bob@localhost</value></field>"
            "<field var='last-message-body'><value>Hi</value></field></x>"
            f"</notification></item></publish>{form_xml}</pubsub>"
        )


def _parsed(xml: bytes) -> Element:
    element: Element = generic.parseXml(xml)
    return element


def form(type: str = "submit", /, **fields: str) -> str:
    """A data form."""
    inside = "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in fields.items())
    return f"<x xmlns='jabber:x:data' type='{type}'>{inside}</x>"


def values_in(answer: Element) -> dict[str, str]:
    """Values of the form in a command's answer."""
    return {str(f["var"]): str(f.value) for f in answer.command.x.elements() if f.name == "field"}


def condition_of(answer: Element) -> str:
    """Type, condition and what is beside it."""
    assert answer["type"] == "error", answer.toXml()
    names = [element.name for element in answer.error.elements() if element.name != "text"]
    return " ".join([answer.error["type"], *names])
