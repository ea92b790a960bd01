"""
The HTTP API: ``POST /v1|v2|v3/notification/{device_id}`` and ``GET /healthcheck``.

MongoosePush's contract with a difference: what it answers with an empty 500 (no such path, wrong method,
broken JSON, too big) has its own status here, and a body that says so.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version as version_of
from typing import cast
from urllib.parse import unquote_to_bytes

import orjson
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from xmpppush.errors import DeliveryError, DeviceUnregistered, Refused, TryLater
from xmpppush.interfaces import IPushProvider
from xmpppush.mongoosepush.health import IHasPools, report
from xmpppush.mongoosepush.http_server import Answer, HTTPRequest
from xmpppush.mongoosepush.schemas import VERSIONS, InvalidRequest, Problem, read_request

# FCM's longest are some hundred characters, APNs' 64 to 200; a Web Push subscription is a few hundred.
MAX_DEVICE_ID = 4096
# MongoosePush gives a provider five seconds; a provider of ours that bounds itself answers before.
PROVIDER_TIMEOUT = 5.0


DELIVERED = Answer(200, b"null")


class NotificationAPI:
    """
    What the service does with a notification, apart from HTTP.

    Each service name belongs to the first provider that takes it.
    """

    _log = Logger()

    def __init__(self, providers: Sequence[IPushProvider], clock: IReactorTime) -> None:
        self._clock = clock
        self._providers: dict[str, IPushProvider] = {}
        for provider in providers:
            for service in provider.services:
                self._providers.setdefault(service, provider)
        self._with_pools = [each for each in map(_with_pools, providers) if each is not None]
        self._version = version_of("xmpppush")

    def notify(self, version: str, device_id: str, content: bytes) -> "Answer | Deferred[Answer]":
        """
        Check a request and hand it to its provider.

        Args:
            version: ``v1``, ``v2`` or ``v3``.
            content: The body as it came; empty counts as ``{}``.

        Returns:
            An `Answer` where it is known at once, else a Deferred that never fails.
        """
        try:
            body = orjson.loads(content) if content else {}
        except orjson.JSONDecodeError:
            return refusal(version, 400, "invalid_json")
        try:
            request = read_request(version, body)
        except InvalidRequest as error:
            return invalid(error.problems)
        service = request.pop("service")
        provider = self._providers.get(service)
        if provider is None:
            return failed(version, Refused("no_matching_pool"))
        try:
            pushed = provider.push(service, device_id, request)
        except Exception:
            return self._explain(Failure(), version)
        answered: Deferred[Answer] = pushed.addCallbacks(_delivered, self._explain, errbackArgs=(version,))
        answer = getattr(answered, "result", None)
        if isinstance(answer, Answer):
            return answer
        return answered.addTimeout(PROVIDER_TIMEOUT, self._clock)

    def health(self) -> Answer:
        """``GET /healthcheck``."""
        pools = [pool for provider in self._with_pools for pool in provider.pools()]
        status, body = report(pools, self._clock.seconds(), self._version)
        return Answer(status, orjson.dumps(body))

    def _explain(self, failure: Failure, version: str) -> Answer:
        error = failure.value
        if isinstance(error, DeliveryError):
            return failed(version, error)
        if isinstance(error, CancelledError):
            return refusal(version, 500, "request_timeout")
        self._log.failure("a push provider failed unexpectedly", failure)
        return refusal(version, 500, "internal_error")


def _delivered(_result: object) -> Answer:
    return DELIVERED


def _with_pools(provider: IPushProvider) -> IHasPools | None:
    return cast("IHasPools | None", IHasPools(provider, None))


# The words of v3 and their status; a provider error that carries none of them has its class's.
STATUS: Mapping[str, int] = {
    "invalid_request": 400,
    "no_matching_pool": 400,
    "invalid_notification": 400,
    "unregistered": 410,
    "payload_too_large": 413,
    "too_many_requests": 429,
    "service_internal": 503,
    "internal_config": 503,
    "unable_to_connect": 503,
    "connection_lost": 503,
    "request_timeout": 500,
}
_WORD_OF_CLASS: Mapping[type[DeliveryError], str] = {
    DeviceUnregistered: "unregistered",
    Refused: "invalid_request",
    TryLater: "service_internal",
}


def failed(version: str, error: DeliveryError) -> Answer:
    """The answer for what a provider raised; v1 and v2 know 500 and 503 only."""
    said = str(error)
    word = said if said in STATUS else _word_of(error)
    after = getattr(error, "after", None)
    headers = () if after is None else (("retry-after", str(max(0, math.ceil(after)))),)
    if version == "v3":
        return refusal(version, STATUS[word], word, headers)
    if word == "unable_to_connect":
        return refusal(version, 503, "Please try again later", headers)
    return refusal(version, 500, said or word, headers)


def _word_of(error: DeliveryError) -> str:
    for kind, word in _WORD_OF_CLASS.items():
        if isinstance(error, kind):
            return word
    return "service_internal"


def refusal(version: str, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """``{"reason": ...}``, as v3 says it; ``{"details": ...}``, as v1 and v2 do."""
    key = "details" if version in ("v1", "v2") else "reason"
    return Answer(status, orjson.dumps({key: reason}), headers)


def invalid(problems: Sequence[Problem]) -> Answer:
    """Status 422 with a list, in all versions."""
    return Answer(422, orjson.dumps({"errors": [problem.as_json() for problem in problems]}))


@lru_cache(maxsize=256)
def accepts(accept: str | None, *types: str) -> bool:
    """Does an ``Accept`` header take one of these media types, at any quality (RFC 9110 section 12.5.1)?"""
    if accept is None:
        return True
    ranges = {part.split(";", 1)[0].strip().lower() for part in accept.split(",")}
    wanted = {"*/*", *types, *(each.split("/")[0] + "/*" for each in types)}
    return not ranges.isdisjoint(wanted)


class PushAPI:
    """The API's paths; call it with a request."""

    def __init__(self, notifications: NotificationAPI) -> None:
        self._notifications = notifications

    def __call__(self, request: HTTPRequest) -> "Answer | Deferred[Answer]":
        """The answer, or a Deferred of it that never fails."""
        path = _segments(request)
        version = _version(path)
        if len(path) == 3 and path[1] == b"notification" and version in VERSIONS:
            return self._notification(request, version, path[2])
        if path == [b"healthcheck"]:
            return self._health(request)
        return refusal(version, 404, "not_found")

    def refuse(self, request: HTTPRequest, status: int, reason: str) -> Answer:
        """For what the HTTP server refuses, in the words of the request's version."""
        return refusal(_version(_segments(request)), status, reason)

    def _notification(
        self, request: HTTPRequest, version: str, segment: bytes
    ) -> "Answer | Deferred[Answer]":
        if request.method != "POST":
            return refusal(version, 405, "method_not_allowed", (("allow", "POST"),))
        if not accepts(request.headers.get("accept"), "application/json"):
            return refusal(version, 406, "not_acceptable")
        content_type = request.headers.get("content-type")
        if content_type is None:
            return invalid([Problem("Missing header: content-type", "/")])
        if content_type.split(";", 1)[0].strip() != "application/json":
            return invalid([Problem("Invalid value for header: content-type", "/")])
        device_id = read_device_id(segment)
        if device_id is None:
            return refusal(version, 400, "invalid_request")
        return self._notifications.notify(version, device_id, request.content)

    def _health(self, request: HTTPRequest) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return refusal("", 405, "method_not_allowed", (("allow", "GET, HEAD"),))
        if not accepts(request.headers.get("accept"), "application/json", "application/health+json"):
            return refusal("", 406, "not_acceptable")
        return self._notifications.health()


def _segments(request: HTTPRequest) -> list[bytes]:
    """Doubled and trailing slashes do not count, as in MongoosePush."""
    return [segment for segment in request.path.split(b"/") if segment]


def _version(path: list[bytes]) -> str:
    return path[0].decode("ascii", "replace") if path else ""


def read_device_id(segment: bytes) -> str | None:
    """The device id of a path segment, decoded once; ``None`` where it is too long or not UTF-8."""
    decoded = unquote_to_bytes(segment) if b"%" in segment else segment
    if len(decoded) > MAX_DEVICE_ID:
        return None
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        return None
