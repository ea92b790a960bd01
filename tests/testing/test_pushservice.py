"""The push service stand-in, in this process and as a program."""

import json
import socket
import ssl
import subprocess
import sys

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from xmpppush.testing.pushservice import DROP, HANG, Answer, ScriptedPushService

REQUEST = (
    b"POST /v3/notification/a%2Fb HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 7\r\n\r\n{"a":1}'
)
NULL = (
    b"HTTP/1.1 200 Scripted\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 4\r\n\r\nnull"
)


@pytest.fixture
def connect():
    def connect(service):
        protocol = service.factory().buildProtocol(None)
        transport = StringTransportWithDisconnection()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return protocol, transport

    return connect


def test_requests_are_kept_and_answered_in_turn(connect):
    """The last answer is for all that follow."""
    service = ScriptedPushService([Answer(503), Answer()])
    protocol, transport = connect(service)
    protocol.dataReceived(REQUEST * 3)
    assert transport.value().count(b"HTTP/1.1 503") == 1
    assert transport.value().endswith(NULL * 2)
    assert [request.path for request in service.requests] == ["/v3/notification/a%2Fb"] * 3
    assert service.requests[0].json == {"a": 1}
    assert service.requests[0].headers["content-type"] == "application/json"


def test_delay_drop_hang_and_close(connect):
    """What servers do besides answering."""
    clock = Clock()
    service = ScriptedPushService([Answer(delay=2.0), Answer(action=HANG), Answer(close=True)], clock)
    protocol, transport = connect(service)
    protocol.dataReceived(REQUEST)
    assert transport.value() == b""
    clock.advance(2.0)
    assert transport.value() == NULL
    transport.clear()
    protocol.dataReceived(REQUEST)
    clock.advance(100.0)
    assert transport.value() == b""
    protocol.dataReceived(REQUEST)
    assert b"connection: close" in transport.value()
    assert not transport.connected
    service.script(Answer(action=DROP))
    protocol, transport = connect(service)
    protocol.dataReceived(REQUEST)
    assert (transport.value(), transport.connected) == (b"", False)
    assert (service.connections, service.open) == (2, 0)


def test_rubbish_is_hung_up_on(connect):
    """It is a stand-in for a server, no more."""
    protocol, transport = connect(ScriptedPushService())
    protocol.dataReceived(b"\x16\x03\x01 not HTTP\r\n\r\n")
    assert not transport.connected


def test_as_a_program(tmp_path):
    """A line with the port, then a line of JSON for each request; HTTPS with a certificate."""
    certfile = tmp_path / "cert.pem"
    subprocess.run([sys.executable, "-c", MAKE_CERTIFICATE, str(certfile)], check=True)
    command = [sys.executable, "-m", "xmpppush.testing.pushservice", "--certfile", str(certfile)]
    process = subprocess.Popen([*command, "--answer", "410,200", "--body", "{}"], stdout=subprocess.PIPE)
    try:
        port = json.loads(process.stdout.readline())["listening"]
        context = ssl.create_default_context(cafile=str(certfile))
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(REQUEST)
            assert connection.recv(65536).startswith(b"HTTP/1.1 410 ")
        line = json.loads(process.stdout.readline())
        assert (line["method"], line["path"], line["json"]) == ("POST", "/v3/notification/a%2Fb", {"a": 1})
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


MAKE_CERTIFICATE = """
import sys
from datetime import UTC, datetime, timedelta
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
now = datetime.now(UTC)
certificate = (
    x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    .sign(key, SHA256())
)
with open(sys.argv[1], "wb") as file:
    file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.write(certificate.public_bytes(Encoding.PEM))
"""
