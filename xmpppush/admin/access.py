"""Who may see what a listener of type http shows: pure decisions."""

from base64 import b64decode
from hmac import compare_digest
from ipaddress import ip_address

from attrs import field, frozen

LOOPBACK_HOSTS = ("localhost", "localhost.", "")


@frozen
class Caller:
    """
    What a request tells of where it comes from.

    Attributes:
        address: IP address of the peer; ``None`` on a unix socket, whose file says who may connect.
        host: The Host header without its port, ``""`` where there is none.
        proxied: It came through a proxy: the peer is not where it began.
        authorization: The Authorization header.
    """

    address: str | None
    host: str = ""
    proxied: bool = False
    authorization: str = field(default="", repr=False)


@frozen
class Refusal:
    """Status and reason of the answer, for people."""

    status: int
    error: str
    reason: str


NOT_LOCAL = Refusal(403, "forbidden", "without [admin] password this is for the machine itself alone")
NO_PASSWORD = Refusal(401, "unauthorized", "the password is [admin] password; any user name will do")


def refusal_for(caller: Caller, password: str) -> Refusal | None:
    """
    Why this caller gets nothing but ``/health``, ``None`` where it may see everything.

    Args:
        password: ``[admin] password``; empty: callers on this machine alone.
    """
    if password:
        return None if has_password(caller.authorization, password) else NO_PASSWORD
    return None if is_local(caller) else NOT_LOCAL


def is_local(caller: Caller) -> bool:
    """
    Does the request begin on this machine?

    A proxy on this machine speaks for the whole world. And a web page of the world can have a browser on
    this machine ask us, once its own name points to 127.0.0.1 (DNS rebinding): the Host header then still
    has that name.
    """
    if caller.proxied:
        return False
    if caller.address is None:
        return True
    return _is_loopback(caller.address) and (
        caller.host.lower() in LOOPBACK_HOSTS
        or caller.host.lower().endswith(".localhost")
        or _is_loopback(caller.host)
    )


def has_password(authorization: str, password: str) -> bool:
    """Is it Basic (RFC 7617) with that password? Takes the same time whatever differs."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return False
    return compare_digest(given, password.encode("utf-8"))


def _is_loopback(text: str) -> bool:
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
