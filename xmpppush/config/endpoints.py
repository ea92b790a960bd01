"""
Twisted endpoint strings, checked without a reactor and without opening anything.

Twisted itself finds a mistake only when it makes the endpoint: with a reactor, with the certificate files
read and, for ``systemd:``, only below systemd. `check-config` has none of these.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import _parse, quoteStringArgument
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins

from xmpppush.config.values import BadValue, check_readable, is_host, line, port, suggestion, whole

# The parameters by position, as twisted.internet.endpoints names them; '*' marks those that must be there.
# A server's ssl: is our own (`listening`): tcp: with TLS at once, and the certificates of the configuration.
_SERVERS: Mapping[str, tuple[str, ...]] = {
    "tcp": ("port*", "interface", "backlog"),
    "tcp6": ("port*", "backlog", "interface"),
    "ssl": ("port*", "interface", "backlog"),
    "unix": ("address*", "mode", "backlog", "lockfile"),
    "systemd": ("domain*", "index", "name"),
}
_CLIENTS: Mapping[str, tuple[str, ...]] = {
    "tcp": ("host*", "port*", "timeout", "bindAddress"),
    "tls": (
        "host*",
        "port*",
        "timeout",
        "bindAddress",
        "certificate",
        "privateKey",
        "trustRoots",
        "endpoint",
    ),
    "ssl": ("host*", "port*", "privateKey", "certKey", "caCertsDir", "timeout", "bindAddress", "hostname"),
    "unix": ("path*", "timeout", "lockfile", "checkPID"),
}
_FILES = ("privateKey", "certKey", "certificate")
_PATHS = ("address", "path", "trustRoots", "caCertsDir", *_FILES)
_OWN_CERTIFICATES = "names certificates, which are set with certfile and keyfile: use ssl:PORT alone"


@frozen
class Endpoint:
    """
    An endpoint string, taken apart.

    Attributes:
        kind: ``tcp``, ``ssl``, ..., of the innermost endpoint where ``haproxy:`` wraps one.
        parameters: By the names that Twisted gives them; paths are absolute.
        wrappers: ``haproxy:`` or nothing.
        required: The names of the parameters that are given by position.
        arguments: All by position of a kind that only a plugin of Twisted's knows.
    """

    kind: str
    parameters: Mapping[str, str] = field(factory=dict)
    wrappers: str = ""
    required: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    @property
    def port(self) -> int | None:
        """The TCP port, ``None`` for endpoints that have none of their own."""
        return int(self.parameters["port"]) if "port" in self.parameters else None

    @property
    def interface(self) -> str:
        return self.parameters.get("interface", "::" if self.kind == "tcp6" else "")

    @property
    def has_tls(self) -> bool:
        """Whether the endpoint's kind says that TLS comes first on every connection."""
        return self.kind == "ssl"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return (
            self.kind == "unix" or self.interface.startswith("127.") or self.interface in ("::1", "localhost")
        )

    def clashes_with(self, other: "Endpoint") -> bool:
        """Whether the second of the two could not listen (port 0 is any free one)."""
        if self.kind == "unix" and other.kind == "unix":
            return self.parameters["address"] == other.parameters["address"]
        if not self.port or self.port != other.port:
            return False
        mine, theirs = self.interface, other.interface
        if isIPv6Address(mine) != isIPv6Address(theirs):
            # Twisted leaves IPV6_V6ONLY to the system, and Linux lets "::" take IPv4 as well.
            return "::" in (mine, theirs)
        return mine == theirs or bool({mine, theirs} & {"", "0.0.0.0", "::"})  # noqa: S104

    def __str__(self) -> str:
        by_position = (*self.arguments, *(self.parameters[name] for name in self.required))
        words = [self.kind, *map(quoteStringArgument, by_position)]
        for key, value in self.parameters.items():
            if key not in self.required:
                words.append(f"{key}={quoteStringArgument(value)}")
        return self.wrappers + ":".join(words)


def parse_server_endpoint(text: str, folder: Path) -> Endpoint:
    """
    Take a server endpoint string apart.

    Args:
        folder: Where relative paths begin.

    Raises:
        BadValue: Twisted could not listen on it, as far as that can be told without trying.
    """
    if text.startswith("haproxy:"):
        inner = parse_server_endpoint(text.removeprefix("haproxy:"), folder)
        if inner.wrappers:
            raise BadValue("wraps haproxy: twice")
        return evolve(inner, wrappers="haproxy:")
    if text.startswith("tls:") or re.match(r"ssl:.*(privateKey|certKey|extraCertChain|dhParameters)=", text):
        raise BadValue(_OWN_CERTIFICATES)
    return _parse_endpoint(text, folder, _SERVERS, IStreamServerEndpointStringParser, ("haproxy",))


def parse_client_endpoint(text: str, folder: Path) -> Endpoint:
    """As `parse_server_endpoint`, for the other direction."""
    return _parse_endpoint(text, folder, _CLIENTS, IStreamClientEndpointStringParserWithReactor, ())


def moved(endpoint: Endpoint, part: str, value: str) -> Endpoint:
    """The endpoint with another ``port`` or ``interface``; raises `BadValue` where it has none."""
    if endpoint.port is None:
        raise BadValue(f"has no {part} to change")
    parameters = {**endpoint.parameters, part: value}
    _check_parameters(parameters)
    return evolve(endpoint, parameters=parameters)


def _parse_endpoint(
    text: str,
    folder: Path,
    kinds: Mapping[str, tuple[str, ...]],
    plugins: Any,
    more: Iterable[str],
) -> Endpoint:
    try:
        (kind, *arguments), keywords = _parse(line(text))
    except BadValue:
        raise
    except (ValueError, RuntimeError):  # a final backslash, or '=' where the kind should be
        raise BadValue("is no endpoint such as tcp:5222:interface=127.0.0.1") from None
    names = kinds.get(kind)
    if names is None:
        if kind.lower() in {plugin.prefix.lower() for plugin in getPlugins(plugins)}:
            return Endpoint(kind, keywords, arguments=tuple(arguments))  # somebody else's: Twisted will tell
        known = [*kinds, *more]
        hint = suggestion(kind, known, "'{}:'")
        raise BadValue(f"begins with no known endpoint type ({', '.join(known)}){hint}")
    parameters = _bind(kind, names, arguments, keywords)
    _check_parameters(parameters)
    for key in _PATHS:
        if key in parameters:
            parameters[key] = str(folder / parameters[key])
            if key in _FILES:
                _check_file(key, Path(parameters[key]))
    return Endpoint(kind, parameters, required=tuple(name[:-1] for name in names if name.endswith("*")))


def _bind(
    kind: str, names: tuple[str, ...], arguments: list[str], keywords: Mapping[str, str]
) -> dict[str, str]:
    plain = [name.rstrip("*") for name in names]
    if len(arguments) > len(plain):
        raise BadValue(f"has too many parts for {kind}: (a ':' within a part is written '\\:')")
    parameters = dict(zip(plain, arguments, strict=False))
    for key, value in keywords.items():
        if key not in plain:
            raise BadValue(f"has the part {key!r}, which {kind}: does not know{suggestion(key, plain)}")
        if key in parameters:
            raise BadValue(f"gives {key} twice (a ':' within a part is written '\\:')")
        parameters[key] = value
    for name in names:
        if name.endswith("*") and not parameters.get(name.rstrip("*")):
            raise BadValue(f"lacks its {name.rstrip('*')}")
    if kind == "systemd" and ("index" in parameters) == ("name" in parameters):
        raise BadValue("needs either index= or name=")
    return parameters


def _check_parameters(parameters: Mapping[str, str]) -> None:
    for key, check in (("port", port), ("backlog", whole(1, 65535)), ("index", whole(0, 1024))):
        if key in parameters:
            try:
                check(parameters[key])
            except BadValue as error:
                raise BadValue(f"has a {key} that {error}") from None
    if not re.fullmatch(r"[0-7]{3,4}", parameters.get("mode", "666")):
        raise BadValue("has a mode that is not octal, such as 660")
    if parameters.get("lockfile", "0") not in ("0", "1"):
        raise BadValue("has a lockfile that is neither 0 nor 1")
    interface = parameters.get("interface", "")
    if interface and not (isIPAddress(interface) or isIPv6Address(interface) or is_host(interface)):
        raise BadValue("has an interface that is no address (a ':' within it is written '\\:')")
    if parameters.get("domain", "INET") not in ("INET", "INET6", "UNIX"):
        raise BadValue("has a socket domain that is none of INET, INET6, UNIX")


def _check_file(key: str, path: Path) -> None:
    try:
        check_readable(path)
    except BadValue as error:
        raise BadValue(f"has a {key} that {error}") from None


def is_exposed(text: str) -> bool:
    """Can other machines reach the server endpoint ``text``?"""
    try:
        return not parse_server_endpoint(text, Path()).is_loopback
    except BadValue:  # only a file that went away since it was checked
        return True
