"""Endpoint strings, with ``ssl:`` on our own certificates."""

import errno
import os

import pytest
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from xmpppush.listening import explain_listen_error, parse_server_endpoint


@pytest.mark.parametrize(
    ("text", "kind", "wants_tls"),
    [
        ("tcp:5222:interface=127.0.0.1", TCP4ServerEndpoint, False),
        ("tcp6:5222", TCP6ServerEndpoint, False),
        ("ssl:8443:interface=127.0.0.1", TCP4ServerEndpoint, True),
        ("ssl:port=8443", TCP4ServerEndpoint, True),
    ],
)
def test_ssl_is_tcp_that_the_caller_wraps(text, kind, wants_tls):
    """The endpoint type decides whether TLS is asked for."""
    endpoint, tls = parse_server_endpoint(MemoryReactor(), text)
    assert isinstance(endpoint, kind)
    assert tls is wants_tls


@pytest.mark.parametrize(
    ("text", "port", "interface"),
    [
        ("ssl:8443:interface=127.0.0.1", 8443, "127.0.0.1"),
        (r"ssl:8443:interface=\:\:1:backlog=9", 8443, "::1"),
        ("haproxy:ssl:9443", 9443, ""),
    ],
)
def test_arguments_survive(text, port, interface):
    """Port and interface of an ``ssl:`` endpoint are those of the socket."""
    reactor = MemoryReactor()
    endpoint, tls = parse_server_endpoint(reactor, text)
    endpoint.listen(Factory())
    assert tls
    assert reactor.tcpServers[0][0] == port
    assert reactor.tcpServers[0][3] == interface


@pytest.mark.parametrize("text", ["nonsense:1", "tcp", "ssl:8443:colour=red", "tcp:notaport"])
def test_nonsense_is_a_value_error(text):
    """What Twisted does not take is one kind of error, whatever Twisted raised."""
    with pytest.raises(ValueError, match=r"[a-z]"):
        parse_server_endpoint(MemoryReactor(), text)


def test_key_in_the_endpoint_is_pointed_elsewhere():
    """A Twisted-style ``privateKey`` is refused with the place where it belongs."""
    with pytest.raises(ValueError, match="certfile and keyfile"):
        parse_server_endpoint(MemoryReactor(), "ssl:8443:privateKey=key.pem:certKey=cert.pem")


def test_a_taken_port_is_one_clear_line():
    """The line names the endpoint and the system's reason."""
    error = CannotListenError("127.0.0.1", 8443, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))
    assert explain_listen_error("ssl:8443", error) == "cannot listen on ssl:8443: address already in use"
