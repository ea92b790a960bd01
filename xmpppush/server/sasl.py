"""
SASL as XMPP uses it (RFC 6120 section 6): SCRAM-SHA-256, SCRAM-SHA-1 and PLAIN, the server's side.

Exchanges are pure: octets in, octets out, keys looked up by whoever drives them. `scramp` does the
cryptography; here is what it leaves to us: authorization identities, which account a user name means in
which domain, and that an unknown account looks like a known one.
"""

import binascii
import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping

from attrs import field, frozen
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from scramp import ScramException, ScramMechanism
from scramp.utils import saslprep

from xmpppush.errors import BadStanza, PushError
from xmpppush.jids import parse_jid
from xmpppush.model import ScramKeys

SCRAM_SHA_256 = "SCRAM-SHA-256"
SCRAM_SHA_1 = "SCRAM-SHA-1"
PLAIN = "PLAIN"
SCRAM = (SCRAM_SHA_256, SCRAM_SHA_1)
MECHANISMS = (*SCRAM, PLAIN)

# RFC 7677 section 4 asks for 4096 at least. Phones pay for more at each login, and with PLAIN we do.
ITERATIONS = 4096
SALT_SIZE = 16
MAX_MESSAGE = 4096  # octets; stringprep costs some microseconds a character

_FORBIDDEN = "characters that no password may have (RFC 4013)"
_MECHANISMS = {name: ScramMechanism(name) for name in SCRAM}
_HASHES = {SCRAM_SHA_256: hashes.SHA256(), SCRAM_SHA_1: hashes.SHA1()}  # noqa: S303


class SASLFailure(PushError):
    """
    A login that fails.

    Attributes:
        condition: Of RFC 6120 section 6.5, such as ``not-authorized``.
        text: For people.
    """

    def __init__(self, condition: str, text: str = "") -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text


class BadPassword(PushError):
    """No password at all, or with characters that RFC 4013 forbids; the text does not quote it."""


@frozen
class Login:
    """
    What PLAIN says (RFC 4616).

    Attributes:
        account: Bare JID, prepared; there need not be such an account.
    """

    account: str
    password: str = field(repr=False)


def decode(text: str) -> bytes | None:
    """
    The content of ``<auth/>`` or ``<response/>``; ``None`` where there is none, ``=`` is an empty one.

    Raises:
        SASLFailure: ``incorrect-encoding``, or ``malformed-request`` where it is too long.
    """
    if text in ("", "="):
        return b"" if text else None
    if len(text) > MAX_MESSAGE * 4 // 3 + 4:
        raise SASLFailure("malformed-request", "too long")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SASLFailure("incorrect-encoding", "not base64") from None


def encode(data: bytes) -> str:
    """What goes into ``<challenge/>`` and ``<success/>``; ``=`` for empty data."""
    return b64encode(data).decode("ascii") or "="


def read_plain(data: bytes, domain: str) -> Login:
    """
    Read the one message of PLAIN.

    Args:
        domain: The served domain that the stream is for.

    Raises:
        SASLFailure: ``malformed-request``, ``invalid-authzid``, or ``not-authorized`` for a user name
            that no account can have.
    """
    try:
        authzid, user, password = data.decode("utf-8").split("\0")
    except ValueError:
        raise SASLFailure("malformed-request", "not authzid NUL user NUL password") from None
    if not user or not password:
        raise SASLFailure("malformed-request", "no user name, or no password")
    account = account_of(user, domain)
    check_authzid(authzid, account)
    return Login(account, password)


def account_of(user: str, domain: str) -> str:
    """
    The bare JID of a user name.

    Raises:
        SASLFailure: ``not-authorized``: no account can have that name.
    """
    try:
        jid = parse_jid(f"{user}@{domain}")
    except BadStanza:
        raise SASLFailure("not-authorized") from None
    # "bob@elsewhere" or "elsewhere/bob" would otherwise move the account out of the domain.
    if not jid.user or jid.host != domain or jid.resource is not None:
        raise SASLFailure("not-authorized")
    return jid.userhost()


def check_authzid(authzid: str, account: str) -> None:
    """
    Nobody acts for somebody else (RFC 6120 section 6.3.8).

    Raises:
        SASLFailure: ``invalid-authzid``.
    """
    if authzid == "":
        return
    try:
        same = parse_jid(authzid).full() == account
    except BadStanza:
        same = False
    if not same:
        raise SASLFailure("invalid-authzid", "only for your own account")


class Scram:
    """
    One SCRAM exchange (RFC 5802): `first`, `challenge`, `final`, once each and in this order.

    Channel binding is not offered: ``n`` and ``y`` are taken, ``p`` is refused.

    Args:
        mechanism: One of `SCRAM`.
        domain: The served domain that the stream is for.
        secret: Makes keys for accounts that do not exist, the same ones each time.
        random: Gives that many random octets.
    """

    def __init__(
        self, mechanism: str, domain: str, secret: bytes, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self.account = ""
        self._name = mechanism
        self._mechanism = _MECHANISMS[mechanism]
        self._domain = domain
        self._secret = secret
        self._nonce = b64encode(random(18)).decode("ascii")
        self._header = b""
        self._message = ""
        self._server: object = None
        self._known = False

    def first(self, data: bytes) -> str:
        """
        Read the client's first message.

        Returns:
            The account whose keys `challenge` wants.

        Raises:
            SASLFailure: ``malformed-request``, ``invalid-authzid``, ``not-authorized``.
        """
        flag, authzid, bare = self._split(data)
        if flag.startswith("p="):
            raise SASLFailure("malformed-request", "channel binding is not supported here")
        self._header = f"{flag},{authzid},".encode()
        # scramp takes no authorization identity: it sees the message without.
        self._message = f"{flag},,{bare}"
        names: list[str] = []

        def look_at(user: str) -> tuple[bytes, bytes, bytes, int]:
            names.append(user)
            return bytes(SALT_SIZE), b"", b"", ITERATIONS

        try:
            self._mechanism.make_server(look_at, s_nonce=self._nonce).set_client_first(self._message)
        except ScramException:
            raise SASLFailure("malformed-request", "not a SCRAM client-first-message") from None
        self.account = account_of(names[0], self._domain)
        if authzid:
            wanted = authzid.removeprefix("a=").replace("=2C", ",").replace("=3D", "=")
            check_authzid(wanted, self.account)
        return self.account

    def challenge(self, keys: ScramKeys | None) -> bytes:
        """
        The server's first message.

        Args:
            keys: Of the account; ``None``: there is none, which the client learns from `final` only.
        """
        self._known = keys is not None
        if keys is None:
            keys = pretended_keys(self._secret, self._name, self.account)
        found = (keys.salt, keys.stored_key, keys.server_key, keys.iterations)
        server = self._mechanism.make_server(lambda _: found, s_nonce=self._nonce)
        server.set_client_first(self._message)
        server.gs2_header = _Header(self._header)
        self._server = server
        answer: str = server.get_server_first()
        return answer.encode()

    def final(self, data: bytes) -> bytes:
        """
        Read the client's proof.

        Returns:
            The server's own, for ``<success/>``.

        Raises:
            SASLFailure: ``not-authorized`` where it proves nothing, ``malformed-request``.
        """
        server = self._server
        assert server is not None, "challenge() comes first"
        try:
            server.set_client_final(data.decode("utf-8"))  # type: ignore[attr-defined]
            answer: str = server.get_server_final()  # type: ignore[attr-defined]
        except ScramException as error:
            if error.server_error is not None and error.server_error.value == "invalid-proof":
                raise SASLFailure("not-authorized") from None
            raise SASLFailure("malformed-request", "not a SCRAM client-final-message") from None
        except ValueError:
            raise SASLFailure("malformed-request", "not UTF-8") from None
        if not self._known:
            raise SASLFailure("not-authorized")
        return answer.encode()

    def _split(self, data: bytes) -> tuple[str, str, str]:
        try:
            flag, authzid, bare = data.decode("utf-8").split(",", 2)
        except ValueError:
            raise SASLFailure("malformed-request", "not a SCRAM client-first-message") from None
        if authzid and not authzid.startswith("a="):
            raise SASLFailure("malformed-request", "not a SCRAM client-first-message")
        return flag, authzid, bare


class _Header:
    """Stands for scramp's gs2 header with the authorization identity that it was given."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def make_cbind_input(self, channel_binding: None) -> bytes:
        return self._header


def pretended_keys(secret: bytes, mechanism: str, account: str) -> ScramKeys:
    """Keys of an account that does not exist: always the same, and no password fits."""

    def octets(purpose: str) -> bytes:
        return hmac.digest(secret, f"{purpose}\0{mechanism}\0{account}".encode(), "sha256")

    size = 20 if mechanism == SCRAM_SHA_1 else 32
    return ScramKeys(octets("salt")[:SALT_SIZE], ITERATIONS, octets("stored")[:size], octets("server")[:size])


def derive_keys(
    password: str, iterations: int = ITERATIONS, random: Callable[[int], bytes] = os.urandom
) -> Mapping[str, ScramKeys]:
    """
    The keys to store for a password, by mechanism; some milliseconds of CPU.

    Raises:
        BadPassword: Empty, or not allowed by SASLprep (RFC 4013).
    """
    prepared = _prepared(password)
    return {name: _derive(name, prepared, random(SALT_SIZE), iterations) for name in SCRAM}


def fits(password: str, mechanism: str, keys: ScramKeys) -> bool:
    """Is that the password which these keys were derived from? Some milliseconds of CPU."""
    if len(password) > MAX_MESSAGE:
        return False
    try:
        derived = _derive(mechanism, _prepared(password), keys.salt, keys.iterations)
    except BadPassword:
        return False
    return hmac.compare_digest(derived.stored_key, keys.stored_key)


def _prepared(password: str) -> bytes:
    try:
        prepared = saslprep(password)
    except ScramException:
        raise BadPassword(_FORBIDDEN) from None
    if not prepared:
        raise BadPassword("an empty password")
    return prepared.encode()


def _derive(mechanism: str, prepared: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """RFC 5802 section 3. Not by scramp: hashlib's PBKDF2 takes twice the time of `cryptography`'s."""
    algorithm = _HASHES[mechanism]
    salted = PBKDF2HMAC(algorithm, algorithm.digest_size, salt, iterations).derive(prepared)
    client_key = hmac.digest(salted, b"Client Key", algorithm.name)
    server_key = hmac.digest(salted, b"Server Key", algorithm.name)
    return ScramKeys(salt, iterations, hashlib.new(algorithm.name, client_key).digest(), server_key)
