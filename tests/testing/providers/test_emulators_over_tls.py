"""Emulators on loopback, asked by curl: HTTP/2 and TLS that are nobody's of ours."""

import json
import shutil
import subprocess

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from xmpppush.testing.providers import (
    APNsEmulator,
    FCMEmulator,
    make_test_authority,
    sign_assertion,
    sign_token,
)
from xmpppush.testing.providers.control import ControlPort

CURL = shutil.which("curl")
HAS_HTTP2 = (
    CURL is not None and b"HTTP2" in subprocess.run([CURL, "-V"], capture_output=True, check=True).stdout
)
needs_curl = pytest.mark.skipif(not HAS_HTTP2, reason="no curl with HTTP/2 here")
TOKEN = "0a" * 32


@pytest.fixture
def started():
    """Starts emulators, and stops them in the end."""
    running = []

    def start(emulator):
        emulator.listen(reactor)  # has fired already
        running.append(emulator)
        return emulator

    yield start
    for emulator in running:
        pytest_twisted.blockon(emulator.stop())


@pytest.fixture
def curl(tmp_path, authority):
    """Runs curl, trusting the test CA; exit code, status and body."""
    (tmp_path / "ca.pem").write_bytes(authority.ca)

    async def curl(url, *arguments):
        command = [CURL, "-sS", "--cacert", str(tmp_path / "ca.pem"), "--max-time", "10"]
        command += ["-w", "\n%{http_code} %{http_version}", *arguments, url]
        done = await deferToThread(subprocess.run, command, capture_output=True, text=True)
        body, _, status = done.stdout.rpartition("\n")
        return done.returncode, status, body

    return curl


def alert(credentials):
    return (
        *("-H", f"authorization: bearer {sign_token(credentials)}"),
        *("-H", "apns-topic: com.example.chat", "-d", '{"aps":{}}'),
    )


@needs_curl
@pytest_twisted.ensureDeferred
async def test_curl_sends_to_apns_with_a_token(started, curl, authority, apns_credentials):
    """HTTP/2 over TLS, by ALPN."""
    apns = started(APNsEmulator(authority, apns_credentials))
    url = f"https://{apns.endpoint}/3/device/{TOKEN}"
    assert await curl(url, "--http2", *alert(apns_credentials)) == (0, "200 2", "")
    assert apns.received[0].content == {"aps": {}}


@needs_curl
@pytest_twisted.ensureDeferred
async def test_curl_sends_to_apns_with_a_certificate(started, curl, authority, apns_credentials, tmp_path):
    """Mutual TLS; without a certificate the handshake succeeds and the answer is 403."""
    apns = started(APNsEmulator(authority, apns_credentials))
    own, pem = apns_credentials.certificate, tmp_path / "own.pem"
    key = own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(own.certificate.public_bytes(Encoding.PEM) + key)
    plain = ("--http2", "-H", "apns-topic: com.example.chat", "-d", '{"aps":{}}')
    url = f"https://{apns.endpoint}/3/device/{TOKEN}"
    assert await curl(url, "--cert", str(pem), *plain) == (0, "200 2", "")
    assert await curl(url, *plain) == (0, "403 2", '{"reason":"MissingProviderToken"}')


@needs_curl
@pytest_twisted.ensureDeferred
async def test_apns_speaks_nothing_but_http2(started, curl, authority, apns_credentials):
    """Who does not offer it is disconnected, as by Apple."""
    apns = started(APNsEmulator(authority, apns_credentials))
    code, _, _ = await curl(
        f"https://{apns.endpoint}/3/device/{TOKEN}", "--http1.1", *alert(apns_credentials)
    )
    assert code != 0
    assert apns.received == []


@needs_curl
@pytest_twisted.ensureDeferred
async def test_curl_meets_resets_and_goaway(started, curl, authority, apns_credentials):
    """What curl makes of them: 92 stream error, 16 framing."""
    apns = started(APNsEmulator(authority, apns_credentials))
    apns.faults.add("reset times=1", "503 times=1", "drop times=1")
    url = f"https://{apns.endpoint}/3/device/{TOKEN}"
    codes = [(await curl(url, "--http2", *alert(apns_credentials)))[:2] for _ in range(3)]
    assert [code for code, _ in codes][:2] == [92, 0]
    assert codes[1][1] == "503 2"
    assert codes[2][0] != 0


@needs_curl
@pytest.mark.parametrize(("version", "number"), [("--http1.1", "1.1"), ("--http2", "2")])
@pytest_twisted.ensureDeferred
async def test_curl_sends_to_fcm(started, curl, authority, fcm_credentials, version, number):
    """Token endpoint, then a message, over either HTTP."""
    fcm = started(FCMEmulator(authority, fcm_credentials))
    account = json.loads(fcm.service_account())
    assertion = sign_assertion(fcm_credentials, account["token_uri"])
    grant = f"grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={assertion}"
    code, status, body = await curl(account["token_uri"], version, "-d", grant)
    assert (code, status) == (0, f"200 {number}")
    authorization = f"authorization: Bearer {json.loads(body)['access_token']}"
    url = f"https://{fcm.endpoint}/v1/projects/{account['project_id']}/messages:send"
    code, status, body = await curl(
        url, version, "-H", authorization, "-d", '{"message":{"token":"abc","data":{"a":"b"}}}'
    )
    assert (code, status) == (0, f"200 {number}")
    assert [each.token for each in fcm.received] == ["", "abc"]


@needs_curl
@pytest_twisted.ensureDeferred
async def test_a_certificate_for_another_host_is_not_accepted(started, curl, authority, apns_credentials):
    """The way to see what a pool makes of a provider that cannot be verified."""
    wrong = make_test_authority(["other.example"], authority=authority.authority)
    apns = started(APNsEmulator(wrong, apns_credentials))
    code, _, _ = await curl(f"https://{apns.endpoint}/3/device/{TOKEN}", *alert(apns_credentials))
    assert code == 60


@needs_curl
@pytest_twisted.ensureDeferred
async def test_stopping_ends_open_connections(started, curl, authority, apns_credentials):
    """A request that is never answered does not hold it up."""
    apns = started(APNsEmulator(authority, apns_credentials))
    apns.faults.add("silence")
    waiting = curl(f"https://{apns.endpoint}/3/device/{TOKEN}", "--http2", *alert(apns_credentials))
    answer = ensureDeferred(waiting)
    for _ in range(500):
        if apns.received:
            break
        await deferLater(reactor, 0.01)
    await apns.stop()
    assert apns.open == []
    assert (await answer)[0] != 0


@needs_curl
@pytest_twisted.ensureDeferred
async def test_an_emulator_comes_back_on_its_port(started, curl, authority, apns_credentials):
    """An outage, for clients that have to notice and return."""
    apns = started(APNsEmulator(authority, apns_credentials))
    url, port = f"https://{apns.endpoint}/3/device/{TOKEN}", apns.port
    await apns.stop()
    assert (await curl(url, "--http2", *alert(apns_credentials)))[0] == 7
    await apns.listen(reactor, port)
    assert (await curl(url, "--http2", *alert(apns_credentials)))[:2] == (0, "200 2")


@needs_curl
@pytest_twisted.ensureDeferred
async def test_curl_asks_the_control_port(started, curl, authority, fcm_credentials):
    """What came, without credentials; and faults while it runs."""
    fcm = started(FCMEmulator(authority, fcm_credentials))
    control = started(ControlPort(fcm))
    base = f"http://127.0.0.1:{control.port}"
    _, status, body = await curl(f"{base}/faults", "-X", "PUT", "-d", '["503 times=1"]')
    assert (status, json.loads(body)[0]["what"]) == ("200 1.1", "503")
    await curl(f"https://{fcm.endpoint}/x", "-H", "authorization: Bearer secret", "-d", "{}")
    _, status, body = await curl(f"{base}/received")
    [received] = json.loads(body)["received"]
    assert received["status"] == 503
    assert "secret" not in body
