"""Who does too much: logs in wrongly, or sends too fast. Times come from outside, memory is bounded."""

from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address, ip_network


def network_of(address: str) -> str:
    """
    What counts as one address: an IPv4 address, an IPv6 /64 network (one customer has that many addresses).

    Anything else, such as the path of a socket, stands for itself.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, 64), strict=False))


class Throttle:
    """
    Counts failures of anything that has a name, such as an address or an account.

    Args:
        max_failures: In ``window``; from then on `is_blocked` until the oldest one is older. 0: never.
        window: Seconds.
        capacity: Names kept at the most; the one that failed longest ago is forgotten first.
    """

    def __init__(self, max_failures: int, window: float, capacity: int = 65536) -> None:
        self._max_failures = max_failures
        self._window = window
        self._capacity = capacity
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def is_blocked(self, name: str, now: float) -> bool:
        """Has it failed so often that its next try is not looked at?"""
        times = self._failures.get(name)
        return times is not None and self._count(name, times, now) >= self._max_failures

    def failed(self, name: str, now: float) -> bool:
        """One more failure; True if it is the one that blocks this name."""
        if self._max_failures <= 0:
            return False
        times = self._failures.get(name)
        if times is None:
            times = self._failures[name] = deque(maxlen=self._max_failures)
            if len(self._failures) > self._capacity:
                self._failures.popitem(last=False)
        else:
            self._failures.move_to_end(name)
        was_blocked = len(times) == self._max_failures and times[0] > now - self._window
        times.append(now)
        return not was_blocked and len(times) == self._max_failures and times[0] > now - self._window

    def succeeded(self, name: str) -> None:
        """Its failures do not count any more."""
        self._failures.pop(name, None)

    def __len__(self) -> int:
        return len(self._failures)

    def _count(self, name: str, times: deque[float], now: float) -> int:
        while times and times[0] <= now - self._window:
            times.popleft()
        if not times:
            del self._failures[name]
        return len(times)


class Allowance:
    """
    How much somebody may do: so much in a second, with some in advance.

    Args:
        rate: In a second; 0: any amount.
        most: What can be saved up.
    """

    def __init__(self, rate: float, most: float, now: float) -> None:
        self._rate = rate
        self._most = self._left = most
        self._filled = now

    def take(self, amount: float, now: float) -> float:
        """Something was done; returns how many seconds to wait before more is."""
        rate = self._rate
        if not rate:
            return 0.0
        self._left = min(self._most, self._left + (now - self._filled) * rate) - amount
        self._filled = now
        return max(0.0, -self._left / rate)
