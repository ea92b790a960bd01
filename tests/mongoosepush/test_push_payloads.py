"""What FCM and APNs get (bodies as MongoosePush 2.2.0 sent them)."""

import pytest

from xmpppush.errors import Refused
from xmpppush.mongoosepush.payloads import apns_headers, apns_payload, fcm_message, fcm_string

FULL = {
    "mode": "prod",
    "priority": "normal",
    "time_to_live": 60,
    "mutable_content": False,
    "topic": "com.example.other",
    "alert": {
        "title": "T",
        "body": "B",
        "badge": 7,
        "click_action": "act",
        "tag": "info",
        "sound": "ping.aiff",
    },
    "data": {"k": "v", "n": 3},
}


def test_apns_alert_and_data():
    """Data stand beside ``aps``, unchanged."""
    assert apns_payload(FULL) == {
        "aps": {
            "badge": 7,
            "category": "act",
            "sound": "ping.aiff",
            "alert": {"body": "B", "title": "T"},
        },
        "k": "v",
        "n": 3,
    }
    assert apns_headers(FULL) == {
        "apns-priority": "5",
        "apns-topic": "com.example.other",
        "apns-push-type": "alert",
    }


def test_apns_silent():
    """Data alone wake the application in the background."""
    assert apns_payload({"data": {"f": 1e20}}) == {"aps": {"content-available": 1}, "f": 1e20}
    assert apns_headers({"data": {}}) == {"apns-push-type": "background", "apns-priority": "5"}
    assert apns_headers({"data": {}, "priority": "high"})["apns-priority"] == "5"


def test_apns_mutable_content_and_priority():
    """``mutable_content`` is 1 or absent."""
    request = {"alert": {"title": "t", "body": "b"}, "mutable_content": True, "priority": "high"}
    assert apns_payload(request)["aps"]["mutable-content"] == 1
    assert apns_headers(request)["apns-priority"] == "10"


def test_apns_push_type():
    """By the topic for calls, else by the content; the request may name another."""
    assert apns_headers({"data": {}, "topic": "org.example.voip"})["apns-push-type"] == "voip"
    assert apns_headers({"data": {}}, "org.example.voip")["apns-push-type"] == "voip"
    assert apns_headers({"data": {}, "apns_push_type": "alert"})["apns-push-type"] == "alert"
    with pytest.raises(Refused):
        apns_headers({"data": {}, "apns_push_type": "x\r\ny"})


@pytest.mark.parametrize(
    ("fields", "expiration"),
    [
        ({"time_to_live": 60}, "1060"),
        ({"time_to_live": 0}, "0"),
        ({"time_to_live": -5}, "0"),
        ({"time_to_live": 60, "apns_expiration": 7}, "7"),
        ({"apns_expiration": -1}, "0"),
        ({}, None),
    ],
)
def test_apns_expiration(fields, expiration):
    """In seconds since the epoch; what ends before it began is tried once."""
    headers = apns_headers({"data": {}, **fields}, now=lambda: 1000.9)
    assert headers.get("apns-expiration") == expiration


def test_apns_topic_falls_back_on_the_pools():
    """An empty one is sent empty; only a missing one is replaced."""
    assert apns_headers({"data": {}}, "org.example")["apns-topic"] == "org.example"
    assert apns_headers({"data": {}, "topic": ""}, "org.example")["apns-topic"] == ""


def test_apns_key_in_data_gives_way():
    """A caller cannot replace ``aps``."""
    assert apns_payload({"data": {"aps": "x"}}) == {"aps": {"content-available": 1}}


def test_fcm_alert_and_data():
    """Everything is below ``android``; two empty objects are always there."""
    assert fcm_message("tok", FULL) == {
        "message": {
            "token": "tok",
            "android": {
                "data": {"k": "v", "n": "3"},
                "notification": {
                    "body": "B",
                    "click_action": "act",
                    "sound": "ping.aiff",
                    "tag": "info",
                    "title": "T",
                },
                "priority": "NORMAL",
                "ttl": "60s",
            },
            "data": {},
            "notification": {},
        }
    }


def test_fcm_silent():
    """No title and no body."""
    message = fcm_message("tok", {"data": {"message-count": 1}})["message"]
    assert message["android"] == {"notification": {}, "data": {"message-count": "1"}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (3, "3"),
        (True, "true"),
        (None, ""),
        (["ab", "cd"], "abcd"),
        ([72, 105], "Hi"),
        ([["a"], 98], "ab"),
        ([], ""),
        (1.5, "1.5"),
        (-0.25, "-0.25"),
        (0.0, "0.0"),
        (100.0, "100.0"),
        (1000.0, "1.0e3"),
        (1e20, "1.0e20"),
        (1.25e-7, "1.25e-7"),
        (0.001, "0.001"),
        (123456.75, "123456.75"),
        (float(2**53), "9.007199254740992e15"),
    ],
)
def test_fcm_strings_are_made_as_erlang_does(value, text):
    """FCM takes strings only."""
    assert fcm_string(value) == text


@pytest.mark.parametrize("value", [{}, {"a": 1}, [{}], [True], [None], [1.5], [-1], [0xD800], [0x110000]])
def test_fcm_data_that_are_no_string_are_refused(value):
    """Objects, and numbers that are no character."""
    with pytest.raises(Refused, match="invalid_notification"):
        fcm_message("tok", {"data": {"k": value}})


def test_fcm_data_of_lists_without_end_are_refused():
    """As deep as the JSON reader lets them be, which is deeper than Python calls."""
    value = []
    for _ in range(1000):
        value = [value]
    with pytest.raises(Refused, match="invalid_notification"):
        fcm_message("tok", {"data": {"k": value}})
