"""Whom an HTTPS client trusts: the system's store, one PEM file, or everybody."""

import re
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from zope.interface import implementer

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def client_tls(host: str, ca_file: Path | None, verify: bool) -> IOpenSSLClientConnectionCreator:
    """
    TLS towards ``host``; make it once and use it for many connections.

    Args:
        ca_file: PEM file with the authorities to trust and no others; ``None``: the system's store,
            which ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` move.
        verify: ``False`` accepts any certificate of anybody.

    Raises:
        OSError: The file cannot be read.
        ValueError: There is no certificate in it.
    """
    if not verify:
        return _Unverified(host)
    if ca_file is None:
        return optionsForClientTLS(host)
    try:
        roots = [Certificate.loadPEM(pem) for pem in _PEM.findall(ca_file.read_bytes())]
    except SSL.Error as error:
        raise ValueError("a certificate in it cannot be read") from error
    if not roots:
        raise ValueError("no PEM certificate in it")
    return optionsForClientTLS(host, trustRoot=trustRootFromCertificates(roots))


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """``verify = no``: encrypted, towards whoever answers."""

    def __init__(self, host: str) -> None:
        self._options = CertificateOptions(verify=False)
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._server_name = None if is_address else host.encode("idna")  # RFC 6066 section 3

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        return connection
