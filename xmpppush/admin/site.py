"""
Listeners of type http: health and metrics (twisted.web).

Nothing here is quick, nor needs to be: it is asked a few times a minute.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol as Connection
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from xmpppush.admin.access import Caller, Refusal, refusal_for
from xmpppush.admin.health import report
from xmpppush.admin.metrics import CONTENT_TYPE, Figures, RowCounts, exposition
from xmpppush.config.sections import AdminSection
from xmpppush.http.outage import Outage

IDLE_TIMEOUT = 30.0  # seconds without an octet
STOP_TIMEOUT = 1.0  # seconds for clients to take their answers
COUNT_TIMEOUT = 2.0  # seconds for the database to count; Prometheus gives up on a scrape after 10
MAX_CONNECTIONS = 100
MAX_BODY = 64 * 1024  # nobody needs one

JSON = "application/json; charset=utf-8"
PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
TOO_MANY = Refusal(429, "too-many-requests", "too many wrong passwords from this address; try again later")
WRONG_METHOD = Refusal(405, "method-not-allowed", "only GET and HEAD are allowed")

_HOST = re.compile(r"\[?(.*?)\]?(:\d*)?")


class Throttle(Protocol):
    """Counts wrong passwords by address."""

    def is_blocked(self, name: str, now: float) -> bool: ...

    def failed(self, name: str, now: float) -> bool: ...


@frozen
class Answer:
    status: int
    body: bytes = field(repr=False)
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Page = Callable[[], "Answer | Deferred[Answer]"]


class AdminResource(Resource):
    """
    All paths of a listener of type http.

    Args:
        figures: What `/metrics` shows; its ``checks`` are what `/health` answers.
        count_rows: Asks the database for what it alone knows.
        throttle: Counts wrong passwords by what ``network_of`` makes of an address.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        section: AdminSection,
        figures: Figures,
        count_rows: "Callable[[], Deferred[Any]]",
        throttle: Throttle,
        network_of: Callable[[str], str],
        clock: IReactorTime,
    ) -> None:
        super().__init__()
        self._password = section.password
        self._figures = figures
        self._count_rows = count_rows
        self._throttle = throttle
        self._network_of = network_of
        self._clock = clock
        self._waiting: list[Deferred[RowCounts | None]] = []
        self._counting = False
        self._outage = Outage()
        self._open_pages: dict[str, Page] = {"/health": self._health}
        self._pages: dict[str, Page] = {"/metrics": self._metrics} if section.metrics else {}

    def render(self, request: HTTPRequest) -> int:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def send(answer: Answer) -> None:
            if not gone:
                _send(request, answer)

        answered: Deferred[Any] = maybeDeferred(self._answer, request)
        answered.addErrback(self._broke).addCallback(send)
        return NOT_DONE_YET

    def _answer(self, request: HTTPRequest) -> "Answer | Deferred[Answer]":
        path = request.path.decode("latin-1")
        page = self._open_pages.get(path)
        if page is None:
            refusal = self._refusal_for(caller_of(request))
            if refusal is not None:
                return _refused(refusal)
            page = self._pages.get(path)
        if page is None:
            return _refused(self._not_found())
        if request.method not in (b"GET", b"HEAD"):
            return _refused(WRONG_METHOD)
        return page()

    def _not_found(self) -> Refusal:
        paths = " and ".join((*self._open_pages, *self._pages))
        return Refusal(404, "not-found", f"here are {paths}; a web page comes with a later version")

    def _refusal_for(self, caller: Caller) -> Refusal | None:
        now = self._clock.seconds()
        network = self._network_of(caller.address or "")
        if self._password and self._throttle.is_blocked(network, now):
            return TOO_MANY  # also with the right one: whoever guesses shall not know
        refusal = refusal_for(caller, self._password)
        if refusal is not None and caller.authorization and self._throttle.failed(network, now):
            self._log.warn(
                "no more [admin] passwords from {network} for a while: too many wrong ones", network=network
            )
        return refusal

    def _broke(self, failure: Failure) -> Answer:
        self._log.failure("a request could not be answered", failure)
        return _refused(Refusal(500, "internal-error", "the server's log has more"))

    # Pages.

    def _health(self) -> Answer:
        status, body = report(self._figures.checks())
        return Answer(status, orjson.dumps(body) + b"\n")

    def _metrics(self) -> "Deferred[Answer]":
        return self._rows().addCallback(
            lambda rows: Answer(200, exposition(self._figures, rows), CONTENT_TYPE)
        )

    def _rows(self) -> "Deferred[RowCounts | None]":
        """
        ``None`` where the database does not answer in time: the other figures are wanted then most of all.

        However many ask, it counts once at a time.
        """
        waiting: Deferred[RowCounts | None] = Deferred()
        waiting.addTimeout(COUNT_TIMEOUT, self._clock, lambda _result, _timeout: None)
        self._waiting.append(waiting)
        if not self._counting:
            self._counting = True
            maybeDeferred(self._count_rows).addCallbacks(self._counted, self._not_counted)
        return waiting

    def _counted(self, rows: RowCounts | None) -> None:
        self._counting = False
        if rows is not None:
            self._outage.succeeded(self._clock.seconds())
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(rows)

    def _not_counted(self, failure: Failure) -> None:
        reason = failure.getErrorMessage()
        if self._outage.failed(reason, self._clock.seconds()):
            self._log.warn("rows for /metrics cannot be counted: {reason}", reason=reason)
        self._counted(None)


def caller_of(request: HTTPRequest) -> Caller:
    """Where a request comes from, as far as it tells."""

    def header(name: str) -> str:
        return request.getHeader(name) or ""

    found = _HOST.fullmatch(header("host"))
    return Caller(
        address=getattr(request.getClientAddress(), "host", None),
        host=found[1] if found else header("host"),
        proxied=any(request.getHeader(name) is not None for name in PROXY_HEADERS),
        authorization=header("authorization"),
    )


def _refused(refusal: Refusal) -> Answer:
    body = orjson.dumps({"error": refusal.error, "reason": refusal.reason}) + b"\n"
    return Answer(refusal.status, body, headers=_HEADERS.get(refusal.status, ()))


_HEADERS = {
    401: (("www-authenticate", 'Basic realm="xmpppush", charset="UTF-8"'),),
    405: (("allow", "GET, HEAD"),),
    429: (("retry-after", "60"),),
}


def _send(request: HTTPRequest, answer: Answer) -> None:
    # twisted.web has no words for 429.
    request.setResponseCode(answer.status, HTTPStatus(answer.status).phrase.encode())
    for name, value in (
        ("server", "xmpppush"),
        ("content-type", answer.content_type),
        ("content-length", str(len(answer.body))),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        *answer.headers,
    ):
        request.setHeader(name, value)
    request.write(answer.body)
    request.finish()


class _SmallRequest(Request):
    """twisted.web keeps bodies of any size, on disk if need be."""

    _size = 0

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)

    def handleContentChunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_BODY:
            self.channel.transport.abortConnection()  # type: ignore[union-attr]
        else:
            super().handleContentChunk(data)


class _Site(Site):
    """No access log: a line for each scrape tells nobody anything."""

    requestFactory = _SmallRequest

    def startFactory(self) -> None:
        """No clock for the log either."""

    def stopFactory(self) -> None:
        """There is none to stop."""

    def log(self, request: HTTPRequest) -> None:
        """Not at all."""


class AdminFactory(WrappingFactory):
    """Serves a resource to a bounded number of connections."""

    noisy = False
    _log = Logger()

    def __init__(
        self, resource: Resource, clock: IReactorTime, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        site = _Site(resource, timeout=IDLE_TIMEOUT, reactor=clock, parsePOSTFormSubmission=False)
        site.noisy = False
        super().__init__(site)
        self._clock = clock
        self._max_connections = max_connections
        self._full = False
        self._stopped: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._stopped is not None or len(self.protocols) >= self._max_connections:
            if not self._full and self._stopped is None:
                self._full = True
                self._log.warn(
                    "{open} connections to a listener of type http: refusing more", open=len(self.protocols)
                )
            # Not None: the factory of a listener with direct TLS could not take it.
            return _NoRoom()
        return super().buildProtocol(addr)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        self._full = False
        if self._stopped is not None and not self.protocols and not self._stopped.called:
            self._stopped.callback(None)

    def close_all(self) -> "Deferred[None]":
        """Close all connections behind what is written to them; fires after a second at the latest."""
        stopped = self._stopped = Deferred()
        for protocol in list(self.protocols):
            protocol.loseConnection()
        if not self.protocols and not stopped.called:
            stopped.callback(None)
        return stopped.addTimeout(STOP_TIMEOUT, self._clock, self._abort_all)

    def _abort_all(self, result: object, _timeout: float) -> None:
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()


class _NoRoom(Connection):
    def connectionMade(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]
