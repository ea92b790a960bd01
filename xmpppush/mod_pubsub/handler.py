"""
The pubsub service on the wire (XEP-0060), as components of Wokkel.

Parse, ask `PubSub`, answer. Every request gets an answer: a child that Wokkel does not know is
bad-request, an iq nobody takes is service-unavailable. Messages and presence are ignored.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
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
from xmpppush.errors import InvalidPayload, NodeIdMissing, PayloadTooBig
from xmpppush.interfaces import INodeType, IRouter
from xmpppush.jids import JID, parse_jid
from xmpppush.mod_pubsub.events import Event
from xmpppush.mod_pubsub.items import Published
from xmpppush.mod_pubsub.lookup import pushes
from xmpppush.mod_pubsub.rules import (
    MOST_PAYLOAD,
    OPTIONS,
    SUBSCRIPTION_OPTIONS,
    TITLE,
    choices_of,
)
from xmpppush.mod_pubsub.service import PubSub
from xmpppush.model import Publish
from xmpppush.xep import pubsub as xep0060
from xmpppush.xep import pubsub_answers as answers
from xmpppush.xep.conditions import error_reply, stanza_error, to_stanza_error
from xmpppush.xep.namespaces import (
    DATA_FORMS,
    DISCO_INFO,
    DISCO_ITEMS,
    PUBSUB,
    PUBSUB_NODE_CONFIG,
    PUBSUB_OWNER,
    PUBSUB_SUBSCRIBE_OPTIONS,
    PUSH,
)
from xmpppush.xep.push import parse_notification, revocation
from xmpppush.xep.xml import to_xml

FORM_MESSAGE = f"/message/x[@xmlns='{DATA_FORMS}']"


class Request(PubSubRequest):
    """
    Wokkel's request without its readers of forms and addresses.

    Those overlook a FORM_TYPE without ``type='hidden'``, fail on a repeated field and on a malformed
    JID; ``xep/pubsub.py`` reads them from `element`.
    """

    _requestVerbMap = {**PubSubRequest._requestVerbMap, ("get", PUBSUB, "default"): "defaultSubscription"}
    _parameters = {**PubSubRequest._parameters, "defaultSubscription": []}

    def _leave(self, element: Element) -> None:
        pass

    _parse_configure = _parse_configureOrNone = _parse_default = _leave
    _parse_options = _parse_optionsWithSubscribe = _parse_affiliations = _leave
    _parse_items = _parse_itemIdentifiers = _parse_maxItems = _parse_jid = _leave

    @property
    def where(self) -> tuple[JID, str, str]:
        """Who asks, at which host, about which node; ``""``: none is named."""
        return self.sender, self.recipient.host, self.nodeIdentifier or ""


class PubSubNodes(PubSubResource):
    """
    What can be done with nodes.

    A method is a coroutine, named as Wokkel names the request, and returns what is answered: an element,
    ``None``, or what Wokkel makes an element of.
    """

    def __init__(self, pubsub: PubSub, handler: "PubSubHandler") -> None:
        self._pubsub = pubsub
        self._subscriptions = pubsub.subscriptions
        self._items = pubsub.items
        self._handler = handler

    # Nodes (sections 8.1 to 8.5)

    async def create(self, request: Request) -> Element:
        iq = request.element
        config = xep0060.configuration(iq) or {}
        requester, host, name = request.where
        name = await self._pubsub.create(requester, host, name, xep0060.create_type(iq), config)
        return xep0060.create_response(name)

    async def delete(self, request: Request) -> None:
        self._handler.tell(request, await self._pubsub.delete(*request.where))

    async def default(self, request: Request) -> Element:
        type_name = xep0060.request_in(request.element).getAttribute("type")
        node_type, defaults = self._pubsub.default_configuration(type_name)
        form = configuration_form("form", defaults, node_type)
        return answers.with_form(PUBSUB_OWNER, "default", "", form)

    async def configureGet(self, request: Request) -> Element:
        node, config = await self._pubsub.configuration(*request.where)
        form = configuration_form("form", config, self._pubsub.types.get(node.type))
        return answers.with_form(PUBSUB_OWNER, "configure", node.name, form)

    async def configureSet(self, request: Request) -> None:
        config = xep0060.configuration(request.element)
        if config is not None:
            self._handler.tell(request, await self._pubsub.configure(*request.where, config))

    async def purge(self, request: Request) -> None:
        self._handler.tell(request, await self._items.purge(*request.where))

    # Affiliations (sections 5.7 and 8.9)

    async def affiliations(self, request: Request) -> list[tuple[str, str]]:
        node = xep0060.request_in(request.element).getAttribute("node")
        return await self._pubsub.affiliations_of(request.sender, request.recipient.host, node or None)

    async def affiliationsGet(self, request: Request) -> dict[JID, str]:
        found = await self._pubsub.affiliations(*request.where)
        return {parse_jid(jid): affiliation for jid, affiliation in sorted(found.items())}

    async def affiliationsSet(self, request: Request) -> None:
        changes = xep0060.affiliations(request.element)
        await self._pubsub.affiliate(*request.where, changes)

    # Items (sections 6.5, 7.1 and 7.2)

    async def publish(self, request: Request) -> Element:
        # Devices come first: who creates a node with the name of one takes nothing away from it.
        options = xep0060.publish_options(request.element)
        if await self._pubsub.is_device(request.recipient.host, request.nodeIdentifier, options):
            return await self._publish_notification(request)
        node = await self._pubsub.lookup.existing(request.recipient.host, request.nodeIdentifier)
        node_type = self._pubsub.types.get(node.type)
        if node_type is None or pushes(node_type):
            return await self._publish_notification(request)
        iq = request.element
        item, payload = xep0060.published_item(iq)
        published = Published(
            item is not None,
            (item.getAttribute("id") or None) if item is not None else None,
            payload,
            answers.payload_xml(payload) if payload is not None else "",
            xep0060.publish_options(iq),
        )
        done = await self._items.publish(request.sender, node, published, self._pubsub.item_id())
        return xep0060.publish_response(node.name, self._handler.tell(request, done))

    async def _publish_notification(self, request: Request) -> Element:
        iq = request.element
        item_id, payload = xep0060.published(iq)
        if (payload.uri, payload.name) != (PUSH, "notification"):
            raise InvalidPayload("the payload is no notification")
        check_size(iq, payload)
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

    async def retract(self, request: Request) -> None:
        self._pubsub.lookup.check_offered("persistent-items")
        item_id, notify = xep0060.retracted(request.element)
        self._handler.tell(request, await self._items.retract(*request.where, item_id, notify))

    async def items(self, request: Request) -> Element:
        self._pubsub.lookup.check_offered("retrieve-items")
        wanted = xep0060.request_in(request.element)
        ids, limit = xep0060.item_ids(wanted), xep0060.items_limit(wanted)
        found = await self._items.retrieve(*request.where, ids, limit, wanted.getAttribute("subid"))
        return answers.items(request.nodeIdentifier, found.items, found.count)

    # Subscriptions (sections 5.6, 6.1 to 6.4 and 8.8)

    async def subscribe(self, request: Request) -> Element:
        wanted = self._about_node("subscribe", request)
        options = xep0060.subscription_options(request.element)
        done = await self._subscriptions.subscribe(*request.where, xep0060.subscriber(wanted), options)
        return answers.subscription(self._handler.tell(request, done))

    async def unsubscribe(self, request: Request) -> None:
        wanted = self._about_node("subscribe", request)
        jid, subid = xep0060.subscriber(wanted), wanted.getAttribute("subid")
        await self._subscriptions.unsubscribe(*request.where, jid, subid)

    async def optionsGet(self, request: Request) -> Element:
        wanted = self._about_node("subscription-options", request)
        jid, subid = xep0060.subscriber(wanted), wanted.getAttribute("subid")
        values = await self._subscriptions.options(*request.where, jid, subid)
        answer = answers.with_form(PUBSUB, "options", request.nodeIdentifier, options_form("form", values))
        next(answer.elements())["jid"] = wanted["jid"]
        return answer

    async def optionsSet(self, request: Request) -> None:
        wanted = self._about_node("subscription-options", request)
        jid, subid = xep0060.subscriber(wanted), wanted.getAttribute("subid")
        options = xep0060.subscription_options(request.element)
        if options is not None:
            await self._subscriptions.set_options(*request.where, jid, subid, options)

    async def defaultSubscription(self, request: Request) -> Element:
        name = xep0060.request_in(request.element).getAttribute("node", "")
        values = await self._subscriptions.default_options(request.sender, request.recipient.host, name)
        return answers.with_form(PUBSUB, "default", name, options_form("form", values))

    async def subscriptions(self, request: Request) -> Element:
        node = xep0060.request_in(request.element).getAttribute("node") or None
        found = await self._subscriptions.own(request.sender, request.recipient.host, node)
        return answers.subscriptions(PUBSUB, node, found)

    async def subscriptionsGet(self, request: Request) -> Element:
        found = await self._subscriptions.of_node(*request.where)
        return answers.subscriptions(PUBSUB_OWNER, request.nodeIdentifier, found)

    async def subscriptionsSet(self, request: Request) -> None:
        self._pubsub.lookup.check_offered("manage-subscriptions")
        request.nodeIdentifier = xep0060.request_in(request.element)["node"]
        changes = xep0060.subscription_changes(request.element)
        self._handler.tell(request, await self._subscriptions.change(*request.where, changes))

    def _about_node(self, feature: str, request: Request) -> Element:
        self._pubsub.lookup.check_offered(feature)
        wanted = xep0060.request_in(request.element)
        if not wanted.getAttribute("node"):
            raise NodeIdMissing("node is missing")
        return wanted


class PubSubHandler(PubSubService):
    """
    The requests of XEP-0060, and what service discovery tells of nodes.

    Args:
        others: Nodes of service discovery that another handler knows.
    """

    def __init__(self, pubsub: PubSub, others: Container[str] = ()) -> None:
        super().__init__(PubSubNodes(pubsub, self))
        self._pubsub = pubsub
        self._others = others

    def connectionMade(self) -> None:
        super().connectionMade()
        self.xmlstream.addObserver(FORM_MESSAGE, self.on_form)

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
        if result is None or isinstance(result, Element):
            return result
        return getattr(self, f"_toResponse_{request.verb}")(result, self.resource, request)

    # Events

    def tell(self, request: Request, done: "tuple[Any, Iterable[Event]]") -> Any:
        """Send what is to be sent now that a request is done; returns what it came to."""
        result, events = done
        self._send(request.recipient.host, events)
        return result

    def _send(self, host: str, events: Iterable[Event]) -> None:
        for event in events:
            content = self._content_of(event)
            for to in event.to:
                message_id = self._pubsub.item_id()
                self.send(answers.message(to, host, event.type, message_id, content, event.stamp))

    def _content_of(self, event: Event) -> Element:
        if event.kind == "items":
            return answers.items_event(event.node, event.items, event.payloads)
        if event.kind == "retract":
            return answers.retract_event(event.node, [item.id for item in event.items])
        if event.kind == "subscription":
            return answers.subscription_event(event.node, event.jid, event.state)
        if event.kind == "authorize":
            return answers.authorization_form(event.node, event.jid)
        form = configuration_form("result", event.config, None) if event.config else None
        return answers.node_event(event.kind, event.node, form)

    def on_form(self, message: Element) -> None:
        """A message with a form: perhaps an owner decides about a subscription."""
        deciding: Deferred[None] = Deferred.fromCoroutine(self._decide(message))
        deciding.addErrback(self._undecided, message)

    async def _decide(self, message: Element) -> None:
        owner, to = parse_jid(message.getAttribute("from", "")), parse_jid(message.getAttribute("to", ""))
        decision = xep0060.decision(message) if not (to.user or to.resource) else None
        if decision is not None:
            _, events = await self._pubsub.subscriptions.decide(owner, to.host, *decision)
            self._send(to.host, events)

    def _undecided(self, failure: Failure, message: Element) -> Failure | None:
        error: BaseException = failure.value  # type: ignore[assignment]
        reply = error_reply(message, error)
        if reply is not None:
            self.send(reply)
        return failure if stanza_error(error) is None else None

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
        if name in self._others:
            return []
        if name:
            node = await self._pubsub.lookup.visible(requester, target.host, name)
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
        if name in self._others:
            return []
        if name:
            ids = await self._pubsub.items.ids(requester, target.host, name)
            return [DiscoItem(target, name=item_id) for item_id in ids]
        nodes = await self._pubsub.owned_by(requester, target.host)
        return [DiscoItem(target, node.name, node.config.get(TITLE)) for node in nodes]


def configuration_form(type: str, config: Mapping[str, str], node_type: INodeType | None) -> Element:
    """A node's configuration, to be changed (``form``) or as it is now (``result``)."""
    features = node_type.features if node_type is not None else ()
    return answers.form(
        type,
        PUBSUB_NODE_CONFIG,
        [
            answers.FormField(var, config[var], option.type, option.label, choices_of(var, features))
            for var, option in OPTIONS.items()
            if var in config
        ],
    )


def options_form(type: str, values: Mapping[str, str]) -> Element:
    """Options of a subscription."""
    return answers.form(
        type,
        PUBSUB_SUBSCRIBE_OPTIONS,
        [
            answers.FormField(var, values[var], option.type, option.label)
            for var, option in SUBSCRIPTION_OPTIONS.items()
        ],
    )


def check_size(iq: Element, payload: Element) -> None:
    """
    Is a notification small enough for any push service?

    Raises:
        PayloadTooBig: It is not (section 7.1.3.5).
    """
    octets = iq.__dict__.get("raw")  # where the stream kept them there is nothing to be counted
    if (octets is None or len(octets) > MOST_PAYLOAD) and len(to_xml(payload).encode()) > MOST_PAYLOAD:
        raise PayloadTooBig("the payload is too big")


def check_target(target: JID) -> None:
    """The host itself is the service; there are no accounts on it (RFC 6121 section 8.5.1)."""
    if target.user or target.resource:
        raise StanzaError("service-unavailable")


def handlers(pubsub: PubSub, more: Sequence[XMPPHandler] = ()) -> list[XMPPHandler]:
    """
    All that a pubsub host answers to, for a component of this or, over XEP-0114, of another server.

    Args:
        more: Further ones; what they know in service discovery is in their ``disco_nodes``.
    """
    return [
        PubSubHandler(pubsub, frozenset(node for each in more for node in each.disco_nodes)),
        *more,
        DiscoHandler(),
        PingHandler(),
        VersionHandler("xmpppush", __version__),
        FallbackHandler(),
    ]


def pubsub_components(
    pubsub: PubSub, router: IRouter, more: Callable[[str], Sequence[XMPPHandler]] = lambda _host: ()
) -> list[IService]:
    """
    A component for each of its hosts, each to be given a parent service.

    Args:
        more: Further handlers for a host, see `handlers`.
    """
    pubsub.on_gone = lambda host, node, owner: router.route(revocation(host, node, owner))
    components: list[IService] = []
    for host in sorted(pubsub.hosts):
        component = InternalComponent(router, host)
        component.setName(f"pubsub {host}")
        for handler in handlers(pubsub, more(host)):
            handler.setHandlerParent(component)
        components.append(component)
    return components
