"""
An APNs that takes anything: HTTP/2 over TLS, as little of it as our own client needs.

It reads header blocks without HPACK, for `xmpppush.http2` writes plain literals; any other client would be
told apart by its requests without a device.
"""

import asyncio
import re
import ssl
import struct
from pathlib import Path

import orjson

from benchmarks.sink import Listener

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_MAX_CONCURRENT_STREAMS = 3
_OK = b"\x88"  # :status 200 of HPACK's static table
_DEVICE = re.compile(rb"/3/device/([!-~]+?)(?=[\x00-\x20\x80-\xff]|$)")
WINDOW = 2**30


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


class _Connection(asyncio.Protocol):
    def __init__(self, listener: Listener, streams: int) -> None:
        self._listener = listener
        self._streams = streams
        self._buffer = b""
        self._devices: dict[int, str] = {}
        self._bodies: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        limit = struct.pack(">HI", _MAX_CONCURRENT_STREAMS, self._streams)
        window = struct.pack(">I", WINDOW)
        transport.write(_frame(_SETTINGS, 0, 0, limit) + _frame(_WINDOW_UPDATE, 0, 0, window))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        at = len(_PREFACE) if buffer.startswith(_PREFACE) else 0
        answers: list[bytes] = []
        while len(buffer) - at >= 9:
            head, flags, stream = struct.unpack_from(">IBI", buffer, at)
            end = at + 9 + (head >> 8)
            if end > len(buffer):
                break
            answers.append(self._take(head & 0xFF, flags, stream, buffer[at + 9 : end]))
            at = end
        self._buffer = buffer[at:]
        self._transport.write(b"".join(answers))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == _HEADERS:
            found = _DEVICE.search(payload)
            self._devices[stream] = found[1].decode() if found else ""
            self._bodies[stream] = b""
        elif kind == _DATA:
            self._bodies[stream] += payload
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            return _frame(kind, _ACK, 0, payload if kind == _PING else b"")
        if kind in (_HEADERS, _DATA) and flags & _END_STREAM:
            return self._done(stream)
        return b""

    def _done(self, stream: int) -> bytes:
        device, body = self._devices.pop(stream), self._bodies.pop(stream)
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            content = None
        self._listener(device, content.get("aps") if isinstance(content, dict) else None)
        return _frame(_HEADERS, 4 | _END_STREAM, stream, _OK)


async def listen_apns(listener: Listener, folder: Path, streams: int = 1000) -> asyncio.Server:
    """Take notifications on 127.0.0.1; ``folder`` has ``apns.pem``, key and certificate in one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "apns.pem")
    context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(listener, streams), "127.0.0.1", 0, ssl=context)


def write_credentials(folder: Path) -> None:
    """The sink's certificate, the authority that clients trust, and the key that they sign tokens with."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from xmpppush.testing.providers import make_apns_credentials, make_test_authority

    authority = make_test_authority()
    (folder / "apns-ca.pem").write_bytes(authority.ca)
    (folder / "token.p8").write_bytes(make_apns_credentials(authority).p8)
    server = authority.server
    key = server.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (server.certificate, *server.chain))
    (folder / "apns.pem").write_bytes(key + chain)
