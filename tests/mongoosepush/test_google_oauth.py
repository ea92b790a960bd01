"""Access tokens: got once, renewed early, and what happens when there are none."""

from itertools import pairwise

import jwt
import orjson
import pytest

from xmpppush.errors import ConfigError, TryLater
from xmpppush.http.agent import PooledAgent
from xmpppush.mongoosepush.google_oauth import (
    SCOPE,
    GoogleTokens,
    NoToken,
    assertion,
    read_service_account,
    read_token,
)


@pytest.fixture
def tokens(clock, google, appfile):
    account = read_service_account(appfile, "[x] appfile")
    agent = PooledAgent(clock, endpoint_for=google)
    return GoogleTokens(account, "default", agent, clock, lambda: 0.5)


def test_the_assertion(appfile, service_account):
    """An hour's JWT, signed with the account's key (RFC 7523 section 3)."""
    account = read_service_account(appfile, "")
    made = assertion(account, 1_700_000_000.9)
    claims = jwt.decode(
        made,
        service_account[1],
        algorithms=["RS256"],
        audience="https://oauth2.example/token",
        options={"verify_exp": False},
    )
    assert claims == {
        "iss": "push@project-1.iam.gserviceaccount.com",
        "scope": SCOPE,
        "aud": "https://oauth2.example/token",
        "iat": 1_700_000_000,
        "exp": 1_700_003_600,
    }
    assert jwt.get_unverified_header(made)["kid"] == "key-1"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"type": "authorized_user"}, "not the key of a service account"),
        ({"project_id": None}, "no 'project_id' in it"),
        ({"project_id": "a/b\r\n"}, "its 'project_id' is none"),
        ({"client_email": " "}, "no 'client_email' in it"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----"}, "its 'private_key' is no RSA key in PEM"),
        ({"private_key": 7}, "no 'private_key' in it"),
        ({"token_uri": "http://oauth2.example/token"}, "its 'token_uri' is not https"),
        ({"token_uri": "ftp://x"}, "its 'token_uri' is no URL"),
    ],
)
def test_a_bad_file_is_one_line_with_the_fix(service_account, tmp_path, change, problem):
    """What is wrong, and what to do; nothing of the key."""
    path = tmp_path / "bad.json"
    path.write_bytes(orjson.dumps({**service_account[0], **change}))
    with pytest.raises(ConfigError) as caught:
        read_service_account(path, "[mongoosepush:fcm:default] appfile")
    (line,) = caught.value.problems
    assert line.startswith(f"[mongoosepush:fcm:default] appfile: {path}: {problem}")
    assert "Firebase console" in line
    assert "BEGIN" not in line


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b"\xff\xfe"])
def test_a_file_that_is_none(tmp_path, content):
    """Empty, no JSON, no object, no text."""
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_service_account(path, "x")


def test_a_file_that_is_not_there(tmp_path):
    """The line has the path."""
    with pytest.raises(ConfigError, match=r"x: .*/none\.json: No such file or directory"):
        read_service_account(tmp_path / "none.json", "x")


def test_account_has_no_secret_in_its_repr(appfile):
    """The private key stays out."""
    assert "private_key=" not in repr(read_service_account(appfile, ""))


@pytest.mark.parametrize(
    ("code", "body", "word"),
    [
        (400, b'{"error":"invalid_grant","error_description":"x"}', "internal_config"),
        (401, b'{"error":"invalid_client"}', "internal_config"),
        (400, b"<html>", "service_internal"),
        (500, b'{"error":"internal_failure"}', "service_internal"),
        (503, b"", "service_internal"),
        (302, b"", "service_internal"),
        (200, b"[]", "service_internal"),
        (200, b'{"access_token":"a\\r\\nX: y","expires_in":1}', "service_internal"),
        (200, b'{"access_token":"","expires_in":1}', "service_internal"),
        (200, b'{"access_token":"a","expires_in":-1}', "service_internal"),
        (200, b'{"access_token":"a","expires_in":"x"}', "service_internal"),
    ],
)
def test_answers_without_a_token(code, body, word):
    """What is Google's fault is not told as ours, and the other way round."""
    with pytest.raises(NoToken) as caught:
        read_token(code, body)
    assert str(caught.value) == word
    assert isinstance(caught.value, TryLater)


def test_one_look_up_for_all_that_wait(tokens, google, outcome):
    """Who asks while the first is under way gets the same token."""
    google.grant_answers = ["hang"]
    tokens.start()
    waiting = [tokens.get() for _ in range(3)]
    assert not any(each.called for each in waiting)
    google.let_go()
    assert [outcome(each) for each in waiting] == [b"Bearer token-1"] * 3
    assert tokens.current == b"Bearer token-1"
    assert len(google.grants) == 1
    assert google.grants[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"


def test_renewed_before_it_ends(tokens, google, clock):
    """At 85 percent of its time, and the old one serves meanwhile."""
    tokens.start()
    clock.advance(3059)
    assert len(google.grants) == 1
    google.grant_answers = ["hang"]
    clock.advance(1)
    assert len(google.grants) == 2
    assert tokens.current == b"Bearer token-1"
    google.let_go()
    assert tokens.current == b"Bearer token-2"


def test_renewal_fails_and_the_old_one_serves_to_its_end(tokens, google, clock, outcome, logged):
    """Trouble is told once; a notification fails only when no token is good any more."""
    tokens.start()
    google.grant_answers = [(503, b"", {})] * 1000
    clock.pump([60.0] * 59)
    assert tokens.current == b"Bearer token-1"
    assert tokens.well
    clock.pump([10.0] * 6)
    assert tokens.current is None
    assert not tokens.well
    error = outcome(tokens.get())
    assert str(error) == "service_internal"
    assert error.after > 0
    assert [line for line in logged if "no access token" in line] == [
        "fcm pool default: no access token from https://oauth2.example/token: HTTP 503"
    ]
    google.grant_answers = []
    clock.advance(61)
    assert tokens.well
    assert logged[-1].startswith("fcm pool default: access tokens again after")


def test_tries_after_a_failure_grow_apart(tokens, google, clock):
    """Up to a minute for a fault of the endpoint."""
    google.grant_answers = [(500, b"", {})] * 1000
    tokens.start()
    times = []
    start = clock.seconds()
    for _ in range(400):
        before = len(google.grants)
        clock.advance(1)
        if len(google.grants) > before:
            times.append(round(clock.seconds() - start))
    assert times[:5] == [2, 5, 11, 23, 47]
    gaps = [after - before for before, after in pairwise(times[6:])]
    assert set(gaps) <= {45, 46}


def test_retry_after_is_honoured(tokens, google, clock):
    """The endpoint's own, within five minutes."""
    google.grant_answers = [(503, b"", {"Retry_After": "100"})]
    tokens.start()
    clock.advance(99)
    assert len(google.grants) == 1
    clock.advance(1)
    assert len(google.grants) == 2


def test_an_endpoint_that_never_answers(tokens, google, clock, outcome):
    """Who waits is told after the agent's time."""
    google.grant_answers = ["hang"]
    waiting = tokens.get()
    clock.advance(5.0)
    clock.advance(0)
    assert str(outcome(waiting)) == "service_internal"


def test_a_token_that_is_refused_is_replaced_once(tokens, google, clock, outcome):
    """Many requests with the same old token cause one look-up."""
    tokens.start()
    clock.advance(120)
    google.grant_answers = ["hang"]
    for _ in range(3):
        tokens.reject(b"Bearer token-1")
    assert tokens.current is None
    assert len(google.grants) == 2
    waiting = tokens.get()
    google.let_go()
    assert outcome(waiting) == b"Bearer token-2"
    tokens.reject(b"Bearer token-1")  # late
    assert tokens.current == b"Bearer token-2"


def test_new_tokens_that_are_refused(tokens, google, clock, outcome, logged):
    """No storm of look-ups: tries grow apart, and all is well only when FCM takes one."""
    tokens.start()
    clock.advance(120)
    tokens.reject(b"Bearer token-1")
    tokens.reject(b"Bearer token-2")
    assert len(google.grants) == 2
    assert str(outcome(tokens.get())) == "internal_config"
    clock.advance(2)
    assert tokens.current == b"Bearer token-3"
    assert not tokens.well
    tokens.reject(b"Bearer token-3")
    clock.advance(2)
    assert len(google.grants) == 3
    clock.advance(1)
    assert len(google.grants) == 4
    tokens.accepted()
    assert tokens.well
    assert [line for line in logged if "no access token" in line] == [
        "fcm pool default: no access token from https://oauth2.example/token: FCM refuses a token that is new"
    ]


def test_stopping(tokens, google, clock, outcome):
    """Who waits is told, and nothing ticks on."""
    google.grant_answers = ["hang"]
    waiting = tokens.get()
    tokens.stop()
    assert str(outcome(waiting)) == "service_internal"
    assert str(outcome(tokens.get())) == "service_internal"
    clock.advance(10)
    assert clock.getDelayedCalls() == []


def test_who_waits_may_give_up(tokens, google, outcome):
    """A cancelled waiter does not disturb the others."""
    google.grant_answers = ["hang"]
    first, second = tokens.get(), tokens.get()
    first.addErrback(lambda _: None)
    first.cancel()
    google.let_go()
    assert outcome(second) == b"Bearer token-1"


def test_a_short_lived_token_is_used(google, appfile, clock):
    """Even one that ends in a second; it does not make a loop."""
    google.lifetime = 1
    account = read_service_account(appfile, "")
    tokens = GoogleTokens(account, "p", PooledAgent(clock, endpoint_for=google), clock, lambda: 0.0)
    tokens.start()
    assert tokens.current == b"Bearer token-1"
    clock.advance(0.8)
    assert tokens.current == b"Bearer token-2"


def test_a_new_token_that_worked_is_replaced_at_once(tokens, google):
    """Revoked within its first minute."""
    tokens.start()
    tokens.accepted()
    tokens.reject(b"Bearer token-1")
    assert tokens.current == b"Bearer token-2"
