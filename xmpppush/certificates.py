"""
Certificates for everything that listens with TLS: the operator's own, or generated ones.

Generated ones live in ``data_dir/tls``: an authority of our own, and a certificate for each name that it
signs. Each is one file that holds key and certificate together and is renamed into place, so that no kill
leaves a key without its certificate; a lock file keeps two processes that start together from making two
authorities.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import idna
from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL.SSL import NO_OVERLAPPING_PROTOCOLS, Connection, Context
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from xmpppush.config.sections import TLSSection
from xmpppush.errors import ConfigError

AUTHORITY_LIFETIME = timedelta(days=3650)
# Apple's clients take nothing over 825 days, not even from an authority that was installed by hand.
LEAF_LIFETIME = timedelta(days=820)
RENEW_BEFORE = timedelta(days=30)
# For clients whose clock is a little slow.
BACKDATED = timedelta(hours=1)

GENERATED = TLSSection()
PUSH_SERVICE = "[mongoosepush]"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@frozen
class Credentials:
    """A private key, its certificate, and the certificates between that and a root, in sending order."""

    key: CertificateIssuerPrivateKeyTypes = field(repr=False)
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def expires(self) -> datetime:
        return self.certificate.not_valid_after_utc

    def options(self) -> CertificateOptions:
        """For a server that speaks TLS 1.2 and newer and asks for no client certificate."""
        # Twisted's types still name pyOpenSSL's own classes, which pyOpenSSL warns about by now.
        options = CertificateOptions(
            privateKey=self.key,  # type: ignore[arg-type]
            certificate=self.certificate,  # type: ignore[arg-type]
            extraCertChain=list(self.chain),  # type: ignore[arg-type]
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        # Twisted's own choice ends in an internal error for whoever offers protocols and gets none: that is
        # curl (h2, http/1.1) as well as every XMPP client with direct TLS (xmpp-client, XEP-0368).
        options.getContext().set_alpn_select_callback(lambda _connection, _offered: NO_OVERLAPPING_PROTOCOLS)
        return options


class CertificateStore:
    """
    Gives every listener its certificate; generated where the configuration names none.

    Files are read and made when first asked for, blocking: ask before ports open.

    Attributes:
        domains: All that it knows of, the first for who asks for none.
        ca_path: PEM file with the certificate of the generated authority; there after
            `ensure_authority` or the first generated certificate.
    """

    _log = Logger()

    def __init__(
        self,
        data_dir: Path,
        tls: TLSSection = GENERATED,
        tls_domains: Mapping[str, TLSSection] | None = None,
        clock: IReactorTime | None = None,
        domains: Sequence[str] = (),
    ) -> None:
        """
        Args:
            domains: All that are served; the names a direct TLS client may ask for (SNI), and further
                names in the push service's generated certificate.
        """
        self._folder = data_dir / "tls"
        self.ca_path = self._folder / "ca.pem"
        self._tls = tls
        self._tls_domains = dict(tls_domains or {})
        self.domains = tuple(dict.fromkeys((*domains, *self._tls_domains)))
        self._now = _clock_reader(clock)
        self._credentials: dict[str, Credentials] = {}
        self._options: dict[str, CertificateOptions] = {}
        self._authority: Credentials | None = None

    def server_options(self, domain: str) -> CertificateOptions:
        """
        The TLS context factory for connections to this XMPP domain, the same one each time.

        Raises:
            ConfigError: A file of the operator's cannot be used; one line says why.
        """
        section, label = self._section_of(domain)
        if section.certfile is not None:
            return self._configured(domain, section, label, (domain,))
        return self._generated(domain, f"domain-{quote(_ascii(domain), safe='')}.pem", (domain,))

    def credentials(self, domain: str) -> Credentials:
        """Key and certificate of `server_options`; raises as it does."""
        self.server_options(domain)
        return self._credentials[domain]

    def service_options(self, section: TLSSection, names: Sequence[str] = ()) -> CertificateOptions:
        """
        The same for the push service (``[mongoosepush]``).

        Args:
            names: Addresses it is reached by besides loopback and the served domains.
        """
        if section.certfile is not None:
            return self._configured(PUSH_SERVICE, section, PUSH_SERVICE, ())
        wanted = tuple(dict.fromkeys((*LOOPBACK_NAMES, *names, *self.domains)))
        return self._generated(PUSH_SERVICE, "push-service.pem", wanted)

    def sni_options(self, domains: Sequence[str] = ()) -> IOpenSSLServerConnectionCreator:
        """
        For direct TLS (XEP-0368): the certificate of the domain that the client names.

        Args:
            domains: Served on this port, the first to clients that name none or another; by default
                all that the store knows of.
        """
        served = tuple(domains) or self.domains
        if not served:
            raise ValueError("no domain to choose a certificate for")
        return _ChoosesByName({_ascii(domain): self.server_options(domain) for domain in served})

    def enddates(self) -> Mapping[str, datetime]:
        """When the certificates in use expire, by domain; the push service's is ``[mongoosepush]``."""
        return {name: credentials.expires for name, credentials in self._credentials.items()}

    def ensure_authority(self) -> Path:
        """Make the authority if there is none yet; returns `ca_path`, which exists now."""
        self._load_authority()
        return self.ca_path

    def _section_of(self, domain: str) -> tuple[TLSSection, str]:
        if domain in self._tls_domains:
            return self._tls_domains[domain], f"[tls:{domain}]"
        return self._tls, "[tls]"

    def _configured(
        self, key: str, section: TLSSection, label: str, names: Sequence[str]
    ) -> CertificateOptions:
        if key not in self._options:
            credentials = load_credentials(section, label, self._now())
            for name in names:
                if not _is_for(credentials.certificate, name):
                    self._log.warn(
                        "certificate {path} is not for {domain}: its clients will refuse it",
                        path=str(section.certfile),
                        domain=name,
                    )
            self._remember(key, credentials)
        return self._options[key]

    def _generated(self, key: str, filename: str, names: Sequence[str]) -> CertificateOptions:
        if key not in self._options:
            authority = self._load_authority()
            with self._locked():
                self._remember(key, self._load_or_issue(authority, filename, names))
        return self._options[key]

    def _remember(self, key: str, credentials: Credentials) -> None:
        self._credentials[key] = credentials
        self._options[key] = credentials.options()

    def _load_authority(self) -> Credentials:
        if self._authority is not None:
            return self._authority
        path = self._folder / "authority.pem"
        with self._locked():
            if path.exists():
                authority = _read_bundle(path)
                if authority is None or authority.expires <= self._now():
                    raise ConfigError(
                        [f"{path}: the generated authority is damaged or expired; remove it for a new one"]
                    )
            else:
                authority = make_authority(self._now())
                write_private(path, _bundle(authority))
                self._log.info("generated a certificate authority: {path}", path=str(self.ca_path))
            public = authority.certificate.public_bytes(Encoding.PEM)
            if not self.ca_path.exists() or self.ca_path.read_bytes() != public:
                write_private(self.ca_path, public)
        self._authority = authority
        return authority

    def _load_or_issue(self, authority: Credentials, filename: str, names: Sequence[str]) -> Credentials:
        path = self._folder / filename
        if path.exists():
            found = _read_bundle(path)
            if found is not None and _still_good(found, authority, names, self._now()):
                return found
        made = issue(authority, names, self._now())
        write_private(path, _bundle(made))
        self._log.info(
            "generated a certificate for {names}, valid until {expires}: {path}",
            names=", ".join(names),
            expires=made.expires.date().isoformat(),
            path=str(path),
        )
        return made

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the folder; the system opens the lock again when a process dies."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError([f"{self._folder}: cannot keep certificates here: {_reason(error)}"]) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise ConfigError([f"{self._folder}: cannot keep certificates here: {_reason(error)}"]) from error
        finally:
            os.close(lock)


@implementer(IOpenSSLServerConnectionCreator)
class _ChoosesByName:
    """Picks the context by the name in the client's hello; what it does not know gets the first."""

    def __init__(self, options: Mapping[str, CertificateOptions]) -> None:
        self._contexts: dict[bytes, Context] = {
            domain.encode("ascii"): each.getContext() for domain, each in options.items()
        }
        self._first = next(iter(self._contexts.values()))
        self._first.set_tlsext_servername_callback(self._choose)

    def _choose(self, connection: Connection) -> None:
        name = connection.get_servername()
        context = self._contexts.get(name.lower()) if name else None
        if context is not None:
            connection.set_context(context)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Connection:
        return Connection(self._first, None)


def load_credentials(section: TLSSection, label: str, now: datetime) -> Credentials:
    """
    The operator's own key and certificate, with the chain that follows it in ``certfile``.

    Args:
        label: How messages name the configuration section.

    Raises:
        ConfigError: Unreadable, no PEM, expired, or the key of another certificate; one line.
    """
    certfile, keyfile = section.certfile, section.keyfile
    if certfile is None or keyfile is None:
        raise ConfigError([f"{label} certfile and keyfile: both or none"])
    try:
        certificates = x509.load_pem_x509_certificates(_read(certfile, f"{label} certfile"))
    except ValueError as error:
        raise ConfigError([f"{label} certfile: {certfile}: no PEM certificate in it"]) from error
    try:
        key = load_pem_private_key(_read(keyfile, f"{label} keyfile"), password=None)
    except TypeError as error:
        raise ConfigError([f"{label} keyfile: {keyfile}: needs a passphrase; store it decrypted"]) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError([f"{label} keyfile: {keyfile}: no PEM key in it that we can read"]) from error
    leaf = certificates[0]
    if _spki(leaf) != key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise ConfigError([f"{label} keyfile: {keyfile}: not the key of the first certificate in {certfile}"])
    if leaf.not_valid_after_utc <= now:
        raise ConfigError([f"{label} certfile: {certfile}: expired on {leaf.not_valid_after_utc.date()}"])
    if leaf.not_valid_before_utc > now:
        raise ConfigError(
            [f"{label} certfile: {certfile}: not valid before {leaf.not_valid_before_utc.date()}"]
        )
    return Credentials(key, leaf, tuple(certificates[1:]))  # type: ignore[arg-type]


def make_authority(now: datetime) -> Credentials:
    """A new authority (ECDSA P-256) that may sign servers' certificates and nothing below that."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Two machines' authorities need names of their own, or a client that trusts both mixes them up.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"xmpppush {serial % 16**8:08x}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return Credentials(key, certificate)


def issue(authority: Credentials, names: Sequence[str], now: datetime) -> Credentials:
    """A new server certificate for these domains and IP addresses, signed by the authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority_key = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        x509.CertificateBuilder()
        # No common name: it holds 64 characters at the most, and clients read the alternative names.
        .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "xmpppush")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(now + LEAF_LIFETIME, authority.expires))
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_EXTENDED_USAGES), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key), critical=False
        )
        .sign(authority.key, SHA256())
    )
    return Credentials(key, certificate)


# Servers of a federation are each other's clients with the same certificate.
_EXTENDED_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _still_good(found: Credentials, authority: Credentials, names: Sequence[str], now: datetime) -> bool:
    if not found.certificate.not_valid_before_utc <= now < found.expires - RENEW_BEFORE:
        return False
    try:
        found.certificate.verify_directly_issued_by(authority.certificate)
        present = found.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return list(present) == _general_names(names)


def _is_for(certificate: x509.Certificate, name: str) -> bool:
    try:
        if _is_address(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, _ascii(name))
    except (VerificationError, CertificateError, ValueError, IndexError):  # the last: an empty SRV name
        return False
    return True


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [
        x509.IPAddress(ip_address(name)) if _is_address(name) else x509.DNSName(_ascii(name))
        for name in names
    ]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _ascii(domain: str) -> str:
    """The domain as certificates and file names spell it (RFC 5890 A-labels)."""
    if domain.isascii():
        return domain.lower()
    return idna.encode(domain, uts46=True).decode("ascii")


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _bundle(credentials: Credentials) -> bytes:
    return credentials.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ) + credentials.certificate.public_bytes(Encoding.PEM)


def _read_bundle(path: Path) -> Credentials | None:
    """What `_bundle` made, or ``None``: somebody else wrote into the file."""
    content = path.read_bytes()
    try:
        key = load_pem_private_key(content, password=None)
        certificate = x509.load_pem_x509_certificate(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if _spki(certificate) != key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        return None
    return Credentials(key, certificate)  # type: ignore[arg-type]


def write_private(path: Path, content: bytes) -> None:
    """
    Put a file in place whole or not at all, readable by its owner alone.

    A leftover of a killed process has the same temporary name and is overwritten: the caller is the only one
    who writes there, by a lock or by a claim on the folder.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, label: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{label}: {path}: {_reason(error)}"]) from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _clock_reader(clock: IReactorTime | None) -> Callable[[], datetime]:
    if clock is None:
        return lambda: datetime.now(UTC)
    return lambda: datetime.fromtimestamp(clock.seconds(), UTC)
