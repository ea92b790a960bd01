"""mod_push: enable and disable (XEP-0357 sections 5 and 6)."""

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush._wokkel import DiscoFeature, IDisco, IQHandlerMixin, XMPPHandler
from xmpppush.interfaces import IRegistrationStore, ITrace
from xmpppush.jids import JID, own_account, parse_jid
from xmpppush.mod_push.publisher import Publisher
from xmpppush.model import Registration
from xmpppush.trace import NO_TRACE, Decision
from xmpppush.xep import namespaces as ns
from xmpppush.xep.conditions import to_stanza_error
from xmpppush.xep.push import parse_disable, parse_enable
from xmpppush.xep.tigase import FEATURES, parse_extensions


@implementer(IDisco)
class PushHandler(XMPPHandler, IQHandlerMixin):
    """
    Keeps the registrations of the accounts.

    Args:
        publisher: Told of each enable, so that it can warn of one that cannot work.
        limit: ``[mod_push] max_registrations``.
    """

    iqHandlers = {
        # Wokkel takes the last one that matches.
        f"/iq[@type='get']/*[@xmlns='{ns.PUSH}']": "on_get",
        f"/iq[@type='set']/*[@xmlns='{ns.PUSH}']": "on_other",
        f"/iq[@type='set']/enable[@xmlns='{ns.PUSH}']": "on_enable",
        f"/iq[@type='set']/disable[@xmlns='{ns.PUSH}']": "on_disable",
    }

    def __init__(
        self,
        registrations: IRegistrationStore,
        publisher: Publisher,
        clock: IReactorTime,
        limit: int,
        trace: ITrace = NO_TRACE,
    ) -> None:
        super().__init__()
        self._registrations = registrations
        self._publisher = publisher
        self._clock = clock
        self._limit = limit
        self._trace = trace

    def connectionInitialized(self) -> None:
        self.xmlstream.addObserver(
            f"/iq[@type='get' or @type='set']/*[@xmlns='{ns.PUSH}']", self.handleRequest
        )

    def on_get(self, iq: Element) -> None:
        raise StanzaError("not-allowed")

    def on_other(self, iq: Element) -> None:
        raise StanzaError("bad-request")

    def on_enable(self, iq: Element) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._enable(iq)).addErrback(to_stanza_error)

    def on_disable(self, iq: Element) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._disable(iq)).addErrback(to_stanza_error)

    async def _enable(self, iq: Element) -> None:
        account = own_account(iq["from"], iq["to"])
        pubsub, node, options = parse_enable(iq.enable)
        registration = Registration(
            account=account,
            pubsub=pubsub,
            node=node,
            options=options,
            resource=parse_jid(iq["from"]).resource or "",
            created=self._clock.seconds(),
            extensions=parse_extensions(iq.enable),
        )
        # Of the same JID and node the last enable counts (section 5), so a repeat needs no room.
        await self._registrations.put(registration, self._limit)
        await self._publisher.check(registration)

    async def _disable(self, iq: Element) -> None:
        account = own_account(iq["from"], iq["to"])
        pubsub, node = parse_disable(iq.disable)
        if await self._registrations.remove(account, pubsub, node):
            self._trace.note(self._trace.begin(), account, node or "", Decision.REMOVED, "client")

    def getDiscoInfo(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        # Section 4: on the account. MongooseIM has it on the domain alone, so some clients look there.
        if nodeIdentifier:
            return succeed([])
        features = (ns.PUSH, *FEATURES) if target.user else (ns.PUSH,)
        return succeed([DiscoFeature(feature) for feature in features])

    def getDiscoItems(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        return succeed([])
