"""Pools of the push service: each a way to one provider with one set of credentials."""

import random as chance
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred
from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from xmpppush.config.sections import MongoosePushSection
from xmpppush.errors import ConfigError, Refused
from xmpppush.interfaces import IPushProvider
from xmpppush.mongoosepush.health import IHasPools, PoolHealth


class IPool(Interface):
    """
    A pool: what ``[mongoosepush:fcm:NAME]`` and its like become.

    Its errors are those of `xmpppush.errors` whose text is a word of `xmpppush.mongoosepush.api.STATUS`,
    nothing else: no device id, no answer of the provider. What the provider said goes into the log once
    for each kind of trouble, not for each notification.
    """

    name = Attribute("The NAME of its section.")
    service = Attribute("``fcm``, ``apns`` or ``webpush``.")
    mode = Attribute("``prod`` or ``dev``.")
    tags = Attribute("Frozenset of its tags.")

    def start() -> None:
        """Connect, get tokens: whatever can be done before the first notification. Waits for nothing."""

    def stop() -> "Deferred[None]":
        """Let go of connections, after notifications in flight have their answer or a few seconds."""

    def push(device_id: str, request: Mapping[str, object]) -> "Deferred[None]":
        """
        Send one notification, a validated v3 request of MONGOOSEPUSH.md without ``service``.

        Raises (or fails with):
            DeviceUnregistered: ``unregistered``: the device is gone.
            Refused: The provider would find or finds the request wrong: ``invalid_request``,
                ``invalid_notification``, ``payload_too_large``.
            TryLater: ``too_many_requests``, ``service_internal``, ``internal_config``, ``unable_to_connect``,
                ``connection_lost``, ``request_timeout``; ``after`` where the provider said how long.
        """

    def health() -> PoolHealth:
        """Its connections now; with credentials that do not work none of them counts as connected."""

    def expires() -> float | None:
        """When its certificate ends, in seconds since the epoch; ``None``: it has none."""


@implementer(IPushProvider, IHasPools)
class Pools(Service):
    """
    All pools, and which of them takes a notification.

    One of the notification's service and ``mode`` (``prod`` where it names none) that has all its tags. A
    pool with tags is reserved for notifications that name one, unless ``tags_optional``. Of several that
    could, the one with the fewest tags takes it; of several of these, the first of the file: credentials
    differ, and a device belongs to one of them.
    """

    name = "pools"
    _log = Logger()

    def __init__(self, pools: Iterable[Any], tags_optional: bool = False) -> None:
        """
        Args:
            pools: Each an `IPool`, in the order of the file.
        """
        self._pools = tuple(pools)
        self._by_kind: dict[tuple[str, str], tuple[Any, ...]] = {}
        for pool in sorted(self._pools, key=lambda pool: len(pool.tags)):  # keeps the order of equals
            kind = (pool.service, pool.mode)
            self._by_kind[kind] = (*self._by_kind.get(kind, ()), pool)
        self._untagged = {
            kind: pools[0] for kind, pools in self._by_kind.items() if tags_optional or not pools[0].tags
        }
        self.services = tuple(dict.fromkeys(pool.service for pool in self._pools))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pools)

    def pool_for(self, service: str, request: Mapping[str, Any]) -> Any:
        """The pool that takes such a notification; ``None``: there is none."""
        kind = (service, request.get("mode", "prod"))
        tags = request.get("tags")
        if not tags:
            return self._untagged.get(kind)
        return next((pool for pool in self._by_kind.get(kind, ()) if pool.tags.issuperset(tags)), None)

    def push(self, service: str, device_id: str, request: Mapping[str, Any]) -> "Deferred[None]":
        pool = self.pool_for(service, request)
        if pool is None:
            return fail(Refused("no_matching_pool"))
        sent: Deferred[None] = pool.push(device_id, request)
        return sent

    def pools(self) -> Sequence[PoolHealth]:
        return [pool.health() for pool in self._pools]

    def startService(self) -> None:
        super().startService()
        for pool in self._pools:
            pool.start()

    def stopService(self) -> "Deferred[None]":
        super().stopService()
        stopped: Deferred[Any] = gatherResults([self._stop(pool) for pool in self._pools])
        return stopped.addCallback(lambda _: None)

    def _stop(self, pool: Any) -> "Deferred[None]":
        return maybeDeferred(pool.stop).addErrback(
            lambda failure: self._log.failure("pool {name} did not stop cleanly", failure, name=pool.name)
        )


def make_pools(
    section: MongoosePushSection, reactor: Any, random: Callable[[], float] = chance.random
) -> Pools:
    """
    The pools of ``[mongoosepush]``, not started yet. A provider's libraries load only where it has a pool.

    Args:
        random: 0.0 to 1.0; spreads attempts to connect.

    Raises:
        ConfigError: Credentials are missing or cannot be used; one line for each pool, with what to do.
    """
    # Not above: the pools of these modules are made of what is above.
    from xmpppush.http.proxy import endpoint_factory, parse_proxy

    try:
        proxy = parse_proxy(section.proxy)
    except ValueError as error:
        raise ConfigError([f"[mongoosepush] proxy: {error}"]) from error
    way = None if proxy is None else endpoint_factory(reactor, proxy)
    common: dict[str, Any] = {"max_waiting": section.max_waiting}
    makers: list[Callable[[], Any]] = []
    if section.apns:
        from xmpppush.mongoosepush.apns import APNsPool

        makers += [
            lambda pool=pool: APNsPool(pool, reactor, random, endpoint_for=way, **common)  # type: ignore[misc]
            for pool in section.apns.values()
        ]
    if section.fcm:
        from xmpppush.mongoosepush.fcm import FCMPool

        makers += [
            lambda pool=pool: FCMPool(pool, reactor, random=random, endpoints=way, **common)  # type: ignore[misc]
            for pool in section.fcm.values()
        ]
    if section.webpush:
        from xmpppush.mongoosepush.webpush import WebPushPool

        makers += [
            lambda pool=pool: WebPushPool(pool, reactor, endpoints=way, **common)  # type: ignore[misc]
            for pool in section.webpush.values()
        ]
    pools: list[Any] = []
    problems: list[str] = []
    for make in makers:
        try:
            pools.append(make())
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return Pools(pools, section.tags_optional)
