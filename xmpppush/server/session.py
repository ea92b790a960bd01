"""
Sessions: what a client binds a resource for, and what outlives a broken stream (XEP-0198).

The connection reads and checks; the session is whom the server sends to. Without stream management it
is little more than a name for the connection.
"""

from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.words.protocols.jabber.jid import JID
from twisted.words.xish.domish import Element
from zope.interface import implementer

from xmpppush.interfaces import ISession, ISessionHost
from xmpppush.jids import parse_jid
from xmpppush.server.sm import REQUEST_XML, StreamManagement
from xmpppush.xep.xml import to_xml

# An acknowledgement is asked for when so many stanzas wait for it, or a second after the first of them:
# soon enough that the phone's radio is still on for the stanza.
REQUEST_AT = 10
REQUEST_AFTER = 1.0


class Stream(Protocol):
    """What a session needs of its connection."""

    def send_xml(self, xml: str) -> None: ...
    def flushed(self) -> "Deferred[bool]": ...
    def close(self, condition: str, text: str = "") -> None: ...


@implementer(ISession)
class Session:
    """
    One bound resource.

    Args:
        ack_timeout: Seconds after which a client that owes an acknowledgement is not ``answering``.

    Attributes:
        connection: Its stream, ``None`` while there is none.
        sm: Its counters, ``None`` without stream management.
    """

    priority: int | None = None
    presence: Element | None = None
    interested = False
    hibernated = False
    answering = True
    active = True
    carbons = False
    ended = False
    resource = ""
    full = ""
    jid: JID
    sm: StreamManagement | None = None

    _overflown = False
    _requested: float | None = None
    _request_timer: Any = None
    _ack_timer: Any = None
    _resume_timer: Any = None

    def __init__(
        self, connection: Stream, account: str, host: ISessionHost, clock: IReactorTime, ack_timeout: float
    ) -> None:
        self.connection: Stream | None = connection
        self.account = account
        self._host = host
        self._clock = clock
        self._ack_timeout = ack_timeout
        self._settling: list[Deferred[None]] = []
        self._relieving: list[Deferred[bool]] = []

    def bound(self, resource: str) -> None:
        """The host said what it is called."""
        self.resource = resource
        self.full = f"{self.account}/{resource}"
        self.jid = parse_jid(self.full)

    @property
    def managed(self) -> bool:
        return self.sm is not None

    # The way out.

    def send(self, stanza: Element) -> None:
        xml = to_xml(stanza)
        self.send_xml(xml, stanza if stanza.name == "iq" and self.sm is not None else None)

    def send_xml(self, xml: str, what: object = None) -> None:
        sm, connection = self.sm, self.connection
        if sm is None:
            if connection is not None:
                connection.send_xml(xml)
            return
        if self.ended:
            return
        fits = sm.sent(xml, what)
        if connection is not None:
            connection.send_xml(xml)
            self._request()
        if not fits and not self._overflown:
            # Not now: whoever routes this stanza does not expect its sessions to go.
            self._overflown = True
            self._clock.callLater(0, self._overflow)

    def _overflow(self) -> None:
        if not self.ended:
            self.close("policy-violation", "too many stanzas without an acknowledgement")

    def flushed(self) -> "Deferred[bool]":
        connection, sm = self.connection, self.sm
        if sm is None:
            return succeed(False) if connection is None else connection.flushed()
        if sm.is_half_full:
            relieved: Deferred[bool] = Deferred()
            self._relieving.append(relieved)
            return relieved
        if connection is None:
            return succeed(self.hibernated)
        return connection.flushed().addCallback(lambda on_its_way: on_its_way or self.hibernated)

    def close(self, condition: str, text: str = "") -> None:
        if self.connection is not None:
            self.connection.close(condition, text)
        elif not self.ended:
            self._host.unbind(self)

    # Acknowledgements (XEP-0198 section 4).

    def manage(self, sm: StreamManagement) -> None:
        """The client enabled stream management."""
        self.sm = sm
        self._host.enabled(self)

    def _request(self) -> None:
        if self._requested is not None or self.sm is None:
            return
        if len(self.sm.unacked) >= REQUEST_AT:
            self._request_now()
        elif self._request_timer is None:
            self._request_timer = self._clock.callLater(REQUEST_AFTER, self._request_due)

    def _request_due(self) -> None:
        self._request_timer = None
        if self._requested is None and self.sm is not None and self.sm.unacked:
            self._request_now()

    def _request_now(self) -> None:
        # Where the stream is broken nobody is asked, but the client owes it all the same.
        self._requested = self._clock.seconds()
        if self.connection is not None:
            self.connection.send_xml(REQUEST_XML)
        if self._ack_timer is None:
            self._ack_timer = self._clock.callLater(self._ack_timeout, self._ack_due)

    def _ack_due(self) -> None:
        self._ack_timer = None
        if self._requested is None:
            return
        # It may have answered since, and been asked again.
        left = self._requested + self._ack_timeout - self._clock.seconds()
        if left > 0:
            self._ack_timer = self._clock.callLater(left, self._ack_due)
        else:
            self.answering = False
            self._host.overdue(self)

    def acknowledge(self, handled: int) -> None:
        """
        The client handled so many stanzas.

        Raises:
            HandledTooHigh: It did not.
        """
        assert self.sm is not None
        acknowledged = self.sm.acknowledge(handled)
        self._requested = None
        self.answering = True
        what = [sent.what for sent in acknowledged if sent.what is not None]
        if what:
            self._host.acknowledged(self, what)
        if self._relieving and not self.sm.is_half_full:
            self._relieve(True)
        if self.sm.unacked:
            self._request()

    def _relieve(self, go_on: bool) -> None:
        relieving, self._relieving = self._relieving, []
        for relieved in relieving:
            relieved.callback(go_on)

    # The way in.

    def pending(self, number: int, stored: "Deferred[Any]") -> None:
        """A stanza of the client is not on disk before ``stored`` fires."""
        assert self.sm is not None
        self.sm.pending(number)
        stored.addCallback(self._stored, number)

    def _stored(self, result: object, number: int) -> None:
        assert self.sm is not None
        self.sm.done(number)
        settling = self._settling
        if settling and self.sm.is_settled:
            self._settling = []
            for settled in settling:
                settled.callback(None)

    def settled(self) -> "Deferred[None]":
        """Fires when everything that came is on disk."""
        if self.sm is None or self.sm.is_settled:
            return succeed(None)
        settled: Deferred[None] = Deferred()
        self._settling.append(settled)
        return settled

    # Broken streams (XEP-0198 section 5).

    @property
    def is_resumable(self) -> bool:
        return self.sm is not None and bool(self.sm.id)

    def hibernate(self) -> None:
        assert self.sm is not None
        self.connection = None
        self.hibernated = True
        self._request_due()
        self._resume_timer = self._clock.callLater(self.sm.timeout, self._host.unbind, self)

    def detach(self) -> "Stream | None":
        """Another stream resumes it: returns the one it has, which is no longer its own."""
        connection, self.connection = self.connection, None
        self.hibernated = True
        self._cancel("_resume_timer")
        return connection

    def attach(self, connection: Stream) -> None:
        """Go on with a new stream: what was not acknowledged is sent again."""
        assert self.sm is not None
        self._cancel("_resume_timer")
        self.connection = connection
        self.hibernated = False
        self.answering = self.active = True  # XEP-0352 section 5: what the client said is forgotten
        self._requested = None
        for sent in tuple(self.sm.unacked):
            connection.send_xml(sent.xml)
        if self.sm.unacked:
            self._request()

    def end(self) -> list[Any]:
        self.ended = True
        for timer in ("_request_timer", "_ack_timer", "_resume_timer"):
            self._cancel(timer)
        self.hibernated = False
        left = [] if self.sm is None else [sent.what for sent in self.sm.give_up() if sent.what is not None]
        self._relieve(False)
        return left

    def unacknowledged(self) -> list[Any]:
        return [] if self.sm is None else [sent.what for sent in self.sm.unacked if sent.what is not None]

    def _cancel(self, name: str) -> None:
        timer = getattr(self, name)
        if timer is not None and timer.active():
            timer.cancel()
        setattr(self, name, None)
