"""
The pubsub service on the wire (XEP-0060), as components of Wokkel.

Parse, ask `PubSub`, answer. Every request gets an answer: a child that Wokkel does not know is
bad-request, an iq nobody takes is service-unavailable. Messages and presence are ignored.
"""

from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element

from xmpppush import __version__
from xmpppush._wokkel import (
    DiscoFeature,
    DiscoHandler,
    DiscoIdentity,
    DiscoItem,
    FallbackHandler,
    InternalComponent,
    PingHandler,
    PubSubRequest,
    PubSubResource,
    PubSubService,
    VersionHandler,
    XMPPHandler,
)
from xmpppush.errors import InvalidPayload, Unsupported
from xmpppush.interfaces import IRouter
from xmpppush.jids import JID, parse_jid
from xmpppush.mod_pubsub.rules import OPTIONS, TITLE
from xmpppush.mod_pubsub.service import PubSub
from xmpppush.model import Publish
from xmpppush.xep import pubsub as xep0060
from xmpppush.xep.conditions import to_stanza_error
from xmpppush.xep.namespaces import DISCO_INFO, DISCO_ITEMS, PUBSUB, PUSH
from xmpppush.xep.push import parse_notification, revocation


class Request(PubSubRequest):
    """
    Wokkel's request without its readers of forms and addresses.

    Those overlook a FORM_TYPE without ``type='hidden'``, fail on a repeated field and on a malformed
    JID; ``xep/pubsub.py`` reads them from `element`.
    """

    def _leave(self, element: Element) -> None:
        pass

    _parse_configure = _parse_configureOrNone = _parse_default = _leave
    _parse_options = _parse_optionsWithSubscribe = _parse_affiliations = _leave
    _parse_items = _parse_itemIdentifiers = _parse_maxItems = _parse_jid = _leave


class PubSubNodes(PubSubResource):
    """
    What can be done with nodes; the rest is Wokkel's ``feature-not-implemented`` with its feature.

    A method is a coroutine, named as Wokkel names the request, and returns what `PubSubHandler`
    answers with.
    """

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    def getConfigurationOptions(self) -> dict[str, dict[str, Any]]:
        return {
            var: {
                "type": option.type,
                "label": option.label,
                "options": {value: value for value in option.values},
            }
            for var, option in OPTIONS.items()
        }

    async def create(self, request: Request) -> str:
        iq = request.element
        config = xep0060.configuration(iq) or {}
        return await self._pubsub.create(
            request.sender, request.recipient.host, request.nodeIdentifier, xep0060.create_type(iq), config
        )

    async def delete(self, request: Request) -> None:
        await self._pubsub.delete(request.sender, request.recipient.host, request.nodeIdentifier)

    async def default(self, request: Request) -> Mapping[str, str]:
        return self._pubsub.default_configuration()

    async def configureGet(self, request: Request) -> Mapping[str, str]:
        return await self._pubsub.configuration(
            request.sender, request.recipient.host, request.nodeIdentifier
        )

    async def configureSet(self, request: Request) -> None:
        config = xep0060.configuration(request.element)
        if config is not None:
            await self._pubsub.configure(
                request.sender, request.recipient.host, request.nodeIdentifier, config
            )

    async def affiliations(self, request: Request) -> list[tuple[str, str]]:
        node = xep0060.request_in(request.element).getAttribute("node")
        return await self._pubsub.affiliations_of(request.sender, request.recipient.host, node or None)

    async def affiliationsGet(self, request: Request) -> dict[JID, str]:
        found = await self._pubsub.affiliations(
            request.sender, request.recipient.host, request.nodeIdentifier
        )
        return {parse_jid(jid): affiliation for jid, affiliation in sorted(found.items())}

    async def affiliationsSet(self, request: Request) -> None:
        changes = xep0060.affiliations(request.element)
        await self._pubsub.affiliate(request.sender, request.recipient.host, request.nodeIdentifier, changes)

    async def publish(self, request: Request) -> Element:
        iq = request.element
        item_id, payload = xep0060.published(iq)
        if (payload.uri, payload.name) != (PUSH, "notification"):
            raise InvalidPayload("the payload is no notification")
        await self._pubsub.publish(
            Publish(
                # A client's publish counts as its bare JID's; its server's affiliation is not its own.
                sender=request.sender.userhost(),
                pubsub=request.recipient.host,
                node=request.nodeIdentifier,
                notification=parse_notification(payload),
                options=xep0060.publish_options(iq),
            )
        )
        return xep0060.publish_response(request.nodeIdentifier, item_id or self._pubsub.item_id())

    async def optionsGet(self, request: Request) -> None:
        raise Unsupported("subscription-options")

    async def optionsSet(self, request: Request) -> None:
        raise Unsupported("subscription-options")

    # Of features that hang on persistent items that one is named, as XEP-0060 sections 7.2.3.5 and
    # 8.5.3.4 have it (and MongooseIM does).

    async def retract(self, request: Request) -> None:
        raise Unsupported("persistent-items")

    async def purge(self, request: Request) -> None:
        raise Unsupported("persistent-items")


class PubSubHandler(PubSubService):
    """The requests of XEP-0060, and what service discovery tells of nodes."""

    def __init__(self, pubsub: PubSub) -> None:
        super().__init__(PubSubNodes(pubsub))
        self._pubsub = pubsub

    def connectionLost(self, reason: Failure | None) -> None:
        self._pubsub.answer_waiting()
        super().connectionLost(reason)

    def _onPubSubRequest(self, iq: Element) -> "Deferred[Any]":
        return Deferred.fromCoroutine(self._answer(iq)).addErrback(to_stanza_error)

    async def _answer(self, iq: Element) -> Any:
        parse_jid(iq.getAttribute("from", ""))
        check_target(parse_jid(iq.getAttribute("to", "")))
        xep0060.request_in(iq)
        request = Request.fromElement(iq)
        result = await getattr(self.resource, request.verb)(request)
        respond = getattr(self, f"_toResponse_{request.verb}", None)
        return result if respond is None else respond(result, self.resource, request)

    def _toResponse_create(self, result: str, resource: PubSubNodes, request: Request) -> Element:
        return xep0060.create_response(result)

    # Service discovery

    def getDiscoInfo(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        return Deferred.fromCoroutine(self._info(requestor, target, nodeIdentifier)).addErrback(
            to_stanza_error
        )

    def getDiscoItems(self, requestor: JID, target: JID, nodeIdentifier: str = "") -> "Deferred[list[Any]]":
        return Deferred.fromCoroutine(self._items(requestor, target, nodeIdentifier)).addErrback(
            to_stanza_error
        )

    async def _info(self, requester: JID, target: JID, name: str) -> list[Any]:
        check_target(target)
        if name:
            node = await self._pubsub.visible(requester, target.host, name)
            found = [DiscoIdentity("pubsub", "leaf", node.config.get(TITLE)), DiscoFeature(PUBSUB)]
            names = self._pubsub.features_of(node)
        else:
            found = [
                DiscoIdentity("pubsub", "service", "Publish-Subscribe"),
                DiscoIdentity("pubsub", "push"),
                *map(DiscoFeature, (DISCO_INFO, DISCO_ITEMS, PUBSUB, PUSH)),
            ]
            names = self._pubsub.features_of(None)
        return found + [DiscoFeature(f"{PUBSUB}#{feature}") for feature in names]

    async def _items(self, requester: JID, target: JID, name: str) -> list[Any]:
        check_target(target)
        if name:
            await self._pubsub.visible(requester, target.host, name)
            return []  # nothing is kept
        nodes = await self._pubsub.owned_by(requester, target.host)
        return [DiscoItem(target, node.name, node.config.get(TITLE)) for node in nodes]


def check_target(target: JID) -> None:
    """The host itself is the service; there are no accounts on it (RFC 6121 section 8.5.1)."""
    if target.user or target.resource:
        raise StanzaError("service-unavailable")


def handlers(pubsub: PubSub) -> list[XMPPHandler]:
    """All that a pubsub host answers to, for a component of this or, over XEP-0114, of another server."""
    return [
        PubSubHandler(pubsub),
        DiscoHandler(),
        PingHandler(),
        VersionHandler("xmpppush", __version__),
        FallbackHandler(),
    ]


def pubsub_components(pubsub: PubSub, router: IRouter) -> list[IService]:
    """A component for each of its hosts, each to be given a parent service."""
    pubsub.on_gone = lambda node: router.route(revocation(node.host, node.name, node.owner))
    components: list[IService] = []
    for host in sorted(pubsub.hosts):
        component = InternalComponent(router, host)
        component.setName(f"pubsub {host}")
        for handler in handlers(pubsub):
            handler.setHandlerParent(component)
        components.append(component)
    return components
