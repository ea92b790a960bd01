"""Requests to a served domain or to one's own account: Wokkel handlers, a class for each XEP."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush import __version__
from xmpppush._wokkel import (
    DiscoFeature,
    DiscoHandler,
    DiscoIdentity,
    DiscoItem,
    FallbackHandler,
    IDisco,
    InternalComponent,
    IQHandlerMixin,
    PingHandler,
    VersionHandler,
    XMPPHandler,
)
from xmpppush.errors import BadStanza
from xmpppush.interfaces import IRosterStore
from xmpppush.jids import JID, bare_of, own_account, parse_jid
from xmpppush.model import RosterItem
from xmpppush.server.resources import Resources
from xmpppush.xep import namespaces as ns
from xmpppush.xep.conditions import to_stanza_error
from xmpppush.xep.times import stamp_of

MAX_ROSTER_ITEMS = 5000
MAX_ROSTER_SIZE = 1024 * 1024  # as `size_of` counts; it is read, and sent, in one piece
MAX_NAME = 1023  # characters of a contact's or group's name (RFC 6121 section 2.1.2 sets none)


class DomainHandlers(InternalComponent):
    """
    The handlers for all served domains and their accounts.

    The server hands each request over, since what is for a connected resource is not for them.
    """

    def startService(self) -> None:
        InternalComponent.startService(self)
        self._pipe.sink.addObserver("/*", self._router.route)

    def handle(self, stanza: Element) -> None:
        self._pipe.sink.send(stanza)


@implementer(IDisco)
class ServerDisco(XMPPHandler):
    """
    Identities and features that belong to no handler of their own (XEP-0030).

    Args:
        items: A domain to the JIDs of its services, such as its pubsub service.
    """

    FEATURES = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.OFFLINE)

    def __init__(self, items: Callable[[str], Iterable[str]]) -> None:
        super().__init__()
        self._items = items

    def getDiscoInfo(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        check_own(requestor, target)
        if nodeIdentifier:
            raise StanzaError("item-not-found")
        if target.user is None:
            identity = DiscoIdentity("server", "im", "xmpppush")
        else:
            identity = DiscoIdentity("account", "registered")
        return succeed([identity, *map(DiscoFeature, self.FEATURES)])

    def getDiscoItems(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        check_own(requestor, target)
        if nodeIdentifier:
            raise StanzaError("item-not-found")
        if target.user is not None:
            return succeed([])
        return succeed([DiscoItem(JID(tuple=(None, host, None))) for host in self._items(target.host)])


def check_own(requestor: JID, target: JID) -> None:
    """
    Only the owner asks an account about itself; others learn not even whether it is there.

    Raises:
        StanzaError: ``service-unavailable`` (XEP-0030 section 8).
    """
    if target.user is not None and requestor.userhost() != target.userhost():
        raise StanzaError("service-unavailable")


@implementer(IDisco)
class TimeHandler(XMPPHandler, IQHandlerMixin):
    """Entity time (XEP-0202)."""

    iqHandlers = {f"/iq[@type='get']/time[@xmlns='{ns.TIME}']": "on_time"}

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()
        self._clock = clock

    def connectionInitialized(self) -> None:
        self.xmlstream.addObserver(f"/iq[@type='get']/time[@xmlns='{ns.TIME}']", self.handleRequest)

    def on_time(self, iq: Element) -> Element:
        now = self._clock.seconds()
        offset = time.localtime(now).tm_gmtoff // 60
        sign, minutes = ("-", -offset) if offset < 0 else ("+", offset)
        answer = Element((ns.TIME, "time"))
        answer.addElement("tzo", content=f"{sign}{minutes // 60:02d}:{minutes % 60:02d}")
        answer.addElement("utc", content=stamp_of(now))
        return answer

    def getDiscoInfo(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        return succeed([] if nodeIdentifier else [DiscoFeature(ns.TIME)])

    def getDiscoItems(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        return succeed([])


class RosterHandler(XMPPHandler, IQHandlerMixin):
    """The contact list (RFC 6121 section 2), without subscriptions so far."""

    QUERY = f"/query[@xmlns='{ns.ROSTER}']"
    iqHandlers = {f"/iq[@type='get']{QUERY}": "on_get", f"/iq[@type='set']{QUERY}": "on_set"}

    def __init__(self, rosters: IRosterStore, resources: Resources) -> None:
        super().__init__()
        self._rosters = rosters
        self._resources = resources
        self._serial = 0

    def connectionInitialized(self) -> None:
        for path in self.iqHandlers:
            self.xmlstream.addObserver(path, self.handleRequest)

    def on_get(self, iq: Element) -> "Deferred[Element]":
        return Deferred.fromCoroutine(self._get(iq["from"], iq["to"])).addErrback(to_stanza_error)

    async def _get(self, full: str, to: str) -> Element:
        account = own_account(full, to)
        items = await self._rosters.get(account)
        session = self._resources.get(account, full.partition("/")[2])
        if session is not None:
            session.interested = True  # RFC 6121 section 2.2: pushes go to whoever asked for the roster
        return roster_query(items)

    def on_set(self, iq: Element) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._set(iq["from"], iq["to"], iq.query)).addErrback(to_stanza_error)

    async def _set(self, full: str, to: str, query: Element) -> None:
        account = own_account(full, to)
        items = list(query.elements(ns.ROSTER, "item"))
        if len(items) != 1:
            raise BadStanza("a roster set carries one item")  # RFC 6121 section 2.1.5
        item, removed = parse_item(items[0])
        if item.jid == account:
            raise StanzaError("not-allowed")
        if removed:
            if not await self._rosters.remove(account, item.jid):
                raise StanzaError("item-not-found")  # section 2.5.3
        else:
            check_room(await self._rosters.get(account), item)
            await self._rosters.put(account, item)
        self._push(account, RosterItem(item.jid, subscription="remove") if removed else item)

    def _push(self, account: str, item: RosterItem) -> None:
        """Tell the account's interested resources (RFC 6121 section 2.1.6)."""
        for session in self._resources.of(account).values():
            if session.interested:
                self._serial += 1
                iq = Element((None, "iq"))
                iq["type"], iq["id"], iq["to"] = "set", f"roster-{self._serial}", session.full
                iq.addChild(roster_query([item]))
                session.send(iq)


def check_room(roster: Iterable[RosterItem], item: RosterItem) -> None:
    """
    May this item be added, or take the place of the one with its JID?

    Raises:
        StanzaError: ``not-allowed``: the roster is full.
    """
    others = [known for known in roster if known.jid != item.jid]
    if len(others) >= MAX_ROSTER_ITEMS or sum(map(size_of, others)) + size_of(item) > MAX_ROSTER_SIZE:
        raise StanzaError("not-allowed", text="the roster is full")


def size_of(item: RosterItem) -> int:
    """About as many characters as the item has in XML."""
    return 64 + len(item.jid) + len(item.name) + sum(16 + len(group) for group in item.groups)


@implementer(IDisco)
class CarbonsHandler(XMPPHandler, IQHandlerMixin):
    """Clients that want copies of their account's other messages, or no more (XEP-0280 sections 4 and 5)."""

    iqHandlers = {
        f"/iq[@type='set']/{name}[@xmlns='{ns.CARBONS}']": f"on_{name}" for name in ("enable", "disable")
    }

    def __init__(self, resources: Resources) -> None:
        super().__init__()
        self._resources = resources

    def connectionInitialized(self) -> None:
        for path in self.iqHandlers:
            self.xmlstream.addObserver(path, self.handleRequest)

    def on_enable(self, iq: Element) -> None:
        self._set(iq, True)

    def on_disable(self, iq: Element) -> None:
        self._set(iq, False)

    def _set(self, iq: Element, wanted: bool) -> None:
        account, _, resource = iq["from"].partition("/")
        session = self._resources.get(account, resource)
        if session is None or parse_jid(iq["to"]).full() != account:
            raise StanzaError("not-allowed")
        session.carbons = wanted

    def getDiscoInfo(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        return succeed([] if nodeIdentifier else [DiscoFeature(ns.CARBONS)])

    def getDiscoItems(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        return succeed([])


def parse_item(item: Element) -> tuple[RosterItem, bool]:
    """
    An ``<item/>`` of a roster set, and whether it is to be removed.

    The subscription is the server's to keep; what a client writes there, other than ``remove``, is
    ignored (RFC 6121 section 2.1.2.5).
    """
    jid = bare_of(item.getAttribute("jid") or "")
    name = item.getAttribute("name") or ""
    groups = tuple(dict.fromkeys(str(group) for group in item.elements(ns.ROSTER, "group")))
    if len(name) > MAX_NAME or any(not group or len(group) > MAX_NAME for group in groups):
        raise StanzaError("not-acceptable")  # RFC 6121 section 2.3.3
    return RosterItem(jid, name, groups), item.getAttribute("subscription") == "remove"


def roster_query(items: Iterable[RosterItem]) -> Element:
    query = Element((ns.ROSTER, "query"))
    for item in items:
        element = query.addElement("item")
        element["jid"], element["subscription"] = item.jid, item.subscription
        if item.name:
            element["name"] = item.name
        for group in item.groups:
            element.addElement("group", content=group)
    return query


def add_server_handlers(
    handlers: DomainHandlers,
    rosters: IRosterStore,
    resources: Resources,
    items: Callable[[str], Iterable[str]],
    clock: IReactorTime,
) -> None:
    """Everything a served domain answers besides push."""
    for handler in (
        ServerDisco(items),
        DiscoHandler(),
        PingHandler(),
        VersionHandler("xmpppush", __version__),
        TimeHandler(clock),
        RosterHandler(rosters, resources),
        CarbonsHandler(resources),
        FallbackHandler(),
    ):
        handler.setHandlerParent(handlers)
