"""
Names that somebody else chose are connected to only where they lie in the public Internet.

The check is made on the addresses that the connection then uses, so a name that means something else with
each look-up (DNS rebinding) gets nowhere either.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from zope.interface import implementer

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four octets are an IPv4 address


def is_public(address: str) -> bool:
    """
    Is this address of the public Internet?

    An IPv6 address that stands for an IPv4 address is what that one is.
    """
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        within = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in _NAT64:
            within = IPv4Address(int(found) & 0xFFFFFFFF)
        if within:
            return is_public(str(within))
    return found.is_global and not found.is_multicast


@implementer(IReactorPluggableNameResolver)
class PublicReactor:
    """A reactor whose name resolver leaves out what is not public; all else is the reactor's own."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    @property
    def nameResolver(self) -> IHostnameResolver:
        resolver: IHostnameResolver = _PublicResolver(self._reactor.nameResolver)
        return resolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """As the reactor's own."""
        installed: IHostnameResolver = self._reactor.installNameResolver(resolver)
        return installed


@implementer(IHostnameResolver)
class _PublicResolver:
    def __init__(self, resolver: IHostnameResolver) -> None:
        self._resolver = resolver

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        return self._resolver.resolveHostName(
            _PublicOnly(resolutionReceiver), hostName, portNumber, addressTypes, transportSemantics
        )


@implementer(IResolutionReceiver)
class _PublicOnly:
    def __init__(self, receiver: IResolutionReceiver) -> None:
        self._receiver = receiver

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        if is_public(getattr(address, "host", "")):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()
