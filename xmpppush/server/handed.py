"""
Messages on their way to sessions that acknowledge what they get (XEP-0198).

Such a message is on disk until a client said that it has it: kill -9 costs nobody a message, and what a
broken session leaves behind waits in its place among the offline messages. Nothing is moved for it.

A message may also need a push after it was handed over, for a client that turns out not to be there. Of
each message it is remembered, here and with its row, whether that may still happen: so there is one push
for a device and message, whether its stream breaks, falls silent, ends, or all of it one after the other.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from xmpppush.coroutines import start
from xmpppush.errors import StorageError
from xmpppush.interfaces import IMessageStore, IPushDecider, ISession
from xmpppush.model import Delivery, OfflineMessage
from xmpppush.server.parser import stanza_of
from xmpppush.server.resources import Resources
from xmpppush.server.rules import is_listening

FORGET_AFTER = 0.1  # seconds that acknowledged messages are gathered to be deleted together
FORGET_AT = 100  # so many are deleted at once
PAGE = 100  # rows read at a time, after a restart


class Handed:
    """
    A message in the hands of sessions.

    Attributes:
        id: Number of its row, 0 before it is stored.
        holders: The sessions that owe an acknowledgement for it.
        have: Resources of the sessions that have it: that said so, or acknowledge nothing and were sent it.
        done: Somebody has it, for certain.
        pushed: The pubsub JIDs and nodes that had a push for it; ``None``: no more pushes are due.
        stored: Its row is written, or never will be.
        deciding: A push decision is being made.
        wanted: One was asked for, and is to be made when it can be.
    """

    __slots__ = ("account", "deciding", "done", "have", "holders", "id", "pushed", "stored", "wanted", "xml")

    def __init__(self, account: str, xml: str, holders: set[ISession]) -> None:
        self.account = account
        self.xml = xml
        self.holders = holders
        self.have: set[str] = set()
        self.done = False
        self.id = 0
        self.pushed: set[tuple[str, str]] | None = None
        self.stored = False
        self.deciding = False
        self.wanted = False


class HandedMessages:
    """
    Args:
        push: What decides on notifications, ``None`` without ``[mod_push]``.
    """

    _log = Logger()

    def __init__(
        self,
        messages: IMessageStore,
        resources: Resources,
        push: IPushDecider | None,
        clock: IReactorTime,
    ) -> None:
        self._messages = messages
        self._resources = resources
        self._push = push
        self._clock = clock
        self._by_id: dict[int, Handed] = {}
        self._acknowledged: list[int] = []
        self._forgetting: set[int] = set()
        self._timer: Any = None
        self._stopped = False

    # Handing over.

    def hand(
        self,
        account: str,
        xml: str,
        sessions: Sequence[ISession],
        is_behind: Callable[[ISession], bool],
        notified: Collection[tuple[str, str]] = (),
    ) -> Handed | None:
        """
        A message goes to these sessions; ``None`` where none of them acknowledges anything.

        Args:
            is_behind: Does that session get it later only?
            notified: Pubsub JIDs and nodes of registrations that were told of it before.
        """
        holders = {session for session in sessions if session.managed}
        if not holders:
            return None
        handed = Handed(account, xml, holders)
        if len(holders) < len(sessions):
            handed.have.update(each.resource for each in sessions if not each.managed and not is_behind(each))
        if self._push is not None and any(map(is_listening, holders)):
            handed.pushed = set(notified)
        return handed

    def is_push_due(self, handed: Handed, notified: Collection[tuple[str, str]]) -> bool:
        """May a push be due later? To be asked when it was decided on the pushes that are due at once."""
        if handed.pushed is None and self._push is not None and any(map(is_listening, handed.holders)):
            # A session that came back while it was decided, and may break again.
            handed.pushed = set(notified)
        return handed.pushed is not None

    def store(
        self, handed: Handed, message: OfflineMessage, deliveries: Sequence[Delivery]
    ) -> "Deferred[None]":
        """Keep it, and the deliveries that are called for already; fires when both are on disk."""
        if handed.pushed is not None:
            handed.pushed.update((delivery.pubsub, delivery.node) for delivery in deliveries)
        return self._messages.hand(message, deliveries).addCallbacks(
            self._stored, self._not_stored, (handed,), {}, (handed,)
        )

    def _stored(self, result: tuple[int, Sequence[Delivery]], handed: Handed) -> None:
        handed.id, deliveries = result
        handed.stored = True
        self._enqueue(deliveries)
        if handed.done:
            self._forget(handed.id)
        else:
            self._by_id[handed.id] = handed
            if not handed.holders:
                self._released(handed)
        if handed.wanted:
            self.push([handed])

    def _not_stored(self, failure: Failure, handed: Handed) -> Failure:
        # It is no more than what the sessions have.
        handed.stored = True
        handed.pushed = None
        return failure

    def again(self, row: OfflineMessage, session: ISession) -> Handed | None:
        """A stored message goes to a session; ``None``: another session is getting it."""
        if self.is_elsewhere(row.id):
            return None
        handed = self._by_id.get(row.id)
        if handed is None:
            handed = Handed(row.account, row.xml, set())
            handed.id, handed.stored = row.id, True
            handed.pushed = set() if row.push_due and self._push is not None else None
            self._by_id[row.id] = handed
        handed.holders.add(session)
        return handed

    def is_elsewhere(self, message_id: int) -> bool:
        """Is a session getting this stored message, or has it by now?"""
        if message_id in self._forgetting:
            return True
        handed = self._by_id.get(message_id)
        return handed is not None and bool(handed.holders)

    # What becomes of it.

    def acknowledged(self, session: ISession, handed: Handed) -> None:
        """The client of this session has it."""
        handed.holders.discard(session)
        handed.have.add(session.resource)
        self._done(handed)

    def ended(self, session: ISession, left: Iterable[Handed]) -> list[Handed]:
        """
        A session ended without acknowledging these; where nobody else has them they wait for the next.

        Returns:
            Those for which pushes are still due.
        """
        due = []
        for handed in left:
            handed.holders.discard(session)
            if not handed.done and not handed.holders:
                if handed.have:
                    self._done(handed)
                elif handed.stored:
                    self._released(handed)
            if handed.pushed is not None:
                due.append(handed)
        return due

    def _done(self, handed: Handed) -> None:
        if handed.done:
            return
        handed.done = True
        if handed.stored and handed.id:
            self._by_id.pop(handed.id, None)
            self._forget(handed.id)

    def _released(self, handed: Handed) -> None:
        if handed.pushed is None:
            self._by_id.pop(handed.id, None)

    # Deleting what was delivered, many rows at a time.

    def _forget(self, message_id: int) -> None:
        self._acknowledged.append(message_id)
        self._forgetting.add(message_id)
        if self._stopped or len(self._acknowledged) >= FORGET_AT:
            self.forget_now()
        elif self._timer is None:
            self._timer = self._clock.callLater(FORGET_AFTER, self.forget_now)

    def forget(self, ids: Sequence[int], session: ISession) -> "Deferred[None]":
        """
        Stored messages were given to this session, which acknowledges nothing.

        Fires when they are deleted. Where the disk is full or broken that is tried again later, and nobody
        gets them until then.
        """
        for message_id in ids:
            handed = self._by_id.pop(message_id, None)
            if handed is not None:
                handed.done = True
                handed.have.add(session.resource)
        self._acknowledged.extend(ids)
        self._forgetting.update(ids)
        return self.forget_now()

    def forget_now(self) -> "Deferred[None]":
        """Delete what was acknowledged; whoever reads the stored messages from now on sees the rest."""
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
        if not self._acknowledged:
            return succeed(None)
        ids, self._acknowledged = self._acknowledged, []
        return self._messages.forget(ids).addCallbacks(
            self._forgotten, self._not_forgotten, (ids,), {}, (ids,)
        )

    def _forgotten(self, result: object, ids: Sequence[int]) -> None:
        self._forgetting.difference_update(ids)

    def _not_forgotten(self, failure: Failure, ids: Sequence[int]) -> None:
        self._acknowledged[:0] = ids  # with the next ones
        if not failure.check(StorageError):  # said once by the storage
            self._log.failure("delivered messages could not be deleted", failure=failure)

    def stop(self) -> None:
        """No more waiting."""
        self._stopped = True
        self.forget_now()

    # Pushes for what was handed over in vain.

    def push(self, handed: Iterable[Handed]) -> None:
        """Decide again on the pushes for these messages, as sessions are now."""
        due = [each for each in handed if each.pushed is not None]
        if due and self._push is not None:
            start(self._push_all(due), self._push_failed)

    def push_later(self, delay: float, handed: Sequence[Handed]) -> None:
        """As `push` in some seconds."""
        if handed and self._push is not None:
            self._clock.callLater(delay, self.push, handed)

    async def _push_all(self, due: Sequence[Handed]) -> None:
        for handed in due:
            await self._push_for(handed)

    async def _push_for(self, handed: Handed) -> None:
        assert self._push is not None
        handed.wanted = True
        if handed.deciding or not handed.stored:
            return  # whoever is at it does it once more
        handed.deciding = True
        try:
            while handed.wanted and handed.pushed is not None:
                handed.wanted = False
                deliveries = await self._push.deliveries_for(
                    handed.account,
                    stanza_of(handed.xml),
                    self._resources.of(handed.account),
                    handed.pushed,
                    handed.have,
                )
                self._decided(handed, deliveries)
        finally:
            handed.deciding = handed.wanted = False

    def _decided(self, handed: Handed, deliveries: Sequence[Delivery]) -> None:
        pushed = handed.pushed
        assert pushed is not None
        pushed.update((each.pubsub, each.node) for each in deliveries)
        final = not handed.wanted and not any(map(is_listening, handed.holders))
        if final:
            handed.pushed = None
        if deliveries or (final and not handed.done):
            noted = self._messages.decided(handed.id, deliveries, final)
            noted.addCallbacks(self._enqueue, self._push_failed)
            if final:
                # Not before: until then its row says that pushes are due, and who read that would make them.
                noted.addCallback(self._concluded, handed)

    def _concluded(self, _: object, handed: Handed) -> None:
        if not handed.holders:
            self._by_id.pop(handed.id, None)

    def _enqueue(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._push.enqueue(delivery)  # type: ignore[union-attr]

    def _push_failed(self, failure: Failure) -> None:
        if not failure.check(StorageError):
            self._log.failure("pushes for unacknowledged messages could not be made", failure=failure)

    def recover(self) -> "Deferred[None]":
        """Decide on the pushes that a process before this one left open."""
        return Deferred.fromCoroutine(self._recover()).addErrback(self._push_failed)

    async def _recover(self) -> None:
        after = 0
        while self._push is not None and not self._stopped:
            rows = await self._messages.due(after, PAGE)
            if not rows:
                return
            for row in rows:
                after = row.id
                if row.id not in self._by_id and row.id not in self._forgetting:
                    handed = Handed(row.account, row.xml, set())
                    handed.id, handed.stored, handed.pushed = row.id, True, set()
                    self._by_id[row.id] = handed
                    await self._push_for(handed)
