"""What the emulators share: TLS, the two HTTPs, faults, and keeping what came."""

from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.certificates import Credentials
from xmpppush.testing.providers import faults as kinds
from xmpppush.testing.providers.faults import Fault, Faults
from xmpppush.testing.providers.http1 import HTTP1Connection
from xmpppush.testing.providers.http2 import HTTP2Connection
from xmpppush.testing.providers.wire import Kept, Received, Reply, Request

CAPACITY = 10_000
HTTP2 = b"h2"
HTTP1 = b"http/1.1"


class Emulator:
    """
    A provider that listens on loopback; each kind says what it answers.

    Attributes:
        received: The last requests taken, in order, with what they were answered.
        count: How many there were in all.
        accepted: How many of them were answered with success.
        faults: What goes wrong, and when.
        connections: How many connections there were in all.
        open: Those that there are.
        port: Where it listens, after `listen`.
    """

    service = ""
    protocols: tuple[bytes, ...] = (HTTP2, HTTP1)
    asks_for_certificate = False

    def __init__(
        self, server: Credentials, clock: IReactorTime | None, capacity: int = CAPACITY, host: str = ""
    ) -> None:
        """
        Args:
            server: Its own key and certificate.
            clock: For tokens and delays; by default the reactor that it listens with.
            capacity: How many requests `received` holds.
            host: The name that clients reach it by; by default the address that it listens on.
        """
        self.received = Kept(capacity)
        self.count = 0
        self.accepted = 0
        self.faults = Faults(check=self.check_fault)
        self.connections = 0
        self.open: list[Any] = []
        self.port = 0
        self.interface = ""
        self.host = host
        self.max_streams = 100
        self.server = server
        self._clock = clock
        self._listening: Any = None
        self._stopped: Deferred[None] | None = None
        self._timers: set[IDelayedCall] = set()

    # Starting and stopping.

    def listen(self, reactor: Any, port: int = 0, interface: str = "127.0.0.1") -> "Deferred[int]":
        """Fires with the port; 0 takes a free one."""
        if self._clock is None:
            self._clock = reactor
        factory = Factory.forProtocol(lambda: _Negotiating(self))
        factory.noisy = False
        tls = TLSMemoryBIOFactory(self._tls(), False, factory)
        tls.noisy = False
        self._listening = reactor.listenTCP(port, tls, interface=interface)
        self.interface, self.port = interface, self._listening.getHost().port
        return succeed(self.port)

    def stop(self) -> "Deferred[None]":
        """Close everything at once; fires when no connection is left."""
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        for connection in list(self.open):
            connection.transport.abortConnection()
        if self.open:
            self._stopped = Deferred()
            await self._stopped

    @property
    def endpoint(self) -> str:
        """``host:port``, as the pools' key of that name takes it."""
        host = self.host or self.interface
        host = f"[{host}]" if ":" in host else host
        return f"{host}:{self.port}"

    def forget(self) -> None:
        """Begin counting anew."""
        self.received.clear()
        self.count = self.accepted = 0

    def go_away(self) -> None:
        """Ask every client to leave, as providers do before maintenance."""
        for connection in list(self.open):
            connection.go_away()

    def now(self) -> float:
        return self._clock.seconds()  # type: ignore[union-attr]

    def _tls(self) -> CertificateOptions:
        options = CertificateOptions(
            privateKey=self.server.key,  # type: ignore[arg-type]
            certificate=self.server.certificate,  # type: ignore[arg-type]
            extraCertChain=list(self.server.chain),  # type: ignore[arg-type]
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        context = options.getContext()
        context.set_options(SSL.OP_NO_TICKET)
        context.set_alpn_select_callback(self._choose_protocol)
        if self.asks_for_certificate:
            # Apple, too, shakes hands with anybody and says in the answer what is wrong.
            context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        return options

    def _choose_protocol(self, _connection: Any, offered: list[bytes]) -> Any:
        return next((each for each in self.protocols if each in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

    # Connections report here.

    def opened(self, connection: Any) -> int:
        self.connections += 1
        self.open.append(connection)
        return self.connections

    def closed(self, connection: Any) -> None:
        if connection in self.open:
            self.open.remove(connection)
        if self._stopped is not None and not self.open:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)

    def received_request(self, request: Request) -> None:
        request.token = self.token_of(request)
        if self.faults:
            fault = self.faults.meet(request.token, self.kind_of(request))
            if fault is not None:
                self._go_wrong(request, fault)
                return
        self._answer(request)

    def _answer(self, request: Request) -> None:
        reply, content = self.respond(request)
        self._keep(request, reply.status, reply.reason, content)
        request.connection.send(request.stream, reply)

    def _go_wrong(self, request: Request, fault: Fault) -> None:
        if fault.delay:
            assert self._clock is not None
            timer = self._clock.callLater(fault.delay, lambda: self._do_wrong(request, fault))
            if len(self._timers) > 1000:
                self._timers = {each for each in self._timers if each.active()}
            self._timers.add(timer)
        else:
            self._do_wrong(request, fault)

    def _do_wrong(self, request: Request, fault: Fault) -> None:
        if fault.what == kinds.NOTHING:
            self._answer(request)
        elif fault.what == kinds.GARBAGE:
            page = b"<html><body>Bad gateway</body></html>"
            self._wrong_answer(request, fault, ((b"content-type", b"text/html"),), page)
        elif fault.what == kinds.EMPTY:
            self._wrong_answer(request, fault, (), b"")
        elif fault.what in kinds.ACTIONS:
            if fault.what not in (kinds.GOAWAY, kinds.REFUSE):  # those were never processed
                self._keep(request, 0, fault.what)
            request.connection.fail(request.stream, fault.what)
        else:
            reply = self.refusal(request, fault.what, fault.retry_after)
            self._keep(request, reply.status, reply.reason)
            request.connection.send(request.stream, reply)

    def _wrong_answer(
        self, request: Request, fault: Fault, headers: tuple[tuple[bytes, bytes], ...], body: bytes
    ) -> None:
        self._keep(request, 500, fault.what)
        request.connection.send(request.stream, Reply(500, headers, body))

    def _keep(self, request: Request, status: int, reason: str, content: Any = None) -> None:
        self.count += 1
        if 200 <= status < 300:
            self.accepted += 1
        self.received.append(
            Received(
                request.token,
                request.method,
                request.path,
                {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers},
                request.body,
                status,
                reason,
                request.connection.number,
                request.stream,
                self.now(),
                content,
            )
        )

    # What each provider does in its own way.

    def token_of(self, request: Request) -> str:
        """The device that this is for, ``""`` where it cannot be seen."""
        raise NotImplementedError

    def kind_of(self, request: Request) -> str:
        """``send`` or ``oauth``, as `Fault.on` says."""
        return "send"

    def respond(self, request: Request) -> tuple[Reply, Any]:
        """What a request gets where nothing is scripted, and what the device reads of it."""
        raise NotImplementedError

    def refusal(self, request: Request, word: str, retry_after: int) -> Reply:
        """The answer that `Fault.what` names by its reason or status."""
        raise NotImplementedError

    def check_fault(self, fault: Fault) -> None:
        """
        Is this a fault that this provider can have?

        Raises:
            BadFault: It is not.
        """
        if fault.what and fault.what not in kinds.ACTIONS and not self.knows(fault.what, fault.on):
            raise kinds.BadFault(
                f"{fault.what}: neither a status or reason of {self.service} nor one of"
                f" {', '.join(sorted(kinds.ACTIONS))}"
            )

    def knows(self, word: str, on: str) -> bool:
        """Is ``word`` a reason or a status of this provider's, for what `Fault.on` says?"""
        raise NotImplementedError


@implementer(IHandshakeListener)
class _Negotiating(Protocol):
    """Hands the connection over to what ALPN (RFC 7301) has agreed on."""

    transport: Any

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._inner: Any = None

    def handshakeCompleted(self) -> None:
        chosen = self.transport.negotiatedProtocol
        if chosen is None and HTTP1 in self._emulator.protocols:
            chosen = HTTP1
        if chosen is None:
            self.transport.loseConnection()
            return
        make: Any = HTTP2Connection if chosen == HTTP2 else HTTP1Connection
        inner = self._inner = make(self._emulator)
        inner.certificate = self._certificate()
        inner.makeConnection(self.transport)
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]

    def _certificate(self) -> x509.Certificate | None:
        if not self._emulator.asks_for_certificate:
            return None
        peer = self.transport.getPeerCertificate()
        return None if peer is None else peer.to_cryptography()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
            self._inner = None
            del self.dataReceived
