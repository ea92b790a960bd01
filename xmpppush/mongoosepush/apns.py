"""APNs: a pool of HTTP/2 connections to Apple with one certificate or key."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.certificates import Credentials
from xmpppush.config.sections import APNsPoolSection
from xmpppush.errors import ConfigError, DeliveryError, Refused, TryLater, Unreachable
from xmpppush.http.responses import BufferedResponse, parse_retry_after
from xmpppush.http.tls import client_tls
from xmpppush.http2.client import AnswerCut, HTTP2Client, NoAnswer, QueueFull
from xmpppush.http2.connection import ALPN
from xmpppush.http2.headers import pack
from xmpppush.mongoosepush.apns_answers import MEANINGS, OTHER, error_of, read_reason
from xmpppush.mongoosepush.apns_certificate import client_credentials, label_of, token_key, topic_of
from xmpppush.mongoosepush.health import PoolHealth
from xmpppush.mongoosepush.payloads import apns_fields, apns_payload, is_topic
from xmpppush.mongoosepush.pools import IPool
from xmpppush.mongoosepush.provider_token import ProviderToken

HOSTS = {"prod": "api.push.apple.com", "dev": "api.sandbox.push.apple.com"}
# Apple's limits in bytes of JSON.
MAX_PAYLOAD, MAX_VOIP_PAYLOAD = 4096, 5120
# Below the push service's own five seconds, so that the answer says what went wrong.
REQUEST_TIMEOUT = 4.5
CONNECT_TIMEOUT = 4.0
ATTEMPT_DELAY = 0.05  # seconds until the next address of a name is tried, too
DRAIN_TIME = 4.0
MAX_PATH = 4096
# One line about each kind of trouble in so many seconds.
QUIET = 600.0

EndpointFor = Callable[[str, int], IStreamClientEndpoint]

_METHOD = (b":method", b"POST")
_SCHEME = (b":scheme", b"https")
_TAIL = pack([(b"content-type", b"application/json"), (b"accept", b"application/json")])
_VOIP = (b"apns-push-type", b"voip")
_WANTED = frozenset((b"retry-after",))
_PLAIN = re.compile(r"[0-9A-Za-z_~-]{1,512}")


@implementer(IPool)
class APNsPool:
    """
    One ``[mongoosepush:apns:NAME]`` at work.

    Attributes:
        default_topic: The configured one, else that of the certificate, else ``""``.
    """

    service = "apns"
    _log = Logger()

    def __init__(
        self,
        section: APNsPoolSection,
        clock: Any,
        random: Callable[[], float],
        *,
        max_waiting: int = 10_000,
        endpoint_for: EndpointFor | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        """
        Args:
            clock: The reactor.
            random: 0.0 to 1.0; spreads the attempts to connect.
            max_waiting: Requests that wait for a free stream; more are told ``too_many_requests``.
            endpoint_for: A byte stream to host and port, through a proxy say; ``None``: TCP.
            now: The system's clock, which providers compare with theirs; ``None``: ``clock``'s.

        Raises:
            ConfigError: Certificate, key or ``ca_file`` cannot be used; one line says what to do.
        """
        self.name = section.name
        self.mode = section.mode
        self.tags = frozenset(section.tags)
        self._clock = clock
        self._now = now = now or clock.seconds
        self._label = label = label_of(section)
        credentials = client_credentials(section, datetime.fromtimestamp(now(), UTC))
        self._certificate = None if credentials is None else credentials.certificate
        self._token: ProviderToken | None = None
        if credentials is None and section.p8_file is not None:
            key = token_key(section.p8_file, label)
            self._token = ProviderToken(key, section.key_id, section.team_id, now)
        self.default_topic = section.default_topic or (
            "" if self._certificate is None else topic_of(self._certificate)
        )
        if not is_topic(self.default_topic):
            raise ConfigError([f"{label} default_topic: a topic has no spaces and only ASCII characters"])
        host, port = _address(section)
        # What all requests have in common; RFC 9113 section 8.3 wants the pseudo-headers first.
        self._head = pack([_METHOD, _SCHEME, (b":authority", _host_header(host))])
        endpoint = (endpoint_for or self._tcp)(host, port)
        self._client = HTTP2Client(
            label,
            clock,
            endpoint,
            _tls(host, section, credentials, label),
            random=random,
            connections=section.connections,
            timeout=REQUEST_TIMEOUT,
            max_waiting=max_waiting,
            wanted=_WANTED,
        )
        self._refused = ""
        self._told: dict[str, float] = {}

    def _tcp(self, host: str, port: int) -> IStreamClientEndpoint:
        return HostnameEndpoint(self._clock, host, port, timeout=CONNECT_TIMEOUT, attemptDelay=ATTEMPT_DELAY)

    def start(self) -> None:
        self._client.start()

    def stop(self) -> "Deferred[None]":
        return self._client.close(DRAIN_TIME)

    def health(self) -> PoolHealth:
        connected, disconnected = self._client.connected, self._client.disconnected
        if self._refused:
            return PoolHealth(self.name, 0, connected + disconnected)
        return PoolHealth(self.name, connected, disconnected)

    def expires(self) -> float | None:
        return None if self._certificate is None else self._certificate.not_valid_after_utc.timestamp()

    def push(self, device_id: str, request: Mapping[str, Any]) -> "Deferred[None]":
        try:
            path = path_of(device_id)
            fields = apns_fields(request, self.default_topic, self._now)
            body = _json(request)
            if len(body) > MAX_PAYLOAD and (fields[0] != _VOIP or len(body) > MAX_VOIP_PAYLOAD):
                raise Refused("payload_too_large")
        except Refused as error:
            return fail(error)
        block = b"".join((self._head, pack(((b":path", path), *fields)), _TAIL))
        return self._send(block, body, first=True)

    def _send(self, block: bytes, body: bytes, first: bool) -> "Deferred[None]":
        """
        Args:
            block: All headers but the token's.
            first: Another token may be tried if this one is refused.
        """
        token = b"" if self._token is None else self._token.header()
        answered = self._client.request(block + token, body)
        sent: Deferred[None] = answered.addCallbacks(
            self._answered, self._not_answered, callbackArgs=(block, body, token if first else b"")
        )
        return sent

    def _answered(
        self, response: BufferedResponse, block: bytes, body: bytes, token: bytes
    ) -> "Deferred[None] | None":
        if response.code == 200:
            if self._refused:
                self._accepted()
            return None
        reason = read_reason(response.body)
        expired = reason == "ExpiredProviderToken"
        if expired and token and self._token is not None and self._token.replace(token):
            return self._send(block, body, first=False)
        meaning = MEANINGS.get(reason)
        if meaning is not None and meaning.credentials:
            if self._refused != reason:
                self._tell(reason)
            self._refused = reason
        else:
            if self._refused and reason:
                self._accepted()
            self._tell(reason or f"status {response.code} without a reason")
        after = None
        if response.raw_headers:
            given = next((value for name, value in response.raw_headers if name == b"retry-after"), None)
            after = parse_retry_after(given, self._now())
        raise error_of(response.code, reason, after)

    def _accepted(self) -> None:
        self._refused = ""
        self._log.info("{name}: APNs takes its credentials again", name=self._label)

    def _tell(self, reason: str) -> None:
        """One line, if there was none about this kind of answer for a while."""
        now = self._clock.seconds()
        if now < self._told.get(reason, float("-inf")) + QUIET:
            return
        if len(self._told) >= 2 * len(MEANINGS):
            self._told.clear()
        self._told[reason] = now
        meaning = MEANINGS.get(reason)
        hint = meaning.hint if meaning is not None else ""
        if meaning is not None and meaning.word == "unregistered":
            return
        self._log.warn(
            "{name}: APNs answers {reason}{hint}",
            name=self._label,
            reason="a reason that is new to us" if reason == OTHER else reason,
            hint=f": {hint}" if hint else "",
        )

    def _not_answered(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, DeliveryError):
            failure.raiseException()  # cancelled
        if isinstance(error, AnswerCut) and error.code == 200:
            return  # Apple took it, whatever it wanted to add
        word = _word_of(error)
        if not isinstance(error, Unreachable):  # whose connections tell themselves
            self._tell(str(error))
        raise (Unreachable if isinstance(error, Unreachable) else TryLater)(
            word, getattr(error, "after", None)
        ) from None


def _word_of(error: BaseException | None) -> str:
    if isinstance(error, Unreachable):
        return "unable_to_connect"
    if isinstance(error, QueueFull):
        return "too_many_requests"
    if isinstance(error, NoAnswer):
        return "request_timeout"
    return "connection_lost"


def _json(request: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(apns_payload(request))
    except TypeError:  # 2**64, a lone surrogate: only from a caller within this process
        raise Refused("invalid_request") from None


def path_of(device_id: str) -> bytes:
    """
    The request path; whatever the id holds stays in its last segment.

    Raises:
        Refused: It is empty, a dot segment (RFC 3986 section 5.2.4), or too long.
    """
    if _PLAIN.fullmatch(device_id):
        return b"/3/device/" + device_id.encode("ascii")
    path = b"/3/device/" + quote(device_id, safe="", errors="replace").encode("ascii")
    if device_id in ("", ".", "..") or len(path) > MAX_PATH:
        raise Refused("invalid_request")
    return path


def _address(section: APNsPoolSection) -> tuple[str, int]:
    usual = 2197 if section.use_2197 else 443
    endpoint = section.endpoint
    if not endpoint:
        return HOSTS[section.mode], usual
    host, colon, port = endpoint.rpartition(":")
    if colon and port.isdigit() and not (":" in host and not host.endswith("]")):
        return host.strip("[]"), int(port)
    return endpoint.strip("[]"), usual


def _host_header(host: str) -> bytes:
    """Without the port, as MongoosePush sends it."""
    return f"[{host}]".encode() if ":" in host else host.encode("idna")


def _tls(
    host: str, section: APNsPoolSection, credentials: Credentials | None, label: str
) -> IOpenSSLClientConnectionCreator:
    try:
        return client_tls(host, section.ca_file, True, (ALPN,), credentials)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
    except ValueError as error:
        problem = str(error)
    raise ConfigError([f"{label} ca_file: {section.ca_file}: {problem}"])
