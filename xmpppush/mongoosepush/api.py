"""
The HTTP API: ``POST /v1|v2|v3/notification/{device_id}``, and what there is to read.

MongoosePush's contract with a difference: what it answers with an empty 500 (no such path, wrong method,
broken JSON, too big) has its own status here, and a body that says so.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version as version_of
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import orjson
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from xmpppush.errors import DeliveryError, DeviceUnregistered, Refused, TryLater
from xmpppush.interfaces import IPushProvider
from xmpppush.mongoosepush.api_keys import APIKeys, OverQuota, Unauthorized
from xmpppush.mongoosepush.health import IHasPools, report
from xmpppush.mongoosepush.http_server import Answer, HTTPRequest
from xmpppush.mongoosepush.metrics import CONTENT_TYPE as METRICS_TYPE
from xmpppush.mongoosepush.metrics import PushServiceCollector, SendTimes, exposition
from xmpppush.mongoosepush.openapi import openapi
from xmpppush.mongoosepush.page import POLICY, render
from xmpppush.mongoosepush.pools import Pools
from xmpppush.mongoosepush.schemas import VERSIONS, InvalidRequest, Problem, read_request

# FCM's longest are some hundred characters, APNs' 64 to 200; a Web Push subscription is a few hundred.
MAX_DEVICE_ID = 4096
# MongoosePush gives a provider five seconds; a provider of ours that bounds itself answers before.
PROVIDER_TIMEOUT = 5.0
# Seconds that a timer is late by when something held the process up, and that an answer may then come late.
STALL, MAX_GRACE = 0.1, 1.0


DELIVERED = Answer(200, b"null")


class NotificationAPI:
    """
    What the service does with a notification, apart from HTTP.

    Each service name belongs to the first provider that takes it.
    """

    _log = Logger()

    def __init__(self, providers: Sequence[IPushProvider], clock: IReactorTime) -> None:
        self._clock = clock
        self._patience = _Patience(clock)
        self.times = SendTimes()
        self._providers: dict[str, IPushProvider] = {}
        for provider in providers:
            for service in provider.services:
                self._providers.setdefault(service, provider)
        self._with_pools = [each for each in map(_with_pools, providers) if each is not None]
        self.version = version_of("xmpppush")
        self.collector = PushServiceCollector(self.times, self._all_pools)

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
        start = self._clock.seconds()
        if provider is None:
            self.times.failed(service, None, "no_matching_pool", 0.0)
            return failed(version, Refused("no_matching_pool"))
        try:
            pushed = provider.push(service, device_id, request)
        except Exception:
            return self._explain(Failure(), version, service, start)
        answered: Deferred[Answer] = pushed.addCallbacks(
            self._delivered, self._explain, (service, start), errbackArgs=(version, service, start)
        )
        answer = getattr(answered, "result", None)
        if isinstance(answer, Answer):
            return answer
        return self._patience.limited(answered)

    def health(self) -> Answer:
        """``GET /healthcheck``."""
        pools = [pool for provider in self._with_pools for pool in provider.pools()]
        status, body = report(pools, self._clock.seconds(), self.version)
        return Answer(status, orjson.dumps(body))

    def now(self) -> float:
        """Of the service's clock."""
        return self._clock.seconds()

    def _all_pools(self) -> Iterator[Any]:
        """Those that are `IPool`."""
        for provider in self._with_pools:
            if isinstance(provider, Pools):
                yield from provider

    def _delivered(self, _result: object, service: str, start: float) -> Answer:
        self.times.delivered(service, self._clock.seconds() - start)
        return DELIVERED

    def _explain(self, failure: Failure, version: str, service: str, start: float) -> Answer:
        error, took = failure.value, self._clock.seconds() - start
        if isinstance(error, DeliveryError):
            word = word_of(error)
            self.times.failed(service, error, word, 0.0 if word == "no_matching_pool" else took)
            return failed(version, error)
        word = "request_timeout" if isinstance(error, CancelledError) else "internal_error"
        self.times.failed(service, None, word, took)
        if word == "internal_error":
            self._log.failure("a push provider failed unexpectedly", failure)
        return refusal(version, 500, word)


class _Patience:
    """Gives answers up after `PROVIDER_TIMEOUT`; later, where we are late ourselves."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # All have the same time, so one timer is enough: the oldest is always the next to run out of it.
        self._deadlines: dict[Deferred[Answer], float] = {}
        self._timer: IDelayedCall | None = None

    def limited(self, answered: "Deferred[Answer]") -> "Deferred[Answer]":
        """This one, cancelled if it takes too long; one that copes with that by an answer."""
        self._deadlines[answered] = self._clock.seconds() + PROVIDER_TIMEOUT
        if self._timer is None:
            self._timer = self._clock.callLater(PROVIDER_TIMEOUT, self._look)
        return answered.addCallback(self._done, answered)

    def _done(self, answer: Answer, answered: "Deferred[Answer]") -> Answer:
        self._deadlines.pop(answered, None)
        if not self._deadlines and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return answer

    def _look(self) -> None:
        self._timer = None
        late = self._clock.seconds() - next(iter(self._deadlines.values()))
        if late < STALL:
            self._give_up()
        else:
            # The reactor stood still, and runs its timers before it reads the answers that came: what is
            # given up now would be sent twice. The pool, which sees to that, comes first.
            self._timer = self._clock.callLater(min(late, MAX_GRACE) + MAX_GRACE, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for answered in [each for each, deadline in self._deadlines.items() if deadline <= now]:
            if self._deadlines.pop(answered, None) is not None:
                answered.cancel()
        if self._deadlines and self._timer is None:
            left = next(iter(self._deadlines.values())) - now
            self._timer = self._clock.callLater(max(0.0, left), self._look)


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
    word = word_of(error)
    after = getattr(error, "after", None)
    headers = () if after is None else (("retry-after", str(max(0, math.ceil(after)))),)
    if version == "v3":
        return refusal(version, STATUS[word], word, headers)
    if word == "unable_to_connect":
        return refusal(version, 503, "Please try again later", headers)
    return refusal(version, 500, error.provider_word or str(error) or word, headers)


def word_of(error: DeliveryError) -> str:
    """The one of `STATUS` that says what the error is."""
    said = str(error)
    if said in STATUS:
        return said
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

    def __init__(self, notifications: NotificationAPI, keys: APIKeys | None = None) -> None:
        """
        Args:
            keys: Who may send, and read the metrics; ``None``: everybody.
        """
        self._notifications = notifications
        self._keys = keys
        self._pages: Mapping[bytes, Callable[[], Answer]] = {
            b"healthcheck": notifications.health,
            b"metrics": self._metrics,
            b"swagger.json": self._document,
            b"swaggerui": self._page,
        }

    def __call__(self, request: HTTPRequest) -> "Answer | Deferred[Answer]":
        """The answer, or a Deferred of it that never fails."""
        path = _segments(request)
        version = _version(path)
        if len(path) == 3 and path[1] == b"notification" and version in VERSIONS:
            return self._notification(request, version, path[2])
        if len(path) == 1 and path[0] in self._pages:
            return self._get(request, path[0])
        return refusal(version, 404, "not_found")

    def refuse(self, request: HTTPRequest, status: int, reason: str) -> Answer:
        """For what the HTTP server refuses, in the words of the request's version."""
        return refusal(_version(_segments(request)), status, reason)

    def _notification(
        self, request: HTTPRequest, version: str, segment: bytes
    ) -> "Answer | Deferred[Answer]":
        if request.method != "POST":
            return refusal(version, 405, "method_not_allowed", (("allow", "POST"),))
        if self._keys is not None:
            refused = self._refused(self._keys, request, version)
            if refused is not None:
                return refused
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

    def _refused(
        self, keys: APIKeys, request: HTTPRequest, version: str, counts: bool = True
    ) -> Answer | None:
        """The answer to who has no key or sends too much; ``None``: it may go on."""
        try:
            client = keys.identify(request.headers.get("authorization"))
            if counts:
                keys.admit(client, self._notifications.now())
        except Unauthorized:
            return refusal(version, 401, "unauthorized", (("www-authenticate", 'Bearer realm="xmpppush"'),))
        except OverQuota as error:
            return refusal(version, 429, "too_many_requests", (("retry-after", str(error.after)),))
        return None

    def _get(self, request: HTTPRequest, name: bytes) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return refusal("", 405, "method_not_allowed", (("allow", "GET, HEAD"),))
        if not accepts(request.headers.get("accept"), *_MEDIA_TYPES[name]):
            return refusal("", 406, "not_acceptable")
        if name == b"metrics" and self._keys is not None:
            refused = self._refused(self._keys, request, "", counts=False)
            if refused is not None:
                return refused
        return self._pages[name]()

    def _metrics(self) -> Answer:
        return Answer(200, exposition(self._notifications.collector), content_type=METRICS_TYPE)

    def _document(self) -> Answer:
        return Answer(200, orjson.dumps(openapi(self._notifications.version)))

    def _page(self) -> Answer:
        page = render(openapi(self._notifications.version))
        headers = (("content-security-policy", POLICY), ("x-content-type-options", "nosniff"))
        return Answer(200, page, headers, b"text/html; charset=utf-8")


_MEDIA_TYPES: Mapping[bytes, tuple[str, ...]] = {
    b"healthcheck": ("application/json", "application/health+json"),
    b"metrics": ("text/plain", "application/openmetrics-text"),
    b"swagger.json": ("application/json",),
    b"swaggerui": ("text/html",),
}


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
