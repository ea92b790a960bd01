"""The FCM and Web Push pools against the emulators, over TLS on loopback."""

import orjson
import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint

from xmpppush.config.sections import FCMPoolSection, WebPushPoolSection
from xmpppush.errors import DeviceUnregistered, Refused, TryLater
from xmpppush.mongoosepush.fcm import FCMPool
from xmpppush.mongoosepush.webpush import WebPushPool
from xmpppush.testing.providers import (
    FCMEmulator,
    make_fcm_credentials,
    make_test_authority,
)
from xmpppush.testing.providers.webpush import WebPushEmulator

ALERT = {"alert": {"title": "alice", "body": "Hello", "sound": "default"}, "priority": "high"}
SILENT = {"data": {"count": 3, "last": None}}
EXTENSIONS = {"collapse_key": "c", "channel_id": "chat", "analytics_label": "l"}
MIXED = {**ALERT, **SILENT, **EXTENSIONS, "time_to_live": 60}


@pytest.fixture(scope="module")
def authority():
    return make_test_authority()


@pytest.fixture(scope="module")
def account():
    return make_fcm_credentials()


@pytest.fixture
def fcm(authority, account):
    emulator = FCMEmulator(authority, account)
    pytest_twisted.blockon(emulator.listen(reactor))
    yield emulator
    pytest_twisted.blockon(emulator.stop())


@pytest.fixture
def running():
    """Pools to be stopped."""
    pools = []
    yield pools
    for pool in pools:
        pytest_twisted.blockon(pool.stop())


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.ca)
    return path


@pytest.fixture
def fcm_pool(fcm, running, ca_file, tmp_path):
    appfile = tmp_path / "account.json"
    appfile.write_bytes(fcm.service_account())
    section = FCMPoolSection("default", appfile, endpoint=fcm.endpoint, ca_file=ca_file, connections=2)
    pool = FCMPool(section, reactor)
    running.append(pool)
    return pool


async def error_of(pool, device_id, request=ALERT):
    with pytest.raises((DeviceUnregistered, Refused, TryLater)) as caught:
        await pool.push(device_id, request)
    return caught.value


@pytest_twisted.ensureDeferred
async def test_fcm_takes_what_we_send(fcm, fcm_pool):
    """Alert, silent and mixed, checked by FCM's schema; one token, few connections."""
    fcm_pool.start()
    await gatherResults([fcm_pool.push("device", request) for request in (ALERT, SILENT, MIXED) * 5])
    sends = [each.content["android"] for each in fcm.received if each.path != "/token"]
    assert len(sends) == 15
    assert sends[0] == {
        "notification": {"title": "alice", "body": "Hello", "sound": "default"},
        "priority": "HIGH",
    }
    assert sends[1]["data"] == {"count": "3", "last": ""}
    assert {"ttl": "60s", "collapse_key": "c"}.items() <= sends[2].items()
    assert sends[2]["notification"]["channel_id"] == "chat"
    assert fcm.grants == 1
    assert fcm.connections <= 2
    assert fcm_pool.health().connected >= 1


@pytest_twisted.ensureDeferred
async def test_fcm_errors(fcm, fcm_pool):
    """Each class, with the status, details and headers as FCM has them."""
    expected = {
        "UNREGISTERED": (DeviceUnregistered, "unregistered", None),
        "NOT_FOUND": (DeviceUnregistered, "unregistered", None),
        "INVALID_ARGUMENT": (Refused, "invalid_request", None),
        "SENDER_ID_MISMATCH": (TryLater, "service_internal", None),
        "QUOTA_EXCEEDED": (TryLater, "too_many_requests", 60),
        "RESOURCE_EXHAUSTED": (TryLater, "too_many_requests", 60),
        "UNAVAILABLE": (TryLater, "service_internal", 30),
        "INTERNAL": (TryLater, "service_internal", None),
        "UNSPECIFIED_ERROR": (TryLater, "service_internal", None),
        "THIRD_PARTY_AUTH_ERROR": (TryLater, "service_internal", None),
        "APNS_AUTH_ERROR": (TryLater, "service_internal", None),
        "PERMISSION_DENIED": (TryLater, "internal_config", None),
        "garbage": (TryLater, "service_internal", None),
        "empty": (TryLater, "service_internal", None),
        "drop": (TryLater, "connection_lost", None),
    }
    fcm.faults.add(*[f"{word} token={word}" for word in expected])
    found = {word: await error_of(fcm_pool, word) for word in expected}
    assert {
        word: (type(error), str(error), getattr(error, "after", None)) for word, error in found.items()
    } == expected
    assert fcm.grants == 1
    await fcm_pool.push("device", ALERT)
    assert fcm_pool.health().connected >= 1


@pytest_twisted.ensureDeferred
async def test_fcm_refuses_what_is_invalid(fcm, fcm_pool):
    """The schema is FCM's: a time to live below zero is none."""
    error = await error_of(fcm_pool, "device", {**ALERT, "time_to_live": -5})
    assert str(error) == "invalid_request"


@pytest_twisted.ensureDeferred
async def test_fcm_revokes_the_token(fcm, fcm_pool):
    """A restart of ours would be the other way; here nobody notices."""
    await fcm_pool.push("device", ALERT)
    fcm.revoke()
    await gatherResults([fcm_pool.push("device", ALERT) for _ in range(5)])
    assert fcm.grants == 2


@pytest_twisted.ensureDeferred
async def test_fcm_revokes_the_account(fcm, fcm_pool):
    """503 for every notification, and one look-up."""
    await fcm_pool.push("device", ALERT)
    fcm.revoke()
    fcm.faults.add("invalid_grant on=oauth")
    errors = [await error_of(fcm_pool, "device") for _ in range(5)]
    assert [str(error) for error in errors] == ["internal_config"] * 5
    assert fcm_pool.health().connected == 0
    assert len([each for each in fcm.received if each.path == "/token"]) == 2


@pytest_twisted.ensureDeferred
async def test_fcm_with_another_authority(fcm, running, tmp_path):
    """A certificate that does not verify: neither assertion nor notification leaves."""
    (tmp_path / "account.json").write_bytes(fcm.service_account())
    pool = FCMPool(FCMPoolSection("p", tmp_path / "account.json", endpoint=fcm.endpoint), reactor)
    running.append(pool)
    assert str(await error_of(pool, "device")) == "service_internal"
    assert list(fcm.received) == []
    assert pool.health().connected == 0


def recording_endpoints(asked):
    """A way out that notes where to; as a proxy's would be."""

    def endpoint(host, port):
        asked.append((host, port))
        return TCP4ClientEndpoint(reactor, host, port)

    return endpoint


@pytest_twisted.ensureDeferred
async def test_fcm_by_another_way(fcm, running, ca_file, tmp_path):
    """Token endpoint and FCM are both reached by the endpoints given, such as a proxy's."""
    (tmp_path / "account.json").write_bytes(fcm.service_account())
    section = FCMPoolSection("p", tmp_path / "account.json", endpoint=fcm.endpoint, ca_file=ca_file)
    asked = []
    pool = FCMPool(section, reactor, endpoints=recording_endpoints(asked))
    running.append(pool)
    await pool.push("device", ALERT)
    assert set(asked) == {("127.0.0.1", fcm.port)}
    assert fcm.accepted


@pytest.fixture
def webpush(authority):
    emulator = WebPushEmulator(authority)
    pytest_twisted.blockon(emulator.listen(reactor))
    yield emulator
    pytest_twisted.blockon(emulator.stop())


@pytest.fixture
def webpush_pool(running, ca_file, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "vapid.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def make(*allowed_hosts, **options):
        section = WebPushPoolSection(
            "browsers",
            tmp_path / "vapid.pem",
            "mailto:ops@example.org",
            allowed_hosts=allowed_hosts,
            ca_file=ca_file,
        )
        running.append(WebPushPool(section, reactor, **options))
        return running[-1]

    return make


@pytest_twisted.ensureDeferred
async def test_browsers_read_what_we_send(webpush, webpush_pool):
    """Decrypted and with VAPID verified, by JSON and by base64url of it."""
    pool = webpush_pool(webpush.endpoint)
    subscription = webpush.subscribe("one", pool.public_key)
    for request in (ALERT, SILENT, MIXED):
        await pool.push(subscription.json, request)
    contents = [orjson.loads(each.content) for each in webpush.received]
    assert contents == [
        {"title": "alice", "body": "Hello", "sound": "default"},
        {"data": {"count": 3, "last": None}},
        {"title": "alice", "body": "Hello", "sound": "default", "data": {"count": 3, "last": None}},
    ]
    headers = webpush.received[2].headers
    assert (headers["ttl"], headers["urgency"], headers["topic"]) == ("60", "high", "c")
    assert webpush.connections == 1


@pytest_twisted.ensureDeferred
async def test_webpush_errors(webpush, webpush_pool):
    """Subscriptions that ended, another application's, and the service's own troubles."""
    pool = webpush_pool(webpush.endpoint)
    expected = {
        "Gone": "unregistered",
        "NotFound": "unregistered",
        "PayloadTooLarge": "payload_too_large",
        "BadTTL": "invalid_request",
        "TooManyRequests": "too_many_requests",
        "ServiceUnavailable": "service_internal",
        "drop": "connection_lost",
    }
    webpush.faults.add(*[f"{word} token={word}" for word in expected])
    found = {word: str(await error_of(pool, webpush.subscribe(word).json)) for word in expected}
    assert found == expected
    stranger = webpush.subscribe("stranger", "another-key")
    assert str(await error_of(pool, stranger.json)) == "internal_config"
    busy = await error_of(pool, webpush.subscribe("TooManyRequests").json)
    assert busy.after == 30


@pytest_twisted.ensureDeferred
async def test_loopback_has_to_be_listed_with_its_port(webpush, webpush_pool):
    """A host alone does not lead into one's own network."""
    subscription = webpush.subscribe()
    assert str(await error_of(webpush_pool("127.0.0.1"), subscription.json)) == "invalid_request"
    assert webpush.connections == 0


@pytest_twisted.ensureDeferred
async def test_webpush_by_another_way(webpush, webpush_pool):
    """As for FCM."""
    asked = []
    pool = webpush_pool(webpush.endpoint, endpoints=recording_endpoints(asked))
    await pool.push(webpush.subscribe().json, ALERT)
    assert asked == [("127.0.0.1", webpush.port)]
