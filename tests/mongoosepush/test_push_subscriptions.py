"""What is a Web Push subscription, and which of them are let out."""

from base64 import urlsafe_b64encode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from xmpppush.http.origins import Origin
from xmpppush.mongoosepush.subscriptions import (
    BROWSERS,
    AllowedHosts,
    BadSubscription,
    read_subscription,
)

# RFC 8291 appendix A.
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
ENDPOINT = "https://updates.push.services.mozilla.com/wpush/v2/gAAA"


def a_subscription(endpoint=ENDPOINT, p256dh=P256DH, auth=AUTH, **more):
    return {"endpoint": endpoint, "keys": {"p256dh": p256dh, "auth": auth}, **more}


def as_json(subscription):
    return orjson.dumps(subscription).decode()


def test_json_as_browsers_write_it():
    """Further members do not matter."""
    found = read_subscription(as_json(a_subscription(expirationTime=None, options={})))
    assert found.origin == Origin("https", "updates.push.services.mozilla.com", 443)
    assert found.target == b"/wpush/v2/gAAA"
    assert len(found.auth) == 16


@pytest.mark.parametrize("padding", [True, False])
def test_base64url(padding):
    """Fit for a path segment as it is."""
    encoded = urlsafe_b64encode(orjson.dumps(a_subscription())).decode()
    text = encoded if padding else encoded.rstrip("=")
    assert read_subscription(text).origin.host == "updates.push.services.mozilla.com"


def test_keys_in_other_base64():
    """Padding, and the plain alphabet: some clients write that."""
    keys = {"p256dh": P256DH.replace("-", "+").replace("_", "/") + "=", "auth": AUTH.replace("_", "/") + "=="}
    assert (
        read_subscription(as_json(a_subscription(**keys))).auth
        == read_subscription(as_json(a_subscription())).auth
    )


def test_unified_push():
    """An endpoint with a query; the port is its own."""
    found = read_subscription(as_json(a_subscription("https://Ntfy.Example:8443/upAbC?up=1")))
    assert found.origin == Origin("https", "ntfy.example", 8443)
    assert found.target == b"/upAbC?up=1"


def test_an_endpoint_without_path():
    """Then it is the root."""
    assert read_subscription(as_json(a_subscription("https://push.example"))).target == b"/"
    assert read_subscription(as_json(a_subscription("https://push.example?x"))).target == b"/?x"


@pytest.mark.parametrize(
    "endpoint",
    [
        None,
        7,
        "",
        "http://push.example/x",
        "HTTP://push.example/x",
        "//push.example/x",
        "https:///x",
        "https://",
        "https://:443/x",
        "https://user@push.example/x",
        "https://user:pw@push.example/x",
        "https://push.example@evil.example/x",
        "https://push.example\\@evil.example/x",
        "https://push.example/x#y",
        "https://push.example/x y",
        "https://push.example/x\r\nHost: evil",
        "https://push.example\t/x",
        "https://push.exämple/x",
        "https://push.example/ä",
        "https://push.example:0/x",
        "https://push.example:99999/x",
        "https://push.example:x/x",
        "https://push..example/x",
        "https://.push.example/x",
        "https://push.example./x",
        "https://[::1/x",
        "https://[:::]/x",
        "https://[fe80::1%25eth0]/x",
        "https://" + "a" * 64 + ".example/x",
        "https://" + "a." * 130 + "example/x",
        "https://push.example/" + "x" * 2048,
        "file:///etc/passwd",
        "gopher://push.example/x",
    ],
)
def test_endpoints_that_are_none(endpoint):
    """Nothing that anybody could read in two ways."""
    with pytest.raises(BadSubscription) as caught:
        read_subscription(as_json(a_subscription(endpoint)))
    assert str(caught.value) == "invalid_request"


@pytest.mark.parametrize(
    "device_id",
    [
        "",
        "device-token",
        "{",
        "null",
        "[]",
        "{}",
        '{"keys":[]}',
        '{"keys":{}}',
        "é" * 10,
        "====",
        as_json(a_subscription(auth="AAAA")),
        as_json(a_subscription(auth=None)),
        as_json(a_subscription(p256dh="AAAA")),
        as_json(a_subscription(p256dh=7)),
        as_json(a_subscription(p256dh=urlsafe_b64encode(b"\4" + b"\1" * 64).decode())),
        as_json(a_subscription(p256dh=urlsafe_b64encode(b"\2" + b"\1" * 64).decode())),
        as_json(a_subscription(p256dh=P256DH + "é")),
    ],
)
def test_what_is_no_subscription(device_id):
    """A point that is not on the curve, too."""
    with pytest.raises(BadSubscription):
        read_subscription(device_id)


@given(some.text() | some.binary().map(lambda octets: urlsafe_b64encode(octets).decode()))
def test_any_text(device_id):
    """Never anything else than that error."""
    with pytest.raises(BadSubscription):
        read_subscription(device_id)


def test_nothing_secret_in_repr():
    """Neither endpoint path nor keys."""
    assert "gAAA" not in repr(read_subscription(as_json(a_subscription())))


def check(entries, url):
    return AllowedHosts(entries).check(read_subscription(as_json(a_subscription(url))).origin)


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        (["push.example"], "https://push.example/x"),
        (["Push.Example"], "https://PUSH.example:443/x"),
        (["*.push.example"], "https://a.b.push.example/x"),
        (["*.push.example:8443"], "https://a.push.example:8443/x"),
        (BROWSERS, "https://web.push.apple.com/x"),
        (BROWSERS, "https://wns2-par02p.notify.windows.com/w/?token=x"),
        (BROWSERS, "https://fcm.googleapis.com/fcm/send/x"),
        (["192.0.2.7"], "https://192.0.2.7/x"),
        (["[2001:db8::1]"], "https://[2001:db8::1]/x"),
    ],
)
def test_allowed_in_public(entries, url):
    """On port 443 unless another is listed."""
    assert check(entries, url) is False


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        (["localhost:8443"], "https://localhost:8443/x"),
        (["127.0.0.1:8443"], "https://127.0.0.1:8443/x"),
        (["[::1]:8443"], "https://[::1]:8443/x"),
        (["push.internal:443"], "https://push.internal/x"),
    ],
)
def test_allowed_anywhere(entries, url):
    """Who writes host and port means that very server."""
    assert check(entries, url) is True


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        ([], "https://push.example/x"),
        (["push.example"], "https://push.example:8443/x"),
        (["push.example"], "https://evilpush.example/x"),
        (["push.example"], "https://push.example.evil.example/x"),
        (["push.example"], "https://a.push.example/x"),
        (["*.push.example"], "https://push.example/x"),
        (["*.push.example"], "https://evilpush.example/x"),
        (["*.push.example"], "https://a.push.example:8443/x"),
        (["localhost:8443"], "https://localhost/x"),
        (["localhost:8443"], "https://127.0.0.1:8443/x"),
        (["localhost:8443"], "https://[::ffff:127.0.0.1]:8443/x"),
        (BROWSERS, "https://127.0.0.1/x"),
        (BROWSERS, "https://2130706433/x"),
        (BROWSERS, "https://0x7f.1/x"),
        (BROWSERS, "https://[::1]/x"),
        (BROWSERS, "https://169.254.169.254/latest"),
        (BROWSERS, "https://localhost/x"),
        (BROWSERS, "https://metadata.google.internal/x"),
    ],
)
def test_not_allowed(entries, url):
    """The cause names the host, for the operator who forgot to list it."""
    with pytest.raises(BadSubscription) as caught:
        check(entries, url)
    assert caught.value.cause.startswith("a subscription's push service is not in allowed_hosts: ")
    assert "/x" not in caught.value.cause


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.com", "*.0.0.1", "a b", "https://x.example", "x.example/y", "x:0", "x:99999", "a*.b.c"],
)
def test_entries_that_are_none(entry):
    """Named in the problem."""
    with pytest.raises(ValueError, match=r"neither host|lets out too much"):
        AllowedHosts([entry])
