"""What ``GET /health`` answers: which part works and which does not."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from attrs import frozen


@frozen
class Check:
    """
    One part of the server.

    Attributes:
        part: ``storage``, ``push service``, ``listen:NAME``, ``mongoosepush`` or ``certificate NAME``.
        trouble: What is wrong with it, a few words that anybody may read; ``None``: nothing.
    """

    part: str
    trouble: str | None = None


def certificate_checks(enddates: Mapping[str, datetime], now: float) -> Iterator[Check]:
    """Args: ``now`` in seconds since the epoch."""
    for name, enddate in enddates.items():
        expired = enddate.timestamp() <= now
        yield Check(f"certificate {name}", f"expired on {enddate.date()}" if expired else None)


def report(checks: Iterable[Check]) -> tuple[int, dict[str, Any]]:
    """
    Status and JSON: 200, or 503 where a part fails.

    ``failing`` names the parts that do, so that nobody has to look through the rest.
    """
    parts: dict[str, Any] = {}
    failing = []
    for check in checks:
        if check.trouble is None:
            parts[check.part] = {"status": "pass"}
        else:
            parts[check.part] = {"status": "fail", "reason": check.trouble}
            failing.append(check.part)
    status = "fail" if failing else "pass"
    return (503 if failing else 200), {"status": status, "failing": failing, "checks": parts}
