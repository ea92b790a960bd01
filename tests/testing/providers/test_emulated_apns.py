"""APNs as the emulator does it, seen by the library h2."""

import json
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from xmpppush.testing.providers import (
    APNsEmulator,
    Device,
    make_apns_credentials,
    make_test_authority,
    sign_token,
)
from xmpppush.testing.providers.apns import REASONS
from xmpppush.testing.providers.credentials import DEVELOPMENT, PRODUCTION

TOKEN = "0a" * 32
PATH = f"/3/device/{TOKEN}"
BODY = b'{"aps":{"alert":"hello"}}'


@pytest.fixture
def emulator(authority, apns_credentials, clock):
    return APNsEmulator(authority, apns_credentials, clock)


@pytest.fixture
def headers(apns_credentials, clock):
    """Those of an alert with token authentication."""
    return {
        "authorization": f"bearer {sign_token(apns_credentials, clock.seconds())}",
        "apns-topic": "com.example.chat",
        "apns-push-type": "alert",
        "apns-priority": "10",
    }


@pytest.fixture
def client(emulator, h2_client):
    return h2_client(emulator)


def reason(answer):
    return answer.status, json.loads(answer.body)["reason"]


def test_a_notification_is_taken(emulator, client, headers):
    """200 without a body, with an apns-id; the emulator shows what the device would get."""
    answer = client.ask(PATH, headers, BODY)
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)
    assert len(answer.headers["apns-id"]) == 36
    [received] = emulator.received
    assert (received.token, received.status, received.content) == (TOKEN, 200, {"aps": {"alert": "hello"}})
    assert received.headers["apns-priority"] == "10"
    assert (emulator.count, emulator.accepted) == (1, 1)


def test_an_apns_id_comes_back(client, headers):
    """With errors, too."""
    identity = "123E4567-E89B-12D3-A456-4266554400A0"
    assert client.ask(PATH, {**headers, "apns-id": identity}, BODY).headers["apns-id"] == identity
    assert client.ask(PATH, {**headers, "apns-id": identity}).headers["apns-id"] == identity


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"apns-topic": None}, "MissingTopic"),
        ({"apns-topic": "com.example.other"}, "TopicDisallowed"),
        ({"apns-push-type": "loud"}, "InvalidPushType"),
        ({"apns-push-type": "voip"}, "DeviceTokenNotForTopic"),
        ({"apns-priority": "7"}, "BadPriority"),
        ({"apns-priority": "high"}, "BadPriority"),
        ({"apns-expiration": "tomorrow"}, "BadExpirationDate"),
        ({"apns-collapse-id": "x" * 65}, "BadCollapseId"),
        ({"apns-id": "17"}, "BadMessageId"),
        ({"authorization": None}, "MissingProviderToken"),
        ({"authorization": "bearer nonsense"}, "InvalidProviderToken"),
        ({"authorization": "basic YTpi"}, "InvalidProviderToken"),
    ],
)
def test_each_header_is_checked(client, headers, change, expected):
    """With the reason of Apple's table, and its status."""
    changed = {name: value for name, value in {**headers, **change}.items() if value is not None}
    assert reason(client.ask(PATH, changed, BODY)) == (REASONS[expected], expected)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/3/device/", BODY, "MissingDeviceToken"),
        ("/3/device", BODY, "MissingDeviceToken"),
        ("/3/devices/00", BODY, "BadPath"),
        ("/3/device/xyz", BODY, "BadDeviceToken"),
        ("/3/device/0a0", BODY, "BadDeviceToken"),
        (f"/3/device/{'0a' * 101}", BODY, "BadDeviceToken"),
        (f"{PATH}/../x", BODY, "BadDeviceToken"),
        (PATH, b"", "PayloadEmpty"),
        (PATH, b"[]", "PayloadEmpty"),
        (PATH, b'{"aps":', "PayloadEmpty"),
    ],
)
def test_path_and_payload_are_checked(client, headers, path, body, expected):
    """A token is hexadecimal, a payload a JSON object."""
    assert reason(client.ask(path, headers, body)) == (REASONS[expected], expected)


def test_only_post_is_allowed(client, headers):
    """405 for anything else."""
    assert reason(client.ask(PATH, headers, method="GET")) == (405, "MethodNotAllowed")


def test_repeated_headers_are_refused(client, headers):
    """Two topics are none."""
    answer = client.ask(PATH, headers, BODY, extra=[("apns-topic", "com.example.chat")])
    assert reason(answer) == (400, "DuplicateHeaders")


@pytest.mark.parametrize(("push_type", "topic", "limit"), [("alert", "", 4096), ("voip", ".voip", 5120)])
def test_a_payload_has_a_limit(client, headers, push_type, topic, limit):
    """4 KiB, and 5 KiB for calls."""
    headers = {**headers, "apns-push-type": push_type, "apns-topic": f"com.example.chat{topic}"}
    body = b'{"x":"%s"}' % (b"x" * (limit - 8))
    assert client.ask(PATH, headers, body).status == 200
    assert reason(client.ask(PATH, headers, body[:-2] + b'x"}')) == (413, "PayloadTooLarge")


def test_a_huge_body_is_refused_before_its_end(client, headers):
    """Nobody is made to send megabytes."""
    assert reason(client.ask(PATH, headers, b"x" * 300_000)) == (413, "PayloadTooLarge")
    assert client.ask(PATH, headers, BODY).status == 200


def test_devices_may_be_gone_or_of_another_app(emulator, client, headers, clock):
    """410 says since when, in milliseconds."""
    emulator.unregister(TOKEN.upper(), since=clock.seconds() - 60)
    answer = client.ask(PATH, headers, BODY)
    assert reason(answer) == (410, "Unregistered")
    assert json.loads(answer.body)["timestamp"] == int((clock.seconds() - 60) * 1000)
    emulator.devices["bb"] = Device(topic="com.example.other")
    assert reason(client.ask("/3/device/bb", headers, BODY)) == (400, "DeviceTokenNotForTopic")


# Provider tokens.


def test_a_provider_token_lasts_an_hour(client, headers, clock):
    """ExpiredProviderToken after that."""
    clock.advance(3599)
    assert client.ask(PATH, headers, BODY).status == 200
    clock.advance(2)
    assert reason(client.ask(PATH, headers, BODY)) == (403, "ExpiredProviderToken")


def test_a_provider_token_may_not_change_all_the_time(client, headers, clock, apns_credentials):
    """Two within 20 minutes on a connection are one too many; the old one is still good then."""

    def renewed():
        return {**headers, "authorization": f"bearer {sign_token(apns_credentials, clock.seconds())}"}

    assert client.ask(PATH, headers, BODY).status == 200
    clock.advance(1199)
    assert reason(client.ask(PATH, renewed(), BODY)) == (429, "TooManyProviderTokenUpdates")
    assert client.ask(PATH, headers, BODY).status == 200
    clock.advance(1)
    assert client.ask(PATH, renewed(), BODY).status == 200


def test_token_changes_may_be_counted_by_key(authority, apns_credentials, clock, h2_client, headers):
    """Stricter: another connection has to use the same token."""
    emulator = APNsEmulator(authority, apns_credentials, clock, tokens_by_key=True)
    assert h2_client(emulator).ask(PATH, headers, BODY).status == 200
    other = {**headers, "authorization": f"bearer {sign_token(apns_credentials, clock.seconds())}"}
    assert reason(h2_client(emulator).ask(PATH, other, BODY)) == (429, "TooManyProviderTokenUpdates")
    assert h2_client(emulator).ask(PATH, headers, BODY).status == 200


@pytest.mark.parametrize("wrong", ["kid", "iss", "iat", "key", "algorithm"])
def test_a_provider_token_is_verified(client, headers, apns_credentials, clock, wrong):
    """Key id, team, time and signature."""
    claims = {"iss": apns_credentials.team_id, "iat": clock.seconds()}
    if wrong in claims:
        claims[wrong] = "OTHER"
    keys = {"algorithm": "s" * 32, "key": ec.generate_private_key(ec.SECP256R1())}
    token = jwt.encode(
        claims,
        keys.get(wrong, apns_credentials.key),
        algorithm="HS256" if wrong == "algorithm" else "ES256",
        headers={"kid": "OTHER" if wrong == "kid" else apns_credentials.key_id},
    )
    answer = client.ask(PATH, {**headers, "authorization": f"bearer {token}"}, BODY)
    assert reason(answer) == (403, "InvalidProviderToken")


# Certificates.


def with_certificate(headers, **changes):
    return {**{name: value for name, value in headers.items() if name != "authorization"}, **changes}


def test_a_certificate_is_enough(emulator, headers, h2_client, apns_credentials):
    """With its own topics, and no others."""
    client = h2_client(emulator, apns_credentials.certificate.certificate)
    assert client.ask(PATH, with_certificate(headers), BODY).status == 200
    voip = with_certificate(headers, **{"apns-topic": "com.example.chat.voip"})
    assert client.ask(PATH, voip, BODY).status == 200
    other = with_certificate(headers, **{"apns-topic": "com.example.other"})
    assert reason(client.ask(PATH, other, BODY)) == (400, "TopicDisallowed")


def test_a_certificate_of_many_topics_needs_one_named(
    emulator, authority, headers, h2_client, apns_credentials
):
    """One with a single topic has it as its default."""
    unnamed = with_certificate(headers)
    del unnamed["apns-topic"]
    client = h2_client(emulator, apns_credentials.certificate.certificate)
    assert reason(client.ask(PATH, unnamed, BODY)) == (400, "MissingTopic")
    single = make_apns_credentials(authority, many_topics=False)
    assert h2_client(emulator, single.certificate.certificate).ask(PATH, unnamed, BODY).status == 200


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lifetime": timedelta(seconds=-1)}, "BadCertificate"),
        ({"authority": None}, "BadCertificate"),
        ({"environments": [DEVELOPMENT]}, "BadCertificateEnvironment"),
        ({"environments": [PRODUCTION]}, None),
    ],
)
def test_a_certificate_is_judged(emulator, authority, headers, h2_client, options, expected):
    """Expired, of another authority, for the other environment."""
    options = dict(options)
    if "authority" in options:
        authority = make_test_authority()
        del options["authority"]
    made = make_apns_credentials(authority, **options)
    answer = h2_client(emulator, made.certificate.certificate).ask(PATH, with_certificate(headers), BODY)
    assert (reason(answer)[1] if answer.body else None) == expected


# HTTP/2, and what goes wrong with it.


def test_streams_over_the_limit_are_refused(emulator, client, headers):
    """REFUSED_STREAM for what is too many; the others are answered."""
    emulator.max_streams = 3
    emulator.faults.add("silence times=3")
    client.protocol.max_streams = 3
    for _ in range(3):
        client.begin(PATH, headers, BODY)
    late = client.begin(PATH, headers, BODY)
    client.exchange()
    assert client.resets == {late: 7}
    assert client.protocol.refused == 1


def test_the_stream_limit_may_grow_with_trust(authority, apns_credentials, clock, h2_client, headers):
    """As with Apple: one stream until a request was authenticated."""
    client = h2_client(APNsEmulator(authority, apns_credentials, clock, max_streams=50, first_streams=1))
    assert client.limits == [1]
    client.ask(PATH, {**headers, "authorization": "bearer no"}, BODY)
    assert client.limits == [1]
    client.ask(PATH, headers, BODY)
    assert client.limits == [1, 50]


def test_goaway_in_the_middle_tells_what_was_processed(emulator, client, headers, clock):
    """Streams behind its last one never reach the application; those before it are answered; then it ends."""
    emulator.faults.add("delay=1 times=1 after=1", "goaway after=3")
    streams = [client.begin(PATH, headers, BODY) for _ in range(6)]
    client.exchange()
    assert client.goaway.last_stream_id == streams[2]
    assert json.loads(client.goaway.additional_data) == {"reason": "Shutdown"}
    assert [stream for stream in streams if stream in client.answers] == [streams[0], streams[2]]
    assert client.wire.closed == ""
    clock.advance(1)
    assert client.wire.closed == "closed"
    assert emulator.count == emulator.accepted == 3


def test_goaway_on_demand(emulator, client, headers, h2_client):
    """Idle connections end at once; a new one is served."""
    client.ask(PATH, headers, BODY)
    emulator.go_away()
    client.exchange()
    assert client.goaway.last_stream_id == 1
    assert client.wire.closed == "closed"
    assert h2_client(emulator).ask(PATH, headers, BODY).status == 200


@pytest.mark.parametrize(("action", "code"), [("reset", 2), ("refuse", 7)])
def test_streams_are_reset(emulator, client, headers, action, code):
    """INTERNAL_ERROR may have been processed, REFUSED_STREAM was not; the connection goes on."""
    emulator.faults.add(f"{action} times=1")
    assert client.ask(PATH, headers, BODY) is None
    assert client.resets == {1: code}
    assert client.ask(PATH, headers, BODY).status == 200
    assert emulator.count == (2 if action == "reset" else 1)


def test_silence_concerns_one_request(emulator, client, headers):
    """Others on the connection, and PING, are answered."""
    emulator.faults.add("silence times=1")
    assert client.ask(PATH, headers, BODY) is None
    assert client.ask(PATH, headers, BODY).status == 200
    client.h2.ping(b"12345678")
    client.exchange()
    assert (client.pongs, client.protocol.pings) == (1, 1)
    assert [(each.status, each.reason) for each in emulator.received] == [(0, "silence"), (200, "")]


def test_a_connection_hangs_or_drops(emulator, h2_client, headers):
    """Nothing is read any more, or it is gone without a word."""
    emulator.faults.add("hang times=1", "drop times=1")
    client = h2_client(emulator)
    client.begin(PATH, headers, BODY)
    client.begin(PATH, headers, BODY)
    client.exchange()
    assert client.wire.paused
    assert (client.answers, client.goaway, client.wire.closed) == ({}, None, "")
    client = h2_client(emulator)
    assert client.ask(PATH, headers, BODY) is None
    assert (client.goaway, client.wire.closed) == (None, "aborted")


def test_answers_may_be_late(emulator, client, headers, clock):
    """A client that leaves meanwhile is no problem."""
    emulator.faults.add("delay=2")
    assert client.ask(PATH, headers, BODY) is None
    clock.advance(2)
    client.exchange()
    assert client.answers[1].status == 200
    client.ask(PATH, headers, BODY)
    client.wire.loseConnection()
    clock.advance(2)
    assert emulator.open == []


@pytest.mark.parametrize("word", [*REASONS, "410", "429", "503"])
def test_every_reason_of_apples_table_can_be_scripted(emulator, client, headers, word):
    """By its word, or by its status."""
    emulator.faults.add(f"{word} retry_after=3")
    answer = client.ask(PATH, headers, BODY)
    content = json.loads(answer.body)
    assert answer.status == REASONS[content["reason"]] == int(REASONS.get(word, word))
    assert answer.headers["retry-after"] == "3"
    assert ("timestamp" in content) == (answer.status == 410)


def test_answers_that_are_no_json(emulator, client, headers):
    """As of a proxy in between, or of nobody."""
    emulator.faults.add("garbage times=1", "empty times=1")
    assert client.ask(PATH, headers, BODY).body.startswith(b"<html>")
    answer = client.ask(PATH, headers, BODY)
    assert (answer.status, answer.body) == (500, b"")


def test_malformed_requests_reset_their_stream(client, headers):
    """RFC 9113 section 8.1.1; the connection lives."""
    client.h2.config.validate_outbound_headers = False
    client.h2.config.normalize_outbound_headers = False
    for extra in [
        ("Upper", "case"),
        ("connection", "close"),
        ("te", "gzip"),
        ("a b", "c"),
        ("x", "a\r\nb: c"),
    ]:
        stream = client.begin(PATH, headers, BODY, extra=[extra])
        client.exchange()
        assert client.resets[stream] == 1, extra
    assert client.ask(PATH, headers, BODY).status == 200


def test_nonsense_ends_the_connection(emulator, client):
    """What is no HTTP/2 gets GOAWAY with an error."""
    client.protocol.dataReceived(b"\0\0\1\0\0\0\0\0\0x")  # DATA on stream 0
    client.exchange()
    assert client.goaway.error_code == 1
    assert client.wire.closed == "closed"
    assert emulator.open == []


def test_many_requests_go_through_one_connection(emulator, client, headers):
    """More than flow control's first window and the stream table hold."""
    body = b'{"x":"%s"}' % (b"x" * 4000)
    for _ in range(20):
        for _ in range(50):
            client.begin(PATH, headers, body)
        client.exchange()
    assert sum(answer.status == 200 for answer in client.answers.values()) == 1000
    assert len(client.protocol._h2.streams) < 200


def test_only_the_last_requests_are_kept(authority, apns_credentials, clock, h2_client, headers):
    """Bounded; the counters count on."""
    emulator = APNsEmulator(authority, apns_credentials, clock, capacity=2)
    client = h2_client(emulator)
    for number in range(5):
        client.ask(f"/3/device/0{number}", headers, BODY)
    assert [each.token for each in emulator.received] == ["03", "04"]
    assert emulator.count == 5
