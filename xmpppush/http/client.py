"""treq's client with a short way for "JSON in, JSON out"."""

from collections.abc import Callable, Iterable
from typing import Any

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from xmpppush import __version__
from xmpppush.errors import PushError
from xmpppush.http.agent import BadRequestTarget, OriginPool, PooledAgent, split_url
from xmpppush.http.origins import Origin, is_target
from xmpppush.http.responses import BufferedResponse

USER_AGENT = f"xmpppush/{__version__}"


@implementer(IBodyProducer)
@frozen
class BytesProducer:
    """A body that is here already; our agent takes it without being called back for it."""

    body: bytes

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.body)

    def startProducing(self, consumer: IConsumer) -> "Deferred[None]":
        """All at once."""
        consumer.write(self.body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Too late."""

    def resumeProducing(self) -> None:
        """Nothing is left."""

    def stopProducing(self) -> None:
        """Nothing is left."""


class JSONClient(HTTPClient):
    """
    ``treq.client.HTTPClient`` on a `PooledAgent`.

    A POST with a URL and a body of type ``bytes`` and nothing else takes the short way: URL and body are
    sent as they are, as ``application/json``, without cookies, redirects and compression, and the answer
    is a `BufferedResponse`. Everything else is treq as it is.
    """

    def __init__(self, agent: PooledAgent, headers: Iterable[str] = ()) -> None:
        """
        Args:
            headers: Further header lines of the short way.
        """
        super().__init__(agent, data_to_body_producer=_producer_of)
        self._pooled = agent
        self._headers = tuple(headers)
        self._heads: dict[bytes, tuple[OriginPool, bytes]] = {}

    def post(self, url: Any, data: Any = None, **kwargs: Any) -> "Deferred[Any]":
        """As treq's, or the short way (above)."""
        if type(url) is bytes and type(data) is bytes and not kwargs:
            return self._post_json(url, data)
        return super().post(url, data=data, **kwargs)

    def _post_json(self, url: bytes, body: bytes) -> "Deferred[BufferedResponse]":
        start = url.find(b"/", 8)  # behind "https://"
        pool_and_head = self._heads.get(url[:start])
        target = url[start:]
        if pool_and_head is None or not is_target(target):
            try:
                origin, target = split_url(url)
                pool_and_head = self._heads[url[:start]] = self._head(origin)
            except (PushError, ValueError, OSError):
                return fail()
        pool, head = pool_and_head
        return self._pooled.exchange(pool, b"POST %s%s%d\r\n\r\n%s" % (target, head, len(body), body))

    def poster(self, origin: Origin, prefix: bytes) -> "Callable[[bytes, bytes], Deferred[BufferedResponse]]":
        """
        The short way to one origin.

        Returns:
            Takes what is behind ``prefix`` in the request target, and the body.
        """
        pool, head = self._head(origin)
        exchange, begin = self._pooled.exchange, b"POST " + prefix

        def post(path: bytes, body: bytes) -> "Deferred[BufferedResponse]":
            if not is_target(path):
                return fail(BadRequestTarget("a space or control character in the path"))
            return exchange(pool, b"%s%s%s%d\r\n\r\n%s" % (begin, path, head, len(body), body))

        return post

    def _head(self, origin: Origin) -> tuple[OriginPool, bytes]:
        """What stands between the target and the length."""
        lines = (
            " HTTP/1.1",
            f"Host: {origin.authority}",
            f"User-Agent: {USER_AGENT}",
            "Content-Type: application/json",
            *self._headers,
            "Content-Length: ",
        )
        return self._pooled.pool(origin), "\r\n".join(lines).encode("ascii")


def post_head(origin: Origin, target: bytes, lines: Iterable[bytes]) -> bytes:
    """
    A POST up to the number of its Content-Length; that, an empty line and the body make it whole.

    Args:
        target: Checked by `is_target`.
        lines: Further header lines, without what would end one.
    """
    head = (
        b"POST %s HTTP/1.1" % target,
        b"Host: %s" % origin.authority.encode("ascii"),
        b"User-Agent: %s" % USER_AGENT.encode("ascii"),
        *lines,
        b"Content-Length: ",
    )
    return b"\r\n".join(head)


def _producer_of(data: Any) -> IBodyProducer:
    return BytesProducer(data) if type(data) is bytes else IBodyProducer(data)
