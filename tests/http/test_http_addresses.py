"""Which addresses a name that a stranger chose may lead to."""

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.protocol import Factory
from zope.interface import implementer
from zope.interface.verify import verifyObject

from xmpppush.errors import Unreachable
from xmpppush.http.addresses import PublicReactor, is_public
from xmpppush.http.agent import PooledAgent
from xmpppush.http.proxy import endpoint_factory


@pytest.mark.parametrize("address", ["142.250.1.1", "2a00:1450:4001::1", "64:ff9b::8efa:101"])
def test_public(address):
    """The Internet's."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:1::80ff:fffe",
        "no address",
        "",
    ],
)
def test_not_public(address):
    """Loopback, private, link-local (a cloud's metadata), shared, multicast; and IPv6 that hides one."""
    assert not is_public(address)


@implementer(IHostnameResolver)
class Resolver:
    """Names mean what is said here."""

    def __init__(self, *addresses):
        self.addresses = addresses

    def resolveHostName(self, receiver, name, portNumber=0, addressTypes=None, transportSemantics="TCP"):
        receiver.resolutionBegan(None)
        for address in self.addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, portNumber))
        receiver.resolutionComplete()
        return


class Reactor:
    """The reactor with another resolver, which connects nowhere."""

    def __init__(self, resolver):
        self.nameResolver = resolver
        self.connects = []

    def __getattr__(self, name):
        return getattr(reactor, name)

    def connectTCP(self, host, port, *args, **kwargs):
        self.connects.append(host)
        raise OSError("not in a test")


def test_only_public_addresses_are_tried():
    """A name with a private address among its own gets no connection there."""
    world = Reactor(Resolver("127.0.0.1", "142.250.1.1", "fe80::1", "10.0.0.7"))
    public = PublicReactor(world)
    assert verifyObject(IReactorPluggableNameResolver, public)
    connecting = endpoint_factory(public)("push.example", 443).connect(Factory())
    connecting.addErrback(lambda _: None)
    connecting.cancel()
    assert set(world.connects) == {"142.250.1.1"}


@pytest_twisted.ensureDeferred
async def test_rebinding_to_loopback_is_no_host():
    """A name that leads home leads nowhere."""
    world = Reactor(Resolver("127.0.0.1", "::1"))
    agent = PooledAgent(reactor, endpoint_to=endpoint_factory(PublicReactor(world)))
    with pytest.raises(Unreachable, match="host name not found"):
        await agent.request(b"POST", b"https://push.example/")
    assert world.connects == []
    await agent.close()
