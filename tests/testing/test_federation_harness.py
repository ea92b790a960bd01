"""The federation for tests of s2s: a zone on loopback, and Prosody and ejabberd that talk through it."""

import asyncio

import pytest
from twisted.names import dns
from twisted.names.error import DNSNameError

from xmpppush.testing.clients import Phone
from xmpppush.testing.dns import Zone
from xmpppush.testing.federation import MEMBERS, Authority, Federation
from xmpppush.testing.xmppservers import PASSWORD


def answers(zone, kind, name):
    found, _, _ = zone.query(dns.Query(name, kind)).result
    return found


def test_a_zone_answers():
    """Records by kind, an alias for any kind, nothing of another kind, NXDOMAIN for strangers."""
    zone = Zone(
        {
            "_xmpp-server._tcp.a.test": ["SRV 5 1 5269 host.a.test", "SRV 0 0 0 ."],
            "host.a.test": ["A 127.0.0.1", "AAAA ::1"],
            "b.test": ["CNAME host.a.test"],
        }
    )
    first, last = (answer.payload for answer in answers(zone, dns.SRV, "_xmpp-server._tcp.A.test"))
    assert (first.priority, first.weight, first.port, first.target.name) == (5, 1, 5269, b"host.a.test")
    assert last.target.name == b""
    assert [each.payload.dottedQuad() for each in answers(zone, dns.A, "host.a.test")] == ["127.0.0.1"]
    assert [each.type for each in answers(zone, dns.A, "b.test")] == [dns.CNAME]
    assert answers(zone, dns.SRV, "host.a.test") == []
    caught = []
    zone.query(dns.Query("c.test", dns.A)).addErrback(caught.append)
    assert caught[0].check(DNSNameError)


@pytest.mark.slow
@pytest.mark.parametrize("proof", ["EXTERNAL", "dialback"])
def test_prosody_and_ejabberd_exchange_messages(tmp_path, proof):
    """Found by SRV, over TLS, both ways: the stage is right before we enter it."""
    for kind in MEMBERS:
        if kind.missing():
            pytest.skip(kind.missing())

    async def scenario(servers):
        phones = []
        for server in servers:
            phone = Phone(f"juliet@{server.domain}/phone", PASSWORD, server.address, server.ca_file)
            assert await phone.log_in()
            phones.append(phone)
        first, second = phones
        first.send_message(second.boundjid.bare, "There")
        assert await second.wait_for_messages(1) == ["There"]
        second.send_message(first.boundjid.bare, "And back")
        assert await first.wait_for_messages(1) == ["And back"]
        for phone in phones:
            await phone.log_out()

    prosody, ejabberd = MEMBERS
    with Federation(tmp_path) as federation:
        authority = Authority(tmp_path / "nobody-knows") if proof == "dialback" else None
        with (
            prosody(federation, ["juliet"], authority) as first,
            ejabberd(federation, ["juliet"], authority) as second,
        ):
            asyncio.run(scenario([first, second]))
        log = second.log.read_text()  # all of it is written when it has stopped
    assert f"Accepted inbound s2s {proof} authentication prosody.test -> ejabberd.test" in log
    assert f"Accepted outbound s2s {proof} authentication ejabberd.test -> prosody.test" in log
