"""
Keys and certificates to go with the emulators: made in memory, or kept in a folder for another process.

They are as the providers hand them out, and good for nothing but the emulators.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from attrs import evolve, field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1.error import PyAsn1Error
from pyasn1.type.char import UTF8String
from pyasn1.type.univ import Sequence as ASN1Sequence

from xmpppush.certificates import LOOPBACK_NAMES, Credentials, issue, make_authority, write_private

TOPIC = "com.example.chat"
KEY_ID = "EMULATOR01"
TEAM_ID = "XMPPPUSH01"
PROJECT_ID = "xmpppush-emulator"
CLIENT_EMAIL = f"emulator@{PROJECT_ID}.iam.gserviceaccount.com"
# Extensions of Apple's push certificates: for which environment, and with which topics.
DEVELOPMENT = x509.ObjectIdentifier("1.2.840.113635.100.6.3.1")
PRODUCTION = x509.ObjectIdentifier("1.2.840.113635.100.6.3.2")
TOPICS = x509.ObjectIdentifier("1.2.840.113635.100.6.3.6")
TOPIC_SUFFIXES = {"app": "", "voip": ".voip", "complication": ".complication"}


@frozen
class Authority:
    """
    A test CA and the emulator's own certificate.

    Attributes:
        ca: PEM of the authority's certificate: what ``ca_file`` is for.
    """

    authority: Credentials
    server: Credentials

    @property
    def ca(self) -> bytes:
        return self.authority.certificate.public_bytes(Encoding.PEM)


def make_test_authority(
    names: Sequence[str] = LOOPBACK_NAMES, now: datetime | None = None, authority: Credentials | None = None
) -> Authority:
    """
    Args:
        names: Whose certificate the emulator has; another host's makes one that no client accepts.
        authority: That there is already; by default a new one.
    """
    now = now or datetime.now(UTC)
    authority = authority or make_authority(now)
    return Authority(authority, issue(authority, names, now))


@frozen
class APNsCredentials:
    """
    What Apple gives a developer: a push certificate, and a key to sign tokens with.

    Attributes:
        certificate: Of both environments, with the topics of one app (plain, ``.voip``, ``.complication``).
        key: The P-256 key of the p8 file.
    """

    certificate: Credentials
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    key_id: str = KEY_ID
    team_id: str = TEAM_ID
    topic: str = TOPIC

    @property
    def p8(self) -> bytes:
        return _pem(self.key)


def make_apns_credentials(
    authority: Authority,
    topic: str = TOPIC,
    now: datetime | None = None,
    lifetime: timedelta = timedelta(days=365),
    environments: Sequence[x509.ObjectIdentifier] = (DEVELOPMENT, PRODUCTION),
    many_topics: bool = True,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> APNsCredentials:
    """
    Args:
        lifetime: Of the certificate; a negative one has expired.
        many_topics: With the extension that lists topics; Apple asks for ``apns-topic`` then.
        key: Of the p8 file, by default a new one.
    """
    certificate = _push_certificate(
        authority.authority, topic, now or datetime.now(UTC), lifetime, environments, many_topics
    )
    return APNsCredentials(certificate, key or ec.generate_private_key(ec.SECP256R1()), topic=topic)


def _push_certificate(
    authority: Credentials,
    topic: str,
    now: datetime,
    lifetime: timedelta,
    environments: Sequence[x509.ObjectIdentifier],
    many_topics: bool,
) -> Credentials:
    key = ec.generate_private_key(ec.SECP256R1())
    start = now - timedelta(days=1)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.USER_ID, topic),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Apple Push Services: {topic}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, TEAM_ID),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(start, now + lifetime - timedelta(days=1)))
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    for environment in environments:
        builder = builder.add_extension(x509.UnrecognizedExtension(environment, b"\x05\x00"), critical=False)
    if many_topics:
        listed = x509.UnrecognizedExtension(TOPICS, _encode_topics(topic))
        builder = builder.add_extension(listed, critical=False)
    return Credentials(key, builder.sign(authority.key, SHA256()))


def _encode_topics(topic: str) -> bytes:
    """``SEQUENCE { UTF8String topic, SEQUENCE { UTF8String kind }, ... }``, as in Apple's certificates."""
    parts: list[Any] = []
    for kind, suffix in TOPIC_SUFFIXES.items():
        parts += (UTF8String(topic + suffix), _sequence(UTF8String(kind)))
    octets: bytes = encode(_sequence(*parts))
    return octets


def _sequence(*parts: Any) -> Any:
    sequence = ASN1Sequence()
    for position, part in enumerate(parts):
        sequence.setComponentByPosition(position, part)
    return sequence


def topics_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The topics that a push certificate is for; the first is the app's own."""
    own = tuple(str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.USER_ID))
    try:
        extension = certificate.extensions.get_extension_for_oid(TOPICS).value
        listed, _rest = decode(extension.public_bytes())
    except (x509.ExtensionNotFound, PyAsn1Error):
        return own
    parts = [listed[position] for position in range(len(listed))]
    return tuple(dict.fromkeys((*own, *(str(each) for each in parts if isinstance(each, UTF8String)))))


@frozen
class FCMCredentials:
    """A service account of Google's."""

    key: rsa.RSAPrivateKey = field(repr=False)
    project_id: str = PROJECT_ID
    client_email: str = CLIENT_EMAIL
    key_id: str = "0123456789abcdef0123456789abcdef01234567"

    def service_account(self, token_uri: str) -> bytes:
        """The JSON file that Google's console downloads."""
        return orjson.dumps(
            {
                "type": "service_account",
                "project_id": self.project_id,
                "private_key_id": self.key_id,
                "private_key": _pem(self.key).decode(),
                "client_email": self.client_email,
                "client_id": "100000000000000000001",
                "auth_uri": "https://accounts.google.com/o/oauth2/auth",
                "token_uri": token_uri,
                "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
                "universe_domain": "googleapis.com",
            },
            option=orjson.OPT_INDENT_2,
        )


def make_fcm_credentials(project_id: str = PROJECT_ID) -> FCMCredentials:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return FCMCredentials(key, project_id, f"emulator@{project_id}.iam.gserviceaccount.com")


def make_vapid_key() -> ec.EllipticCurvePrivateKey:
    """What an application server signs with towards Web Push services (RFC 8292)."""
    return ec.generate_private_key(ec.SECP256R1())


# In a folder.


def keep_authority(folder: Path, names: Sequence[str] = LOOPBACK_NAMES) -> Authority:
    """The authority of ``folder``, made there if there is none: clients trust its ``ca.pem`` for good."""
    path = folder / "authority.pem"
    with _alone_with(folder):
        made = make_test_authority(names, authority=_read(path, path) if path.exists() else None)
        write_private(path, _pem(made.authority.key) + made.ca)
        write_private(folder / "ca.pem", made.ca)
    return made


def keep_apns_credentials(folder: Path, authority: Authority, topic: str = TOPIC) -> APNsCredentials:
    """``apns_cert.pem``, ``apns_key.pem`` and ``AuthKey_....p8``; what is there and still good stays."""
    cert, own_key, p8 = (folder / name for name in ("apns_cert.pem", "apns_key.pem", f"AuthKey_{KEY_ID}.p8"))
    with _alone_with(folder):
        key = load_pem_private_key(p8.read_bytes(), None) if p8.exists() else None
        made = make_apns_credentials(authority, topic, key=key)  # type: ignore[arg-type]
        known = _read(own_key, cert) if cert.exists() and own_key.exists() else None
        if known is not None and _is_of(known, authority, topic):
            made = evolve(made, certificate=known)
        write_private(cert, made.certificate.certificate.public_bytes(Encoding.PEM))
        write_private(own_key, _pem(made.certificate.key))
        write_private(p8, made.p8)
    return made


def _is_of(known: Credentials, authority: Authority, topic: str) -> bool:
    try:
        known.certificate.verify_directly_issued_by(authority.authority.certificate)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return topics_of(known.certificate)[:1] == (topic,) and known.expires > datetime.now(UTC) + timedelta(30)


def keep_fcm_credentials(folder: Path, project_id: str = PROJECT_ID) -> FCMCredentials:
    """The account of ``service-account.json``, or a new one; whoever knows the port writes the file."""
    path = folder / "service-account.json"
    if path.exists():
        known = orjson.loads(path.read_bytes())
        if known["project_id"] == project_id:
            key = load_pem_private_key(known["private_key"].encode(), None)
            return FCMCredentials(key, project_id, known["client_email"])  # type: ignore[arg-type]
    return make_fcm_credentials(project_id)


def keep_vapid_key(folder: Path) -> None:
    """``vapid.pem``; one that is there stays: subscriptions are bound to it."""
    path = folder / "vapid.pem"
    with _alone_with(folder):
        if not path.exists():
            write_private(path, _pem(make_vapid_key()))


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Readable by their owner alone."""
    with _alone_with(folder):
        for name, content in files.items():
            write_private(folder / name, content)


@contextmanager
def _alone_with(folder: Path) -> Iterator[None]:
    """A CI job starts several emulators at once, with one folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(key: Path, certificate: Path) -> Credentials:
    return Credentials(
        load_pem_private_key(key.read_bytes(), None),  # type: ignore[arg-type]
        x509.load_pem_x509_certificate(certificate.read_bytes()),
    )


def _pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
