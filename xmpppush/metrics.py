"""
What the parts count for ``/metrics``: plain numbers that cost next to nothing to change.

Their names and texts for Prometheus are in `xmpppush.admin.metrics`, which reads them when it is asked.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

# What each kind of stanza begins with, as `xmpppush.xep.xml.to_xml` and the templates write it.
_BEGINNINGS = {"message": ("<mes",), "presence": ("<pre",), "iq": ("<iq ", "<iq>")}


class Histogram:
    """
    How often something took how long.

    Attributes:
        bounds: Upper bounds of the buckets, ascending; one more bucket has no bound.
        counts: For each bucket how many there were, not cumulated.
        total: Sum of all.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """One more; below zero, as after a clock was set back, counts as zero."""
        if seconds < 0.0:
            seconds = 0.0
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Traffic:
    """
    Stanzas of client connections.

    Attributes:
        received: By kind: ``message``, ``presence``, ``iq``.
        written: By the first four characters of what was written to a stream, stanza or not: to look
            closer takes longer than it is worth on the way of each message.
    """

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    @property
    def sent(self) -> Mapping[str, int]:
        """Stanzas written, by kind."""
        return {
            kind: sum(self.written[beginning] for beginning in beginnings)
            for kind, beginnings in _BEGINNINGS.items()
        }
