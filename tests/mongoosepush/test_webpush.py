"""The Web Push pool, with the push service in memory."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

import http_ece
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from zope.interface.verify import verifyObject

from xmpppush.config.sections import WebPushPoolSection
from xmpppush.errors import ConfigError, DeviceUnregistered, Refused, TryLater
from xmpppush.mongoosepush import webpush
from xmpppush.mongoosepush.payloads import webpush_headers
from xmpppush.mongoosepush.pools import IPool
from xmpppush.mongoosepush.subscriptions import read_subscription
from xmpppush.mongoosepush.webpush import MAX_PLAINTEXT, WebPushPool, error_of, read_content

ALERT = {"alert": {"title": "alice", "body": "Hello", "badge": 2, "tag": "alice"}}
HOST = "updates.push.services.mozilla.com"


def octets(text):
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def text_of(content):
    return urlsafe_b64encode(content).decode().rstrip("=")


def pem_of(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Browser:
    """A subscription and what it decrypts."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = b"0123456789abcdef"

    def device_id(self, endpoint=f"https://{HOST}/wpush/v2/TOKEN"):
        public = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": text_of(public), "auth": text_of(self.auth)}
        return orjson.dumps({"endpoint": endpoint, "keys": keys}).decode()

    def decrypt(self, body):
        return orjson.loads(http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth))


@pytest.fixture
def browser():
    return Browser()


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "vapid.pem"
    path.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1())))
    return path


@pytest.fixture
def pool_with(google, clock, key_file):
    def make(max_waiting=10_000, **section):
        section = WebPushPoolSection(
            "browsers", **{"vapid_key_file": key_file, "subject": "mailto:ops@example.org", **section}
        )
        return WebPushPool(section, clock, max_waiting=max_waiting, endpoint_for=google)

    return make


def test_it_is_a_pool(pool_with):
    """As `IPool` says."""
    pool = pool_with(tags=("a",), mode="dev")
    pool.start()
    assert verifyObject(IPool, pool)
    assert (pool.name, pool.service, pool.mode, pool.tags) == ("browsers", "webpush", "dev", {"a"})
    assert pool.expires() is None
    assert pool.health().connected == 1


def test_encryption_of_the_rfc(pool_with, monkeypatch):
    """The example of RFC 8291 section 5, octet by octet."""
    private = int.from_bytes(octets("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big")
    sender = ec.derive_private_key(private, ec.SECP256R1())
    monkeypatch.setattr(webpush, "generate_private_key", lambda curve: sender)
    monkeypatch.setattr("os.urandom", lambda size: octets("DGv6ra1nlYgDCS1FRnbzlw")[:size])
    keys = {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    }
    subscription = read_subscription(orjson.dumps({"endpoint": "https://a.example", "keys": keys}).decode())
    sealed = pool_with()._encrypt(b"When I grow up, I want to be a watermelon", subscription)
    assert text_of(sealed) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz"
        "AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


def test_a_notification(pool_with, google, browser, outcome):
    """What the browser reads, and what its push service sees."""
    pool = pool_with()
    assert outcome(pool.push(browser.device_id(), {**ALERT, "data": {"n": 1}})) is None
    ((headers, body),) = google.sends
    assert google.paths == ["/wpush/v2/TOKEN"]
    assert browser.decrypt(body) == {
        "title": "alice",
        "body": "Hello",
        "badge": 2,
        "tag": "alice",
        "data": {"n": 1},
    }
    assert headers["host"] == HOST
    assert headers["content-encoding"] == "aes128gcm"
    assert headers["ttl"] == "86400"
    assert "urgency" not in headers
    assert "topic" not in headers


def test_silent(pool_with, google, browser, outcome):
    """Data as it came."""
    assert outcome(pool_with().push(browser.device_id(), {"data": {"k": [1, None]}})) is None
    assert browser.decrypt(google.sends[0][1]) == {"data": {"k": [1, None]}}


def test_each_push_has_its_own_key(pool_with, google, browser):
    """Salt and key pair are never used again."""
    pool = pool_with()
    for _ in range(2):
        pool.push(browser.device_id(), ALERT)
    first, second = [body for _, body in google.sends]
    assert first[:16] != second[:16]
    assert first[21:86] != second[21:86]


@pytest.mark.parametrize(
    ("request_", "headers"),
    [
        ({}, [("TTL", "86400")]),
        ({"time_to_live": 0}, [("TTL", "0")]),
        ({"time_to_live": -5}, [("TTL", "0")]),
        ({"priority": "high", "time_to_live": 60}, [("TTL", "60"), ("Urgency", "high")]),
        ({"priority": "normal"}, [("TTL", "86400"), ("Urgency", "normal")]),
        ({"collapse_key": "chat-7_a"}, [("TTL", "86400"), ("Topic", "chat-7_a")]),
        (
            {"collapse_key": "alice@example.org\r\nX: y"},
            [("TTL", "86400"), ("Topic", text_of(sha256(b"alice@example.org\r\nX: y").digest())[:32])],
        ),
    ],
)
def test_headers(request_, headers):
    """RFC 8030 section 5; a collapse key that is no topic goes by its hash."""
    assert webpush_headers(request_) == headers


def test_vapid(pool_with, google, browser, key_file, clock):
    """One token for each push service, used for eleven hours (RFC 8292 section 2)."""
    pool = pool_with(allowed_hosts=("push.example", "other.example:8443"))
    for endpoint in ("https://push.example/1", "https://push.example/2", "https://other.example:8443/3"):
        pool.push(browser.device_id(endpoint), ALERT)
    clock.advance(11 * 3600)
    pool.push(browser.device_id("https://push.example/4"), ALERT)
    tokens = []
    for headers, _ in google.sends:
        scheme, token, key = headers["authorization"].split(" ")
        assert scheme == "vapid"
        assert key == f"k={pool.public_key}"
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), octets(pool.public_key))
        claims = jwt.decode(
            token[2:-1],
            public,
            algorithms=["ES256"],
            options={"verify_aud": False, "verify_exp": False},
        )
        tokens.append((token, claims["aud"], claims["exp"] - 1_700_000_000))
        assert claims["sub"] == "mailto:ops@example.org"
    assert [(audience, end) for _, audience, end in tokens] == [
        ("https://push.example", 43200),
        ("https://push.example", 43200),
        ("https://other.example:8443", 43200),
        ("https://push.example", 82800),
    ]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("code", "kind", "word", "after"),
    [
        (404, DeviceUnregistered, "unregistered", None),
        (410, DeviceUnregistered, "unregistered", None),
        (400, Refused, "invalid_request", None),
        (413, Refused, "payload_too_large", None),
        (401, TryLater, "internal_config", 7.0),
        (403, TryLater, "internal_config", 7.0),
        (429, TryLater, "too_many_requests", 7.0),
        (503, TryLater, "service_internal", 7.0),
        (500, TryLater, "service_internal", 7.0),
        (301, Refused, "invalid_request", None),
        (307, Refused, "invalid_request", None),
    ],
)
def test_errors(pool_with, google, browser, outcome, logged, code, kind, word, after):
    """What the status means; a redirect is not followed."""
    google.send_answers = [(code, b"no", {"Retry_After": "7", "Location": "https://127.0.0.1/"})]
    error = outcome(pool_with().push(browser.device_id(), ALERT))
    assert type(error) is kind
    assert str(error) == word
    assert getattr(error, "after", None) == after
    assert len(google.sends) == 1
    assert "TOKEN" not in "".join(logged)


@pytest.mark.parametrize("code", [200, 201, 202, 204])
def test_successes(pool_with, google, browser, outcome, code):
    """Push services differ."""
    google.send_answers = [(code, b"", {})]
    assert outcome(pool_with().push(browser.device_id(), ALERT)) is None


def test_statuses_that_nobody_knows():
    """By their hundred."""
    assert str(error_of(599, None)) == "service_internal"
    assert str(error_of(418, None)) == "invalid_request"


def test_what_is_not_allowed_is_not_connected_to(pool_with, google, browser, outcome, logged):
    """One line with the host, however often."""
    pool = pool_with()
    for path in "abc":
        error = outcome(pool.push(browser.device_id(f"https://169.254.169.254/{path}"), ALERT))
        assert type(error) is Refused
        assert str(error) == "invalid_request"
    assert google.sends == []
    assert logged == [
        "webpush pool browsers: a subscription's push service is not in allowed_hosts: 169.254.169.254"
    ]


def test_unreachable(pool_with, google, browser, outcome, logged, clock):
    """Said for each push service when it begins and when it is over."""
    google.refuses = True
    pool = pool_with()
    assert [str(outcome(pool.push(browser.device_id(), ALERT))) for _ in range(3)] == [
        "unable_to_connect"
    ] * 3
    clock.advance(5)
    google.refuses = False
    assert outcome(pool.push(browser.device_id(), ALERT)) is None
    assert logged == [
        f"webpush pool browsers: {HOST} cannot be reached: connection refused",
        f"webpush pool browsers: {HOST} answers again after 5.0 s",
    ]


def test_limit(pool_with, google, browser, outcome):
    """More than connections and places to wait get 429."""
    pool = pool_with(connections=1, max_waiting=1)
    google.send_answers = ["hang"]
    pushed = [pool.push(browser.device_id(), ALERT) for _ in range(3)]
    assert str(outcome(pushed[2])) == "too_many_requests"
    google.let_go()
    assert [outcome(each) for each in pushed[:2]] == [None, None]


def test_size():
    """One record of 4096 octets, so 3993 of content (RFC 8291 section 4)."""
    empty = len(read_content({"data": {"k": ""}}))
    assert len(read_content({"data": {"k": "x" * (MAX_PLAINTEXT - empty)}})) == MAX_PLAINTEXT
    with pytest.raises(Refused, match="payload_too_large"):
        read_content({"data": {"k": "x" * (MAX_PLAINTEXT - empty + 1)}})
    with pytest.raises(Refused, match="invalid_request"):
        read_content({"data": {"k": "\udcff"}})


def test_the_longest_fits_4096(pool_with, google, browser):
    """What push services have to take."""
    fill = MAX_PLAINTEXT - len(read_content({"data": {"k": ""}}))
    pool_with().push(browser.device_id(), {"data": {"k": "x" * fill}})
    assert len(google.sends[0][1]) == 4096


def test_push_services_are_forgotten(pool_with, google, browser, outcome, monkeypatch):
    """Clients choose names below ``*.``; what is kept of them is bounded."""
    monkeypatch.setattr(webpush, "MAX_SERVICES", 3)
    pool = pool_with(allowed_hosts=("*.push.example",))
    for number in (*range(8), 7, 0):
        assert outcome(pool.push(browser.device_id(f"https://h{number}.push.example/"), ALERT)) is None
    assert len(pool._services) == 3
    assert len(pool._public._pools) == 3
    assert pool.health().connected == 3


def test_stop(pool_with, google, browser, outcome, clock):
    """Three seconds for what is in flight, and then nothing ticks."""
    pool = pool_with()
    google.send_answers = ["hang"]
    pushed = pool.push(browser.device_id(), ALERT)
    stopped = pool.stop()
    clock.advance(3)
    assert str(outcome(pushed)) == "service_internal"
    assert stopped.called
    clock.advance(10)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"subject": "ops@example.org"}, "subject: 'ops@example.org' is neither mailto:... nor https://..."),
        ({"allowed_hosts": ("*",)}, "allowed_hosts: '*' is neither"),
        ({"allowed_hosts": ("*.com",)}, "allowed_hosts: '*.com' lets out too much"),
    ],
)
def test_configuration(pool_with, section, problem):
    """Each with its key."""
    with pytest.raises(ConfigError) as caught:
        pool_with(**section)
    (line,) = caught.value.problems
    assert line.startswith(f"[mongoosepush:webpush:browsers] {problem}")


@pytest.mark.parametrize(
    "content", [None, b"", b"SECRET words", pem_of(ec.generate_private_key(ec.SECP384R1()))]
)
def test_bad_keys(pool_with, tmp_path, content):
    """One line with the file and the command that makes one; nothing of its content."""
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        pool_with(vapid_key_file=path)
    (line,) = caught.value.problems
    assert line.startswith(f"[mongoosepush:webpush:browsers] vapid_key_file: {path}: ")
    assert "openssl ecparam" in line or "No such file" in line
    assert "SECRET" not in line.replace(str(path), "")


def test_without_the_library(pool_with, monkeypatch):
    """The line says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "http_ece", None)
    with pytest.raises(ConfigError, match=r"pip install 'xmpppush\[webpush\]'"):
        pool_with()
