"""The push service as a Twisted Service: an HTTPS listener that outlives hostile and slow clients."""

import os
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.server import Request, Site

from xmpppush.certificates import CertificateStore
from xmpppush.config.sections import MongoosePushSection, TLSSection
from xmpppush.errors import ConfigError
from xmpppush.interfaces import IPushProvider
from xmpppush.listening import explain_listen_error, parse_server_endpoint
from xmpppush.mongoosepush.api import MAX_BODY, NotificationAPI, PushResource, refusal

# Between requests, and for a whole request to arrive.
REQUEST_TIMEOUT = 60.0
MAX_CONNECTIONS = 2000
# A stop waits that long for requests in flight; a provider has answered by then.
DRAIN_TIMEOUT = 6.0


_TOO_LARGE = (
    b"HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
)


class PushRequest(Request):
    """A request whose body stays in memory, and below `MAX_BODY`."""

    channel: "PushChannel"
    content: BytesIO
    site: "PushSite"

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        if self.content.tell() + len(data) > MAX_BODY:
            self.channel.refuse_body()
        else:
            self.content.write(data)

    def process(self) -> None:
        self.site = self.channel.factory
        self.setHeader(b"date", http.datetimeToString())
        try:
            self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())


class PushChannel(http.HTTPChannel):
    """
    HTTP/1.1 with keep-alive, a time limit for a request as a whole, and 413 before a body is read.

    twisted.web starts its timer anew with each byte, so a client that sends one a minute stays for ever.
    """

    factory: "PushSite"
    transport: ITCPTransport
    _receiving = False
    _refused = False

    def connectionMade(self) -> None:
        self.factory.channels.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.connection_lost(self)

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._receiving:
            self._receiving = True
            self.resetTimeout()
        # Not HTTPChannel's, which only adds the new start of the timer.
        LineReceiver.dataReceived(self, data)

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > MAX_BODY:
            self.requests[-1].gotLength(self.length)
            self.refuse_body()
        else:
            super().allHeadersReceived()

    def refuse_body(self) -> None:
        """Answer 413 at once, and read no more."""
        if self._refused:
            return
        self._refused = True
        path = [segment for segment in self._path.split(b"/") if segment]
        version = path[0].decode("ascii", "replace") if path else ""
        body = refusal(version, 413, "payload_too_large").body
        self.transport.write(
            b"HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\n"
            b"Content-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        self.loseConnection()

    def requestDone(self, request: http.Request) -> None:
        self._receiving = False
        if self.factory.draining:
            self.persistent = False
        super().requestDone(request)

    @property
    def idle(self) -> bool:
        """Is no request being answered?"""
        return not self._handlingRequest


class PushSite(Site):
    """
    The HTTP server.

    There is no access log: its lines would hold device ids.
    """

    protocol = PushChannel  # type: ignore[assignment]
    requestFactory = PushRequest
    _log = Logger()

    def __init__(self, resource: PushResource, reactor: IReactorTime, max_connections: int) -> None:
        super().__init__(resource, timeout=REQUEST_TIMEOUT, reactor=reactor, parsePOSTFormSubmission=False)
        self.displayTracebacks = False
        self.channels: set[PushChannel] = set()
        self.draining = False
        self._max_connections = max_connections
        self._told = False
        self._drained: Deferred[None] | None = None

    def startFactory(self) -> None:
        """Site would open its access log here, and start a timer for it."""

    def stopFactory(self) -> None:
        """Likewise."""

    def log(self, request: http.Request) -> None:
        """No access log."""

    @property
    def full(self) -> bool:
        """May no more clients connect? Logged once each time that it comes to that."""
        if len(self.channels) < self._max_connections:
            return False
        if not self._told:
            self._told = True
            self._log.warn("push service refuses new connections: {open} are open", open=len(self.channels))
        return True

    def buildProtocol(self, addr: IAddress | None) -> PushChannel | None:  # type: ignore[override]
        return None if self.full else super().buildProtocol(addr)

    def connection_lost(self, channel: PushChannel) -> None:
        self.channels.discard(channel)
        if len(self.channels) < self._max_connections // 2:
            self._told = False
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def drain(self) -> "Deferred[None]":
        """Close what is idle now, the rest after its answer; fires when all connections are gone."""
        self.draining = True
        drained: Deferred[None] = Deferred()
        self._drained = drained
        for channel in tuple(self.channels):
            if channel.idle:
                channel.loseConnection()
        if not self.channels:
            self._drained = None
            drained.callback(None)
        return drained

    def abort(self) -> None:
        """Close what is left without further words."""
        for channel in tuple(self.channels):
            channel.forceAbortClient()


class _BoundedTLSFactory(TLSMemoryBIOFactory):
    """TLS around a site that may be full; Twisted's own cannot turn a connection away."""

    wrappedFactory: PushSite

    def buildProtocol(self, addr: IAddress | None) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]
        return None if self.wrappedFactory.full else super().buildProtocol(addr)


class MongoosePush(Service):
    """
    ``[mongoosepush]``: MongoosePush's REST API over our providers.

    Ports open in `privilegedStartService` (or `startService`), which raises `ConfigError` with one line
    where that fails. `stopService` takes no new connection and lets requests in flight finish.
    """

    name = "mongoosepush"
    _log = Logger()

    def __init__(
        self,
        section: MongoosePushSection,
        providers: Sequence[IPushProvider],
        certificates: CertificateStore,
        reactor: object,
        clock: IReactorTime,
        random: Callable[[int], bytes] = os.urandom,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """
        Raises:
            ConfigError: The endpoint is none, or the certificate cannot be used; one line each.
        """
        self.api = NotificationAPI(providers, clock)
        self._text = section.endpoint
        self._clock = clock
        self._site = PushSite(PushResource(self.api, random), clock, max_connections)
        try:
            self._endpoint, wants_tls = parse_server_endpoint(reactor, section.endpoint)
        except ValueError as error:
            raise ConfigError([f"[mongoosepush] endpoint: {error}"]) from error
        self._factory: PushSite | TLSMemoryBIOFactory = self._site
        if wants_tls:
            options = certificates.service_options(
                TLSSection(section.certfile, section.keyfile), interface_of(section.endpoint)
            )
            self._factory = _BoundedTLSFactory(options, False, self._site, clock)
        self._port: IListeningPort | None = None

    @property
    def port(self) -> int:
        """Number of the TCP port that is open; matters where the configuration says 0."""
        if self._port is None:
            raise RuntimeError("the push service does not listen")
        return int(cast(IPv4Address | IPv6Address, self._port.getHost()).port)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        if self._port is None:
            self._listen()

    def _listen(self) -> None:
        opened: list[IListeningPort | Failure] = []
        self._endpoint.listen(self._factory).addBoth(opened.append)
        # Every endpoint that parse_server_endpoint knows answers at once.
        (result,) = opened
        if isinstance(result, Failure):
            error = cast(Exception, result.value)
            problem = explain_listen_error(self._text, error)
            raise ConfigError([f"[mongoosepush] endpoint: {problem}"]) from error
        self._port = result
        self._log.info("push service listens on {endpoint}", endpoint=self._text)

    def stopService(self) -> "Deferred[None]":
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
            self._port = None
        late = self._clock.callLater(DRAIN_TIMEOUT, self._site.abort)
        await self._site.drain()
        if late.active():
            late.cancel()


def interface_of(endpoint: str) -> tuple[str, ...]:
    r"""The address that an endpoint string binds, for the certificate: ``\:`` is a colon; none for all."""
    found = re.search(r":interface=((?:\\.|[^:\\])+)", endpoint)
    address = re.sub(r"\\(.)", r"\1", found[1]) if found else ""
    return () if address in ("", "0.0.0.0", "::") else (address,)  # noqa: S104
