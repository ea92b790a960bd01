"""
When to leave a push service alone: a circuit breaker.

Pure: it is told what happened and when, and answers what may be sent. Closed, everything may. After
failures in a row it is open and nothing may, until the time for one probe. The probe's answer decides: a
failure opens it for about twice as long, a success lets the backlog flow, slowly at first: a service that
comes up again must not be hit by everything that waited for it.
"""

from collections.abc import Callable

from xmpppush.mod_push_service_mongoosepush.retry import RetryPolicy

# Failures in a row, each of another device: what one device gets says little about the others.
THRESHOLD = 5
# So many may be in flight behind the first success; each further success adds one, so this doubles with
# each round of answers.
FIRST_ROOM = 4
UNLIMITED = 2**31


class Breaker:
    """
    Attributes:
        room: How many requests may be in flight; 0: none but the probe.
        until: When a probe may be sent; ``None`` unless open.
        reason: What opened it last.
        troubled: Successes matter: anything but closed without a failure.
    """

    __slots__ = (
        "_chance",
        "_failing",
        "_full",
        "_openings",
        "_policy",
        "reason",
        "room",
        "troubled",
        "until",
    )

    def __init__(self, policy: RetryPolicy, full: int, chance: Callable[[], float]) -> None:
        """
        Args:
            policy: For the back-off.
            full: With so much room it is as good as closed.
            chance: 0.0 to 1.0; spreads the probes of many servers.
        """
        self.room = UNLIMITED
        self.until: float | None = None
        self.reason = ""
        self.troubled = False
        self._policy = policy
        self._full = full
        self._chance = chance
        self._failing: set[str] = set()
        self._openings = 0

    @property
    def is_open(self) -> bool:
        """Does everything wait, be it for the time or for the answer of the probe?"""
        return not self.room

    def may_probe(self, now: float) -> bool:
        """Is it time for the probe, and none on its way?"""
        until = self.until
        # Further off than any wait is long: the clock was set back.
        return until is not None and (now >= until or until - now > self._policy.cap)

    def probe(self) -> None:
        """The probe is sent."""
        self.until = None

    def failed(
        self, who: str, reason: str, now: float, after: float | None = None, unreachable: bool = False
    ) -> bool:
        """
        A request failed in a way that may pass.

        Args:
            who: The device, in any form.
            after: The answer's Retry-After, in seconds.
            unreachable: There was not even a connection, so others need not try.

        Returns:
            Whether this opened it.
        """
        self.troubled = True
        if self.until is not None:  # open: one that was on its way already
            if after:
                self.until = max(self.until, now + min(after, self._policy.cap))
            return False
        self._failing.add(who)
        if self.room and not unreachable and len(self._failing) < THRESHOLD:
            return False
        self._openings += 1
        self.room = 0
        self.reason = reason
        self.until = now + self._policy.back_off(self._openings, after, self._chance())
        return True

    def learnt_nothing(self, now: float) -> None:
        """What was to be sent was not; had it been the probe, another one may be it."""
        if self.room == 0 and self.until is None:
            self.until = now

    def succeeded(self) -> None:
        """A request was answered."""
        self._failing.clear()
        if self.room == 0:
            self.until = None
            self.room = FIRST_ROOM
        elif self.room < UNLIMITED:
            self.room += 1
        if self.room >= self._full:
            self.room = UNLIMITED
            self.troubled = False
            self._openings = 0
