"""FCM v1 and its token endpoint as the emulator does them, over both HTTPs."""

import json
from urllib.parse import urlencode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from xmpppush.testing.providers import FCMEmulator, sign_assertion
from xmpppush.testing.providers.fcm import ERRORS, FCM_ERROR, OAUTH_ERRORS

SEND = "/v1/projects/xmpppush-emulator/messages:send"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@pytest.fixture
def emulator(authority, fcm_credentials, clock):
    return FCMEmulator(authority, fcm_credentials, clock)


@pytest.fixture(params=["h1", "h2"])
def client(request, emulator, h1_client, h2_client):
    return h1_client(emulator) if request.param == "h1" else h2_client(emulator)


@pytest.fixture
def assertion(emulator, clock):
    """Makes one, with changes to its claims."""

    def make(**changes):
        issued = clock.seconds()
        return sign_assertion(emulator.credentials, emulator.token_uri, issued, **changes)

    return make


def grant(client, assertion, **changes):
    form = {"grant_type": GRANT, "assertion": assertion, **changes}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return client.ask("/token", headers, urlencode(form).encode())


@pytest.fixture
def access(client, assertion):
    """Headers with a good access token."""
    token = json.loads(grant(client, assertion()).body)["access_token"]
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}


def send(client, access, message, path=SEND, **more):
    body = message if isinstance(message, bytes) else json.dumps({"message": message, **more}).encode()
    return client.ask(path, access, body)


def error(answer):
    """Status, google.rpc's word and FCM's, and the fields that are wrong."""
    content = json.loads(answer.body)["error"]
    assert content["code"] == answer.status
    details = content.get("details", [])
    words = [each["errorCode"] for each in details if each["@type"] == FCM_ERROR]
    fields = [each["field"] for part in details for each in part.get("fieldViolations", ())]
    return answer.status, content["status"], words, fields


def test_a_message_is_taken(emulator, client, access):
    """The answer is its name; the emulator shows it in snake_case."""
    answer = send(client, access, {"token": "abc:1", "data": {"a": "1"}, "android": {"collapseKey": "k"}})
    assert answer.status == 200
    assert json.loads(answer.body)["name"].startswith("projects/xmpppush-emulator/messages/0:")
    received = emulator.received[-1]
    assert received.token == "abc:1"
    assert received.content == {"token": "abc:1", "data": {"a": "1"}, "android": {"collapse_key": "k"}}


def test_what_mongoosepush_sends_is_taken(client, access):
    """Its shape, with two empty objects beside android."""
    notification = {"title": "t", "body": "b", "click_action": "c", "tag": "g", "sound": "s"}
    android = {"notification": notification, "priority": "HIGH", "ttl": "60s", "data": {"x": "1"}}
    message = {"token": "abc", "android": android, "data": {}, "notification": {}}
    assert send(client, access, message).status == 200


def test_a_text_may_be_null_or_a_list_of_one(client, access):
    """As in all of Google's JSON."""
    notification = {"title": None, "body_loc_args": "one", "notificationCount": "3"}
    assert send(client, access, {"token": "a", "android": {"notification": notification}}).status == 200


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ({"token": "a", "data": {"a": 1}}, ["message.data[0].value"]),
        ({"token": "a", "android": {"data": {"b": "x", "a": {}}}}, ["message.android.data[1].value"]),
        ({"token": "a", "datum": {}}, ["message"]),
        ({"token": "a", "android": {"notification": {"badge": 1}}}, ["message.android.notification"]),
        ({"token": "a", "android": {"ttl": 60}}, ["message.android.ttl"]),
        ({"token": "a", "android": {"ttl": "60"}}, ["message.android.ttl"]),
        ({"token": "a", "android": {"ttl": "-5s"}}, ["message.android.ttl"]),
        ({"token": "a", "android": {"priority": "high"}}, ["message.android.priority"]),
        ({"token": 1, "android": []}, ["message.token", "message.android"]),
    ],
)
def test_the_reader_of_json_names_each_field(client, access, message, fields):
    """INVALID_ARGUMENT, before FCM itself has a word in it."""
    assert error(send(client, access, message)) == (400, "INVALID_ARGUMENT", [], fields)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({}, "message"),
        ({"data": {"a": "b"}}, "message"),
        ({"token": "a", "topic": "b"}, "message"),
        ({"token": "not a/token"}, "message.token"),
        ({"token": "a", "data": {"from": "x"}}, "message.data"),
        ({"token": "a", "android": {"data": {"google.c": "x"}}}, "message.android.data"),
        ({"token": "a", "android": {"ttl": "2419201s"}}, "message.android.ttl"),
        ({"token": "a", "fcm_options": {"analytics_label": "a b"}}, "message.fcm_options.analytics_label"),
        ({"token": "a", "data": {"a": "x" * 4096}}, "message"),
    ],
)
def test_fcm_has_rules_of_its_own(client, access, message, field):
    """INVALID_ARGUMENT with FCM's detail."""
    assert error(send(client, access, message)) == (400, "INVALID_ARGUMENT", ["INVALID_ARGUMENT"], [field])


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"null"])
def test_what_is_no_message_is_refused(client, access, body):
    """Whatever comes."""
    assert error(client.ask(SEND, access, body))[:2] == (400, "INVALID_ARGUMENT")


def test_dead_devices_are_unregistered(emulator, client, access):
    """404, and the word that tells it from a wrong path."""
    emulator.unregistered.add("dead")
    assert error(send(client, access, {"token": "dead"})) == (404, "NOT_FOUND", ["UNREGISTERED"], [])
    assert error(send(client, access, {"token": "a"}, path="/v1/x")) == (404, "NOT_FOUND", [], [])


def test_another_project_is_denied(client, access):
    """A service account sends for its own."""
    answer = send(client, access, {"token": "a"}, path="/v1/projects/other/messages:send")
    assert error(answer)[:2] == (403, "PERMISSION_DENIED")


# Access tokens.


def test_no_access_token_is_unauthenticated(emulator, client, access, clock):
    """None, a wrong one, an expired one, a revoked one."""
    unauthenticated = (401, "UNAUTHENTICATED", [], [])
    assert error(send(client, {}, {"token": "a"})) == unauthenticated
    assert error(send(client, {"authorization": "Bearer no"}, {"token": "a"})) == unauthenticated
    clock.advance(3598)
    assert send(client, access, {"token": "a"}).status == 200
    clock.advance(1)
    assert error(send(client, access, {"token": "a"})) == unauthenticated


def test_access_tokens_can_be_revoked(emulator, client, access, assertion):
    """A new one works again."""
    emulator.revoke()
    assert error(send(client, access, {"token": "a"}))[0] == 401
    token = json.loads(grant(client, assertion()).body)["access_token"]
    assert send(client, {"authorization": f"Bearer {token}"}, {"token": "a"}).status == 200


def test_the_token_endpoint_grants(emulator, client, assertion):
    """RFC 6749's answer, and another token each time."""
    first, second = (json.loads(grant(client, assertion()).body) for _ in range(2))
    assert (first["token_type"], first["expires_in"]) == ("Bearer", 3599)
    assert first["access_token"] != second["access_token"]
    assert emulator.grants == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"iss": "somebody@example.org"}, "invalid_grant"),
        ({"aud": "https://oauth2.googleapis.com/token"}, "invalid_grant"),
        ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope"),
        ({"scope": None}, "invalid_scope"),
        ({"exp": 1}, "invalid_grant"),
        ({"exp": 2**33}, "invalid_grant"),
        ({"iat": 1}, "invalid_grant"),
    ],
)
def test_an_assertion_is_checked(client, assertion, change, expected):
    """Account, audience, scope and times (RFC 7523)."""
    answer = grant(client, assertion(**change))
    assert (answer.status, json.loads(answer.body)["error"]) == (400, expected)


def test_an_assertion_is_verified(emulator, client, clock):
    """Another key, another algorithm, none."""
    claims = {"iss": emulator.credentials.client_email, "aud": emulator.token_uri}
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for assertion in (
        jwt.encode(claims, other, algorithm="RS256"),
        jwt.encode(claims, "s" * 32, algorithm="HS256"),
        jwt.encode(claims, None, algorithm="none"),
        "nonsense",
    ):
        answer = grant(client, assertion)
        assert (answer.status, json.loads(answer.body)["error"]) == (400, "invalid_grant")


def test_the_grant_is_checked(client, assertion):
    """Its type, its form, its method."""
    answers = [
        grant(client, assertion(), grant_type="password"),
        client.ask("/token", {}, urlencode({"grant_type": GRANT}).encode()),
        client.ask("/token", {}, b"\xff"),
        client.ask("/token", method="GET"),
    ]
    assert [answer.status for answer in answers] == [400] * 4
    words = [json.loads(answer.body)["error"] for answer in answers]
    assert words == ["unsupported_grant_type", "invalid_request", "invalid_request", "invalid_request"]


# Scripted.


@pytest.mark.parametrize("word", ERRORS)
def test_every_error_of_fcm_can_be_scripted(emulator, client, word):
    """In google.rpc.Status, FCM's own with their detail."""
    emulator.faults.add(word)
    status, name, words, _ = error(client.ask(SEND, {}, b"{}"))
    assert (status, name) == (ERRORS[word].code, ERRORS[word].status)
    assert words == ([word] if ERRORS[word].of_fcm else [])


def test_quota_and_outage_say_when_to_come_back(emulator, client):
    """Retry-After, as Google's documentation promises; a fault may set it."""
    emulator.faults.add("429 times=1", "503 retry_after=7")
    assert client.ask(SEND).headers["retry-after"] == "60"
    assert client.ask(SEND).headers["retry-after"] == "7"


@pytest.mark.parametrize("word", OAUTH_ERRORS)
def test_every_error_of_the_token_endpoint_can_be_scripted(emulator, client, assertion, word):
    """Messages are left alone by them."""
    emulator.faults.add(f"{word} on=oauth")
    answer = grant(client, assertion())
    assert (answer.status, json.loads(answer.body)["error"]) == (OAUTH_ERRORS[word][0], word)


def test_faults_of_the_other_endpoint_are_refused(emulator):
    """A word that the token endpoint knows is none of a message, and the other way round."""
    for text in ("invalid_grant", "UNREGISTERED on=oauth"):
        with pytest.raises(ValueError, match="neither a status or reason"):
            emulator.faults.add(text)


@pytest.mark.parametrize("action", ["drop", "reset", "refuse", "goaway"])
def test_connections_break_over_http1(emulator, h1_client, action):
    """There are no streams to reset: the connection ends without an answer."""
    emulator.faults.add(action)
    client = h1_client(emulator)
    assert client.ask(SEND) is None
    assert client.wire.closed


def test_pipelined_requests_are_answered_in_order(emulator, h1_client, clock):
    """A late first answer holds back the second."""
    emulator.faults.add("404 times=1 delay=1", "503")
    client = h1_client(emulator)
    assert client.ask(SEND) is None
    assert client.ask(SEND) is None
    clock.advance(1)
    written = client.wire.value()
    assert written.index(b"404 Not Found") < written.index(b"503 Service Unavailable")
