"""``api_keys``: who may send, and how much."""

import re
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest
from math import ceil
from pathlib import Path

from attrs import define, field, frozen

from xmpppush.errors import ConfigError

MIN_KEY = 16  # characters
MAX_FILE = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1
_RATE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")


@frozen
class Client:
    """
    A line of the file.

    Attributes:
        digest: SHA-256 of its key; the key itself is not kept.
        rate: Requests a second; 0: as many as it likes.
    """

    name: str
    digest: bytes = field(repr=False)
    rate: float = 0.0


class Unauthorized(Exception):
    """No key, or one that nobody has."""


class OverQuota(Exception):
    """The client sends more than its quota."""

    def __init__(self, after: int) -> None:
        super().__init__(f"again in {after} s")
        self.after = after


@define
class _Bucket:
    """Room for a second's requests, and for one at least; it fills with the rate."""

    left: float
    at: float


class APIKeys:
    """Checks ``Authorization: Bearer KEY`` (RFC 6750 section 2.1)."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = tuple(clients)
        self._buckets: dict[str, _Bucket] = {}

    def identify(self, authorization: str | None) -> Client:
        """
        Who sends this.

        It takes as long for a wrong key as for a right one, whichever it is.

        Raises:
            Unauthorized: Nobody of the file.
        """
        scheme, _, key = (authorization or "").strip().partition(" ")
        digest = sha256(key.strip().encode("latin-1", "replace")).digest()
        found = None
        for client in self._clients:
            if compare_digest(client.digest, digest):
                found = client
        if found is None or scheme.lower() != "bearer":
            raise Unauthorized
        return found

    def admit(self, client: Client, now: float) -> None:
        """
        Count one request.

        Raises:
            OverQuota: There is no room for it.
        """
        if not client.rate:
            return
        most = max(1.0, client.rate)
        bucket = self._buckets.setdefault(client.name, _Bucket(most, now))
        if now > bucket.at:
            bucket.left = min(most, bucket.left + (now - bucket.at) * client.rate)
        bucket.at = now
        if bucket.left < 1.0:
            raise OverQuota(max(1, ceil((1.0 - bucket.left) / client.rate)))
        bucket.left -= 1.0


def read_api_keys(path: Path) -> APIKeys:
    """
    Read the file.

    Raises:
        ConfigError: It cannot be used; a line for each problem, which shows no key.
    """
    where = f"[mongoosepush] api_keys: {path}"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE).decode("utf-8")
    except OSError as error:
        raise ConfigError([f"{where}: {error.strerror}"]) from error
    except UnicodeDecodeError:
        raise ConfigError([f"{where}: not UTF-8"]) from None
    clients: list[Client] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith(("#", ";")):
            try:
                clients.append(_client(words, clients))
            except ValueError as error:
                problems.append(f"{where}: line {number}: {error}")
    if not problems and not clients:
        problems.append(f"{where}: no key in it; a line is NAME KEY [REQUESTS_PER_SECOND]")
    if problems:
        raise ConfigError(problems)
    return APIKeys(clients)


def _client(words: Sequence[str], others: Sequence[Client]) -> Client:
    if len(words) not in (2, 3):
        raise ValueError("not NAME KEY [REQUESTS_PER_SECOND]")
    name, key = words[:2]
    if not _NAME.fullmatch(name):
        raise ValueError("a name has up to 64 letters, digits, '_', '-' and '.'")
    if len(key) < MIN_KEY or not _KEY.fullmatch(key):
        raise ValueError(
            f"a key has {MIN_KEY} letters, digits and ._~+/- at least; make one: openssl rand -hex 24"
        )
    rate = 0.0
    if len(words) == 3:
        if not _RATE.fullmatch(words[2]) or not float(words[2]):
            raise ValueError("the quota is no number of requests a second, such as 50 or 0.5")
        rate = float(words[2])
    client = Client(name, sha256(key.encode("ascii")).digest(), rate)
    if any(other.name == name for other in others):
        raise ValueError(f"'{name}' has a key already")
    if any(other.digest == client.digest for other in others):
        raise ValueError(f"the key of '{name}' is somebody else's, too")
    return client
