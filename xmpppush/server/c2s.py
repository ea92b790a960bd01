"""
Client connections (RFC 6120): TLS, login, resource binding, and then stanzas for the server behind.

A connection takes care of everything that one client can do wrong; `ISessionHost` gets stanzas that are
what they should be, from whom they say.
"""

from collections import Counter, deque
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any
from xml.sax.saxutils import escape

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.certificates import CertificateStore
from xmpppush.config.sections import AuthSection, C2SSection, LimitsSection, ListenSection
from xmpppush.errors import BadStanza, ConfigError, NotAllowed, PushError
from xmpppush.interfaces import IAuthenticator, ISessionHost
from xmpppush.jids import BadJid, parse_jid
from xmpppush.metrics import Traffic
from xmpppush.server import sasl, sm
from xmpppush.server.parser import StreamFault
from xmpppush.server.rules import check_iq
from xmpppush.server.sasl import SASLFailure
from xmpppush.server.session import Session
from xmpppush.server.sm import StreamManagement
from xmpppush.server.stream import BACKLOG, LOGIN, RATE, XMPPStream, host_of, stop_timer
from xmpppush.server.throttle import Throttle, network_of
from xmpppush.xep.conditions import error_reply
from xmpppush.xep.namespaces import BIND, CSI, SASL, SESSION, SM, STREAMS, TLS

BURST = 10  # seconds' worth of stanzas that may come at once
STOP_TIMEOUT = 3.0  # seconds for all clients to say goodbye
MAX_FAILURES = 5  # of one connection, where [auth] max_failures is 0

_STANZAS = ("message", "presence", "iq")


@implementer(IHandshakeListener)
class C2SConnection(XMPPStream):
    """
    One client, from its first octet on.

    Attributes:
        network: What its address counts as, for limits; ``""`` while it does not count.
        account: Bare JID, set when the client is logged in.
        full: Full JID, set when the resource is bound.
        session: What it is to the server, ``None`` before.
    """

    network = ""
    account = ""
    full = ""
    session: Session | None = None

    _log = Logger()
    _handshaking = False
    _failures = 0
    _awaited: "Deferred[Any] | None" = None
    _answer: "Deferred[bytes] | None" = None
    _received = 0
    _rate_timer: Any = None
    _timeout: Any = None

    def __init__(self, factory: "C2SFactory") -> None:
        self._factory = factory
        self._receive: Callable[[Element], None] = self._negotiate
        self._rate = factory.limits.c2s_stanzas_per_second
        self._tokens = float(BURST * self._rate)
        self._refilled = factory.clock.seconds()
        # Numbers of the stanzas before each <r/> that is not answered yet.
        self._acks_wanted: deque[int] = deque()
        self._stanzas = factory.traffic.received
        super().__init__(factory.host.domains, factory.clock, factory.random, factory.traffic.written)

    # The connection.

    def connectionMade(self) -> None:
        super().connectionMade()
        self._handshaking = self.secure
        limit = self._factory.limits.unauthenticated_timeout
        self._timeout = self._clock.callLater(limit, self._timed_out)

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        self._handshaking = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._handshaking and not self.closed:
            self._log.info(
                "TLS handshake with {address} failed: {reason}", address=self.address, reason=_why(reason)
            )
        super().connectionLost(reason)
        self._factory.lost(self)

    def streamClosed(self) -> None:
        stop_timer(self._timeout)
        stop_timer(self._rate_timer)
        if self._awaited is not None:
            self._awaited.cancel()
        session = self.session
        if session is not None and session.connection is self:
            # Not only when the connection is gone: what is sent to a closed stream would be lost.
            if self.broken and session.is_resumable:
                self._factory.host.broken(session)
            else:
                self._factory.host.unbind(session)

    def streamRefused(self, fault: StreamFault) -> None:
        # Who is no client, or tries TLS at once before STARTTLS, as some clients do at each login.
        is_noise = not self.domain and fault.condition == "not-well-formed"
        self._log.emit(
            LogLevel.debug if is_noise else LogLevel.info,
            "stream of {user} at {address} refused: {reason}",
            user=self.full or self.account or "a client without login",
            address=self.address,
            reason=str(fault),
        )

    def _timed_out(self) -> None:
        self.refuse(StreamFault("connection-timeout", "not logged in for too long"))

    def streamStarted(self, header: Element) -> None:
        if not self.network and not self._factory.admit(self):
            raise StreamFault("policy-violation", "too many connections of this address")
        if self.account:
            features = (
                f"<bind xmlns='{BIND}'/><session xmlns='{SESSION}'><optional/></session>"
                f"<sm xmlns='{SM}'/><csi xmlns='{CSI}'/>"
            )
        else:
            features = self._starttls_feature() + self._mechanisms_feature()
        self.send_xml(f"<stream:features>{features}</stream:features>")

    def elementReceived(self, element: Element) -> None:
        if element.uri == STREAMS and element.name == "error":
            self.close()  # RFC 6120 section 4.9.1.1; an error is not answered with an error
            return
        self._receive(element)

    # TLS (RFC 6120 section 5).

    @property
    def _tls(self) -> str:
        return "none" if self.secure else self._factory.listen.tls

    def _starttls_feature(self) -> str:
        if self._tls == "required":
            return f"<starttls xmlns='{TLS}'><required/></starttls>"
        return f"<starttls xmlns='{TLS}'/>" if self._tls == "optional" else ""

    def _negotiate(self, element: Element) -> None:
        if element.uri == SASL and element.name == "auth":
            self._auth(element)
        elif element.uri == SASL and element.name in ("response", "abort"):
            self._fail_login(SASLFailure("malformed-request", "no login is going on"))
        elif element.uri == TLS and element.name == "starttls":
            self._starttls()
        else:
            raise StreamFault("not-authorized")

    def _starttls(self) -> None:
        options = None
        if self._tls in ("required", "optional"):
            try:
                options = self._factory.certificates.server_options(self.domain)
            except ConfigError as error:
                self._log.error("no TLS for {domain}: {reason}", domain=self.domain, reason=str(error))
        if options is None:
            self.send_xml(f"<failure xmlns='{TLS}'/>")
            self.close()
            return
        self.send_xml(f"<proceed xmlns='{TLS}'/>")
        self.restart()
        self.secure = self._handshaking = True
        self.transport.startTLS(options)  # type: ignore[union-attr]

    # Login (RFC 6120 section 6).

    def _mechanisms(self) -> list[str]:
        if self._tls == "required":
            return []
        auth = self._factory.auth
        plain = self.secure or auth.allow_plain_without_tls
        return [name for name in auth.mechanisms if name in sasl.SCRAM or (name == sasl.PLAIN and plain)]

    def _mechanisms_feature(self) -> str:
        names = "".join(f"<mechanism>{name}</mechanism>" for name in self._mechanisms())
        return f"<mechanisms xmlns='{SASL}'>{names}</mechanisms>" if names else ""

    def _auth(self, element: Element) -> None:
        mechanism = element.attributes.get("mechanism", "")
        try:
            if mechanism not in self._mechanisms():
                if mechanism in self._factory.auth.mechanisms and not self.secure:
                    raise SASLFailure("encryption-required")
                raise SASLFailure("invalid-mechanism")
            self._check_throttle("")
            initial = sasl.decode(str(element))
        except SASLFailure as failure:
            self._fail_login(failure)
            return
        self._receive = self._authenticating
        Deferred.fromCoroutine(self._log_in(mechanism, initial)).addErrback(self._login_broke)

    def _authenticating(self, element: Element) -> None:
        answer, self._answer = self._answer, None
        if answer is None or element.uri != SASL or element.name not in ("response", "abort"):
            raise StreamFault("policy-violation", "one step of a login at a time")
        try:
            if element.name == "abort":
                raise SASLFailure("aborted")
            data = sasl.decode(str(element)) or b""
        except SASLFailure as failure:
            answer.errback(failure)
        else:
            answer.callback(data)

    async def _log_in(self, mechanism: str, initial: bytes | None) -> None:
        account = ""
        try:
            if initial is None:
                initial = await self._challenge(b"")
            if mechanism == sasl.PLAIN:
                login = sasl.read_plain(initial, self.domain)
                account = login.account
                self._check_throttle(account)
                authenticator = self._factory.authenticator
                fits = await self._look_up(authenticator.check_password(account, login.password))
                # Again, for those who try many passwords at the same time: none of them gets an answer.
                self._check_throttle(account)
                if not fits:
                    raise SASLFailure("not-authorized")
                last = b""
            else:
                exchange = sasl.Scram(mechanism, self.domain, self._factory.secret, self._random)
                account = exchange.first(initial)
                self._check_throttle(account)
                keys = await self._look_up(self._factory.authenticator.keys(account, mechanism))
                proof = await self._challenge(exchange.challenge(keys))
                self._check_throttle(account)
                last = exchange.final(proof)
        except SASLFailure as failure:
            self._fail_login(failure, account)
        else:
            self._logged_in(account, mechanism, last)

    async def _challenge(self, data: bytes) -> bytes:
        content = sasl.encode(data) if data else ""
        self.send_xml(f"<challenge xmlns='{SASL}'>{content}</challenge>")
        self._answer = Deferred()
        return await self._wait_for(self._answer)

    async def _look_up(self, found: "Deferred[Any]") -> Any:
        if found.called:
            return await found
        # Nothing that comes meanwhile could be understood yet.
        self.pause(LOGIN)
        try:
            return await self._wait_for(found)
        finally:
            if not self.closed:
                self.resume(LOGIN)

    async def _wait_for(self, awaited: "Deferred[Any]") -> Any:
        self._awaited = awaited
        try:
            return await awaited
        finally:
            self._awaited = None

    def _login_broke(self, failure: Failure) -> None:
        if self.closed:
            return
        self._log.failure("a login from {address} could not be checked", failure, address=self.address)
        self._fail_login(SASLFailure("temporary-auth-failure"))

    def _check_throttle(self, account: str) -> None:
        now = self._clock.seconds()
        factory = self._factory
        if factory.addresses.is_blocked(network_of(self.address), now) or (
            account and factory.accounts.is_blocked(account, now)
        ):
            raise SASLFailure("temporary-auth-failure", "too many failures, try again later")

    def _fail_login(self, failure: SASLFailure, account: str = "") -> None:
        if self.closed:
            return
        self._receive = self._negotiate
        text = f"<text xml:lang='en'>{escape(failure.text)}</text>" if failure.text else ""
        self.send_xml(f"<failure xmlns='{SASL}'><{failure.condition}/>{text}</failure>")
        self._count_failure(failure, account)

    def _count_failure(self, failure: SASLFailure, account: str) -> None:
        factory = self._factory
        now = self._clock.seconds()
        if failure.condition not in ("aborted", "temporary-auth-failure", "encryption-required"):
            self._log.info(
                "login of {account} from {address} failed: {reason}",
                account=account or "an unreadable name",
                address=self.address,
                reason=str(failure),
            )
            network = network_of(self.address)
            if factory.addresses.failed(network, now):
                self._log.warn(
                    "no more logins from {network} for a while: too many failures", network=network
                )
            if account and factory.accounts.failed(account, now):
                self._log.warn("no more logins of {account} for a while: too many failures", account=account)
        self._failures += 1
        if self._failures >= (factory.auth.max_failures or MAX_FAILURES):
            # RFC 6120 section 6.4.5
            self.refuse(StreamFault("policy-violation", "too many failed logins"))

    def _logged_in(self, account: str, mechanism: str, last: bytes) -> None:
        if self.closed:
            return
        self._factory.accounts.succeeded(account)
        self._log.debug(
            "{account} logged in from {address} by {mechanism}",
            account=account,
            address=self.address,
            mechanism=mechanism,
        )
        content = sasl.encode(last) if last else ""
        self.send_xml(f"<success xmlns='{SASL}'>{content}</success>")
        self.account = account
        self._receive = self._bind
        self.restart(self._factory.listen.max_stanza_size, keepalives=True)

    # Resource binding (RFC 6120 section 7).

    def _bind(self, iq: Element) -> None:
        if iq.uri == SM and iq.name in ("enable", "resume"):
            if iq.name == "enable":
                self.send_xml(sm.failed_xml("unexpected-request"))  # XEP-0198 section 3: bind first
            else:
                self._resume(iq)
            return
        request = iq.firstChildElement()
        if (
            (iq.uri, iq.name, iq.attributes.get("type")) != (None, "iq", "set")
            or request is None
            or (request.uri, request.name) != (BIND, "bind")
        ):
            raise StreamFault("not-authorized", "bind a resource first")
        wanted = next((str(child) for child in request.elements(BIND, "resource")), "")
        factory = self._factory
        session = Session(self, self.account, factory.host, self._clock, factory.management.ack_timeout)
        try:
            check_iq(iq)
            session.bound(factory.host.bind(session, self.account, wanted or None))
        except BadJid:  # not jid-malformed, which is for the addresses of a stanza (section 7.7.2.1)
            self._reply_error(iq, BadStanza("no resource can have that name"))
            return
        except PushError as error:
            self._reply_error(iq, error)
            return
        self._begin(session)
        result = _result(iq)
        result.addElement((BIND, "bind")).addElement((BIND, "jid"), content=self.full)
        self.send(result)

    def _begin(self, session: Session) -> None:
        self.session = session
        self.full = session.full
        self._receive = self._stanza
        stop_timer(self._timeout)
        self._timeout = None

    # Stream management (XEP-0198) and client state (XEP-0352).

    def _not_a_stanza(self, element: Element) -> None:
        session = self.session
        assert session is not None
        if element.uri == SM and element.name in ("enable", "resume"):
            if element.name == "resume" or session.sm is not None:
                self.send_xml(sm.failed_xml("unexpected-request"))  # XEP-0198 sections 3 and 5
            else:
                self._enable(session, element)
        elif element.uri == SM and element.name == "r" and session.sm is not None:
            self._acks_wanted.append(session.sm.newest)
            self._acknowledge()
        elif element.uri == SM and element.name == "a" and session.sm is not None:
            self._acknowledged(session, element)
        elif element.uri == CSI and element.name in ("active", "inactive"):
            session.active = element.name == "active"
        else:
            raise StreamFault("unsupported-stanza-type")

    def _enable(self, session: Session, element: Element) -> None:
        attributes = element.attributes
        timeout = sm.resumption_timeout(self._factory.management.resume_timeout, attributes.get("max"))
        resumable = sm.wants_resumption(attributes.get("resume")) and timeout >= 1
        management = StreamManagement(self._random(16).hex(), timeout) if resumable else StreamManagement()
        self.send_xml(sm.enabled_xml(management))
        session.manage(management)

    def _acknowledge(self) -> None:
        """
        Answer ``<r/>`` as soon as what came before it is on disk: what we say we have we never lose.
        """
        wanted = self._acks_wanted
        management = self.session.sm if self.session is not None else None
        if management is None or not wanted or not management.is_done(wanted[0]):
            return
        while wanted and management.is_done(wanted[0]):  # one answer for all of them
            wanted.popleft()
        self.send_xml(f"<a xmlns='{SM}' h='{management.handled}'/>")

    def _acknowledged(self, session: Session, element: Element) -> None:
        try:
            session.acknowledge(sm.parse_count(element.attributes.get("h")))
        except sm.BadSMElement as error:
            raise StreamFault("invalid-xml", str(error)) from None
        except sm.HandledTooHigh as error:
            raise _too_high(error) from None

    def _resume(self, element: Element) -> None:
        previous = element.attributes.get("previd", "")
        session: Any
        session, handled = self._factory.host.resumable(self.account, previous)
        if session is None:
            self.send_xml(sm.failed_xml("item-not-found", handled))
            return
        try:
            count = sm.parse_count(element.attributes.get("h"))
        except sm.BadSMElement:
            self.send_xml(sm.failed_xml("bad-request", handled))
            return
        Deferred.fromCoroutine(self._go_on_with(session, previous, count)).addErrback(self._resume_broke)

    async def _go_on_with(self, session: Session, previous: str, count: int) -> None:
        before = session.detach()
        if before is not None:
            # Section 5: the client is back before its old connection was found to be dead.
            before.close("conflict", "Resumed by a new stream")
        # The client sends again what we do not say we have: so nothing may be on its way to the disk.
        try:
            await self._look_up(session.settled())
        except CancelledError:
            session.hibernate()
            return
        if session.ended or session.connection is not None:
            self.send_xml(sm.failed_xml("item-not-found"))
            return
        try:
            session.acknowledge(count)
        except sm.HandledTooHigh as error:
            session.hibernate()
            self.refuse(_too_high(error))
            return
        assert session.sm is not None
        self._begin(session)
        self.send_xml(f"<resumed xmlns='{SM}' previd='{previous}' h='{session.sm.handled}'/>")
        session.attach(self)
        self._factory.host.resumed(session)

    def _resume_broke(self, failure: Failure) -> None:
        self._log.failure("a stream of {account} could not be resumed", failure, account=self.account)
        self.close("internal-server-error")

    # Stanzas (RFC 6120 section 8).

    def _stanza(self, stanza: Element) -> None:
        self._received += 1
        attributes = stanza.attributes
        name = stanza.name
        if stanza.uri is not None or name not in _STANZAS:
            if name in _STANZAS:
                raise StreamFault("invalid-namespace")
            self._not_a_stanza(stanza)
            return
        self._stanzas[name] += 1
        session = self.session
        assert session is not None
        number = session.sm.received() if session.sm is not None else 0
        sender = attributes.get("from")
        if sender is not None and sender != self.full and not self._is_own(sender):
            raise StreamFault("invalid-from")  # section 8.1.2.1
        attributes["from"] = self.full
        try:
            to = attributes.get("to")
            if to is not None:
                parse_jid(to)
            if name == "iq":
                check_iq(stanza)
                if self._is_for_us(stanza):
                    return
            stored = self._factory.host.stanza(session, stanza)
            if stored is not None and number and (not stored.called or stored.paused):
                session.pending(number, stored)
                stored.addCallback(self._stored)
        except PushError as error:
            self._reply_error(stanza, error)
        except Exception as error:
            self._log.failure("a stanza of {user} could not be handled", user=self.full)
            self._reply_error(stanza, error)

    def _stored(self, result: object) -> None:
        if self._acks_wanted and not self.closed:
            self._acknowledge()

    def _is_own(self, sender: str) -> bool:
        try:
            return parse_jid(sender).full() in (self.full, self.account)
        except BadStanza:
            return False

    def _is_for_us(self, iq: Element) -> bool:
        """Answers a request that is about this connection."""
        if iq.attributes["type"] != "set" or iq.attributes.get("to") not in (None, self.domain, self.account):
            return False
        request = iq.firstChildElement()
        if request.uri == SESSION and request.name == "session":
            self._reply(_result(iq))  # RFC 6121: of no effect, and old clients insist on it
            return True
        if request.uri == BIND:
            raise NotAllowed("a resource is bound already")
        return False

    def _reply_error(self, stanza: Element, error: Exception) -> None:
        reply = error_reply(stanza, error)
        if reply is None:
            return
        if isinstance(error, BadJid):
            # It would be 'from' here, and the client could not read it either.
            reply.attributes.pop("from", None)
        self._reply(reply)

    def _reply(self, stanza: Element) -> None:
        """A stanza of the server, counted as all others are."""
        (self.session or self).send(stanza)

    # Not faster than the server likes. Reading pauses, so TCP slows the client down.

    def segmentReceived(self) -> None:
        received = self._received
        if not received or self.closed:
            return
        self._received = 0
        rate = self._rate
        if rate:
            now = self._clock.seconds()
            filled = min(BURST * rate, self._tokens + (now - self._refilled) * rate)
            self._tokens = filled - received
            self._refilled = now
            if self._tokens < 0 and self._rate_timer is None:
                self.pause(RATE)
                self._rate_timer = self._clock.callLater(-self._tokens / rate, self._rate_over)
        backlog = self._factory.backlog
        if backlog is not None:
            relieved = backlog()
            if relieved is not None and not relieved.called:
                self.pause(BACKLOG)
                relieved.addBoth(self._backlog_over)

    def _rate_over(self) -> None:
        self._rate_timer = None
        self.resume(RATE)

    def _backlog_over(self, result: object) -> object:
        if not self.closed:
            self.resume(BACKLOG)
        return None


class C2SFactory(ServerFactory):
    """
    Client connections of one listener.

    Args:
        listen: How its streams are secured, how large a stanza may be.
        host: The server behind.
        random: For ids, nonces and secrets; `SystemRandom` unless a test wants to know them.
        backlog: Called after each segment with stanzas. A Deferred is a full storage: the
            client's next stanzas are read when it fires.
        throttles: Failures per address and per account, for listeners that count together.
        secret: Makes the salts of accounts that do not exist. With one that outlives the process
            nobody can tell them from others by a restart.
        management: ``[c2s]``: for how long streams may be resumed, and acknowledgements may take.
        traffic: Counts stanzas, for listeners that count together.

    Attributes:
        connections: All of them, bound or not.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        listen: ListenSection,
        auth: AuthSection,
        limits: LimitsSection,
        certificates: CertificateStore,
        authenticator: IAuthenticator,
        host: ISessionHost,
        clock: IReactorTime,
        random: Random | None = None,
        backlog: Callable[[], "Deferred[Any] | None"] | None = None,
        throttles: tuple[Throttle, Throttle] | None = None,
        secret: bytes = b"",
        management: C2SSection | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.listen = listen
        self.auth = auth
        self.limits = limits
        self.certificates = certificates
        self.authenticator = authenticator
        self.host = host
        self.clock = clock
        self.random = (random or SystemRandom()).randbytes
        self.backlog = backlog
        self.addresses, self.accounts = throttles or throttles_for(auth)
        self.secret = secret or self.random(32)
        self.management = management or C2SSection()
        self.traffic = traffic or Traffic()
        self.connections: set[C2SConnection] = set()
        self._networks: Counter[str] = Counter()
        self._refusing: set[str] = set()
        self._stopped: Deferred[None] | None = None
        self._stop_timer: Any = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        network = network_of(host_of(addr))
        # Behind a proxy this is the proxy's: whose connection it is shows later.
        counted = not self.listen.endpoint.startswith("haproxy:")
        if self._stopped is not None or (counted and not self._has_room(network)):
            # Not None: the TLS factory around a listener with direct TLS could not take it.
            return _NoRoom()
        connection = C2SConnection(self)
        connection.factory = self
        self.connections.add(connection)
        if counted:
            self._count(connection, network)
        return connection

    def admit(self, connection: C2SConnection) -> bool:
        """Count a connection whose address is known by now; False where it is one too many."""
        network = network_of(connection.address)
        if not self._has_room(network):
            return False
        self._count(connection, network)
        return True

    def lost(self, connection: C2SConnection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        network = connection.network
        if network:
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]
            self._refusing.discard(network)
        if self._stopped is not None and not self.connections:
            self._finish()

    def _count(self, connection: C2SConnection, network: str) -> None:
        connection.network = network
        self._networks[network] += 1

    def _has_room(self, network: str) -> bool:
        limit = self.limits.connections_per_address
        if not limit or self._networks[network] < limit:
            return True
        if network not in self._refusing:  # one line, however many it tries
            self._refusing.add(network)
            self._log.warn(
                "{network} has {limit} connections already: refusing more", network=network, limit=limit
            )
        return False

    def close_all(self) -> "Deferred[None]":
        """
        End all streams with ``system-shutdown`` and take no new connections.

        Returns:
            Fires when all are gone, after 3 seconds at the latest.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            self._stop_timer = self.clock.callLater(STOP_TIMEOUT, self._abort_all)
            for connection in list(self.connections):
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


class _NoRoom(Protocol):
    def connectionMade(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]


def _too_high(error: sm.HandledTooHigh) -> StreamFault:
    """XEP-0198 section 4."""
    return StreamFault("undefined-condition", str(error), sm.too_high_xml(error))


def _result(iq: Element) -> Element:
    result = Element((None, "iq"), attribs={"type": "result", "id": iq["id"]})
    if "to" in iq.attributes:
        result["from"] = iq["to"]
    return result


def _why(reason: Failure) -> str:
    """What OpenSSL says, without its inner names."""
    error = reason.value
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return ", ".join(str(entry[-1]) for entry in error.args[0])
    return reason.getErrorMessage()


def throttles_for(auth: AuthSection) -> tuple[Throttle, Throttle]:
    """Failures per address and per account."""
    return Throttle(auth.max_failures, auth.failure_window), Throttle(auth.max_failures, auth.failure_window)
