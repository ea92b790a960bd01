"""
Apple's push service as its documentation describes it ("Sending notification requests to APNs").

HTTP/2 alone, certificate or token authentication, every header checked. What Apple knows and an emulator
cannot, which device belongs to which app, is `APNsEmulator.devices`.
"""

import re
import time
import uuid
from typing import Any

import jwt
import orjson
from attrs import define
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from twisted.internet.interfaces import IReactorTime

from xmpppush.testing.providers.base import CAPACITY, HTTP2, Emulator
from xmpppush.testing.providers.credentials import (
    DEVELOPMENT,
    PRODUCTION,
    TOPIC,
    APNsCredentials,
    Authority,
    make_apns_credentials,
    make_test_authority,
    topics_of,
)
from xmpppush.testing.providers.wire import Reply, Request

# Apple's table of error strings.
REASONS = {
    "BadCollapseId": 400,
    "BadDeviceToken": 400,
    "BadExpirationDate": 400,
    "BadMessageId": 400,
    "BadPriority": 400,
    "BadTopic": 400,
    "DeviceTokenNotForTopic": 400,
    "DuplicateHeaders": 400,
    "IdleTimeout": 400,
    "InvalidPushType": 400,
    "MissingDeviceToken": 400,
    "MissingTopic": 400,
    "PayloadEmpty": 400,
    "TopicDisallowed": 400,
    "BadCertificate": 403,
    "BadCertificateEnvironment": 403,
    "ExpiredProviderToken": 403,
    "Forbidden": 403,
    "InvalidProviderToken": 403,
    "MissingProviderToken": 403,
    "UnrelatedKeyIdInToken": 403,
    "BadEnvironmentKeyIdInToken": 403,
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "ExpiredToken": 410,
    "Unregistered": 410,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}
USUAL = {
    "400": "BadDeviceToken",
    "403": "InvalidProviderToken",
    "404": "BadPath",
    "405": "MethodNotAllowed",
    "410": "Unregistered",
    "413": "PayloadTooLarge",
    "429": "TooManyRequests",
    "500": "InternalServerError",
    "503": "ServiceUnavailable",
}
PUSH_TYPES = frozenset(
    (
        "alert",
        "background",
        "location",
        "voip",
        "complication",
        "controls",
        "fileprovider",
        "mdm",
        "liveactivity",
        "pushtotalk",
        "widgets",
    )
)
SUFFIXES = (
    ".voip",
    ".complication",
    ".pushkit.fileprovider",
    ".location-query",
    ".voip-ptt",
    ".push-type.liveactivity",
    ".push-type.widgets",
    ".push-type.controls",
)
TOKEN_LIFETIME = 3600.0
TOKEN_INTERVAL = 1200.0
MAX_PAYLOAD = 4096
MAX_VOIP_PAYLOAD = 5120
MAX_TOKEN = 200  # hexadecimal digits: Apple says up to 100 bytes
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+").fullmatch
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_NUMBER = re.compile(r"\d{1,19}").fullmatch
_OWN_HEADERS = re.compile(rb"apns-|authorization").match


class Refusal(Exception):
    """Refused with this reason of `REASONS`."""


@define
class _Token:
    """A provider token whose signature was found good."""

    key_id: str
    issued: float


@define
class _Trust:
    """What a connection has shown of itself."""

    token: str = ""
    changed: float = 0.0
    topics: tuple[str, ...] | None = None
    problem: str = ""
    established: bool = False


@define
class Device:
    """
    A device that the emulator is told of.

    Attributes:
        topic: The app that its token is for; ``""``: any.
        gone_since: When it was unregistered, seconds since 1970; ``None``: it is there.
    """

    topic: str = ""
    gone_since: float | None = None


class APNsEmulator(Emulator):
    """
    One environment of Apple's.

    Attributes:
        credentials: What clients authenticate with.
        devices: Tokens (lower case) that are special; all others are devices of the app, and there.
    """

    service = "apns"
    protocols = (HTTP2,)
    asks_for_certificate = True

    def __init__(
        self,
        authority: Authority | None = None,
        credentials: APNsCredentials | None = None,
        clock: IReactorTime | None = None,
        capacity: int = CAPACITY,
        host: str = "",
        max_streams: int = 100,
        first_streams: int = 0,
        sandbox: bool = False,
        topics: tuple[str, ...] | None = None,
        tokens_by_key: bool = False,
    ) -> None:
        """
        Args:
            authority: With the emulator's certificate; by default new ones.
            max_streams: SETTINGS_MAX_CONCURRENT_STREAMS.
            first_streams: The same until the first accepted request of a connection, as Apple starts with 1
                for token authentication; 0: no difference.
            sandbox: The development environment, in which production certificates do not count.
            topics: Apps of the team; by default that of the credentials.
            tokens_by_key: Count changes of the provider token across connections, not on each alone:
                stricter than Apple is seen to be.
        """
        self.authority = authority or make_test_authority()
        self.credentials = credentials or make_apns_credentials(self.authority)
        super().__init__(self.authority.server, clock, capacity, host)
        self.max_streams = first_streams or max_streams
        self._final_streams = max_streams
        self.devices: dict[str, Device] = {}
        self._environment = DEVELOPMENT if sandbox else PRODUCTION
        self._topics = topics or (self.credentials.topic or TOPIC,)
        self._public_key = self.credentials.key.public_key()
        self._tokens: dict[str, _Token | str] = {}
        self._shared = _Trust()
        self._tokens_by_key = tokens_by_key
        self._trust: dict[Any, _Trust] = {}

    def closed(self, connection: Any) -> None:
        self._trust.pop(connection, None)
        super().closed(connection)

    def unregister(self, token: str, since: float | None = None) -> None:
        """The app was removed from this device: 410 from now on."""
        self.devices[token.lower()] = Device(gone_since=self.now() if since is None else since)

    def token_of(self, request: Request) -> str:
        return request.path[10:].lower() if request.path.startswith("/3/device/") else ""

    def respond(self, request: Request) -> tuple[Reply, Any]:
        headers = dict(request.headers)
        try:
            content = self._check(request, headers)
        except Refusal as refusal:
            return self._refuse(str(refusal), headers, request.token), None
        identity = headers.get(b"apns-id") or str(uuid.uuid4()).upper().encode()
        given: tuple[tuple[bytes, bytes], ...] = ((b"apns-id", identity),)
        if self._environment is DEVELOPMENT:
            # For Apple's console, which shows deliveries of this environment alone.
            given += ((b"apns-unique-id", str(uuid.uuid4()).encode()),)
        return Reply(200, given), content

    def refusal(self, request: Request, word: str, retry_after: int) -> Reply:
        reason = USUAL.get(word, word)
        return self._refuse(reason, dict(request.headers), request.token, retry_after)

    def knows(self, word: str, on: str) -> bool:
        return on == "send" and (word in REASONS or word in USUAL)

    def _refuse(self, reason: str, headers: dict[bytes, bytes], token: str, retry_after: int = 0) -> Reply:
        content: dict[str, Any] = {"reason": reason}
        status = REASONS[reason]
        if status == 410:
            device = self.devices.get(token)
            gone = device.gone_since if device is not None and device.gone_since is not None else self.now()
            content["timestamp"] = int(gone * 1000)
        own = headers.get(b"apns-id", b"")
        identity = own if _UUID(own.decode("latin-1")) else str(uuid.uuid4()).upper().encode()
        given: tuple[tuple[bytes, bytes], ...] = ((b"apns-id", identity),)
        if retry_after:
            given += ((b"retry-after", b"%d" % retry_after),)
        return Reply(status, given, orjson.dumps(content), reason)

    def _check(self, request: Request, headers: dict[bytes, bytes]) -> Any:
        """The payload, of a request with nothing wrong in it; raises `Refusal`."""
        if len(headers) != len(request.headers):
            names = [name for name, _ in request.headers if _OWN_HEADERS(name)]
            if len(names) != len(set(names)):
                raise Refusal("DuplicateHeaders")
        token = self._check_path(request)
        topics = self._authenticate(request, headers)
        push_type = headers.get(b"apns-push-type", b"").decode("latin-1")
        self._check_headers(headers, push_type)
        topic = headers.get(b"apns-topic", b"").decode("latin-1")
        self._check_topic(topic, topics, push_type)
        if not request.body:
            raise Refusal("PayloadEmpty")
        if len(request.body) > (MAX_VOIP_PAYLOAD if push_type == "voip" else MAX_PAYLOAD):
            raise Refusal("PayloadTooLarge")
        try:
            content = orjson.loads(request.body)
        except ValueError:
            raise Refusal("PayloadEmpty") from None
        if not isinstance(content, dict):
            raise Refusal("PayloadEmpty")
        if not _HEX(token) or len(token) > MAX_TOKEN:
            raise Refusal("BadDeviceToken")
        if self.devices:
            self._check_device(token.lower(), topic)
        return content

    def _check_path(self, request: Request) -> str:
        if not request.path.startswith("/3/device/"):
            if request.path.rstrip("/") == "/3/device":
                raise Refusal("MissingDeviceToken")
            raise Refusal("BadPath")
        if request.method != "POST":
            raise Refusal("MethodNotAllowed")
        token = request.path[10:]
        if not token:
            raise Refusal("MissingDeviceToken")
        return token

    def _check_headers(self, headers: dict[bytes, bytes], push_type: str) -> None:
        get = headers.get
        if push_type not in PUSH_TYPES and b"apns-push-type" in headers:
            raise Refusal("InvalidPushType")
        if get(b"apns-priority", b"10") not in (b"1", b"5", b"10"):
            raise Refusal("BadPriority")
        if not _NUMBER(get(b"apns-expiration", b"0").decode("latin-1")):
            raise Refusal("BadExpirationDate")
        if len(get(b"apns-collapse-id", b"")) > 64:
            raise Refusal("BadCollapseId")
        if b"apns-id" in headers and not _UUID(headers[b"apns-id"].decode("latin-1")):
            raise Refusal("BadMessageId")

    def _check_topic(self, topic: str, allowed: tuple[str, ...] | None, push_type: str) -> None:
        """``allowed``: those of the certificate, ``None`` with a token: those of the team."""
        if not topic:
            if allowed is None or len(allowed) != 1:
                raise Refusal("MissingTopic")
            topic = allowed[0]
        if allowed is not None:
            if topic not in allowed:
                raise Refusal("TopicDisallowed")
        elif topic not in self._topics:
            base = next((topic[: -len(each)] for each in SUFFIXES if topic.endswith(each)), "")
            if base not in self._topics:
                raise Refusal("TopicDisallowed")
        if push_type == "voip" and not topic.endswith(".voip"):
            # A device has another token for calls.
            raise Refusal("DeviceTokenNotForTopic")

    def _check_device(self, token: str, topic: str) -> None:
        device = self.devices.get(token)
        if device is None:
            return
        if device.gone_since is not None:
            raise Refusal("Unregistered")
        if device.topic and topic and topic != device.topic:
            raise Refusal("DeviceTokenNotForTopic")

    # Who asks.

    def _authenticate(self, request: Request, headers: dict[bytes, bytes]) -> tuple[str, ...] | None:
        """The topics that the certificate allows, ``None`` with a token."""
        connection: Any = request.connection
        trust = self._trust.get(connection)
        if trust is None:
            trust = self._trust[connection] = self._judge(connection.certificate)
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        if authorization:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise Refusal("InvalidProviderToken")
            self._check_token(token, trust)
            topics = None
        elif trust.problem:
            raise Refusal(trust.problem)
        else:
            topics = trust.topics
        if not trust.established:
            trust.established = True
            connection.limit_streams(self._final_streams)
        return topics

    def _judge(self, certificate: x509.Certificate | None) -> _Trust:
        if certificate is None:
            return _Trust(problem="MissingProviderToken")
        now = self.now()
        try:
            certificate.verify_directly_issued_by(self.authority.authority.certificate)
        except (InvalidSignature, ValueError, TypeError):
            return _Trust(problem="BadCertificate")
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start.timestamp() <= now < end.timestamp():
            return _Trust(problem="BadCertificate")
        try:
            certificate.extensions.get_extension_for_oid(self._environment)
        except x509.ExtensionNotFound:
            return _Trust(problem="BadCertificateEnvironment")
        return _Trust(topics=topics_of(certificate))

    def _check_token(self, token: str, trust: _Trust) -> None:
        known = self._tokens.get(token)
        if known is None:
            if len(self._tokens) > 10_000:
                self._tokens.clear()
            known = self._tokens[token] = self._verify(token)
        if isinstance(known, str):
            raise Refusal(known)
        now = self.now()
        if not -TOKEN_LIFETIME / 12 <= now - known.issued <= TOKEN_LIFETIME:
            raise Refusal("ExpiredProviderToken")
        memory = self._shared if self._tokens_by_key else trust
        if memory.token != token:
            if memory.token and now - memory.changed < TOKEN_INTERVAL:
                raise Refusal("TooManyProviderTokenUpdates")
            memory.token, memory.changed = token, now

    def _verify(self, token: str) -> _Token | str:
        """The token, or what is wrong with it whenever it comes."""
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                self._public_key,
                algorithms=["ES256"],
                # Apple has its own idea of time, and so have tests.
                options={"verify_iat": False, "verify_exp": False, "verify_nbf": False, "verify_aud": False},
            )
        except jwt.PyJWTError:
            return "InvalidProviderToken"
        if header.get("kid") != self.credentials.key_id or claims.get("iss") != self.credentials.team_id:
            return "InvalidProviderToken"
        issued = claims.get("iat")
        if isinstance(issued, bool) or not isinstance(issued, int | float):
            return "InvalidProviderToken"
        return _Token(header["kid"], float(issued))


def sign_token(credentials: APNsCredentials, issued: float | None = None) -> str:
    """A provider token, for tests that ask the emulator themselves."""
    claims = {"iss": credentials.team_id, "iat": int(time.time() if issued is None else issued)}
    return jwt.encode(claims, credentials.key, algorithm="ES256", headers={"kid": credentials.key_id})
