"""
The receiving side of an XML stream (RFC 6120 section 4): header, stream errors, closing, bounded output.

What the elements mean is for a subclass: `C2SConnection` for clients.
"""

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.errors import BadStanza
from xmpppush.jids import parse_jid
from xmpppush.server.parser import BEFORE_AUTHENTICATION, StreamFault, StreamParser
from xmpppush.xep.namespaces import CLIENT, STREAM_ERRORS, STREAMS
from xmpppush.xep.xml import to_xml

READ_SIZE = 4096  # bytes at a time from a socket
CLOSE_TIMEOUT = 5.0  # seconds for the peer to close its side
MAX_OUTPUT = 4 * 1024 * 1024  # bytes waiting for a peer that does not read
MAX_DRAINED = 4 * 1024 * 1024  # bytes of a peer that still sends after our goodbye

# Why reading is paused; more than one may hold at a time.
RATE, BACKLOG, LOGIN = 1, 2, 4


def error_xml(condition: str, text: str = "", application: str = "") -> str:
    """A stream error (RFC 6120 section 4.9.2), with an application-specific condition as XML."""
    told = f"<text xmlns='{STREAM_ERRORS}' xml:lang='en'>{escape(text)}</text>" if text else ""
    return f"<stream:error><{condition} xmlns='{STREAM_ERRORS}'/>{told}{application}</stream:error>"


@implementer(IPushProducer)
class XMPPStream(Protocol):
    """
    One XML stream, from header to closing tag, over any number of restarts.

    Subclasses say in `streamStarted` and `elementReceived` what happens. Both may raise `StreamFault`.

    Args:
        domains: Domains that a header may be addressed to.
        clock: Times everything here.
        random: Gives that many random octets.
        written: Counts by its first characters what is sent (`xmpppush.metrics.Traffic`).

    Attributes:
        domain: Of the header, prepared; ``""`` before the first one.
        id: Of the stream, as our last header has it; ``""`` before.
        secure: Inside TLS. The subclass says so after STARTTLS: a transport behind haproxy does not.
        closed: Our closing tag is sent; nothing is read or sent any more.
        broken: It ended without a closing tag or an error, from either side.
    """

    namespace = CLIENT
    # Further namespace declarations of our header.
    declarations = ""
    domain = ""
    id = ""
    secure = False
    closed = False
    broken = False

    _log = Logger()
    _drained = 0
    _clogged: int | None = None
    _paused_for = 0
    _header_sent = False
    _close_timer: Any = None

    def __init__(
        self,
        domains: Collection[str],
        clock: IReactorTime,
        random: Callable[[int], bytes],
        written: Counter[str] | None = None,
    ) -> None:
        self._written: Counter[str] = Counter() if written is None else written
        self._domains = domains
        self._clock = clock
        self._random = random
        self._flushing: list[Deferred[bool]] = []
        self._parser: StreamParser = self._new_parser(BEFORE_AUTHENTICATION)

    @property
    def address(self) -> str:
        """Of the peer, for people; behind haproxy it is the client's from the first octet on."""
        return host_of(self.transport.getPeer())  # type: ignore[union-attr]

    # For subclasses.

    def streamStarted(self, header: Element) -> None:
        """A valid header arrived and was answered: send the features."""
        raise NotImplementedError

    def elementReceived(self, element: Element) -> None:
        """A child of the stream arrived."""
        raise NotImplementedError

    def segmentReceived(self) -> None:
        """The elements of one segment were received: a place for what need not be done for each."""

    def streamRefused(self, fault: StreamFault) -> None:
        """The peer broke a rule and the stream ends for it."""
        self._log.info("stream of {address} refused: {reason}", address=self.address, reason=str(fault))

    def streamClosed(self) -> None:
        """The stream ends, for whatever reason; called once."""

    # The way in.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        # A turn of the reactor is over soon, however much lies in the sockets: with Twisted's 64 KiB a flood
        # of messages kept push requests and everybody else waiting for seconds.
        getattr(transport, "transport", transport).bufferSize = READ_SIZE  # below direct TLS
        transport.registerProducer(self, True)
        self.secure = ISSLTransport.providedBy(transport)

    def dataReceived(self, data: bytes) -> None:
        if self.closed:
            self._drain(len(data))
            return
        try:
            self._parser.feed(data)
        except StreamFault as fault:
            self.refuse(fault)
            return
        self.segmentReceived()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._parser.close()
        stop_timer(self._close_timer)
        if not self.closed:
            self.closed = self.broken = True
            self._gone()

    def restart(self, max_size: int = BEFORE_AUTHENTICATION, keepalives: bool = False) -> None:
        """
        Expect a new header (RFC 6120 section 4.3.3).

        What the peer sent in the same segment is thrown away unread: after STARTTLS it was written
        by who knows whom.
        """
        self._parser.close()
        self._parser = self._new_parser(max_size, keepalives)
        self._header_sent = False

    def pause(self, reason: int) -> None:
        """Read nothing until `resume` was called with every reason there is."""
        if not self._paused_for:
            self.transport.pauseProducing()  # type: ignore[union-attr]
        self._paused_for |= reason

    def resume(self, reason: int) -> None:
        """One reason less; may be called without a `pause`."""
        if self._paused_for:
            self._paused_for &= ~reason
            if not self._paused_for:
                self.transport.resumeProducing()  # type: ignore[union-attr]

    # The way out.

    def send(self, stanza: Element) -> None:
        """Send a stanza (elements of the stream's own namespace have uri ``None``)."""
        self.send_xml(to_xml(stanza, self.namespace))

    def send_xml(self, xml: str) -> None:
        """Send an already serialised stanza; dropped where the stream is closed."""
        if self.closed:
            return
        self._written[xml[:4]] += 1
        data = xml.encode("utf-8")
        self.transport.write(data)  # type: ignore[union-attr]
        if self._clogged is not None:
            self._clogged += len(data)
            if self._clogged > MAX_OUTPUT:
                self._log.info("{address} does not read what it gets: disconnected", address=self.address)
                self._abandon()

    def pauseProducing(self) -> None:
        """The transport's buffer is full: from now on output is counted."""
        if self._clogged is None:
            self._clogged = 0

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._clogged = None
        self._tell_flushed(True)

    @property
    def is_clogged(self) -> bool:
        """Does the peer read less than it gets, at present?"""
        return self._clogged is not None

    def flushed(self) -> "Deferred[bool]":
        """Fires with True when what was sent is on its way, with False when the stream ends before."""
        if self.closed or self._clogged is None:
            return succeed(not self.closed)
        waiting: Deferred[bool] = Deferred()
        self._flushing.append(waiting)
        return waiting

    def _tell_flushed(self, on_its_way: bool) -> None:
        flushing, self._flushing = self._flushing, []
        for waiting in flushing:
            waiting.callback(on_its_way)

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""

    # The end.

    def refuse(self, fault: StreamFault) -> None:
        """End the stream because the peer broke a rule."""
        if not self.closed:
            self.streamRefused(fault)
            self.close(fault.condition, fault.text, fault.application)

    def close(self, condition: str = "", text: str = "", application: str = "") -> None:
        """
        End the stream, with a stream error (RFC 6120 section 4.9.3) unless ``condition`` is empty.

        The peer has some seconds to close its side. May be called twice.
        """
        if self.closed:
            return
        if not self._header_sent:
            # A stream error stands in a stream, even if theirs never began (section 4.9.1.1).
            self._send_header("")
        error = error_xml(condition, text, application) if condition else ""
        self.send_xml(f"{error}</stream:stream>")
        if self.closed:
            return
        self.closed = True
        self._parser.close()
        self._leave()
        self._gone()

    def _leave(self) -> None:
        transport: Any = self.transport
        transport.unregisterProducer()
        self.resume(RATE | BACKLOG | LOGIN)
        self._close_timer = self._clock.callLater(CLOSE_TIMEOUT, transport.abortConnection)
        # To close a TCP connection with input unread is to reset it, and the peer might never read the
        # stream error: so only our direction is closed. TLS waits for the peer's alert by itself.
        if not self.secure and hasattr(transport, "loseWriteConnection"):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _abandon(self) -> None:
        self.closed = self.broken = True
        self._parser.close()
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.abortConnection()
        self._gone()

    def _gone(self) -> None:
        # In this order: who waits for the peer to read finds it gone, and sends nothing more to it.
        self.streamClosed()
        self._tell_flushed(False)

    def _drain(self, size: int) -> None:
        self._drained += size
        if self._drained > MAX_DRAINED:
            self.transport.abortConnection()  # type: ignore[union-attr]

    # The header.

    def _new_parser(self, max_size: int, keepalives: bool = False) -> StreamParser:
        return StreamParser(
            self._header, self.elementReceived, self._footer, max_size, self.namespace, keepalives
        )

    def _header(self, header: Element) -> None:
        sender = _jid_or_nothing(header.attributes.get("from"))
        if header.uri != STREAMS or header.defaultUri != self.namespace:
            raise StreamFault("invalid-namespace")
        if header.name != "stream":
            raise StreamFault("bad-format", "no stream")
        domain = self._domain_of(header.attributes.get("to"))
        if domain is None or self.domain not in ("", domain):
            raise StreamFault("host-unknown")
        self.domain = domain
        if _major(header.attributes.get("version")) < 1:
            raise StreamFault("unsupported-version")
        self._send_header(sender)
        self.streamStarted(header)

    def _domain_of(self, to: str | None) -> str | None:
        if to is None:
            # Section 4.7.2 asks clients for it; one that leaves it out can mean only one domain.
            return next(iter(self._domains)) if len(self._domains) == 1 else None
        try:
            jid = parse_jid(to)
        except BadStanza:
            return None
        domain: str = jid.full()
        return domain if domain in self._domains else None

    def _send_header(self, to: str) -> None:
        self._header_sent = True
        sender = self.domain or next(iter(sorted(self._domains)), "")
        addresses = f" from={quoteattr(sender)}" if sender else ""
        if to:
            addresses += f" to={quoteattr(to)}"
        self.id = self._random(12).hex()
        self.send_xml(
            f"<?xml version='1.0'?><stream:stream xmlns='{self.namespace}' xmlns:stream='{STREAMS}'"
            f"{self.declarations} id='{self.id}'{addresses} version='1.0' xml:lang='en'>"
        )

    def _footer(self) -> None:
        self.close()


def host_of(address: Any) -> str:
    """An IP address, or whatever an address without one says of itself."""
    return getattr(address, "host", None) or str(address)


def _jid_or_nothing(text: str | None) -> str:
    if text is None:
        return ""
    try:
        jid: str = parse_jid(text).full()
    except BadStanza:
        return ""
    return jid


def _major(version: str | None) -> int:
    """Of ``1.0``; 0 where there is none, as in the time before RFC 3920."""
    major = (version or "").partition(".")[0]
    return int(major) if major.isascii() and major.isdigit() and len(major) < 4 else 0


def stop_timer(timer: Any) -> None:
    """Cancel a delayed call, if there is one and it is still to come."""
    if timer is not None and timer.active():
        timer.cancel()
