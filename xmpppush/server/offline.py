"""
Offline messages (XEP-0160): kept for an account, handed to its first present session.

A session that just became present gets the stored messages first. What arrives for it meanwhile is
held back, so that the order stays the sender's.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.words.xish.domish import Element

from xmpppush.interfaces import IMessageStore, ISession
from xmpppush.model import OfflineMessage
from xmpppush.server.handed import Handed, HandedMessages
from xmpppush.xep.times import stamp_of
from xmpppush.xep.xml import relayed_xml

PORTION = 64 * 1024
BATCH = 16  # messages read from the storage at a time
MAX_HELD = 4 * 1024 * 1024  # characters held back for a session that does not read


def with_delay(stanza: Element, server: str, now: float) -> str:
    """
    The message as XML with a ``<delay/>`` of ours (XEP-0203 section 2).

    Args:
        server: Domain that kept it.
        now: Seconds since the epoch.
    """
    return delayed(relayed_xml(stanza), server, now)


def delayed(xml: str, server: str, now: float) -> str:
    """As `with_delay`, of a message that is XML already."""
    return f"{xml.removesuffix('</message>')}{_delay(server, int(now * 1000))}</message>"


@lru_cache(maxsize=64)
def _delay(server: str, milliseconds: int) -> str:
    stamp = stamp_of(milliseconds / 1000)
    return f"<delay xmlns='urn:xmpp:delay' from='{server}' stamp='{stamp}'>Offline storage</delay>"


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


@define(eq=False)
class Held:
    """
    A message on its way to a session that is still being handed what waited for it.

    Attributes:
        what: As in `ISession.send_xml`.
        elsewhere: Another session of the account got it.
        notified: Pubsub JID and node of the registrations that were told of it.
    """

    stanza: Element
    xml: str
    what: object = None
    elsewhere: bool = False
    notified: frozenset[tuple[str, str]] = frozenset()


class OfflineMessages:
    """
    Args:
        reroute: Takes a held message that nobody got, as its session went away.
        handed: Keeps track of those that are on their way, or delivered and not deleted.
    """

    _log = Logger()

    def __init__(
        self,
        messages: IMessageStore,
        clock: IReactorTime,
        reroute: Callable[[Held], None],
        handed: HandedMessages,
    ) -> None:
        self._messages = messages
        self._clock = clock
        self._reroute = reroute
        self._handed = handed
        self._held: dict[ISession, list[Held]] = {}
        self._held_size: Counter[ISession] = Counter()
        # Account to the session that became present while another one of it was being served.
        self._busy: dict[str, ISession | None] = {}

    def message_for(self, account: str, server: str, stanza: Element) -> OfflineMessage:
        now = self._clock.seconds()
        return OfflineMessage(0, account, with_delay(stanza, server, now), now)

    def is_behind(self, session: ISession) -> bool:
        """Does it get older messages at the moment, and new ones later?"""
        return session in self._held

    def send(self, session: ISession, stanza: Element, xml: str, what: object = None) -> Held | None:
        """
        Send a message to a session, behind what it still waits for; then it is returned as `Held`.

        Args:
            what: As in `ISession.send_xml`.
        """
        if self._held:
            before = self._held.get(session)
            if before is not None:
                held = Held(stanza, xml, what)
                before.append(held)
                size = self._held_size[session]
                self._held_size[session] = size + len(xml)
                if size <= MAX_HELD < size + len(xml):
                    # Not now: whoever routes this message does not expect its sessions to go.
                    self._clock.callLater(0, self._throw_out, session)
                return held
        session.send_xml(xml, what)
        return None

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
            # Before it reads: what is acknowledged is not among what waits.
            self._handed.forget_now()
            after, more = 0, True
            while more:
                batch = await self._messages.waiting(account, after, BATCH)
                more = await self._hand_over(session, batch) and len(batch) == BATCH
                after = batch[-1].id if batch else 0
        except Exception:
            self._log.failure("offline messages of {account} could not be handed over", account=account)
        finally:
            next_one = self._busy.pop(account)
            for held in self._no_longer_held(session):
                session.send_xml(held.xml, held.what)
            if next_one is not None:
                self.flush(next_one)  # finds nothing, unless the first one went away too early

    async def _hand_over(self, session: ISession, waiting: Sequence[OfflineMessage]) -> bool:
        """False where the session ended meanwhile."""
        for portion in portions(waiting):
            if session not in self._held:
                return False
            sent = self._send_portion(session, portion)
            # A client that reads slowly, or not at all, does not cost what it has not got yet.
            if not await session.flushed():
                return False
            await self._handed.forget(sent, session)
        return session in self._held

    def _send_portion(self, session: ISession, portion: Sequence[OfflineMessage]) -> list[int]:
        """Returns which of them to forget when they are on their way: those nobody acknowledges."""
        sent = []
        for message in portion:
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
        for held in self._no_longer_held(session):
            if isinstance(held.what, Handed):
                stored.append(held.what)
            elif not held.elsewhere:
                self._reroute(held)
        return stored

    def _no_longer_held(self, session: ISession) -> Sequence[Held]:
        self._held_size.pop(session, None)
        return self._held.pop(session, ())

    def _throw_out(self, session: ISession) -> None:
        if session in self._held:
            self._log.info("{user} does not read what it gets: disconnected", user=session.full)
            session.close("resource-constraint", "too much waits for you to read")
