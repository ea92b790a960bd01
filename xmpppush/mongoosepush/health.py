"""The answer of ``GET /healthcheck`` (application/health+json, as MongoosePush fills it)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen
from zope.interface import Interface

DESCRIPTION = "Health of the push service's connections to its providers"


@frozen
class PoolHealth:
    """How many connections of a provider's pool are up, and how many are not."""

    name: str
    connected: int
    disconnected: int = 0


class IHasPools(Interface):
    """A push provider that tells how its connections are; an `IPushProvider` need not."""

    def pools() -> Sequence[PoolHealth]:
        """One for each pool, now."""


def report(pools: Sequence[PoolHealth], now: float, version: str) -> tuple[int, dict[str, Any]]:
    """
    Status and JSON for these pools.

    A pool is well with one connection; some pools down is a warning, and only all of them down is a failure
    (503), for then nothing gets through. A service without any pool fails, too.
    """
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    up = sum(pool.connected > 0 for pool in pools)
    status = "fail" if not up else "pass" if up == len(pools) else "warn"
    checks: dict[str, list[dict[str, Any]]] = {}
    for pool in pools:  # of two services, two may have the same name
        checks.setdefault(f"pool:{pool.name}", []).append(
            {
                "status": "pass" if pool.connected else "fail",
                "time": time,
                "output": {"connected": pool.connected, "disconnected": pool.disconnected},
            }
        )
    body = {"status": status, "version": version, "description": DESCRIPTION, "checks": checks}
    return (200 if up else 503), body
