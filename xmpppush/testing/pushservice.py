"""
A MongoosePush stand-in that does as it is told: for tests, benchmarks and trying things out.

In a test: ``service = ScriptedPushService([Answer(503), Answer()])`` and listen with
``service.factory()``. Outside: ``python -m xmpppush.testing.pushservice --port 8443 --certfile cert.pem
--keyfile key.pem`` writes each request as a line of JSON to standard output, after a first line
``{"listening": PORT}``.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from attrs import field, frozen
from httptools import HttpParserError, HttpRequestParser
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

DROP = "drop"  # take the request and close without an answer
HANG = "hang"  # take the request and never answer


@frozen
class Answer:
    """
    What a request gets.

    Attributes:
        action: ``""``, or `DROP` or `HANG` instead of an answer.
        delay: Seconds before it is sent.
        close: End the connection behind it.
    """

    code: int = 200
    body: bytes = b"null"
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json; charset=utf-8"),)
    delay: float = 0.0
    action: str = ""
    close: bool = False

    def encode(self) -> bytes:
        """As it goes over the wire."""
        lines = [f"HTTP/1.1 {self.code} Scripted", *(f"{name}: {value}" for name, value in self.headers)]
        if self.close:
            lines.append("connection: close")
        lines.append(f"content-length: {len(self.body)}\r\n\r\n")
        return "\r\n".join(lines).encode() + self.body


@frozen
class Received:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return orjson.loads(self.body)

    def line(self) -> bytes:
        """One line of JSON, with ``json`` where the body is that and ``body`` where it is not."""
        content: dict[str, Any] = {"method": self.method, "path": self.path, "headers": self.headers}
        try:
            content["json"] = self.json
        except ValueError:
            content["body"] = self.body.decode("utf-8", "replace")
        return orjson.dumps(content) + b"\n"


class ScriptedPushService:
    """
    Answers in turn; the last answer is for all further requests.

    Attributes:
        requests: What came, in order.
        connections: How many connections there were in all.
        open: How many there are.
    """

    def __init__(
        self,
        answers: Iterable[Answer] = (Answer(),),
        clock: Any = None,
        on_request: Callable[[Received], None] | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.open = 0
        self._answers = list(answers)
        self._clock = clock
        self._on_request = on_request or self.requests.append

    def script(self, *answers: Answer) -> None:
        """From now on these."""
        self._answers[:] = answers

    def answer(self, request: Received) -> Answer:
        """What this request gets."""
        self._on_request(request)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def factory(self) -> Any:
        """A protocol factory to listen with."""
        factory: Any = Factory.forProtocol(_Connection)
        factory.noisy = False
        factory.service = self
        return factory

    def later(self, delay: float, call: Callable[[], None]) -> IDelayedCall:
        """On the clock given, or the reactor's."""
        if self._clock is None:
            from twisted.internet import reactor

            self._clock = reactor
        return self._clock.callLater(delay, call)


class _Connection(Protocol):
    """A server's connection, answering one request after the other."""

    factory: Any

    def connectionMade(self) -> None:
        self._service: ScriptedPushService = self.factory.service
        self._service.connections += 1
        self._service.open += 1
        self._parser = HttpRequestParser(self)
        self._timers: list[IDelayedCall] = []

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._service.open -= 1
        for timer in self._timers:
            if timer.active():
                timer.cancel()

    def dataReceived(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def on_message_begin(self) -> None:
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        request = Received(method, self._path.decode("latin-1"), self._headers, b"".join(self._body))
        answer = self._service.answer(request)
        if answer.delay:
            # Forgotten ones add up in a long-lived connection otherwise.
            self._timers = [timer for timer in self._timers if timer.active()]
            self._timers.append(self._service.later(answer.delay, lambda: self._send(answer)))
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        if answer.action == HANG:
            return
        if answer.action != DROP:
            self.transport.write(answer.encode())  # type: ignore[union-attr]
        if answer.close or answer.action == DROP:
            self.transport.loseConnection()  # type: ignore[union-attr]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m xmpppush.testing.pushservice", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--interface", default="127.0.0.1")
    parser.add_argument("--certfile", help="PEM; without it plain HTTP is served")
    parser.add_argument("--keyfile", help="PEM; default: in --certfile")
    parser.add_argument(
        "--answer", default="200", help="status codes in turn, the last for all others; also 'drop', 'hang'"
    )
    parser.add_argument("--body", default="null", help="body of every answer")
    parser.add_argument("--header", action="append", default=[], help="'name: value' in every answer")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before an answer")
    parser.add_argument("--quiet", action="store_true", help="count requests instead of writing them")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Serve until interrupted."""
    from twisted.internet import reactor as installed
    from twisted.internet import ssl

    reactor: Any = installed
    options = _arguments().parse_args(arguments)
    headers = tuple(tuple(map(str.strip, header.split(":", 1))) for header in options.header)
    answers = [
        Answer(action=word, delay=options.delay)
        if word in (DROP, HANG)
        else Answer(int(word), options.body.encode(), headers or Answer().headers, options.delay)  # type: ignore[arg-type]
        for word in options.answer.replace(",", " ").split()
    ]
    out = sys.stdout.buffer

    def write(request: Received) -> None:
        if not options.quiet:
            out.write(request.line())
            out.flush()

    factory = ScriptedPushService(answers, on_request=write).factory()
    if options.certfile:
        context = ssl.DefaultOpenSSLContextFactory(options.keyfile or options.certfile, options.certfile)
        port = reactor.listenSSL(options.port, factory, context, interface=options.interface)
    else:
        port = reactor.listenTCP(options.port, factory, interface=options.interface)
    out.write(orjson.dumps({"listening": port.getHost().port}) + b"\n")
    out.flush()
    reactor.run()


if __name__ == "__main__":
    main()
