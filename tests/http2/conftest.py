"""A network in memory, and HTTP/2 servers on it that do what a test says."""

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.http2.client import HTTP2Client
from xmpppush.http2.headers import pack


class Peer(StringTransport):
    """
    The server's end of a connection.

    Attributes:
        requests: Stream to headers, of requests whose end came.
        bodies: Stream to what came of the body.
        resets: Stream to error code.
    """

    def __init__(self, protocol, settings):
        super().__init__()
        self.protocol = protocol
        self.open = True
        self.requests = {}
        self.bodies = {}
        self.headers = {}
        self.resets = {}
        self.events = []
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.acknowledge = True
        self.greeted = False
        self.settings = settings

    def greet(self):
        """Send our SETTINGS."""
        self.greeted = True
        self.h2.initiate_connection()
        self.h2.update_settings(self.settings)
        self.flush()

    def read(self):
        """Take in what the client wrote; returns the streams of requests that are complete now."""
        data = self.value()
        self.clear()
        ended = []
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, RequestReceived):
                self.headers[event.stream_id] = dict(event.headers)
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                if self.acknowledge:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.requests[event.stream_id] = self.headers[event.stream_id]
                ended.append(event.stream_id)
            elif isinstance(event, StreamReset):
                self.resets[event.stream_id] = event.error_code
        self.flush()
        return ended

    def flush(self):
        """Hand the client what our h2 has to say."""
        data = self.h2.data_to_send()
        if data and self.open:
            self.protocol.dataReceived(data)

    def answer(self, stream_id, status="200", body=b"", headers=(), flush=True):
        """Answer one request."""
        self.h2.send_headers(stream_id, [(":status", status), *headers], end_stream=not body)
        if body:
            self.h2.send_data(stream_id, body, end_stream=True)
        if flush:
            self.flush()

    def drop(self, reason=None):
        """End the connection from the server's side."""
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def loseConnection(self):
        self.drop()

    def abortConnection(self):
        self.drop(ConnectionAborted())


@implementer(IStreamClientEndpoint)
class Network:
    """An endpoint that connects when told to."""

    def __init__(self):
        self.peers = []
        self.attempts = []
        self.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 100}

    def connect(self, factory):
        attempt = Deferred()
        self.attempts.append((factory, attempt))
        return attempt

    def accept(self, greet=True):
        """Let the oldest attempt succeed."""
        factory, attempt = self.attempts.pop(0)
        protocol = factory.buildProtocol(None)
        peer = Peer(protocol, self.settings)
        self.peers.append(peer)
        protocol.makeConnection(peer)
        attempt.callback(protocol)
        if greet:
            peer.greet()
        return peer

    def refuse(self, error):
        """Let the oldest attempt fail."""
        self.attempts.pop(0)[1].errback(Failure(error))


class Outcome:
    """What became of a request."""

    def __init__(self, result):
        self.deferred = result
        self.response = self.error = None
        result.addCallbacks(self._answered, self._failed)

    def _answered(self, response):
        self.response = response

    def _failed(self, failure):
        self.error = failure.value

    @property
    def over(self):
        return self.response is not None or self.error is not None


def head(path="/"):
    """Packed headers of a POST."""
    return pack(
        [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"example.org"),
            (b":path", path.encode()),
        ]
    )


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def client_with(clock, network):
    """Makes a client on the network in memory and starts it."""

    def make(**options):
        client = HTTP2Client("test", clock, network, None, random=lambda: 1.0, **options)
        client.start()
        return client

    return make


@pytest.fixture
def ask(clock):
    """Sends a request and lets the turn of the reactor end."""

    def ask(client, path="/", body=b"{}"):
        outcome = Outcome(client.request(head(path), body))
        clock.advance(0)
        return outcome

    return ask
