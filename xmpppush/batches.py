"""
Bursts: of the pushes to a device within ``[mod_push] batch_window`` the first and the last.

The first goes out at once. The last that came in its window goes out at the end of it and opens the
next one. A push that is held is a row of the queue like any other, to be tried at the end of the window:
if we end before, the next start sends it then.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from attrs import define, evolve
from twisted.internet.interfaces import IDelayedCall

from xmpppush.model import Delivery

Device: TypeAlias = tuple[str, str, str]  # account, pubsub, node


@define
class _Window:
    end: float
    held: Delivery | None = None


class Batches:
    """
    The windows that are open.

    Args:
        seconds: How long a window is.
        send: Takes a stored delivery whose time has come.
        drop: Takes the row numbers of deliveries that are not to be sent.
    """

    def __init__(
        self,
        seconds: float,
        clock: Any,
        send: Callable[[Delivery], object],
        drop: Callable[[Sequence[int]], object],
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._send = send
        self._drop = drop
        self._windows: dict[Device, _Window] = {}
        # All windows are of one length, so they end in the order they are opened.
        self._order: deque[tuple[Device, _Window]] = deque()
        self._timer: IDelayedCall | None = None

    def place(self, delivery: Delivery) -> Delivery:
        """The delivery, before it is stored: to go at once, or with the end of its window to wait for."""
        window = self._windows.get(_device_of(delivery))
        if window is None:
            self._open(_device_of(delivery))
            return delivery
        return evolve(delivery, next_try=window.end)

    def hold(self, delivery: Delivery) -> None:
        """Take a stored delivery that `place` gave a time; it replaces the one before it."""
        window = self._windows.get(_device_of(delivery))
        if window is None or window.end != delivery.next_try:  # storing took longer than the window
            self._send(delivery)
            return
        if window.held is not None:
            self._drop([window.held.id])
        window.held = delivery

    def forget(self, device: Device) -> None:
        """The device has the messages: what is held says nothing new."""
        window = self._windows.get(device)
        if window is not None and window.held is not None:
            self._drop([window.held.id])
            window.held = None

    def _open(self, device: Device) -> None:
        window = _Window(self._clock.seconds() + self._seconds)
        self._windows[device] = window
        self._order.append((device, window))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None and self._order:
            end = self._order[0][1].end
            self._timer = self._clock.callLater(max(0.0, end - self._clock.seconds()), self._ended)

    def _ended(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while self._order and self._order[0][1].end <= now:
            device, window = self._order.popleft()
            del self._windows[device]
            if window.held is not None:
                self._open(device)
                self._send(window.held)
        self._set_timer()


def _device_of(delivery: Delivery) -> Device:
    return (delivery.account, delivery.pubsub, delivery.node)
