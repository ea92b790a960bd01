"""The HTTP/2 connections to one server, and the requests that wait for a free stream."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IOpenSSLClientConnectionCreator,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from xmpppush.errors import TryLater, Unreachable
from xmpppush.http.outage import Outage
from xmpppush.http.prompt import PromptTLS
from xmpppush.http.reasons import explain
from xmpppush.http.responses import BufferedResponse
from xmpppush.http2.connection import Connection, Exchange

MAX_BODY = 64 * 1024
CONNECT_TIMEOUT = 4.0  # seconds for name, TCP, TLS and the first SETTINGS
FIRST_PAUSE = 0.5  # seconds after a failed attempt; doubled with each further one
MAX_PAUSE = 30.0
# A request that comes in the pause tries at once, but not more often than this.
MIN_PAUSE = 1.0
MAX_TRIES = 4  # times that a request may come back untouched
MAX_GRACE = 1.0  # seconds that an answer may come late because we do
RESEND_PAUSE = 0.1  # seconds until one that came back twice is sent again


class QueueFull(TryLater):
    """More requests wait for a stream than may."""


class NoAnswer(TryLater):
    """The time of the request is over: it waited too long, or the server did not answer."""


class ConnectionGone(TryLater):
    """The connection or stream ended without an answer; the server may have acted on the request."""


class AnswerCut(ConnectionGone):
    """
    An answer broke off behind its head, or its end did not come in time.

    Attributes:
        code: Its status: who needs no more knows what became of the request.
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class _TLSFactory(TLSMemoryBIOFactory):
    """TLS without Twisted's gathering of small writes: a connection gathers its own."""

    protocol = PromptTLS
    noisy = False


class HTTP2Client:
    """
    Keeps a number of connections to one server open, and spreads requests over them.

    A request that no connection has a stream for waits, in order. What a connection did not take (GOAWAY,
    REFUSED_STREAM) is sent over another one without the caller's knowing; what it may have acted upon is
    reported, never repeated.

    Attributes:
        clock: The reactor.
        max_body: Bytes that an answer's body may have.
        timeout: Seconds from the request to the last byte of its answer, waiting included.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        clock: Any,
        endpoint: IStreamClientEndpoint,
        tls: IOpenSSLClientConnectionCreator | None,
        *,
        random: Callable[[], float],
        connections: int = 1,
        timeout: float = 4.5,
        max_waiting: int = 10_000,
        max_body: int = MAX_BODY,
        wanted: frozenset[bytes] | None = None,
    ) -> None:
        """
        Args:
            name: What the log calls the server.
            endpoint: A byte stream to it, TCP or through a proxy; TLS is made here.
            tls: Asks for ALPN ``h2``; ``None``: plain TCP.
            random: 0.0 to 1.0; spreads the attempts of many processes.
            wanted: Names of the answer's headers that matter, ``None``: all.
        """
        self.clock = clock
        self.max_body = max_body
        self.timeout = timeout
        self._name = name
        self._endpoint = endpoint
        self._tls = tls
        self._random = random
        self._size = connections
        self._max_waiting = max_waiting
        self._wanted = wanted
        self._connections: list[Connection] = []
        self._leaving: set[Connection] = set()
        self._attempts: set[_Attempt] = set()
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()
        # All have the same time, so the oldest is always the next to run out of it.
        self._under_way: dict[Exchange, None] = {}
        self._timer: IDelayedCall | None = None
        self._retry: IDelayedCall | None = None
        self._resend: IDelayedCall | None = None
        self._failures = 0
        self._short = 0  # connections in a row that did not last
        self._tried = float("-inf")
        self._outage = Outage()
        self._closing = False
        self._closed: list[Deferred[None]] = []
        self._patience: IDelayedCall | None = None

    @property
    def connected(self) -> int:
        """Connections that take requests."""
        return len(self._connections)

    @property
    def disconnected(self) -> int:
        """Those that should be there and are not."""
        return max(0, self._size - len(self._connections))

    @property
    def waiting(self) -> int:
        """Requests without a stream."""
        return len(self._waiting)

    @property
    def trouble(self) -> str:
        """Why the last attempt to connect failed; ``""``: it did not."""
        return self._outage.reason if self._failures else ""

    def start(self) -> None:
        """Connect, and stay connected."""
        self._connect()

    def request(self, block: bytes, body: bytes) -> "Deferred[BufferedResponse]":
        """
        Send one request.

        Args:
            block: All headers, ``:method`` and the other pseudo-headers first, from
                `xmpppush.http2.headers.pack`.

        Raises (fails with):
            Unreachable: There is no connection.
            QueueFull, NoAnswer, ConnectionGone: What these say.
        """
        if self._closing:
            return fail(TryLater("stopping"))
        exchange = Exchange(self, block, body, self.clock.seconds() + self.timeout)
        connection = self._roomiest()
        if connection is None:
            refusal = self._must_not_wait()
            if refusal is not None:
                return fail(refusal)
        self._under_way[exchange] = None
        if self._timer is None:
            self._timer = self.clock.callLater(self.timeout, self._expire)
        if connection is None:
            self._waiting[exchange] = None
        else:
            connection.send(exchange)
        return exchange.result

    def _roomiest(self) -> Connection | None:
        best, most = None, 0
        for connection in self._connections:
            room = connection.room
            if room > most:
                best, most = connection, room
        return best

    def _must_not_wait(self) -> TryLater | None:
        """Why a request that finds no stream fails at once; connects where that is due."""
        if len(self._waiting) >= self._max_waiting:
            return QueueFull("too many requests wait for a stream")
        if not self._connections and not self._attempts:
            if self._retry is None or self.clock.seconds() - self._tried >= MIN_PAUSE:
                self._connect()
            elif self._failures:
                return Unreachable(self._outage.reason)
        return None

    def close(self, patience: float) -> "Deferred[None]":
        """
        Take no further requests; fires when those in flight are over and the connections closed.

        Args:
            patience: Seconds until what is still in flight is given up.
        """
        if not self._closing:
            self._closing = True
            self._cancel_retry()
            for attempt in tuple(self._attempts):
                attempt.give_up("stopping")
            if self._under_way or self._connections or self._leaving:
                self._patience = self.clock.callLater(patience, self._abort)
            self._check_closed()
        if self._is_closed():
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        return closed

    def _abort(self) -> None:
        self._patience = None
        for connection in (*self._connections, *self._leaving):
            connection.abort("stopping")
        self._check_closed()

    def _is_closed(self) -> bool:
        return self._closing and not (self._connections or self._leaving or self._attempts)

    def _check_closed(self) -> None:
        if not self._closing:
            return
        if not self._waiting:
            for connection in tuple(self._connections):
                connection.close()
        if not self._connections and not self._leaving:
            self._fail_waiting("stopping")
        if self._is_closed():
            for timer in (self._patience, self._timer, self._resend):
                if timer is not None and timer.active():
                    timer.cancel()
            self._patience = self._timer = self._resend = None
            closed, self._closed = self._closed, []
            for each in closed:
                each.callback(None)

    # Connecting.

    def _connect(self) -> None:
        self._cancel_retry()
        if self._closing:
            return
        while len(self._connections) + len(self._attempts) < self._size:
            self._tried = self.clock.seconds()
            attempt = _Attempt(self, self._tls, self._wanted)
            self._attempts.add(attempt)
            attempt.start(self._endpoint)
            if self._retry is not None:  # it failed at once
                break

    def _cancel_retry(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None

    def attempt_failed(self, attempt: "_Attempt", reason: str) -> None:
        """A connection could not be made."""
        self._attempts.discard(attempt)
        if not self._closing:
            self._failures += 1
            if self._outage.failed(reason, self.clock.seconds()):
                self._log.warn("{name}: cannot connect: {reason}", name=self._name, reason=reason)
            self._connect_later()
        if not self._connections and not self._attempts:
            self._fail_waiting(reason)
        self._check_closed()

    def _connect_later(self) -> None:
        if self._retry is None and not self._closing:
            pause = min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(max(0, self._failures - 1), 10))
            self._retry = self.clock.callLater(pause * (0.5 + self._random() / 2), self._connect)

    def _fail_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, OrderedDict()
        for exchange in waiting:
            self._fail(exchange, Unreachable(reason))

    def attempt_succeeded(self, attempt: "_Attempt", connection: Connection) -> None:
        """A new connection, ready for use."""
        self._attempts.discard(attempt)
        self._failures = 0
        lasted = self._outage.succeeded(self.clock.seconds())
        if lasted is not None:
            self._log.info(
                "{name}: connected again after {seconds} s", name=self._name, seconds=round(lasted, 1)
            )
        self._connections.append(connection)
        self.ready(connection)

    # What connections tell.

    def ready(self, connection: Connection) -> None:
        waiting = self._waiting
        while waiting and connection.room > 0:
            exchange = waiting.popitem(last=False)[0]
            connection.send(exchange)
        if self._closing and not waiting:
            self._check_closed()

    def done(self, exchange: Exchange, response: BufferedResponse) -> None:
        del self._under_way[exchange]
        exchange.result.callback(response)

    def failed(self, exchange: Exchange, reason: str) -> None:
        cut = AnswerCut(reason, exchange.code) if exchange.code else None
        self._fail(exchange, cut or ConnectionGone(reason))

    def _fail(self, exchange: Exchange, error: TryLater) -> None:
        self._under_way.pop(exchange, None)
        exchange.result.errback(error)

    def again(self, exchange: Exchange) -> None:
        exchange.tries += 1
        if exchange.tries >= MAX_TRIES:
            self._fail(exchange, ConnectionGone("sent back by the server again and again"))
            return
        connection = self._roomiest() if exchange.tries == 1 else None
        if connection is not None:
            connection.send(exchange)
            return
        # It was in front of all that wait now, whatever their number.
        self._waiting[exchange] = None
        self._waiting.move_to_end(exchange, last=False)
        if self._resend is None:
            self._resend = self.clock.callLater(RESEND_PAUSE, self._send_waiting)

    def _send_waiting(self) -> None:
        self._resend = None
        for connection in tuple(self._connections):
            self.ready(connection)

    def cancelled(self, exchange: Exchange) -> None:
        if exchange in self._under_way:
            del self._under_way[exchange]
            self._drop(exchange)

    def _drop(self, exchange: Exchange) -> bool:
        """Was it in flight?"""
        if exchange.connection is not None:
            exchange.connection.drop(exchange)
            return True
        self._waiting.pop(exchange, None)
        return False

    def leaving(self, connection: Connection, reason: str) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        self._leaving.add(connection)
        if self._closing:
            return
        if reason:
            self._log.info("{name}: {reason}; connecting anew", name=self._name, reason=reason)
        # At once: it worked until now. Whoever takes us and sends us away each time is asked less and less.
        self._short = self._short + 1 if self.clock.seconds() - self._tried < MIN_PAUSE else 0
        if self._retry is None:
            pause = 0.0 if self._short < 2 else min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(self._short - 2, 10))
            self._retry = self.clock.callLater(pause, self._connect)

    def lost(self, connection: Connection) -> None:
        self._leaving.discard(connection)
        self._check_closed()

    def _expire(self) -> None:
        self._timer = None
        now = self.clock.seconds()
        late: list[Exchange] = []
        for exchange in self._under_way:
            if exchange.deadline > now:
                self._timer = self.clock.callLater(exchange.deadline - now, self._expire)
                break
            late.append(exchange)
        # A waiting one goes at once: what is sent now has no time left for an answer.
        for exchange in late:
            if exchange.connection is None:
                self._drop(exchange)
                self._fail(exchange, NoAnswer("no free stream in time"))
        sent = [exchange for exchange in late if exchange.connection is not None]
        if sent:
            # As in xmpppush.http.agent: a reactor that stood still runs its timers before it reads, and who
            # gave up now would have what is answered in the sockets sent twice.
            self.clock.callLater(min(now - sent[0].deadline, MAX_GRACE), self._give_up, sent)

    def _give_up(self, exchanges: list[Exchange]) -> None:
        asked = set()
        for exchange in exchanges:
            if exchange not in self._under_way:
                continue
            connection, code = exchange.connection, exchange.code
            if connection is not None:
                asked.add(connection)
            self._drop(exchange)
            reason = "no answer in time"
            self._fail(exchange, AnswerCut(reason, code) if code else NoAnswer(reason))
        for connection in asked:
            connection.probe()


class _Attempt(Factory):
    """
    One connection in the making, under one time limit.

    It owns the connection until that is ready, then hands it to the client.
    """

    noisy = False

    def __init__(
        self,
        client: HTTP2Client,
        tls: IOpenSSLClientConnectionCreator | None,
        wanted: frozenset[bytes] | None,
    ) -> None:
        self.max_body = client.max_body
        self.clock = client.clock
        self._client = client
        self._tls = tls
        self._wanted = wanted
        self._connecting: Deferred[Any] | None = None
        self._connection: Connection | None = None
        self._timer = client.clock.callLater(CONNECT_TIMEOUT, self.give_up, "timed out connecting")

    def start(self, endpoint: IStreamClientEndpoint) -> None:
        """Connect."""
        factory = self if self._tls is None else _TLSFactory(self._tls, True, self, self.clock)
        self._connecting = endpoint.connect(cast(Any, factory))
        self._connecting.addErrback(self._no_connection)

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        # An endpoint that tries several addresses calls this for the one that connected.
        self._connection = Connection(self, self._tls is not None, self._wanted)
        return self._connection

    def ready(self, connection: Connection) -> None:
        if self._timer.active():
            self._timer.cancel()
            connection.owner = self._client
            self._client.attempt_succeeded(self, connection)

    def leaving(self, connection: Connection, reason: str) -> None:
        self._fail(reason)

    def _no_connection(self, failure: Failure) -> None:
        self._fail(explain(cast(BaseException, failure.value)))

    def _fail(self, reason: str) -> None:
        if self._timer.active():
            self._timer.cancel()
            self._client.attempt_failed(self, reason)

    def give_up(self, reason: str) -> None:
        """Stop connecting."""
        if self._timer.active():
            self._timer.cancel()
        self._client.attempt_failed(self, reason)
        if self._connection is not None:
            self._connection.abort(reason)
        elif self._connecting is not None:
            self._connecting.cancel()

    # Nothing is in flight before it is ready.

    def done(self, exchange: Exchange, response: BufferedResponse) -> None:
        """Never called."""

    def failed(self, exchange: Exchange, reason: str) -> None:
        """Never called."""

    def again(self, exchange: Exchange) -> None:
        """Never called."""

    def cancelled(self, exchange: Exchange) -> None:
        """Never called."""

    def lost(self, connection: Connection) -> None:
        """Its `leaving` was before."""
