"""Why a connection failed, in words that tell an operator what to do."""

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.web.client import ResponseNeverReceived

from xmpppush.errors import DeliveryError
from xmpppush.http.tls import CertificateRefused

_REASONS: dict[type[BaseException], str] = {
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
# How OpenSSL puts it, over its versions.
_NOT_TLS = ("wrong version number", "packet length too long", "unknown protocol", "record layer failure")


def explain(problem: BaseException) -> str:
    """One line about a failed connection or request, without anything that the peer made up."""
    if isinstance(problem, ResponseNeverReceived) and problem.reasons:
        return explain(problem.reasons[0].value)
    if isinstance(problem, DeliveryError | CertificateRefused):
        return str(problem)
    if isinstance(problem, SSL.Error):
        return _explain_tls(problem)
    for kind in type(problem).__mro__:
        if kind in _REASONS:
            return _REASONS[kind]
    if isinstance(problem, error.ConnectError) and problem.osError:
        return f"cannot connect (errno {problem.osError})"
    return type(problem).__name__


def _explain_tls(problem: SSL.Error) -> str:
    details = problem.args[0] if problem.args and isinstance(problem.args[0], list) else []
    text = details[-1][-1] if details else ""
    if text in _NOT_TLS:
        return "TLS handshake failed: the server does not speak TLS on this port"
    return f"TLS handshake failed: {text}" if text else "TLS handshake failed"
