"""
``[listen:NAME]`` of type component: other people's components attach to this server (XEP-0114).

A component proves with a secret that it is a domain; from then on what is for that domain goes to it, and
what it sends is from there. `AttachedComponents` has the domains, with or without somebody behind them, for
all listeners together; `ComponentFactory` has the connections of one. (`xmpppush.server.component` is the
other way round: this process attached to somebody else's server.)
"""

import fcntl
import hashlib
import hmac
import sys
import termios
from collections.abc import Callable, Mapping
from random import Random, SystemRandom
from typing import Any
from xml.sax.saxutils import quoteattr

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element

from xmpppush.config.sections import LimitsSection, ListenSection
from xmpppush.errors import AppServerUnreachable, BadStanza, PushError
from xmpppush.jids import parse_jid
from xmpppush.server.component import condition_in, in_words, keep_alive
from xmpppush.server.component_parser import ComponentParser
from xmpppush.server.parser import BEFORE_AUTHENTICATION, StreamFault
from xmpppush.server.router import Router
from xmpppush.server.rules import check_iq
from xmpppush.server.stream import BACKLOG, RATE, XMPPStream, stop_timer
from xmpppush.server.throttle import Allowance
from xmpppush.xep.conditions import bounced, error_reply
from xmpppush.xep.namespaces import CLIENT, COMPONENT, STREAMS

BURST = 10  # seconds' worth of stanzas that may come at once
READ_SIZE = 16 * 1024
RESCANS = 32  # times the stanza size that expat may look at the same unfinished tag again
MAX_STRANGERS = 100  # connections of one listener before their handshake
STOP_TIMEOUT = 3.0  # seconds for all components to say goodbye
# How long a component that is there already has to show a sign of life when another one comes, in seconds.
# Over loopback and most networks it does so at the first look.
LOOK_EVERY, LOOKS = 0.5, 10
MAX_SAID = 1000  # refusals that are remembered, so that each is told once

_STANZAS = ("message", "presence", "iq")


class AttachedDomain:
    """
    The domain of a component, as the router knows it.

    Attributes:
        connection: Of the component, ``None`` while it is not there.
    """

    _log = Logger()

    def __init__(
        self,
        domain: str,
        router: Router,
        clock: Any,
        gone: Callable[[str], object],
        back: Callable[[str], object],
    ) -> None:
        self.domain = domain
        self._gone, self._back = gone, back
        self.connection: ComponentConnection | None = None
        self._router = router
        self._clock = clock
        self._newcomer: ComponentConnection | None = None
        self._look: Any = None

    def send(self, stanza: Element) -> None:
        """
        The router's way to the component.

        Where it is absent the sender is told, as Prosody does, that it may come back; nothing is kept.
        """
        if self.connection is not None:
            self.connection.send(stanza)
            return
        if stanza.attributes.get("type") != "unavailable":
            reply = bounced(stanza, AppServerUnreachable("the component is not connected"))
            if reply is not None:
                self._router.route(reply)

    def claim(self, connection: "ComponentConnection") -> None:
        """
        Somebody has the right secret. Of two the first one stays (XEP-0114 section 3: ``conflict``).

        But a component whose machine or network went away is known to be gone much later than it is back:
        so the other side of the old connection has to acknowledge an octet first.

        Raises:
            StreamFault: One newcomer waits for that already.
        """
        if self.connection is None:
            self._attach(connection)
            return
        if self._newcomer is not None and not self._newcomer.closed:
            raise StreamFault("conflict", "another component is connected as this domain")
        self._newcomer = connection
        self.connection.probe()
        self._look = self._clock.callLater(LOOK_EVERY, self._look_again, LOOKS - 1)

    def _look_again(self, looks: int) -> None:
        before, newcomer = self.connection, self._newcomer
        if newcomer is None or newcomer.closed:
            self._newcomer = None
        elif before is None or newcomer is before:
            return
        elif before.is_acknowledged:
            self._newcomer = None
            newcomer.refuse(StreamFault("conflict", "another component is connected as this domain"))
        elif looks:
            self._look = self._clock.callLater(LOOK_EVERY, self._look_again, looks - 1)
        else:
            before.abandon("it does not answer, and a new one is there")

    def released(self, connection: "ComponentConnection") -> None:
        """A connection ended."""
        if connection is self._newcomer:
            self._newcomer = None
            stop_timer(self._look)
        if connection is not self.connection:
            return
        self.connection = None
        self._log.warn(
            "component {domain} at {address} is gone: {reason}",
            domain=self.domain,
            address=connection.address,
            reason=connection.reason or "the stream was closed",
        )
        self._gone(self.domain)
        if self._newcomer is not None:
            self._attach(self._newcomer)

    def _attach(self, connection: "ComponentConnection") -> None:
        stop_timer(self._look)
        self._newcomer = None
        self.connection = connection
        self._log.info(
            "component {domain} is attached, from {address}", domain=self.domain, address=connection.address
        )
        connection.admitted(self)
        self._back(self.domain)


class AttachedComponents:
    """
    All domains that components may attach as.

    Args:
        gone: Called with a domain whose component went, and with it whatever it was about to answer.
        back: Called with a domain whose component came.

    Attributes:
        router: Gets a route for each of them, whether its component is there or not: a stanza for it must
            not go looking for the domain elsewhere.
    """

    def __init__(
        self, router: Router, clock: Any, gone: Callable[[str], object], back: Callable[[str], object]
    ) -> None:
        self.router = router
        self._gone, self._back = gone, back
        self._clock = clock
        self._domains: dict[str, AttachedDomain] = {}

    def domain(self, name: str) -> AttachedDomain:
        """The domain of that name, made if it is new."""
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = AttachedDomain(
                name, self.router, self._clock, self._gone, self._back
            )
            self.router.routes[name] = domain
        return domain

    def __contains__(self, name: str) -> bool:
        """May a component attach as this domain?"""
        return name in self._domains

    @property
    def names(self) -> list[str]:
        """The domains whose components are there."""
        return [name for name, is_there in self.present.items() if is_there]

    @property
    def present(self) -> Mapping[str, bool]:
        """Each domain, and whether its component is there."""
        return {name: domain.connection is not None for name, domain in sorted(self._domains.items())}

    @property
    def addresses(self) -> Mapping[str, str]:
        """Each domain, and where its component connected from, ``""`` where it is not there."""
        return {
            name: domain.connection.address if domain.connection is not None else ""
            for name, domain in sorted(self._domains.items())
        }


class ComponentConnection(XMPPStream):
    """
    One component, from its first octet on.

    Attributes:
        attached: The domain that it is, ``None`` before its handshake was taken.
        wanted: The domain that it says it is.
        reason: Why it ended, as far as it is known.
    """

    namespace = COMPONENT
    wanted = ""
    attached: AttachedDomain | None = None
    reason = ""

    _log = Logger()
    _id = ""
    _strange = 0
    _received = 0
    _reread = 0
    _claimed: AttachedDomain | None = None
    _timeout: Any = None
    _rate_timer: Any = None

    def __init__(self, factory: "ComponentFactory") -> None:
        self._factory = factory
        rate = factory.limits.component_stanzas_per_second
        self._allowance = Allowance(rate, BURST * rate, factory.clock.seconds())
        super().__init__(factory.listen.secrets.keys(), factory.clock, factory.random)

    # The connection.

    def connectionMade(self) -> None:
        super().connectionMade()
        transport: Any = self.transport
        getattr(transport, "transport", transport).bufferSize = READ_SIZE
        keep_alive(getattr(transport, "transport", transport))
        limit = self._factory.limits.unauthenticated_timeout
        self._timeout = self._clock.callLater(limit, self._timed_out)

    def dataReceived(self, data: bytes) -> None:
        if self.attached is None and not self.closed:
            self._strange += len(data)
            if self._strange > BEFORE_AUTHENTICATION:
                self.refuse(StreamFault("policy-violation", "too much before the handshake"))
                return
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = self.reason or f"connection lost: {in_words(reason)}"
        super().connectionLost(reason)
        self._factory.lost(self)

    def streamRefused(self, fault: StreamFault) -> None:
        self.reason = str(fault)
        if self.attached is None:
            self._factory.refused(self, fault)

    def streamClosed(self) -> None:
        stop_timer(self._timeout)
        stop_timer(self._rate_timer)
        if self._claimed is not None:
            self._claimed.released(self)

    def abandon(self, reason: str) -> None:
        """Cut it off without a word: nobody is there to hear one."""
        if not self.closed:
            self.reason = reason
            self._abandon()

    def _abandon(self) -> None:
        self.reason = self.reason or "it does not read what it gets"
        super()._abandon()

    def _timed_out(self) -> None:
        self.refuse(StreamFault("connection-timeout", "no handshake for too long"))

    # Is anybody there?

    def probe(self) -> None:
        """Send an octet that means nothing (RFC 6120 section 4.6.1)."""
        if not self.closed:
            self.transport.write(b" ")  # type: ignore[union-attr]

    @property
    def is_acknowledged(self) -> bool:
        """Did the other side's system acknowledge all that was sent?"""
        return not self._factory.unacknowledged(self.transport)

    # The beginning (XEP-0114 section 3). There are no features, so there is no STARTTLS.

    def _new_parser(self, max_size: int, keepalives: bool = False) -> Any:
        size = self._factory.listen.max_stanza_size
        return ComponentParser(
            self._header, self.elementReceived, self._footer, self._too_much, size, COMPONENT
        )

    def _header(self, header: Element) -> None:
        if header.uri != STREAMS or header.defaultUri != COMPONENT:
            raise StreamFault("invalid-namespace")
        if header.name != "stream":
            raise StreamFault("bad-format", "no stream")
        to = header.attributes.get("to")
        if not to:
            raise StreamFault("improper-addressing", "'to' is the domain of the component")
        self.wanted = to if to.isprintable() else ""
        domain = self._domain_of(to)
        if domain is None:
            raise StreamFault("host-unknown", "no secret is configured for that domain")
        self.domain = domain
        self._send_header("")

    def _send_header(self, to: str) -> None:
        # No version: with one, some would wait for features.
        self._header_sent = True
        self._id = self._random(16).hex()
        sender = f" from={quoteattr(self.domain)}" if self.domain else ""
        self.send_xml(
            f"<?xml version='1.0'?><stream:stream xmlns='{COMPONENT}' xmlns:stream='{STREAMS}'"
            f" id='{self._id}'{sender}>"
        )

    def _handshake(self, given: str) -> None:
        secret = self._factory.listen.secrets[self.domain]
        proof = hashlib.sha1((self._id + secret).encode()).hexdigest()  # noqa: S324 - the XEP knows no other
        if not hmac.compare_digest(proof.encode(), given.strip().encode()):
            raise StreamFault("not-authorized", "wrong secret")
        self._claimed = self._factory.components.domain(self.domain)
        try:
            self._claimed.claim(self)
        except StreamFault:
            self._claimed = None
            raise

    def admitted(self, domain: AttachedDomain) -> None:
        """The domain is this component's."""
        stop_timer(self._timeout)
        self.attached = domain
        self._factory.admitted(self)
        self.send_xml("<handshake/>")

    # Stanzas.

    def elementReceived(self, element: Element) -> None:
        if element.uri == STREAMS and element.name == "error":
            self.reason = f"it says {condition_in(element)}"
            self.close()
        elif self.attached is not None:
            self._stanza(element)
        elif element.uri is None and element.name == "handshake" and self._claimed is None:
            self._handshake(str(element))
        else:
            raise StreamFault("not-authorized")

    def _too_much(self, stanza: Element | None) -> None:
        if self.attached is None:
            raise StreamFault("policy-violation")
        self._received += 1
        if stanza is not None and stanza.uri is None and stanza.name in _STANZAS:
            # A gateway passes on what strangers send: one of them must not end it for all.
            self._answer(stanza, StanzaError("policy-violation", "modify", text="the stanza is too large"))

    def _stanza(self, stanza: Element) -> None:
        """Check what came (XEP-0114 section 3, RFC 6120 section 8.1), and pass it on."""
        self._received += 1
        if stanza.uri is not None or stanza.name not in _STANZAS:
            if stanza.name in _STANZAS:
                raise StreamFault("invalid-namespace")
            raise StreamFault("unsupported-stanza-type")
        sender, to = stanza.attributes.get("from"), stanza.attributes.get("to")
        if not sender or not to:
            raise StreamFault("improper-addressing", "'from' and 'to' are required")
        try:
            host = parse_jid(sender).host
        except BadStanza:
            host = None
        if host != self.domain:
            raise StreamFault("invalid-from")
        for child in stanza.children:
            if type(child) is not str and child.uri == CLIENT:
                make_own(child)
        raw = stanza.__dict__.get("raw")
        if raw is not None and b"jabber:component:" in raw:
            # As it is written it would be of another namespace for whoever gets it.
            del stanza.__dict__["raw"]
        try:
            parse_jid(to)
            if stanza.name == "iq":
                check_iq(stanza)
            self._factory.components.router.route(stanza)
        except PushError as error:
            self._answer(stanza, error)
        except Exception as error:
            self._log.failure("a stanza of component {domain} could not be handled", domain=self.domain)
            self._answer(stanza, error)

    def _answer(self, stanza: Element, error: Exception) -> None:
        reply = error_reply(stanza, error)
        if reply is not None:
            self.send(reply)

    # Not faster than the server likes.

    def segmentReceived(self) -> None:
        parser: Any = self._parser
        if self.closed:
            return
        unread = parser.unread
        self._reread = self._reread + unread if unread else 0
        size = self._factory.listen.max_stanza_size
        if unread > size or self._reread > RESCANS * size:
            # No stanza that could be answered, so it is the component's own doing.
            self.refuse(StreamFault("policy-violation", "a tag that is too large, or in too many pieces"))
            return
        if parser.is_worn:
            self._parser = parser.renewed()
        received, self._received = self._received, 0
        if not received:
            return
        wait = self._allowance.take(received, self._clock.seconds())
        if wait and self._rate_timer is None:
            self.pause(RATE)
            self._rate_timer = self._clock.callLater(wait, self._rate_over)
        backlog = self._factory.backlog
        relieved = backlog() if backlog is not None else None
        if relieved is not None and not relieved.called:
            self.pause(BACKLOG)
            relieved.addBoth(self._backlog_over)

    def _rate_over(self) -> None:
        self._rate_timer = None
        self.resume(RATE)

    def _backlog_over(self, result: object) -> None:
        if not self.closed:
            self.resume(BACKLOG)


class ComponentFactory(ServerFactory):
    """
    Component connections of one listener.

    Args:
        listen: Which domains may attach here, by which secrets.
        components: Those of all listeners.
        random: For stream ids; `SystemRandom` unless a test wants to know them.
        backlog: As `C2SFactory`'s.
        unacknowledged: How many octets the other side of a transport has not acknowledged yet.

    Attributes:
        connections: All of them, attached or not.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        listen: ListenSection,
        limits: LimitsSection,
        components: AttachedComponents,
        clock: IReactorTime,
        random: Random | None = None,
        backlog: Callable[[], "Deferred[Any] | None"] | None = None,
        unacknowledged: Callable[[Any], int] | None = None,
    ) -> None:
        self.listen = listen
        self.limits = limits
        self.components = components
        self.clock = clock
        self.random = (random or SystemRandom()).randbytes
        self.backlog = backlog
        self.unacknowledged = unacknowledged or octets_unacknowledged
        self.connections: set[ComponentConnection] = set()
        self._strangers: dict[ComponentConnection, None] = {}  # the one that came first is the first
        self._said: set[tuple[str, str]] = set()
        self._stopped: Deferred[None] | None = None
        self._stop_timer: Any = None
        for domain in listen.secrets:
            components.domain(domain)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        connection = ComponentConnection(self)
        connection.factory = self
        self.connections.add(connection)
        self._strangers[connection] = None
        if len(self._strangers) > MAX_STRANGERS:
            # The handshake of a component takes a moment. Who had more than that has to go.
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.refuse(StreamFault("resource-constraint", "too many connections without a handshake"))
        return connection

    def admitted(self, connection: ComponentConnection) -> None:
        """A connection is a component's."""
        self._strangers.pop(connection, None)
        self._said = {(domain, condition) for domain, condition in self._said if domain != connection.domain}

    def refused(self, connection: ComponentConnection, fault: StreamFault) -> None:
        """A connection did not get as far: one line for a reason, until it works."""
        domain = connection.domain or connection.wanted[:253]
        what = (domain, fault.condition)
        if what in self._said or len(self._said) >= MAX_SAID:
            return
        self._said.add(what)
        self._log.warn(
            "[listen:{name}] component {domain} at {address} refused: {reason}",
            name=self.listen.name,
            domain=domain or "without a name",
            address=connection.address,
            reason=str(fault),
        )

    def lost(self, connection: ComponentConnection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self._strangers.pop(connection, None)
        if self._stopped is not None and not self.connections:
            self._finish()

    def close_all(self) -> "Deferred[None]":
        """
        End all streams with ``system-shutdown``.

        Returns:
            Fires when all are gone, after 3 seconds at the latest.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            self._stop_timer = self.clock.callLater(STOP_TIMEOUT, self._abort_all)
            for connection in list(self.connections):
                connection.reason = connection.reason or "the server stops"
                connection.close("system-shutdown")
            if not self.connections:
                self._finish()
        fired: Deferred[None] = Deferred()
        self._stopped.chainDeferred(fired)
        return fired

    def _abort_all(self) -> None:
        for connection in list(self.connections):
            connection.transport.abortConnection()  # type: ignore[union-attr]
        self._finish()

    def _finish(self) -> None:
        stop_timer(self._stop_timer)
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)


def make_own(element: Element) -> None:
    """
    An element of ``jabber:client`` in a component's stanza: one of the stanza's own namespace, that is.

    slixmpp writes bodies and errors so, and both are meant.
    """
    element.uri = element.defaultUri = None
    for child in element.children:
        if type(child) is not str and child.uri == CLIENT:
            make_own(child)


def octets_unacknowledged(transport: Any) -> int:
    """What the other side's system has not acknowledged of what was sent; 0 where nobody can tell."""
    try:
        handle = getattr(transport, "transport", transport).getHandle()  # below direct TLS
        answer = fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError, ValueError):
        return 0
    return int.from_bytes(answer, sys.byteorder)
