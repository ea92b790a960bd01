"""
What an emulator does wrong, and when: a fault is a word and a few ``key=value``.

``Unregistered token=dead*``, ``503 times=10``, ``goaway after=500 times=1``, ``429 every=100 retry_after=3``,
``silence token=00ff``, ``delay=0.5``. The same keys as JSON: ``{"what": "503", "times": 10}``.
"""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import orjson
from attrs import evolve, field, fields, frozen

ANY = "*"
NOTHING = ""  # no fault but the delay
GOAWAY = "goaway"
RESET = "reset"
REFUSE = "refuse"
SILENCE = "silence"
HANG = "hang"
DROP = "drop"
GARBAGE = "garbage"
EMPTY = "empty"
ACTIONS = {
    GOAWAY: "this request and all later ones on the connection are never processed; it ends after the rest",
    RESET: "RST_STREAM with INTERNAL_ERROR (HTTP/1.1: the connection closes)",
    REFUSE: "RST_STREAM with REFUSED_STREAM: not processed (HTTP/1.1: the connection closes)",
    SILENCE: "taken and never answered",
    HANG: "the connection stays open and nothing on it is read any more, no PING either",
    DROP: "the connection closes without a word",
    GARBAGE: "an answer of status 500 that is HTML, as of a proxy in between",
    EMPTY: "an answer of status 500 without a body",
}


class BadFault(ValueError):
    """The description of a fault makes no sense; the text says what is wrong with it."""


@frozen
class Fault:
    """
    One thing that goes wrong.

    Attributes:
        what: A word of `ACTIONS`, a reason of the provider's (``Unregistered``, ``UNAVAILABLE``), a status
            (``503``: the provider's usual reason for it), or ``""``: answered as if nothing was.
        token: Shell pattern of the device tokens (Web Push: names of subscriptions) that it happens to.
        on: ``send``, or ``oauth`` for FCM's token endpoint.
        after: So many requests that match go well first.
        every: Then each so-many-th.
        times: So often in all; 0: always.
        delay: Seconds before the answer.
        retry_after: Seconds in the answer's Retry-After; 0: none but what the provider always sends.
    """

    what: str = NOTHING
    token: str = ANY
    on: str = "send"
    after: int = 0
    every: int = 1
    times: int = 0
    delay: float = 0.0
    retry_after: int = 0

    def __attrs_post_init__(self) -> None:
        if self.on not in ("send", "oauth"):
            raise BadFault(f"on={self.on}: send or oauth")
        if self.every < 1 or min(self.after, self.times, self.delay, self.retry_after) < 0:
            raise BadFault("every is 1 or more, and no number is negative")
        if not self.what and not self.delay:
            raise BadFault("says neither what goes wrong nor delay=SECONDS")


_FIELDS = {each.name: each.type for each in fields(Fault)}


def parse_fault(text: str) -> Fault:
    """
    Read ``WHAT key=value...``.

    Raises:
        BadFault: It cannot be read.
    """
    values: dict[str, Any] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        values[key if equals else "what"] = value if equals else word
    return fault_from(values)


def fault_from(values: Mapping[str, Any]) -> Fault:
    """
    The fault that JSON, or the words of `parse_fault`, describe.

    Raises:
        BadFault: An unknown key, or a value that is no number.
    """
    unknown = values.keys() - _FIELDS.keys()
    if unknown:
        raise BadFault(f"{min(unknown)}: no such key; there are {', '.join(_FIELDS)}")
    try:
        return Fault(**{key: _FIELDS[key](value) for key, value in values.items()})  # type: ignore[misc]
    except (TypeError, ValueError) as error:
        raise BadFault(str(error)) from None


def read_faults(path: Path) -> list[Fault]:
    """
    The faults of a JSON file: a list of objects, or of texts as `parse_fault` reads.

    Raises:
        BadFault: Not such a file.
        OSError: It cannot be read.
    """
    return faults_of(path.read_bytes())


def faults_of(octets: bytes) -> list[Fault]:
    """The same of the file's content."""
    try:
        listed = orjson.loads(octets)
    except ValueError as error:
        raise BadFault(f"no JSON: {error}") from None
    if not isinstance(listed, list) or not all(isinstance(each, dict | str) for each in listed):
        raise BadFault("not a list of objects or texts")
    return [parse_fault(each) if isinstance(each, str) else fault_from(each) for each in listed]


@frozen
class _Counted:
    fault: Fault
    counts: list[int] = field(factory=lambda: [0, 0])  # matching requests, of those hit

    def hits(self, token: str, on: str) -> bool:
        fault, counts = self.fault, self.counts
        if fault.on != on or (fault.token != ANY and not fnmatchcase(token, fault.token)):
            return False
        if fault.times and counts[1] >= fault.times:
            return False
        counts[0] += 1
        beyond = counts[0] - fault.after
        if beyond <= 0 or beyond % fault.every:
            return False
        counts[1] += 1
        return True


class Faults:
    """
    A script of faults; of those that a request meets the first one listed happens.

    Faults that only delay do so beside any other.
    """

    def __init__(
        self, faults: Iterable[Fault | str] = (), check: Callable[[Fault], None] | None = None
    ) -> None:
        """
        Args:
            check: Raises `BadFault` for what the provider cannot do.
        """
        self._script: list[_Counted] = []
        self._check = check
        self.add(*faults)

    def __bool__(self) -> bool:
        return bool(self._script)

    def add(self, *faults: Fault | str) -> None:
        """
        Behind those that there are; each counts from now on.

        Raises:
            BadFault: One makes no sense; none is added.
        """
        read = [parse_fault(fault) if isinstance(fault, str) else fault for fault in faults]
        for fault in read:
            if self._check is not None:
                self._check(fault)
        self._script += [_Counted(fault) for fault in read]

    def replace(self, *faults: Fault | str) -> None:
        """From now on these; raises like `add`, and then all stays as it was."""
        known, self._script = self._script, []
        try:
            self.add(*faults)
        except BadFault:
            self._script = known
            raise

    def clear(self) -> None:
        """From now on nothing goes wrong."""
        self._script.clear()

    def listed(self) -> list[Fault]:
        return [each.fault for each in self._script]

    def meet(self, token: str, on: str = "send") -> Fault | None:
        """What happens to this request; counts it."""
        met: Fault | None = None
        delay = 0.0
        for each in self._script:
            if met is not None and each.fault.what:
                continue
            if each.hits(token, on):
                if each.fault.what:
                    met = each.fault
                else:
                    delay += each.fault.delay
        if delay:
            met = Fault(delay=delay, on=on) if met is None else evolve(met, delay=met.delay + delay)
        return met
