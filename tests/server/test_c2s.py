from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from OpenSSL import SSL
from scramp import ScramClient
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.words.xish.domish import Element
from zope.interface import implementer
from zope.interface.verify import verifyObject

from xmpppush.config.sections import AuthSection, LimitsSection, ListenSection
from xmpppush.errors import BadStanza, ConfigError, LimitReached
from xmpppush.interfaces import IAuthenticator, ISession, ISessionHost
from xmpppush.jids import BadJid
from xmpppush.model import ScramKeys
from xmpppush.server.c2s import C2SFactory
from xmpppush.server.sasl import MECHANISMS, derive_keys, fits
from xmpppush.server.session import Session
from xmpppush.testing.xmpp import MemoryTransport, StreamPeer, auth, names_of, response
from xmpppush.xep.namespaces import BIND, SASL, STANZA_ERRORS, STREAM_ERRORS, STREAMS, TLS

KEYS = derive_keys("secret")
MESSAGE = "<message to='bob@localhost'><body>Hi</body></message>"


@implementer(IAuthenticator)
class Authenticator:
    """Knows alice and bob, whose password is 'secret'; answers at once, or when it is told to."""

    def __init__(self) -> None:
        self.waiting: Deferred[Any] | None = None
        self.asked = 0

    def keys(self, jid: str, mechanism: str) -> "Deferred[ScramKeys | None]":
        known = jid in ("alice@localhost", "bob@localhost")
        return self._answer(KEYS[mechanism] if known else None)

    def check_password(self, jid: str, password: str) -> "Deferred[bool]":
        known = jid in ("alice@localhost", "bob@localhost")
        return self._answer(known and fits(password, "SCRAM-SHA-1", KEYS["SCRAM-SHA-1"]))

    def _answer(self, result: Any) -> "Deferred[Any]":
        self.asked += 1
        return self.waiting or succeed(result)


@implementer(ISessionHost)
class Host:
    """Writes down what it is told."""

    domains = frozenset(["localhost", "example.org"])

    def __init__(self) -> None:
        self.stanzas: list[Element] = []
        self.sessions: list[Session] = []
        self.unbound: list[Session] = []
        self.problem: Exception | None = None

    def bind(self, session: Session, account: str, resource: str | None) -> str:
        if self.problem is not None:
            raise self.problem
        self.sessions.append(session)
        return resource or "generated"

    def unbind(self, session: Session) -> None:
        self.unbound.append(session)

    def stanza(self, session: Session, stanza: Element) -> "Deferred[None] | None":
        if self.problem is not None:
            raise self.problem
        self.stanzas.append(stanza)
        return None

    def enabled(self, session: Session) -> None:
        pass

    def resumable(self, account: str, resumption_id: str) -> "tuple[Session | None, int | None]":
        return None, None

    def acknowledged(self, session: Session, what: Sequence[object]) -> None:
        pass

    def resumed(self, session: Session) -> None:
        """Nothing is missed here."""

    def broken(self, session: Session) -> None:
        pass

    def overdue(self, session: Session) -> None:
        pass


class Certificates:
    def server_options(self, domain: str) -> str:
        if domain == "example.org":
            raise ConfigError(["no certificate"])
        return f"options for {domain}"


class Listener:
    """A factory, its surroundings and its clients."""

    def __init__(
        self,
        tls: str = "none",
        auth: AuthSection | None = None,
        limits: LimitsSection | None = None,
        backlog: Callable[[], Any] | None = None,
        **listen: Any,
    ) -> None:
        self.clock = Clock()
        self.host = Host()
        self.authenticator = Authenticator()
        self.factory = C2SFactory(
            ListenSection("c2s", "c2s", tls=tls, **{"endpoint": "tcp:0", **listen}),
            auth or AuthSection(allow_plain_without_tls=True),
            limits or LimitsSection(),
            Certificates(),  # type: ignore[arg-type]
            self.authenticator,
            self.host,
            self.clock,
            Random(1),
            backlog,
        )

    def connect(self, address: str = "192.0.2.1", secure: bool = False) -> StreamPeer:
        transport = MemoryTransport(address, secure)
        return StreamPeer(self.factory.buildProtocol(transport.getPeer()), transport)

    def open(self, **options: Any) -> StreamPeer:
        """A client with its features read."""
        peer = self.connect(**options)
        peer.open()
        peer.receive_one()
        return peer

    def log_in(self, user: str = "alice", **options: Any) -> StreamPeer:
        peer = self.open(**options)
        assert peer.log_in_plain(user).name == "success"
        peer.open()
        peer.receive_one()
        return peer

    def bind(self, user: str = "alice", resource: str = "phone", **options: Any) -> StreamPeer:
        peer = self.log_in(user, **options)
        assert peer.bind(resource)["type"] == "result"
        return peer


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def client(listener) -> StreamPeer:
    """Alice, bound as alice@localhost/phone."""
    return listener.bind()


@pytest.fixture
def log():
    """The lines that were logged, as an operator reads them; a failure is its own text."""
    lines: list[str] = []

    def observe(event: dict) -> None:
        if event["log_level"].name != "debug":
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def mechanisms_of(features: Element) -> list[str]:
    return [str(m) for m in features.elements() if m.name == "mechanisms" for m in m.elements()]


def condition_of(failure: Element) -> str:
    assert (failure.uri, failure.name) == (SASL, "failure")
    return next(names_of(failure))


def stanza_error_of(stanza: Element) -> tuple[str, str]:
    assert stanza["type"] == "error"
    [error] = [child for child in stanza.elements() if child.name == "error"]
    return error["type"], next(str(c.name) for c in error.elements() if c.uri == STANZA_ERRORS)


def assert_closed(peer: StreamPeer) -> None:
    assert peer.ended
    assert peer.transport.write_closed or peer.transport.disconnecting


# contracts


def test_it_is_what_it_promises(listener):
    """The connection learns about the end of a TLS handshake, and its session is an ISession."""
    connection = listener.bind().protocol
    verifyObject(ISession, connection.session)
    verifyObject(IHandshakeListener, connection)
    verifyObject(ISessionHost, listener.host)
    verifyObject(IAuthenticator, listener.authenticator)


# headers


def test_header_is_answered(listener):
    """Our header has an id of its own, our domain, version and language; features follow."""
    peer = listener.connect()
    peer.open("LOCALHOST")
    features = peer.receive_one()
    header = peer.header
    assert (header.uri, header.name) == (STREAMS, "stream")
    assert header["from"] == "localhost"
    assert header["version"] == "1.0"
    assert (features.uri, features.name) == (STREAMS, "features")
    other = listener.connect()
    other.open()
    other.receive()
    assert other.header["id"] != header["id"]


def test_header_is_answered_to_whom_it_says(listener):
    """A client that names itself is named in the answer, safely (RFC 6120 section 4.7.2)."""
    peer = listener.connect()
    peer.send(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
        " from='a&apos;b@localhost' to='localhost' version='1.0'>"
    )
    peer.receive()
    assert "to" not in peer.header.attributes
    peer = listener.connect()
    peer.send(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
        " from='Alice@localhost' to='localhost' version='1.0'>"
    )
    peer.receive()
    assert peer.header["to"] == "alice@localhost"


@pytest.mark.parametrize(
    ("header", "condition"),
    [
        (
            "<s:stream xmlns='jabber:client' xmlns:s='urn:x' to='localhost' version='1.0'>",
            "invalid-namespace",
        ),
        (
            "<s:stream xmlns='jabber:server' xmlns:s='STREAMS' to='localhost' version='1.0'>",
            "invalid-namespace",
        ),
        ("<stream xmlns='STREAMS' to='localhost' version='1.0'>", "invalid-namespace"),
        ("<html>", "invalid-namespace"),
        ("<stream:stream to='localhost'>", "bad-namespace-prefix"),
        ("<s:open xmlns='jabber:client' xmlns:s='STREAMS' to='localhost' version='1.0'>", "bad-format"),
        ("<s:stream xmlns='jabber:client' xmlns:s='STREAMS' to='elsewhere' version='1.0'>", "host-unknown"),
        ("<s:stream xmlns='jabber:client' xmlns:s='STREAMS' to='@' version='1.0'>", "host-unknown"),
        ("<s:stream xmlns='jabber:client' xmlns:s='STREAMS' to='a@localhost' version='1.0'>", "host-unknown"),
        ("<s:stream xmlns='jabber:client' xmlns:s='STREAMS' version='1.0'>", "host-unknown"),
        ("<s:stream xmlns='jabber:client' xmlns:s='STREAMS' to='localhost'>", "unsupported-version"),
        (
            "<s:stream xmlns='jabber:client' xmlns:s='STREAMS' to='localhost' version='0.9'>",
            "unsupported-version",
        ),
        (
            "<s:stream xmlns='jabber:client' xmlns:s='STREAMS' to='localhost' version='x'>",
            "unsupported-version",
        ),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>", "restricted-xml"),
    ],
)
def test_bad_headers(listener, log, header, condition):
    """Each has its stream error within a stream of ours, which then ends."""
    peer = listener.connect()
    peer.send(header.replace("STREAMS", STREAMS))
    assert peer.stream_error() == condition
    assert peer.header["from"] in listener.host.domains
    assert_closed(peer)
    assert len(log) == 1
    assert log[0].startswith(f"stream of a client without login at 192.0.2.1 refused: {condition}")


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n"])
def test_no_line_of_the_log_for_what_is_no_stream(listener, log, first):
    """Some clients try direct TLS at each login before they use STARTTLS; others look for open ports."""
    peer = listener.connect()
    peer.send(first)
    assert peer.stream_error() == "not-well-formed"
    assert_closed(peer)
    assert log == []


def test_missing_to_means_the_only_domain(listener):
    """With one served domain a header without 'to' is for that."""
    listener.host.domains = frozenset(["localhost"])
    peer = listener.connect()
    peer.send(f"<s:stream xmlns='jabber:client' xmlns:s='{STREAMS}' version='1.0'>")
    assert peer.receive_one().name == "features"


def test_domain_cannot_change_after_login(listener):
    """An account of one domain is none of another one."""
    peer = listener.open()
    peer.log_in_plain()
    peer.open("example.org")
    assert peer.stream_error() == "host-unknown"


def test_too_slow_to_log_in(listener, log):
    """After unauthenticated_timeout a connection that is not bound ends."""
    peer = listener.log_in()
    listener.clock.advance(29.9)
    assert peer.receive() == []
    listener.clock.advance(0.2)
    assert peer.stream_error() == "connection-timeout"
    assert_closed(peer)


def test_silence_ends_too(listener):
    """Also one that never said anything."""
    peer = listener.connect()
    listener.clock.advance(30)
    assert peer.stream_error() == "connection-timeout"


# TLS


@pytest.mark.parametrize(
    ("tls", "secure", "starttls", "mechanisms"),
    [
        ("required", False, "required", []),
        ("optional", False, "optional", ["SCRAM-SHA-256", "SCRAM-SHA-1"]),
        ("none", False, None, ["SCRAM-SHA-256", "SCRAM-SHA-1"]),
        ("direct", True, None, list(MECHANISMS)),
        ("required", True, None, list(MECHANISMS)),
    ],
)
def test_features_before_login(tls, secure, starttls, mechanisms):
    """Passwords travel in TLS only, and where TLS is required nothing else is offered before it."""
    peer = Listener(tls, AuthSection()).connect(secure=secure)
    peer.open()
    features = peer.receive_one()
    offered = [child for child in features.elements() if child.uri == TLS]
    assert bool(offered) == (starttls is not None)
    if offered:
        assert list(names_of(offered[0])) == (["required"] if starttls == "required" else [])
    assert mechanisms_of(features) == mechanisms


def test_starttls():
    """After <proceed/> the stream begins anew, inside TLS, with the domain's certificate."""
    listener = Listener("required")
    peer = listener.open()
    assert peer.ask(f"<starttls xmlns='{TLS}'/>").name == "proceed"
    assert peer.transport.tls == "options for localhost"
    peer.protocol.handshakeCompleted()
    peer.open()
    features = peer.receive_one()
    assert mechanisms_of(features) == list(MECHANISMS)
    assert all(child.uri != TLS for child in features.elements())
    peer.log_in_plain()
    peer.open()
    peer.receive()
    assert peer.bind("phone")["type"] == "result"


@pytest.mark.parametrize("says_so", [True, False])
def test_closing_inside_tls(says_so):
    """TLS has a goodbye of its own, also behind haproxy, whose transport does not say that it is TLS."""
    listener = Listener("required")
    peer = listener.open()
    peer.transport.says_tls = says_so
    peer.ask(f"<starttls xmlns='{TLS}'/>")
    peer.open()
    peer.receive()
    peer.send("<presence/>")
    assert peer.stream_error() == "not-authorized"
    assert peer.transport.disconnecting
    assert not peer.transport.write_closed


def test_nothing_crosses_into_tls():
    """What somebody wrote behind <starttls/> is not read as if it came through TLS (CVE-2011-0411)."""
    listener = Listener("required")
    peer = listener.open()
    peer.send(f"<starttls xmlns='{TLS}'/><s:stream xmlns:s='{STREAMS}'>" + auth("PLAIN", "\0alice\0secret"))
    assert peer.receive_one().name == "proceed"
    assert listener.authenticator.asked == 0


@pytest.mark.parametrize("tls", ["none", "secure", "no certificate"])
def test_starttls_that_cannot_be(tls, log):
    """Not offered, or no certificate: <failure/>, and the stream ends (RFC 6120 section 5.4.2.2)."""
    listener = Listener("none" if tls == "none" else "optional")
    peer = listener.connect(secure=tls == "secure")
    peer.open("example.org" if tls == "no certificate" else "localhost")
    peer.receive()
    assert peer.ask(f"<starttls xmlns='{TLS}'/>").name == "failure"
    assert_closed(peer)
    assert peer.transport.tls is None


def test_handshake_failure_is_one_line(log):
    """The operator reads who, and what OpenSSL thinks of it."""
    listener = Listener("required")
    peer = listener.open()
    peer.ask(f"<starttls xmlns='{TLS}'/>")
    peer.lose_connection(SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")]))
    assert log == ["TLS handshake with 192.0.2.1 failed: tlsv1 alert unknown ca"]
    assert listener.factory.connections == set()


# login


def test_plain(listener):
    """A right password: success, and bind is offered on the new stream."""
    peer = listener.open()
    success = peer.log_in_plain()
    assert (success.uri, success.name, success.children) == (SASL, "success", [])
    peer.open()
    features = peer.receive_one()
    assert list(names_of(features)) == ["bind", "session", "sm", "csi"]
    assert list(names_of(features.session)) == ["optional"]


def test_plain_without_initial_response(listener):
    """It is asked for with an empty challenge."""
    peer = listener.open()
    challenge = peer.ask(f"<auth xmlns='{SASL}' mechanism='PLAIN'/>")
    assert (challenge.name, challenge.children) == ("challenge", [])
    assert peer.ask(response("\0alice\0secret")).name == "success"


def decoded(element: Element) -> str:
    import base64

    return base64.b64decode(str(element)).decode()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
@pytest.mark.parametrize("at_once", [True, False])
def test_scram(listener, mechanism, at_once):
    """The whole exchange, with and without an initial response; the server proves itself too."""
    peer = listener.open()
    scram = ScramClient([mechanism], "alice", "secret")
    if at_once:
        challenge = peer.ask(auth(mechanism, scram.get_client_first()))
    else:
        assert peer.ask(f"<auth xmlns='{SASL}' mechanism='{mechanism}'/>").name == "challenge"
        challenge = peer.ask(response(scram.get_client_first()))
    scram.set_server_first(decoded(challenge))
    success = peer.ask(response(scram.get_client_final()))
    assert success.name == "success"
    scram.set_server_final(decoded(success))


@pytest.mark.parametrize(
    ("xml", "condition"),
    [
        (auth("PLAIN", "\0alice\0wrong"), "not-authorized"),
        (auth("PLAIN", "\0nobody\0secret"), "not-authorized"),
        (auth("PLAIN", "\0alice@elsewhere\0secret"), "not-authorized"),
        (auth("PLAIN", "bob@localhost\0alice\0secret"), "invalid-authzid"),
        (auth("PLAIN", "alice"), "malformed-request"),
        (auth("SCRAM-SHA-1", "alice"), "malformed-request"),
        (auth("SCRAM-SHA-1", "p=tls-unique,,n=alice,r=abc"), "malformed-request"),
        (f"<auth xmlns='{SASL}' mechanism='PLAIN'>=</auth>", "malformed-request"),
        (f"<auth xmlns='{SASL}' mechanism='PLAIN'>no base64</auth>", "incorrect-encoding"),
        (f"<auth xmlns='{SASL}' mechanism='PLAIN'>AGE</auth>", "incorrect-encoding"),
        (f"<auth xmlns='{SASL}' mechanism='GSSAPI'>AGE=</auth>", "invalid-mechanism"),
        (f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-256-PLUS'/>", "invalid-mechanism"),
        (f"<auth xmlns='{SASL}'>AGE=</auth>", "invalid-mechanism"),
        (f"<response xmlns='{SASL}'>AGE=</response>", "malformed-request"),
        (f"<abort xmlns='{SASL}'/>", "malformed-request"),
    ],
)
def test_failed_logins(listener, log, xml, condition):
    """Each has its SASL condition and one line that has no password; another try is welcome."""
    peer = listener.open()
    assert condition_of(peer.ask(xml)) == condition
    assert len(log) == 1
    assert "192.0.2.1" in log[0]
    assert condition in log[0]
    assert "wrong" not in log[0]
    assert peer.log_in_plain().name == "success"


def test_passwords_need_tls():
    """PLAIN without TLS, or anything where TLS is required, is encryption-required."""
    peer = Listener("optional", AuthSection()).open()
    assert condition_of(peer.log_in_plain()) == "encryption-required"
    peer = Listener("required").open()
    assert condition_of(peer.ask(auth("SCRAM-SHA-1", "n,,n=alice,r=abc"))) == "encryption-required"


def test_abort(listener, log):
    """A client may change its mind between two steps (RFC 6120 section 6.4.4)."""
    peer = listener.open()
    peer.ask(auth("SCRAM-SHA-1", "n,,n=alice,r=abc"))
    assert condition_of(peer.ask(f"<abort xmlns='{SASL}'/>")) == "aborted"
    assert log == []
    assert peer.log_in_plain().name == "success"


def test_bad_base64_in_a_response(listener):
    """As in the first step."""
    peer = listener.open()
    peer.ask(auth("SCRAM-SHA-1", "n,,n=alice,r=abc"))
    assert condition_of(peer.ask(f"<response xmlns='{SASL}'>?</response>")) == "incorrect-encoding"


def test_wrong_scram_password(listener, log):
    """The proof is checked; an unknown account takes as many steps."""
    for user in ("alice", "nobody"):
        peer = listener.open()
        scram = ScramClient(["SCRAM-SHA-256"], user, "wrong")
        scram.set_server_first(decoded(peer.ask(auth("SCRAM-SHA-256", scram.get_client_first()))))
        assert condition_of(peer.ask(response(scram.get_client_final()))) == "not-authorized"
    assert log == [
        f"login of {user}@localhost from 192.0.2.1 failed: not-authorized" for user in ("alice", "nobody")
    ]


def test_store_that_fails(listener, log):
    """Accounts that cannot be looked up: temporary-auth-failure, and the reason in the log."""
    listener.authenticator.waiting = waiting = Deferred()
    peer = listener.open()
    peer.send(auth("PLAIN", "\0alice\0secret"))
    assert not peer.transport.is_reading
    waiting.errback(OSError("disk"))
    assert peer.transport.is_reading
    assert condition_of(peer.receive_one()) == "temporary-auth-failure"
    assert log == ["a login from 192.0.2.1 could not be checked"]
    listener.authenticator.waiting = None
    assert peer.log_in_plain().name == "success"


def test_client_that_goes_while_it_is_looked_up(listener, log):
    """The look-up is cancelled, silently."""
    listener.authenticator.waiting = waiting = Deferred()
    peer = listener.open()
    peer.send(auth("PLAIN", "\0alice\0secret"))
    peer.lose_connection()
    assert waiting.called
    assert log == []
    assert listener.clock.getDelayedCalls() == []


def test_two_logins_at_a_time(listener):
    """A second step before the answer to the first ends the stream."""
    listener.authenticator.waiting = Deferred()
    peer = listener.open()
    peer.send(auth("PLAIN", "\0alice\0secret") * 2)
    assert peer.stream_error() == "policy-violation"


def test_login_goes_on_after_a_slow_look_up(listener):
    """Reading stops meanwhile and goes on then."""
    listener.authenticator.waiting = waiting = Deferred()
    peer = listener.open()
    peer.send(auth("PLAIN", "\0alice\0secret"))
    assert peer.receive() == []
    waiting.callback(True)
    assert peer.receive_one().name == "success"
    assert peer.transport.is_reading


def test_too_many_failures_on_one_connection(listener, log):
    """After max_failures the stream ends (RFC 6120 section 6.4.5)."""
    peer = listener.open()
    for _ in range(4):
        assert condition_of(peer.log_in_plain(password="wrong")) == "not-authorized"
    peer.send(auth("PLAIN", "\0alice\0wrong"))
    assert peer.stream_error() == "policy-violation"
    assert_closed(peer)


def test_throttled(listener, log):
    """An address, or an account, that failed too often is not even looked up until the window is over."""
    for _ in range(5):
        listener.open().log_in_plain(password="wrong")
    assert log[-2:] == [
        "no more logins from 192.0.2.1 for a while: too many failures",
        "no more logins of alice@localhost for a while: too many failures",
    ]
    asked = listener.authenticator.asked
    assert condition_of(listener.open().log_in_plain("bob")) == "temporary-auth-failure"
    elsewhere = "192.0.2.2"
    assert condition_of(listener.open(address=elsewhere).log_in_plain()) == "temporary-auth-failure"
    scram = auth("SCRAM-SHA-1", "n,,n=alice,r=abc")
    assert condition_of(listener.open(address=elsewhere).ask(scram)) == "temporary-auth-failure"
    assert listener.authenticator.asked == asked
    assert listener.open(address=elsewhere).log_in_plain("bob").name == "success"
    listener.clock.advance(60)
    assert listener.open().log_in_plain().name == "success"


def test_many_guesses_at_once_get_no_answer(listener):
    """Guesses that were under way when the limit was reached tell nothing, not even a right one."""
    guesses = []
    for number in range(10):
        peer = listener.open(address=f"192.0.2.{number}")
        listener.authenticator.waiting = waiting = Deferred()
        peer.send(auth("PLAIN", "\0alice\0guess"))
        guesses.append((peer, waiting))
    conditions = []
    for number, (peer, waiting) in enumerate(guesses):
        waiting.callback(number == 9)
        conditions.append(condition_of(peer.receive_one()))
    assert conditions == ["not-authorized"] * 5 + ["temporary-auth-failure"] * 5


def test_success_forgets_failures_of_the_account(listener):
    """Who knows the password may mistype it again."""
    for _ in range(3):
        for _ in range(3):
            listener.open(address="192.0.2.7").log_in_plain(password="wrong")
        listener.factory.addresses.succeeded("192.0.2.7")
        assert listener.open(address="192.0.2.7").log_in_plain().name == "success"


# binding


def test_bind(listener):
    """The wished-for resource, in the full JID; the session knows who it is."""
    peer = listener.log_in()
    result = peer.bind("phone")
    assert (result["type"], result["id"]) == ("result", "bind")
    assert str(next(result.elements(BIND, "bind")).jid) == "alice@localhost/phone"
    [session] = listener.host.sessions
    assert (session.account, session.resource, session.full) == (
        "alice@localhost",
        "phone",
        "alice@localhost/phone",
    )
    assert session.jid.full() == session.full


def test_bind_without_a_resource(listener):
    """The server makes one up."""
    assert str(listener.log_in().bind().bind.jid) == "alice@localhost/generated"


def test_bound_clients_may_be_silent(listener, client):
    """The timeout is for those who do not log in; nothing is left ticking."""
    assert listener.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (BadStanza("no resource"), ("modify", "bad-request")),
        (LimitReached(), ("wait", "resource-constraint")),
    ],
)
def test_bind_that_fails(listener, problem, error):
    """The stanza error of RFC 6120 section 7.6.2, and another try."""
    peer = listener.log_in()
    listener.host.problem = problem
    assert stanza_error_of(peer.bind("phone")) == error
    listener.host.problem = None
    assert peer.bind("phone")["type"] == "result"


def test_bind_of_a_resource_that_is_none(listener):
    """It is no address yet that could be malformed (RFC 6120 section 7.7.2.1)."""
    peer = listener.log_in()
    listener.host.problem = BadJid("not a JID")
    assert stanza_error_of(peer.bind("a")) == ("modify", "bad-request")


@pytest.mark.parametrize("end", ["close", "lost", "abandon"])
def test_who_waits_for_a_client_to_read_finds_it_unbound(listener, end):
    """Or they would send it what they hold, and that would be lost: it can go elsewhere now."""
    session = listener.bind().protocol
    session.pauseProducing()
    seen = []
    session.flushed().addCallback(lambda on_its_way: seen.append((on_its_way, list(listener.host.unbound))))
    if end == "close":
        session.close()
    elif end == "lost":
        session.connectionLost()
    else:
        session.send_xml("x" * 5 * 1024 * 1024)
    assert seen == [(False, [session.session])]


def test_a_stream_error_of_the_client_ends_the_stream(listener, log):
    """It is answered with our closing tag, not with another error (RFC 6120 section 4.9.1.1)."""
    error = f"<stream:error><undefined-condition xmlns='{STREAM_ERRORS}'/></stream:error>"
    for peer in (listener.bind(), listener.log_in(), listener.open()):
        peer.send(error)
        assert peer.stream_error() is None
        assert_closed(peer)
    assert log == []


def test_bind_without_id(listener):
    """An iq needs one."""
    peer = listener.log_in()
    answer = peer.ask(f"<iq type='set'><bind xmlns='{BIND}'/></iq>")
    assert stanza_error_of(answer) == ("modify", "bad-request")


def test_second_bind(client):
    """One resource for one stream."""
    assert stanza_error_of(client.bind("other")) == ("cancel", "not-allowed")


def test_legacy_session(client):
    """Old clients ask for a session after binding: it is there."""
    answer = client.ask("<iq type='set' id='1'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>")
    assert (answer["type"], answer["id"]) == ("result", "1")


# before that


@pytest.mark.parametrize(
    "xml", [MESSAGE, "<presence/>", f"<iq type='set' id='1'><bind xmlns='{BIND}'/></iq>"]
)
def test_stanza_before_login(listener, xml):
    """not-authorized (RFC 6120 section 4.9.3.12); nobody hears of it."""
    peer = listener.open()
    peer.send(xml)
    assert peer.stream_error() == "not-authorized"
    assert_closed(peer)
    assert listener.host.stanzas == listener.host.sessions == []


@pytest.mark.parametrize(
    "xml", [MESSAGE, "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "<iq/>"]
)
def test_stanza_before_binding(listener, xml):
    """The same, between login and resource."""
    peer = listener.log_in()
    peer.send(xml)
    assert peer.stream_error() == "not-authorized"
    assert listener.host.stanzas == []


def test_size_before_login(listener):
    """16 KiB for strangers."""
    peer = listener.open()
    peer.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>" + "A" * 20_000)
    assert peer.stream_error() == "policy-violation"


# stanzas


def test_stanzas_reach_the_host(listener, client):
    """With the sender's full JID on them and in no namespace of their own."""
    client.send(MESSAGE + "<presence/>" + "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>")
    assert [(s.uri, s.name, s["from"]) for s in listener.host.stanzas] == [
        (None, name, "alice@localhost/phone") for name in ("message", "presence", "iq")
    ]
    assert client.receive() == []


@pytest.mark.parametrize("sender", ["alice@localhost", "alice@localhost/phone", "ALICE@localhost/phone"])
def test_own_address_as_sender(listener, client, sender):
    """A client may name itself; the stamp is the full JID all the same."""
    client.send(f"<message from='{sender}'/>")
    assert listener.host.stanzas[0]["from"] == "alice@localhost/phone"


@pytest.mark.parametrize(
    "sender", ["bob@localhost", "alice@localhost/desktop", "localhost", "", "@", "a b@c"]
)
def test_spoofed_sender(listener, client, log, sender):
    """invalid-from (RFC 6120 section 4.9.3.9), one line, and nobody gets it."""
    client.send(f"<message from='{sender}'/><presence/>")
    assert client.stream_error() == "invalid-from"
    assert_closed(client)
    assert listener.host.stanzas == []
    assert log == ["stream of alice@localhost/phone at 192.0.2.1 refused: invalid-from"]


@pytest.mark.parametrize("to", ["", "@", "a@b@c/", "/x", "a b@localhost", "x" * 2000 + "@localhost", "a@"])
def test_bad_address(listener, client, to):
    """jid-malformed, without an address that nobody could read; the stream goes on."""
    answer = client.ask(f"<message to='{to}' id='m'/>")
    assert stanza_error_of(answer) == ("modify", "jid-malformed")
    assert (answer["id"], answer["to"]) == ("m", "alice@localhost/phone")
    assert "from" not in answer.attributes
    client.send(f"<message to='{to}' type='error'/><iq to='{to}' type='result' id='1'/>")
    assert client.receive() == listener.host.stanzas == []


@pytest.mark.parametrize(
    "iq",
    [
        "<iq type='get'><a xmlns='urn:a'/></iq>",
        "<iq type='get' id=''><a xmlns='urn:a'/></iq>",
        "<iq type='get' id='1'/>",
        "<iq type='set' id='1'><a/><b/></iq>",
        "<iq id='1'><a/></iq>",
        "<iq type='ask' id='1'><a/></iq>",
    ],
)
def test_bad_iq(listener, client, iq):
    """bad-request (RFC 6120 section 8.2.3)."""
    assert stanza_error_of(client.ask(iq)) == ("modify", "bad-request")
    assert listener.host.stanzas == []


def test_answers_need_no_child(listener, client):
    """A result may be empty; an answer without id is dropped, for answers are not answered."""
    client.send("<iq type='result' id='1'/><iq type='error' id='2'/><iq type='result'/>")
    assert len(listener.host.stanzas) == 2
    assert client.receive() == []


@pytest.mark.parametrize(
    ("xml", "condition"),
    [
        ("<message xmlns='jabber:server'/>", "invalid-namespace"),
        ("<message xmlns=''/>", "invalid-namespace"),
        ("<note/>", "unsupported-stanza-type"),
        ("<r xmlns='urn:xmpp:sm:3'/>", "unsupported-stanza-type"),
        ("<a xmlns='urn:xmpp:sm:3' h='0'/>", "unsupported-stanza-type"),
        ("<asleep xmlns='urn:xmpp:csi:0'/>", "unsupported-stanza-type"),
        (auth("PLAIN", "\0bob\0secret"), "unsupported-stanza-type"),
        ("<message><body></message>", "not-well-formed"),
        ("<message><!-- --></message>", "restricted-xml"),
        ("<x:message/>", "bad-namespace-prefix"),
        ("hello<presence/", "bad-format"),
        ("<message><body>" + "\n" * 300_000, "policy-violation"),
        ("<message>" + "<a>" * 1000, "policy-violation"),
    ],
)
def test_what_is_no_stanza(listener, client, log, xml, condition):
    """The stream ends with the error of RFC 6120 section 4.9.3, in one line."""
    client.send(xml + ">")
    assert client.stream_error() == condition
    assert_closed(client)
    assert len(log) == 1
    assert listener.host.stanzas == []
    assert listener.host.unbound == listener.host.sessions


def test_stanza_size_after_login():
    """max_stanza_size of the listener."""
    listener = Listener(max_stanza_size=20_000)
    client = listener.bind()
    client.send("<message><body>" + "x" * 19_900 + "</body></message>")
    assert len(listener.host.stanzas) == 1
    client.send("<message><body>" + "x" * 20_000 + "</body></message>")
    assert client.stream_error() == "policy-violation"


def test_host_that_breaks(listener, client, log):
    """internal-server-error for the client, one line without the stanza for the operator, and on it goes."""
    listener.host.problem = ZeroDivisionError("oops")
    answer = client.ask("<message to='bob@localhost' id='1'><body>private</body></message>")
    assert stanza_error_of(answer)[1] == "internal-server-error"
    assert log == ["a stanza of alice@localhost/phone could not be handled"]
    listener.host.problem = None
    client.send(MESSAGE)
    assert len(listener.host.stanzas) == 1


def test_whitespace_keepalive(listener, client):
    """Costs nothing and is not answered."""
    for _ in range(100):
        client.send(" " * 5000)
    client.send("\n<presence/>")
    assert len(listener.host.stanzas) == 1


# sending


def test_sending(client):
    """Elements and ready XML, without repeating the stream's namespace."""
    message = Element((None, "message"))
    message.addElement("body", content="Grüße")
    foreign = message.addElement((None, "x"), "")
    foreign.uri = foreign.defaultUri = ""
    client.protocol.send(message)
    client.protocol.send_xml("<presence/>")
    assert client.transport.value() == (
        "<message><body>Grüße</body><x xmlns=''/></message><presence/>".encode()
    )


def test_client_that_does_not_read(listener, client, log):
    """Four MiB wait for it at the most; then it is gone."""
    client.protocol.send_xml("x" * 10_000_000)  # not counted while the transport takes it
    client.protocol.pauseProducing()
    for _ in range(41):
        client.protocol.send_xml("x" * 100_000)
    assert not client.transport.aborting
    client.protocol.resumeProducing()
    client.protocol.pauseProducing()
    for _ in range(42):
        client.protocol.send_xml("x" * 100_000)
    assert client.transport.aborting
    assert listener.host.unbound == listener.host.sessions
    assert len(log) == 1
    client.lose_connection()
    assert listener.host.unbound == listener.host.sessions


# the end


def test_client_says_goodbye(listener, client, log):
    """Its closing tag is answered with ours."""
    client.send("</stream:stream>")
    client.receive()
    assert_closed(client)
    assert listener.host.unbound == listener.host.sessions
    client.lose_connection()
    assert listener.factory.connections == set()
    assert listener.clock.getDelayedCalls() == []
    assert log == []


def test_connection_that_breaks(listener, client):
    """The host learns of it once."""
    client.lose_connection()
    assert listener.host.unbound == listener.host.sessions
    client.protocol.send_xml("<late/>")
    assert client.transport.value() == b""


def test_session_closed_by_the_server(listener, client, log):
    """A stream error with text, the end, and nothing after it is sent or read; no line in the log."""
    client.protocol.close("conflict", "Replaced & gone")
    client.protocol.close("system-shutdown")
    client.protocol.send_xml("<late/>")
    client.send(MESSAGE)
    data = client.transport.value().decode()
    assert "<conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>" in data
    assert "Replaced &amp; gone" in data
    assert data.endswith("</stream:error></stream:stream>")
    assert listener.host.stanzas == []
    assert log == []


def test_client_that_does_not_close(listener, client):
    """Five seconds after our goodbye the connection is cut."""
    client.protocol.close("conflict")
    listener.clock.advance(4.9)
    assert not client.transport.aborting
    listener.clock.advance(0.2)
    assert client.transport.aborting


def test_client_that_sends_on_after_the_end(listener, client):
    """Read and forgotten for a while, so that it can read our error; not for ever."""
    client.protocol.close("conflict")
    for _ in range(5):
        client.send(b"x" * 2**20)
    assert client.transport.aborting


def test_unbound_before_anything_is_lost(listener, client):
    """With the goodbye the session is no place for messages any more."""
    client.protocol.close("conflict")
    assert listener.host.unbound == listener.host.sessions


# pace


def test_rate():
    """Ten seconds' worth at once, then reading pauses until the rate is kept; nothing is dropped."""
    listener = Listener(limits=LimitsSection(c2s_stanzas_per_second=10))
    client = listener.bind()
    client.send("<presence/>" * 100)
    assert client.transport.is_reading
    client.send("<presence/>" * 5)
    assert not client.transport.is_reading
    listener.clock.advance(0.49)
    assert not client.transport.is_reading
    listener.clock.advance(0.02)
    assert client.transport.is_reading
    assert len(listener.host.stanzas) == 105
    client.send("<presence/>")
    assert not client.transport.is_reading
    listener.clock.advance(1000)
    client.send("<presence/>" * 100)
    assert client.transport.is_reading


def test_rate_unlimited():
    """0 is no limit."""
    listener = Listener(limits=LimitsSection(c2s_stanzas_per_second=0))
    client = listener.bind()
    client.send("<presence/>" * 10_000)
    assert client.transport.is_reading


def test_backlog():
    """While the storage is full nothing more is read."""
    full: list[Deferred[None]] = []
    listener = Listener(backlog=lambda: full[0] if full else None)
    client = listener.bind()
    client.send(MESSAGE)
    assert client.transport.is_reading
    full.append(Deferred())
    client.send(MESSAGE)
    assert not client.transport.is_reading
    full.pop().callback(None)
    assert client.transport.is_reading


def test_closing_a_paused_client(listener):
    """Its goodbye has to be read; nothing is left ticking once it is gone."""
    listener = Listener(limits=LimitsSection(c2s_stanzas_per_second=1))
    client = listener.bind()
    client.send("<presence/>" * 20)
    assert not client.transport.is_reading
    client.protocol.close("conflict")
    assert client.transport.is_reading
    client.lose_connection()
    assert listener.clock.getDelayedCalls() == []


def test_connections_per_address(log):
    """No more of one address than allowed; others are not concerned; one line about it."""
    listener = Listener(limits=LimitsSection(connections_per_address=2))
    first, _ = listener.connect(), listener.connect()
    for _ in range(3):
        assert listener.connect().transport.aborting
    assert not listener.connect("192.0.2.2").transport.aborting
    assert log == ["192.0.2.1 has 2 connections already: refusing more"]
    first.lose_connection()
    assert not listener.connect().transport.aborting


def test_connections_behind_a_proxy():
    """haproxy tells the client's address with the first octets: that one counts, not the proxy's."""
    listener = Listener(
        limits=LimitsSection(connections_per_address=2), endpoint="haproxy:tcp:0", auth=AuthSection()
    )
    proxy = IPv4Address("TCP", "192.0.2.9", 1)
    peers = [StreamPeer(listener.factory.buildProtocol(proxy)) for _ in range(3)]
    for peer in peers:
        peer.open()
    assert [peer.stream_error() for peer in peers] == [None, None, "policy-violation"]
    for peer in peers:
        peer.lose_connection()
    peer = StreamPeer(listener.factory.buildProtocol(proxy))
    peer.open()
    assert peer.receive_one().name == "features"


# stopping


def test_stop(listener, client):
    """Everybody is told system-shutdown; done when all are gone."""
    stranger = listener.connect()
    done = listener.factory.close_all()
    for peer in (client, stranger):
        assert peer.stream_error() == "system-shutdown"
        assert not done.called
        peer.lose_connection()
    assert done.called
    assert listener.connect().transport.aborting
    assert listener.clock.getDelayedCalls() == []


def test_stop_does_not_wait_for_ever(listener, client):
    """After three seconds those that stay are cut off."""
    done, again = listener.factory.close_all(), listener.factory.close_all()
    listener.clock.advance(2.9)
    assert not done.called
    listener.clock.advance(0.2)
    assert done.called
    assert again.called
    assert client.transport.aborting


def test_stop_with_nobody_there(listener):
    """Done at once."""
    assert listener.factory.close_all().called
    assert listener.clock.getDelayedCalls() == []


# figures


def test_stanzas_are_counted(listener):
    """By kind and direction, of all connections together; what is no stanza is not."""
    alice, bob = listener.bind(), listener.bind("bob")
    received, sent = dict(listener.factory.traffic.received), dict(listener.factory.traffic.sent)
    assert received == {}  # binding is the connection's own
    alice.send(MESSAGE * 2 + "<presence/><iq type='get' id='1'><query xmlns='x'/></iq>")
    bob.send("<message type='nonsense'/>")
    assert listener.factory.traffic.received == {"message": 3, "presence": 1, "iq": 1}
    for xml in ("<message/>", "<message from='a'/>", "<presence to='b'/>", "<iq type='result' id='1'/>"):
        bob.protocol.send_xml(xml)
    bob.protocol.close()
    bob.protocol.send_xml("<message/>")
    new = {kind: number - sent[kind] for kind, number in listener.factory.traffic.sent.items()}
    assert new == {"message": 2, "presence": 1, "iq": 1}
