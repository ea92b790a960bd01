"""Pools of the push service: each a way to one provider with one set of credentials."""

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from xmpppush.mongoosepush.health import PoolHealth


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
