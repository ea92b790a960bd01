"""TLS between servers: handshakes in memory, and what is thought of the peer's certificate afterwards."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from xmpppush.certificates import CertificateStore, Credentials, make_authority
from xmpppush.config.sections import TLSSection
from xmpppush.server.s2s.tls import ID_ON_DNS_SRV, ID_ON_XMPP_ADDR, NO_CERTIFICATE, S2STLS, name_fault

NOW = datetime.now(UTC)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def dns(name):
    return x509.DNSName(name)


def srv(name):
    return x509.OtherName(ID_ON_DNS_SRV, asn1.encode_der(asn1.IA5String(name)))


def xmpp_addr(name):
    return x509.OtherName(ID_ON_XMPP_ADDR, asn1.encode_der(name))


def certificate_for(
    names,
    authority=None,
    begin=NOW - timedelta(days=1),
    end=NOW + timedelta(days=30),
    usages=BOTH,
    common="",
    signs=False,
):
    """Any certificate one can think of; without an authority it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common or "a test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(authority.certificate.subject if authority else own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Credentials(key, builder.sign(authority.key if authority else key, SHA256()))


def pem_of(credentials):
    key = credentials.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + b"".join(
        each.public_bytes(Encoding.PEM) for each in (credentials.certificate, *credentials.chain)
    )


@pytest.fixture(scope="module")
def authority():
    return make_authority(NOW - timedelta(days=2))


@pytest.fixture
def server(tmp_path, authority):
    """Makes an `S2STLS` with these domains and certificates, which trusts the test's authority."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.certificate.public_bytes(Encoding.PEM))

    def make(**of_domains):
        sections = {}
        for domain, credentials in of_domains.items():
            path = tmp_path / f"{domain}.pem"
            path.write_bytes(pem_of(credentials))
            sections[f"{domain}.example"] = TLSSection(path, path)
        # An hour ago everything was valid, and expired ones are what some tests are about.
        clock = Clock()
        clock.advance(min(each.expires for each in of_domains.values()).timestamp() - 3600)
        store = CertificateStore(tmp_path / "data", tls_domains=sections, clock=clock)
        return S2STLS(store, list(sections), ca_file)

    return make


class Said(Protocol):
    data = b""

    def dataReceived(self, data):
        self.data += data


def connect(client_side, server_side):
    """A handshake in memory; returns both ends, which behave like transports."""
    clock = Clock()  # small writes wait for its next turn
    ends = [
        TLSMemoryBIOFactory(server_side, False, Factory.forProtocol(Said), clock).buildProtocol(None),
        TLSMemoryBIOFactory(client_side, True, Factory.forProtocol(Said), clock).buildProtocol(None),
    ]
    wires = [StringTransport(), StringTransport()]
    for end, wire in zip(ends, wires, strict=True):
        end.makeConnection(wire)
    ends[0].write(b"from the server")
    ends[1].write(b"from the client")
    for _ in range(10):
        clock.advance(0)
        for end, wire in zip(reversed(ends), wires, strict=True):
            data = wire.value()
            wire.clear()
            if data:
                end.dataReceived(data)
    incoming, outgoing = ends
    assert incoming.wrappedProtocol.data == b"from the client"
    assert outgoing.wrappedProtocol.data == b"from the server"
    return outgoing, incoming


def between(ours, theirs, local="ours.example", remote="theirs.example", direct=False):
    return connect(ours.outgoing(local, remote, direct), theirs.incoming())


@pytest.fixture
def good(server, authority):
    """The side that is not on trial."""
    return server(ours=certificate_for([dns("ours.example")], authority))


def test_two_servers_prove_themselves(server, authority, good):
    """With certificates of a known authority both know whom they talk to, and that it is nobody else."""
    theirs = server(theirs=certificate_for([dns("theirs.example")], authority))
    outgoing, incoming = between(good, theirs)
    assert good.refusal(outgoing, "theirs.example") == ""
    assert theirs.refusal(incoming, "ours.example") == ""
    assert good.refusal(outgoing, "other.example") == "certificate is for theirs.example, not other.example"
    assert theirs.refusal(incoming, "theirs.example") == "certificate is for ours.example, not theirs.example"


TRIALS = {
    "expired": (
        {"begin": NOW - timedelta(days=2), "end": NOW - timedelta(hours=2)},
        "certificate has expired",
    ),
    "not yet": (
        {"begin": NOW + timedelta(days=2), "end": NOW + timedelta(days=3)},
        "certificate is not valid yet: check both clocks",
    ),
    "self-signed": ({"authority": None}, "self-signed certificate"),
    "unknown issuer": (
        {"authority": make_authority(NOW - timedelta(days=2))},
        "certificate of an unknown authority",
    ),
}


@pytest.mark.parametrize(("faults", "reason"), TRIALS.values(), ids=TRIALS)
def test_a_chain_that_proves_nothing(server, authority, good, faults, reason):
    """The handshake goes through in both roles, and the reason is told."""
    theirs = server(theirs=certificate_for([dns("theirs.example")], **{"authority": authority, **faults}))
    outgoing, _ = between(good, theirs)
    assert good.refusal(outgoing, "theirs.example") == reason
    _, incoming = between(theirs, good, "theirs.example", "ours.example")
    assert good.refusal(incoming, "theirs.example") == reason


def test_usages(server, authority, good):
    """
    A certificate for servers is one for their clients' side, too.

    Let's Encrypt issues no others. One for clients only does not make a server.
    """
    theirs = server(
        theirs=certificate_for([dns("theirs.example")], authority, usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    )
    _, incoming = between(theirs, good, "theirs.example", "ours.example")
    assert good.refusal(incoming, "theirs.example") == ""
    expired = server(
        theirs=certificate_for(
            [dns("theirs.example")],
            authority,
            end=NOW - timedelta(hours=2),
            usages=(ExtendedKeyUsageOID.SERVER_AUTH,),
        )
    )
    _, incoming = between(expired, good, "theirs.example", "ours.example")
    assert good.refusal(incoming, "theirs.example") == "certificate has expired"
    for usage in (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING):
        theirs = server(theirs=certificate_for([dns("theirs.example")], authority, usages=(usage,)))
        outgoing, _ = between(good, theirs)
        assert good.refusal(outgoing, "theirs.example") == "certificate is not one for servers"
    _, incoming = between(theirs, good, "theirs.example", "ours.example")
    assert good.refusal(incoming, "theirs.example") == "certificate is not one for servers"


def test_an_authority_for_servers_alone_will_do(server, tmp_path):
    """Public authorities' own certificates name a usage, too, and it is not that of clients."""
    root = certificate_for([], common="root", signs=True, usages=())
    between_them = certificate_for(
        [], root, common="between", signs=True, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)
    )
    (tmp_path / "ca.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    made = certificate_for([dns("theirs.example")], between_them, usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    theirs = server(theirs=Credentials(made.key, made.certificate, (between_them.certificate,)))
    _, incoming = between(theirs, theirs, "theirs.example", "theirs.example")
    assert theirs.refusal(incoming, "theirs.example") == ""


def test_a_server_certificate_signs_no_others(server, authority, good):
    """Whoever has a certificate of the authority cannot make one for somebody else."""
    evil = certificate_for([dns("evil.example")], authority)
    made = certificate_for([dns("theirs.example")], evil)
    theirs = server(theirs=Credentials(made.key, made.certificate, (evil.certificate,)))
    outgoing, _ = between(good, theirs)
    assert good.refusal(outgoing, "theirs.example") != ""
    _, incoming = between(theirs, good, "theirs.example", "ours.example")
    assert good.refusal(incoming, "theirs.example") != ""


def test_a_peer_without_a_certificate(good):
    """Most clients of TLS have none; dialback may do."""
    _, incoming = connect(CertificateOptions(verify=False), good.incoming())
    assert good.refusal(incoming, "theirs.example") == NO_CERTIFICATE


def test_without_tls_nothing_is_proven(good):
    """A plain socket, or whatever a transport has for a handle."""

    class Plain:
        def getHandle(self):
            return object()

    assert good.refusal(Plain(), "theirs.example") == "there is no TLS"


def test_a_chain_that_was_not_looked_at_proves_nothing(server, authority, good):
    """As after a resumption, which we never offer: silence of OpenSSL is no consent."""
    theirs = server(theirs=certificate_for([dns("theirs.example")], authority))
    outgoing, _ = between(good, theirs)
    outgoing.getHandle().verdict.complete = False
    assert good.refusal(outgoing, "theirs.example") == "certificate was not checked"


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
def test_sessions_are_not_resumed(good, authority, version):
    """Each connection shows its certificate again, so a verdict is never of another connection."""
    theirs = certificate_for([dns("theirs.example")], authority)
    options = CertificateOptions(
        verify=False,
        privateKey=theirs.key,
        certificate=theirs.certificate,
        insecurelyLowerMinimumTo=version,
        lowerMaximumSecurityTo=version,
    )
    first, incoming = connect(options, good.incoming())
    assert good.refusal(incoming, "theirs.example") == ""
    session = first.getHandle().get_session()

    class Resuming:
        def clientConnectionForTLS(self, protocol):
            connection = options.clientConnectionForTLS(protocol)
            if session is not None:
                connection.set_session(session)
            return connection

    connection_maker = Resuming()
    directlyProvides(connection_maker, IOpenSSLClientConnectionCreator)
    _, incoming = connect(connection_maker, good.incoming())
    assert good.refusal(incoming, "theirs.example") == ""


def test_tls_1_1_is_refused(good):
    """Nothing below TLS 1.2 is spoken."""
    old = CertificateOptions(
        verify=False, insecurelyLowerMinimumTo=TLSVersion.TLSv1_0, lowerMaximumSecurityTo=TLSVersion.TLSv1_1
    )
    with pytest.raises(AssertionError):
        connect(old, good.incoming())


WILD = "certificate is for *.theirs.example, not theirs.example"
NAMES = [
    ([dns("THEIRS.example")], "theirs.example", ""),
    ([dns("www.theirs.example"), dns("theirs.example")], "theirs.example", ""),
    ([dns("*.theirs.example")], "chat.theirs.example", ""),
    ([dns("*.theirs.example")], "theirs.example", WILD),
    (
        [dns("*.theirs.example")],
        "a.chat.theirs.example",
        "certificate is for *.theirs.example, not a.chat.theirs.example",
    ),
    (
        [dns("ch*.theirs.example")],
        "chat.theirs.example",
        "certificate is for ch*.theirs.example, not chat.theirs.example",
    ),
    (
        [dns("chat.*.example")],
        "chat.theirs.example",
        "certificate is for chat.*.example, not chat.theirs.example",
    ),
    ([dns("*.example")], "theirs.example", "certificate is for *.example, not theirs.example"),
    ([dns("*")], "example", "certificate is for *, not example"),
    # One strange name hides no good one.
    ([dns("*"), dns("theirs.example")], "theirs.example", ""),
    ([x509.UniformResourceIdentifier("http://a:b@c:1/"), dns("theirs.example")], "theirs.example", ""),
    ([dns("xn--bcher-kva.example")], "bücher.example", ""),
    ([dns("*.example.com")], "xn--bcher-kva.example.com", "*.example.com, not xn--"),
    ([srv("_xmpp-server.theirs.example")], "theirs.example", ""),
    ([srv("_xmpp-client.theirs.example")], "theirs.example", "for _xmpp-client.theirs.example, not theirs"),
    ([srv("_xmpp-server.*.example")], "theirs.example", "for _xmpp-server.*.example, not theirs.example"),
    ([srv("nonsense")], "theirs.example", "certificate is for nonsense, not theirs.example"),
    ([srv("")], "theirs.example", "certificate is for nobody, not theirs.example"),
    ([xmpp_addr("theirs.example")], "theirs.example", ""),
    ([xmpp_addr("bücher.example")], "bücher.example", ""),
    ([xmpp_addr("user@theirs.example")], "theirs.example", "for user@theirs.example, not theirs.example"),
    ([xmpp_addr("theirs.example/x")], "theirs.example", "not theirs.example"),
    ([xmpp_addr("@")], "theirs.example", "not theirs.example"),
    ([x509.OtherName(ID_ON_XMPP_ADDR, b"\x0c\x01\xff")], "theirs.example", "nobody, not theirs.example"),
    ([x509.OtherName(ID_ON_XMPP_ADDR, b"\x16\x01a")], "a", "nobody, not a"),
    ([x509.OtherName(ID_ON_DNS_SRV, b"\x16\x01\xff")], "theirs.example", "nobody, not theirs.example"),
    ([x509.RFC822Name("theirs.example")], "theirs.example", "nobody, not theirs.example"),
    ([], "theirs.example", "certificate has no subject alternative name, so it is not for theirs.example"),
    ([x509.IPAddress(ip_address("127.0.0.1"))], "127.0.0.1", ""),
    ([x509.IPAddress(ip_address("::1"))], "[::1]", ""),
    ([dns("127.0.0.1")], "127.0.0.1", "certificate is for 127.0.0.1, not 127.0.0.1"),
    ([dns(f"{'a' * 60}.{number}.example") for number in range(5)], "theirs.example", "..., not theirs"),
    ([dns("evil\n2026 [s2s] all is well.example")], "theirs.example", "evil2026s2salliswell.example, not"),
]


@pytest.mark.parametrize(("names", "domain", "reason"), NAMES)
def test_names(server, authority, good, names, domain, reason):
    """RFC 6120 section 13.7.1.2, by a table; the common name never counts."""
    theirs = server(theirs=certificate_for(names, authority, common="theirs.example"))
    outgoing, _ = between(good, theirs)
    refusal = good.refusal(outgoing, domain)
    assert (reason in refusal) if reason else refusal == ""
    assert "\n" not in refusal


def san_of(name):
    value = x509.SubjectAlternativeName([name])
    return x509.Extension(value.oid, False, value)


ASCII = st.text(st.characters(max_codepoint=127), max_size=40)


@given(
    st.one_of(
        st.builds(x509.OtherName, st.sampled_from([ID_ON_DNS_SRV, ID_ON_XMPP_ADDR]), st.binary(max_size=60)),
        ASCII.map(srv),
        st.text(max_size=40).map(xmpp_addr),
        ASCII.map(x509.DNSName),
        ASCII.map(x509.UniformResourceIdentifier),
    ),
    st.sampled_from(["theirs.example", "bücher.example", "127.0.0.1", "a..b", ""]),
)
def test_any_name_is_read(name, domain):
    """A stranger's certificate raises nothing, and does not mean us by accident."""
    certificate = SimpleNamespace(extensions=x509.Extensions([san_of(name)]))
    assert name_fault(certificate, domain)


def test_names_that_cannot_be_domains(server, authority, good):
    """A domain that DNS cannot have is nobody's."""
    theirs = server(theirs=certificate_for([dns("theirs.example")], authority))
    outgoing, _ = between(good, theirs)
    assert good.refusal(outgoing, "a..b") == "no certificate can be for a..b"


def test_the_certificate_by_name(server, authority):
    """The peer names the domain it wants; else, or for one that is not ours, it gets the first one's."""
    both = server(
        first=certificate_for([dns("first.example")], authority),
        second=certificate_for([dns("second.example")], authority),
    )
    for wanted, got in (
        ("second.example", "second.example"),
        ("SECOND.example", "second.example"),
        ("first.example", "first.example"),
        ("pubsub.second.example", "second.example"),
        ("unknown.example", "first.example"),
        ("127.0.0.1", "first.example"),
    ):
        outgoing, incoming = between(both, both, "second.example", wanted)
        assert both.refusal(outgoing, got) == ""
        # The context that SNI chose asks for a certificate and judges it as well.
        assert both.refusal(incoming, "second.example") == ""


def test_the_client_certificate_is_that_of_the_domain(server, authority):
    """A pubsub host shows that of the domain it belongs to, a stranger the first one's."""
    both = server(
        first=certificate_for([dns("first.example")], authority),
        second=certificate_for([dns("second.example"), dns("*.second.example")], authority),
    )
    for local, shown in (
        ("second.example", "second.example"),
        ("pubsub.second.example", "pubsub.second.example"),
        ("elsewhere", "first.example"),
    ):
        _, incoming = between(both, both, local, "first.example")
        assert both.refusal(incoming, shown) == ""


def test_the_peers_names_are_sent(good):
    """SNI is the domain as an A-label, not an address (XEP-0368, RFC 6066); ALPN belongs to direct TLS."""
    for remote, name in (("bücher.example", b"xn--bcher-kva.example"), ("127.0.0.1", None), ("[::1]", None)):
        _, incoming = between(good, good, remote=remote)
        assert incoming.getHandle().get_servername() == name
        assert incoming.getHandle().get_alpn_proto_negotiated() == b""
    outgoing, incoming = between(good, good, direct=True)
    assert outgoing.getHandle().get_alpn_proto_negotiated() == b"xmpp-server"
    assert incoming.getHandle().get_alpn_proto_negotiated() == b"xmpp-server"


def test_other_protocols_are_no_fault(good):
    """Who offers h2 alone gets no protocol, and a handshake."""
    _, incoming = connect(CertificateOptions(verify=False, acceptableProtocols=[b"h2"]), good.incoming())
    assert incoming.getHandle().get_alpn_proto_negotiated() == b""


def test_contracts(good):
    """Both sides provide what Twisted's TLS asks for."""
    verifyObject(IOpenSSLClientConnectionCreator, good.outgoing("ours.example", "theirs.example", True))
    verifyObject(IOpenSSLServerConnectionCreator, good.incoming())


def test_no_renegotiation(good):
    """A later handshake in the same connection could bring another certificate."""
    _, incoming = between(good, good)
    options = SSL._lib.SSL_CTX_get_options(incoming.getHandle().get_context()._context)
    assert options & SSL.OP_NO_RENEGOTIATION
    assert options & SSL.OP_NO_TICKET
