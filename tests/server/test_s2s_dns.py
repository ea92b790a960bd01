"""`Targets` with Twisted's DNS client, and a DNS server on loopback."""

from random import Random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.names import dns

from xmpppush.errors import NoSuchServer
from xmpppush.server.s2s.targets import Target, Targets, make_resolver
from xmpppush.testing.dns import Factory, Zone

ZONE = {
    "_xmpp-server._tcp.example.org": ["SRV 10 0 5270 x.example.org"],
    "_xmpps-server._tcp.example.org": ["CNAME _xmpps-server._tcp.hoster.example"],
    "_xmpps-server._tcp.hoster.example": ["SRV 5 0 443 hoster.example"],
    "x.example.org": ["A 192.0.2.1", "AAAA 2001:db8::1"],
    "hoster.example": ["A 192.0.2.2"],
    "_xmpp-server._tcp.no.example": ["SRV 0 0 0 ."],
    "plain.example": ["A 192.0.2.3"],
}


@pytest.fixture
def lookup():
    """Looks a domain up in the zone, by UDP."""
    port = reactor.listenUDP(0, dns.DNSDatagramProtocol(Factory(clients=[Zone(ZONE)])), interface="127.0.0.1")
    targets = Targets(make_resolver(reactor, [("127.0.0.1", port.getHost().port)]), {}, reactor, Random(1))
    yield targets.lookup
    pytest_twisted.blockon(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_srv_records_over_the_wire(lookup):
    """Both kinds, an alias that is not followed for us, addresses of both families."""
    assert await lookup("example.org") == [
        Target("192.0.2.2", 443, True),
        Target("192.0.2.1", 5270),
        Target("2001:db8::1", 5270),
    ]


@pytest_twisted.ensureDeferred
async def test_other_answers_over_the_wire(lookup):
    """No SRV record, a dot for a target, no such domain."""
    assert await lookup("plain.example") == [Target("192.0.2.3", 5269)]
    with pytest.raises(NoSuchServer, match="says that it has no XMPP server"):
        await lookup("no.example")
    with pytest.raises(NoSuchServer, match="not in DNS"):
        await lookup("nothing.example")
