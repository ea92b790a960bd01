"""
Streams that we open to other servers (RFC 6120 section 4.2): TLS, then what the stream is for.

`StanzaStream` shows that it speaks for a domain of ours, by SASL EXTERNAL (XEP-0178) or dialback (XEP-0220),
and then takes stanzas. `VerifyStream` asks whether a dialback key is right. Servers send nothing but answers
on either: their own stanzas come on streams that they open.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from xml.sax.saxutils import quoteattr

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.words.xish.domish import Element

from xmpppush.errors import PushError
from xmpppush.http.reasons import explain
from xmpppush.server.component import condition_in, keep_alive
from xmpppush.server.parser import StreamFault, StreamParser
from xmpppush.server.s2s import dialback
from xmpppush.server.s2s.dialback import DialbackKeys
from xmpppush.server.s2s.policy import Policy
from xmpppush.server.stream import XMPPStream, _major, stop_timer
from xmpppush.xep.namespaces import DIALBACK, SASL, SERVER, STREAMS, TLS

NEGOTIATION_TIMEOUT = 20.0  # seconds from the connection to the last answer

NOT_FOUND, TIMED_OUT, INTERNAL = (
    "remote-server-not-found",
    "remote-server-timeout",
    "internal-server-error",
)


class NotReached(PushError):
    """
    There is no stream to a domain.

    Attributes:
        condition: The stanza error for who wanted to send something there (RFC 6120 section 8.3.3).
    """

    def __init__(self, reason: str, condition: str = TIMED_OUT) -> None:
        super().__init__(reason)
        self.condition = condition


class TLSSide(Protocol):
    """What of `S2STLS` streams need."""

    def outgoing(self, local: str, remote: str, direct: bool) -> Any: ...

    def incoming(self) -> Any: ...

    def refusal(self, transport: Any, domain: str) -> str: ...


class OutgoingStream(XMPPStream):
    """
    A stream from a domain of ours to another domain, up to where TLS is in place.

    Attributes:
        done: Fires when the stream has come to what it is for, fails with `NotReached` where it does not.
        reason: Why it ended, fit for a log.
        how: By what we are known over there; ``""`` as long as we are not.
    """

    namespace = SERVER
    declarations = dialback.DECLARATION
    reason = ""
    how = ""
    condition = TIMED_OUT

    _cancelled = False
    _timer: Any = None

    def __init__(
        self,
        local: str,
        remote: str,
        policy: Policy,
        tls: TLSSide,
        clock: IReactorTime,
        written: Any = None,
    ) -> None:
        self.local = local
        self.remote = remote
        self.done: Deferred[Any] = Deferred(lambda _: self._give_up())
        self.refusal = ""
        self._policy = policy
        self._tls = tls
        self._receive: Callable[[Element], None] = self._features
        super().__init__((local,), clock, bytes, written)  # ids are the other side's to make

    # The beginning.

    def connectionMade(self) -> None:
        super().connectionMade()
        keep_alive(getattr(self.transport, "transport", self.transport))  # below direct TLS
        self._timer = self._clock.callLater(NEGOTIATION_TIMEOUT, self._too_slow)
        self._open()

    def _open(self) -> None:
        self._header_sent = True
        self.send_xml(
            f"<?xml version='1.0'?><stream:stream xmlns='{SERVER}' xmlns:stream='{STREAMS}'"
            f"{self.declarations} from={quoteattr(self.local)} to={quoteattr(self.remote)}"
            " version='1.0' xml:lang='en'>"
        )

    def _new_parser(self, max_size: int, keepalives: bool = False) -> StreamParser:
        # Hardly anything but whitespace comes for as long as the stream lasts.
        return super()._new_parser(max_size, True)

    def _header(self, header: Element) -> None:
        if header.uri != STREAMS or header.defaultUri != SERVER:
            raise StreamFault("invalid-namespace")
        if header.name != "stream":
            raise StreamFault("bad-format")
        self.id = header.attributes.get("id", "")
        if _major(header.attributes.get("version")) < 1:
            self._offered({})  # from before RFC 3920: there are no features to wait for

    def elementReceived(self, element: Element) -> None:
        if element.uri == STREAMS and element.name == "error":
            # RFC 6120 section 4.9.1.1; an error is not answered with an error.
            self.fail(f"stream error {condition_in(element)}")
        else:
            self._receive(element)

    def _features(self, element: Element) -> None:
        if (element.uri, element.name) != (STREAMS, "features"):
            raise StreamFault("unsupported-stanza-type", "no features")
        self._offered({(str(child.uri), str(child.name)): child for child in element.elements()})

    def _offered(self, features: dict[tuple[str, str], Element]) -> None:
        if self.secure:
            self.refusal = self._tls.refusal(self.transport, self.remote)
            if self.refusal and self._policy.verify:
                self.fail(f"its certificate is refused: {self.refusal}")
                return
        elif (TLS, "starttls") in features:
            self._receive = self._proceed
            self.send_xml(f"<starttls xmlns='{TLS}'/>")
            return
        elif self._policy.tls == "required" or self._policy.verify:
            self.fail("it offers no TLS")
            return
        mechanisms = features.get((SASL, "mechanisms"))
        self._secured({str(child) for child in mechanisms.elements()} if mechanisms is not None else ())

    def _proceed(self, element: Element) -> None:
        if (element.uri, element.name) != (TLS, "proceed"):
            self.fail("it has no TLS at present")
            return
        self.restart()
        self.secure = True
        self._receive = self._features
        self.transport.startTLS(self._tls.outgoing(self.local, self.remote, False))  # type: ignore[union-attr]
        self._open()

    def _secured(self, mechanisms: Iterable[str]) -> None:
        """TLS is in place, or not needed: go on with what the stream is for."""
        raise NotImplementedError

    # The end.

    def _succeed(self, outcome: Any) -> None:
        stop_timer(self._timer)
        if not self.done.called:
            self.done.callback(outcome)

    def fail(self, reason: str, condition: str = TIMED_OUT) -> None:
        """It is no use."""
        self.reason, self.condition = self.reason or reason, condition
        self.close()

    def _too_slow(self) -> None:
        self.reason = "it does not answer"
        self._abandon()

    def _give_up(self) -> None:
        self._cancelled = True
        if self.transport is not None and not self.closed:
            self._abandon()

    def _abandon(self) -> None:
        if not self.closed:
            super()._abandon()

    def _footer(self) -> None:
        self.reason = self.reason or "it closed the stream"
        self.close()

    def streamRefused(self, fault: StreamFault) -> None:
        self.reason = self.reason or f"it breaks the protocol: {fault}"

    def streamClosed(self) -> None:
        stop_timer(self._timer)
        if not self.done.called and not self._cancelled:
            self.done.errback(NotReached(self.reason or "connection lost", self.condition))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.reason:
            error: Any = reason.value
            self.reason = explain(error) if self.secure or not isinstance(error, SSL.Error) else "no TLS"
        super().connectionLost(reason)


class StanzaStream(OutgoingStream):
    """
    A stream for stanzas.

    Args:
        keys: For dialback.
        external: May SASL EXTERNAL be tried?
        gone: Called when the stream ends after it was ready.

    Attributes:
        external_failed: They wanted another proof than our certificate.
        ready: Stanzas may be sent.
    """

    external_failed = False
    ready = False

    def __init__(
        self,
        local: str,
        remote: str,
        policy: Policy,
        tls: TLSSide,
        clock: IReactorTime,
        written: Any,
        keys: DialbackKeys,
        external: bool,
        gone: Callable[["StanzaStream"], object],
    ) -> None:
        self._keys = keys
        self._external = external
        self._tell_gone = gone
        super().__init__(local, remote, policy, tls, clock, written)

    def _secured(self, mechanisms: Iterable[str]) -> None:
        if self.how:
            self._ready()
        elif self.secure and self._external and "EXTERNAL" in mechanisms:
            self._receive = self._sasl
            # With the authorization identity, which XEP-0178 section 3 has servers send.
            identity = b64encode(self.local.encode()).decode()
            self.send_xml(f"<auth xmlns='{SASL}' mechanism='EXTERNAL'>{identity}</auth>")
        else:
            self._dial()

    def _sasl(self, element: Element) -> None:
        if element.uri != SASL or element.name not in ("success", "failure"):
            raise StreamFault("unsupported-stanza-type", "no answer to the login")
        if element.name == "success":
            self.how = "certificate"
            self.restart()
            self._receive = self._features
            self._open()
            return
        self.external_failed = True
        self._dial()

    def _dial(self) -> None:
        if not self.id:
            raise StreamFault("bad-format", "the stream has no id")
        self._receive = self._dialled
        key = self._keys.key(self.remote, self.local, self.id)
        self.send_xml(dialback.result(self.local, self.remote, key))

    def _dialled(self, element: Element) -> None:
        if (element.uri, element.name) != (DIALBACK, "result"):
            raise StreamFault("unsupported-stanza-type", "no answer to dialback")
        if (dialback.domain_in(element, "from"), dialback.domain_in(element, "to")) != (
            self.remote,
            self.local,
        ):
            raise StreamFault("invalid-from")
        condition = dialback.condition_of_answer(element)
        if condition == "valid":
            self.how = "dialback"
            self._ready()
        elif condition == "invalid":
            # XEP-0220 section 2.1.1
            self.fail("dialback: it finds our key invalid (is our DNS right?)", INTERNAL)
        else:
            self.fail(f"dialback: {condition}")

    def _ready(self) -> None:
        self.ready = True
        self._receive = self._ignore
        self._succeed(self)

    def _ignore(self, element: Element) -> None:
        """Late features, or stanzas, which nobody has authenticated."""

    def streamClosed(self) -> None:
        super().streamClosed()
        if self.ready:
            self.ready = False
            self._tell_gone(self)


class VerifyStream(OutgoingStream):
    """
    Asks a domain's own server whether a dialback key is right (XEP-0220 section 2.2.2).

    ``done`` fires with ``valid``, ``invalid``, or the condition of an error.
    """

    def __init__(
        self,
        local: str,
        remote: str,
        policy: Policy,
        tls: TLSSide,
        clock: IReactorTime,
        written: Any,
        stream_id: str,
        key: str,
    ) -> None:
        self._asked_about = stream_id
        self._key = key
        super().__init__(local, remote, policy, tls, clock, written)

    def _secured(self, mechanisms: Iterable[str]) -> None:
        self._receive = self._verified
        self.send_xml(dialback.verify(self.local, self.remote, self._asked_about, self._key))

    def _verified(self, element: Element) -> None:
        """
        Raises:
            StreamFault: An answer to what was not asked (XEP-0220 section 3.1).
        """
        if (element.uri, element.name) != (DIALBACK, "verify"):
            raise StreamFault("unsupported-stanza-type", "no answer to dialback")
        if (
            dialback.domain_in(element, "from") != self.remote
            or dialback.domain_in(element, "to") != self.local
            or element.getAttribute("id") != self._asked_about
        ):
            raise StreamFault("invalid-from")
        self._succeed(dialback.condition_of_answer(element))
        self.close()
