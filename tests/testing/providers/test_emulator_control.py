"""The control port of emulators, which a CI job asks."""

import json

import pytest

from xmpppush.testing.providers import APNsEmulator, WebPushEmulator, sign_token
from xmpppush.testing.providers.control import ControlPort

HEADERS = {"apns-topic": "com.example.chat"}


@pytest.fixture
def emulator(authority, apns_credentials, clock):
    return APNsEmulator(authority, apns_credentials, clock)


@pytest.fixture
def control(emulator, h1_client):
    return h1_client(ControlPort(emulator))


@pytest.fixture
def send(emulator, h2_client, apns_credentials, clock):
    client = h2_client(emulator)
    token = sign_token(apns_credentials, clock.seconds())

    def send(device):
        headers = {**HEADERS, "authorization": f"bearer {token}"}
        return client.ask(f"/3/device/{device}", headers, b'{"aps":{}}')

    return send


def ask(control, method, path, body=b""):
    answer = control.ask(path, {}, body, method=method)
    return answer.status, json.loads(answer.body) if answer.body else None


def test_it_lists_what_came(control, send):
    """All, or those of a device; the provider token is left out."""
    for device in ("aa", "bb", "aa"):
        send(device)
    status, listed = ask(control, "GET", "/received")
    assert (status, listed["count"]) == (200, 3)
    assert [each["token"] for each in listed["received"]] == ["aa", "bb", "aa"]
    assert {each["headers"]["authorization"] for each in listed["received"]} == {"bearer ..."}
    assert listed["received"][0]["content"] == {"aps": {}}
    assert len(ask(control, "GET", "/received?token=bb")[1]["received"]) == 1


def test_it_forgets(control, send):
    """Between two tests of a job."""
    send("aa")
    assert ask(control, "DELETE", "/received") == (204, None)
    assert ask(control, "GET", "/received") == (200, {"count": 0, "received": []})


def test_faults_change_while_it_runs(control, send):
    """POST adds, PUT replaces, DELETE ends them."""
    ask(control, "POST", "/faults", b'[{"what": "503"}]')
    assert send("aa").status == 503
    ask(control, "PUT", "/faults", b'["410 token=dead*"]')
    assert [send(device).status for device in ("aa", "deadbeef")] == [200, 410]
    status, listed = ask(control, "GET", "/faults")
    assert (status, [(each["what"], each["token"]) for each in listed]) == (200, [("410", "dead*")])
    assert ask(control, "DELETE", "/faults") == (204, None)
    assert send("deadbeef").status == 200


@pytest.mark.parametrize("body", [b"", b"{}", b'["sometimes=1"]', b'["Tuesday"]'])
def test_bad_faults_are_explained(control, body):
    """400, and nothing changes."""
    status, content = ask(control, "PUT", "/faults", body)
    assert status == 400
    assert content["error"]
    assert ask(control, "GET", "/faults") == (200, [])


def test_it_tells_how_the_emulator_is(control, send):
    """Connections and counts."""
    send("aa")
    status, content = ask(control, "GET", "/")
    assert status == 200
    assert (content["service"], content["open"], content["count"], content["accepted"]) == ("apns", 1, 1, 1)


def test_it_sends_goaway(emulator, control, send):
    """As providers do before maintenance."""
    send("aa")
    assert ask(control, "POST", "/goaway") == (204, None)
    assert emulator.open == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("POST", "/received"), ("GET", "/__class__")]
)
def test_other_paths_are_not_found(control, method, path):
    """404 in JSON."""
    assert ask(control, method, path)[0] == 404


def test_subscriptions_are_handed_out(authority, clock, h1_client, control):
    """For Web Push alone."""
    webpush = WebPushEmulator(authority, clock, host="push.example")
    status, content = ask(h1_client(ControlPort(webpush)), "POST", "/subscriptions?name=b2")
    assert (status, content["endpoint"]) == (201, "https://push.example:0/push/b2")
    assert webpush.subscriptions["b2"].json == json.dumps(content, separators=(",", ":"))
    assert ask(control, "POST", "/subscriptions")[0] == 404
