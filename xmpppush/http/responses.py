"""An answer that is here in full, as Twisted's ``IResponse`` and with treq's methods."""

from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from json import loads
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer


class _NoTransport:
    """What a body protocol gets as transport: all data is here, there is nothing to slow down."""

    def _nothing(self) -> None:
        """Nothing is left to stop."""

    abortConnection = loseConnection = pauseProducing = resumeProducing = stopProducing = _nothing


@implementer(IResponse)
class BufferedResponse:
    """
    A complete HTTP response.

    Attributes:
        code: Status code.
        raw_headers: Name and value as received, in order.
        body: All of it, transfer encoding removed.
    """

    __slots__ = ("body", "code", "length", "previousResponse", "raw_headers", "request", "version")

    def __init__(self, code: int, raw_headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.version = (b"HTTP", 1, 1)
        self.code = code
        self.raw_headers = raw_headers
        self.body = body
        self.length: Any = len(body)  # treq's decoder sets it to UNKNOWN_LENGTH
        self.request: Any = None
        self.previousResponse: Any = None

    @property
    def phrase(self) -> bytes:
        """The standard phrase; the one received tells no more and is not kept."""
        try:
            return HTTPStatus(self.code).phrase.encode()
        except ValueError:
            return b""

    @property
    def headers(self) -> Headers:
        """All headers, built when asked for."""
        headers = Headers()
        for name, value in self.raw_headers:
            headers.addRawHeader(name, value)
        return headers

    def deliverBody(self, protocol: IProtocol) -> None:
        """Hand over the body, at once."""
        protocol.makeConnection(_NoTransport())  # type: ignore[arg-type]
        if self.body:
            protocol.dataReceived(self.body)
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: Any) -> None:
        """A redirect led here."""
        self.previousResponse = response

    def header(self, name: bytes) -> bytes | None:
        """The first header of this lower-case name."""
        for key, value in self.raw_headers:
            if key.lower() == name:
                return value
        return None

    def content(self) -> Deferred[bytes]:
        """As treq's."""
        return succeed(self.body)

    def json(self, **kwargs: Any) -> Deferred[Any]:
        """As treq's."""
        return succeed(loads(self.body, **kwargs))

    def text(self, encoding: str = "utf-8") -> Deferred[str]:
        """As treq's."""
        return succeed(self.body.decode(encoding))


def parse_retry_after(value: bytes | None, now: float) -> float | None:
    """
    Seconds to wait by a Retry-After header (RFC 9110 section 10.2.3).

    Args:
        value: Seconds, or a date; anything else, and a date without year, counts as none.
        now: Seconds since the epoch.

    Returns:
        Never below zero; ``None`` where the header is missing or nonsense.
    """
    if value is None or len(value) > 64:
        return None
    text = value.strip().decode("latin-1")
    if text.isascii() and text.isdigit():
        # Ten digits are three centuries: more is no hint, and float() of it may overflow.
        return float(text) if len(text) <= 10 else None
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)  # HTTP dates are always in UTC
        return max(0.0, date.timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
