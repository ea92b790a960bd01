"""
An ``IAgent`` that keeps connections: httptools underneath, a pool for each origin, one timer for all.

It answers with the whole body at once (`BufferedResponse`), so nothing of an answer is delivered
before all of it is there, and it fails with `TryLater` and a reason an operator understands.
A request is written once: what was lost on the way is reported, never repeated behind the caller's
back, because a POST may have been acted upon.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from xmpppush.errors import PushError, TryLater, Unreachable
from xmpppush.http.connection import Connection, Exchange
from xmpppush.http.origins import Origin, is_target, parse_origin
from xmpppush.http.proxy import EndpointFactory, endpoint_factory
from xmpppush.http.reasons import explain
from xmpppush.http.responses import BufferedResponse
from xmpppush.http.tls import client_tls

MAX_BODY = 64 * 1024
# A server closes idle connections after its own time (Cowboy, nginx: 60 s and more). One of that age may
# be closing while we write; a younger one hardly is.
MAX_IDLE_TIME = 30.0
MAX_GRACE = 1.0  # seconds that an answer may come late because we do
# Headers that the agent writes itself (RFC 9112 sections 3.2, 6 and 9.3).
_OWN_HEADERS = frozenset((b"content-length", b"connection", b"transfer-encoding"))


class BadRequestTarget(PushError):
    """The URL cannot stand in a request line: it holds a space, a control character or worse."""


class AnswerCut(TryLater):
    """
    An answer broke off behind its head.

    Attributes:
        code: Its status: who needs no more knows what became of the request.
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class OriginPool:
    """
    The connections to one origin.

    Idle ones are used last in, first out, so those not needed grow old; a request that finds none
    waits for the first that is free or newly connected.
    """

    def __init__(self, agent: "PooledAgent", origin: Origin, endpoint: IStreamClientEndpoint) -> None:
        self.host = origin.host
        self.max_body = agent.max_body
        self.clock = agent.clock
        self._agent = agent
        self._tls = origin.scheme == "https"
        self._endpoint = endpoint
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._waiting: dict[Exchange, None] = {}
        self._attempts: set[_Attempt] = set()
        self._ending: set[Connection] = set()
        self._closed: list[Deferred[None]] = []
        self._closing = False

    @property
    def open_count(self) -> int:
        """Connections, those being made included."""
        return len(self._open) + len(self._attempts)

    @property
    def idle_count(self) -> int:
        """Connections that do nothing."""
        return len(self._idle)

    def take(self, exchange: Exchange, now: float) -> None:
        """Send the exchange's request as soon as there is a connection."""
        if self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < MAX_IDLE_TIME:
                connection.send(exchange)
                return
            stale = [connection, *self._idle]  # those below it are older still
            self._idle.clear()
            for connection in stale:
                connection.close()
        self._waiting[exchange] = None
        self._connect()

    def drop(self, exchange: Exchange) -> str:
        """Nobody waits for this exchange any longer; returns how far it got."""
        if exchange.connection is not None:
            exchange.connection.abort()
            return "no answer in time"
        self._waiting.pop(exchange, None)
        return "no connection in time"

    def _connect(self) -> None:
        # Never more attempts than waiters, so a failed attempt stands for one of them.
        while len(self._waiting) > len(self._attempts) and self.open_count < self._agent.max_connections:
            attempt = _Attempt(self, self._tls, self._agent)
            self._attempts.add(attempt)
            attempt.start(self._endpoint)

    def attempt_failed(self, attempt: "_Attempt", reason: str) -> None:
        """A connection could not be made: the oldest waiter is told, unless it was served meanwhile."""
        self._attempts.discard(attempt)
        if len(self._waiting) > len(self._attempts):
            exchange = next(iter(self._waiting))
            del self._waiting[exchange]
            self._agent.failed(exchange, reason, Unreachable)
        self._connect()
        self._check_closed()

    def connected(self, attempt: "_Attempt", connection: Connection) -> None:
        """A new connection, ready for use."""
        self._attempts.discard(attempt)
        self._open.add(connection)
        self.ready(connection)

    def ready(self, connection: Connection) -> None:
        if self._waiting:
            exchange = next(iter(self._waiting))
            del self._waiting[exchange]
            connection.send(exchange)
        elif self._closing or len(self._idle) >= self._agent.max_idle:
            connection.close()
        else:
            connection.idle_since = self._agent.clock.seconds()
            self._idle.append(connection)

    def done(self, exchange: Exchange, response: BufferedResponse) -> None:
        self._agent.done(exchange, response)

    def failed(self, exchange: Exchange, reason: str) -> None:
        self._agent.failed(exchange, reason)

    def cancelled(self, exchange: Exchange) -> None:
        self._agent.forget(exchange)
        self.drop(exchange)

    def gone(self, connection: Connection, reason: str) -> None:
        self._open.discard(connection)
        self._ending.add(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._connect()

    def lost(self, connection: Connection) -> None:
        self._ending.discard(connection)
        self._check_closed()

    def close(self) -> "Deferred[None]":
        """Fires when everything in flight has its answer and no connection is left."""
        self._closing = True
        for connection in tuple(self._idle):
            connection.close()
        done: Deferred[None] = Deferred()
        self._closed.append(done)
        self._check_closed()
        return done

    def abort(self) -> None:
        """End everything now; what is under way fails."""
        waiting, self._waiting = self._waiting, {}
        for exchange in waiting:
            self.failed(exchange, "stopping")
        for attempt in tuple(self._attempts):
            attempt.give_up("stopping")
        for connection in (*self._open, *self._ending):
            connection.abort("stopping")

    def _check_closed(self) -> None:
        if self._closing and not (self._open or self._ending or self._waiting or self._attempts):
            waiters, self._closed = self._closed, []
            for done in waiters:
                done.callback(None)


class _Attempt(Factory):
    """
    One connection in the making: name look-up, TCP and TLS under one time limit.

    It owns the connection until that is ready, then hands it to the pool.
    """

    noisy = False

    def __init__(self, pool: OriginPool, tls: bool, agent: "PooledAgent") -> None:
        self.host = pool.host
        self.max_body = pool.max_body
        self.clock = pool.clock
        self._pool = pool
        self._tls = tls
        self._connecting: Deferred[Any] | None = None
        self._connection: Connection | None = None
        self._timer = agent.clock.callLater(agent.timeout, self.give_up, "timed out connecting")

    def start(self, endpoint: IStreamClientEndpoint) -> None:
        """Connect."""
        self._connecting = endpoint.connect(self)
        self._connecting.addErrback(self._no_connection)

    def buildProtocol(self, addr: object) -> Connection:
        # An endpoint that tries several addresses calls this for the one that connected.
        self._connection = Connection(self, self._tls)
        return self._connection

    def ready(self, connection: Connection) -> None:
        if self._timer.active():
            self._timer.cancel()
            connection.owner = self._pool
            self._pool.connected(self, connection)

    def gone(self, connection: Connection, reason: str) -> None:
        self._fail(reason)

    def _no_connection(self, failure: Failure) -> None:
        self._fail(explain(cast(BaseException, failure.value)))

    def _fail(self, reason: str) -> None:
        if self._timer.active():
            self._timer.cancel()
            self._pool.attempt_failed(self, reason)

    def give_up(self, reason: str) -> None:
        """Stop connecting."""
        if self._timer.active():
            self._timer.cancel()
        self._pool.attempt_failed(self, reason)
        if self._connection is not None:
            self._connection.abort()
        elif self._connecting is not None:
            self._connecting.cancel()

    # Nothing is in flight before it is ready.

    def done(self, exchange: Exchange, response: BufferedResponse) -> None:
        """Never called."""

    def failed(self, exchange: Exchange, reason: str) -> None:
        """Never called."""

    def cancelled(self, exchange: Exchange) -> None:
        """Never called."""

    def drop(self, exchange: Exchange) -> str:
        """Never called."""
        return ""

    def lost(self, connection: Connection) -> None:
        """Its `gone` was before."""


@implementer(IAgent)
class PooledAgent:
    """
    Requests over kept-alive connections, at most ``max_connections`` to an origin at a time.

    Every request has ``timeout`` seconds from the call to the last byte of its answer, waiting for a
    connection and connecting included. Cancelling the Deferred gives it up earlier.

    Attributes:
        clock: The reactor.
        max_idle: Connections kept open while they do nothing, for each origin.
        max_connections: Connections open at a time, for each origin; further requests wait.
        timeout: Seconds.
        max_body: Bytes that an answer's body may have.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        max_idle: int = 10,
        max_connections: int = 100,
        timeout: float = 5.0,
        max_body: int = MAX_BODY,
        ca_file: Path | None = None,
        verify: bool = True,
        endpoint_for: "Callable[[Origin], IStreamClientEndpoint] | None" = None,
        endpoint_to: EndpointFactory | None = None,
    ) -> None:
        """
        Args:
            endpoint_for: Makes the whole way to an origin, TLS included; for tests.
            endpoint_to: Makes the way to a host and port, below TLS: `endpoint_factory` with a proxy, say.
        """
        self.clock = reactor
        self.max_idle = max_idle
        self.max_connections = max_connections
        self.timeout = timeout
        self.max_body = max_body
        self._ca_file = ca_file
        self._verify = verify
        self._endpoint_for = endpoint_for or self._endpoint
        self._endpoint_to = endpoint_to or endpoint_factory(reactor, None, timeout)
        self._pools: dict[Origin, OriginPool] = {}
        self._leaving: set[OriginPool] = set()
        self._closing = False
        # All exchanges have the same time, so the oldest is always the next to run out of it.
        self._under_way: dict[Exchange, None] = {}
        self._timer: IDelayedCall | None = None

    def _endpoint(self, origin: Origin) -> IStreamClientEndpoint:
        endpoint = self._endpoint_to(origin.host, origin.port)
        if origin.scheme == "https":
            return wrapClientTLS(client_tls(origin.host, self._ca_file, self._verify), endpoint)
        return endpoint

    def pool(self, origin: Origin) -> OriginPool:
        """
        The connections to this origin.

        Raises:
            OSError, ValueError: ``ca_file`` cannot be used.
        """
        pool = self._pools.get(origin)
        if pool is None:
            # With a few origins this is a constant; who lets strangers choose them has to bound them.
            pool = self._pools[origin] = OriginPool(self, origin, self._endpoint_for(origin))
        return pool

    def discard(self, origin: Origin) -> None:
        """Let go of an origin's connections, behind what is in flight; it may be asked for again."""
        pool = self._pools.pop(origin, None)
        if pool is not None:
            self._leaving.add(pool)
            pool.close().addCallback(lambda _: self._leaving.discard(pool))

    def exchange(
        self, pool: OriginPool, request: bytes, bodiless: bool = False
    ) -> "Deferred[BufferedResponse]":
        """
        Send one request as it is: head and body, well-formed.

        Raises:
            TryLater: There is no answer; the reason says why. `Unreachable`: no connection either.
            AnswerCut: There is half of one.
        """
        if self._closing:
            return fail(TryLater("stopping"))
        now = self.clock.seconds()
        exchange = Exchange(pool, request, bodiless, now + self.timeout)
        self._under_way[exchange] = None
        if self._timer is None:
            self._timer = self.clock.callLater(self.timeout, self._expire)
        pool.take(exchange, now)
        return exchange.result

    def done(self, exchange: Exchange, response: BufferedResponse) -> None:
        """An exchange got its answer."""
        del self._under_way[exchange]
        exchange.result.callback(response)

    def failed(self, exchange: Exchange, reason: str, kind: type[TryLater] = TryLater) -> None:
        """An exchange will get none."""
        del self._under_way[exchange]
        cut = AnswerCut(reason, exchange.code) if exchange.code else None
        exchange.result.errback(cut or kind(reason))

    def forget(self, exchange: Exchange) -> None:
        """An exchange was cancelled."""
        self._under_way.pop(exchange, None)

    def _expire(self) -> None:
        self._timer = None
        now = self.clock.seconds()
        sent: list[Exchange] = []
        unsent: list[Exchange] = []
        for exchange in self._under_way:
            if exchange.deadline > now:
                self._timer = self.clock.callLater(exchange.deadline - now, self._expire)
                break
            (unsent if exchange.connection is None else sent).append(exchange)
        # At once, before a connection gets free: what is sent now has no time left for an answer.
        self._give_up(unsent)
        if sent:
            # A reactor that stood still runs its timers before it reads, and the answers may be in the
            # sockets: who gave up now would have them sent twice. One more turn reads them, and as long
            # as we are late ourselves (or the clock was put forward), others may need a moment, too.
            late = now - sent[0].deadline
            self.clock.callLater(min(late, MAX_GRACE), self._give_up, sent)

    def _give_up(self, exchanges: Sequence[Exchange]) -> None:
        for exchange in exchanges:
            if exchange in self._under_way:  # an earlier one's callback may have cancelled it
                kind = TryLater if exchange.connection is not None else Unreachable
                reason = exchange.owner.drop(exchange)
                self.failed(exchange, reason, kind)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> "Deferred[Any]":
        """
        ``IAgent``: a request with any headers and body, the body being kept whole until it is sent.

        Raises:
            BadRequestTarget: The URI or method cannot be sent.
            TryLater: There is no answer; the reason says why.
        """
        try:
            origin, target = split_url(uri)
            if not method.isalpha() or method == b"CONNECT":
                raise BadRequestTarget("no such method")
            pool = self.pool(origin)
        except (PushError, ValueError, OSError):
            return fail()
        lines = list(_header_lines(origin, headers))
        if bodyProducer is None:
            length = b"0\r\n" if method in (b"POST", b"PUT", b"PATCH") else b""
            head = b"".join((method, b" ", target, b" HTTP/1.1\r\n", *lines))
            head += (b"Content-Length: " + length if length else b"") + b"\r\n"
            return self.exchange(pool, head, method == b"HEAD")

        def send(body: bytes) -> "Deferred[BufferedResponse]":
            head = b"".join((method, b" ", target, b" HTTP/1.1\r\n", *lines))
            return self.exchange(pool, b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))

        return read_producer(bodyProducer).addCallback(send)

    def close(self, patience: float | None = None) -> "Deferred[None]":
        """
        Take no further requests; fires when all in flight are over and the connections closed.

        Args:
            patience: Seconds until what is still in flight is given up; ``None``: ``timeout`` bounds it.
        """
        self._closing = True
        pools = (*self._pools.values(), *self._leaving)
        done: Deferred[Any] = gatherResults([pool.close() for pool in pools])
        limit = self.timeout if patience is None else patience
        over = None if done.called else self.clock.callLater(limit, self._abort)

        def closed(_: object) -> None:
            for timer in (over, self._timer):
                if timer is not None and timer.active():
                    timer.cancel()
            self._timer = None

        return done.addCallback(closed)

    def _abort(self) -> None:
        for pool in (*self._pools.values(), *self._leaving):
            pool.abort()


def split_url(url: bytes) -> tuple[Origin, bytes]:
    """
    Origin and request target of an absolute URL.

    Raises:
        BadRequestTarget: The target holds a space, a control character or a fragment.
    """
    start = url.find(b"/", 8)  # behind "https://"
    if start < 0:
        start = len(url)
    target = url[start:].partition(b"#")[0] or b"/"
    try:
        origin = _origin_of(url[:start])
    except ValueError as error:
        raise BadRequestTarget(str(error)) from None
    if not is_target(target):
        raise BadRequestTarget("a space or control character in the path")
    return origin, target


@lru_cache(maxsize=256)
def _origin_of(url: bytes) -> Origin:
    return parse_origin(url.decode("ascii"))[0]


def _header_lines(origin: Origin, headers: Headers | None) -> Iterable[bytes]:
    given = [] if headers is None else list(headers.getAllRawHeaders())
    if not any(name.lower() == b"host" for name, _ in given):
        yield b"Host: %s\r\n" % origin.authority.encode("ascii")
    for name, values in given:  # Headers has replaced CR and LF
        if name.lower() not in _OWN_HEADERS:
            for value in values:
                yield b"%s: %s\r\n" % (name, value)


class _Collector:
    """The consumer side of a body producer."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.write = self.parts.append

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """All of it is taken."""

    def unregisterProducer(self) -> None:
        """All of it came."""


def read_producer(producer: IBodyProducer) -> "Deferred[bytes]":
    """The whole body that a producer makes."""
    body = getattr(producer, "body", None)
    if type(body) is bytes:
        return succeed(body)
    collector = _Collector()
    done = producer.startProducing(collector)
    return done.addCallback(lambda _: b"".join(collector.parts))
