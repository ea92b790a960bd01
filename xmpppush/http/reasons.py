"""Why a connection failed, in words that tell an operator what to do."""

from typing import Any

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.web.client import ResponseNeverReceived

from xmpppush.errors import DeliveryError

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
    66: "certificate's key is too small",
    67: "certificate authority's key is too small",
    68: "certificate's signature algorithm is too weak",
}

_PLAIN = {
    error.ConnectionRefusedError: "connection refused",
    error.DNSLookupError: "host name not found",
    error.UnknownHostError: "host name not found",
    error.NoRouteError: "no route to host",
    error.TCPTimedOutError: "timed out connecting",
    error.TimeoutError: "timed out connecting",
    error.ConnectionDone: "connection closed without an answer",
    error.ConnectionLost: "connection lost",
    error.ConnectionAborted: "connection lost",
    CancelledError: "cancelled",
}


def explain(problem: BaseException, host: str, tls: Any = None) -> str:
    """
    One line about a failed connection or request, without anything that the peer made up.

    Args:
        host: The name that we asked for.
        tls: The pyOpenSSL connection, if it got that far.
    """
    if isinstance(problem, ResponseNeverReceived) and problem.reasons:
        return explain(problem.reasons[0].value, host, tls)
    if isinstance(problem, DeliveryError):
        return str(problem)
    if isinstance(problem, VerificationError | CertificateError):
        names = _names_of(tls)
        return f"certificate is for {names}, not {host}" if names else f"certificate is not for {host}"
    if isinstance(problem, SSL.Error):
        return _explain_tls(problem, tls)
    for kind in type(problem).__mro__:
        if kind in _PLAIN:
            return _PLAIN[kind]
    if isinstance(problem, error.ConnectError):
        return "cannot connect" + (f" (errno {problem.osError})" if problem.osError else "")
    return type(problem).__name__


def _explain_tls(problem: SSL.Error, tls: Any) -> str:
    details = problem.args[0] if problem.args and isinstance(problem.args[0], list) else []
    text = details[-1][-1] if details else ""
    if "certificate verify failed" in text:
        cause = CHAIN_ERRORS.get(_verify_result(tls))
        return f"certificate verify failed: {cause}" if cause else "certificate verify failed"
    if text in ("wrong version number", "packet length too long", "unknown protocol", "record layer failure"):
        return "TLS handshake failed: the server does not speak TLS on this port"
    return f"TLS handshake failed: {text}" if text else "TLS handshake failed"


def _verify_result(tls: Any) -> int:
    """OpenSSL's verdict on the chain; pyOpenSSL has no public name for it, so 0 where that moved."""
    try:
        return int(SSL._lib.SSL_get_verify_result(tls._ssl))
    except (AttributeError, TypeError):
        return 0


def _names_of(tls: Any) -> str:
    """The names in the peer's certificate, three at the most, ``""`` where it is not to be had."""
    from cryptography import x509

    try:
        certificate = tls.get_peer_certificate() or tls.get_peer_cert_chain()[0]
        names = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found = [str(name.value) for name in names.value]
    except (AttributeError, TypeError, IndexError, ValueError, SSL.Error, x509.ExtensionNotFound):
        return ""
    shown = ["".join(c for c in name[:100] if c.isalnum() or c in ".-*:") for name in found[:3]]
    return ", ".join(shown) + (", ..." if len(found) > 3 else "")
