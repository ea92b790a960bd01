"""Writing at once changes when octets leave, not which and in what order."""

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport

from xmpppush.http.prompt import write_at_once

BIG = bytes(range(256)) * 20_000  # five megabytes: more than any socket takes at once


class Reader(Protocol):
    """Collects what comes, and fires at the end."""

    def __init__(self):
        self.data = bytearray()
        self.ended = Deferred()

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.ended.callback(bytes(self.data))


@pytest_twisted.ensureDeferred
async def test_everything_arrives_in_order():
    """Small, more than the socket takes, and small again behind what waits in the buffer."""
    reader, writer = Reader(), Protocol()
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        Factory.forProtocol(lambda: reader)
    )
    try:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await endpoint.connect(Factory.forProtocol(lambda: writer))
        transport = writer.transport
        write_at_once(transport)
        transport.write(b"first")
        assert not transport._tempDataBuffer
        for part in (BIG, b"behind it", BIG, b"last"):
            transport.write(part)
        assert transport._tempDataBuffer
        transport.loseConnection()
        reader.ended.addTimeout(20, reactor)
        assert await reader.ended == b"first" + BIG + b"behind it" + BIG + b"last"
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_lost_connection_is_found_as_ever():
    """Writing to one raises nothing and ends it."""
    server, client = Protocol(), Reader()
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        Factory.forProtocol(lambda: server)
    )
    try:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await endpoint.connect(Factory.forProtocol(lambda: client))
        write_at_once(client.transport)
        client.transport.socket.shutdown(1)
        client.transport.write(b"x")
        client.transport.write(b"y")
        client.ended.addTimeout(20, reactor)
        assert await client.ended == b""
        client.transport.write(b"z")
    finally:
        await port.stopListening()


def test_other_transports_stay_as_they_are():
    """TLS, tests."""
    transport = StringTransport()
    write_at_once(transport)
    transport.write(b"x")
    assert transport.value() == b"x"
