"""
Streams that other servers open to us (RFC 6120): who they speak for, and the stanzas that they bring.

Nothing a server sends is believed before its domain is proven, by its certificate (SASL EXTERNAL, XEP-0178)
or by dialback (XEP-0220), and afterwards only what is from such a domain and for one of ours.
"""

import binascii
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Collection
from random import Random
from typing import Any
from xml.sax.saxutils import escape

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.config.sections import LimitsSection, ListenSection
from xmpppush.errors import BadStanza
from xmpppush.http.reasons import explain
from xmpppush.interfaces import IRouter
from xmpppush.jids import parse_jid
from xmpppush.metrics import Traffic
from xmpppush.server.component import keep_alive
from xmpppush.server.parser import StreamFault
from xmpppush.server.rules import check_iq
from xmpppush.server.s2s import dialback
from xmpppush.server.s2s.dialback import DialbackKeys
from xmpppush.server.s2s.outgoing import NotReached, TLSSide
from xmpppush.server.s2s.policy import Policy
from xmpppush.server.stream import BACKLOG, RATE, XMPPStream, host_of, stop_timer
from xmpppush.server.throttle import Allowance, network_of
from xmpppush.xep.conditions import error_reply
from xmpppush.xep.namespaces import DIALBACK, DIALBACK_FEATURE, SASL, SERVER, STREAMS, TLS

BURST = 10  # seconds' worth of stanzas that may come at once
STOP_TIMEOUT = 3.0  # seconds for all servers to say goodbye
MAX_DOMAINS = 100  # that one stream may speak for
MAX_VERIFYING = 10  # dialback keys of one stream that are being verified
MAX_FAILURES = 5  # of proofs, on one stream

_STANZAS = ("message", "presence", "iq")
_EXPLICIT = SERVER.encode()


class ServerSide:
    """
    What all incoming streams share.

    Attributes:
        streams: How many there are whose domain is proven.
    """

    def __init__(
        self,
        router: IRouter,
        domains: Callable[[], Collection[str]],
        policy: Policy,
        tls: TLSSide,
        keys: DialbackKeys,
        verify: Callable[[str, str, str, str], "Deferred[str]"],
        heard_from: Callable[[str], object],
        clock: Any,
        random: Random,
        backlog: Callable[[], "Deferred[Any] | None"] | None = None,
    ) -> None:
        """
        Args:
            domains: All of ours, pubsub hosts and components included.
            verify: Asks a domain's own server about a dialback key: receiving and originating domain, id of
                the stream, key; fires with what `VerifyStream` says, or fails with `NotReached`.
            heard_from: Told of each domain that is proven: its server is up.
            backlog: As `C2SFactory`'s.
        """
        self.router = router
        self.domains = domains
        self.policy = policy
        self.tls = tls
        self.keys = keys
        self.verify = verify
        self.heard_from = heard_from
        self.clock = clock
        self.random = random.randbytes
        self.backlog = backlog
        self.traffic = Traffic()
        self.streams = 0


@implementer(IHandshakeListener)
class IncomingStream(XMPPStream):
    """
    One connection of another server, from its first octet on.

    Attributes:
        remotes: Domains that it has proven to speak for.
        network: What its address counts as, for limits; ``""`` while it does not count.
    """

    namespace = SERVER
    declarations = dialback.DECLARATION
    network = ""

    _log = Logger()
    _handshaking = False
    _claimed = ""
    _external = False
    _failures = 0
    _received = 0
    _rate_timer: Any = None
    _timeout: Any = None

    def __init__(self, factory: "S2SFactory") -> None:
        self.remotes: set[str] = set()
        self._factory = factory
        self._side = factory.side
        self._verifying: dict[tuple[str, str], Deferred[str]] = {}
        rate = factory.limits.s2s_stanzas_per_second
        self._allowance = Allowance(rate, BURST * rate, factory.clock.seconds())
        side = factory.side
        super().__init__((), side.clock, side.random, side.traffic.written)

    # The connection.

    def connectionMade(self) -> None:
        super().connectionMade()
        keep_alive(getattr(self.transport, "transport", self.transport))
        self._handshaking = self.secure
        limit = self._factory.limits.unauthenticated_timeout
        self._timeout = self._clock.callLater(limit, self._timed_out)

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        self._handshaking = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        error: Any = reason.value
        if self._handshaking and not self.closed:
            self._log.info(
                "TLS handshake with server {address} ({remote}) failed: {reason}",
                address=self.address,
                remote=self._claimed or "unknown domain",
                reason=explain(error),
            )
        super().connectionLost(reason)
        self._factory.lost(self)

    def streamClosed(self) -> None:
        stop_timer(self._timeout)
        stop_timer(self._rate_timer)
        if self.remotes:
            self._side.streams -= 1
        for verifying in list(self._verifying.values()):
            verifying.cancel()

    def streamRefused(self, fault: StreamFault) -> None:
        is_noise = not self.domain and fault.condition == "not-well-formed"
        self._log.emit(
            LogLevel.debug if is_noise else LogLevel.info,
            "stream of server {remote} at {address} refused: {reason}",
            remote=", ".join(sorted(self.remotes)[:3]) or self._claimed or "without a name",
            address=self.address,
            reason=str(fault),
        )

    def _timed_out(self) -> None:
        self.refuse(StreamFault("connection-timeout", "no domain was proven for too long"))

    def _domain_of(self, to: str | None) -> str | None:
        self._domains = self._side.domains()  # components come and go
        return super()._domain_of(to)

    def streamStarted(self, header: Element) -> None:
        if not self.network and not self._factory.admit(self):
            raise StreamFault("policy-violation", "too many connections of this address")
        claimed = dialback.domain_in(header, "from")
        if claimed and not self._side.policy.permits(claimed):
            self._claimed = claimed
            raise StreamFault("policy-violation", "we do not talk to this domain")
        if not self.remotes:
            self._claimed = claimed
        features = ""
        if self._wants_tls:
            required = "<required/>" if self._tls == "required" else ""
            features = f"<starttls xmlns='{TLS}'>{required}</starttls>"
        elif not self.remotes and self._is_proven(claimed):
            features = f"<mechanisms xmlns='{SASL}'><mechanism>EXTERNAL</mechanism></mechanisms>"
        if self._factory.listen.dialback and not (self._wants_tls and self._tls == "required"):
            features += f"<dialback xmlns='{DIALBACK_FEATURE}'><errors/></dialback>"
        self.send_xml(f"<stream:features>{features}</stream:features>")

    def elementReceived(self, element: Element) -> None:
        uri, name = element.uri, element.name
        self._received += 1
        if uri is None and self.remotes:
            self._stanza(element)
        elif uri == DIALBACK and name in ("result", "verify"):
            if name == "result":
                self._result(element)
            else:
                self._verify(element)
        elif uri == STREAMS and name == "error":
            self.close()
        elif uri == TLS and name == "starttls":
            self._starttls()
        elif uri == SASL and name == "auth" and not self.remotes:
            self._auth(element)
        elif self.remotes:
            raise StreamFault("unsupported-stanza-type")
        else:
            raise StreamFault("not-authorized")

    # TLS (RFC 6120 section 5).

    @property
    def _tls(self) -> str:
        return self._factory.listen.tls

    @property
    def _wants_tls(self) -> bool:
        return not self.secure and self._tls in ("required", "optional")

    def _starttls(self) -> None:
        if not self._wants_tls or self.remotes or self._verifying:
            self.send_xml(f"<failure xmlns='{TLS}'/>")
            self.close()
            return
        self.send_xml(f"<proceed xmlns='{TLS}'/>")
        self.restart()
        self.secure = self._handshaking = True
        self.transport.startTLS(self._side.tls.incoming())  # type: ignore[union-attr]

    def _is_proven(self, domain: str) -> bool:
        """Does the certificate name this domain?"""
        return bool(domain) and self.secure and not self._side.tls.refusal(self.transport, domain)

    # SASL EXTERNAL (RFC 6120 section 6, XEP-0178 section 3).

    def _auth(self, element: Element) -> None:
        if self._wants_tls and self._tls == "required":
            self._fail_login("encryption-required", "TLS comes first")
            return
        if element.attributes.get("mechanism") != "EXTERNAL":
            self._fail_login("invalid-mechanism", "no such mechanism")
            return
        try:
            text = str(element).strip()
            identity = "" if text in ("", "=") else b64decode(text, validate=True).decode()
            domain = parse_jid(identity).full() if identity else self._claimed
        except (binascii.Error, ValueError):
            self._fail_login("incorrect-encoding", "the authorization identity is unreadable")
            return
        except BadStanza:
            self._fail_login("invalid-authzid", "the authorization identity is no domain")
            return
        if not domain or (self._claimed and domain != self._claimed):
            self._fail_login("invalid-authzid", f"it claims to be {self._claimed or 'nobody'}")
        elif not self._side.policy.permits(domain) or domain in self._side.domains():
            self._fail_login("not-authorized", "we do not talk to this domain")
        elif self.secure and not (refusal := self._side.tls.refusal(self.transport, domain)):
            self.send_xml(f"<success xmlns='{SASL}'/>")
            self._is(domain, "certificate")
            self.restart(self._factory.listen.max_stanza_size, keepalives=True)
        else:
            self._fail_login("not-authorized", refusal if self.secure else "there is no TLS")

    def _fail_login(self, condition: str, reason: str) -> None:
        text = f"<text xml:lang='en'>{escape(reason)}</text>"
        self.send_xml(f"<failure xmlns='{SASL}'><{condition}/>{text}</failure>")
        self._failed(self._claimed, reason)

    # Dialback (XEP-0220).

    def _result(self, element: Element) -> None:
        """Somebody wants to be believed (section 2.2)."""
        remote, local = dialback.domain_in(element, "from"), dialback.domain_in(element, "to")
        if not remote or not local:
            raise StreamFault("improper-addressing")
        if element.hasAttribute("type"):
            raise StreamFault("unsupported-stanza-type", "an answer to what was not asked")  # section 3.1
        if (remote, local) in self._verifying:
            return  # it is being asked about
        refusal = self._side.tls.refusal(self.transport, remote) if self.secure else "there is no TLS"
        key = str(element).strip()
        if local not in self._side.domains():
            self._tell(local, remote, "item-not-found", "it wants a domain that is not here")
        elif not self._side.policy.permits(remote) or remote in self._side.domains():
            self._tell(local, remote, "policy-violation", "we do not talk to this domain")
        elif self._wants_tls and self._tls == "required":
            self._tell(local, remote, "policy-violation", "TLS comes first")
        elif not refusal:
            # The certificate is better proof than any key (XEP-0344 section 2.3).
            self._is(remote, "certificate")
            self._tell(local, remote, "valid")
        elif self._side.policy.verify:
            self._tell(local, remote, "not-authorized", f"its certificate is refused: {refusal}")
        elif not self._factory.listen.dialback:
            self._tell(local, remote, "not-authorized", f"no dialback here, and {refusal}")
        elif not key or len(key) > dialback.MAX_KEY:
            self._tell(local, remote, "not-acceptable", "its dialback key is empty or endless")
        elif len(self._verifying) >= MAX_VERIFYING or len(self.remotes) >= MAX_DOMAINS:
            self._tell(local, remote, "resource-constraint", "it wants to be too many at a time")
        else:
            asking = self._verifying[remote, local] = self._side.verify(local, remote, self.id, key)
            asking.addBoth(self._verified, remote, local)

    def _verified(self, outcome: str | Failure, remote: str, local: str) -> None:
        self._verifying.pop((remote, local), None)
        if self.closed:
            return
        if isinstance(outcome, Failure):
            if not outcome.check(NotReached):
                self._log.failure("dialback of {remote} failed", outcome, remote=remote)
            # Section 2.4: an error in asking is this one, whatever it was.
            reason = f"its own server is not reached: {outcome.value}"
            self._tell(local, remote, "remote-server-not-found", reason)
        elif outcome == "valid":
            self._is(remote, "dialback")
            self._tell(local, remote, "valid")
        elif outcome == "invalid" and not self.remotes:
            self._log.warn(
                "server at {address} is not {remote}: the dialback key is forged",
                address=self.address,
                remote=remote,
            )
            self.send_xml(dialback.answer("result", local, remote, "invalid"))
            self.close()  # section 2.2.1
        elif outcome == "invalid":
            self._tell(local, remote, "forbidden", "its dialback key is forged")
        else:
            self._tell(local, remote, "remote-server-not-found", f"its own server answers {outcome}")

    def _tell(self, local: str, remote: str, kind: str, reason: str = "") -> None:
        self.send_xml(dialback.answer("result", local, remote, kind))
        if reason:
            self._failed(remote, reason)

    def _verify(self, element: Element) -> None:
        """Somebody asks whether a key is ours (section 2.3)."""
        remote, local = dialback.domain_in(element, "from"), dialback.domain_in(element, "to")
        number = element.getAttribute("id") or ""
        if not remote or not local or not number:
            raise StreamFault("improper-addressing")
        if local not in self._side.domains():
            kind = "item-not-found"
        else:
            ours = self._side.keys.is_ours(str(element).strip(), remote, local, number)
            kind = "valid" if ours else "invalid"
        self.send_xml(dialback.answer("verify", local, remote, kind, number))

    # What came of it.

    def _is(self, remote: str, how: str) -> None:
        if not self.remotes:
            self._side.streams += 1
            stop_timer(self._timeout)
            self._parser.trust(self._factory.listen.max_stanza_size)
        self.remotes.add(remote)
        self._log.info(
            "server {remote} at {address} is known by its {how}",
            remote=remote,
            address=self.address,
            how=how if how == "certificate" else "dialback key",
        )
        self._side.heard_from(remote)

    def _failed(self, remote: str, reason: str) -> None:
        self._failures += 1
        self._log.info(
            "server {remote} at {address} is not let in: {reason}",
            remote=remote or "without a name",
            address=self.address,
            reason=reason,
        )
        if self._failures >= MAX_FAILURES:
            self.refuse(StreamFault("policy-violation", "too many failures"))

    # Stanzas (RFC 6120 section 8).

    def _stanza(self, stanza: Element) -> None:
        name, attributes = stanza.name, stanza.attributes
        if name not in _STANZAS:
            raise StreamFault("unsupported-stanza-type")
        self._side.traffic.received[name] += 1
        try:
            sender, to = parse_jid(attributes["from"]), parse_jid(attributes["to"])
        except (KeyError, BadStanza):
            raise StreamFault("improper-addressing") from None  # section 8.1.1.2, 8.1.2.2
        if sender.host not in self.remotes:
            raise StreamFault("invalid-from")
        if to.host not in self._side.domains():
            raise StreamFault("host-unknown")
        if _EXPLICIT in stanza.__dict__.get("raw", b""):
            # A client would take what says that it is of this stream for something else.
            del stanza.__dict__["raw"]
        try:
            if name == "iq":
                check_iq(stanza)
            self._side.router.route(stanza)
        except BadStanza as error:
            self._answer(stanza, error)
        except Exception as error:
            self._log.failure("a stanza of {remote} could not be handled", remote=sender.host)
            self._answer(stanza, error)

    def _answer(self, stanza: Element, error: Exception) -> None:
        reply = error_reply(stanza, error)
        if reply is not None:
            self._side.router.route(reply)

    # Not faster than the server likes, as with clients.

    def segmentReceived(self) -> None:
        received, self._received = self._received, 0
        if not received or self.closed:
            return
        wait = self._allowance.take(received, self._clock.seconds())
        if wait and self._rate_timer is None:
            self.pause(RATE)
            self._rate_timer = self._clock.callLater(wait, self._rate_over)
        relieved = self._side.backlog() if self._side.backlog is not None else None
        if relieved is not None and not relieved.called:
            self.pause(BACKLOG)
            relieved.addBoth(self._backlog_over)

    def _rate_over(self) -> None:
        self._rate_timer = None
        self.resume(RATE)

    def _backlog_over(self, result: object) -> None:
        if not self.closed:
            self.resume(BACKLOG)


class S2SFactory(ServerFactory):
    """
    Connections of other servers to one listener.

    Args:
        listen: How its streams are secured, how large a stanza may be, whether dialback will do.
    """

    noisy = False
    _log = Logger()

    def __init__(self, listen: ListenSection, limits: LimitsSection, side: ServerSide) -> None:
        self.listen = listen
        self.limits = limits
        self.side = side
        self.clock = side.clock
        self.connections: set[IncomingStream] = set()
        self._networks: Counter[str] = Counter()
        self._refusing: set[str] = set()
        self._stopped: Deferred[None] | None = None
        self._stop_timer: Any = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        network = network_of(host_of(addr))
        counted = not self.listen.endpoint.startswith("haproxy:")  # that one's address says nothing
        if self._stopped is not None or (counted and not self._has_room(network)):
            return _NoRoom()  # not None: a TLS factory around this one could not take it
        stream = IncomingStream(self)
        stream.factory = self
        self.connections.add(stream)
        if counted:
            self._count(stream, network)
        return stream

    def admit(self, stream: IncomingStream) -> bool:
        """Count a connection whose address is known by now; False where it is one too many."""
        network = network_of(stream.address)
        if not self._has_room(network):
            return False
        self._count(stream, network)
        return True

    def lost(self, stream: IncomingStream) -> None:
        """A connection is gone."""
        self.connections.discard(stream)
        if stream.network:
            self._networks[stream.network] -= 1
            if not self._networks[stream.network]:
                del self._networks[stream.network]
            self._refusing.discard(stream.network)
        if self._stopped is not None and not self.connections:
            self._finish()

    def _count(self, stream: IncomingStream, network: str) -> None:
        stream.network = network
        self._networks[network] += 1

    def _has_room(self, network: str) -> bool:
        limit = self.limits.connections_per_address
        if not limit or self._networks[network] < limit:
            return True
        if network not in self._refusing:
            self._refusing.add(network)
            self._log.warn(
                "{network} has {limit} connections of servers already: refusing more",
                network=network,
                limit=limit,
            )
        return False

    def close_all(self) -> "Deferred[None]":
        """End all streams with ``system-shutdown``; fires when they are gone, or after 3 seconds."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._stop_timer = self.clock.callLater(STOP_TIMEOUT, self._abort_all)
            for stream in list(self.connections):
                stream.close("system-shutdown")
            if not self.connections:
                self._finish()
        fired: Deferred[None] = Deferred()
        self._stopped.chainDeferred(fired)
        return fired

    def _abort_all(self) -> None:
        for stream in list(self.connections):
            stream.transport.abortConnection()  # type: ignore[union-attr]
        self._finish()

    def _finish(self) -> None:
        stop_timer(self._stop_timer)
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)


class _NoRoom(Protocol):
    def connectionMade(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]
