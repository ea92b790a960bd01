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
    xml = to_xml(stanza)
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
    """

    _log = Logger()

    def __init__(
        self,
        messages: IMessageStore,
        clock: IReactorTime,
        reroute: Callable[[Element], None],
    ) -> None:
        self._messages = messages
        self._clock = clock
        self._reroute = reroute
        self._held: dict[ISession, list[Element]] = {}
        # Account to the session that became present while another one of it was being served.
        self._busy: dict[str, ISession | None] = {}

    def message_for(self, account: str, server: str, stanza: Element) -> OfflineMessage:
        now = self._clock.seconds()
        return OfflineMessage(0, account, with_delay(stanza, server, now), now)

    def send(self, session: ISession, stanza: Element, xml: str) -> None:
        """Send a message to a session, behind what it still waits for."""
        if self._held:
            held = self._held.get(session)
            if held is not None:
                held.append(stanza)
                return
        session.send_xml(xml)

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
            for portion in portions(await self._messages.waiting(account)):
                if session not in self._held:
                    break
                for message in portion:
                    session.send_xml(message.xml)
                # A client that reads slowly, or not at all, does not cost what it has not got yet.
                if not await session.flushed():
                    break
                await self._messages.forget([message.id for message in portion])
        except Exception:
            self._log.failure("offline messages of {account} could not be handed over", account=account)
        finally:
            next_one = self._busy.pop(account)
            for stanza in self._held.pop(session, ()):
                session.send(stanza)
            if next_one is not None:
                self.flush(next_one)  # finds nothing, unless the first one went away too early

    def gone(self, session: ISession) -> None:
        """The session ended: what was held for it goes where it would go now."""
        if self._busy.get(session.account) is session:
            self._busy[session.account] = None
        for stanza in self._held.pop(session, ()):
            self._reroute(stanza)
