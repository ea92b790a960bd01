"""
``[http_connections:NAME]``: named pools of kept-alive connections to a push service.

A pool is told apart from its client: ``fast`` is our own agent, ``stock`` is treq on Twisted's, kept for
comparison (the environment's ``XMPPPUSH_HTTP_AGENT=stock`` chooses it, for the benchmark).
"""

import os
from collections import Counter
from typing import Any

from attrs import define, field
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from xmpppush.config.sections import HTTPConnectionsSection
from xmpppush.errors import ConfigError, PushError, Refused, TryLater
from xmpppush.http.agent import MAX_BODY, AnswerCut, BadRequestTarget, PooledAgent
from xmpppush.http.client import USER_AGENT, BytesProducer, JSONClient
from xmpppush.http.origins import Origin, is_target, parse_origin
from xmpppush.http.outage import Outage
from xmpppush.http.reasons import explain
from xmpppush.http.responses import BufferedResponse, parse_retry_after
from xmpppush.http.tls import client_tls

AGENT_VARIABLE = "XMPPPUSH_HTTP_AGENT"
STOP_TIME = 1.0  # seconds


@define
class Response:
    """
    What a push service answered.

    Attributes:
        retry_after: Seconds to wait by its Retry-After header; looked for unless the code is 2xx.
        body: 64 KiB at the most.
    """

    code: int
    body: bytes = field(default=b"", repr=False)
    retry_after: float | None = None


class HTTPPool(Service):
    """
    The connections of one ``[http_connections:NAME]`` section.

    An unreachable server is logged when that begins and when it is over, not with each request.

    Attributes:
        statuses: How many requests were answered with each HTTP status, ``none`` being no answer at all.
    """

    _log = Logger()

    def __init__(
        self,
        section: HTTPConnectionsSection,
        reactor: Any,
        *,
        agent: str = "",
        max_connections: int = 100,
        endpoint_for: Any = None,
    ) -> None:
        """
        Args:
            reactor: Network and clock.
            agent: ``fast`` or ``stock``; default: as the environment says, else ``fast``.
            max_connections: Connections at a time; further requests wait for one.
            endpoint_for: An `Origin` to the client endpoint for it, for tests.

        Raises:
            ConfigError: ``server`` is no URL, or ``ca_file`` cannot be used.
        """
        self.name = section.name
        self._section = section
        self._clock = reactor
        self.statuses: Counter[int | str] = Counter({200: 0, "none": 0})
        self._outage = Outage()
        try:
            self.origin, prefix = parse_origin(section.server)
            client_tls(self.origin.host, section.ca_file, section.verify)
        except (OSError, ValueError) as error:
            key = "ca_file" if isinstance(error, OSError) or "certificate" in str(error) else "server"
            what = error.strerror if isinstance(error, OSError) else error
            raise ConfigError([f"[http_connections:{section.name}] {key}: {what}"]) from error
        kind = agent or os.environ.get(AGENT_VARIABLE) or "fast"
        if kind not in _CLIENTS:
            raise ConfigError([f"{AGENT_VARIABLE}: '{kind}' is no agent; use 'fast' or 'stock'"])
        self._client = _CLIENTS[kind](
            section, self.origin, prefix.encode("ascii"), reactor, max_connections, endpoint_for
        )
        self._stopping = False

    @property
    def trouble(self) -> str | None:
        """Why the last request got no answer, ``None`` if it got one."""
        return None if self._outage.since is None else self._outage.reason

    def post(self, path: str, body: bytes) -> "Deferred[Response]":
        """
        Send JSON.

        Args:
            path: Path behind the section's own, percent-encoded.
            body: JSON in UTF-8.

        Raises:
            TryLater: There is no answer; the reason says why. Whether the request was acted upon is
                unknown, and it was written once at the most.
            Refused: ``path`` cannot stand in a request line; nothing was sent.
        """
        if self._stopping:
            return fail(TryLater("stopping"))
        try:
            target = path.encode("ascii")
        except UnicodeEncodeError:
            return fail(Refused("request path is not ASCII"))
        done: Deferred[Any] = self._client.post(target, body)
        return done.addCallbacks(self._answered, self._failed)

    def _answered(self, response: BufferedResponse) -> Response:
        if self._outage.since is not None:
            self._is_back()
        code = response.code
        self.statuses[code] += 1
        if 200 <= code < 300:
            return Response(code, response.body)
        hint = parse_retry_after(response.header(b"retry-after"), self._clock.seconds())
        return Response(code, response.body, hint)

    def _is_back(self) -> None:
        lasted = self._outage.succeeded(self._clock.seconds())
        if lasted is not None:
            self._log.info(
                "push service {server} of http_connections {pool} answers again after {seconds} s",
                server=str(self.origin),
                pool=self.name,
                seconds=round(lasted, 1),
            )

    def _failed(self, failure: Failure) -> Failure | Response:
        error = failure.value
        if isinstance(error, AnswerCut) and 200 <= error.code < 300:
            # The push service took it, whatever else it wanted to say; asked again it would send again.
            return Response(error.code)
        if failure.check(BadRequestTarget):
            return Failure(Refused("request path cannot be sent"))
        if failure.check(CancelledError) or not failure.check(PushError):
            return failure
        self.statuses["none"] += 1
        reason = str(failure.value)
        if not self._stopping and self._outage.failed(reason, self._clock.seconds()):
            self._log.error(
                "push service {server} of http_connections {pool} cannot be reached: {reason}",
                server=str(self.origin),
                pool=self.name,
                reason=reason,
            )
        return failure

    def stopService(self) -> "Deferred[None]":
        """
        Close the connections, those with a request in flight after a second.

        Who wants the answers waits for them first, as the bridge does.
        """
        super().stopService()
        self._stopping = True
        return self._client.close(STOP_TIME)


class _FastClient:
    """treq's short way on our own agent."""

    def __init__(
        self,
        section: HTTPConnectionsSection,
        origin: Origin,
        prefix: bytes,
        reactor: Any,
        max_connections: int,
        endpoint_for: Any,
    ) -> None:
        self._agent = PooledAgent(
            reactor,
            max_idle=section.connections,
            max_connections=max_connections,
            timeout=section.request_timeout,
            ca_file=section.ca_file,
            verify=section.verify,
            endpoint_for=endpoint_for,
        )
        key = section.api_key
        client = JSONClient(self._agent, (f"Authorization: Bearer {key}",) if key else ())
        self.post = client.poster(origin, prefix)
        self.close = self._agent.close


class _StockClient:
    """
    treq on Twisted's own agent, five to ten times the CPU of ours.

    ``max_connections`` is not enforced here; the bridge has no more requests than that in flight.
    """

    def __init__(
        self,
        section: HTTPConnectionsSection,
        origin: Origin,
        prefix: bytes,
        reactor: Any,
        max_connections: int,
        endpoint_for: Any,
    ) -> None:
        self._url = str(origin).encode("ascii") + prefix
        self._clock = reactor
        self._timeout = section.request_timeout
        self._headers = Headers({"content-type": ["application/json"], "user-agent": [USER_AGENT]})
        if section.api_key:
            self._headers.addRawHeader("authorization", f"Bearer {section.api_key}")
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = section.connections
        self._pool.retryAutomatically = False
        policy = _Policy(client_tls(origin.host, section.ca_file, section.verify))
        agent = Agent(reactor, policy, connectTimeout=self._timeout, pool=self._pool)
        self._client = HTTPClient(agent, data_to_body_producer=BytesProducer)
        self._under_way: set[Deferred[Any]] = set()

    def post(self, path: bytes, body: bytes) -> "Deferred[BufferedResponse]":
        if not is_target(path):
            return fail(BadRequestTarget("a space or control character in the path"))
        done = Deferred.fromCoroutine(self._post(self._url + path, body))
        timer = self._clock.callLater(self._timeout, done.cancel)
        self._under_way.add(done)

        def over(result: Any) -> Any:
            self._under_way.discard(done)
            if timer.active():
                timer.cancel()
            elif isinstance(result, Failure):
                return Failure(TryLater("no answer in time"))
            return result

        return done.addBoth(over)

    async def _post(self, url: bytes, body: bytes) -> BufferedResponse:
        try:
            response = await self._client.post(
                url,
                data=body,
                headers=self._headers.copy(),
                allow_redirects=False,
                unbuffered=True,
                reactor=self._clock,
            )
            chunks: list[bytes] = []
            await response.collect(_capped(chunks))
        except Exception as error:
            raise TryLater(explain(error)) from error
        names = response.headers.getAllRawHeaders()
        flat = [(name, value) for name, values in names for value in values]
        return BufferedResponse(response.code, flat, b"".join(chunks))

    def close(self, patience: float) -> "Deferred[None]":
        for done in tuple(self._under_way):
            timer = self._clock.callLater(patience, done.cancel)
            done.addBoth(_cancel_timer, timer)
        waiting = [maybeDeferred(_settled, done) for done in self._under_way]
        closed: Deferred[Any] = gatherResults(waiting)
        return closed.addCallback(lambda _: self._pool.closeCachedConnections())


def _cancel_timer(result: Any, timer: IDelayedCall) -> Any:
    if timer.active():
        timer.cancel()
    return result


def _settled(done: "Deferred[Any]") -> "Deferred[None]":
    """Fires with ``done``, whose result stays as it is."""
    over: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        over.callback(None)
        return result

    done.addBoth(pass_on)
    return over


def _capped(chunks: list[bytes]) -> Any:
    size = 0

    def collect(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > MAX_BODY:
            raise TryLater("answer is too long")
        chunks.append(data)

    return collect


@implementer(IPolicyForHTTPS)
class _Policy:
    """One server, one opinion about its certificate."""

    def __init__(self, creator: IOpenSSLClientConnectionCreator) -> None:
        self._creator = creator

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return self._creator


_CLIENTS: dict[str, Any] = {"fast": _FastClient, "stock": _StockClient}
