"""
What the values of ``server.ini`` may look like: text to value, pure but for looking whether a file is there.

A converter takes the text of one value and returns what it means or raises `BadValue`, whose text goes on
after the value itself: ``'12x' is no whole number from 1 to 65535``. It never repeats the value: whether
that may be shown, the caller knows.
"""

import os
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address

from xmpppush.jids import BadJid, parse_jid

T = TypeVar("T")

DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
BOOLEANS = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}

_NUMBER = re.compile(r"[0-9]{1,15}")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)?")
_SIZE = re.compile(r"([0-9]{1,15}) ?([A-Za-z]*)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?")


class BadValue(ValueError):
    """
    What is wrong with a value, in words that follow the value: ``is no ...``, ``cannot be read: ...``.

    Attributes:
        part: The item of a list that is meant, ``""`` for the whole value. As secret as the value.
    """

    def __init__(self, reason: str, part: str = "") -> None:
        super().__init__(reason)
        self.part = part


def printable(text: str) -> str:
    """``text`` fit for one line of a terminal: whatever is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: str) -> str:
    """``text`` in quotes for a message, not longer than a line bears."""
    return f"'{text if len(text) <= 60 else text[:57] + '...'}'"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be."""
    spellings = {one.lower(): one for one in known}
    matches = get_close_matches(word.lower(), spellings, n=1, cutoff=0.6)
    return spellings[matches[0]] if matches else None


def suggestion(word: str, known: Iterable[str], form: str = "'{}'") -> str:
    """``; did you mean 'workers'?``, or nothing where no known word comes near."""
    match = nearest(word, known)
    return f"; did you mean {form.format(match)}?" if match else ""


def line(text: str) -> str:
    """Any text on one line."""
    if "\n" in text:
        raise BadValue("goes over several lines; an indented line continues the one above it")
    if _CONTROL.search(text):
        raise BadValue("holds a control character")
    return text


def boolean(text: str) -> bool:
    """``yes`` and ``no`` in the spellings of `configparser`."""
    value = BOOLEANS.get(text.lower())
    if value is None:
        raise BadValue("is neither 'yes' nor 'no'")
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    """Whole numbers in a range, both ends included."""

    def convert(text: str) -> int:
        if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
            raise BadValue(f"is no whole number from {low} to {high}")
        return int(text)

    return convert


port = whole(0, 65535)


def duration(low: str, high: str) -> Callable[[str], float]:
    """Seconds from ``500ms``, ``60s``, ``10m``, ``2h`` or ``1d``; a bare number is seconds, too."""
    least, most = _seconds(low), _seconds(high)

    def convert(text: str) -> float:
        if not least <= (seconds := _seconds(text)) <= most:
            raise BadValue(f"is out of range; from {low} to {high} is allowed")
        return seconds

    return convert


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BadValue("is no duration such as 500ms, 60s, 10m, 2h or 1d")
    return float(match[1]) * DURATION_UNITS[match[2] or "s"]


def size(low: str, high: str) -> Callable[[str], int]:
    """Bytes from ``4096``, ``256KiB``, ``1MiB``; both ends included."""
    least, most = _octets(low), _octets(high)

    def convert(text: str) -> int:
        if not least <= (octets := _octets(text)) <= most:
            raise BadValue(f"is out of range; from {low} to {high} is allowed")
        return octets

    return convert


def _octets(text: str) -> int:
    match = _SIZE.fullmatch(text)
    unit = SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise BadValue("is no size such as 65536, 256KiB or 1MiB")
    return int(match[1]) * unit


def choice(*allowed: str, also: dict[str, str] | None = None) -> Callable[[str], str]:
    """One of a few words, whatever their case; ``also`` maps further spellings to them."""
    spellings = {word.lower(): word for word in allowed} | (also or {})

    def convert(text: str) -> str:
        value = spellings.get(text.lower())
        if value is None:
            raise BadValue(f"is none of {', '.join(allowed)}{suggestion(text, (*(also or ()), *allowed))}")
        return value

    return convert


def listed(item: Callable[[str], T], least: int = 0) -> Callable[[str], tuple[T, ...]]:
    """Values separated by commas or white space, line breaks included; none of them twice."""

    def convert(text: str) -> tuple[T, ...]:
        values: list[T] = []
        for word in re.split(r"[,\s]+", text.strip(", \t\r\n")):
            if not word:
                continue
            try:
                value = item(word)
            except BadValue as error:
                raise BadValue(str(error), part=word) from None
            if value in values:
                raise BadValue("is named twice", part=word)
            values.append(value)
        if len(values) < least:
            raise BadValue("is empty; at least one is needed")
        return tuple(values)

    return convert


def name(text: str) -> str:
    """The name of a pool or plugin."""
    if not _NAME.fullmatch(text):
        raise BadValue("is no name made of letters, digits, '_', '-' and '.'")
    return text


def bearer_token(text: str) -> str:
    """What may stand behind ``Bearer`` (RFC 6750 section 2.1), or nothing."""
    if text and not _BEARER_TOKEN.fullmatch(text):
        raise BadValue("is no key: letters, digits and ._~+/- only")
    return text


def domain(text: str) -> str:
    """
    A domain as it stands in prepared JIDs (RFC 7622 section 3.2): lower case, nameprep applied, no final dot.

    Each label has to be a host name's label in its IDNA form (RFC 5890 section 2.3.1).
    """
    try:
        jid = parse_jid(text.removesuffix("."))
        labels = jid.host.encode("idna").decode("ascii").split(".")
    except (BadJid, UnicodeError, IndexError):  # IndexError: Twisted's nameprep of an empty label
        raise BadValue("is no domain name") from None
    if jid.user is not None or jid.resource is not None or not all(map(_LABEL.fullmatch, labels)):
        raise BadValue("is no domain name")
    return jid.host


def host_and_port(text: str) -> str:
    """``host:port``; an IPv6 address stands in brackets."""
    if not _is_address(text, needs_port=True):
        raise BadValue("is no 'host:port' such as 127.0.0.1:5270 or [::1]:5270")
    return text.lower()


def proxy_url(text: str) -> str:
    """``http://[user:password@]host:port``, or nothing; what is wrong is told without the password."""
    # Not above: http/ needs certificates, which need the configuration's sections.
    from xmpppush.http.proxy import parse_proxy

    try:
        parse_proxy(text)
    except ValueError as error:
        raise BadValue(f"cannot be used: {error}") from None
    return text


def optional_address(text: str) -> str:
    """``host`` or ``host:port``, or nothing."""
    if text and not _is_address(text, needs_port=False):
        raise BadValue("is neither 'host' nor 'host:port'")
    return text.lower()


def _is_address(text: str, needs_port: bool) -> bool:
    match = _ADDRESS.fullmatch(text)
    if match is None or (needs_port and match[3] is None):
        return False
    if match[3] is not None and not 1 <= int(match[3]) <= 65535:
        return False
    return isIPv6Address(match[1]) if match[1] else is_host(match[2])


def is_host(text: str) -> bool:
    """Whether ``text`` is an IPv4 address or a host name."""
    if re.fullmatch(r"[0-9.]*", text):
        return isIPAddress(text)
    try:
        domain(text)
    except BadValue:
        return False
    return True


def path_in(folder: Path) -> Callable[[str], Path]:
    """Absolute paths; relative ones begin at ``folder``. Symbolic links stay, as they may move later."""

    def convert(text: str) -> Path:
        if not line(text):
            raise BadValue("is empty; a path is needed")
        return folder / text

    return convert


def folder_in(folder: Path) -> Callable[[str], Path]:
    """A folder that is there or can be made later."""

    def convert(text: str) -> Path:
        path = Path(os.path.realpath(path_in(folder)(text)))
        if path.exists() and not path.is_dir():
            raise BadValue("is a file; a folder is needed")
        return path

    return convert


def file_in(folder: Path) -> Callable[[str], Path]:
    """A file that is there and can be read."""

    def convert(text: str) -> Path:
        path = path_in(folder)(text)
        check_readable(path)
        return path

    return convert


def optional_file_in(folder: Path) -> Callable[[str], Path | None]:
    """As `file_in`, and ``None`` for no text."""
    return lambda text: file_in(folder)(text) if text else None


def check_readable(path: Path) -> None:
    """Raise `BadValue` unless this is a file whose content can be read."""
    try:
        if path.is_dir():
            raise BadValue("is a folder; a file is needed")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue(f"cannot be read: {getattr(error, 'strerror', None) or 'no file name'}") from None


def http_url(text: str) -> str:
    """
    ``https://host[:port][/prefix]`` or ``http://...`` without a final slash.

    The host comes out in lower case and as A-labels.
    """
    try:
        parts = urlsplit(line(text))
        host, number = parts.hostname or "", parts.port
    except BadValue:
        raise
    except ValueError:
        raise BadValue("is no address such as https://localhost:8443") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadValue("is no address such as https://localhost:8443 or http://127.0.0.1:8080")
    if "@" in parts.netloc:
        raise BadValue("holds a user or password, which has no place here")
    if "?" in text or "#" in text or not re.fullmatch(r"[!-~]*", parts.path):
        raise BadValue("has more than scheme, host, port and path")
    if number == 0:
        raise BadValue("has the port 0; 1 to 65535 is allowed")
    if isIPv6Address(host):
        host = f"[{host}]"
    elif is_host(host):
        host = host if isIPAddress(host) else domain(host).encode("idna").decode("ascii")
    else:
        raise BadValue("has no valid host")
    where = host if number is None else f"{host}:{number}"
    return f"{parts.scheme}://{where}{parts.path.rstrip('/')}"


def web_path(text: str) -> str:
    """The path part of an address, from its slash on."""
    if not re.fullmatch(r"/[A-Za-z0-9_.~/\-]*", text):
        raise BadValue("is no path such as /xmpp-websocket")
    return text


def database_url_in(data_dir: Path) -> Callable[[str], str]:
    """
    ``sqlite:///NAME.db``, returned with the absolute path of the file, or ``postgresql://...``, which is
    understood and refused: this version has only the one.
    """

    def convert(text: str) -> str:
        if re.match(r"postgres(ql)?://", line(text)):
            raise BadValue("cannot be used yet: PostgreSQL comes with a later version; use sqlite:///NAME.db")
        if not text.startswith("sqlite:///"):
            raise BadValue("is no address such as sqlite:///xmpppush.db")
        file = data_dir / text.removeprefix("sqlite:///")
        if file.suffix != ".db":
            raise BadValue("names a file that does not end in .db")
        try:
            is_folder = file.is_dir()
        except PermissionError:
            is_folder = False  # what opens it says so, with the name of data_dir
        except OSError as error:
            raise BadValue(f"cannot be used: {error.strerror}") from None
        if is_folder:
            raise BadValue("names a folder; a file is needed")
        return f"sqlite:///{file}"

    return convert
