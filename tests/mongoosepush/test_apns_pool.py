"""The APNs pool against the emulator, over TLS on loopback."""

import random
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from xmpppush.config.sections import APNsPoolSection
from xmpppush.errors import ConfigError, DeviceUnregistered, Refused, TryLater, Unreachable
from xmpppush.mongoosepush.apns import APNsPool, path_of
from xmpppush.mongoosepush.apns_answers import MEANINGS
from xmpppush.mongoosepush.pools import IPool
from xmpppush.testing.providers import APNsEmulator, make_apns_credentials, make_test_authority

TOKEN = "00ff" * 16
ALERT = {"mode": "prod", "alert": {"title": "T", "body": "B"}}


@pytest.fixture(scope="module")
def authority():
    return make_test_authority()


@pytest.fixture(scope="module")
def credentials(authority):
    return make_apns_credentials(authority)


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="module")
def files(authority, credentials, tmp_path_factory):
    folder = tmp_path_factory.mktemp("apns")
    made = SimpleNamespace(
        ca=folder / "ca.pem",
        certfile=folder / "cert.pem",
        keyfile=folder / "key.pem",
        p8=folder / "AuthKey.p8",
        folder=folder,
    )
    made.ca.write_bytes(authority.ca)
    made.certfile.write_bytes(credentials.certificate.certificate.public_bytes(Encoding.PEM))
    made.keyfile.write_bytes(pem(credentials.certificate.key))
    made.p8.write_bytes(credentials.p8)
    return made


@pytest.fixture
def emulator(authority, credentials):
    made = APNsEmulator(authority, credentials)
    pytest_twisted.blockon(made.listen(reactor))
    yield made
    pytest_twisted.blockon(made.stop())


@pytest.fixture
def section_of(files, credentials):
    """Makes a section for token authentication, or with ``certificate`` for the other."""

    def make(emulator, certificate=False, **options):
        ways = (
            {"certfile": files.certfile, "keyfile": files.keyfile}
            if certificate
            else {"key_id": credentials.key_id, "team_id": credentials.team_id, "p8_file": files.p8}
        )
        given = {"ca_file": files.ca, "endpoint": getattr(emulator, "endpoint", ""), **ways, **options}
        if not certificate:
            given.setdefault("default_topic", credentials.topic)
        return APNsPoolSection("prod", **given)

    return make


@pytest.fixture
def pool_for(section_of):
    """Makes a pool and starts it; all are stopped in the end."""
    pools = []

    def make(emulator, certificate=False, max_waiting=10_000, **options):
        pool = APNsPool(
            section_of(emulator, certificate, **options), reactor, random.random, max_waiting=max_waiting
        )
        pool.start()
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pytest_twisted.blockon(pool.stop())


@pytest.fixture
def warnings():
    """What the log says at warning and above."""
    lines = []

    def observe(event):
        if event["log_level"].name in ("warn", "error", "critical") and "log_format" in event:
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


async def outcome_of(pool, request=ALERT, device_id=TOKEN):
    try:
        return await pool.push(device_id, request)
    except (TryLater, Refused, DeviceUnregistered) as error:
        return error


@pytest.mark.parametrize("certificate", [False, True], ids=["token", "certificate"])
@pytest_twisted.ensureDeferred
async def test_alert_silent_and_mixed(emulator, pool_for, credentials, certificate):
    """Both ways to authenticate, with the headers that Apple wants of each kind."""
    pool = pool_for(emulator, certificate)
    assert verifyObject(IPool, pool)
    assert pool.default_topic == credentials.topic
    data = {"mode": "prod", "data": {"k": [1, 2.5, None]}}
    for request in (ALERT, data, {**ALERT, **data, "priority": "high"}):
        assert await outcome_of(pool, request) is None
    alert, silent, mixed = emulator.received
    assert alert.path == f"/3/device/{TOKEN}"
    assert alert.json == {"aps": {"alert": {"title": "T", "body": "B"}}}
    assert silent.json == {"k": [1, 2.5, None], "aps": {"content-available": 1}}
    kinds = [each.headers["apns-push-type"] for each in (alert, silent, mixed)]
    assert kinds == ["alert", "background", "alert"]
    assert [each.headers.get("apns-priority") for each in (alert, silent, mixed)] == [None, "5", "10"]
    assert all(each.headers["apns-topic"] == credentials.topic for each in emulator.received)
    assert all(("authorization" in each.headers) is not certificate for each in emulator.received)
    assert (pool.health().connected, pool.health().disconnected) == (1, 0)
    expires = credentials.certificate.certificate.not_valid_after_utc.timestamp()
    assert pool.expires() == (expires if certificate else None)


@pytest_twisted.ensureDeferred
async def test_further_fields(emulator, pool_for, credentials):
    """Collapse id, expiration, thread, and calls with their topic and larger payload."""
    pool = pool_for(emulator)
    request = {**ALERT, "apns_collapse_id": "alice@örtli", "time_to_live": 60, "thread_id": "room"}
    assert await outcome_of(pool, request) is None
    assert await outcome_of(pool, {**ALERT, "apns_expiration": 0}) is None
    call = {"data": {"sdp": "x" * 5000}, "topic": credentials.topic + ".voip"}
    assert await outcome_of(pool, call) is None
    first, second, third = emulator.received
    assert first.headers["apns-collapse-id"].encode("latin-1").decode() == "alice@örtli"
    assert 50 < int(first.headers["apns-expiration"]) - first.time <= 61
    assert first.json["aps"]["thread-id"] == "room"
    assert second.headers["apns-expiration"] == "0"
    assert third.headers["apns-push-type"] == "voip"


@pytest_twisted.ensureDeferred
async def test_too_large_is_not_sent(emulator, pool_for, credentials):
    """4096 bytes, 5120 for calls."""
    pool = pool_for(emulator)
    spare = 4096 - len('{"k":"","aps":{"content-available":1}}')
    assert await outcome_of(pool, {"data": {"k": "x" * spare}}) is None
    for request in (
        {"data": {"k": "x" * (spare + 1)}},
        {"data": {"k": "x" * 5200}, "topic": credentials.topic + ".voip"},
    ):
        error = await outcome_of(pool, request)
        assert (type(error), str(error)) == (Refused, "payload_too_large")
    assert emulator.count == 1


@pytest.mark.parametrize("reason", sorted(MEANINGS))
@pytest_twisted.ensureDeferred
async def test_each_error_of_apple(emulator, pool_for, reason):
    """Each word becomes the class and word of the contract, and keeps Apple's for v1 and v2."""
    emulator.faults.add(f"{reason} retry_after=7")
    pool = pool_for(emulator)
    error = await outcome_of(pool)
    meaning = MEANINGS[reason]
    assert str(error) == meaning.word
    assert error.provider_word == reason
    if meaning.word == "unregistered":
        assert type(error) is DeviceUnregistered
    elif meaning.word in ("invalid_request", "payload_too_large"):
        assert type(error) is Refused
    else:
        assert type(error) is TryLater
        assert error.after == 7.0
    assert pool.health().connected == (0 if meaning.credentials else 1)


@pytest.mark.parametrize("what", ["garbage", "empty"])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_none(emulator, pool_for, what):
    """From something in between: try later."""
    emulator.faults.add(f"{what} times=1")
    pool = pool_for(emulator)
    error = await outcome_of(pool)
    assert (type(error), str(error)) == (TryLater, "service_internal")
    assert await outcome_of(pool) is None


@pytest.mark.parametrize("what", ["reset", "drop"])
@pytest_twisted.ensureDeferred
async def test_a_lost_request(emulator, pool_for, what):
    """A reset stream or connection is told at once, and the next request goes through."""
    emulator.faults.add(f"{what} times=1")
    pool = pool_for(emulator)
    error = await outcome_of(pool)
    assert (type(error), str(error)) == (TryLater, "connection_lost")
    assert await outcome_of(pool) is None


@pytest_twisted.ensureDeferred
async def test_refused_streams_and_goaway_are_not_noticed(emulator, pool_for):
    """They are sent again."""
    emulator.faults.add("refuse times=1", "goaway times=1")
    pool = pool_for(emulator)
    assert await outcome_of(pool) is None
    assert await outcome_of(pool) is None
    assert emulator.count == 2


@pytest_twisted.ensureDeferred
async def test_nobody_there(pool_for, emulator):
    """Told at once; the log has one line and no device."""
    endpoint = emulator.endpoint
    await emulator.stop()
    pool = pool_for(None, endpoint=endpoint)
    for _ in range(3):
        error = await outcome_of(pool)
        assert (type(error), str(error)) == (Unreachable, "unable_to_connect")
    assert (pool.health().connected, pool.health().disconnected) == (0, 1)


@pytest_twisted.ensureDeferred
async def test_a_server_of_another_name_is_refused(credentials, files, pool_for, authority, warnings):
    """Its certificate does not verify: nothing is sent, and the log says why."""
    other = APNsEmulator(make_test_authority(["example.org"], authority=authority.authority), credentials)
    await other.listen(reactor)
    pool = pool_for(other)
    assert str(await outcome_of(pool)) == "unable_to_connect"
    assert other.count == 0
    assert any("certificate is for example.org, not 127.0.0.1" in line for line in warnings)
    await pool.stop()
    await other.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_without_http2_is_refused(emulator, pool_for, warnings):
    """ALPN without h2."""
    emulator.protocols = (b"http/1.1",)
    pool = pool_for(emulator)
    assert str(await outcome_of(pool)) == "unable_to_connect"
    assert any("HTTP/2" in line or "handshake" in line for line in warnings)


@pytest_twisted.ensureDeferred
async def test_an_expired_token_is_renewed_once(emulator, pool_for):
    """The request is repeated with the new one; a second refusal counts."""
    emulator.faults.add("ExpiredProviderToken times=1")
    pool = pool_for(emulator)
    assert await outcome_of(pool) is None
    first, second = emulator.received
    assert first.headers["authorization"] != second.headers["authorization"]
    emulator.faults.add("ExpiredProviderToken")
    error = await outcome_of(pool)
    assert (str(error), error.provider_word) == ("service_internal", "ExpiredProviderToken")
    assert pool.health().connected == 0
    assert emulator.count == 3


@pytest_twisted.ensureDeferred
async def test_credentials_that_work_again_are_healthy(emulator, pool_for, warnings):
    """One line for the trouble, however many requests."""
    emulator.faults.add("InvalidProviderToken times=5")
    pool = pool_for(emulator)
    for _ in range(5):
        assert str(await outcome_of(pool)) == "internal_config"
    assert pool.health().connected == 0
    assert await outcome_of(pool) is None
    assert pool.health().connected == 1
    assert len([line for line in warnings if "InvalidProviderToken" in line]) == 1
    assert all(TOKEN not in line for line in warnings)


@pytest_twisted.ensureDeferred
async def test_a_key_that_apple_does_not_know(emulator, pool_for, files):
    """The emulator checks the signature, as Apple does."""
    other = files.folder / "other.p8"
    other.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    pool = pool_for(emulator, p8_file=other)
    assert str(await outcome_of(pool)) == "internal_config"


@pytest_twisted.ensureDeferred
async def test_beyond_streams_and_queue(authority, credentials, pool_for):
    """Requests wait for a stream, and those that may not are told so."""
    emulator = APNsEmulator(authority, credentials, max_streams=2)
    await emulator.listen(reactor)
    emulator.faults.add("delay=0.05")
    pool = pool_for(emulator, max_waiting=3)
    assert await outcome_of(pool) is None
    results = await DeferredList([pool.push(TOKEN, ALERT) for _ in range(8)], consumeErrors=True)
    words = Counter("" if good else str(result.value) for good, result in results)
    assert words == {"": 5, "too_many_requests": 3}
    await pool.stop()
    await emulator.stop()


@pytest_twisted.ensureDeferred
async def test_apple_begins_with_one_stream(authority, credentials, pool_for):
    """Token authentication: one request until that is accepted."""
    emulator = APNsEmulator(authority, credentials, first_streams=1)
    await emulator.listen(reactor)
    pool = pool_for(emulator)
    results = await DeferredList([pool.push(TOKEN, ALERT) for _ in range(50)])
    assert all(good for good, _ in results)
    await pool.stop()
    await emulator.stop()


@pytest_twisted.ensureDeferred
async def test_five_thousand_through_one_connection(emulator, pool_for):
    """A stream limit of 100 and GOAWAY in the middle: none is lost, none is sent twice."""
    emulator.faults.add("goaway after=1234 times=1", "goaway after=3000 times=1", "refuse every=701 times=5")
    pool = pool_for(emulator)
    ids = [f"{number:064x}" for number in range(5000)]
    for start in range(0, 5000, 250):  # each request has 4.5 s, and both ends share a loaded core
        batch = [pool.push(each, ALERT) for each in ids[start : start + 250]]
        results = await DeferredList(batch, consumeErrors=True)
        assert [result for good, result in results if not good] == []
    assert sorted(each.token for each in emulator.received) == ids
    assert emulator.connections == 3


@pytest_twisted.ensureDeferred
async def test_stop_waits_for_answers(emulator, pool_for):
    """What is in flight is answered; what comes later is refused."""
    emulator.faults.add("delay=0.05")
    pool = pool_for(emulator)
    answered = pool.push(TOKEN, ALERT)
    await Deferred.fromCoroutine(_until(lambda: pool.health().connected))
    stopped = pool.stop()
    assert isinstance(await outcome_of(pool), TryLater)
    assert await answered is None
    await stopped
    assert emulator.count == 1


async def _until(condition):
    for _ in range(200):
        if condition():
            return
        turn = Deferred()
        reactor.callLater(0.01, turn.callback, None)
        await turn


@pytest_twisted.ensureDeferred
async def test_hostile_device_ids_stay_in_their_segment(emulator, pool_for):
    """Encoded once, so that Apple finds them wrong and nothing else happens."""
    pool = pool_for(emulator)
    for device_id in ("a/b", "x?y#z", "a\r\nx: y", "..%2f", "ü" * 100, "\ud800"):
        assert str(await outcome_of(pool, ALERT, device_id)) == "invalid_request"
    assert [each.path for each in emulator.received][:3] == [
        "/3/device/a%2Fb",
        "/3/device/x%3Fy%23z",
        "/3/device/a%0D%0Ax%3A%20y",
    ]
    assert await outcome_of(pool) is None
    assert emulator.connections == 1


@pytest.mark.parametrize("device_id", ["", ".", "..", "x" * 4096, "ü" * 700])
def test_device_ids_that_are_no_path(device_id):
    """Refused before anything is sent."""
    with pytest.raises(Refused):
        path_of(device_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"topic": "a\r\nb"},
        {"topic": "org.exämple"},
        {"topic": "a" * 256},
        {"apns_collapse_id": "ü" * 33},
        {"apns_collapse_id": "a\nb"},
        {"apns_push_type": "nonsense"},
        {"data": {"big": 2**70}},
    ],
)
@pytest_twisted.ensureDeferred
async def test_values_that_cannot_be_sent(emulator, pool_for, fields):
    """Nothing leaves."""
    error = await outcome_of(pool_for(emulator), {**ALERT, **fields})
    assert (type(error), str(error)) == (Refused, "invalid_request")
    assert emulator.count == 0


def config_error(section):
    with pytest.raises(ConfigError) as raised:
        APNsPool(section, reactor, random.random)
    (problem,) = raised.value.problems
    return problem


def test_files_that_cannot_be_used(section_of, files, credentials):
    """One line each, with the place and the way out."""
    place = "[mongoosepush:apns:prod]"
    rsa_like = files.folder / "curve.p8"
    rsa_like.write_bytes(pem(ec.generate_private_key(ec.SECP384R1())))
    other = files.folder / "other_key.pem"
    other.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    missing = files.folder / "nothing.pem"
    cases = [
        (section_of(None, p8_file=missing), f"{place} p8_file: {missing}: no such file or directory"),
        (section_of(None, p8_file=files.ca), f"{place} p8_file: {files.ca}: no private key in it"),
        (section_of(None, p8_file=rsa_like), f"{place} p8_file: {rsa_like}: not a key for ES256"),
        (section_of(None, True, certfile=missing), f"{place} certfile: {missing}: no such file"),
        (section_of(None, True, certfile=files.keyfile), f"{place} certfile: {files.keyfile}: no PEM"),
        (section_of(None, True, keyfile=other), f"{place} keyfile: {other}: not the key of"),
        (section_of(None, ca_file=missing), f"{place} ca_file: {missing}: no such file or directory"),
        (section_of(None, ca_file=files.keyfile), f"{place} ca_file: {files.keyfile}: no PEM certificate"),
        (section_of(None, default_topic="a b"), f"{place} default_topic: a topic has no spaces"),
    ]
    for section, beginning in cases:
        assert config_error(section).startswith(beginning)


def test_an_expired_certificate_is_refused_at_start(section_of, files, authority):
    """With the date."""
    old = make_apns_credentials(authority, lifetime=timedelta(days=-1)).certificate
    certfile, keyfile = files.folder / "old.pem", files.folder / "old_key.pem"
    certfile.write_bytes(old.certificate.public_bytes(Encoding.PEM))
    keyfile.write_bytes(pem(old.key))
    assert "expired on" in config_error(section_of(None, True, certfile=certfile, keyfile=keyfile))


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({}, ("api.push.apple.com", 443)),
        ({"mode": "dev", "use_2197": True}, ("api.sandbox.push.apple.com", 2197)),
        ({"endpoint": "apns.example"}, ("apns.example", 443)),
        ({"endpoint": "apns.example", "use_2197": True}, ("apns.example", 2197)),
        ({"endpoint": "apns.example:8443", "use_2197": True}, ("apns.example", 8443)),
        ({"endpoint": "[::1]:8443"}, ("::1", 8443)),
        ({"endpoint": "::1"}, ("::1", 443)),
    ],
)
def test_where_it_connects(section_of, options, address):
    """Apple's hosts by mode, unless told otherwise."""
    asked = []

    def endpoint_for(host, port):
        asked.append((host, port))

    APNsPool(section_of(None, **options), reactor, random.random, endpoint_for=endpoint_for)
    assert asked == [address]
