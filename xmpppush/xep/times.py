"""Dates and times (XEP-0082)."""

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=4)
def _stamp_of_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp_of(seconds: float) -> str:
    """Seconds since the epoch as a UTC DateTime with milliseconds, ``2026-11-22T14:00:00.000Z``."""
    milliseconds = round(seconds * 1000)
    return f"{_stamp_of_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"
