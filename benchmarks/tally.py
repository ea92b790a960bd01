"""Which messages were sent, which arrived as a push, and how long each took. Pure."""

from array import array
from collections.abc import Sequence

NEVER = -1.0


class Tally:
    """
    One entry for each message of a run; its number is in its body, so that loss and doubles show.

    Attributes:
        pushes: Different messages that arrived.
        duplicates: Arrivals of a message that had arrived before.
        strange: Requests that are no push of this run: unreadable, unknown, or for the wrong device.
        first_arrival, last_arrival: When a request came, seconds of the same clock as `sent`.
    """

    def __init__(self, first: int, messages: int) -> None:
        self._first = first
        self._written = 0
        self._sent = array("d", [NEVER]) * messages
        self._latency = array("d", [NEVER]) * messages
        self.pushes = 0
        self.duplicates = 0
        self.strange = 0
        self.first_arrival = NEVER
        self.last_arrival = NEVER

    def sent(self, number: int, now: float) -> None:
        """A message is written; once for each number."""
        self._written += 1
        self._sent[number - self._first] = now

    def arrived(self, number: int, now: float) -> bool:
        """Is this the first arrival of a message that was sent?"""
        self.last_arrival = now
        if self.first_arrival == NEVER:
            self.first_arrival = now
        index = number - self._first
        if not 0 <= index < len(self._sent) or self._sent[index] == NEVER:
            self.strange += 1
            return False
        if self._latency[index] != NEVER:
            self.duplicates += 1
            return False
        self._latency[index] = now - self._sent[index]
        self.pushes += 1
        return True

    @property
    def missing(self) -> int:
        """How many were sent and did not arrive."""
        return self._written - self.pushes

    def latencies(self) -> list[float]:
        """Seconds from the write to the arrival, of those that arrived, shortest first."""
        return sorted(latency for latency in self._latency if latency != NEVER)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest rank; ``nan`` of nothing."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
