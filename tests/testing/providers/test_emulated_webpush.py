"""Web Push as the emulator does it: who may send, and what the browser reads."""

import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from xmpppush.testing.providers import Fault, WebPushEmulator
from xmpppush.testing.providers.webpush import (
    Subscription,
    Undecryptable,
    from_base64,
    point_of,
    to_base64,
    vapid_header,
)

# RFC 8291, Appendix A.
RFC_PRIVATE = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
RFC_AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
RFC_MESSAGE = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
    "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
    "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def encrypted(subscription, content, padding=0):
    """RFC 8291 as a sender does it, step by step."""
    key, salt = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    receiver = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), subscription.public_key)
    sender = point_of(key.public_key())
    info = b"WebPush: info\0" + subscription.public_key + sender
    secret = HKDF(SHA256(), 32, subscription.auth, info).derive(key.exchange(ec.ECDH(), receiver))
    content_key = HKDF(SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(secret)
    nonce = HKDF(SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(secret)
    record = AESGCM(content_key).encrypt(nonce, content + b"\2" + b"\0" * padding, None)
    return salt + (4096).to_bytes(4, "big") + b"\x41" + sender + record


@pytest.fixture
def emulator(authority, clock):
    made = WebPushEmulator(authority, clock, host="push.example.org")
    made.port = 443
    return made


@pytest.fixture
def subscription(emulator):
    return emulator.subscribe("browser")


@pytest.fixture
def key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def headers(emulator, key, clock):
    return {
        "authorization": vapid_header(key, emulator.origin, clock.seconds() + 3600),
        "ttl": "60",
        "content-encoding": "aes128gcm",
    }


@pytest.fixture(params=["h1", "h2"])
def client(request, emulator, h1_client, h2_client):
    return h1_client(emulator) if request.param == "h1" else h2_client(emulator)


def test_the_example_of_the_rfc_is_read():
    """RFC 8291 Appendix A: decryption is not only the inverse of our own."""
    private = ec.derive_private_key(int.from_bytes(from_base64(RFC_PRIVATE), "big"), ec.SECP256R1())
    subscription = Subscription("ua", "https://push.example.net/push/ua", private, from_base64(RFC_AUTH))
    assert subscription.decrypt(from_base64(RFC_MESSAGE)) == b"When I grow up, I want to be a watermelon"


def test_a_message_reaches_the_browser(emulator, client, subscription, headers):
    """201 with a Location; padding is taken off."""
    answer = client.ask("/push/browser", headers, encrypted(subscription, b"hello", padding=20))
    assert answer.status == 201
    assert answer.headers["location"].startswith("https://push.example.org:443/message/")
    assert answer.headers["ttl"] == "60"
    assert (emulator.received[0].token, emulator.received[0].content) == ("browser", "hello")


def test_a_message_may_be_empty(emulator, client, subscription, headers):
    """RFC 8030 section 5: a tickle."""
    assert client.ask("/push/browser", headers).status == 201
    assert emulator.received[0].content is None


def test_a_subscription_is_what_browsers_hand_out(emulator, subscription):
    """PushSubscription.toJSON()."""
    content = json.loads(subscription.json)
    assert content["endpoint"] == "https://push.example.org:443/push/browser"
    assert len(from_base64(content["keys"]["p256dh"])) == 65
    assert len(from_base64(content["keys"]["auth"])) == 16


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"ttl": None}, 400, "BadTTL"),
        ({"ttl": "-1"}, 400, "BadTTL"),
        ({"ttl": "soon"}, 400, "BadTTL"),
        ({"urgency": "now"}, 400, "BadUrgency"),
        ({"topic": "x" * 33}, 400, "BadTopic"),
        ({"topic": "a b"}, 400, "BadTopic"),
        ({"content-encoding": "aesgcm"}, 400, "BadEncoding"),
        ({"content-encoding": None}, 400, "BadEncoding"),
        ({"authorization": None}, 401, "MissingVapid"),
        ({"authorization": "WebPush abc"}, 401, "MissingVapid"),
        ({"authorization": "vapid t=abc"}, 403, "BadVapid"),
        ({"authorization": "vapid t=abc, k=abc"}, 403, "BadVapidKey"),
    ],
)
def test_each_header_is_checked(client, subscription, headers, change, status, reason):
    """RFC 8030 sections 5.2 to 5.4, RFC 8291 section 4, RFC 8292 section 3."""
    changed = {name: value for name, value in {**headers, **change}.items() if value is not None}
    answer = client.ask("/push/browser", changed, encrypted(subscription, b"hello"))
    assert (answer.status, json.loads(answer.body)["error"]) == (status, reason)


def test_a_vapid_token_is_checked(emulator, client, subscription, key, headers, clock):
    """Audience, time, contact and signature."""
    now, origin = clock.seconds(), emulator.origin
    good = vapid_header(key, origin, now + 3600)
    other = vapid_header(ec.generate_private_key(ec.SECP256R1()), origin, now + 3600)
    for authorization, reason in (
        (vapid_header(key, "https://push.example.org", now + 3600), "BadVapidAudience"),
        (vapid_header(key, origin, now - 1), "BadVapidExpiry"),
        (vapid_header(key, origin, now + 25 * 3600), "BadVapidExpiry"),
        (vapid_header(key, origin, now + 3600, subject="ops"), "BadVapidSubject"),
        (good.partition("k=")[0] + "k=" + other.partition("k=")[2], "BadVapid"),
    ):
        answer = client.ask("/push/browser", {**headers, "authorization": authorization})
        assert (answer.status, json.loads(answer.body)["error"]) == (403, reason)
    assert client.ask("/push/browser", {**headers, "authorization": good}).status == 201


def test_a_subscription_may_be_bound_to_a_key(emulator, client, headers):
    """RFC 8292 section 4: nobody else may send."""
    own = headers["authorization"].partition("k=")[2]
    emulator.subscribe("own", application_key=own)
    emulator.subscribe("other", application_key=to_base64(emulator.subscribe("any").public_key))
    assert client.ask("/push/own", headers).status == 201
    assert client.ask("/push/other", headers).status == 403


def test_subscriptions_end(client, subscription, headers):
    """410 for one that is over, 404 for one that never was."""
    subscription.gone = True
    assert client.ask("/push/browser", headers).status == 410
    assert client.ask("/push/nobody", headers).status == 404


def test_messages_for_somebody_else_are_refused(emulator, client, subscription, headers):
    """Stricter than a real service, which cannot know."""
    body = encrypted(emulator.subscribe("other"), b"hello")
    assert client.ask("/push/browser", headers, body).status == 400


def test_large_messages_are_refused(client, subscription, headers):
    """Over 4096 octets."""
    most = 4096 - 86 - 17
    assert client.ask("/push/browser", headers, encrypted(subscription, b"x" * most)).status == 201
    assert client.ask("/push/browser", headers, encrypted(subscription, b"x" * (most + 1))).status == 413


@pytest.mark.parametrize("cut", [0, 10, 85, 100])
def test_damaged_messages_are_undecryptable(subscription, cut):
    """Wherever they are damaged."""
    message = encrypted(subscription, b"hello, browser")
    damaged = bytearray(message)
    damaged[cut] ^= 0xFF
    for octets in (message[:cut], bytes(damaged)):
        with pytest.raises(Undecryptable):
            subscription.decrypt(octets)


@pytest.mark.parametrize(("fault", "after"), [("429", "30"), ("503", "10"), ("429 retry_after=5", "5")])
def test_busy_services_say_when_to_come_back(emulator, client, subscription, headers, fault, after):
    """Retry-After (RFC 8030 section 8.4)."""
    emulator.faults.add(fault)
    answer = client.ask("/push/browser", headers)
    assert (answer.status, answer.headers["retry-after"]) == (int(fault[:3]), after)


def test_faults_pick_subscriptions_by_name(emulator, client, headers):
    """The token of a fault is the endpoint's last part."""
    emulator.subscribe("a")
    emulator.subscribe("b")
    emulator.faults.add(Fault("Gone", token="b"))
    assert [client.ask(f"/push/{name}", headers).status for name in "ab"] == [201, 410]
