"""The FCM pool, with Google in memory."""

from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from xmpppush.config.sections import FCMPoolSection
from xmpppush.errors import ConfigError, DeviceUnregistered, Refused, TryLater
from xmpppush.http.responses import BufferedResponse
from xmpppush.mongoosepush.fcm import FCMPool, cause_of, error_of, read_body, word_of
from xmpppush.mongoosepush.pools import IPool

ALERT = {"alert": {"title": "alice", "body": "Hello"}}
DEVICE = "DEVICE-TOKEN"


@pytest.fixture
def pool_with(google, clock, appfile):
    """Makes a pool that has started."""

    def make(connections=10, max_waiting=10_000, **section):
        pool = FCMPool(
            FCMPoolSection("default", appfile, connections=connections, **section),
            clock,
            endpoint_for=google,
            max_waiting=max_waiting,
            random=lambda: 0.5,
        )
        pool.start()
        return pool

    return make


def test_it_is_a_pool(pool_with):
    """As `IPool` says."""
    pool = pool_with(tags=("a", "b"), mode="dev")
    assert verifyObject(IPool, pool)
    assert (pool.name, pool.service, pool.mode, pool.tags) == ("default", "fcm", "dev", {"a", "b"})
    assert pool.expires() is None


def test_a_notification(pool_with, google, outcome):
    """One request, with the token and what MongoosePush sends."""
    assert outcome(pool_with().push(DEVICE, ALERT)) is None
    ((headers, content),) = google.sends
    assert google.paths == ["/v1/projects/project-1/messages:send"]
    assert headers["host"] == "fcm.googleapis.com"
    assert headers["authorization"] == "Bearer token-1"
    assert headers["content-type"] == "application/json"
    assert content == {
        "message": {
            "token": DEVICE,
            "android": {"notification": {"title": "alice", "body": "Hello"}},
            "data": {},
            "notification": {},
        }
    }


def test_extensions(pool_with, google, outcome):
    """Collapse key, label, channel and time to live at their places."""
    fields = {"collapse_key": "k", "analytics_label": "l", "channel_id": "c", "time_to_live": 60}
    pool = pool_with()
    assert outcome(pool.push(DEVICE, {**ALERT, **fields})) is None
    assert outcome(pool.push(DEVICE, {"data": {"n": 1}, **fields})) is None
    alert, silent = [content["message"]["android"] for _, content in google.sends]
    assert alert == {
        "notification": {"title": "alice", "body": "Hello", "channel_id": "c"},
        "ttl": "60s",
        "collapse_key": "k",
        "fcm_options": {"analytics_label": "l"},
    }
    assert silent["notification"] == {}
    assert silent["data"] == {"n": "1"}


def test_the_first_ones_wait_for_the_token(pool_with, google, outcome):
    """Nothing is sent without one."""
    google.grant_answers = ["hang"]
    pool = pool_with()
    waiting = [pool.push(DEVICE, ALERT) for _ in range(3)]
    assert google.sends == []
    google.let_go()
    assert [outcome(each) for each in waiting] == [None] * 3
    assert len(google.grants) == 1


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ((400, {"error": "invalid_grant"}, {}), "internal_config"),
        ((500, b"", {}), "service_internal"),
        ("drop", "service_internal"),
    ],
)
def test_no_token(pool_with, google, clock, outcome, answer, word):
    """The token endpoint's failure is 503 and unhealthy, until there is one."""
    google.grant_answers = [answer] * 2
    pool = pool_with()
    error = outcome(pool.push(DEVICE, ALERT))
    assert isinstance(error, TryLater)
    assert str(error) == word
    assert error.after == pytest.approx(1.5)
    assert pool.health().connected == 0
    assert google.sends == []
    clock.advance(2)
    clock.advance(4)
    assert outcome(pool.push(DEVICE, ALERT)) is None
    assert pool.health().connected == 1


def test_a_token_that_ran_out(pool_with, google, outcome, fcm_error, clock):
    """FCM's 401 costs one look-up and a second try, which nobody notices."""
    pool = pool_with()
    clock.advance(100)
    google.send_answers = [fcm_error(401, "UNAUTHENTICATED")]
    assert outcome(pool.push(DEVICE, ALERT)) is None
    assert [headers["authorization"] for headers, _ in google.sends] == ["Bearer token-1", "Bearer token-2"]
    assert pool.health().connected == 1


def test_revoked_credentials(pool_with, google, outcome, fcm_error, clock, logged):
    """The account is gone while we run: 503, unhealthy, one line; and well again when it is back."""
    pool = pool_with()
    clock.advance(100)
    google.send_answers = [fcm_error(401, "UNAUTHENTICATED")]
    google.grant_answers = [(400, {"error": "invalid_grant"}, {})] * 3
    errors = [outcome(pool.push(DEVICE, ALERT)) for _ in range(5)]
    assert [str(error) for error in errors] == ["internal_config"] * 5
    assert len(google.sends) == 1
    assert len(google.grants) == 2
    assert pool.health().connected == 0
    clock.pump([1.0] * 60)
    assert len([line for line in logged if "no access token" in line]) == 1
    assert "invalid_grant; the key was revoked" in "".join(logged)
    assert pool.health().connected == 1


def test_tokens_that_fcm_never_takes(pool_with, google, outcome, fcm_error, clock):
    """Unhealthy until it takes one, which is tried without a notification, too."""
    pool = pool_with()
    google.send_answers = [fcm_error(401, "UNAUTHENTICATED")] * 3
    assert str(outcome(pool.push(DEVICE, ALERT))) == "internal_config"
    assert pool.health().connected == 0
    clock.pump([1.0] * 29)
    assert pool.health().connected == 0
    clock.pump([1.0] * 90)
    assert pool.health().connected == 1
    assert google.sends[-1][1]["validate_only"] is True
    assert all(content["message"]["token"] in (DEVICE, "probe") for _, content in google.sends)
    assert len(google.sends) < 8


def test_permission_denied(pool_with, google, outcome, clock, logged):
    """The account may not send: 503 and unhealthy, with Google's reason in the log."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED"}
    denied = 403, {"error": {"status": "PERMISSION_DENIED", "details": [info]}}, {}
    pool = pool_with()
    google.send_answers = [denied] * 3
    assert [str(outcome(pool.push(DEVICE, ALERT))) for _ in range(3)] == ["internal_config"] * 3
    assert pool.health().connected == 0
    lines = [line for line in logged if "does not let" in line]
    assert lines == ["fcm pool default: FCM does not let the account of 'appfile' send (SERVICE_DISABLED)"]
    clock.advance(30)
    assert pool.health().connected == 1


@pytest.mark.parametrize(
    ("code", "status", "detail", "kind", "word", "after"),
    [
        (404, "NOT_FOUND", "UNREGISTERED", DeviceUnregistered, "unregistered", None),
        (404, "NOT_FOUND", None, DeviceUnregistered, "unregistered", None),
        (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", Refused, "invalid_request", None),
        (400, "INVALID_ARGUMENT", None, Refused, "invalid_request", None),
        (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", TryLater, "service_internal", None),
        (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", TryLater, "too_many_requests", 17.0),
        (429, "RESOURCE_EXHAUSTED", None, TryLater, "too_many_requests", 17.0),
        (503, "UNAVAILABLE", "UNAVAILABLE", TryLater, "service_internal", 17.0),
        (500, "INTERNAL", "INTERNAL", TryLater, "service_internal", 17.0),
        (500, "INTERNAL", "UNSPECIFIED_ERROR", TryLater, "service_internal", 17.0),
        (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", TryLater, "service_internal", None),
        (401, "UNAUTHENTICATED", "APNS_AUTH_ERROR", TryLater, "service_internal", None),
        (418, "TEAPOT", None, TryLater, "internal_config", None),
    ],
)
def test_errors(pool_with, google, outcome, fcm_error, logged, code, status, detail, kind, word, after):
    """Each of FCM's words; the pool stays well, and no log has the device or what FCM wrote."""
    pool = pool_with()
    headers = {"Retry_After": "17"} if after else {}
    google.send_answers = [fcm_error(code, status, detail, **headers)]
    error = outcome(pool.push(DEVICE, ALERT))
    assert type(error) is kind
    assert str(error) == word
    assert getattr(error, "after", None) == after
    assert len(google.sends) == 1
    assert len(google.grants) == 1
    assert pool.health().connected == 1
    assert DEVICE not in "".join(logged)
    assert "token-1" not in "".join(logged)


def test_a_quota_without_a_hint(pool_with, google, outcome, fcm_error):
    """A minute, as Google advises."""
    pool = pool_with()
    google.send_answers = [fcm_error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")]
    assert outcome(pool.push(DEVICE, ALERT)).after == 60.0


@pytest.mark.parametrize(
    ("code", "body", "kind", "word"),
    [
        (502, b"<html>", TryLater, "service_internal"),
        (404, b"<html>", TryLater, "internal_config"),
        (400, b"", Refused, "invalid_request"),
        (429, b"null", TryLater, "too_many_requests"),
        (400, b'{"error":[]}', Refused, "invalid_request"),
        (400, b'{"error":{"details":{"a":1},"status":5}}', Refused, "invalid_request"),
        (400, b'{"error":{"details":[1,{"@type":7}],"status":"a b"}}', Refused, "invalid_request"),
        (302, b"", TryLater, "internal_config"),
        (204, b"", TryLater, "internal_config"),
    ],
)
def test_answers_that_are_not_fcms(code, body, kind, word):
    """A proxy's page loses no device: 404 counts with FCM's word only."""
    response = BufferedResponse(code, [], body)
    error = error_of(code, word_of(response), None)
    assert type(error) is kind
    assert str(error) == word
    assert cause_of(response) == "PERMISSION_DENIED"


def test_unreachable(pool_with, google, outcome, clock, logged):
    """503, unhealthy; one line when it begins and one when it is over, found out without notifications."""
    pool = pool_with()
    google.send_answers = ["drop"]
    assert str(outcome(pool.push(DEVICE, ALERT))) == "connection_lost"
    google.refuses = True
    assert [str(outcome(pool.push(DEVICE, ALERT))) for _ in range(9)] == ["unable_to_connect"] * 9
    assert pool.health().connected == 0
    google.refuses = False
    clock.advance(30)
    assert pool.health().connected == 1
    assert len([line for line in logged if "cannot be reached" in line]) == 1
    assert "fcm pool default: fcm.googleapis.com answers again after 30.0 s" in logged


def test_no_answer(pool_with, google, outcome, clock):
    """A little before the API gives up itself."""
    pool = pool_with()
    google.send_answers = ["hang"]
    pushed = pool.push(DEVICE, ALERT)
    clock.advance(4.5)
    clock.advance(0)
    assert str(outcome(pushed)) == "request_timeout"


def test_connections_and_those_that_wait(pool_with, google, outcome):
    """Kept alive, never more than configured; what waits has an end."""
    pool = pool_with(connections=2, max_waiting=3)
    google.send_answers = ["hang"] * 2
    pushed = [pool.push(DEVICE, ALERT) for _ in range(6)]
    assert str(outcome(pushed.pop())) == "too_many_requests"
    assert len(google.sends) == 2
    assert pool.health().connected == 2
    google.let_go()
    assert [outcome(each) for each in pushed] == [None] * 5
    assert outcome(pool.push(DEVICE, ALERT)) is None


def test_payload_limit():
    """4096 octets of keys and values; what FCM adds around them does not count."""
    fits = {"data": {"k": "x" * 4095}}
    assert len(read_body(DEVICE, fits)) > 4096
    for request in ({"data": {"k": "x" * 4096}}, {"alert": {"title": "é" * 1500, "body": "é" * 600}}):
        with pytest.raises(Refused, match="payload_too_large"):
            read_body(DEVICE, request)


def test_what_is_no_notification(pool_with, google, outcome):
    """Objects in data, and halves of characters."""
    pool = pool_with()
    assert str(outcome(pool.push(DEVICE, {"data": {"k": {}}}))) == "invalid_notification"
    assert str(outcome(pool.push(DEVICE, {"data": {"k": "\ud800"}}))) == "invalid_request"
    assert google.sends == []


def test_giving_up_a_push(pool_with, google, clock):
    """A caller that cancels leaves nothing behind."""
    pool = pool_with(connections=1, max_waiting=0)
    google.send_answers = ["hang"]
    pushed = pool.push(DEVICE, ALERT)
    pushed.addErrback(lambda _: None)
    pushed.cancel()
    assert pool.push(DEVICE, ALERT).result is None


def test_stop_waits_for_what_is_in_flight(pool_with, google, outcome, clock):
    """Three seconds at the most, and then nothing ticks."""
    pool = pool_with()
    google.send_answers = ["hang"] * 2
    first, second = pool.push(DEVICE, ALERT), pool.push(DEVICE, ALERT)
    stopped = pool.stop()
    server, usual = google.held.pop(0)
    server.answer(*usual)
    assert outcome(first) is None
    assert not stopped.called
    clock.advance(3)
    assert str(outcome(second)) == "service_internal"
    assert stopped.called
    clock.advance(60)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"endpoint": "https://x"}, "endpoint: "),
        ({"endpoint": "x/y"}, "endpoint: a path; give host or host:port"),
        ({"endpoint": "u@x"}, "endpoint: "),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file: /nowhere/ca.pem: No such file or directory"),
    ],
)
def test_configuration(appfile, section, problem):
    """Each with its key."""
    if "ca_file" in section:
        section = {"ca_file": Path(section["ca_file"])}
    with pytest.raises(ConfigError) as caught:
        FCMPool(FCMPoolSection("a", appfile, **section), MemoryReactorClock())
    (line,) = caught.value.problems
    assert line.startswith(f"[mongoosepush:fcm:a] {problem}")


def test_another_endpoint(pool_with, google, outcome):
    """``PUSH_FCM_ENDPOINT``."""
    assert outcome(pool_with(endpoint="localhost:4443").push(DEVICE, ALERT)) is None
    assert google.sends[0][0]["host"] == "localhost:4443"
