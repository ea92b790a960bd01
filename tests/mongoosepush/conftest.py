"""Google in memory: a token endpoint and FCM behind an endpoint that connects at once."""

from urllib.parse import parse_qs

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from httptools import HttpRequestParser
from twisted.internet.defer import fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

HANG, DROP = "hang", "drop"


def fcm_error(code, status, word=None, **headers):
    """An answer of FCM's: ``word`` is the errorCode of a detail."""
    error = {"code": code, "message": "of no interest: DEVICE-TOKEN", "status": status}
    if word:
        error["details"] = [
            {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": word}
        ]
    return code, {"error": error}, headers


class _Server(StringTransport):
    """The transport of a client protocol; what is written to it is a request at Google's."""

    def __init__(self, google, origin, protocol):
        super().__init__()
        self.google, self.origin, self.protocol = google, origin, protocol
        self.open = True

    def write(self, data):
        # The answer may set off the next request, before this call is over.
        HttpRequestParser(self).feed_data(data)

    def on_message_begin(self):
        self.path, self.headers, self.body = b"", {}, b""

    def on_url(self, url):
        self.path += url

    def on_header(self, name, value):
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.google.asked(self, self.path.decode(), dict(self.headers), self.body)

    def answer(self, code, content, headers=()):
        body = content if isinstance(content, bytes) else orjson.dumps(content)
        lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in dict(headers).items()]
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)

    def loseConnection(self):
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(ConnectionDone()))

    abortConnection = loseConnection


@implementer(IStreamClientEndpoint)
class _Way:
    def __init__(self, google, origin):
        self.google, self.origin = google, origin

    def connect(self, factory):
        if self.google.refuses:
            return fail(ConnectionRefusedError())
        protocol = factory.buildProtocol(None)
        server = _Server(self.google, self.origin, protocol)
        protocol.makeConnection(server)
        if hasattr(protocol, "handshakeCompleted"):
            protocol.handshakeCompleted()
        return succeed(protocol)


class Google:
    """
    Answers as scripted, and well where nothing is.

    Attributes:
        grants, sends: Requests that came: form, and (headers, JSON).
        grant_answers, send_answers: For the next ones: (code, content, headers), `HANG` or `DROP`.
        refuses: No connections.
    """

    def __init__(self):
        self.grants, self.sends, self.paths = [], [], []
        self.grant_answers, self.send_answers = [], []
        self.lifetime = 3600
        self.refuses = False
        self.held = []

    def __call__(self, origin):
        return _Way(self, origin)

    def asked(self, server, path, headers, body):
        if path == "/token":
            self.grants.append({name: value for name, (value,) in parse_qs(body.decode()).items()})
            script = self.grant_answers
            usual = 200, {"access_token": f"token-{len(self.grants)}", "expires_in": self.lifetime}, {}
        else:
            self.paths.append(path)
            is_json = headers.get("content-type") == "application/json"
            self.sends.append((headers, orjson.loads(body) if is_json else body))
            script = self.send_answers
            usual = 200, {"name": "projects/p/messages/1"}, {}
        answer = script.pop(0) if script else usual
        if answer == HANG:
            self.held.append((server, usual))
        elif answer == DROP:
            server.loseConnection()
        else:
            server.answer(*answer)

    def let_go(self):
        """Answer what hangs."""
        held, self.held = self.held, []
        for server, usual in held:
            server.answer(*usual)


@pytest.fixture
def clock():
    it = Clock()
    it.advance(1_700_000_000)
    return it


@pytest.fixture
def google():
    return Google()


@pytest.fixture(scope="session")
def service_account():
    """The content of a service account's file, and its public key."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    content = {
        "type": "service_account",
        "project_id": "project-1",
        "private_key_id": "key-1",
        "private_key": pem,
        "client_email": "push@project-1.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.example/token",
    }
    return content, key.public_key()


@pytest.fixture
def appfile(service_account, tmp_path):
    path = tmp_path / "account.json"
    path.write_bytes(orjson.dumps(service_account[0]))
    return path


@pytest.fixture
def logged():
    """The events that are logged in the test, as text."""
    lines = []

    def observe(event):
        if event.get("log_format"):
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def outcome(deferred):
    """What it has fired with; an exception for a failure, ``...`` for nothing yet."""
    found = []
    deferred.addBoth(found.append)
    if not found:
        return ...
    return found[0].value if isinstance(found[0], Failure) else found[0]


@pytest.fixture(name="outcome")
def outcome_fixture():
    return outcome


@pytest.fixture(name="fcm_error")
def fcm_error_fixture():
    return fcm_error
