"""Where a request goes, read once instead of with every request."""

import re
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.abstract import isIPv6Address

_PORTS = {"http": 80, "https": 443}
# Visible ASCII only: no CR, LF or space can end the request line early (RFC 9112 section 3).
_TARGET = re.compile(rb"/[!-~]*")
_AUTHORITY = re.compile(r"[^\x00-\x20\x7f/?#@\\]+")


@frozen
class Origin:
    """
    Scheme, host and port (RFC 6454 section 4).

    Attributes:
        host: In lower case, an IPv6 address without brackets.
    """

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The ``Host`` header: brackets around IPv6, no port where it is the scheme's own."""
        if isIPv6Address(self.host):
            host = f"[{IPv6Address(self.host)}]"
        else:
            host = self.host.encode("idna").decode("ascii")
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_origin(url: str) -> tuple[Origin, str]:
    """
    The origin of an absolute URL, and its path without a final slash (``""``: none).

    Raises:
        ValueError: It is no http or https URL, or holds a user name, query or fragment.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("not an http:// or https:// URL of a server")
    if not _AUTHORITY.fullmatch(parts.netloc):
        raise ValueError("a user name, space or control character in the host")
    path = parts.path.rstrip("/")
    if path and not is_target(path.encode()):
        raise ValueError("a space, control or non-ASCII character in the path")
    origin = Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])
    try:
        origin.authority  # noqa: B018 - an impossible host name is found here, not with the first push
    except UnicodeError:
        raise ValueError("not a host name") from None
    return origin, path


def is_target(target: bytes) -> bool:
    """May this stand in a request line?"""
    return _TARGET.fullmatch(target) is not None
