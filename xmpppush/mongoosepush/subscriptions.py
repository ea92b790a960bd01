"""
Web Push subscriptions, and which of them are let out.

A subscription comes from a client, so its endpoint is a wish that a server connects somewhere: what is
not on the list of push services is refused.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable
from urllib.parse import urlsplit

import orjson
from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from twisted.internet.abstract import isIPAddress, isIPv6Address

from xmpppush.errors import Refused
from xmpppush.http.origins import Origin, is_target

# The push services of the browsers; for a pool that names none.
BROWSERS = (
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "*.push.apple.com",
    "*.notify.windows.com",
)
MAX_ENDPOINT = 2048
_URL = re.compile(r"https://[!-~]+", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*")
_LISTED = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::(?P<port>[0-9]{1,5}))?"
)


class BadSubscription(Refused):
    """
    What a device id says is no subscription, or one that is not let out; the text is the API's word.

    Attributes:
        cause: For the log: what is wrong, without anything secret.
        kind: The same for all that is wrong in this way.
    """

    def __init__(self, kind: str, host: str = "") -> None:
        super().__init__("invalid_request")
        self.kind = kind
        self.cause = f"{kind}: {host}" if host else kind


@frozen
class Subscription:
    """
    Where a client is reached, and what is encrypted for it (W3C Push API; RFC 8291 section 2).

    Attributes:
        target: Path and query of its endpoint.
        key: Its public key.
        auth: Its authentication secret, 16 octets.
    """

    origin: Origin
    target: bytes = field(repr=False)
    key: EllipticCurvePublicKey = field(repr=False)
    auth: bytes = field(repr=False)


def read_subscription(device_id: str) -> Subscription:
    """
    The subscription of a device id: its JSON, ``{"endpoint": ..., "keys": {"p256dh": ..., "auth": ...}}``,
    or that in base64url.

    Further members, as browsers write them, do not matter.

    Raises:
        BadSubscription: It is none.
    """
    content = device_id.encode("utf-8", "replace")
    if not content.lstrip().startswith(b"{"):
        content = _base64(device_id) or b""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise BadSubscription("a device id is no subscription") from None
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, dict):
        raise BadSubscription("a subscription has no keys")
    origin, target = _endpoint(found.get("endpoint"))
    auth = _base64(keys.get("auth"))
    if auth is None or len(auth) != 16:
        raise BadSubscription("a subscription's 'auth' is not 16 octets")
    return Subscription(origin, target, _public_key(keys.get("p256dh")), auth)


def _public_key(text: object) -> EllipticCurvePublicKey:
    point = _base64(text)
    if point is not None and len(point) == 65:
        try:
            return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
        except ValueError:
            pass
    raise BadSubscription("a subscription's 'p256dh' is no P-256 key")


def _base64(text: object) -> bytes | None:
    """Base64url, or plain base64 as some clients write it; with or without padding."""
    if not isinstance(text, str) or not text.isascii():
        return None
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (NotBase64, ValueError):
        return None


def _endpoint(url: object) -> tuple[Origin, bytes]:
    try:
        return _parse_endpoint(url)
    except ValueError:  # UnicodeError is one, too: a label of a host name is too long
        raise BadSubscription("a subscription's endpoint is no https URL") from None


def _parse_endpoint(url: object) -> tuple[Origin, bytes]:
    if not isinstance(url, str) or len(url) > MAX_ENDPOINT or not _URL.fullmatch(url):
        raise ValueError
    # Nobody needs a user name, a fragment or a back slash there but who wants to be read in two ways.
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if "@" in parts.netloc or "\\" in url or "#" in url or parts.port == 0:
        raise ValueError
    if not _HOST.fullmatch(host) or len(host) > 253 or (":" in host and not isIPv6Address(host)):
        raise ValueError
    origin = Origin("https", host, parts.port or 443)
    target = ((parts.path or "/") + ("?" + parts.query if parts.query else "")).encode("ascii")
    if not origin.authority or not is_target(target):
        raise ValueError
    return origin, target


class AllowedHosts:
    """
    The push services that subscriptions may name.

    An entry is ``host`` or ``*.host`` (everything below it, not itself), on port 443, or ``host:port``.
    Only a host that is listed with a port and without ``*`` may lie outside the public Internet: then
    somebody meant exactly this server.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        """
        Raises:
            ValueError: An entry is none of these; the text says which.
        """
        self._exact: dict[tuple[str, int], bool] = {}
        self._below: list[tuple[str, int]] = []
        for entry in entries:
            self._add(entry)

    def _add(self, entry: str) -> None:
        found = _LISTED.fullmatch(entry.lower())
        port = int((found and found["port"]) or 443)
        if found is None or not 0 < port < 65536:
            raise ValueError(f"'{entry}' is neither host, *.host nor host:port")
        host = found["host"]
        if not host.startswith("*."):
            self._exact[(host.strip("[]"), port)] = found["port"] is not None
        elif "." not in host[2:] or host[-1].isdigit():
            raise ValueError(f"'{entry}' lets out too much; name a domain of somebody's own")
        else:
            self._below.append((host[1:], port))

    def check(self, origin: Origin) -> bool:
        """
        Is this one let out?

        Returns:
            May it lie anywhere, private networks included?

        Raises:
            BadSubscription: It is not.
        """
        anywhere = self._exact.get((origin.host, origin.port))
        if anywhere is not None:
            return anywhere
        if not (isIPAddress(origin.host) or isIPv6Address(origin.host)):
            for end, port in self._below:
                if origin.host.endswith(end) and origin.port == port:
                    return False
        raise BadSubscription("a subscription's push service is not in allowed_hosts", origin.authority)
