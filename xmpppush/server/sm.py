"""
Stream management (XEP-0198) as arithmetic: what was handled, what is not acknowledged yet.

It knows no connection and no clock, so that a stream may break and another one go on with it.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from xmpppush.xep.namespaces import SM, STANZA_ERRORS

MASK = 0xFFFFFFFF  # counters begin again after 2^32 - 1 (section 4)
MAX_UNACKED = 5000  # stanzas that wait for one client's acknowledgement
MAX_UNACKED_SIZE = 1024 * 1024  # characters of them: a resumed stream gets them all at once


class BadSMElement(Exception):
    """An element of stream management without what it needs."""


class HandledTooHigh(Exception):
    """
    More is acknowledged than was sent (section 4).

    Attributes:
        handled: The ``h`` that came.
        sent: How many stanzas were sent, as the client should count.
    """

    def __init__(self, handled: int, sent: int) -> None:
        super().__init__(f"{handled} stanzas acknowledged, {sent} sent")
        self.handled = handled
        self.sent = sent


class Sent(NamedTuple):
    """
    A stanza that was sent.

    Attributes:
        what: For its sender to know it by when it is acknowledged or given up.
    """

    xml: str
    what: Any


class StreamManagement:
    """
    Both directions of one session, over any number of streams.

    Attributes:
        id: For resuming, ``""`` where that was not agreed on.
        timeout: Seconds that a broken stream may be resumed in.
        unacked: What was sent and not acknowledged, oldest first.
        size: Characters of it.
    """

    __slots__ = ("_acked", "_pending", "_received", "_size", "id", "timeout", "unacked")

    def __init__(self, resumption_id: str = "", timeout: float = 0.0) -> None:
        self.id = resumption_id
        self.timeout = timeout
        self.unacked: deque[Sent] = deque()
        self._acked = 0
        self._size = 0
        self._received = 0
        # Numbers of the stanzas that are not done, in their order.
        self._pending: dict[int, None] = {}

    # The way in.

    def received(self) -> int:
        """A stanza came and is done with; returns its number."""
        self._received += 1
        return self._received

    def pending(self, number: int) -> None:
        """The stanza of this number is not done yet: it may still get lost."""
        self._pending[number] = None

    def done(self, number: int) -> None:
        """It is now."""
        del self._pending[number]

    @property
    def is_settled(self) -> bool:
        """Everything that came is done."""
        return not self._pending

    @property
    def newest(self) -> int:
        """Number of the newest stanza that came."""
        return self._received

    def is_done(self, number: int) -> bool:
        """Is everything up to this number done?"""
        return not self._pending or next(iter(self._pending)) > number

    @property
    def handled(self) -> int:
        """
        The ``h`` to tell: only what nothing can undo any more, and only up to the first that is not.
        """
        count = next(iter(self._pending)) - 1 if self._pending else self._received
        return count & MASK

    # The way out.

    def sent(self, xml: str, what: Any = None) -> bool:
        """
        A stanza is sent.

        Returns:
            False where the client owes more acknowledgements than anybody keeps for it.
        """
        self.unacked.append(Sent(xml, what))
        self._size += len(xml)
        return self._size <= MAX_UNACKED_SIZE and len(self.unacked) <= MAX_UNACKED

    @property
    def size(self) -> int:
        return self._size

    @property
    def is_half_full(self) -> bool:
        """Time to wait for the client before sending what can wait."""
        return self._size > MAX_UNACKED_SIZE // 2 or len(self.unacked) > MAX_UNACKED // 2

    def acknowledge(self, handled: int) -> list[Sent]:
        """
        The client handled so many stanzas.

        An ``h`` from before the last one says nothing new and is no error.

        Returns:
            What is acknowledged by it, in order.

        Raises:
            HandledTooHigh: So many were never sent; nothing is acknowledged.
        """
        unacked = self.unacked
        count = (handled - self._acked) & MASK
        if count > len(unacked):
            if (self._acked - handled) & MASK <= min(self._acked, MAX_UNACKED):
                return []
            raise HandledTooHigh(handled, (self._acked + len(unacked)) & MASK)
        self._acked += count
        acknowledged = [unacked.popleft() for _ in range(count)]
        for sent in acknowledged:
            self._size -= len(sent.xml)
        return acknowledged

    def give_up(self) -> Iterator[Sent]:
        """The session ends: takes out what was not acknowledged, in order."""
        self._size = 0
        while self.unacked:
            yield self.unacked.popleft()


def parse_count(text: str | None) -> int:
    """
    An ``h`` (xs:unsignedInt).

    Raises:
        BadSMElement: It is missing or no such number.
    """
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 10) or int(text) > MASK:
        raise BadSMElement("'h' is a number from 0 to 4294967295")
    return int(text)


def wants_resumption(resume: str | None) -> bool:
    """The ``resume`` attribute of ``<enable/>`` (xs:boolean)."""
    return resume in ("true", "1")


def resumption_timeout(ours: float, maximum: str | None) -> float:
    """
    Seconds that a stream may be resumed in: the ``max`` of ``<enable/>`` where it is smaller than ours.

    What is no number is no wish (section 3).
    """
    if maximum is None or not (maximum.isascii() and maximum.isdigit() and len(maximum) <= 10):
        return ours
    return min(ours, float(maximum))


def enabled_xml(management: StreamManagement) -> str:
    if not management.id:
        return f"<enabled xmlns='{SM}'/>"
    return f"<enabled xmlns='{SM}' id='{management.id}' resume='true' max='{int(management.timeout)}'/>"


def failed_xml(condition: str, handled: int | None = None) -> str:
    """
    ``<failed/>``.

    Args:
        condition: Of RFC 6120 section 8.3.3.
        handled: How many stanzas of a session that is over were handled, where that is known.
    """
    h = f" h='{handled}'" if handled is not None else ""
    return f"<failed xmlns='{SM}'{h}><{condition} xmlns='{STANZA_ERRORS}'/></failed>"


def too_high_xml(error: HandledTooHigh) -> str:
    """The application-specific condition of the stream error (section 4)."""
    return f"<handled-count-too-high xmlns='{SM}' h='{error.handled}' send-count='{error.sent}'/>"


REQUEST_XML = f"<r xmlns='{SM}'/>"
