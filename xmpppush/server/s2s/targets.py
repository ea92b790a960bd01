"""
Where another domain's XMPP server listens (RFC 6120 section 3.2, XEP-0368).

``localhost`` and names below it are this machine, whatever DNS says (RFC 6761 section 6.3). Names in
``/etc/hosts`` count where addresses are wanted, by `make_resolver`; but DNS is asked for SRV records of
those, too, so a machine without DNS names its peers in ``[s2s] static``.
"""

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from ipaddress import ip_address
from random import Random
from typing import Any

import idna
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail, gatherResults, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.logger import Logger
from twisted.names import dns, hosts, resolve
from twisted.names.client import Resolver
from twisted.names.error import AuthoritativeDomainError, DNSNameError, DomainError, ResolverError
from twisted.python.failure import Failure

from xmpppush.errors import NoSuchServer, PushError, TryLater

S2S_PORT = 5269
SERVICES = (("_xmpp-server._tcp", False), ("_xmpps-server._tcp", True))

# What a domain may make us do: it writes its zone as it likes.
MAX_SERVICES = 10  # SRV records, the first ones by priority
MAX_ADDRESSES = 4  # of each family, of one name
MAX_TARGETS = 16
MAX_STEPS = 12  # aliases and questions about one name

TIMEOUTS = (2, 3, 5)  # seconds for each try of a question
LOOKUP_TIMEOUT = 15.0  # seconds for all questions about a domain
MAX_LOOKUPS = 64  # domains looked up at a time, several sockets each; others wait
CACHE_SIZE = 4096  # domains
MIN_TTL = 30.0
MAX_TTL = 900.0  # /etc/hosts has no TTL of its own, and operators move servers
NEGATIVE_TTL = 60.0


@frozen
class Target:
    """An address to try. ``direct_tls``: TLS from the first octet on, else STARTTLS."""

    host: str
    port: int
    direct_tls: bool = False


@frozen
class Service:
    """One SRV record, with the addresses of its target."""

    priority: int
    weight: int
    port: int
    direct_tls: bool
    addresses: tuple[str, ...]


@frozen
class _Answer:
    """What is known about a domain until ``expires``; without services: why it has none."""

    services: tuple[Service, ...]
    refusal: str
    expires: float


class _Fault(Exception):
    """DNS gave no answer, so nothing is known; the text says why."""


class Targets:
    """Looks up other domains' servers, and remembers them for a while."""

    _log = Logger()

    def __init__(
        self,
        resolver: IResolver,
        static: Mapping[str, tuple[str, int]],
        clock: IReactorTime,
        random: Random,
    ) -> None:
        """
        Args:
            resolver: What `make_resolver` gives, or a test's.
            static: Domain to host and port, for which there are no SRV lookups.
            random: Shares the load between servers by their weights.
        """
        self._resolver = resolver
        self._static = dict(static)
        self._clock = clock
        self._random = random
        self._answers: dict[str, _Answer] = {}
        self._waiting: dict[str, list[Deferred[_Answer]]] = {}
        self._slots = DeferredSemaphore(MAX_LOOKUPS)

    def lookup(self, domain: str) -> "Deferred[Sequence[Target]]":
        """
        The addresses of a domain's servers, in the order of trying; at least one.

        Args:
            domain: Of a JID, prepared.

        Raises:
            NoSuchServer: It has none: it does not exist, says so (target ``.``), or has no address.
            TryLater: DNS did not tell.
        """
        known = self._answers.get(domain)
        if known is not None and known.expires > self._clock.seconds():
            found = succeed(known)
        else:
            found = self._shared(domain)
        return found.addCallback(self._targets)

    def forget(self, domain: str) -> None:
        """Ask again next time: nobody could be reached there."""
        self._answers.pop(domain, None)

    def _targets(self, answer: _Answer) -> Sequence[Target]:
        if not answer.services:
            raise NoSuchServer(answer.refusal)
        return in_order(answer.services, self._random)[:MAX_TARGETS]

    def _shared(self, domain: str) -> "Deferred[_Answer]":
        """One lookup for all who ask at the same time, each of whom may cancel."""
        mine: Deferred[_Answer] = Deferred()
        waiting = self._waiting.get(domain)
        if waiting is not None:
            waiting.append(mine)
            return mine
        self._waiting[domain] = [mine]
        self._slots.run(self._bounded, domain).addBoth(self._found, domain)
        return mine

    def _bounded(self, domain: str) -> "Deferred[_Answer]":
        asking: Deferred[_Answer] = Deferred.fromCoroutine(self._ask_about(domain))
        return asking.addTimeout(LOOKUP_TIMEOUT, self._clock).addErrback(_to_ours, self._log)

    def _found(self, result: _Answer | Failure, domain: str) -> None:
        if isinstance(result, _Answer):
            self._answers.pop(domain, None)
            self._answers[domain] = result
            if len(self._answers) > CACHE_SIZE:
                del self._answers[next(iter(self._answers))]
        for each in self._waiting.pop(domain):
            each.callback(result)

    async def _ask_about(self, domain: str) -> _Answer:
        if domain in self._static:
            host, port = self._static[domain]
            return await self._at(host, port)
        name = a_label(domain)
        if not name:
            return self._none("not a name that DNS can have")
        if is_here(name) or is_address(name):
            return await self._at(name, S2S_PORT)
        records, ttl, denied = await self._srv(name)
        if records:
            return await self._with_addresses(records, ttl)
        if denied:
            # RFC 6120 section 3.2.1; XEP-0368 wants no fallback either.
            return self._none("says that it has no XMPP server")
        return await self._at(name, S2S_PORT)

    async def _at(self, host: str, port: int) -> _Answer:
        """One host that SRV records do not tell of."""
        addresses, ttl = await self._addresses(host)
        if not addresses:
            return self._none("not in DNS")
        return self._some((Service(0, 0, port, False, addresses),), ttl)

    async def _srv(self, name: str) -> tuple[list[tuple[Any, bool]], float, bool]:
        """
        Both kinds of SRV records.

        Returns:
            Records and whether they mean direct TLS, the best first; their TTL; did the domain say that it
            offers one of the two nowhere?
        """
        asked = [self._records(f"{service}.{name}", dns.SRV) for service, _ in SERVICES]
        records: list[tuple[Any, bool]] = []
        ttl, denied, fault = MAX_TTL, False, None
        for outcome, (_, direct_tls) in zip(await _all(asked), SERVICES, strict=True):
            if isinstance(outcome, _Fault):
                fault = outcome
                continue
            found, valid = outcome
            ttl = min(ttl, valid)
            for record in found:
                if not record.target.name.strip(b"."):
                    denied = True
                elif record.port:
                    records.append((record, direct_tls))
        if fault is not None and not records:
            # What the other kind would have said is not known, and addresses are for who has no SRV.
            raise fault
        records.sort(key=lambda each: each[0].priority)
        return records[:MAX_SERVICES], ttl, denied

    async def _with_addresses(self, records: Sequence[tuple[Any, bool]], ttl: float) -> _Answer:
        names = list(dict.fromkeys(bytes(record.target.name).lower() for record, _ in records))
        outcomes = await _all(self._addresses(name.decode("ascii", "replace")) for name in names)
        addresses: dict[bytes, tuple[str, ...]] = {}
        fault = None
        for name, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, _Fault):
                fault = outcome
            else:
                addresses[name], valid = outcome
                ttl = min(ttl, valid)
        services = tuple(
            Service(record.priority, record.weight, record.port, direct_tls, found)
            for record, direct_tls in records
            if (found := addresses.get(bytes(record.target.name).lower(), ()))
        )
        if services:
            return self._some(services, ttl)
        if fault is not None:
            raise fault
        return self._none("the servers that its SRV records name have no address")

    async def _addresses(self, host: str) -> tuple[tuple[str, ...], float]:
        """Of a host name or an address, both families in turn: which works from here is not known."""
        if is_address(host):
            return (host.strip("[]"),), MAX_TTL
        if is_here(host):
            return ("127.0.0.1", "::1"), MAX_TTL
        outcomes = await _all(self._records(host, kind) for kind in (dns.A, dns.AAAA))
        known = [outcome for outcome in outcomes if not isinstance(outcome, _Fault)]
        families = [_usable(found)[:MAX_ADDRESSES] for found, _ in known]
        addresses = tuple(
            family[at] for at in range(MAX_ADDRESSES) for family in families if at < len(family)
        )
        for outcome in outcomes:
            if isinstance(outcome, _Fault) and not addresses:
                raise outcome
        return addresses, min([ttl for _, ttl in known], default=MIN_TTL)

    async def _records(self, host: str, kind: int) -> tuple[list[Any], float]:
        """
        The payloads of a name's records and their TTL, through any aliases.

        Raises:
            _Fault: There was no answer.
        """
        name, asked, ttl = host.rstrip(".").lower().encode("ascii", "replace"), b"", MAX_TTL
        answers: Sequence[Any] = ()
        for _ in range(MAX_STEPS):
            own = [answer for answer in answers if answer.name.name.lower() == name and answer.payload]
            found = [answer for answer in own if answer.type == kind]
            if found:
                return [answer.payload for answer in found], min(ttl, *(answer.ttl for answer in found))
            aliases = [answer for answer in own if answer.type == dns.CNAME]
            if aliases:
                name, ttl = bytes(aliases[0].payload.name.name).lower(), min(ttl, aliases[0].ttl)
            elif name == asked:
                return [], ttl
            else:
                answers, asked = await self._ask(name, kind), name
        return [], ttl  # aliases in a circle are a name without records

    async def _ask(self, name: bytes, kind: int) -> Sequence[Any]:
        ask: Any = {
            dns.SRV: self._resolver.lookupService,
            dns.A: self._resolver.lookupAddress,
            dns.AAAA: self._resolver.lookupIPV6Address,
        }[kind]
        try:
            answers, _, _ = await ask(name, TIMEOUTS)
        except DNSNameError:
            return ()
        except (DomainError, AuthoritativeDomainError, ResolverError) as error:
            raise _Fault(f"DNS answers {type(error).__name__}") from error
        except DeferredTimeout as error:
            raise _Fault("DNS does not answer") from error
        except CancelledError:
            raise
        except Exception as error:  # no route to the name server, no port left, ...
            raise _Fault(f"DNS cannot be asked ({type(error).__name__})") from error
        return tuple(answers)

    def _some(self, services: tuple[Service, ...], ttl: float) -> _Answer:
        return _Answer(services, "", self._clock.seconds() + max(MIN_TTL, min(ttl, MAX_TTL)))

    def _none(self, refusal: str) -> _Answer:
        return _Answer((), refusal, self._clock.seconds() + NEGATIVE_TTL)


def make_resolver(reactor: Any, servers: Sequence[tuple[str, int]] = ()) -> IResolver:
    """
    ``/etc/hosts``, then DNS.

    Args:
        servers: Address and port of the name servers; by default those of ``/etc/resolv.conf``, which is
            looked at again each minute.
    """
    resolv = None if servers else "/etc/resolv.conf"
    asks_dns = Resolver(resolv=resolv, servers=list(servers), timeout=TIMEOUTS, reactor=reactor)
    # Without Twisted's cache: it knows no limit, and `Targets` has one.
    return resolve.ResolverChain([hosts.Resolver(), asks_dns])


def in_order(services: Iterable[Service], random: Random) -> list[Target]:
    """By priority, and by chance according to weight within one (RFC 2782, "Usage rules")."""
    # Those of no weight come first in the running sum, so they are chosen rarely, not never.
    left = sorted(services, key=lambda service: (service.priority, service.weight))
    targets: list[Target] = []
    while left:
        group = [service for service in left if service.priority == left[0].priority]
        point = random.randint(0, sum(service.weight for service in group))
        for chosen in group:
            point -= chosen.weight
            if point <= 0:
                break
        left.remove(chosen)
        targets += [Target(address, chosen.port, chosen.direct_tls) for address in chosen.addresses]
    return list(dict.fromkeys(targets))


def a_label(domain: str) -> str:
    """The domain as DNS spells it (RFC 5890), ``""``: it cannot."""
    if domain.isascii():
        name = domain.lower().rstrip(".")
    else:
        try:
            name = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError:
            return ""
    if is_address(name):
        return name
    # With room for what is put before it in a question.
    fits = 0 < len(name) <= 230 and all(0 < len(label) <= 63 for label in name.split("."))
    return name if fits else ""


def is_address(name: str) -> bool:
    """An IP address, which may be in brackets (RFC 7622 section 3.2)."""
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True


def is_here(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _usable(payloads: Iterable[Any]) -> list[str]:
    """Addresses that one can connect to, without repeats."""
    found: dict[str, None] = {}
    for payload in payloads:
        address = ip_address(payload.address)
        if not (address.is_unspecified or address.is_multicast):
            found[str(address)] = None
    return list(found)


async def _all(questions: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All at the same time; a `_Fault` is an outcome as well."""
    asked = [Deferred.fromCoroutine(question).addErrback(_error_of) for question in questions]
    outcomes: list[Any] = await gatherResults(asked)
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, _Fault):
            raise outcome
    return outcomes


def _error_of(failure: Failure) -> Any:
    return failure.value


def _to_ours(failure: Failure, log: Logger) -> Any:
    if isinstance(failure.value, _Fault):
        return fail(TryLater(str(failure.value)))
    if isinstance(failure.value, DeferredTimeout):
        return fail(TryLater("DNS does not answer"))
    if isinstance(failure.value, PushError):
        return failure
    # An answer that Twisted or we cannot digest: the domain's doing, and no reason to stop.
    log.failure("looking up a domain failed", failure)
    return fail(TryLater("DNS gives an answer that cannot be read"))
