"""``[mongoosepush:fcm:NAME]``: Firebase Cloud Messaging by its HTTP v1 API."""

import random as chance
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.config.sections import FCMPoolSection
from xmpppush.errors import ConfigError, DeliveryError, DeviceUnregistered, Refused, TryLater
from xmpppush.http.agent import AnswerCut, PooledAgent
from xmpppush.http.client import post_head
from xmpppush.http.origins import Origin, parse_origin
from xmpppush.http.proxy import EndpointFactory
from xmpppush.http.responses import BufferedResponse, parse_retry_after
from xmpppush.mongoosepush.google_oauth import GoogleTokens, read_service_account
from xmpppush.mongoosepush.health import PoolHealth
from xmpppush.mongoosepush.payloads import fcm_message, fcm_size
from xmpppush.mongoosepush.pools import IPool
from xmpppush.mongoosepush.provider import REQUEST_TIMEOUT, STOP_TIME, Reach, Remarks

HOST = "fcm.googleapis.com"
MAX_PAYLOAD = 4096  # octets
# While something is wrong that the next notification would tell, one that nobody gets is checked by FCM
# so often (seconds): whoever goes by /healthcheck may have sent the real ones elsewhere.
PROBE_INTERVAL = 30.0
_PROBE = orjson.dumps({"validate_only": True, "message": {"token": "probe", "data": {}}})
# Google's advice for a 429 that says nothing itself.
QUOTA_WAIT = 60.0

UNREGISTERED, UNAUTHENTICATED, PERMISSION_DENIED = "UNREGISTERED", "UNAUTHENTICATED", "PERMISSION_DENIED"
# FCM's words (google.firebase.fcm.v1.FcmError, else google.rpc.Code) and what they are here.
OUTCOMES: Mapping[str, tuple[type[DeliveryError], str]] = {
    UNREGISTERED: (DeviceUnregistered, "unregistered"),
    "NOT_FOUND": (DeviceUnregistered, "unregistered"),
    "INVALID_ARGUMENT": (Refused, "invalid_request"),
    "QUOTA_EXCEEDED": (TryLater, "too_many_requests"),
    "RESOURCE_EXHAUSTED": (TryLater, "too_many_requests"),
    "UNAVAILABLE": (TryLater, "service_internal"),
    "INTERNAL": (TryLater, "service_internal"),
    "SENDER_ID_MISMATCH": (TryLater, "service_internal"),
    "THIRD_PARTY_AUTH_ERROR": (TryLater, "service_internal"),
    "APNS_AUTH_ERROR": (TryLater, "service_internal"),
    UNAUTHENTICATED: (TryLater, "internal_config"),
    PERMISSION_DENIED: (TryLater, "internal_config"),
}
_REMARKS = {
    "SENDER_ID_MISMATCH": "devices of another Firebase project register here; check the app's project",
    "THIRD_PARTY_AUTH_ERROR": "FCM cannot reach iOS or browsers: bad credentials in the Firebase console",
    "APNS_AUTH_ERROR": "FCM cannot reach iOS: the APNs key in the Firebase console is missing or bad",
    "INVALID_ARGUMENT": "FCM finds notifications invalid; mostly a device token that is none",
    "QUOTA_EXCEEDED": "FCM says that its quota is used up",
    "RESOURCE_EXHAUSTED": "FCM says that its quota is used up",
}
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_WORD = re.compile(r"[A-Z][A-Z0-9_]{0,60}")


@implementer(IPool)
class FCMPool:
    """
    Notifications to one Firebase project.

    Over HTTP/1.1, with up to ``connections`` at a time; what finds none free waits, ``max_waiting`` of them
    at the most.
    """

    service = "fcm"

    def __init__(
        self,
        section: FCMPoolSection,
        reactor: Any,
        *,
        endpoints: EndpointFactory | None = None,
        max_waiting: int = 10_000,
        random: Callable[[], float] = chance.random,
        endpoint_for: Any = None,
    ) -> None:
        """
        Args:
            endpoints: The way to a host, through a proxy for instance.
            random: 0.0 to 1.0.
            endpoint_for: An `Origin` to the client endpoint for it, for tests.

        Raises:
            ConfigError: A key cannot be used; one line.
        """
        self.name = section.name
        self.mode = section.mode
        self.tags = frozenset(section.tags)
        where = f"[mongoosepush:fcm:{section.name}]"
        account = read_service_account(section.appfile, f"{where} appfile")
        self._origin = _origin(section.endpoint, where)
        self._clock = reactor
        self._agent = PooledAgent(
            reactor,
            max_idle=section.connections,
            max_connections=section.connections,
            timeout=REQUEST_TIMEOUT,
            ca_file=section.ca_file,
            endpoint_to=endpoints,
            endpoint_for=endpoint_for,
        )
        try:
            self._connections = self._agent.pool(self._origin)
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            raise ConfigError([f"{where} ca_file: {section.ca_file}: {what}"]) from error
        self._target = f"/v1/projects/{account.project_id}/messages:send".encode("ascii")
        self._tokens = GoogleTokens(account, section.name, self._agent, reactor, random)
        self._head_of: tuple[bytes, bytes] = (b"", b"")
        self._limit = section.connections + max_waiting
        self._pending = 0
        self._denied = False
        self._reach = Reach(self.service, self.name, self._origin.authority, reactor)
        self._remarks = Remarks(self.service, self.name, reactor)
        self._probe: IDelayedCall | None = None
        self._stopping = False

    def start(self) -> None:
        self._tokens.start()

    def stop(self) -> "Deferred[None]":
        self._stopping = True
        self._tokens.stop()
        if self._probe is not None and self._probe.active():
            self._probe.cancel()
        return self._agent.close(STOP_TIME)

    def push(self, device_id: str, request: Mapping[str, object]) -> "Deferred[None]":
        if self._pending >= self._limit:
            return fail(TryLater("too_many_requests"))
        try:
            body = read_body(device_id, request)
        except Refused:
            return fail()
        token = self._tokens.current
        self._pending += 1
        if token is not None:
            sent = self._send(token, body)
        else:
            sent = self._tokens.get().addCallback(self._send, body)
        return sent.addBoth(self._over)

    def health(self) -> PoolHealth:
        """Connections are made when they are needed, so none at all is one as long as all is well."""
        if not self._well:
            return PoolHealth(self.name, connected=0, disconnected=max(1, self._connections.open_count))
        return PoolHealth(self.name, connected=max(1, self._connections.open_count))

    def expires(self) -> float | None:
        return None

    @property
    def _well(self) -> bool:
        return self._tokens.well and not self._denied and not self._reach.lost

    def _over(self, result: Any) -> Any:
        self._pending -= 1
        return result

    def _send(self, token: bytes, body: bytes, again: bool = True) -> "Deferred[Any]":
        known, head = self._head_of
        if known is not token:
            lines = (b"Authorization: " + token, b"Content-Type: application/json")
            head = post_head(self._origin, self._target, lines)
            self._head_of = (token, head)
        answered: Deferred[Any] = self._agent.exchange(
            self._connections, b"%s%d\r\n\r\n%s" % (head, len(body), body)
        )
        return answered.addCallbacks(self._answered, self._unanswered, callbackArgs=(token, body, again))

    def _answered(
        self, response: BufferedResponse, token: bytes, body: bytes, again: bool
    ) -> "Deferred[Any] | None":
        self._reach.answered()
        if response.code == 200:
            self._accepted()
            return None
        word = word_of(response)
        if word == UNAUTHENTICATED:
            self._tokens.reject(token)
            self._watch()
            if again:
                return self._tokens.get().addCallback(self._send, body, False)
        elif word == PERMISSION_DENIED:
            self._denied = True
            self._watch()
            cause = cause_of(response)
            self._remarks.say(word, f"FCM does not let the account of 'appfile' send ({cause})")
        elif response.code < 500:
            self._accepted()
        if body is _PROBE:
            return None
        if word in _REMARKS:
            self._remarks.say(word, _REMARKS[word])
        elif word not in OUTCOMES:
            self._remarks.say("other", f"FCM answers HTTP {response.code} {word}".rstrip())
        raise error_of(response.code, word, self._retry_after(response))

    def _retry_after(self, response: BufferedResponse) -> float | None:
        after = parse_retry_after(response.header(b"retry-after"), self._clock.seconds())
        return QUOTA_WAIT if after is None and response.code == 429 else after

    def _unanswered(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, AnswerCut) and error.code == 200:
            return  # it is sent, whatever FCM wanted to say about it
        told = self._reach.failed(failure)
        self._watch()
        raise told

    def _accepted(self) -> None:
        self._denied = False
        self._tokens.accepted()

    def _watch(self) -> None:
        """Find out when all is well again, even if nobody sends anything."""
        if self._probe is None and not self._stopping:
            self._probe = self._clock.callLater(PROBE_INTERVAL, self._try_out)

    def _try_out(self) -> None:
        self._probe = None
        if self._well:
            return
        token = self._tokens.current
        if token is not None:
            self._send(token, _PROBE, False).addErrback(_ignored)
        self._watch()


def _ignored(failure: Failure) -> None:
    failure.trap(DeliveryError)


def _origin(endpoint: str, where: str) -> Origin:
    try:
        origin, path = parse_origin(f"https://{endpoint or HOST}")
        if path:
            raise ValueError("a path")
    except ValueError as error:
        raise ConfigError([f"{where} endpoint: {error}; give host or host:port"]) from error
    return origin


def read_body(device_id: str, request: Mapping[str, Any]) -> bytes:
    """
    The JSON of a notification.

    Raises:
        Refused: ``invalid_notification``, ``payload_too_large``, or a text that is not Unicode.
    """
    message = fcm_message(device_id, request)
    try:
        body = orjson.dumps(message)
    except TypeError:  # half a surrogate pair
        raise Refused("invalid_request") from None
    if len(body) > MAX_PAYLOAD and fcm_size(message) > MAX_PAYLOAD:
        raise Refused("payload_too_large")
    return body


def word_of(response: BufferedResponse) -> str:
    """FCM's word for a failure: a detail's ``errorCode``, else ``status``; empty where it has none."""
    error = _error_in(response.body)
    for detail in _details(error):
        if detail.get("@type") == _FCM_ERROR and _is_word(detail.get("errorCode")):
            return str(detail["errorCode"])
    status = error.get("status")
    if _is_word(status):
        return str(status)
    return UNAUTHENTICATED if response.code == 401 else ""


def cause_of(response: BufferedResponse) -> str:
    """Google's word for why something is not permitted, such as ``SERVICE_DISABLED``."""
    for detail in _details(_error_in(response.body)):
        if detail.get("@type") == _ERROR_INFO and _is_word(detail.get("reason")):
            return str(detail["reason"])
    return PERMISSION_DENIED


def _error_in(body: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = content.get("error") if isinstance(content, dict) else None
    return error if isinstance(error, dict) else {}


def _details(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []


def _is_word(value: object) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def error_of(code: int, word: str, after: float | None) -> DeliveryError:
    """
    What a failure is to the API.

    A word that nobody knows goes by the status: ours to mend (4xx), or Google's (5xx).
    """
    kind, text = OUTCOMES.get(word) or _by_status(code)
    error = TryLater(text, after) if kind is TryLater else kind(text)
    if word in OUTCOMES:
        error.provider_word = word
    return error


def _by_status(code: int) -> tuple[type[DeliveryError], str]:
    if code == 429:
        return TryLater, "too_many_requests"
    if code >= 500:
        return TryLater, "service_internal"
    if code in (400, 413):
        return Refused, "invalid_request"
    # Not of FCM's making: a proxy's or a wrong endpoint's, which is no fault of the notification.
    return TryLater, "internal_config"
