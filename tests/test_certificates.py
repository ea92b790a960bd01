"""Certificates: generated, kept, renewed, and the operator's own."""

import multiprocessing
import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import FILETYPE_PEM, load_certificate
from OpenSSL.SSL import Error
from twisted.internet import ssl as twisted_ssl
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory

from xmpppush import certificates
from xmpppush.certificates import CertificateStore, issue, make_authority
from xmpppush.config.sections import TLSSection
from xmpppush.errors import ConfigError

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = 86400.0


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(NOW.timestamp())
    return clock


@pytest.fixture
def log():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def leaf_of(options):
    return options.certificate


def names_of(options):
    names = leaf_of(options).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def client_of(ca_path):
    """Python's own TLS client, which trusts the authority alone."""
    return ssl.create_default_context(cafile=str(ca_path))


def handshake(server_options, client, name):
    """
    A TLS handshake in memory between our server and a client.

    Returns:
        The certificate that the client accepted, as `ssl.SSLSocket.getpeercert` gives it.
    """
    factory = TLSMemoryBIOFactory(server_options, False, Factory.forProtocol(Protocol), Clock())
    server, wire = factory.buildProtocol(None), StringTransport()
    server.makeConnection(wire)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = client.wrap_bio(incoming, outgoing, server_hostname=name)
    for _ in range(10):
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            server.dataReceived(outgoing.read())
            incoming.write(wire.value())
            wire.clear()
        else:
            return connection.getpeercert()
    raise AssertionError("no end to the handshake")


def own_files(folder, names=("example.org",), now=None, authority=None):
    """An operator's certificate with its authority as chain, and the section that names it."""
    now = now or NOW
    authority = authority or make_authority(now)
    leaf = issue(authority, names, now)
    certfile, keyfile = folder / "own.pem", folder / "own.key"
    pem = certificates._bundle(leaf)
    start = pem.index(b"-----BEGIN CERTIFICATE")
    keyfile.write_bytes(pem[:start])
    certfile.write_bytes(pem[start:] + authority.certificate.public_bytes(Encoding.PEM))
    return TLSSection(certfile, keyfile)


def problem_of(error_info):
    (line,) = error_info.value.problems
    assert "\n" not in line
    return line


def test_a_client_that_trusts_the_authority_accepts_the_domain(tmp_path, clock):
    """Chain and host name of a generated certificate verify in a real handshake."""
    clock.advance(datetime.now(UTC).timestamp() - clock.seconds())
    store = CertificateStore(tmp_path, clock=clock)
    options = store.server_options("chat.example.org")
    peer = handshake(options, client_of(store.ca_path), "chat.example.org")
    assert peer["subjectAltName"] == (("DNS", "chat.example.org"),)


def test_a_client_refuses_another_name(tmp_path):
    """The certificate is for its domain only."""
    store = CertificateStore(tmp_path)
    options = store.server_options("chat.example.org")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch"):
        handshake(options, client_of(store.ca_path), "other.example.org")


def test_a_client_without_the_authority_refuses(tmp_path):
    """Nobody else vouches for a generated certificate."""
    store = CertificateStore(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(store.server_options("localhost"), ssl.create_default_context(), "localhost")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "example.org", "10.1.2.3"])
def test_the_push_service_is_reached_by_all_its_names(tmp_path, name):
    """Loopback names, the served domains and its own address are in one certificate."""
    store = CertificateStore(tmp_path, domains=["example.org"])
    options = store.service_options(TLSSection(), ["10.1.2.3"])
    handshake(options, client_of(store.ca_path), name)


def test_twisted_clients_accept_it_too(tmp_path):
    """service-identity, which treq verifies with, is content with name and chain."""
    store = CertificateStore(tmp_path)
    factory = TLSMemoryBIOFactory(
        store.service_options(TLSSection()), False, Factory.forProtocol(Protocol), Clock()
    )
    authority = twisted_ssl.Certificate.loadPEM(store.ca_path.read_bytes())
    verifying = twisted_ssl.optionsForClientTLS(
        "127.0.0.1", twisted_ssl.trustRootFromCertificates([authority])
    )
    client_factory = TLSMemoryBIOFactory(verifying, True, Factory.forProtocol(Protocol), Clock())
    server, client = factory.buildProtocol(None), client_factory.buildProtocol(None)
    to_client, to_server = StringTransport(), StringTransport()
    server.makeConnection(to_client)
    client.makeConnection(to_server)
    for _ in range(6):
        for end, wire in ((server, to_server), (client, to_client)):
            if wire.value():
                data = wire.value()
                wire.clear()
                end.dataReceived(data)
    assert not to_server.disconnecting
    assert client._handshakeDone


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(tmp_path, version):
    """TLS 1.2 is the least."""
    store = CertificateStore(tmp_path)
    options = store.server_options("localhost")
    client = client_of(store.ca_path)
    client.set_ciphers("DEFAULT@SECLEVEL=0")
    client.minimum_version = client.maximum_version = version
    with pytest.raises((ssl.SSLError, Error)):
        handshake(options, client, "localhost")


def test_direct_tls_chooses_by_name(tmp_path):
    """A client gets the domain it names; one that names nothing known gets the first."""
    store = CertificateStore(tmp_path, domains=["one.example", "two.example"])
    options = store.sni_options()
    for name in ("one.example", "two.example", "TWO.example"):
        handshake(options, client_of(store.ca_path), name)
    client = client_of(store.ca_path)
    client.check_hostname = False
    assert handshake(options, client, "stranger.example")["subjectAltName"] == (("DNS", "one.example"),)
    assert handshake(options, client, None)["subjectAltName"] == (("DNS", "one.example"),)


@pytest.mark.parametrize("kind", ["server_options", "service_options", "sni_options"])
@pytest.mark.parametrize("offered", ["xmpp-client", "h2 http/1.1"])
def test_clients_may_offer_protocols(tmp_path, kind, offered):
    """ALPN (RFC 7301) is answered with nothing, not with an alert: each port speaks one protocol anyway."""
    store = CertificateStore(tmp_path, domains=["localhost"])
    arguments = {"server_options": ["localhost"], "service_options": [TLSSection()]}.get(kind, [])
    client = client_of(store.ensure_authority())
    client.set_alpn_protocols(offered.split())
    handshake(getattr(store, kind)(*arguments), client, "localhost")


def test_generated_files_are_private(tmp_path, clock):
    """The folder is 0700, what is in it 0600, and an old folder is tightened."""
    (tmp_path / "tls").mkdir(mode=0o755)
    CertificateStore(tmp_path, clock=clock).server_options("localhost")
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tls").iterdir()}
    assert modes == dict.fromkeys(["authority.pem", "ca.pem", "domain-localhost.pem", "lock"], 0o600)


def test_certificates_fit_their_use(tmp_path, clock):
    """The authority signs certificates only, the certificate signs nothing."""
    store = CertificateStore(tmp_path, clock=clock)
    leaf = leaf_of(store.server_options("bücher.example"))
    authority = x509.load_pem_x509_certificate(store.ca_path.read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert authority.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert authority.not_valid_after_utc == NOW + timedelta(days=3650)
    leaf.verify_directly_issued_by(authority)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert (
        ExtendedKeyUsageOID.SERVER_AUTH
        in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    )
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc) < timedelta(days=825)
    assert names_of(store.server_options("bücher.example")) == ["xn--bcher-kva.example"]


def test_a_restart_keeps_the_certificates(tmp_path, clock, log):
    """What was generated is used again, silently."""
    first = leaf_of(CertificateStore(tmp_path, clock=clock).server_options("localhost"))
    assert len(log) == 2
    again = leaf_of(CertificateStore(tmp_path, clock=clock).server_options("localhost"))
    assert first == again
    assert len(log) == 2


def test_the_same_options_are_given_each_time(tmp_path, clock):
    """A connection costs no file access and no new context."""
    store = CertificateStore(tmp_path, clock=clock)
    assert store.server_options("localhost") is store.server_options("localhost")


def test_a_certificate_is_renewed_before_it_ends(tmp_path, clock, log):
    """With 30 days left a start makes a new one, under the same authority, and says so with its path."""
    store = CertificateStore(tmp_path, clock=clock)
    first, authority = leaf_of(store.server_options("localhost")), store.ca_path.read_bytes()
    clock.advance(789 * DAY)
    assert leaf_of(CertificateStore(tmp_path, clock=clock).server_options("localhost")) == first
    log.clear()
    clock.advance(2 * DAY)
    renewed = CertificateStore(tmp_path, clock=clock)
    assert leaf_of(renewed.server_options("localhost")) != first
    assert renewed.ca_path.read_bytes() == authority
    (event,) = log
    assert event["path"] == str(tmp_path / "tls" / "domain-localhost.pem")


def test_enddates_are_told(tmp_path, clock):
    """Each certificate in use has an end date, for metrics."""
    store = CertificateStore(tmp_path, clock=clock)
    store.server_options("localhost")
    store.service_options(TLSSection())
    assert store.enddates() == dict.fromkeys(["localhost", "[mongoosepush]"], NOW + timedelta(days=820))


def test_other_names_make_another_certificate(tmp_path, clock):
    """A domain that was added to the configuration is in the push service's certificate after a restart."""
    CertificateStore(tmp_path, clock=clock).service_options(TLSSection())
    store = CertificateStore(tmp_path, clock=clock, domains=["new.example"])
    assert "new.example" in names_of(store.service_options(TLSSection()))


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_certificate_is_replaced(tmp_path, clock, content):
    """A generated file that somebody spoiled is made anew."""
    CertificateStore(tmp_path, clock=clock).server_options("localhost")
    (tmp_path / "tls" / "domain-localhost.pem").write_bytes(content)
    assert names_of(CertificateStore(tmp_path, clock=clock).server_options("localhost")) == ["localhost"]


def test_a_damaged_authority_is_left_alone(tmp_path, clock):
    """Clients trust it: it is for the operator to throw it away."""
    CertificateStore(tmp_path, clock=clock).ensure_authority()
    (tmp_path / "tls" / "authority.pem").write_bytes(b"spoiled")
    with pytest.raises(ConfigError) as error:
        CertificateStore(tmp_path, clock=clock).server_options("localhost")
    assert "authority.pem: the generated authority is damaged or expired" in problem_of(error)


def test_a_certificate_of_another_authority_is_replaced(tmp_path, clock):
    """When the operator removes the authority, certificates follow it."""
    CertificateStore(tmp_path, clock=clock).server_options("localhost")
    (tmp_path / "tls" / "authority.pem").unlink()
    store = CertificateStore(tmp_path, clock=clock)
    leaf = leaf_of(store.server_options("localhost"))
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(store.ca_path.read_bytes()))


class Killed(BaseException):
    """Stands for kill -9: nothing of the program catches it."""


@pytest.mark.parametrize("step", ["open", "fchmod", "fsync", "replace"])
@pytest.mark.parametrize("nth", range(1, 7))
def test_a_kill_at_any_step_leaves_something_to_start_with(tmp_path, clock, monkeypatch, step, nth):
    """Whatever system call was the last, the next start works and its files fit each other."""
    owner = Path if step == "replace" else os
    real, calls = getattr(owner, step), []

    def killing(*args, **kwargs):
        calls.append(args)
        if len(calls) == nth:
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killing)
        try:
            CertificateStore(tmp_path, clock=clock).server_options("localhost")
        except Killed:
            pass
        else:
            assert len(calls) < nth
    store = CertificateStore(tmp_path, clock=clock)
    leaf = leaf_of(store.server_options("localhost"))
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(store.ca_path.read_bytes()))
    assert stat.S_IMODE(store.ca_path.stat().st_mode) == 0o600


def _start(folder, barrier, results):
    barrier.wait()
    store = CertificateStore(folder)
    store.server_options("localhost")
    results.put((store.ca_path.read_bytes(), leaf_of(store.server_options("localhost")).serial_number))


def test_two_processes_that_start_at_once_agree(tmp_path):
    """Both see the same authority and the same certificate."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_start, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {results.get(timeout=20) for _ in processes}
    for process in processes:
        process.join(20)
    assert len(found) == 1


def test_the_operators_own_certificate_comes_with_its_chain(tmp_path):
    """A client that knows only the root accepts, since the rest of the file is sent along."""
    section = own_files(tmp_path, now=datetime.now(UTC))
    store = CertificateStore(tmp_path / "data", TLSSection(), {"example.org": section})
    options = store.server_options("example.org")
    assert len(options.extraCertChain) == 1
    handshake(options, client_of(section.certfile), "example.org")
    assert not store.ca_path.exists()


def test_a_certificate_for_another_domain_is_warned_about(tmp_path, clock, log):
    """It may be what the operator wants, but clients will not like it."""
    store = CertificateStore(tmp_path, own_files(tmp_path), clock=clock)
    store.server_options("example.org")
    assert log == []
    store.server_options("other.example")
    (event,) = log
    assert event["domain"] == "other.example"


@pytest.mark.parametrize("names", [[], [x509.DNSName("*")]], ids=["none", "odd"])
def test_a_certificate_with_no_name_to_be_judged_is_warned_about(tmp_path, clock, log, names):
    """Made by hand, with a common name alone for example: the server starts, and says so."""
    authority = make_authority(NOW)
    leaf = issue(authority, ["example.org"], NOW)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(leaf.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    path = tmp_path / "own.pem"
    path.write_bytes(
        certificates._bundle(certificates.Credentials(leaf.key, builder.sign(authority.key, SHA256())))
    )
    CertificateStore(tmp_path, TLSSection(path, path), clock=clock).server_options("example.org")
    (event,) = log
    assert event["domain"] == "example.org"


def test_an_unreadable_certificate_is_one_line(tmp_path, clock):
    """The line names section, key, file and reason."""
    section = TLSSection(tmp_path / "none.pem", tmp_path / "none.key")
    store = CertificateStore(tmp_path, TLSSection(), {"example.org": section}, clock=clock)
    with pytest.raises(ConfigError) as error:
        store.server_options("example.org")
    assert problem_of(error) == (
        f"[tls:example.org] certfile: {tmp_path}/none.pem: no such file or directory"
    )


def test_a_key_of_another_certificate_is_refused(tmp_path, clock):
    """The usual mistake after a renewal."""
    section = own_files(tmp_path)
    other = certificates._bundle(make_authority(NOW))
    section.keyfile.write_bytes(other[: other.index(b"-----BEGIN CERTIFICATE")])
    with pytest.raises(ConfigError) as error:
        CertificateStore(tmp_path, clock=clock).service_options(section)
    assert problem_of(error).startswith("[mongoosepush] keyfile: ")
    assert "not the key of the first certificate" in problem_of(error)


@pytest.mark.parametrize(
    ("days", "words"), [(-900, "expired on 2026-09-03"), (1, "not valid before 2026-11-22")]
)
def test_a_certificate_out_of_its_time_is_refused(tmp_path, clock, days, words):
    """Expired, or not valid yet."""
    section = own_files(tmp_path, now=NOW + timedelta(days=days))
    with pytest.raises(ConfigError) as error:
        CertificateStore(tmp_path, section, clock=clock).server_options("example.org")
    assert words in problem_of(error)


@pytest.mark.parametrize(("which", "words"), [("certfile", "no PEM certificate"), ("keyfile", "no PEM key")])
def test_files_that_are_no_pem_are_refused(tmp_path, clock, which, words):
    """One line, and nothing of the file's content in it."""
    section = own_files(tmp_path)
    getattr(section, which).write_text("secret nonsense")
    with pytest.raises(ConfigError) as error:
        CertificateStore(tmp_path, section, clock=clock).server_options("example.org")
    assert words in problem_of(error)
    assert "secret" not in problem_of(error)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, clock):
    """A file where the data folder should be, for example."""
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigError) as error:
        CertificateStore(tmp_path / "data", clock=clock).ensure_authority()
    assert "cannot keep certificates here: not a directory" in problem_of(error)


def test_keys_stay_out_of_repr(tmp_path):
    """A traceback shows no key."""
    assert "key=" not in repr(make_authority(NOW))


def test_the_ca_file_is_a_certificate_only(tmp_path, clock):
    """It may be copied to clients as it is."""
    path = CertificateStore(tmp_path, clock=clock).ensure_authority()
    assert b"PRIVATE" not in path.read_bytes()
    load_certificate(FILETYPE_PEM, path.read_bytes())
