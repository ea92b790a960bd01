"""
The other side of XEP-0114: this process as a component of somebody else's XMPP server.

A `ComponentLink` keeps one connection to that server for as long as it runs. What comes is for the pubsub
host of its name: publishes, nearly always, which take the short way (`xmpppush.xep.publishes`), and
everything else through the router. Users of that server choose what is in these stanzas, but not one of
them can end the stream for all others: see `ComponentParser`.
"""

import hashlib
import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from random import Random
from typing import Any
from xml.sax.saxutils import quoteattr

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.error import StanzaError
from twisted.words.xish.domish import Element

from xmpppush.config.sections import ComponentSection
from xmpppush.errors import AppServerUnreachable, BadStanza
from xmpppush.interfaces import IPubSub
from xmpppush.jids import parse_jid
from xmpppush.server.component_parser import ComponentParser
from xmpppush.server.parser import StreamFault
from xmpppush.server.router import Router
from xmpppush.server.stream import BACKLOG, XMPPStream, host_of, stop_timer
from xmpppush.xep.conditions import condition_of, error_reply
from xmpppush.xep.namespaces import COMPONENT, STREAM_ERRORS, STREAMS
from xmpppush.xep.publishes import PublishRequest, publish_at, publish_result
from xmpppush.xep.xml import to_xml

MAX_STANZA = 1024 * 1024  # bytes; more is what no server takes from its users
MAX_UNANSWERED = 1000  # publishes; then nothing more is read until half of them are answered
MAX_HELD = 64 * 1024  # bytes of a publish that is not whole yet
MAX_SHORT = 16 * 1024  # bytes of a publish that goes the short way; push services take 4 KiB
READ_SIZE = 16 * 1024
MAX_ECHO = 16 * 1024  # characters of an error; RFC 6120 section 8.3.1 leaves it to us what it repeats
# Of anything we send. Prosody ends the stream of a component at 512 KiB; and what was 256 KiB of a user's has
# four times as much when each '>' in it is escaped.
MAX_SENT = 256 * 1024

LOGIN_TIMEOUT = 20.0  # seconds from the first octet to the server's last word on the handshake
EARLY_TIMEOUT = 5.0
CLOSE_TIMEOUT = 3.0  # seconds that a stop waits for the server to close its side
ANSWER_TIMEOUT = 5.0  # seconds that a stop waits for publishes to be on disk

# Between two tries, in seconds. The first one comes at once: that an established stream ends is mostly a
# restart over there, and what is published meanwhile is lost, on ejabberd with the registration.
FIRST_DELAY, MAX_DELAY, FACTOR = 0.1, 15.0, 1.6
AFTER_CONFLICT = 5.0
STEADY = 10.0  # a stream that ends sooner after the log-in is one that the server does not want
MAX_REFUSED_DELAY = 60.0  # where somebody has to change a configuration first

_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 60_000))

# What a server means that ends the stream before the log-in is through (XEP-0114, RFC 6120 section 4.9.3).
REFUSALS = {
    # ejabberd says the same of a component that it does not know.
    "not-authorized": "wrong secret (not-authorized): '[{section}] secret' must be the one that the server"
    " has for component {jid}",
    "host-unknown": "the server knows no component {jid} (host-unknown): add it to the server's"
    " configuration",
    "conflict": "another component is connected as {jid} (conflict)",
    "invalid-namespace": "the port is not one for components (invalid-namespace): see '[{section}] endpoint'",
}


class Backoff:
    """How long to wait before the next try: longer each time, and never quite as long as others wait."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._delay = 0.0

    def reset(self) -> None:
        """It worked: the next try comes at once."""
        self._delay = 0.0

    def next(self, limit: float, least: float = 0.0) -> float:
        delay = max(self._delay, least)
        self._delay = min(limit, max(FIRST_DELAY, delay * FACTOR))
        return min(delay, limit) * (0.5 + self._random.random() / 2)


class ComponentStream(XMPPStream):
    """
    One stream to the server, opened by us.

    Attributes:
        attached: The server took the handshake.
        leaving: Our closing tag is sent, theirs has not come yet: what they sent before it is still taken.
        link: What it is for.
        reason: Why it ended, as far as it is known; the name of a condition where the server gave one.
    """

    namespace = COMPONENT
    attached = False
    leaving = False
    reason = ""

    _held = b""
    _login_timer: Any = None

    def __init__(self, link: "ComponentLink | EarlyAttachment", clock: Any) -> None:
        self.link: Any = link
        super().__init__((link.jid,), clock, bytes)  # no ids of ours to make

    # The beginning.

    def connectionMade(self) -> None:
        super().connectionMade()
        transport: Any = self.transport
        getattr(transport, "transport", transport).bufferSize = READ_SIZE
        keep_alive(transport)
        self._login_timer = self._clock.callLater(LOGIN_TIMEOUT, self._too_slow)
        self._header_sent = True
        self.send_xml(
            f"<?xml version='1.0'?><stream:stream xmlns='{COMPONENT}' xmlns:stream='{STREAMS}'"
            f" to={quoteattr(self.link.jid)}>"
        )

    def _too_slow(self) -> None:
        self.reason = "no answer to the log-in"
        self._abandon()

    def _new_parser(self, max_size: int, keepalives: bool = False) -> Any:
        return ComponentParser(
            self._header, self.elementReceived, self._footer, self._too_much, MAX_STANZA, COMPONENT
        )

    def _header(self, header: Element) -> None:
        if header.uri != STREAMS or header.name != "stream" or header.defaultUri != COMPONENT:
            raise StreamFault("invalid-namespace")
        proof = (header.getAttribute("id", "") + self.link.secret).encode()
        # XEP-0114 section 3 knows no other: SHA-1 of the stream's id and the secret, in hex.
        self.send_xml(f"<handshake>{hashlib.sha1(proof).hexdigest()}</handshake>")  # noqa: S324

    def elementReceived(self, element: Element) -> None:
        if element.uri == STREAMS and element.name == "error":
            self.reason = condition_in(element)
        elif self.attached:
            self.link.stanza(element)
        elif element.name == "handshake" and element.uri is None:
            stop_timer(self._login_timer)
            self.attached = True
            self.link.is_attached(self)

    def _too_much(self, stanza: Element | None) -> None:
        """Something of a user's that is too large or deep: they are told, and all others go on."""
        if self.attached and stanza is not None and isinstance(self.link, ComponentLink):
            self.link.answer(
                stanza, StanzaError("policy-violation", "modify", text="the stanza is too large")
            )

    # What comes, publishes by the short way.

    def dataReceived(self, data: bytes) -> None:
        if not self.attached or self.closed:
            super().dataReceived(data)
            return
        try:
            self._read(self._held + data if self._held else data)
        except StreamFault as fault:
            self.refuse(fault)
            return
        self.link.segment(self)

    def _read(self, data: bytes) -> None:
        self._held = b""
        position, size = 0, len(data)
        while position < size and not self.closed:
            parser: Any = self._parser
            if parser.between_stanzas:
                request = publish_at(data, position)
                if request is not None and request.end - position < MAX_SHORT and self.link.publish(request):
                    position = request.end
                    continue
                if is_unfinished_iq(data, position) and size - position < MAX_HELD:
                    self._held = data[position:]
                    return
            # Up to where the short way may go on.
            end = data.find(b"</iq>", position) + 5
            if end < 5:
                end = size
            parser.feed(data[position:end])
            position = end
            if parser.is_worn and not self.closed:
                self._parser = parser.renewed()

    # The end.

    def finish(self) -> None:
        """Say goodbye. Until the server closes its side, what it sent before is still taken."""
        if self.closed or self.leaving:
            return
        self.send_xml("</stream:stream>")
        self.leaving = True
        self._close_timer = self._clock.callLater(CLOSE_TIMEOUT, self._abandon)
        self.resume(BACKLOG)

    def send_xml(self, xml: str) -> None:
        if not self.leaving:
            super().send_xml(xml)

    def _footer(self) -> None:
        if self.leaving:
            self._abandon()
        else:
            self.reason = self.reason or "the server closed the stream"
            self.close()

    def _abandon(self) -> None:
        if not self.closed:
            super()._abandon()

    def streamRefused(self, fault: StreamFault) -> None:
        self.reason = fault.condition

    def streamClosed(self) -> None:
        stop_timer(self._login_timer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = self.reason or f"connection lost: {in_words(reason)}"
        super().connectionLost(reason)
        stop_timer(self._close_timer)
        self.link.is_gone(self)


class EarlyAttachment:
    """
    A component's connection from before there is anything behind it: taken, and not read.

    A server that lets two connect by one name (ejabberd) spreads what it has between them: while this one
    exists the other may go, and what is meant for it waits in the connection.
    """

    def __init__(self, section: ComponentSection, reactor: Any, endpoint: Any = None) -> None:
        self.jid = section.jid
        self.secret = section.secret
        self.stream: ComponentStream | None = None
        self._early: list[Element] = []
        self._clock = reactor
        self._endpoint = endpoint or clientFromString(reactor, section.endpoint)
        self._over: Deferred[bool] = Deferred()

    def attach(self, timeout: float = EARLY_TIMEOUT) -> "Deferred[bool]":
        """Fires with whether it worked: it does not where the server takes one connection only."""
        factory = Factory.forProtocol(partial(ComponentStream, self, self._clock))
        factory.noisy = False
        connecting = self._endpoint.connect(factory)
        connecting.addTimeout(timeout, self._clock).addErrback(lambda _: self._settle(False))
        return self._over

    def _settle(self, attached: bool) -> None:
        if not self._over.called:
            self._over.callback(attached)

    def is_attached(self, stream: ComponentStream) -> None:
        self.stream = stream
        stream.pause(BACKLOG)
        self._settle(True)

    def is_gone(self, stream: ComponentStream) -> None:
        self.stream = None
        self._settle(False)

    def publish(self, request: PublishRequest) -> bool:
        return False

    def stanza(self, stanza: Element) -> None:
        self._early.append(stanza)  # of the same segment as the end of the log-in

    def hand_over(self, link: "ComponentLink") -> bool:
        """The link is there; False where it has to make a connection of its own."""
        stream, self.stream = self.stream, None
        if stream is None or stream.closed:
            return False
        link.adopt(stream)
        for stanza in self._early:
            link.stanza(stanza)
        stream.resume(BACKLOG)
        return True


class ComponentLink(Service):
    """
    A ``[component]``: attached, or trying to be.

    Attributes:
        jid: The domain that it has over there.
        answers: How publishes were answered: ``result`` or the name of the error, to how often.
        trouble: Why it is not attached, ``None``: it is.
        address: Of the server, while there is a connection.
    """

    _log = Logger()

    def __init__(
        self,
        section: ComponentSection,
        router: Router,
        pubsub: IPubSub,
        reactor: Any,
        random: Random,
        backlog: Callable[[], "Deferred[Any] | None"] | None = None,
        endpoint: Any = None,
        early: EarlyAttachment | None = None,
    ) -> None:
        """
        Args:
            pubsub: One of its hosts is the component.
            backlog: As `C2SFactory`'s.
            endpoint: Used instead of the section's.
            early: A connection to begin with.
        """
        self.section = f"component:{section.name}" if section.name else "component"
        self.setName(f"component {section.jid}")
        self.jid = section.jid
        self.secret = section.secret
        self.answers: Counter[str] = Counter()
        self.trouble: str | None = "not attached yet"
        self.stream: ComponentStream | None = None
        self._router = router
        self._pubsub = pubsub
        self._clock = reactor
        self._backlog = backlog
        self._endpoint = endpoint or clientFromString(reactor, section.endpoint)
        self._early = early
        self._backoff = Backoff(random)
        self._unsteady = Backoff(random)
        self._attached_at = 0.0
        # Ids of items that came without one: unique, and of no use to anybody.
        self._item_prefix, self._item_numbers = f"{random.getrandbits(64):016x}-", count(1)
        self._unanswered = 0
        self._paused = False
        self._connecting: Any = None
        self._retry: Any = None
        self._stopped: Deferred[None] | None = None
        self._stop_timer: Any = None
        # Of the outage at hand: when it began, and what was said about it.
        self._since: float | None = None
        self._said: set[str] = set()
        router.uplinks[section.jid] = self

    # Being attached.

    def startService(self) -> None:
        super().startService()
        self._stopped = None
        early, self._early = self._early, None
        if early is None or not early.hand_over(self):
            self._connect()

    def adopt(self, stream: ComponentStream) -> None:
        """Go on with a stream that is attached already."""
        stream.link = self
        self.is_attached(stream)

    def _connect(self) -> None:
        self._retry = None
        factory = Factory.forProtocol(partial(ComponentStream, self, self._clock))
        factory.noisy = False
        self._connecting = self._endpoint.connect(factory)
        self._connecting.addCallbacks(self._is_connected, self._not_connected)

    def _is_connected(self, stream: ComponentStream) -> None:
        self._connecting = None
        if not self.running:
            stream.transport.abortConnection()  # type: ignore[union-attr]
        elif stream.broken:
            self._again(stream.reason)
        else:
            self.stream = stream

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if self.running:
            self._again(f"cannot connect: {in_words(failure)}")

    def is_attached(self, stream: ComponentStream) -> None:
        self.stream = stream
        self.trouble = None
        self._backoff.reset()
        self._attached_at = self._clock.seconds()
        if self._since is None or not self._said:
            self._log.info(
                "[{section}] attached to {address} as {jid}",
                section=self.section,
                address=stream.address,
                jid=self.jid,
            )
        else:
            self._log.info(
                "[{section}] attached to {address} as {jid} again, after {seconds} s",
                section=self.section,
                address=stream.address,
                jid=self.jid,
                seconds=round(self._clock.seconds() - self._since, 1),
            )
        self._since = None
        self._said.clear()

    def is_gone(self, stream: ComponentStream) -> None:
        if self.stream is not stream:
            return
        self.stream = None
        self._paused = False
        if self._stopped is not None:
            self._is_stopped()
        if self.running:
            if stream.attached and stream.reason == "conflict":
                # Whoever took our place would lose it to us at once, and so on.
                self._again(stream.reason, refused=True, least=AFTER_CONFLICT)
            elif stream.attached:
                self._again(stream.reason, least=self._pause_after())
            else:
                self._again(stream.reason, refused=stream.reason in REFUSALS)

    def _pause_after(self) -> float:
        """Nothing the first time; longer each time that a log-in was over again at once."""
        if self._clock.seconds() - self._attached_at < STEADY:
            return self._unsteady.next(MAX_DELAY)
        self._unsteady.reset()
        return 0.0

    def _again(self, reason: str, refused: bool = False, least: float = 0.0) -> None:
        now = self._clock.seconds()
        if self._since is None:
            self._since = now
        told = REFUSALS.get(reason, reason).format(section=self.section, jid=self.jid)
        self.trouble = told
        delay = self._backoff.next(MAX_REFUSED_DELAY if refused else MAX_DELAY, least)
        self._retry = self._clock.callLater(delay, self._connect)
        # One line for an outage, and one more where the server says something of its own.
        kind = reason if refused else ""
        if kind not in self._said:
            self._said.add(kind)
            self._log.warn(
                "[{section}] not attached as {jid}: {reason}; trying again until it is",
                section=self.section,
                jid=self.jid,
                reason=told,
            )

    # Going.

    def stopService(self) -> "Deferred[None] | None":
        """Fires when publishes that were taken are answered, and the stream is closed on both sides."""
        super().stopService()
        stop_timer(self._retry)
        if self._connecting is not None:
            self._connecting.addErrback(lambda failure: failure.trap(CancelledError))
            self._connecting.cancel()
        if self.stream is None:
            return None
        self._stopped = Deferred()
        stopped = self._stopped
        if not self.stream.attached:
            self.stream.finish()
            return stopped
        self.stream.pause(BACKLOG)
        self._paused = True
        self._hurry(self._clock.seconds() + ANSWER_TIMEOUT)
        return stopped

    def _hurry(self, deadline: float) -> None:
        """What is on disk can be answered; what is not yet will be in a moment."""
        self._pubsub.answer_waiting()
        if self._unanswered and self._clock.seconds() < deadline and self.stream is not None:
            self._stop_timer = self._clock.callLater(0.02, self._hurry, deadline)
        else:
            self._finish()

    def _finish(self) -> None:
        stop_timer(self._stop_timer)
        if self.stream is not None:
            self._paused = False
            self.stream.finish()

    def _is_stopped(self) -> None:
        stop_timer(self._stop_timer)
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    # What comes.

    def publish(self, request: PublishRequest) -> bool:
        """Take it; returns whether it could go the short way."""
        if request.publish.pubsub != self.jid or self._is_ours(request.sender):
            self._answered(request, StanzaError("not-acceptable"))
            return True
        self._unanswered += 1
        if self._pubsub.offer(request.publish, partial(self._concluded, request)):
            return True
        self._unanswered -= 1
        return False

    def _concluded(self, request: PublishRequest, error: BaseException | None) -> None:
        self._unanswered -= 1
        self._answered(request, error)
        if self._paused and self._stopped is None and self._unanswered <= MAX_UNANSWERED // 2:
            self._resume()

    def _answered(self, request: PublishRequest, error: BaseException | None) -> None:
        if error is None:
            self.answers["result"] += 1
            if self.stream is not None and self.stream.attached:
                item = request.item or f"{self._item_prefix}{next(self._item_numbers)}"
                self.stream.send_xml(publish_result(request, item))
            return
        iq = Element((None, "iq"))
        iq["type"], iq["id"], iq["from"], iq["to"] = "set", request.id, request.sender, request.to
        self.answers[self.answer(iq, error)] += 1

    def segment(self, stream: ComponentStream) -> None:
        """All of a segment is taken: is that enough for now?"""
        if self._paused or stream.closed or stream.leaving:
            return
        if self._unanswered >= MAX_UNANSWERED:
            self._paused = True
            stream.pause(BACKLOG)
            return
        relieved = self._backlog() if self._backlog is not None else None
        if relieved is not None and not relieved.called:
            self._paused = True
            stream.pause(BACKLOG)
            relieved.addBoth(self._relieved, stream)

    def _relieved(self, result: object, stream: ComponentStream) -> None:
        if self._paused and stream is self.stream and self._stopped is None:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        if self.stream is not None:
            self.stream.resume(BACKLOG)

    def stanza(self, stanza: Element) -> None:
        """Anything else that comes: for a host of ours, from somewhere else, or it goes no further."""
        if stanza.uri is not None or stanza.name not in ("iq", "message", "presence"):
            return
        try:
            to = parse_jid(stanza.getAttribute("to", "")).host
            if to != self.jid or self._is_ours(stanza.getAttribute("from", "")):
                raise StanzaError("not-acceptable")
        except (BadStanza, StanzaError) as error:
            self.answer(stanza, error)
            return
        self._router.route(stanza)

    def _is_ours(self, sender: str) -> bool:
        """A domain that is served here is not over there, whoever says so; raises `BadStanza`."""
        return parse_jid(sender).host in self._router.routes

    # What goes.

    def send(self, stanza: Element) -> None:
        """The router's way out."""
        if self.stream is not None and self.stream.attached:
            xml = to_xml(stanza, COMPONENT)
            if len(xml) > MAX_ECHO and stanza.getAttribute("type") == "error":
                del stanza.children[:-1]  # the error itself comes last
                xml = to_xml(stanza, COMPONENT)
            if len(xml.encode()) <= MAX_SENT:
                self.stream.send_xml(xml)
        elif stanza.name != "presence" and stanza.getAttribute("type") not in ("result", "error"):
            reply = error_reply(stanza, AppServerUnreachable("not attached"))
            if reply is not None:
                self._router.route(reply)

    def answer(self, stanza: Element, error: BaseException) -> str:
        """Answer with an error, where that is allowed; returns the name of its condition."""
        reply = error_reply(stanza, error)
        if reply is not None and reply.getAttribute("to") and stanza.name == "iq":
            self.send(reply)
        found = condition_of(error)
        if isinstance(error, StanzaError):
            return str(error.condition)
        return found.name if found is not None else "internal-server-error"


def is_unfinished_iq(data: bytes, position: int) -> bool:
    """Does an iq with content begin here whose end is still to come? Then waiting for that end is safe."""
    if not data.startswith(b"<iq ", position):
        return len(data) - position < 4 and b"<iq ".startswith(data[position:])
    opening = data.find(b">", position)
    if opening < 0:
        return True
    end = data.find(b"</iq", opening)
    return data[opening - 1] != 0x2F and (end < 0 or data.find(b">", end) < 0)  # no '/>'


def condition_in(error: Element) -> str:
    """The condition of a ``<stream:error/>``."""
    for child in error.elements():
        if child.uri == STREAM_ERRORS and child.name != "text":
            return str(child.name)
    return "undefined-condition"


def keep_alive(transport: Any) -> None:
    """Let the system find out within a minute or so that the server is gone without a word (tcp(7))."""
    with suppress(AttributeError, OSError):
        connection = transport.getHandle()
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def in_words(failure: Failure) -> str:
    """What went wrong with a connection, short."""
    error = failure.value
    if isinstance(error, DNSLookupError):
        return "no such host"
    if isinstance(error, TimeoutError):
        return "no answer"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, ConnectError) and error.osError:
        number = error.osError
        text = os.strerror(number) if isinstance(number, int) else number.strerror or str(number)
    return text.rstrip(".").partition("\n")[0][:200].lower()


__all__ = ["ComponentLink", "ComponentStream", "host_of"]
