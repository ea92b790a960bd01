"""When to try again, and when to give up."""

from attrs import frozen

_MOST_DOUBLINGS = 32  # beyond it any cap is reached, and a float of it would only get silly


@frozen
class RetryPolicy:
    """
    Exponential back-off with jitter.

    Attributes:
        base: Seconds, about so long is the first delay.
        cap: Seconds, no delay is longer, whatever the push service asks for.
        max_attempts: Tries in all, ``0``: as many as ``ttl`` allows.
        ttl: Seconds after which a notification is no longer worth sending.
    """

    base: float = 1.0
    cap: float = 300.0
    max_attempts: int = 0
    ttl: float = 86400.0

    def delay_after(
        self, attempt: int, hint: float | None, chance: float, age: float, in_a_row: int = 0
    ) -> float | None:
        """
        Seconds until the next try, ``None`` to give up.

        Args:
            attempt: How many tries of this notification failed, at least 1.
            hint: The answer's Retry-After, in seconds.
            chance: 0.0 to 1.0; spreads the retries of many devices.
            age: Seconds since the message was accepted.
            in_a_row: How many tries for its device failed in a row, where that is more: what replaced
                another notification starts its own count of attempts but no quicker pace.
        """
        if self.max_attempts and attempt >= self.max_attempts:
            return None
        delay = self.back_off(max(attempt, in_a_row), hint, chance)
        return None if age + delay > self.ttl else delay

    def back_off(self, failures: int, hint: float | None, chance: float) -> float:
        """Seconds to wait after so many failures in a row, at least 1."""
        doubled = self.base * 2 ** min(failures - 1, _MOST_DOUBLINGS)
        return max(min(doubled, self.cap) * (0.5 + chance / 2), min(hint or 0.0, self.cap))

    def is_too_old(self, age: float) -> bool:
        """Is a notification of that age no longer worth sending?"""
        return age > self.ttl
