"""Stanzas by the domain of their ``to``."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush._wokkel import Router as WokkelRouter
from xmpppush.errors import BadStanza
from xmpppush.interfaces import IRouter
from xmpppush.jids import parse_jid
from xmpppush.xep.conditions import bounced


@implementer(IRouter)
class Router(WokkelRouter):
    """
    Wokkel's router with a `route` of our own.

    Wokkel's logs every stanza with its body and keeps each JID for ever. Its ``addRoute`` takes the
    pipes of wokkel's components as well as our `LocalDomain`.

    Attributes:
        uplinks: A domain of ours to what takes its stanzas for domains that are not: for a component the
            server that it is attached to.
    """

    _log = Logger()

    def __init__(self) -> None:
        super().__init__()
        self.uplinks: dict[str, Any] = {}

    def route(self, stanza: Element) -> "Deferred[Any] | None":
        try:
            host = parse_jid(stanza["to"]).host
        except (KeyError, BadStanza):
            # Ours to get right: c2s has checked what clients send.
            self._log.error("stanza without a valid address dropped: {name}", name=stanza.name)
            return None
        destination = self.routes.get(host)
        if destination is None and self.uplinks:
            destination = self._uplink_of(stanza)
        if destination is not None:
            stored = destination.send(stanza)
            return stored if isinstance(stored, Deferred) else None  # a pipe of wokkel's tells a bool
        if stanza.attributes.get("type") not in ("result", "error"):
            reply = bounced(stanza, StanzaError("remote-server-not-found"))
            if reply is not None:
                self.route(reply)
        return None

    def _uplink_of(self, stanza: Element) -> Any:
        try:
            return self.uplinks.get(parse_jid(stanza.getAttribute("from", "")).host)
        except BadStanza:
            return None
