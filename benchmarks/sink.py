"""A MongoosePush stand-in that takes any notification and tells who listens: asyncio and httptools."""

import asyncio
from collections.abc import Callable

import httptools
import orjson

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 4\r\n\r\nnull"
# The path's last part and the request, parsed; None for a body that is no JSON object.
Listener = Callable[[str, dict[str, object] | None], None]


class _Connection(asyncio.Protocol):
    """One kept-alive connection; the methods in lower case are asyncio's and httptools'."""

    def __init__(self, listener: Listener, delay: float) -> None:
        self._listener = listener
        self._delay = delay
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        device = self._url.rpartition(b"/")[2].decode("ascii", "replace")
        self._listener(device, _object_in(self._body))
        self._url = self._body = b""
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, ANSWER)
        else:
            self._transport.write(ANSWER)


def _object_in(body: bytes) -> dict[str, object] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def text_of(request: dict[str, object] | None) -> str:
    """What the phone would show: ``alert.body`` of v2 and v3, ``body`` of v1, ``""`` for none."""
    if request is None:
        return ""
    alert = request.get("alert", request)
    text = alert.get("body") if isinstance(alert, dict) else None
    return text if isinstance(text, str) else ""


async def listen(listener: Listener, port: int = 0, delay: float = 0.0) -> asyncio.Server:
    """Take notifications on 127.0.0.1, answer after ``delay`` s; the port is in ``server.sockets``."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(listener, delay), "127.0.0.1", port, backlog=1024)
