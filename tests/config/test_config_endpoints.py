"""Tests for xmpppush.config.endpoints."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactor

from xmpppush.config.endpoints import moved, parse_client_endpoint, parse_server_endpoint
from xmpppush.config.values import BadValue

HERE = Path("/here")


@pytest.mark.parametrize(
    "text",
    [
        "tcp:5222:interface=127.0.0.1",
        "tcp:0",
        "tcp:5222:backlog=100",
        "tcp6:5222",
        r"tcp6:5222:interface=\:\:1",
        "unix:/run/xmpppush.sock:mode=660",
        "haproxy:tcp:5222:interface=127.0.0.1",
    ],
)
def test_what_is_accepted_twisted_accepts(text):
    """An accepted endpoint keeps its text and is one to Twisted."""
    assert str(parse_server_endpoint(text, HERE)) == text
    serverFromString(MemoryReactor(), text)


@pytest.mark.parametrize("text", ["systemd:domain=INET:name=c2s", "systemd:domain=INET6:index=0", "ssl:8443"])
def test_what_only_the_running_server_can_tell(text):
    """Inherited sockets and generated certificates are not looked for."""
    parse_server_endpoint(text, HERE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with no known endpoint type"),
        ("tpc:5222", "did you mean 'tcp:'?"),
        ("5222", "begins with no known endpoint type"),
        ("tcp", "lacks its port"),
        ("tcp:", "lacks its port"),
        ("tcp:65536", "has a port that is no whole number from 0 to 65535"),
        ("tcp:xmpp", "has a port that is no whole number"),
        ("tcp:5222:interfaces=127.0.0.1", "did you mean 'interface'?"),
        ("tcp:5222:interface=300.0.0.1", "has an interface that is no address"),
        ("tcp6:5222:interface=::1", "twice"),
        ("tcp:5222:127.0.0.1:50:x", "has too many parts"),
        ("tcp:5222:port=5223", "gives port twice"),
        ("tcp:5222:backlog=0", "has a backlog that"),
        ("unix:/run/x:mode=999", "has a mode that is not octal"),
        ("unix:/run/x:lockfile=yes", "has a lockfile"),
        ("systemd:domain=INET", "needs either index= or name="),
        ("systemd:domain=X25:index=0", "socket domain"),
        ("haproxy:haproxy:tcp:1", "wraps haproxy: twice"),
        ("haproxy:tpc:1", "did you mean 'tcp:'?"),
        ("ssl:5223:privateKey=key.pem", "use ssl:PORT alone"),
        ("tls:/etc/certificates:5223", "use ssl:PORT alone"),
        ("ssl:5223:key.pem:cert.pem", "has a backlog that"),
        ("tcp:5222\\", "is no endpoint"),
        ("a=b", "is no endpoint"),
        ("tcp:5222\ntcp:5223", "goes over several lines"),
    ],
)
def test_refused(text, reason):
    """A mistake is named before anything listens."""
    with pytest.raises(BadValue) as caught:
        parse_server_endpoint(text, HERE)
    assert reason in str(caught.value)


def test_paths_become_absolute(tmp_path):
    """Relative paths begin at the INI file's folder, wherever the daemon runs; files have to be there."""
    (tmp_path / "a:b.pem").write_text("x")
    endpoint = parse_client_endpoint(r"tls:a.example:5223:certificate=a\:b.pem", tmp_path)
    assert str(endpoint) == rf"tls:a.example:5223:certificate={tmp_path}/a\:b.pem"
    with pytest.raises(BadValue, match="has a certificate that cannot be read: No such file"):
        parse_client_endpoint("tls:a.example:5223:certificate=c.pem", tmp_path)
    assert str(parse_server_endpoint("unix:run/x.sock", HERE)) == "unix:/here/run/x.sock"


@pytest.mark.parametrize(
    ("text", "port", "loopback", "tls"),
    [
        ("tcp:5222:interface=127.0.0.1", 5222, True, False),
        ("tcp:5222", 5222, False, False),
        (r"tcp6:5222:interface=\:\:1", 5222, True, False),
        ("ssl:8443:interface=127.0.0.1", 8443, True, True),
        ("unix:/x", None, True, False),
        ("haproxy:tcp:80", 80, False, False),
    ],
)
def test_what_an_endpoint_says(text, port, loopback, tls):
    """Port, reach and TLS are read off the string."""
    endpoint = parse_server_endpoint(text, HERE)
    assert (endpoint.port, endpoint.is_loopback, endpoint.has_tls) == (port, loopback, tls)


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("tcp:1", "tcp:1", True),
        ("tcp:1", "tcp:2", False),
        ("tcp:0", "tcp:0", False),
        ("tcp:1:interface=127.0.0.1", "tcp:1:interface=127.0.0.2", False),
        ("tcp:1:interface=127.0.0.1", "ssl:1", True),
        ("tcp:1:interface=127.0.0.1", "haproxy:tcp:1:interface=127.0.0.1", True),
        (r"tcp6:1:interface=\:\:1", "tcp:1:interface=127.0.0.1", False),
        ("tcp6:1", "tcp:1", True),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "tcp:1", False),
    ],
)
def test_clashes(first, second, clash):
    """Two listeners that cannot both be are known beforehand."""
    one, other = parse_server_endpoint(first, HERE), parse_server_endpoint(second, HERE)
    assert one.clashes_with(other) is clash
    assert other.clashes_with(one) is clash


def test_moved():
    """Port and interface can be changed; IPv6 colons are escaped."""
    endpoint = parse_server_endpoint("ssl:8443:interface=127.0.0.1", HERE)
    assert str(moved(moved(endpoint, "port", "443"), "interface", "::")) == r"ssl:443:interface=\:\:"
    with pytest.raises(BadValue, match="has a port that"):
        moved(endpoint, "port", "x")
    with pytest.raises(BadValue, match="has no port to change"):
        moved(parse_server_endpoint("unix:/x", HERE), "port", "1")


@pytest.mark.parametrize(
    "text",
    [
        "tcp:127.0.0.1:5347",
        "tcp:host=xmpp.example.org:port=5347:timeout=5",
        "tls:xmpp.example.org:5223",
        "unix:/run/x",
    ],
)
def test_client_endpoints(text):
    """What is accepted as a client endpoint is one to Twisted."""
    clientFromString(MemoryReactor(), str(parse_client_endpoint(text, HERE)))


@pytest.mark.parametrize(
    "text", ["tcp:5347", "systemd:domain=INET:index=0", "tcp:localhost:99999", "tcp::5347"]
)
def test_client_endpoints_refused(text):
    """A server's endpoint, or half a client's, is refused."""
    with pytest.raises(BadValue):
        parse_client_endpoint(text, HERE)


@settings(deadline=None)
@given(st.text() | st.text("tcpusnix6:=\\0123456789.", max_size=30))
def test_no_text_surprises_the_parser(text):
    """Whatever the text, it is an endpoint or a BadValue."""
    for parse in (parse_server_endpoint, parse_client_endpoint):
        with suppress(BadValue):
            str(parse(text, HERE))
