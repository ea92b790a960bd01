"""Where other domains' servers are: SRV records, addresses, static hosts, and all that DNS can have wrong."""

from random import Random

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IResolver
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSQueryRefusedError, DNSServerError
from zope.interface.verify import verifyObject

from xmpppush.errors import NoSuchServer, TryLater
from xmpppush.server.s2s import targets
from xmpppush.server.s2s.targets import Service, Target, Targets, a_label, in_order, make_resolver

TTL = 300


def srv(target, priority=0, weight=0, port=5269):
    return dns.Record_SRV(priority, weight, port, target.encode("ascii"), TTL)


def a(address):
    return dns.Record_A(address, TTL)


def aaaa(address):
    return dns.Record_AAAA(address, TTL)


def cname(target):
    return dns.Record_CNAME(target, TTL)


class Zone:
    """
    A resolver with these records, and NXDOMAIN for the rest.

    Attributes:
        asked: The names that were asked for.
        faults: Name to the exception that a question ends with.
        silent: Names about which no answer comes.
    """

    def __init__(self, **records):
        self.records = records
        self.asked = []
        self.faults = {}
        self.silent = set()

    def _answer(self, kind, name):
        name = name.decode("ascii")
        self.asked.append(name)
        if name in self.faults:
            return fail(self.faults[name])
        if name in self.silent:
            return Deferred()
        if name not in self.records:
            return fail(DNSNameError(None))
        return succeed((self._with_aliases(kind, name, []), [], []))

    def _with_aliases(self, kind, name, seen):
        found = []
        for record in self.records.get(name, []):
            if record.TYPE in (kind, dns.CNAME):
                found.append(dns.RRHeader(name.upper(), record.TYPE, ttl=record.ttl, payload=record))
            if record.TYPE == dns.CNAME and name not in seen:
                found += self._with_aliases(kind, record.name.name.decode(), [*seen, name])
        return found

    def lookupService(self, name, timeout=None):
        return self._answer(dns.SRV, name)

    def lookupAddress(self, name, timeout=None):
        return self._answer(dns.A, name)

    def lookupIPV6Address(self, name, timeout=None):
        return self._answer(dns.AAAA, name)


XMPP, XMPPS = "_xmpp-server._tcp.example.org", "_xmpps-server._tcp.example.org"


class Asking:
    """`Targets` on a zone and a clock."""

    def __init__(self, records, static=None, seed=1):
        self.zone = Zone(**records)
        self.clock = Clock()
        self.targets = Targets(self.zone, static or {}, self.clock, Random(seed))

    def outcome(self, domain="example.org"):
        outcomes = []
        self.targets.lookup(domain).addBoth(outcomes.append)
        return outcomes

    def found(self, domain="example.org"):
        (outcome,) = self.outcome(domain)
        assert isinstance(outcome, list), outcome
        return [(each.host, each.port, each.direct_tls) for each in outcome]

    def refused(self, error, domain="example.org"):
        (outcome,) = self.outcome(domain)
        assert outcome.check(error), outcome
        return str(outcome.value)


def test_srv_records_lead_to_addresses():
    """Both services, mixed by priority; both families of each host (RFC 6120 section 3.2.1, XEP-0368)."""
    asking = Asking(
        {
            XMPP: [srv("later.example.org", 20, port=5270), srv("first.example.org", 5)],
            XMPPS: [srv("Direct.example.org", 10, port=443)],
            "first.example.org": [a("192.0.2.1"), aaaa("2001:db8::1"), a("192.0.2.2")],
            "direct.example.org": [a("192.0.2.3")],
            "later.example.org": [a("192.0.2.4")],
        }
    )
    assert asking.found() == [
        ("192.0.2.1", 5269, False),
        ("2001:db8::1", 5269, False),
        ("192.0.2.2", 5269, False),
        ("192.0.2.3", 443, True),
        ("192.0.2.4", 5270, False),
    ]
    assert "example.org" not in asking.zone.asked


def test_without_srv_records_the_domain_itself_is_it():
    """Port 5269 by STARTTLS at its addresses (RFC 6120 section 3.2.2)."""
    asking = Asking({"example.org": [a("192.0.2.1"), aaaa("2001:db8::1")]})
    assert asking.found() == [("192.0.2.1", 5269, False), ("2001:db8::1", 5269, False)]


def test_an_empty_answer_is_no_srv_record():
    """A name that exists with other records only."""
    asking = Asking({XMPP: [], XMPPS: [a("192.0.2.9")], "example.org": [a("192.0.2.1")]})
    assert asking.found() == [("192.0.2.1", 5269, False)]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({XMPP: [srv(".")]}, None),
        ({XMPPS: [srv("")]}, None),
        ({XMPP: [srv(".")], XMPPS: [srv(".")]}, None),
        ({XMPP: [srv("x.example.org")], XMPPS: [srv(".")]}, [("192.0.2.2", 5269, False)]),
        ({XMPP: [srv(".")], XMPPS: [srv("x.example.org", port=443)]}, [("192.0.2.2", 443, True)]),
    ],
)
def test_a_dot_is_a_no(records, expected):
    """A domain that offers a service nowhere is not tried at its addresses either."""
    asking = Asking({**records, "example.org": [a("192.0.2.1")], "x.example.org": [a("192.0.2.2")]})
    if expected is None:
        assert asking.refused(NoSuchServer) == "says that it has no XMPP server"
    else:
        assert asking.found() == expected


def test_a_domain_that_is_not_there():
    """NXDOMAIN for everything."""
    assert Asking({}).refused(NoSuchServer) == "not in DNS"


def test_srv_records_that_lead_nowhere():
    """There is no fallback where SRV records exist (RFC 6120 section 3.2.1)."""
    asking = Asking({XMPP: [srv("gone.example.org")], "example.org": [a("192.0.2.1")]})
    assert "no address" in asking.refused(NoSuchServer)


@pytest.mark.parametrize("name", [XMPP, XMPPS])
@pytest.mark.parametrize("fault", [DNSServerError(None), DNSQueryRefusedError(None), OSError("no route")])
def test_a_dns_fault_is_no_answer(name, fault):
    """SERVFAIL and the like do not lead to the wrong server, and are not remembered."""
    asking = Asking({"example.org": [a("192.0.2.1")]})
    asking.zone.faults[name] = fault
    assert asking.refused(TryLater).startswith("DNS ")
    del asking.zone.faults[name]
    assert asking.found() == [("192.0.2.1", 5269, False)]


def test_one_service_is_enough():
    """Middleboxes that choke on one question do not matter where the other has an answer."""
    asking = Asking({XMPP: [srv("x.example.org")], "x.example.org": [a("192.0.2.1")]})
    asking.zone.faults[XMPPS] = DNSServerError(None)
    assert asking.found() == [("192.0.2.1", 5269, False)]


def test_one_host_is_enough():
    """A host whose zone is broken does not hide the others; all broken is for later."""
    asking = Asking(
        {XMPP: [srv("x.example.net"), srv("y.example.org", 1)], "y.example.org": [a("192.0.2.1")]}
    )
    asking.zone.faults["x.example.net"] = DNSServerError(None)
    assert asking.found() == [("192.0.2.1", 5269, False)]
    asking = Asking({XMPP: [srv("x.example.net")]})
    asking.zone.faults["x.example.net"] = DNSServerError(None)
    asking.refused(TryLater)


def test_dns_that_does_not_answer():
    """The lookup ends after its time, for everybody who waits, and leaves no timer."""
    asking = Asking({"example.org": [a("192.0.2.1")]})
    asking.zone.silent.add(XMPP)
    first, second = asking.outcome(), asking.outcome()
    asking.clock.advance(targets.LOOKUP_TIMEOUT - 0.1)
    assert first == second == []
    asking.clock.advance(0.1)
    for outcome in (*first, *second):
        assert outcome.check(TryLater)
        assert str(outcome.value) == "DNS does not answer"
    assert asking.clock.getDelayedCalls() == []


def test_aliases():
    """CNAME records, in one answer or in several, before SRV records and before addresses."""
    asking = Asking(
        {
            XMPP: [cname("_xmpp-server._tcp.hoster.example")],
            "_xmpp-server._tcp.hoster.example": [srv("x.hoster.example")],
            "x.hoster.example": [cname("y.hoster.example")],
            "y.hoster.example": [a("192.0.2.1")],
        }
    )
    assert asking.found() == [("192.0.2.1", 5269, False)]
    asking.zone._with_aliases = lambda kind, name, seen: [
        dns.RRHeader(name, each.TYPE, ttl=each.ttl, payload=each) for each in asking.zone.records[name]
    ]
    asking.targets.forget("example.org")
    assert asking.found() == [("192.0.2.1", 5269, False)]


@pytest.mark.parametrize(
    "records",
    [
        {XMPP: [cname(XMPPS)], XMPPS: [cname(XMPP)]},
        {"example.org": [cname("example.org")]},
        {f"{at}.example": [cname(f"{at + 1}.example")] for at in range(100)} | {XMPP: [cname("0.example")]},
        {XMPP: [srv("example.org")], "example.org": [cname(XMPP)]},
    ],
)
def test_circles_end(records):
    """Aliases that lead round and round, or on and on, are asked for a few times only."""
    asking = Asking(records)
    asking.refused(NoSuchServer)
    assert len(asking.zone.asked) <= 4 * targets.MAX_STEPS


def test_absurd_counts():
    """A zone with thousands of records costs what one with ten does."""
    hosts = {f"h{at}.example": [a(f"192.0.2.{at % 250 + 1}") for _ in range(50)] for at in range(2000)}
    asking = Asking({XMPP: [srv(host, at) for at, host in enumerate(hosts)], **hosts})
    assert len(asking.found()) <= targets.MAX_TARGETS
    assert len(asking.zone.asked) <= 2 + 2 * targets.MAX_SERVICES
    many = [a(f"192.0.2.{at}") for at in range(1, 200)]
    assert len(Asking({"example.org": many}).found()) == targets.MAX_ADDRESSES


def test_addresses_that_nobody_has():
    """0.0.0.0 would be ourselves; a port 0 is none."""
    asking = Asking({"example.org": [a("0.0.0.0"), a("224.0.0.1"), aaaa("::"), aaaa("ff02::1")]})
    asking.refused(NoSuchServer)
    asking = Asking({XMPP: [srv("x.example.org", port=0)], "x.example.org": [a("192.0.2.1")]})
    asking.refused(NoSuchServer)


def test_records_of_other_names_do_not_count():
    """An answer may hold anything."""
    asking = Asking({"example.org": []})
    asking.zone._with_aliases = lambda kind, name, seen: [
        dns.RRHeader("evil.example", each.TYPE, ttl=TTL, payload=each)
        for each in (a("192.0.2.66"), srv("evil.example"))
    ]
    asking.refused(NoSuchServer)


@pytest.mark.parametrize(
    ("domain", "found"),
    [
        ("127.0.0.1", [("127.0.0.1", 5269, False)]),
        ("[::1]", [("::1", 5269, False)]),
        ("localhost", [("127.0.0.1", 5269, False), ("::1", 5269, False)]),
        ("chat.localhost", [("127.0.0.1", 5269, False), ("::1", 5269, False)]),
    ],
)
def test_what_dns_is_not_asked_for(domain, found):
    """Addresses, and this machine (RFC 6761 section 6.3)."""
    asking = Asking({})
    assert asking.found(domain) == found
    assert asking.zone.asked == []


def test_static_hosts_come_first():
    """``[s2s] static`` needs no DNS, unless it names a host."""
    asking = Asking(
        {"host.example": [a("192.0.2.7")]},
        {"example.org": ("127.0.0.1", 5270), "localhost": ("::1", 5271), "c": ("host.example", 1)},
    )
    assert asking.found() == [("127.0.0.1", 5270, False)]
    assert asking.found("localhost") == [("::1", 5271, False)]
    assert asking.zone.asked == []
    assert asking.found("c") == [("192.0.2.7", 1, False)]


def test_names_are_asked_for_as_a_labels():
    """RFC 6120 section 3.2, RFC 5890."""
    asking = Asking({"xn--bcher-kva.example": [a("192.0.2.1")]})
    assert asking.found("bücher.example") == [("192.0.2.1", 5269, False)]
    assert "_xmpp-server._tcp.xn--bcher-kva.example" in asking.zone.asked


@pytest.mark.parametrize(
    "domain", ["a..b", "x" * 64, ".".join(["x" * 60] * 4), "ß" * 70, "a\u3002\u3002b", ".", "\u200d.example"]
)
def test_names_that_dns_cannot_have(domain):
    """They are refused without a question."""
    asking = Asking({})
    assert asking.refused(NoSuchServer, domain) == "not a name that DNS can have"
    assert asking.zone.asked == []


def test_answers_are_kept_for_their_time():
    """No question before the TTL is over; `forget` asks at once."""
    asking = Asking({"example.org": [a("192.0.2.1")]})
    asking.found()
    asked = len(asking.zone.asked)
    asking.clock.advance(TTL - 1)
    asking.found()
    assert len(asking.zone.asked) == asked
    asking.clock.advance(1)
    asking.found()
    assert len(asking.zone.asked) == 2 * asked
    asking.targets.forget("example.org")
    asking.found()
    assert len(asking.zone.asked) == 3 * asked


@pytest.mark.parametrize(("ttl", "kept"), [(0, targets.MIN_TTL), (10**9, targets.MAX_TTL)])
def test_absurd_times(ttl, kept):
    """A TTL of nothing is no reason to ask for each stanza, one of years none to believe it."""
    asking = Asking({"example.org": [dns.Record_A("192.0.2.1", ttl)]})
    asking.found()
    asked = len(asking.zone.asked)
    asking.clock.advance(kept - 1)
    asking.found()
    assert len(asking.zone.asked) == asked
    asking.clock.advance(1)
    asking.found()
    assert len(asking.zone.asked) > asked


def test_a_no_is_kept_briefly():
    """Domains that do not exist are asked for once a minute."""
    asking = Asking({})
    asking.refused(NoSuchServer)
    asked = len(asking.zone.asked)
    asking.clock.advance(targets.NEGATIVE_TTL - 1)
    asking.refused(NoSuchServer)
    assert len(asking.zone.asked) == asked
    asking.clock.advance(1)
    asking.zone.records["example.org"] = [a("192.0.2.1")]
    asking.found()


def test_the_memory_is_bounded(monkeypatch):
    """Users choose the domains; the oldest answers go."""
    monkeypatch.setattr(targets, "CACHE_SIZE", 10)
    asking = Asking({})
    for number in range(50):
        asking.refused(NoSuchServer, f"{number}.example")
    assert len(asking.targets._answers) == 10


def test_lookups_at_a_time_are_bounded():
    """The next ones wait for their turn; who asks for the same waits for the same."""
    asking = Asking({})
    domains = [f"{number}.example" for number in range(targets.MAX_LOOKUPS + 5)]
    asking.zone.silent |= {f"{service}.{domain}" for domain in domains for service, _ in targets.SERVICES}
    outcomes = [asking.outcome(domain) for domain in domains for _ in range(3)]
    assert len(asking.zone.asked) == 2 * targets.MAX_LOOKUPS
    asking.clock.advance(targets.LOOKUP_TIMEOUT)
    assert len(asking.zone.asked) == 2 * len(domains)
    asking.clock.advance(targets.LOOKUP_TIMEOUT)
    assert all(len(outcome) == 1 for outcome in outcomes)
    assert asking.targets._waiting == {}


def test_who_gives_up_spoils_it_for_nobody():
    """A cancelled lookup goes on for the others."""
    asking = Asking({"example.org": [a("192.0.2.1")]})
    asking.zone.silent |= {XMPP}
    first = asking.targets.lookup("example.org")
    second = asking.outcome()
    first.addErrback(lambda _: None)
    first.cancel()
    asking.clock.advance(targets.LOOKUP_TIMEOUT)
    assert second[0].check(TryLater)


def test_an_answer_that_twisted_cannot_digest(events):
    """Whatever it raises is a reason to try later."""
    asking = Asking({})
    asking.zone.lookupService = lambda name, timeout=None: succeed(([object()], [], []))
    assert asking.refused(TryLater) == "DNS gives an answer that cannot be read"
    assert events[-1]["log_format"] == "looking up a domain failed"


def test_priorities_before_weights():
    """A lower number comes first, whatever the weight."""
    services = [Service(2, 60000, 1, False, ("b",)), Service(1, 0, 1, False, ("a",))]
    assert in_order(services, Random(1)) == [Target("a", 1), Target("b", 1)]


def test_weights_share_the_load():
    """RFC 2782: in proportion; a weight of 0 is chosen rarely, but last it is never forgotten."""
    services = [Service(0, weight, 1, False, (str(weight),)) for weight in (0, 10, 30)]
    random, first = Random(1), {"0": 0, "10": 0, "30": 0}
    for _ in range(4000):
        order = in_order(services, random)
        assert len(order) == 3
        first[order[0].host] += 1
    assert 2.5 < first["30"] / first["10"] < 3.5
    assert 0 < first["0"] < 250


def test_an_address_is_tried_once_a_port():
    """Two names for one machine are one target."""
    services = [
        Service(0, 0, 1, False, ("a",)),
        Service(1, 0, 1, False, ("a",)),
        Service(1, 0, 2, True, ("a",)),
    ]
    assert in_order(services, Random(1)) == [Target("a", 1), Target("a", 2, True)]


@pytest.mark.parametrize(
    ("domain", "label"),
    [("EXAMPLE.org", "example.org"), ("example.org.", "example.org"), ("under_score.lan", "under_score.lan")],
)
def test_labels(domain, label):
    """As DNS spells them; names that are no host names live on in people's networks."""
    assert a_label(domain) == label


def test_the_resolver_knows_the_hosts_file():
    """``/etc/hosts`` before DNS, so its names need no name server."""
    clock = Clock()
    resolver = make_resolver(clock, [("127.0.0.1", 1)])
    assert verifyObject(IResolver, resolver)
    answers = []
    resolver.lookupAddress(b"localhost").addCallback(lambda found: answers.extend(found[0]))
    assert [answer.payload.dottedQuad() for answer in answers] == ["127.0.0.1"]
