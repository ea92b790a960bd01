"""Emulators without a network: the other end is the library h2, or httptools reading HTTP/1.1."""

import time
from types import SimpleNamespace

import httptools
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from xmpppush.testing.providers import make_apns_credentials, make_fcm_credentials, make_test_authority
from xmpppush.testing.providers.http1 import HTTP1Connection
from xmpppush.testing.providers.http2 import HTTP2Connection


class Wire(StringTransport):
    """The emulator's transport; closing it reaches its protocol at once."""

    closed = ""
    paused = False

    def __init__(self, protocol):
        super().__init__()
        self.protocol = protocol

    def loseConnection(self):
        self.close("closed", ConnectionDone())

    def abortConnection(self):
        self.close("aborted", ConnectionAborted())

    def close(self, how, reason):
        if not self.closed:
            self.closed = how
            self.protocol.connectionLost(Failure(reason))

    def pauseProducing(self):
        self.paused = True


class H2Client:
    """One connection to an emulator, as h2 speaks it."""

    def __init__(self, emulator, certificate=None):
        self.protocol = HTTP2Connection(emulator)
        self.protocol.certificate = certificate
        self.wire = Wire(self.protocol)
        self.protocol.makeConnection(self.wire)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.answers = {}
        self.resets = {}
        self.goaway = None
        self.pongs = 0
        self.limits = []
        self.exchange()

    def exchange(self):
        """Deliver what both sides have to say."""
        while True:
            outgoing = self.h2.data_to_send()
            if outgoing and not self.wire.closed and not self.wire.paused:
                self.protocol.dataReceived(outgoing)
            incoming = self.wire.value()
            self.wire.clear()
            if not incoming:
                return
            for event in self.h2.receive_data(incoming):
                self.note(event)

    def note(self, event):
        if isinstance(event, ResponseReceived):
            headers = dict(event.headers)
            self.answers[event.stream_id] = SimpleNamespace(
                status=int(headers.pop(":status")), headers=headers, body=b"", complete=False
            )
        elif isinstance(event, DataReceived):
            self.answers[event.stream_id].body += event.data
        elif isinstance(event, StreamEnded):
            self.answers[event.stream_id].complete = True
        elif isinstance(event, StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.goaway = event
        elif isinstance(event, PingAckReceived):
            self.pongs += 1
        elif isinstance(event, RemoteSettingsChanged):
            self.limits += [each.new_value for code, each in event.changed_settings.items() if code == 3]

    def begin(self, path, headers=(), body=b"", method="POST", extra=()):
        """Queue a request; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "emulator"), (":path", path)]
        self.h2.send_headers(stream, [*pseudo, *dict(headers).items(), *extra], end_stream=not body)
        while body:
            part, body = body[:16000], body[16000:]
            self.h2.send_data(stream, part, end_stream=not body)
        return stream

    def ask(self, *arguments, **options):
        """Send a request; its answer, or ``None`` where there is none yet."""
        stream = self.begin(*arguments, **options)
        self.exchange()
        return self.answers.get(stream)


class H1Client:
    """One HTTP/1.1 connection to an emulator."""

    def __init__(self, application):
        self.protocol = HTTP1Connection(application)
        self.wire = Wire(self.protocol)
        self.protocol.makeConnection(self.wire)

    def ask(self, path, headers=(), body=b"", method="POST"):
        lines = [f"{method} {path} HTTP/1.1", "host: emulator", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in dict(headers).items()]
        self.protocol.dataReceived("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return self.read()

    def read(self):
        """The answer that was written, ``None`` without one."""
        answer = SimpleNamespace(status=0, headers={}, body=b"", complete=False)
        answer.on_header = lambda name, value: answer.headers.update({name.decode().lower(): value.decode()})
        answer.on_body = lambda body: setattr(answer, "body", answer.body + body)
        answer.on_message_complete = lambda: setattr(answer, "complete", True)
        parser = httptools.HttpResponseParser(answer)
        parser.feed_data(self.wire.value())
        self.wire.clear()
        answer.status = parser.get_status_code() if answer.complete else 0
        return answer if answer.complete else None


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(time.time())  # certificates of now are good
    return clock


@pytest.fixture(scope="session")
def authority():
    return make_test_authority()


@pytest.fixture(scope="session")
def apns_credentials(authority):
    return make_apns_credentials(authority)


@pytest.fixture(scope="session")
def fcm_credentials():
    return make_fcm_credentials()


@pytest.fixture
def h2_client():
    return H2Client


@pytest.fixture
def h1_client():
    return H1Client
