"""
Offline messages (XEP-0160): kept for an account, handed to its first present session.

A session that just became present gets the stored messages first. What arrives for it meanwhile is
held back, so that the order stays the sender's.
"""

from collections.abc import Callable, Iterator, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.words.xish.domish import Element

from xmpppush.interfaces import IMessageStore, ISession
from xmpppush.model import OfflineMessage
from xmpppush.server.handed import Handed, HandedMessages
from xmpppush.server.sm import MAX_UNACKED
from xmpppush.xep.times import stamp_of
from xmpppush.xep.xml import to_xml

PORTION = 64 * 1024


def with_delay(stanza: Element, server: str, now: float) -> str:
    """
    The message as XML with a ``<delay/>`` of ours (XEP-0203 section 2).

    Args:
        server: Domain that kept it.
        now: Seconds since the epoch.
    """
    return delayed(to_xml(stanza), server, now)


def delayed(xml: str, server: str, now: float) -> str:
    """As `with_delay`, of a message that is XML already."""
    delay = f"<delay xmlns='urn:xmpp:delay' from='{server}' stamp='{stamp_of(now)}'>Offline storage</delay>"
    return xml.removesuffix("</message>") + delay + "</message>"


def portions(messages: Sequence[OfflineMessage]) -> Iterator[list[OfflineMessage]]:
    """The messages in portions of about `PORTION` characters of XML, in order."""
    portion: list[OfflineMessage] = []
    size = 0
    for message in messages:
        portion.append(message)
        size += len(message.xml)
        if size >= PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


class OfflineMessages:
    """
    Args:
        reroute: Takes a held message whose session went away.
        handed: Keeps track of those that a session acknowledges.
    """

    _log = Logger()

    def __init__(
        self,
        messages: IMessageStore,
        clock: IReactorTime,
        reroute: Callable[[Element], object],
        handed: HandedMessages,
    ) -> None:
        self._messages = messages
        self._clock = clock
        self._reroute = reroute
        self._handed = handed
        self._held: dict[ISession, list[tuple[Element, str, object]]] = {}
        # Account to the session that became present while another one of it was being served.
        self._busy: dict[str, ISession | None] = {}

    def message_for(self, account: str, server: str, stanza: Element) -> OfflineMessage:
        now = self._clock.seconds()
        return OfflineMessage(0, account, with_delay(stanza, server, now), now)

    def send(self, session: ISession, stanza: Element, xml: str, what: object = None) -> None:
        """Send a message to a session, behind what it still waits for; ``what`` as in `ISession`."""
        if self._held:
            held = self._held.get(session)
            if held is not None:
                held.append((stanza, xml, what))
                if len(held) > MAX_UNACKED:
                    session.close("policy-violation", "too many stanzas without an acknowledgement")
                return
        session.send_xml(xml, what)

    def flush(self, session: ISession) -> "Deferred[None]":
        """The session became present: it gets what waits, unless another one is getting it now."""
        return Deferred.fromCoroutine(self._flush(session))

    async def _flush(self, session: ISession) -> None:
        account = session.account
        if account in self._busy:
            self._busy[account] = session
            return
        self._busy[account] = None
        self._held[session] = []
        try:
            self._handed.forget_now()
            for portion in portions(await self._messages.waiting(account)):
                if session not in self._held:
                    break
                sent = self._send_portion(session, portion)
                # A client that reads slowly, or not at all, does not cost what it has not got yet.
                if not await session.flushed():
                    break
                if sent:
                    self._handed.given(sent)
                    await self._messages.forget(sent)
        except Exception:
            self._log.failure("offline messages of {account} could not be handed over", account=account)
        finally:
            next_one = self._busy.pop(account)
            for _, xml, what in self._held.pop(session, ()):
                session.send_xml(xml, what)
            if next_one is not None:
                self.flush(next_one)  # finds nothing, unless the first one went away too early

    def _send_portion(self, session: ISession, portion: Sequence[OfflineMessage]) -> list[int]:
        """Returns which of them to forget when they are on their way: those nobody acknowledges."""
        sent = []
        for message in portion:
            if session not in self._held:
                break
            if session.managed:
                handed = self._handed.again(message, session)
                if handed is not None:
                    session.send_xml(message.xml, handed)
            elif not self._handed.is_elsewhere(message.id):
                session.send_xml(message.xml)
                sent.append(message.id)
        return sent

    def gone(self, session: ISession) -> list[Handed]:
        """
        The session ended: what was held for it goes where it would go now.

        Returns:
            Those messages of it that are stored already.
        """
        if self._busy.get(session.account) is session:
            self._busy[session.account] = None
        stored = []
        for stanza, _, what in self._held.pop(session, ()):
            if isinstance(what, Handed):
                stored.append(what)
            else:
                self._reroute(stanza)
        return stored
