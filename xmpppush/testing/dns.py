"""
A DNS server on loopback with the records of a test: ``python -m xmpppush.testing.dns ZONE.json``.

The zone is an object, name to a list of records as zone files spell them: ``A 127.0.0.1``, ``AAAA ::1``,
``CNAME host.example``, ``SRV 0 5 5269 host.example`` (priority, weight, port, target). Names that are not in
it do not exist. The first line it prints is its UDP port.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.error import DNSNameError
from twisted.names.server import DNSServerFactory

TTL = 1


def record(text: str) -> Any:
    """The payload that ``text`` spells."""
    kind, *words = text.split()
    if kind == "A":
        return dns.Record_A(words[0], TTL)
    if kind == "AAAA":
        return dns.Record_AAAA(words[0], TTL)
    if kind == "CNAME":
        return dns.Record_CNAME(words[0], TTL)
    if kind == "SRV":
        priority, weight, port, target = words
        return dns.Record_SRV(int(priority), int(weight), int(port), target.rstrip(".").encode("ascii"), TTL)
    raise ValueError(f"no such kind of record: {kind}")


class Zone(ResolverBase):
    """Answers from these records."""

    def __init__(self, records: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self._records = {name: [record(text) for text in texts] for name, texts in records.items()}

    def _lookup(self, name: bytes, cls: int, type: int, timeout: object) -> "Deferred[Any]":
        wanted = name.decode("ascii", "replace").lower()
        if wanted not in self._records:
            return fail(DNSNameError(None))
        found = [each for each in self._records[wanted] if type in (each.TYPE, dns.ALL_RECORDS)]
        found = found or [each for each in self._records[wanted] if each.TYPE == dns.CNAME]
        answers = [dns.RRHeader(name, each.TYPE, ttl=TTL, payload=each, auth=True) for each in found]
        return succeed((answers, [], []))


class Factory(DNSServerFactory):
    """Says whether recursion was desired, as the question did: Erlang takes no other answer."""

    def _responseFromMessage(self, message: Any, *args: Any, **named: Any) -> Any:
        response = super()._responseFromMessage(message, *args, **named)
        response.recDes = message.recDes
        return response


class DNSServer:
    """
    The server as a process of its own; a context manager.

    Attributes:
        port: UDP, on 127.0.0.1.
    """

    def __init__(self, folder: Path, records: Mapping[str, Sequence[str]]) -> None:
        self._zone = folder / "zone.json"
        self._zone.write_text(json.dumps(records))

    def __enter__(self) -> "DNSServer":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "xmpppush.testing.dns", str(self._zone)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    from twisted.internet import reactor

    zone = json.loads(Path(sys.argv[1]).read_text())
    factory = Factory(clients=[Zone(zone)])
    udp: Any = reactor
    port = udp.listenUDP(0, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
