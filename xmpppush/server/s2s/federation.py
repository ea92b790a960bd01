"""
Other domains: the way out for all stanzas that are not for us.

Each pair of a domain of ours and another one is a `Peer`, with a stream of its own while there is something
to send. Stanzas wait for the stream, some at a time and not for long: nobody is left without an answer. A
domain that cannot be reached is not tried again for a while, and what is for it meanwhile comes back at once.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element

from xmpppush.errors import BadStanza, NoSuchServer, TryLater
from xmpppush.http.outage import Outage
from xmpppush.http.reasons import explain
from xmpppush.jids import parse_jid
from xmpppush.metrics import Traffic
from xmpppush.server.router import Router
from xmpppush.server.s2s.dialback import DialbackKeys
from xmpppush.server.s2s.outgoing import (
    NOT_FOUND,
    TIMED_OUT,
    NotReached,
    OutgoingStream,
    StanzaStream,
    TLSSide,
    VerifyStream,
)
from xmpppush.server.s2s.policy import Policy
from xmpppush.server.s2s.targets import Target, Targets
from xmpppush.server.stream import stop_timer
from xmpppush.xep.conditions import bounced
from xmpppush.xep.namespaces import SERVER
from xmpppush.xep.xml import to_xml

CONNECT_TIMEOUT = 10.0  # seconds for each address
ATTEMPT_TIME = 45.0  # seconds; after that no further address is tried
WAIT = 30.0  # seconds that a stanza waits at the most
IDLE = 600.0  # seconds without a stanza, then a stream is closed
SWEEP = 60.0  # seconds between two looks at what is idle

MAX_STANZAS = 1000  # that wait for one peer
MAX_BYTES = 4 * 1024 * 1024
MAX_ALL_BYTES = 64 * 1024 * 1024  # that wait for all together
MAX_PEERS = 10_000
MAX_CONNECTING = 300  # streams that are being opened at a time: users choose the domains
MAX_VERIFYING = 300  # dialback keys: other servers choose those

# Seconds that a domain is left alone after a failure; doubled each time, with jitter. Its server's first sign
# of life ends it.
FIRST_DELAY, MAX_DELAY = 1.0, 60.0
MAX_LINES = 20  # about domains that are not reached, in half a minute: users choose the domains

Connect = Callable[[Target, Factory, Any], "Deferred[Any]"]


class Waiting(NamedTuple):
    """A stanza that waits for its stream until ``deadline``."""

    deadline: float
    stanza: Element
    xml: str


class Peer:
    """
    Another domain, as one of ours sees it.

    Attributes:
        stream: Ready for stanzas, or ``None``.
        until: Before that it is not tried again.
        used: When something was sent last.
    """

    _log = Logger()

    def __init__(self, federation: "Federation", local: str, remote: str) -> None:
        self.local = local
        self.remote = remote
        self.stream: StanzaStream | None = None
        self.until = 0.0
        self.used = 0.0
        self._federation = federation
        self._clock = federation.clock
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self._opening: Deferred[None] | None = None
        self._timer: Any = None
        self._failures = 0
        self._external = True
        self._why = NotReached("not tried")
        self._outage = Outage()

    @property
    def queued(self) -> int:
        """Stanzas that wait."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Could it be forgotten?"""
        return not self.is_busy and self._clock.seconds() >= self.until

    @property
    def is_busy(self) -> bool:
        """Is there a stream, or something that waits for one?"""
        return self.stream is not None or self._opening is not None or bool(self._waiting)

    def send(self, stanza: Element) -> None:
        """Send it now, or when there is a stream; or return it to its sender."""
        now = self.used = self._clock.seconds()
        stream = self.stream
        if stream is not None and not stream.is_clogged and not self._waiting:
            stream.send_xml(to_xml(stanza, SERVER))
        elif stream is None and self._opening is None and now < self.until:
            self._federation.bounce(stanza, self._why)
        else:
            self._wait(stanza, now)

    def _wait(self, stanza: Element, now: float) -> None:
        xml = to_xml(stanza, SERVER)
        federation = self._federation
        if (
            len(self._waiting) >= MAX_STANZAS
            or self._bytes + len(xml) > MAX_BYTES
            or federation.waiting_bytes + len(xml) > MAX_ALL_BYTES
        ):
            federation.bounce(stanza, NotReached("too much waits for it", "resource-constraint"))
            return
        self._waiting.append(Waiting(now + WAIT, stanza, xml))
        self._count(len(xml))
        if self._timer is None:
            self._timer = self._clock.callLater(WAIT, self._expire)
        if self.stream is not None:
            if len(self._waiting) == 1:
                self.stream.flushed().addCallback(self._is_flushed)
        elif self._opening is None:
            self._open()

    def _count(self, size: int) -> None:
        self._bytes += size
        self._federation.waiting_bytes += size

    def _expire(self) -> None:
        """What waited for too long goes back (RFC 6120 section 8.3.3.17)."""
        self._timer = None
        now = self._clock.seconds()
        while self._waiting and self._waiting[0].deadline <= now:
            self._return_first(NotReached("it takes too long"))
        if self._waiting:
            self._timer = self._clock.callLater(self._waiting[0].deadline - now, self._expire)
        elif self._opening is not None:
            # There is nobody left whom it could help.
            self._opening.cancel()
            self._not_reached(NotReached("it takes too long"))

    def _return_first(self, why: NotReached) -> None:
        waiting = self._waiting.popleft()
        self._count(-len(waiting.xml))
        self._federation.bounce(waiting.stanza, why)

    def _return_all(self, why: NotReached) -> None:
        for _ in range(len(self._waiting)):  # an answer may bring new ones
            self._return_first(why)
        self._stop_timer_if_done()

    def _stop_timer_if_done(self) -> None:
        if not self._waiting:
            stop_timer(self._timer)
            self._timer = None

    def _is_flushed(self, on_its_way: bool) -> None:
        stream = self.stream
        if stream is None:
            return
        while self._waiting and not stream.is_clogged:
            waiting = self._waiting.popleft()
            self._count(-len(waiting.xml))
            stream.send_xml(waiting.xml)
        if self._waiting:
            stream.flushed().addCallback(self._is_flushed)
        self._stop_timer_if_done()

    # The stream.

    def _open(self) -> None:
        opening = Deferred.fromCoroutine(self._reach())
        if not opening.called:
            self._opening = opening
        opening.addErrback(self._broke)

    async def _reach(self) -> None:
        try:
            stream = await self._federation.open(self.local, self.remote, self._stream)
        except NotReached as error:
            self._opening = None
            self._not_reached(error)
        else:
            self._opening = None
            self._reached(stream)

    def _broke(self, failure: Failure) -> None:
        self._opening = None
        if not failure.check(CancelledError):
            self._log.failure("no stream to {remote}", failure, remote=self.remote)
            self._not_reached(NotReached("internal error"), quiet=True)

    def _stream(self) -> StanzaStream:
        federation = self._federation
        return StanzaStream(
            self.local,
            self.remote,
            federation.policy,
            federation.tls,
            self._clock,
            federation.traffic.written,
            federation.keys,
            self._external,
            self._gone,
        )

    def _reached(self, stream: StanzaStream) -> None:
        if stream.closed:  # in the same moment
            self._not_reached(NotReached(stream.reason or "it closed the stream"))
            return
        self.stream = stream
        self.used = self._clock.seconds()
        self._failures = 0
        self.until = 0.0
        lasted = self._outage.succeeded(self.used)
        if lasted is not None:
            self._log.info(
                "{remote} is reached again for {local}, after {seconds} s: known there by our {how}",
                remote=self.remote,
                local=self.local,
                seconds=round(lasted, 1),
                how=stream.how,
            )
        else:
            self._log.info(
                "stream to {remote} for {local}: known there by our {how}, {tls}; it is {certificate}",
                remote=self.remote,
                local=self.local,
                how=stream.how,
                tls="TLS" if stream.secure else "no TLS",
                certificate=f"not proven ({stream.refusal})" if stream.refusal else "proven",
            )
        self._is_flushed(True)
        if lasted is not None:
            self._federation.back(self.remote)

    def _not_reached(self, error: NotReached, quiet: bool = False) -> None:
        now = self._clock.seconds()
        self._why = error
        delay = min(MAX_DELAY, FIRST_DELAY * 2 ** min(self._failures, 16))
        self._failures += 1
        self.until = now + delay * (0.5 + self._federation.random.random() / 2)
        if not quiet and self._outage.failed(str(error), now):
            self._federation.say_not_reached(self.local, self.remote, str(error))
        self._return_all(error)

    def _gone(self, stream: StanzaStream) -> None:
        if self.stream is not stream:
            return
        self.stream = None
        if self._waiting and not self._federation.stopping:
            self._open()

    def refused_external(self) -> None:
        """They end the stream over our certificate: it is dialback from now on."""
        self._external = False

    @property
    def tries_external(self) -> bool:
        return self._external

    def is_alive(self) -> None:
        """Its server talks to us: try it at once next time."""
        if self.stream is None:
            self.until, self._failures = 0.0, 0

    def close(self) -> None:
        """Say goodbye, and return what waits."""
        self._return_all(NotReached("the server is stopping"))
        if self._opening is not None:
            self._opening.cancel()
        if self.stream is not None:
            self.stream.close()


class Federation(Service):
    """
    The router's way to all domains that are not here.

    Attributes:
        traffic: Stanzas that were sent.
        waiting_bytes: Of all stanzas that wait.
        bounces: How many stanzas were returned, by condition.
    """

    name = "s2s"
    _log = Logger()

    def __init__(
        self,
        router: Router,
        targets: Targets,
        policy: Policy,
        tls: TLSSide,
        keys: DialbackKeys,
        clock: Any,
        random: Random,
        connect: Connect | None = None,
        back: Callable[[str], object] = lambda _: None,
    ) -> None:
        """
        Args:
            back: Told of each domain that is reached again, or whose server shows that it is up.
            connect: Connects a factory to a target, with TLS at once where the last argument is not
                ``None``; TCP unless a test has something else.
        """
        self.policy = policy
        self.tls = tls
        self.keys = keys
        self.clock = clock
        self.random = random
        self.traffic = Traffic()
        self.waiting_bytes = 0
        self.bounces: dict[str, int] = {}
        self.stopping = False
        self.back = back
        self._router = router
        self._targets = targets
        self._connect = connect or partial(connect_tcp, clock)
        self._peers: dict[tuple[str, str], Peer] = {}
        self._slots = DeferredSemaphore(MAX_CONNECTING)
        self._verifying = DeferredSemaphore(MAX_VERIFYING)
        self._sweeper: Any = None
        self._lines = 0
        self._lines_until = float("-inf")
        router.elsewhere = self

    # The service.

    def startService(self) -> None:
        super().startService()
        self.stopping = False
        self._sweeper = self.clock.callLater(SWEEP, self._sweep)

    def stopService(self) -> "Deferred[Any] | None":
        """Fires when all streams are closed."""
        super().stopService()
        self.stopping = True
        stop_timer(self._sweeper)
        for peer in list(self._peers.values()):
            peer.close()
        return None

    def _sweep(self) -> None:
        now = self.clock.seconds()
        for key, peer in list(self._peers.items()):
            if peer.stream is not None and now - peer.used >= IDLE and not peer.queued:
                peer.stream.close()
            # Its back-off is worth remembering for a while longer than it lasts.
            if peer.is_idle and now - max(peer.used, peer.until) >= SWEEP:
                del self._peers[key]
        self._sweeper = self.clock.callLater(SWEEP, self._sweep)

    @property
    def streams(self) -> int:
        """Ready for stanzas."""
        return sum(peer.stream is not None for peer in self._peers.values())

    @property
    def queued(self) -> int:
        """Stanzas that wait."""
        return sum(peer.queued for peer in self._peers.values())

    # Stanzas.

    def send(self, stanza: Element) -> None:
        """The router's way out."""
        try:
            local = parse_jid(stanza.getAttribute("from", "")).host
        except BadStanza:
            local = ""
        if local not in self._router.routes:
            # Ours to get right: nobody speaks for other domains through us.
            self._log.error("stanza from a domain that is not here dropped: {name}", name=stanza.name)
            return
        remote = parse_jid(stanza["to"]).host
        peer = self._peers.get((local, remote))
        if peer is None:
            if not self.policy.permits(remote):
                self.bounce(stanza, NotReached("not permitted by [s2s]", NOT_FOUND))
                return
            if len(self._peers) >= MAX_PEERS:
                self._forget_failed()
            if self.stopping or len(self._peers) >= MAX_PEERS:
                self.bounce(stanza, NotReached("too many domains", "resource-constraint"))
                return
            peer = self._peers[local, remote] = Peer(self, local, remote)
        peer.send(stanza)

    def _forget_failed(self) -> None:
        """Better to try some domain again too early than none at all."""
        for key, peer in list(self._peers.items()):
            if not peer.is_busy:
                del self._peers[key]

    def bounce(self, stanza: Element, why: NotReached) -> None:
        """Return a stanza to its sender, as far as that may be (RFC 6120 section 8.3, RFC 6121 section 8)."""
        self.bounces[why.condition] = self.bounces.get(why.condition, 0) + 1
        kind = stanza.attributes.get("type")
        if stanza.name == "presence" and kind in ("unavailable", "probe"):
            return
        wait = None if why.condition == NOT_FOUND else "wait"
        reply = bounced(stanza, StanzaError(why.condition, wait), str(why))
        if reply is not None:
            self._router.route(reply)

    def heard_from(self, remote: str) -> None:
        """The server of this domain has shown who it is."""
        for (_, other), peer in self._peers.items():
            if other == remote:
                peer.is_alive()
        self.back(remote)

    # Streams.

    async def open(self, local: str, remote: str, make: Callable[[], StanzaStream]) -> Any:
        """
        A stream to one of the servers of a domain, tried one after the other.

        Returns:
            What the stream's ``done`` fires with.

        Raises:
            NotReached: With what the last of them said.
        """
        return await self._slots.run(lambda: Deferred.fromCoroutine(self._try_all(local, remote, make)))

    async def _try_all(self, local: str, remote: str, make: Callable[[], Any]) -> Any:
        deadline = self.clock.seconds() + ATTEMPT_TIME
        try:
            targets = await self._targets.lookup(remote)
        except NoSuchServer as error:
            raise NotReached(f"DNS: {error}", NOT_FOUND) from error
        except TryLater as error:
            raise NotReached(f"DNS: {error.reason}") from error
        last = NotReached("no address")
        for target in targets:
            stream = make()
            try:
                return await self._try(target, stream)
            except NotReached as error:
                last = error
            if getattr(stream, "external_failed", False):
                # Some end the stream where they find the certificate wanting.
                peer = self._peers.get((local, remote))
                if peer is not None and peer.tries_external:
                    peer.refused_external()
                    try:
                        return await self._try(target, make())
                    except NotReached as error:
                        last = error
            if self.clock.seconds() >= deadline:
                break
        self._targets.forget(remote)
        raise last

    async def _try(self, target: Target, stream: OutgoingStream) -> Any:
        factory: Any = Factory.forProtocol(lambda: stream)
        factory.noisy = False
        options = self.tls.outgoing(stream.local, stream.remote, True) if target.direct_tls else None
        where = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
        try:
            await self._connect(target, factory, options)
        except CancelledError:
            raise
        except Exception as error:
            raise NotReached(f"{explain(error)} ({where})", TIMED_OUT) from error
        try:
            return await stream.done
        except NotReached as error:
            raise NotReached(f"{error} ({where})", error.condition) from error

    async def _verify(self, receiving: str, originating: str, stream_id: str, key: str) -> str:
        def make() -> VerifyStream:
            return VerifyStream(
                receiving,
                originating,
                self.policy,
                self.tls,
                self.clock,
                self.traffic.written,
                stream_id,
                key,
            )

        answer: str = await self._try_all(receiving, originating, make)
        return answer

    def verify(self, receiving: str, originating: str, stream_id: str, key: str) -> "Deferred[str]":
        """Ask a domain's own server about a dialback key; see `ServerSide`."""
        return self._verifying.run(
            lambda: Deferred.fromCoroutine(self._verify(receiving, originating, stream_id, key))
        )

    def say_not_reached(self, local: str, remote: str, reason: str) -> None:
        """One line, but not thousands of them."""
        now = self.clock.seconds()
        if now >= self._lines_until:
            self._lines, self._lines_until = 0, now + 30.0
        self._lines += 1
        if self._lines <= MAX_LINES:
            self._log.warn(
                "{remote} is not reached for {local}: {reason}; what is sent there is returned until it is",
                remote=remote,
                local=local,
                reason=reason,
            )


def connect_tcp(reactor: Any, target: Target, factory: Factory, options: Any) -> "Deferred[Any]":
    """Over TCP, with TLS at once where there are options for it (XEP-0368)."""
    kind = TCP6ClientEndpoint if ":" in target.host else TCP4ClientEndpoint
    endpoint: Any = kind(reactor, target.host, target.port, timeout=CONNECT_TIMEOUT)
    if options is not None:
        endpoint = wrapClientTLS(options, endpoint)
    connecting: Deferred[Any] = endpoint.connect(factory)
    return connecting
