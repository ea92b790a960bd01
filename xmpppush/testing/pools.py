"""
What every `IPool` does, and one that does as it is told.

Each check is a coroutine of a pool that is not started; run all of `CHECKS` on yours::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    @pytest_twisted.ensureDeferred
    async def test_contract(check, pool):
        await check(pool)
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from xmpppush.errors import DeliveryError
from xmpppush.mongoosepush.api import STATUS
from xmpppush.mongoosepush.health import PoolHealth
from xmpppush.mongoosepush.pools import IPool

Check = Callable[[Any], Awaitable[None]]

CHECKS: list[Check] = []


@implementer(IPool)
@define
class FakePool:
    """
    Keeps what it gets.

    Attributes:
        result: ``None``: all is well; an exception: with that it fails; a Deferred: that is the answer.
        pushed: Device id and request of each notification.
    """

    name: str = "fake"
    service: str = "apns"
    mode: str = "prod"
    tags: frozenset[str] = frozenset()
    result: Any = None
    expiry: float | None = None
    up: int = 1
    started: bool = False
    pushed: list[tuple[str, Mapping[str, object]]] = field(factory=list)

    def start(self) -> None:
        self.started = True

    def stop(self) -> "Deferred[None]":
        self.started = False
        return succeed(None)

    def push(self, device_id: str, request: Mapping[str, object]) -> "Deferred[None]":
        self.pushed.append((device_id, dict(request)))
        if isinstance(self.result, Deferred):
            return self.result
        return succeed(None) if self.result is None else fail(self.result)

    def health(self) -> PoolHealth:
        return PoolHealth(self.name, self.up, 1 - self.up)

    def expires(self) -> float | None:
        return self.expiry


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


@check
async def it_provides_the_interface(pool: Any) -> None:
    """All of it, with the right signatures, and attributes of the right types."""
    verifyObject(IPool, pool)
    assert pool.service in ("fcm", "apns", "webpush")
    assert pool.mode in ("prod", "dev")
    assert isinstance(pool.tags, frozenset)
    assert pool.health().name == pool.name
    assert pool.expires() is None or pool.expires() > 0


@check
async def it_stops_whether_started_or_not(pool: Any) -> None:
    """And twice."""
    await pool.stop()
    pool.start()
    await pool.stop()


@check
async def its_errors_are_words_of_the_api(pool: Any) -> None:
    """Without a provider, and for ids that cannot be: the answer is an error that the API knows."""
    pool.start()
    try:
        for device_id in ("a" * 64, "", "..", "a\r\nb", "\ud800", "x" * 5000):
            told = await error_of(pool, device_id)
            assert told is None or str(told) in STATUS, told
            assert not device_id or device_id not in repr(told)
    finally:
        await pool.stop()


async def error_of(pool: Any, device_id: str) -> DeliveryError | None:
    """What a notification fails with."""
    try:
        await pool.push(device_id, {"alert": {"title": "t", "body": "b"}})
    except DeliveryError as error:
        return error
    return None
