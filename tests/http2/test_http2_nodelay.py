"""Nagle's algorithm and small requests."""

from unittest.mock import Mock

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import alsoProvides

from xmpppush.http2.connection import Connection


def test_requests_do_not_wait_for_acknowledgements():
    """TCP_NODELAY is set, or each request would wait for the one before: 420 a second became 1900."""
    transport = StringTransport()
    transport.setTcpNoDelay = Mock()
    alsoProvides(transport, ITCPTransport)
    owner = Mock(clock=Clock(), max_body=1000)
    Connection(owner, tls=False).makeConnection(transport)
    transport.setTcpNoDelay.assert_called_once_with(True)
