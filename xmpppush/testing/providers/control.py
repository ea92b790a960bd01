"""
What a CI job asks an emulator, over plain HTTP on a port of its own.

``GET /received`` (``?token=...``) and ``DELETE``; ``GET``, ``PUT``, ``POST``, ``DELETE /faults`` with the
JSON of `read_faults`; ``POST /goaway``; ``POST /subscriptions`` (Web Push); ``GET /`` says how it is.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from attrs import asdict
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory

from xmpppush.testing.providers.base import Emulator
from xmpppush.testing.providers.faults import BadFault, faults_of
from xmpppush.testing.providers.http1 import HTTP1Connection
from xmpppush.testing.providers.webpush import WebPushEmulator
from xmpppush.testing.providers.wire import Reply, Request

_JSON = (b"content-type", b"application/json")


class ControlPort:
    """
    Shows one emulator and lets its faults be changed.

    It asks nobody who they are: loopback, or a network of the CI's own.
    """

    max_streams = 0

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._listening: Any = None
        self._open: list[Any] = []
        self.port = 0

    def listen(self, reactor: Any, port: int = 0, interface: str = "127.0.0.1") -> "Deferred[int]":
        """Fires with the port."""
        factory = Factory.forProtocol(lambda: HTTP1Connection(self))
        factory.noisy = False
        self._listening = reactor.listenTCP(port, factory, interface=interface)
        self.port = self._listening.getHost().port
        return succeed(self.port)

    def stop(self) -> "Deferred[None]":
        for connection in list(self._open):
            connection.transport.abortConnection()
        stopped: Deferred[None] = self._listening.stopListening() or succeed(None)
        return stopped

    def opened(self, connection: Any) -> int:
        self._open.append(connection)
        return len(self._open)

    def closed(self, connection: Any) -> None:
        if connection in self._open:
            self._open.remove(connection)

    def received_request(self, request: Request) -> None:
        path = urlsplit(request.path)
        action = getattr(self, f"_{request.method.lower()}_{path.path.strip('/') or 'state'}", None)
        if action is None:
            reply = _answer({"error": "no such path, or not with this method"}, 404)
        else:
            try:
                reply = action(request, parse_qs(path.query))
            except BadFault as error:
                reply = _answer({"error": str(error)}, 400)
        request.connection.send(request.stream, reply)

    def _get_state(self, _request: Request, _query: dict[str, list[str]]) -> Reply:
        emulator = self._emulator
        return _answer(
            {
                "service": emulator.service,
                "endpoint": emulator.endpoint,
                "connections": emulator.connections,
                "open": len(emulator.open),
                "count": emulator.count,
                "accepted": emulator.accepted,
            }
        )

    def _get_received(self, _request: Request, query: dict[str, list[str]]) -> Reply:
        tokens = query.get("token")
        chosen = [each for each in self._emulator.received if tokens is None or each.token in tokens]
        return _answer(
            {"count": self._emulator.count, "received": [received.described() for received in chosen]}
        )

    def _delete_received(self, _request: Request, _query: dict[str, list[str]]) -> Reply:
        self._emulator.forget()
        return Reply(204)

    def _get_faults(self, _request: Request, _query: dict[str, list[str]]) -> Reply:
        return _answer([asdict(fault) for fault in self._emulator.faults.listed()])

    def _post_faults(self, request: Request, query: dict[str, list[str]]) -> Reply:
        self._emulator.faults.add(*faults_of(request.body))
        return self._get_faults(request, query)

    def _put_faults(self, request: Request, query: dict[str, list[str]]) -> Reply:
        self._emulator.faults.replace(*faults_of(request.body))
        return self._get_faults(request, query)

    def _delete_faults(self, _request: Request, _query: dict[str, list[str]]) -> Reply:
        self._emulator.faults.clear()
        return Reply(204)

    def _post_goaway(self, _request: Request, _query: dict[str, list[str]]) -> Reply:
        self._emulator.go_away()
        return Reply(204)

    def _post_subscriptions(self, _request: Request, query: dict[str, list[str]]) -> Reply:
        if not isinstance(self._emulator, WebPushEmulator):
            return _answer({"error": "only Web Push has subscriptions"}, 404)
        name = query.get("name", [""])[0]
        return Reply(201, (_JSON,), self._emulator.subscribe(name).json.encode())


def _answer(content: Any, status: int = 200) -> Reply:
    return Reply(status, (_JSON,), orjson.dumps(content))
