"""Sessions that write down what they are sent."""

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush._wokkel import generic
from xmpppush.interfaces import ISession
from xmpppush.jids import parse_jid


def stanza_of(xml: str) -> Element:
    """A stanza as the server's parser makes it: the stream's own namespace is ``None``."""
    return generic.stripNamespace(
        generic.parseXml(f"<s xmlns='jabber:client'>{xml}</s>".encode())
    ).firstChildElement()


@implementer(ISession)
class RecordingSession:
    """
    A bound session.

    Attributes:
        sent: Every stanza as XML, in order.
        closed: The condition of the stream error that ended it.
    """

    def __init__(self, host: Any, account: str, resource: str | None = None) -> None:
        self.account = account
        self.priority: int | None = None
        self.presence: Element | None = None
        self.interested = False
        self.sm = None
        self.managed = self.hibernated = False
        self.answering = self.active = True
        self.carbons = False
        self.sent: list[str] = []
        self.closed = ""
        self._host = host
        self.resource = host.bind(self, account, resource)
        self.full = f"{account}/{self.resource}"
        self.jid = parse_jid(self.full)

    def send(self, stanza: Element) -> None:
        self.sent.append(stanza.toXml())

    def send_xml(self, xml: str, what: object = None) -> None:
        self.sent.append(xml)

    def flushed(self) -> "Deferred[bool]":
        return succeed(not self.closed)

    def close(self, condition: str, text: str = "") -> None:
        self.closed = condition

    def hibernate(self) -> None:
        self.hibernated = True

    def unacknowledged(self) -> list[Any]:
        return []

    def end(self) -> list[Any]:
        return []

    def says(self, xml: str) -> list[str]:
        """The client sends a stanza; returns what it is sent during that."""
        before = len(self.sent)
        stanza = stanza_of(xml)
        stanza["from"] = self.full
        self._host.stanza(self, stanza)
        return self.sent[before:]
