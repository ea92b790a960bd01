"""What goes in and out of an emulator, whatever HTTP it came over."""

from typing import Any
from typing import Protocol as Shape

import orjson
from attrs import field, frozen


class Exchanges(Shape):
    """The connection that a request came on."""

    number: int

    def send(self, stream: int, reply: "Reply") -> None:
        """Answer it; nothing happens where the client has gone meanwhile."""

    def fail(self, stream: int, action: str) -> None:
        """Let it go wrong, in one of the ways of `faults.ACTIONS` that are no answer."""


class Request:
    """
    A request as it came.

    Attributes:
        headers: In order; names in lower case, without HTTP/2's pseudo-headers.
        stream: The HTTP/2 stream, or how many requests the HTTP/1.1 connection had.
        token: The device that it is for, ``""`` where that cannot be seen; the emulator fills it in.
    """

    __slots__ = ("body", "connection", "headers", "method", "path", "stream", "token")

    def __init__(
        self,
        connection: Exchanges,
        stream: int,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes = b"",
    ) -> None:
        self.connection = connection
        self.stream = stream
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.token = ""

    def header(self, name: bytes) -> str:
        """Its first value, ``""`` where there is none."""
        for known, value in self.headers:
            if known == name:
                return value.decode("latin-1")
        return ""


@frozen
class Reply:
    """An answer. ``reason`` is the provider's word for what is wrong, ``""`` where nothing is."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    reason: str = ""


@frozen
class Received:
    """
    A request that an emulator took, and what became of it.

    Attributes:
        token: The device token; Web Push: the subscription's name; empty for other requests.
        status: Of the answer, 0 where there was none.
        reason: The provider's word in the answer, or the action of `faults.ACTIONS` that happened.
        content: What the device would read: the JSON of APNs and FCM, for Web Push the text decrypted.
        connection: Counted from 1.
        time: When it was complete, seconds since 1970.
    """

    token: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    reason: str
    connection: int
    stream: int
    time: float
    content: Any = field(default=None)

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return orjson.loads(self.body)

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    def described(self) -> dict[str, Any]:
        """For JSON. Without the credentials: these lists end up in logs of CI systems."""
        headers = {
            name: value.partition(" ")[0] + " ..." if name == "authorization" else value
            for name, value in self.headers.items()
        }
        return {
            "token": self.token,
            "method": self.method,
            "path": self.path,
            "headers": headers,
            "content": self.content,
            "status": self.status,
            "reason": self.reason,
            "connection": self.connection,
            "stream": self.stream,
            "time": self.time,
        }


class Kept(list[Received]):
    """The last ones, up to ``capacity``."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def append(self, received: Received) -> None:
        if len(self) >= self._capacity:
            del self[: len(self) - self._capacity + 1]
        super().append(received)
