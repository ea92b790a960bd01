"""
Ways to a host: straight, or through an HTTP proxy by CONNECT (RFC 9110 section 9.3.6).

Both are a function from host and port to a client endpoint, for whatever is spoken over it: TLS is put
on top by the caller, with the host's own name, so the proxy sees where a connection goes and nothing else.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from attrs import field, frozen
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.errors import Unreachable
from xmpppush.http.reasons import explain

EndpointFactory = Callable[[str, int], IStreamClientEndpoint]

# After so many seconds the next address of a name is tried, too: "localhost" is often ::1 first and
# the server on 127.0.0.1.
ATTEMPT_DELAY = 0.05
TIMEOUT = 5.0
MAX_HEAD = 8 * 1024  # bytes of a proxy's answer

_STATUS = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?![0-9])")
# The whole of what urlsplit() forgives: control characters, back slashes and blanks.
_WRITTEN = re.compile(r"http://[!-~]+", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9_.:-]+")
FORM = "not http://[user:password@]host:port"
_CAUSES = {
    403: ": it does not let us connect there",
    405: ": it has no CONNECT",
    502: ": it cannot reach the host",
    503: ": it cannot reach the host",
    504: ": it cannot reach the host",
}


@frozen
class Proxy:
    """An HTTP proxy, and who we are to it; ``user`` is empty where it does not ask."""

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return _authority(self.host, self.port)


def parse_proxy(text: str) -> Proxy | None:
    """
    ``http://[user:password@]host:port``; user and password percent-encoded where they need it.

    Returns:
        ``None`` for an empty text: no proxy.

    Raises:
        ValueError: It is something else; the text says what, and holds nothing of the password.
    """
    if not text:
        return None
    if text.lower().startswith("https://"):
        raise ValueError(f"{FORM} (TLS is spoken with the provider, through the proxy)")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(FORM) from None
    host = parts.hostname or ""
    if not _WRITTEN.fullmatch(text) or not _HOST.fullmatch(host) or not port:
        raise ValueError(FORM)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(FORM)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if ":" in user:  # RFC 7617 section 2
        raise ValueError("a colon in the proxy's user name")
    return Proxy(host, port, user, password)


def endpoint_factory(reactor: Any, proxy: Proxy | None = None, timeout: float = TIMEOUT) -> EndpointFactory:
    """
    Makes the endpoint for a host and port.

    Args:
        timeout: Seconds to connect, the proxy's answer included.
    """
    if proxy is None:
        return lambda host, port: _direct(reactor, host, port, timeout)
    to_proxy = _direct(reactor, proxy.host, proxy.port, timeout)
    return lambda host, port: ConnectEndpoint(to_proxy, proxy, host, port, reactor, timeout)


def _direct(reactor: Any, host: str, port: int, timeout: float) -> IStreamClientEndpoint:
    endpoint: IStreamClientEndpoint = HostnameEndpoint(
        reactor, host, port, timeout=timeout, attemptDelay=ATTEMPT_DELAY
    )
    return endpoint


class ProxyFailed(Unreachable):
    """The proxy did not connect us; the text says why."""


@implementer(IStreamClientEndpoint)
class ConnectEndpoint:
    """
    A host and port behind a proxy.

    `connect` fails with `ProxyFailed`, and never later than ``timeout`` seconds on.
    """

    def __init__(
        self,
        to_proxy: IStreamClientEndpoint,
        proxy: Proxy,
        host: str,
        port: int,
        clock: IReactorTime,
        timeout: float = TIMEOUT,
    ) -> None:
        """
        Raises:
            ValueError: ``host`` cannot stand in a request.
        """
        self._to_proxy = to_proxy
        self._request = _connect_request(proxy, host, port)
        self._known = bool(proxy.user)
        self._clock = clock
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[IProtocol]":
        attempt = _Attempt(self._request, self._known, protocolFactory)
        attempt.start(self._to_proxy, self._clock, self._timeout)
        return attempt.result


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if isIPv6Address(host) else f"{host}:{port}"


def _connect_request(proxy: Proxy, host: str, port: int) -> bytes:
    name = host if host.isascii() else host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(name):
        raise ValueError("not a host name")
    authority = _authority(name, port)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.user:
        credentials = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class _Attempt(Factory):
    """One connection in the making; it ends when the tunnel is there or has failed."""

    noisy = False

    def __init__(self, request: bytes, known: bool, factory: IProtocolFactory) -> None:
        self.result: Deferred[IProtocol] = Deferred(self._cancel)
        self.factory = factory
        self.request = request
        self._known = known
        self._timer: IDelayedCall | None = None
        self._connecting: Deferred[Any] | None = None
        self._tunnel: _Tunnel | None = None
        self._over = False

    def start(self, to_proxy: IStreamClientEndpoint, clock: IReactorTime, timeout: float) -> None:
        """Connect to the proxy."""
        self._timer = clock.callLater(timeout, self.fail, "proxy gives no answer in time")
        self._connecting = to_proxy.connect(self)
        self._connecting.addErrback(self._no_connection)

    def startFactory(self) -> None:
        self.factory.doStart()

    def stopFactory(self) -> None:
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> "_Tunnel":
        self._tunnel = _Tunnel(self, addr)
        return self._tunnel

    def _no_connection(self, failure: Failure) -> None:
        self.fail(f"proxy: {explain(cast(BaseException, failure.value))}")

    def _cancel(self, _: object) -> None:
        self._end()
        self.result.errback(CancelledError())

    def refused(self, code: int) -> None:
        """The proxy answered, with something else than 2xx."""
        cause = _CAUSES.get(code, "")
        if code == 407:
            verb = "does not take this" if self._known else "wants a"
            cause = f": it {verb} user and password"
        self.fail(f"proxy answered {code}{cause}")

    def fail(self, reason: str) -> None:
        if not self._over:
            self._end()
            self.result.errback(ProxyFailed(reason))

    def _end(self) -> None:
        self._stop_timer()
        self._over = True
        if self._tunnel is not None and self._tunnel.transport is not None:
            self._tunnel.transport.abortConnection()  # type: ignore[attr-defined]
        elif self._connecting is not None:
            self._connecting.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def open(self, protocol: IProtocol) -> None:
        """The tunnel is there."""
        self._stop_timer()
        self._over = True
        self.result.callback(protocol)


class _Tunnel(Protocol):
    """Asks the proxy, then steps aside for the protocol that wanted to connect."""

    def __init__(self, attempt: _Attempt, address: IAddress | None) -> None:
        self._attempt = attempt
        self._address = address
        self._inner: IProtocol | None = None
        self._head = b""

    def connectionMade(self) -> None:
        self.transport.write(self._attempt.request)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        status = _STATUS.match(head)
        if (not status and len(head) >= 16) or (end and not status):
            self._attempt.fail("proxy does not answer in HTTP")
        elif status and not status[1].startswith(b"2"):
            self._attempt.refused(int(status[1]))
        elif end:
            self._open(rest)
        elif len(head) > MAX_HEAD:
            self._attempt.fail("proxy's answer is too long")

    def _open(self, rest: bytes) -> None:
        inner = self._attempt.factory.buildProtocol(cast(IAddress, self._address))
        if inner is None:
            self._attempt.fail("connection is not wanted any more")
            return
        self._inner = inner
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]
        inner.makeConnection(self.transport)  # type: ignore[arg-type]
        self._attempt.open(inner)
        if rest:
            inner.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        else:
            self._attempt.fail("proxy closed the connection without an answer")
