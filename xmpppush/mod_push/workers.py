"""``[mod_push] workers``: how many notifications are published at the same time."""

from collections import deque

from twisted.internet.defer import Deferred


class Workers:
    """
    Turns at publishing, first come, first served.

    There is nobody behind the name, as in other servers, who would also wait for the push service: a turn
    ends when the app server has answered, which one in this process does at once.

    Attributes:
        free: Turns left. Who takes one counts it down, and calls `done` in the end.
    """

    def __init__(self, count: int) -> None:
        self.free = count
        self._waiting: deque[Deferred[None]] = deque()

    def turn(self) -> "Deferred[None]":
        """Fires when one is free; it is to be taken at once."""
        turn: Deferred[None] = Deferred()
        self._waiting.append(turn)
        return turn

    def done(self) -> None:
        """A turn is over."""
        self.free += 1
        if self._waiting:
            self._waiting.popleft().callback(None)
