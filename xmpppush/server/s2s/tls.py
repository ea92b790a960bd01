"""
TLS between servers (RFC 6120 section 13.7, XEP-0178, XEP-0368).

The handshake succeeds with any peer: it may still prove its domain by dialback (XEP-0220). What OpenSSL and
we think of its certificate is noted, and `S2STLS.refusal` tells it to the stream, which decides.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from OpenSSL import SSL, crypto
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, SRV_ID, DNSPattern, SRVPattern
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion, platformTrust, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from xmpppush.certificates import CertificateStore, Credentials
from xmpppush.http.tls import CHAIN_ERRORS, certificates_in
from xmpppush.jids import BadJid, parse_jid
from xmpppush.server.s2s.targets import a_label, is_address

T = TypeVar("T")

ALPN = b"xmpp-server"
NO_CERTIFICATE = "no certificate was sent"
MAX_NAMES = 1000  # in one certificate

ID_ON_XMPP_ADDR = ObjectIdentifier("1.3.6.1.5.5.7.8.5")  # RFC 6120 section 13.7.1.4
ID_ON_DNS_SRV = ObjectIdentifier("1.3.6.1.5.5.7.8.7")  # RFC 4985

# Our own ca_file is no remedy for what a peer has wrong.
_REASONS = {number: text.removesuffix(" (set ca_file)") for number, text in CHAIN_ERRORS.items()}
_INVALID_PURPOSE = 26


@define
class Verdict:
    """
    What OpenSSL found in the peer's chain, while it shook hands.

    Attributes:
        complete: It got to the peer's own certificate. Without that, nothing is proven, faults or not.
    """

    fault: str = ""
    complete: bool = False


@define
class _Contexts:
    """Of one domain of ours. OpenSSL takes a callback for a context, so each use has its own."""

    incoming: SSL.Context = field(repr=False)
    outgoing: SSL.Context = field(repr=False)


class JudgedConnection(SSL.Connection):
    """With room for the verdict: its app data is Twisted's."""

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self.verdict = Verdict()


class S2STLS:
    """
    Makes the TLS side of streams between servers, and judges the peers' certificates.

    Certificate files are read when this is made: before ports open.
    """

    def __init__(
        self, certificates: CertificateStore, domains: Sequence[str], ca_file: Path | None = None
    ) -> None:
        """
        Args:
            domains: Ours, not empty. Pubsub hosts and other subdomains may be left out: they have the
                certificate of the domain they belong to. The first one's is for who asks for none of them.
            ca_file: PEM file with the authorities to trust and no others; ``None``: the system's store,
                which ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` move.

        Raises:
            ConfigError: A certificate of ours cannot be used.
            OSError: ``ca_file`` cannot be read.
            ValueError: There is no certificate in it.
        """
        self._trust: Any = (
            platformTrust() if ca_file is None else trustRootFromCertificates(certificates_in(ca_file))
        )
        self._contexts = {domain: self._contexts_of(certificates.credentials(domain)) for domain in domains}
        by_name = {a_label(domain): each.incoming for domain, each in self._contexts.items()}
        self._incoming = _Incoming(by_name)

    def outgoing(self, local: str, remote: str, direct: bool) -> IOpenSSLClientConnectionCreator:
        """
        For a connection from a domain of ours to another one.

        Args:
            local: Its certificate is our client certificate.
            remote: The domain of the stream, not the host that DNS named (RFC 6120 section 13.7.2.1).
            direct: Direct TLS; STARTTLS has no need for ALPN.
        """
        return _Outgoing(_nearest(self._contexts, local).outgoing, remote, direct)

    def incoming(self) -> IOpenSSLServerConnectionCreator:
        """For connections from other servers, by STARTTLS or direct TLS; the same one each time."""
        return self._incoming

    def refusal(self, transport: Any, domain: str) -> str:
        """
        Why the peer's certificate does not prove that it speaks for ``domain``; ``""``: it does.

        Args:
            transport: Of the stream, after the handshake.
            domain: Prepared.
        """
        connection = transport.getHandle()
        if not isinstance(connection, JudgedConnection):
            return "there is no TLS"
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return NO_CERTIFICATE
        verdict = connection.verdict
        if not (verdict.complete or verdict.fault):
            return "certificate was not checked"
        return verdict.fault or name_fault(certificate, domain)

    def _contexts_of(self, credentials: Credentials) -> _Contexts:
        return _Contexts(
            incoming=self._context(credentials, _note_client),
            outgoing=self._context(credentials, _note_server),
        )

    def _context(self, credentials: Credentials, note: Any) -> SSL.Context:
        # Twisted's types still name pyOpenSSL's own classes, which pyOpenSSL warns about by now.
        options = CertificateOptions(
            privateKey=credentials.key,  # type: ignore[arg-type]
            certificate=credentials.certificate,  # type: ignore[arg-type]
            extraCertChain=list(credentials.chain),  # type: ignore[arg-type]
            raiseMinimumTo=TLSVersion.TLSv1_2,
            trustRoot=self._trust,
        )
        context = options.getContext()
        context.set_verify(SSL.VERIFY_PEER, note)
        # A certificate is judged in a full handshake only, and a second one inside a connection might bring
        # another certificate.
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        context.set_alpn_select_callback(_choose_protocol)
        return context


def _note_server(
    connection: JudgedConnection, _certificate: crypto.X509, error: int, depth: int, good: int
) -> bool:
    """OpenSSL's callback, for each certificate from the root down, and for each fault besides."""
    return _note(connection, 0 if good else error, good and depth == 0)


def _note_client(
    connection: JudgedConnection, certificate: crypto.X509, error: int, depth: int, good: int
) -> bool:
    # Public authorities issue for servers only by now, and to their peers all servers are clients, too.
    if error == _INVALID_PURPOSE and not good and _is_for_servers(certificate):
        return True
    return _note(connection, 0 if good else error, good and depth == 0)


def _note(connection: JudgedConnection, error: int, complete: bool | int) -> bool:
    """Let it pass: pyOpenSSL forgets the error of whom we let pass, so it is kept here."""
    verdict = connection.verdict
    if error and not verdict.fault:
        verdict.fault = _REASONS.get(error, f"certificate is refused by OpenSSL (error {error})")
    verdict.complete = verdict.complete or bool(complete)
    return True


@implementer(IOpenSSLClientConnectionCreator)
class _Outgoing:
    def __init__(self, context: SSL.Context, remote: str, direct: bool) -> None:
        self._context = context
        self._direct = direct
        self._name = "" if is_address(remote) else a_label(remote)

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = JudgedConnection(self._context)
        if self._direct:
            connection.set_alpn_protos([ALPN])
        if self._name:  # RFC 6066 section 3: no addresses
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection


@implementer(IOpenSSLServerConnectionCreator)
class _Incoming:
    """Picks the certificate by the name in the peer's hello."""

    def __init__(self, contexts: Mapping[str, SSL.Context]) -> None:
        self._contexts = contexts
        self._first = next(iter(contexts.values()))
        self._first.set_tlsext_servername_callback(self._choose)

    def _choose(self, connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        context = _nearest(self._contexts, name)
        if context is not self._first:
            connection.set_context(context)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return JudgedConnection(self._first)


def _nearest(known: Mapping[str, T], name: str) -> T:
    """Of this domain, of the nearest one above it, or the first."""
    while name:
        if name in known:
            return known[name]
        name = name.partition(".")[2]
    return next(iter(known.values()))


def _choose_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    """Who offers others alone gets none, and a stream all the same."""
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def name_fault(certificate: x509.Certificate, domain: str) -> str:
    """
    Why a certificate does not name an XMPP domain (RFC 6120 section 13.7.1.2), ``""``: it does.

    A DNS-ID counts, also with a wildcard as its whole left-most label; an SRV-ID ``_xmpp-server.DOMAIN``; an
    ``id-on-xmppAddr``. A common name does not (RFC 9525 section 2).
    """
    wanted = a_label(domain)
    if not wanted:
        return f"no certificate can be for {_shown(domain)}"
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return f"certificate has no subject alternative name, so it is not for {domain}"
    except ValueError:
        return "certificate has extensions that cannot be read"
    some = list(names)[:MAX_NAMES]
    if any(_means(name, wanted) for name in some):
        return ""
    texts = [text for name in some[:4] for text in _texts(name)]
    shown = ", ".join(_shown(text) for text in texts[:3]) + (", ..." if len(some) > 3 else "")
    return f"certificate is for {shown or 'nobody'}, not {domain}"


def _means(name: x509.GeneralName, wanted: str) -> bool:
    """Does this one name mean the domain (A-labels)? One that cannot be read does not."""
    try:
        if isinstance(name, x509.IPAddress):
            return is_address(wanted) and name.value == ip_address(wanted.strip("[]"))
        if is_address(wanted):
            return False
        if isinstance(name, x509.DNSName):
            return bool(DNS_ID(wanted).verify(DNSPattern.from_bytes(name.value.encode("ascii"))))
        if isinstance(name, x509.OtherName) and name.type_id == ID_ON_DNS_SRV:
            # It refuses wildcards here, as RFC 4985 section 2 has it.
            pattern = SRVPattern.from_bytes(_srv_name(name).encode("ascii"))
            return bool(SRV_ID(f"_xmpp-server.{wanted}").verify(pattern))
        if isinstance(name, x509.OtherName) and name.type_id == ID_ON_XMPP_ADDR:
            jid = parse_jid(_xmpp_addr(name))
            return not jid.user and not jid.resource and a_label(jid.host) == wanted
    except (CertificateError, BadJid, ValueError, IndexError):
        pass
    return False


def _srv_name(name: x509.OtherName) -> str:
    return asn1.decode_der(asn1.IA5String, name.value).as_str()


def _xmpp_addr(name: x509.OtherName) -> str:
    return asn1.decode_der(str, name.value)


def _texts(name: x509.GeneralName) -> Iterator[str]:
    if isinstance(name, x509.DNSName | x509.IPAddress):
        yield str(name.value)
    elif isinstance(name, x509.OtherName):
        try:
            if name.type_id == ID_ON_DNS_SRV:
                yield _srv_name(name)
            elif name.type_id == ID_ON_XMPP_ADDR:
                yield _xmpp_addr(name)
        except ValueError:
            pass


def _shown(text: str) -> str:
    """A stranger's words, fit for a log."""
    return "".join(each for each in text[:100] if each.isalnum() or each in ".,-_*:@")


def _is_for_servers(certificate: crypto.X509) -> bool:
    try:
        usages = certificate.to_cryptography().extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in usages.value
