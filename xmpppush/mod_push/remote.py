"""
App servers elsewhere: publishes as iqs (XEP-0357 section 7) to attached components, and further away.

A publish to one is a row of the durable queue like any other push, which the bridge keeps, tries again and
gives up in the same way. Only how it is sent differs: `RemoteAppServers` does as a pool, for which a
registration is what a device is for a push service, and a pubsub host what fcm or apns is.
"""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import orjson
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element, SerializedXML

from xmpppush.errors import (
    AppServerUnreachable,
    DeviceUnregistered,
    Refused,
    TryLater,
    Unreachable,
)
from xmpppush.http.outage import Outage
from xmpppush.http_connections import Response
from xmpppush.jids import parse_jid
from xmpppush.mod_push.rules import Verdict, verdict_on_answer
from xmpppush.model import REMOTE, Delivery, Publish
from xmpppush.xep.push import publish_content

# Users choose the hosts, and each lane is looked at for every push: so only the first ones have their own.
MAX_LANES = 100
SHARED_LANES = 16

_TAKEN = Response(200)


class NoPushService:
    """The pool of a queue without a push service: what was meant for one waits."""

    trouble: str | None = None

    def post(self, path: str, body: bytes) -> "Deferred[Response]":
        return fail(TryLater("there is no [mod_push_service_mongoosepush]"))


class RemoteAppServers:
    """
    Publishes to app servers that are not in this process.

    Args:
        ask: Sends an iq; fires with its result, or fails with the answer's `StanzaError` or with
            `AppServerUnreachable`.
        reaches: Is there a way to this host, now or at some time?

    Attributes:
        trouble: ``None``: that one of them does not answer is no trouble of this server's.
        told: Is told of each ``(account, pubsub, node)`` that its app server took a publish, with
            ``None``, or why it would not; set by who has the registrations.
    """

    trouble: str | None = None

    _log = Logger()

    def __init__(
        self,
        ask: Callable[[Element], "Deferred[Element]"],
        reaches: Callable[[str], bool],
        clock: IReactorTime,
    ) -> None:
        self.told: Callable[[str, str, str, str | None], object] = lambda *_: None
        self._ask = ask
        self._reaches = reaches
        self._clock = clock
        self._lanes: dict[str, str] = {}
        self._outages: dict[str, Outage] = {}  # by pubsub host, of those with a lane of their own

    def delivery(self, publish: Publish) -> Delivery:
        """
        The row of the queue for a publish.

        Raises:
            AppServerUnreachable: There is no way to that app server.
        """
        host = parse_jid(publish.pubsub).host
        if not self._reaches(host):
            raise AppServerUnreachable(f"no way to {publish.pubsub}")
        notification = publish.notification
        # The tag is what tells which ones this may replace; what is more than a summary replaces nothing.
        tag = "" if notification.extras is not None else notification.summary.last_message_sender or ""
        body = {"tag": tag, "xml": publish_content(publish)}
        return Delivery(
            0,
            publish.account,
            publish.pubsub,
            publish.node,
            self._lane_of(host),
            # Neither of the first two can have a space in it (RFC 7622 sections 3.2 and 3.3).
            f"{publish.account} {publish.pubsub} {publish.node}",
            orjson.dumps(body),
            self._clock.seconds(),
            trace=publish.trace,
        )

    def _lane_of(self, host: str) -> str:
        lane = self._lanes.get(host)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                return f"{REMOTE}*{crc32(host.encode()) % SHARED_LANES}"
            lane = self._lanes[host] = f"{REMOTE}{host}"
        return lane

    def post(self, path: str, body: bytes) -> "Deferred[Response]":
        """
        Publish.

        Returns:
            Fires when the app server took it. Fails with `Unreachable` or `TryLater` where it may do so
            later, with `DeviceUnregistered` where it has no such node, else with `Refused`.
        """
        account, pubsub, node = path.split(" ", 2)
        iq = Element((None, "iq"))
        # The server itself publishes (section 7), so that it is the server's to be allowed to.
        iq["type"], iq["from"], iq["to"] = "set", account.partition("@")[2], pubsub
        iq.children.append(SerializedXML(orjson.loads(body)["xml"]))
        return self._ask(iq).addCallbacks(
            self._took, self._did_not, (account, pubsub, node), errbackArgs=(account, pubsub, node)
        )

    def _took(self, _answer: Element, account: str, pubsub: str, node: str) -> Response:
        self._is_well(pubsub)
        self.told(account, pubsub, node, None)
        return _TAKEN

    def _did_not(self, failure: Failure, account: str, pubsub: str, node: str) -> Any:
        error = failure.value
        if isinstance(error, AppServerUnreachable):
            self._is_troubled(pubsub, str(error))
            own_lane = parse_jid(pubsub).host in self._lanes
            # Where hosts share a lane one of them says nothing about the others.
            raise (Unreachable if own_lane else TryLater)(str(error))
        if not isinstance(error, StanzaError):
            return failure
        reason = f"{error.condition} ({error.type})"
        verdict = verdict_on_answer(error.condition, error.type)
        if verdict is Verdict.PASSING:
            self._is_troubled(pubsub, reason)
            raise TryLater(reason)
        self._is_well(pubsub)
        if verdict is Verdict.GONE:
            raise DeviceUnregistered(reason)
        self.told(account, pubsub, node, reason)
        raise Refused(reason)

    def _is_troubled(self, pubsub: str, reason: str) -> None:
        host = parse_jid(pubsub).host
        if host not in self._lanes:
            return
        if self._outages.setdefault(host, Outage()).failed(reason, self._clock.seconds()):
            self._log.warn(
                "app server {pubsub} takes no pushes: {reason}; they wait", pubsub=pubsub, reason=reason
            )

    def _is_well(self, pubsub: str) -> None:
        outage = self._outages.get(parse_jid(pubsub).host) if self._outages else None
        lasted = outage.succeeded(self._clock.seconds()) if outage is not None else None
        if lasted is not None:
            self._log.info(
                "app server {pubsub} takes pushes again after {seconds} s",
                pubsub=pubsub,
                seconds=round(lasted, 1),
            )
