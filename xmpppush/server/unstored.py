"""
What was to be on disk and is not, as the disk is full, broken or locked for too long.

A message in nobody's hands is answered with an error, and that is all. One that clients are getting all the
same is not: its sender would send it again. Its acknowledgement waits until a client has it for certain,
which takes a second or two; only where none turns out to have it there is an error. The pushes that go with
such a message wait in memory until the disk takes them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from xmpppush.errors import StorageError
from xmpppush.interfaces import IMessageStore
from xmpppush.model import Delivery
from xmpppush.server.handed import Handed
from xmpppush.server.rules import is_listening

PAUSE = 5.0  # seconds before the disk is asked again
MOST = 10_000  # pushes in memory; some 20 MB
AT_ONCE = 500


class Unstored:
    """
    Args:
        enqueue: Takes a push that is stored after all.
        dropped: Told of pushes for which there is no room.
    """

    _log = Logger()

    def __init__(
        self,
        messages: IMessageStore,
        clock: IReactorTime,
        enqueue: Callable[[Sequence[Delivery]], object],
        dropped: Callable[[Sequence[Delivery], Exception], object],
    ) -> None:
        self._messages = messages
        self._clock = clock
        self._enqueue = enqueue
        self._dropped = dropped
        self._held: dict[Handed, tuple[Deferred[None], Failure]] = {}
        self._deliveries: list[Delivery] = []
        self._timer: IDelayedCall | None = None
        self._count = 0
        self._lost = 0
        self._storing = False
        self._stopped = False

    # Messages.

    def hold(self, failure: Failure, handed: Handed, certain: bool) -> "Deferred[None]":
        """
        A message that clients are getting is not on disk.

        Args:
            certain: A client that acknowledges nothing got it, too.

        Returns:
            Fires when one has it; fails as the disk did where none turns out to.
        """
        if handed.done or certain:
            return succeed(None)
        if not any(map(is_listening, handed.holders)):
            return fail(failure)
        waiting: Deferred[None] = Deferred()
        self._held[handed] = waiting, failure
        return waiting

    def changed(self, messages: Iterable[object]) -> None:
        """Somebody has these, or does not answer, or is gone."""
        if not self._held:
            return
        for each in messages:
            if isinstance(each, Handed) and each in self._held:
                if each.done:
                    self._held.pop(each)[0].callback(None)
                elif not any(map(is_listening, each.holders)):
                    waiting, failure = self._held.pop(each)
                    waiting.errback(failure)

    # Pushes.

    def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Store them as soon as the disk lets us."""
        if not deliveries:
            return
        if len(self._deliveries) + len(deliveries) > MOST or self._stopped:
            if not self._lost:
                self._log.error("pushes are lost: too many wait in memory for the storage")
            self._lost += len(deliveries)
            self._dropped(deliveries, StorageError("too many pushes wait for the storage"))
            return
        if not self._deliveries and not self._storing and not self._count:
            self._log.warn(
                "pushes wait in memory for the storage, their messages being delivered to other clients;"
                " if this process ended now they would be lost"
            )
        self._deliveries.extend(deliveries)
        self._count += len(deliveries)
        self._soon()

    def stop(self) -> None:
        """One more try, before the storage is closed."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._deliveries:
            some, self._deliveries = self._deliveries[:AT_ONCE], self._deliveries[AT_ONCE:]
            self._messages.keep(None, some, 0).addErrback(self._not_stored, some)

    def _soon(self) -> None:
        if self._timer is None and not self._storing and not self._stopped:
            self._timer = self._clock.callLater(PAUSE, self._try)

    def _try(self) -> None:
        self._timer = None
        some, self._deliveries = self._deliveries[:AT_ONCE], self._deliveries[AT_ONCE:]
        self._storing = True
        self._messages.keep(None, some, 0).addCallbacks(self._stored, self._not_stored, errbackArgs=(some,))

    def _stored(self, deliveries: Sequence[Delivery]) -> None:
        self._storing = False
        self._enqueue(deliveries)
        if self._stopped:
            return
        if self._deliveries:
            self._try()
            return
        self._log.info(
            "{count} pushes that waited in memory are stored, {lost} were lost",
            count=self._count,
            lost=self._lost,
        )
        self._count = self._lost = 0

    def _not_stored(self, failure: Failure, some: Sequence[Delivery]) -> Any:
        self._storing = False
        error = failure.value
        if self._stopped or not isinstance(error, StorageError):
            if not isinstance(error, StorageError):
                self._log.failure("{count} pushes could not be stored", failure, count=len(some))
            self._dropped(some, StorageError("the storage failed until the end"))
            return
        self._deliveries[:0] = some
        self._soon()
