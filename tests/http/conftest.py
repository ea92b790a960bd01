"""Servers in memory: each connection is a pair of a client protocol and what it wrote."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.http.agent import PooledAgent


class Wire(StringTransport):
    """The server's end of a connection."""

    def __init__(self, protocol):
        super().__init__()
        self.protocol = protocol
        self.open = True

    def answer(self, data):
        """Send this to the client."""
        self.protocol.dataReceived(data)

    def take(self):
        """What the client wrote since the last time."""
        data = self.value()
        self.clear()
        return data

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
    """An endpoint that connects at once, or when told to."""

    def __init__(self):
        self.wires = []
        self.attempts = []
        self.manual = False

    def connect(self, factory):
        attempt = Deferred()
        self.attempts.append((factory, attempt))
        if not self.manual:
            self.accept()
        return attempt

    def accept(self):
        """Let the oldest attempt succeed."""
        factory, attempt = self.attempts.pop(0)
        protocol = factory.buildProtocol(None)
        wire = Wire(protocol)
        self.wires.append(wire)
        protocol.makeConnection(wire)
        attempt.callback(protocol)
        return wire

    def refuse(self, error):
        """Let the oldest attempt fail."""
        self.attempts.pop(0)[1].errback(Failure(error))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def agent_with(clock, network):
    """Makes an agent on the network in memory."""

    def make(**options):
        return PooledAgent(clock, endpoint_for=lambda origin: network, **options)

    return make


def a_certificate(names, issuer=None, start=-1, end=1, authority=False):
    """A key and its certificate, signed by ``issuer`` or itself; start and end in days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "localhost")])
    now = datetime.now(UTC)
    alternatives = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start))
        .not_valid_after(now + timedelta(days=end))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(issuer.key if issuer else key, SHA256())
    pem = certificate.public_bytes(Encoding.PEM)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SimpleNamespace(key=key, certificate=certificate, pem=pem, key_pem=key_pem)


@pytest.fixture(scope="session")
def authority():
    return a_certificate(["Test authority"], authority=True)


@pytest.fixture(scope="session")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(authority.pem)
    return path


@pytest.fixture(scope="session")
def issue(authority, tmp_path_factory):
    """Makes a PEM file with key and certificate for names, by our authority or ``by`` itself."""

    def issue(*names, by=authority, **times):
        made = a_certificate(names, by, **times)
        path = tmp_path_factory.mktemp("leaf") / "leaf.pem"
        path.write_bytes(made.key_pem + made.pem)
        return path

    return issue
