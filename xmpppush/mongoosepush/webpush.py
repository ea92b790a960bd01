"""
``[mongoosepush:webpush:NAME]``: Web Push (RFC 8030), encrypted (RFC 8291), with VAPID (RFC 8292).

UnifiedPush endpoints are such push services, too.
"""

from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.config.sections import WebPushPoolSection
from xmpppush.errors import ConfigError, DeliveryError, DeviceUnregistered, Refused, TryLater
from xmpppush.http.addresses import PublicReactor
from xmpppush.http.agent import AnswerCut, PooledAgent
from xmpppush.http.client import post_head
from xmpppush.http.origins import Origin
from xmpppush.http.proxy import EndpointFactory, endpoint_factory
from xmpppush.http.responses import BufferedResponse, parse_retry_after
from xmpppush.http.tls import client_tls
from xmpppush.mongoosepush.health import PoolHealth
from xmpppush.mongoosepush.payloads import webpush_content, webpush_headers
from xmpppush.mongoosepush.pools import IPool
from xmpppush.mongoosepush.provider import REQUEST_TIMEOUT, STOP_TIME, Reach, Remarks
from xmpppush.mongoosepush.subscriptions import (
    BROWSERS,
    AllowedHosts,
    BadSubscription,
    Subscription,
    read_subscription,
)

# RFC 8291 section 4: 4096 octets less header, padding delimiter and tag.
MAX_PLAINTEXT = 3993
TOKEN_LIFETIME = 12 * 3600  # seconds; RFC 8292 section 2 allows a day
TOKEN_RENEWAL = 11 * 3600
# With "*.host" a client may name any number of them; the oldest are forgotten.
MAX_SERVICES = 256

# RFC 8030 sections 5 and 7.3, RFC 8292 section 2; the rest goes by its hundred.
OUTCOMES: Mapping[int, tuple[type[DeliveryError], str]] = {
    400: (Refused, "invalid_request"),
    401: (TryLater, "internal_config"),
    403: (TryLater, "internal_config"),
    404: (DeviceUnregistered, "unregistered"),
    408: (TryLater, "service_internal"),
    410: (DeviceUnregistered, "unregistered"),
    413: (Refused, "payload_too_large"),
    429: (TryLater, "too_many_requests"),
}

Encrypt = Callable[[bytes, Subscription], bytes]


class _PushService:
    """One push service: its connections, and who we are to it."""

    def __init__(self, agent: PooledAgent, origin: Origin, reach: Reach) -> None:
        self.agent = agent
        self.origin = origin
        self.connections = agent.pool(origin)
        self.reach = reach
        self.authorization = b""
        self.renew_at = float("-inf")


@implementer(IPool)
class WebPushPool:
    """
    Notifications to Web Push subscriptions, under one VAPID key.

    A device id is a subscription's JSON, or that in base64url. ``connections`` is for each push service.
    """

    service = "webpush"

    def __init__(
        self,
        section: WebPushPoolSection,
        reactor: Any,
        *,
        endpoints: EndpointFactory | None = None,
        max_waiting: int = 10_000,
        endpoint_for: Any = None,
    ) -> None:
        """
        Args:
            endpoints: The way to a host through a proxy, which has to judge itself where names lead to.
                Without, only public addresses are connected to, but for hosts listed with their port.
            endpoint_for: An `Origin` to the client endpoint for it, for tests.

        Raises:
            ConfigError: A key cannot be used, or http_ece is missing; one line.
        """
        self.name = section.name
        self.mode = section.mode
        self.tags = frozenset(section.tags)
        where = f"[mongoosepush:webpush:{section.name}]"
        self._encrypt = _encryption(where)
        self._key = _read_key(section, where)
        self._subject = _subject(section, where)
        try:
            self._allowed = AllowedHosts(section.allowed_hosts or BROWSERS)
        except ValueError as error:
            raise ConfigError([f"{where} allowed_hosts: {error}"]) from error
        try:
            client_tls("localhost", section.ca_file, verify=True)
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            raise ConfigError([f"{where} ca_file: {section.ca_file}: {what}"]) from error
        public_key = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.public_key = urlsafe_b64encode(public_key).decode("ascii").rstrip("=")
        self._clock = reactor

        def agent(way: EndpointFactory) -> PooledAgent:
            return PooledAgent(
                reactor,
                max_idle=section.connections,
                max_connections=section.connections,
                timeout=REQUEST_TIMEOUT,
                ca_file=section.ca_file,
                endpoint_to=way,
                endpoint_for=endpoint_for,
            )

        public = endpoints or endpoint_factory(PublicReactor(reactor), None, REQUEST_TIMEOUT)
        self._public = agent(public)
        self._anywhere = agent(endpoints or endpoint_factory(reactor, None, REQUEST_TIMEOUT))
        self._services: OrderedDict[Origin, _PushService] = OrderedDict()
        self._limit = section.connections + max_waiting
        self._pending = 0
        self._remarks = Remarks(self.service, self.name, reactor)

    def start(self) -> None:
        """Nobody is known to connect to yet."""

    def stop(self) -> "Deferred[None]":
        closed = self._public.close(STOP_TIME)
        return closed.addCallback(lambda _: self._anywhere.close(STOP_TIME))

    def push(self, device_id: str, request: Mapping[str, object]) -> "Deferred[None]":
        if self._pending >= self._limit:
            return fail(TryLater("too_many_requests"))
        try:
            subscription = read_subscription(device_id)
            service = self._service(subscription.origin)
            body = self._encrypt(read_content(request), subscription)
        except BadSubscription as error:
            self._remarks.say(error.kind, error.cause)
            return fail(Refused(str(error)))
        except Refused:
            return fail()
        self._pending += 1
        sent = self._send(service, subscription.target, webpush_headers(request), body)
        return sent.addBoth(self._over)

    def health(self) -> PoolHealth:
        """Connections are made when they are needed; a push service that is down is not the pool."""
        count = sum(service.connections.open_count for service in self._services.values())
        return PoolHealth(self.name, connected=max(1, count))

    def expires(self) -> float | None:
        return None

    def _over(self, result: Any) -> Any:
        self._pending -= 1
        return result

    def _service(self, origin: Origin) -> _PushService:
        service = self._services.get(origin)
        if service is not None:
            self._services.move_to_end(origin)
            return service
        agent = self._anywhere if self._allowed.check(origin) else self._public
        reach = Reach(self.service, self.name, origin.authority, self._clock)
        service = self._services[origin] = _PushService(agent, origin, reach)
        if len(self._services) > MAX_SERVICES:
            _, oldest = self._services.popitem(last=False)
            oldest.agent.discard(oldest.origin)
        return service

    def _authorization(self, service: _PushService) -> bytes:
        now = self._clock.seconds()
        if now >= service.renew_at:
            token = vapid_token(self._key, str(service.origin), self._subject, now)
            service.authorization = f"Authorization: vapid t={token}, k={self.public_key}".encode("ascii")
            service.renew_at = now + TOKEN_RENEWAL
        return service.authorization

    def _send(
        self, service: _PushService, target: bytes, headers: list[tuple[str, str]], body: bytes
    ) -> "Deferred[None]":
        lines = (
            self._authorization(service),
            b"Content-Encoding: aes128gcm",
            b"Content-Type: application/octet-stream",
            *[f"{name}: {value}".encode("ascii") for name, value in headers],
        )
        head = post_head(service.origin, target, lines)
        answered: Deferred[Any] = service.agent.exchange(
            service.connections, b"%s%d\r\n\r\n%s" % (head, len(body), body)
        )
        return answered.addCallbacks(
            self._answered, self._unanswered, callbackArgs=(service,), errbackArgs=(service,)
        )

    def _answered(self, response: BufferedResponse, service: _PushService) -> None:
        service.reach.answered()
        code = response.code
        if 200 <= code < 300:
            return
        host = service.origin.authority
        if code in (401, 403):
            service.renew_at = float("-inf")
            self._remarks.say(
                f"HTTP {code}",
                f"{host} answers HTTP {code}: it does not take our VAPID key or subject, or subscriptions "
                "were made with another key",
            )
        elif code not in OUTCOMES:
            self._remarks.say(f"HTTP {code}", f"{host} answers HTTP {code}")
        raise error_of(code, parse_retry_after(response.header(b"retry-after"), self._clock.seconds()))

    def _unanswered(self, failure: Failure, service: _PushService) -> None:
        error = failure.value
        if isinstance(error, AnswerCut) and 200 <= error.code < 300:
            return
        raise service.reach.failed(failure)


def error_of(code: int, after: float | None) -> DeliveryError:
    """What a push service's status is to the API; redirects are not followed, so they are our fault."""
    kind, word = OUTCOMES.get(code, (Refused, "invalid_request"))
    if code >= 500:
        kind, word = TryLater, "service_internal"
    return TryLater(word, after) if kind is TryLater else kind(word)


def read_content(request: Mapping[str, Any]) -> bytes:
    """
    What is encrypted.

    Raises:
        Refused: ``payload_too_large``, or a text that is not Unicode.
    """
    try:
        content = orjson.dumps(webpush_content(request))
    except TypeError:  # half a surrogate pair
        raise Refused("invalid_request") from None
    if len(content) > MAX_PLAINTEXT:
        raise Refused("payload_too_large")
    return content


def vapid_token(key: EllipticCurvePrivateKey, audience: str, subject: str, now: float) -> str:
    """A JWT for one push service (RFC 8292 section 2)."""
    claims = {"aud": audience, "exp": int(now) + TOKEN_LIFETIME, "sub": subject}
    return jwt.encode(claims, key, algorithm="ES256")


def _encryption(where: str) -> Encrypt:
    # An optional dependency: nobody else loads it. (pywebpush, the usual library, would bring requests and
    # aiohttp; this is what it encrypts with.)
    try:
        import http_ece  # type: ignore[import-untyped]
    except ImportError:
        problem = "Web Push needs the library http_ece: pip install 'xmpppush[webpush]'"
        raise ConfigError([f"{where} {problem}"]) from None

    def encrypt(content: bytes, subscription: Subscription) -> bytes:
        sealed: bytes = http_ece.encrypt(
            content,
            private_key=generate_private_key(SECP256R1()),
            dh=subscription.key,
            auth_secret=subscription.auth,
            version="aes128gcm",
        )
        return sealed

    return encrypt


def _read_key(section: WebPushPoolSection, where: str) -> EllipticCurvePrivateKey:
    path = section.vapid_key_file
    try:
        key: Any = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ConfigError([f"{where} vapid_key_file: {path}: {error.strerror}"]) from error
    except Exception:  # cryptography has several, and some quote what they read
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        fix = "make one: openssl ecparam -name prime256v1 -genkey -noout -out FILE"
        raise ConfigError([f"{where} vapid_key_file: {path}: not a P-256 private key in PEM; {fix}"])
    return key


def _subject(section: WebPushPoolSection, where: str) -> str:
    if not section.subject.startswith(("mailto:", "https://")):
        raise ConfigError([f"{where} subject: '{section.subject}' is neither mailto:... nor https://..."])
    return section.subject
