"""The ``sandbox`` provider: stands in for FCM and APNs and keeps what the phone would have got."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from xmpppush.config.sections import SandboxSection
from xmpppush.errors import Refused
from xmpppush.interfaces import IPushProvider
from xmpppush.model import SandboxNotification
from xmpppush.mongoosepush.health import IHasPools, PoolHealth
from xmpppush.mongoosepush.payloads import (
    apns_headers,
    apns_payload,
    fcm_message,
    webpush_content,
    webpush_headers,
)


def _apns_content(_device_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
    return {"headers": apns_headers(request), "payload": apns_payload(request)}


def _webpush_content(_device_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
    return {"headers": dict(webpush_headers(request)), "payload": webpush_content(request)}


_CONTENTS: Mapping[str, Callable[[str, Mapping[str, Any]], dict[str, Any]]] = {
    "apns": _apns_content,
    "fcm": fcm_message,
    "webpush": _webpush_content,
}


@implementer(IPushProvider, IHasPools)
class Sandbox:
    """
    Sends nothing; every well-formed notification succeeds.

    Attributes:
        notifications: The last ``capacity`` of them, oldest first: ``headers`` and ``payload`` for apns
            and webpush, ``message`` for fcm.
    """

    _log = Logger()

    def __init__(self, section: SandboxSection, clock: IReactorTime) -> None:
        self.services = tuple(section.services)
        self.notifications: deque[SandboxNotification] = deque(maxlen=section.capacity)
        self._clock = clock
        self._subscribers: list[Callable[[SandboxNotification], object]] = []

    def push(self, service: str, device_id: str, request: Mapping[str, Any]) -> Deferred[None]:
        try:
            content = _CONTENTS[service](device_id, request)
        except Refused as error:
            return fail(error)
        notification = SandboxNotification(
            service, device_id, request.get("mode", "prod"), content, self._clock.seconds()
        )
        self.notifications.append(notification)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(notification)
            except Exception:
                self._log.failure("a subscriber of the sandbox failed")
        return succeed(None)

    def subscribe(self, callback: Callable[[SandboxNotification], object]) -> Callable[[], None]:
        """
        Have ``callback`` called with every notification from now on.

        Returns:
            Call it to end that; twice does no harm.
        """
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def pools(self) -> Sequence[PoolHealth]:
        return [PoolHealth("sandbox", connected=1)]
