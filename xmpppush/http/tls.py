"""
Whom an HTTPS client trusts: the system's store, one PEM file, or everybody.

Twisted's own ``optionsForClientTLS`` is not used: in Twisted 26.10 its verify callback takes a
certificate of a trusted authority for any host if service-identity cannot judge the names in it, because
there are none or one is malformed (it catches ``VerificationError`` alone). Here whatever goes wrong in
the check refuses the certificate, and the reason is kept for the operator.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.certificates import Credentials

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# X509_V_ERR_... of OpenSSL's x509_vfy.h; those an operator meets.
CHAIN_ERRORS = {
    9: "certificate is not valid yet: check both clocks",
    10: "certificate has expired",
    18: "self-signed certificate (set ca_file)",
    19: "self-signed certificate in the chain (set ca_file)",
    20: "certificate of an unknown authority (set ca_file)",
    21: "certificate of an unknown authority (set ca_file)",
    23: "certificate was revoked",
    26: "certificate is not one for servers",
    66: "key of the certificate is too weak",
    67: "key of the certificate's authority is too weak",
    68: "signature algorithm of the certificate is too weak",
}


class CertificateRefused(Exception):
    """The server's certificate will not do; the text says why."""


def client_tls(
    host: str,
    ca_file: Path | None,
    verify: bool,
    protocols: Sequence[bytes] = (),
    credentials: Credentials | None = None,
) -> IOpenSSLClientConnectionCreator:
    """
    TLS (1.2 and up) towards ``host``; make it once and use it for many connections.

    Args:
        ca_file: PEM file with the authorities to trust and no others; ``None``: the system's store,
            which ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` move.
        verify: ``False`` accepts any certificate of anybody.
        protocols: Offered by ALPN (RFC 7301), the best first.
        credentials: Our own, for servers that ask for a certificate.

    Raises:
        OSError: The file cannot be read.
        ValueError: There is no certificate in it.
    """
    ours: dict[str, Any] = {"acceptableProtocols": list(protocols) or None}
    if credentials is not None:
        ours["privateKey"] = credentials.key
        ours["certificate"] = credentials.certificate
        ours["extraCertChain"] = list(credentials.chain)
    if not verify:
        return _TLSClient(host, CertificateOptions(verify=False, **ours), verify=False)
    trust: Any = platformTrust() if ca_file is None else trustRootFromCertificates(certificates_in(ca_file))
    return _TLSClient(host, CertificateOptions(trustRoot=trust, **ours), verify=True)


def certificates_in(path: Path) -> list[Certificate]:
    """
    All certificates of a PEM file.

    Raises:
        OSError: It cannot be read.
        ValueError: There is none in it.
    """
    try:
        found = [Certificate.loadPEM(pem) for pem in _PEM.findall(path.read_bytes())]
    except crypto.Error as error:
        raise ValueError("a certificate in it cannot be read") from error
    if not found:
        raise ValueError("no PEM certificate in it")
    return found


@implementer(IOpenSSLClientConnectionCreator)
class _TLSClient:
    def __init__(self, host: str, options: CertificateOptions, verify: bool) -> None:
        self._host = host
        self._is_address = isIPAddress(host) or isIPv6Address(host)
        self._options = options
        self._verify = verify

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        if not self._is_address:  # RFC 6066 section 3: no addresses
            connection.set_tlsext_host_name(self._host.encode("idna"))
        if self._verify:
            mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            connection.set_verify(mode, self._judge_for(tlsProtocol))
        return connection

    def _judge_for(self, tls_protocol: Any) -> Any:
        """OpenSSL's callback, once for each certificate of the chain; what it raised would be lost."""

        def judge(_: object, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
            reason = self._objection(certificate, error, depth, bool(good))
            if reason:
                tls_protocol.failVerification(Failure(CertificateRefused(reason)))
            return not reason

        return judge

    def _objection(self, certificate: crypto.X509, error: int, depth: int, good: bool) -> str:
        """What speaks against this certificate, ``""``: nothing."""
        if not good:
            cause = CHAIN_ERRORS.get(error, f"OpenSSL error {error}")
            return f"certificate verify failed: {cause}"
        if depth:
            return ""
        try:
            leaf = certificate.to_cryptography()
            if self._is_address:
                verify_certificate_ip_address(leaf, self._host)
            else:
                verify_certificate_hostname(leaf, self._host)
        except VerificationError:
            return f"certificate is for {_names_in(leaf)}, not {self._host}"
        except CertificateError:
            return f"certificate has no readable name, so it is not for {self._host}"
        except Exception as fault:  # whatever it is, it must not pass as consent
            return f"certificate cannot be checked ({type(fault).__name__})"
        return ""


def _names_in(certificate: x509.Certificate) -> str:
    """The names in a certificate, three at the most, fit for a log."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    shown = [str(name.value)[:100] for name in names][:4]
    text = ", ".join(name if at < 3 else "..." for at, name in enumerate(shown))
    return "".join(character for character in text if character.isalnum() or character in ".,-*: ")
