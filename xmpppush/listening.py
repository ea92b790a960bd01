"""
Listening on Twisted endpoint strings, with TLS from our own certificates.

Twisted's ``ssl:`` wants its key in a file at parsing time. Ours may be generated, or chosen by the name
that a client asks for, so ``ssl:`` is read here as "TCP, and the caller wraps it in TLS".
"""

import re

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IStreamServerEndpoint

_SSL = re.compile(r"((?:haproxy:)?)ssl:")


def parse_server_endpoint(reactor: object, text: str) -> tuple[IStreamServerEndpoint, bool]:
    """
    The endpoint that ``text`` describes, and whether the connections on it begin with TLS.

    Where the second is true the caller wraps its factory: ``TLSMemoryBIOFactory(options, False, factory)``.
    ``haproxy:ssl:...`` reads the PROXY header in clear, before TLS, which is the order HAProxy sends it in.

    Raises:
        ValueError: No such endpoint type, or arguments that it does not take.
    """
    plain, wants_tls = _SSL.subn(r"\1tcp:", text, count=1) if _SSL.match(text) else (text, 0)
    try:
        return serverFromString(reactor, plain), bool(wants_tls)
    except TypeError as error:
        # Twisted passes arguments on as keywords: an unknown one, or a missing port, is a TypeError.
        raise ValueError(_arguments_problem(text)) from error


def explain_listen_error(text: str, error: Exception) -> str:
    """Why nothing can listen on the endpoint ``text``, in words that need no traceback."""
    if isinstance(error, CannotListenError):
        problem = error.socketError
        reason = getattr(problem, "strerror", None) or str(problem)
        return f"cannot listen on {text}: {reason[:1].lower()}{reason[1:]}"
    return f"cannot listen on {text}: {error}"


def written(address: IAddress) -> str:
    """An address that is listened on, as in a URL; the path of a unix socket."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, UNIXAddress) and address.name:
        return address.name.decode("utf-8", "replace")
    return str(address)


def _arguments_problem(text: str) -> str:
    if _SSL.match(text) and re.search(r":(privateKey|certKey|extraCertChain|sslmethod|dhParameters)=", text):
        return f"{text!r}: certificates are set with certfile and keyfile, not in the endpoint"
    return f"{text!r} is no server endpoint: an argument is missing or unknown"
