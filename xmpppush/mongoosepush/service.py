"""The push service as a Twisted Service: an HTTPS listener that outlives hostile and slow clients."""

import os
import re
from collections.abc import Callable, Sequence
from typing import cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from xmpppush.certificates import CertificateStore
from xmpppush.config.sections import MongoosePushSection, TLSSection
from xmpppush.errors import ConfigError
from xmpppush.http.prompt import PromptTLS
from xmpppush.interfaces import IPushProvider
from xmpppush.listening import explain_listen_error, parse_server_endpoint, written
from xmpppush.mongoosepush.api import NotificationAPI, PushAPI
from xmpppush.mongoosepush.api_keys import read_api_keys
from xmpppush.mongoosepush.http_server import HTTPServerFactory

MAX_CONNECTIONS = 2000
# A stop waits that long for requests in flight; a provider has answered by then.
DRAIN_TIMEOUT = 6.0


class _BoundedTLSFactory(TLSMemoryBIOFactory):
    """
    TLS around a server that may be full; Twisted's own cannot turn a connection away.

    Nor does it gather small writes until the next turn of the reactor: an answer is one write.
    """

    protocol = PromptTLS
    wrappedFactory: HTTPServerFactory

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
        self.notifications = NotificationAPI(providers, clock)
        self._text = section.endpoint
        self._clock = clock
        api = PushAPI(
            self.notifications, None if section.api_keys is None else read_api_keys(section.api_keys)
        )
        self._server = HTTPServerFactory(api, api.refuse, clock, random, max_connections)
        try:
            self._endpoint, wants_tls = parse_server_endpoint(reactor, section.endpoint)
        except ValueError as error:
            raise ConfigError([f"[mongoosepush] endpoint: {error}"]) from error
        self._factory: HTTPServerFactory | TLSMemoryBIOFactory = self._server
        if wants_tls:
            options = certificates.service_options(
                TLSSection(section.certfile, section.keyfile), interface_of(section.endpoint)
            )
            self._factory = _BoundedTLSFactory(options, False, self._server, clock)
        self._port: IListeningPort | None = None

    @property
    def port(self) -> int:
        """Number of the TCP port that is open; matters where the configuration says 0."""
        if self._port is None:
            raise RuntimeError("the push service does not listen")
        return int(cast(IPv4Address | IPv6Address, self._port.getHost()).port)

    @property
    def bound(self) -> bool:
        """Does it take connections?"""
        return self._port is not None and bool(getattr(self._port, "connected", True))

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
        self._log.info(
            "[mongoosepush] listens on {address}, {scheme}",
            address=written(result.getHost()),
            scheme="plain http" if self._factory is self._server else "https",
        )

    def stopService(self) -> "Deferred[None]":
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
            self._port = None
        late = self._clock.callLater(DRAIN_TIMEOUT, self._server.abort)
        await self._server.drain()
        if late.active():
            late.cancel()


def interface_of(endpoint: str) -> tuple[str, ...]:
    r"""The address that an endpoint string binds, for the certificate: ``\:`` is a colon; none for all."""
    found = re.search(r":interface=((?:\\.|[^:\\])+)", endpoint)
    address = re.sub(r"\\(.)", r"\1", found[1]) if found else ""
    return () if address in ("", "0.0.0.0", "::") else (address,)  # noqa: S104
