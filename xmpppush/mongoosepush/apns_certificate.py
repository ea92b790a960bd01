"""Credentials for APNs from files, and what a certificate tells about its application."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from xmpppush.certificates import Credentials, load_credentials
from xmpppush.config.sections import APNsPoolSection, TLSSection
from xmpppush.errors import ConfigError

# Apple's list of topics in a certificate for more than one kind of push.
TOPICS = x509.ObjectIdentifier("1.2.840.113635.100.6.3.6")
_UTF8_STRING, _SEQUENCE = 0x0C, 0x30


def client_credentials(section: APNsPoolSection, now: datetime) -> Credentials | None:
    """
    The pool's certificate; ``None``: it has a key for tokens.

    Raises:
        ConfigError: It cannot be used; one line.
    """
    if section.certfile is None and section.p8_file is not None:
        return None
    return load_credentials(TLSSection(section.certfile, section.keyfile), label_of(section), now)


def label_of(section: APNsPoolSection) -> str:
    return f"[mongoosepush:apns:{section.name}]"


def token_key(path: Path, label: str) -> ec.EllipticCurvePrivateKey:
    """
    The key that Apple gives out as ``AuthKey_KEYID.p8``.

    Raises:
        ConfigError: It is something else; one line.
    """
    place = f"{label} p8_file: {path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{place}: {(error.strerror or str(error)).lower()}"]) from error
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise ConfigError([f"{place}: needs a passphrase; store it decrypted"]) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError([f"{place}: no private key in it; take the AuthKey_....p8 file as it is"]) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError([f"{place}: not a key for ES256; take the AuthKey_....p8 file as it is"])
    return key


def topic_of(certificate: x509.Certificate) -> str:
    """The application that a certificate is for: its user id, or the first of its topics, or ``""``."""
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.USER_ID):
        if isinstance(attribute.value, str) and attribute.value:
            return attribute.value
    try:
        extension = certificate.extensions.get_extension_for_oid(TOPICS).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    if not isinstance(extension, x509.UnrecognizedExtension):
        return ""
    return next(_strings(extension.value), "")


def _strings(der: bytes) -> Iterator[str]:
    """The UTF-8 strings of a DER value, those in sequences of it included."""
    at = 0
    while at + 2 <= len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(der[at : at + octets], "big")
            at += octets
        content = der[at : at + length]
        at += length
        if tag == _UTF8_STRING:
            yield content.decode("utf-8", "replace")
        elif tag == _SEQUENCE:
            yield from _strings(content)
