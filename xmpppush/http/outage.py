"""When to tell the operator about a fault: not once a push, but when it begins and when it is over."""

QUIET = 30.0  # seconds between two lines about the same thing that comes and goes


class Outage:
    """
    Faults and successes of one peer, boiled down to lines worth logging.

    Attributes:
        since: When the first failure of the row came, ``None`` while all is well.
        reason: Of the last failure, also when all is well again.
    """

    def __init__(self, quiet: float = QUIET) -> None:
        self.since: float | None = None
        self.reason = ""
        self._quiet = quiet
        self._said = ""
        self._quiet_until = float("-inf")

    def failed(self, reason: str, now: float) -> bool:
        """One more failure; is it worth a line? The first is, and a new reason after a while."""
        self.reason = reason
        if self.since is None:
            self.since = now
        if reason == self._said or now < self._quiet_until:
            return False
        self._said = reason
        self._quiet_until = now + self._quiet
        return True

    def succeeded(self, now: float) -> float | None:
        """A success; returns how long the outage was, where its begin was told."""
        if self.since is None:
            return None
        lasted, self.since = now - self.since, None
        if not self._said:
            return None
        self._said = ""
        return lasted
