"""
A Web Push service (RFC 8030) and the browsers behind it, which can read what they are sent (RFC 8291).

Stricter than the real ones in this: a message that its subscription cannot decrypt is refused, and VAPID
(RFC 8292) is asked for always, with a ``sub``.
"""

import base64
import re
import secrets
from typing import Any

import jwt
import orjson
from attrs import define, field
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.interfaces import IReactorTime

from xmpppush.testing.providers.base import CAPACITY, Emulator
from xmpppush.testing.providers.credentials import Authority, make_test_authority
from xmpppush.testing.providers.wire import Reply, Request

MAX_BODY = 4096  # RFC 8291 section 4 asks every service to take that much
MAX_VAPID_LIFETIME = 24 * 3600.0  # RFC 8292 section 2
KEPT_RECORD = 18  # the smallest record that holds anything: delimiter, tag and one octet
REASONS = {
    "BadTTL": 400,
    "BadTopic": 400,
    "BadUrgency": 400,
    "BadEncoding": 400,
    "Undecryptable": 400,
    "MissingVapid": 401,
    "BadVapid": 403,
    "BadVapidAudience": 403,
    "BadVapidExpiry": 403,
    "BadVapidSubject": 403,
    "BadVapidKey": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "Gone": 410,
    "PayloadTooLarge": 413,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
}
USUAL = {
    "400": "BadEncoding",
    "401": "MissingVapid",
    "403": "BadVapid",
    "404": "NotFound",
    "410": "Gone",
    "413": "PayloadTooLarge",
    "429": "TooManyRequests",
    "500": "InternalServerError",
    "503": "ServiceUnavailable",
}
RETRY_AFTER = {"TooManyRequests": 30, "ServiceUnavailable": 10}
_TTL = re.compile(r"\d{1,10}").fullmatch
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}").fullmatch
_VAPID = re.compile(r"\s*(t|k)\s*=\s*\"?([A-Za-z0-9_.=-]+)\"?\s*").fullmatch


class Refusal(Exception):
    """Refused with this reason of `REASONS`."""


class Undecryptable(ValueError):
    """Not a message for this subscription; the text says why."""


@define
class Subscription:
    """
    A browser's.

    Attributes:
        name: The last part of its endpoint, and the token of what is received.
        endpoint: Where messages for it are sent.
        auth: The secret that it shares with its application server.
        application_key: The VAPID key that it was made for, as ``k`` is written; ``""``: any.
        gone: Was it ended by the user?
    """

    name: str
    endpoint: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    auth: bytes = field(repr=False)
    application_key: str = ""
    gone: bool = False

    @property
    def public_key(self) -> bytes:
        return point_of(self.key.public_key())

    @property
    def json(self) -> str:
        """As ``PushSubscription.toJSON()`` in a browser: the device id for the push service."""
        keys = {"p256dh": to_base64(self.public_key), "auth": to_base64(self.auth)}
        content = {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}
        return orjson.dumps(content).decode()

    def decrypt(self, body: bytes) -> bytes:
        """
        What ``body`` says to this subscription (RFC 8188 with one record, RFC 8291 section 3.4).

        Raises:
            Undecryptable: Nothing.
        """
        if len(body) < 21 + 65 + KEPT_RECORD - 1:
            raise Undecryptable("too short")
        salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, record = body[21 : 21 + length], body[21 + length :]
        if length != 65:
            raise Undecryptable("the key id is no P-256 key")
        if size < KEPT_RECORD or len(record) > size:
            raise Undecryptable("more than one record")
        try:
            public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        except ValueError:
            raise Undecryptable("the key id is no point of P-256") from None
        shared = self.key.exchange(ec.ECDH(), public)
        secret = _derive(shared, self.auth, b"WebPush: info\x00" + self.public_key + sender, 32)
        key = _derive(secret, salt, b"Content-Encoding: aes128gcm\x00", 16)
        nonce = _derive(secret, salt, b"Content-Encoding: nonce\x00", 12)
        try:
            padded = AESGCM(key).decrypt(nonce, record, None)
        except InvalidTag:
            raise Undecryptable("another key, or a damaged message") from None
        content = padded.rstrip(b"\x00")
        if not content.endswith(b"\x02"):
            raise Undecryptable("no delimiter of a last record")
        return content[:-1]


def _derive(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)


class WebPushEmulator(Emulator):
    """
    A push service, and as many subscriptions as are asked for.

    Attributes:
        subscriptions: By name.
    """

    service = "webpush"

    def __init__(
        self,
        authority: Authority | None = None,
        clock: IReactorTime | None = None,
        capacity: int = CAPACITY,
        host: str = "",
        max_streams: int = 100,
    ) -> None:
        self.authority = authority or make_test_authority()
        super().__init__(self.authority.server, clock, capacity, host)
        self.max_streams = max_streams
        self.subscriptions: dict[str, Subscription] = {}
        self._keys: dict[tuple[str, str], dict[str, Any] | str] = {}

    def subscribe(self, name: str = "", application_key: str = "") -> Subscription:
        """
        A new subscription; after `listen`.

        Args:
            name: For its endpoint; by default one that nobody guesses.
            application_key: The VAPID key, base64url, that alone may send to it (RFC 8292 section 4).
        """
        name = name or secrets.token_urlsafe(24)
        made = Subscription(
            name,
            f"{self.origin}/push/{name}",
            ec.generate_private_key(ec.SECP256R1()),
            secrets.token_bytes(16),
            application_key,
        )
        self.subscriptions[name] = made
        return made

    @property
    def origin(self) -> str:
        """``https://host:port``, the audience of VAPID tokens."""
        return f"https://{self.endpoint}"

    def token_of(self, request: Request) -> str:
        return request.path[6:] if request.path.startswith("/push/") else ""

    def knows(self, word: str, on: str) -> bool:
        return on == "send" and (word in REASONS or word in USUAL)

    def respond(self, request: Request) -> tuple[Reply, Any]:
        try:
            content = self._check(request)
        except Refusal as refusal:
            return _refuse(str(refusal)), None
        location = f"{self.origin}/message/{secrets.token_urlsafe(16)}"
        ttl = request.header(b"ttl").encode("latin-1")
        return Reply(201, ((b"location", location.encode()), (b"ttl", ttl))), content

    def refusal(self, request: Request, word: str, retry_after: int) -> Reply:
        return _refuse(USUAL.get(word, word), retry_after)

    def _check(self, request: Request) -> str | None:
        """What the browser reads; ``None`` for a message without content."""
        subscription = self.subscriptions.get(request.token)
        if subscription is None:
            raise Refusal("NotFound")
        if request.method != "POST":
            raise Refusal("MethodNotAllowed")
        if subscription.gone:
            raise Refusal("Gone")
        self._authenticate(request.header(b"authorization"), subscription)
        if not _TTL(request.header(b"ttl")):
            raise Refusal("BadTTL")
        if (request.header(b"urgency") or "normal") not in ("very-low", "low", "normal", "high"):
            raise Refusal("BadUrgency")
        topic = request.header(b"topic")
        if topic and not _TOPIC(topic):
            raise Refusal("BadTopic")
        if len(request.body) > MAX_BODY:
            raise Refusal("PayloadTooLarge")
        if not request.body:
            return None
        if request.header(b"content-encoding") != "aes128gcm":
            raise Refusal("BadEncoding")
        try:
            return subscription.decrypt(request.body).decode("utf-8", "replace")
        except Undecryptable:
            raise Refusal("Undecryptable") from None

    def _authenticate(self, authorization: str, subscription: Subscription) -> None:
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() != "vapid":
            raise Refusal("MissingVapid")
        found = [_VAPID(part) for part in rest.split(",")]
        values = {each[1]: each[2] for each in found if each is not None}
        if None in found or values.keys() != {"t", "k"}:
            raise Refusal("BadVapid")
        if subscription.application_key not in ("", values["k"]):
            raise Refusal("BadVapidKey")
        claims = self._keys.get((values["t"], values["k"]))
        if claims is None:
            if len(self._keys) > 10_000:
                self._keys.clear()
            claims = self._keys[values["t"], values["k"]] = _verify(values["t"], values["k"])
        if isinstance(claims, str):
            raise Refusal(claims)
        if claims.get("aud") != self.origin:
            raise Refusal("BadVapidAudience")
        end = claims.get("exp")
        if not isinstance(end, int | float) or not 0 < end - self.now() <= MAX_VAPID_LIFETIME:
            raise Refusal("BadVapidExpiry")
        if not str(claims.get("sub", "")).startswith(("mailto:", "https:")):
            raise Refusal("BadVapidSubject")


def _verify(token: str, key: str) -> dict[str, Any] | str:
    """The claims, or what is wrong with the token whenever it comes."""
    options: Any = {"verify_iat": False, "verify_exp": False, "verify_nbf": False, "verify_aud": False}
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), from_base64(key))
    except ValueError:
        return "BadVapidKey"
    try:
        return jwt.decode(token, public, algorithms=["ES256"], options=options)
    except jwt.PyJWTError:
        return "BadVapid"


def _refuse(reason: str, retry_after: int = 0) -> Reply:
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    seconds = retry_after or RETRY_AFTER.get(reason, 0)
    if seconds:
        headers += ((b"retry-after", b"%d" % seconds),)
    content = orjson.dumps({"code": REASONS[reason], "error": reason})
    return Reply(REASONS[reason], headers, content, reason)


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """65 octets (X9.62, uncompressed)."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def to_base64(octets: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def from_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def vapid_header(
    key: ec.EllipticCurvePrivateKey, audience: str, expires: float, subject: str = "mailto:ops@example.org"
) -> str:
    """``authorization`` for tests that ask the emulator themselves."""
    token = jwt.encode({"aud": audience, "exp": int(expires), "sub": subject}, key, algorithm="ES256")
    return f"vapid t={token}, k={to_base64(point_of(key.public_key()))}"
