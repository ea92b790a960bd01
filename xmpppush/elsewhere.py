"""
mod_push's way to app servers that are not in this process: over s2s, or attached as components.

A publish is a row of the same durable queue as all notifications, and waits in it like those: tried again
with back-off, in order for each registration, one per sender kept while it fails, each app server with a
circuit breaker of its own. So one that is down for an hour costs nobody a push, and no registration.
"""

from collections.abc import Callable, Collection
from random import Random
from typing import Any

import orjson
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.words.protocols.jabber import error as xmpp_error
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.config.sections import BridgeSection
from xmpppush.errors import (
    BadStanza,
    NodeNotFound,
    PushError,
    Refused,
    TryLater,
)
from xmpppush.http_connections import Response
from xmpppush.interfaces import IElsewhere, IMessageStore, ITrace
from xmpppush.jids import parse_jid
from xmpppush.mod_push.publisher import Publisher
from xmpppush.mod_push_service_mongoosepush.service import PAGE, MongoosePushBridge
from xmpppush.model import ELSEWHERE, Delivery, Publish
from xmpppush.server.requests import Requests
from xmpppush.trace import NO_TRACE, Decision
from xmpppush.xep.push import publish_content

RETRY_BASE, RETRY_CAP, TTL = 1.0, 60.0, 86400.0  # seconds
MAX_OUTAGES = 1000  # app servers whose trouble is remembered: users choose them
_TOOK_IT = Response(200)


class AppServerError(Refused):
    """
    The app server answered an error that says something about the registration.

    Attributes:
        gone: It has no such node.
    """

    def __init__(self, reason: str, gone: bool) -> None:
        super().__init__(reason)
        self.gone = gone


class _NoPool:
    """There is no push service behind this queue."""

    trouble: str | None = None

    def post(self, path: str, body: bytes) -> "Deferred[Response]":
        return fail(TryLater("no such way"))


@implementer(IElsewhere)
class PublishQueue(MongoosePushBridge):
    """
    Publishes to app servers elsewhere.

    Attributes:
        publisher: Told what they answer.
    """

    name = "publishes"
    refused_line = "app server refused a notification for node {node}: {reason}; it is lost"
    trouble_line = "app server {service} takes no notifications: {reason}; they wait"
    well_line = "app server {service} takes notifications again after {seconds} s"
    publisher: Publisher | None = None

    def __init__(
        self,
        requests: Requests,
        can_reach: Callable[[str], bool],
        own: Collection[str],
        messages: IMessageStore,
        clock: Any,
        random: Random,
        workers: int = 100,
        trace: ITrace = NO_TRACE,
        collapse: bool = True,
    ) -> None:
        """
        Args:
            can_reach: Is there a way to this domain?
            own: The domains of this process.
            workers: Requests without an answer at the most.
        """
        super().__init__(
            BridgeSection(
                pool_name="",
                max_http_connections=workers,
                retry_base=RETRY_BASE,
                retry_cap=RETRY_CAP,
                ttl=TTL,
            ),
            _NoPool(),
            messages,
            clock,
            random,
            lambda _: None,
            services=("xmpp",),
            trace=trace,
            collapse=collapse,
        )
        self._requests = requests
        self._can_reach = can_reach
        self._own = frozenset(own)

    def reaches(self, pubsub: str) -> bool:
        """See `IElsewhere.reaches`."""
        try:
            host: str = parse_jid(pubsub).host
        except BadStanza:
            return False
        return host not in self._own and self._can_reach(host)

    def prepare(self, publish: Publish, created: float) -> Delivery:
        """See `IElsewhere.prepare`."""
        # The tag is what `collapse_key` looks for.
        sender = publish.notification.summary.last_message_sender or ""
        body = {"tag": sender, "xml": publish_content(publish)}
        return Delivery(
            0,
            publish.account,
            publish.pubsub,
            publish.node,
            f"{ELSEWHERE}{parse_jid(publish.pubsub).host}",
            f"{publish.account} {publish.pubsub} {publish.node}",
            orjson.dumps(body),
            created,
            trace=publish.trace,
        )

    # What is other than with a push service.

    def _page(self, behind: int) -> "Deferred[tuple[Delivery, ...]]":
        page: Deferred[tuple[Delivery, ...]] = self._messages.queued(behind, PAGE, True)
        return page

    def _post_for_app(self, service: str) -> "Callable[[str, bytes], Deferred[Response]]":
        return self._publish

    def _publish(self, path: str, body: bytes) -> "Deferred[Response]":
        account, pubsub, _ = path.split(" ", 2)
        iq = Element((None, "iq"))
        iq["type"], iq["from"], iq["to"] = "set", account.partition("@")[2], pubsub
        iq.addRawXml(orjson.loads(body)["xml"])
        return self._requests.ask(iq).addCallback(_outcome)

    def _has_answer(self, response: Response, delivery: Delivery) -> None:
        super()._has_answer(response, delivery)
        if self.publisher is not None:
            self.publisher.taken_elsewhere(delivery.account, delivery.pubsub, delivery.node, delivery.trace)

    def _has_none(self, failure: Failure, delivery: Delivery) -> None:
        error: Any = failure.value
        if isinstance(error, AppServerError):
            if self._outages:
                self._is_well(delivery.service)
            self._conclude(delivery, error)
            if self.publisher is not None:
                told: PushError = NodeNotFound("no such node") if error.gone else error
                self.publisher.refused_elsewhere(
                    delivery.account, delivery.pubsub, delivery.node, delivery.trace, told
                )
            self._pump()
            self._check_stopped()
            return
        if isinstance(error, TryLater):
            if len(self._outages) >= MAX_OUTAGES:
                del self._outages[next(iter(self._outages))]
            self._is_troubled(delivery.service, error)
        super()._has_none(failure, delivery)

    def _count(self, delivery: Delivery, outcome: str) -> None:
        self.by_service["xmpp", outcome] += 1

    def _note(
        self, delivery: Delivery, decision: Decision, reason: str, attempt: int, **fields: object
    ) -> None:
        if decision is Decision.DELIVERED:
            reason = "the app server took it"
        super()._note(delivery, decision, reason, attempt, **fields)


def _outcome(answer: Element) -> Response:
    """
    What an app server's answer means (XEP-0357 section 7, PEERS on what servers answer).

    Raises:
        TryLater: It asks to try again.
        AppServerError: It does not take it.
    """
    if answer.attributes.get("type") == "result":
        return _TOOK_IT
    try:
        found = xmpp_error.exceptionFromStanza(answer)
        condition, kind = str(found.condition), str(found.type)
    except Exception:  # an error without an <error/>, or with nonsense in it
        condition, kind = "undefined-condition", "cancel"
    if kind == "wait":
        raise TryLater(condition)
    raise AppServerError(condition, condition == "item-not-found")
