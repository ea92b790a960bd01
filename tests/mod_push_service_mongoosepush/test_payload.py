"""The request for a notification, by table: exact path and JSON for v1, v2 and v3."""

import orjson
import pytest

from xmpppush.errors import PreconditionNotMet
from xmpppush.mod_push_service_mongoosepush.payload import MAX_TEXT, request_for, shortened
from xmpppush.model import Notification, PushSummary
from xmpppush.testing.builders import a_publish, a_summary

ALERT = {"title": "bob@localhost", "tag": "bob@localhost", "body": "Hello", "badge": 1}
FULL = {
    "service": "apns",
    "device_id": "tok",
    "mode": "dev",
    "click_action": ".myapp.MainActivity",
    "topic": "org.example.app",
    "priority": "high",
    "sound": "ping",
    "mutable_content": "true",
    "time_to_live": "3600",
    "tags": "vip",
    "secret": "s",
    "color": "red",
}


def content_of(version="v3", notification=None, **options):
    """The JSON for these publish options besides service and device_id."""
    options = {"service": "fcm", "device_id": "tok", **options}
    publish = a_publish(options=options, notification=notification or Notification(a_summary()))
    return orjson.loads(request_for(publish, version)[1])


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("v1", b'{"service":"fcm",%s,"mode":"prod"}'),
        ("v2", b'{"service":"fcm","alert":{%s}}'),
        ("v3", b'{"service":"fcm","alert":{%s}}'),
    ],
)
def test_the_plain_notification(version, body):
    """v2 and v3 byte by byte as in wire/mongooseim-push.txt; v1 as MongooseIM 2.1, without the null."""
    publish = a_publish(options={"service": "fcm", "device_id": "tok"})
    alert = b'"title":"bob@localhost","tag":"bob@localhost","body":"Hello","badge":1'
    assert request_for(publish, version) == (f"/{version}/notification/tok", body % alert)


@pytest.mark.parametrize(
    ("version", "content"),
    [
        (
            "v1",
            {
                "service": "apns",
                **ALERT,
                "mode": "dev",
                "click_action": ".myapp.MainActivity",
                "topic": "org.example.app",
            },
        ),
        *(
            (
                version,
                {
                    "service": "apns",
                    "alert": {**ALERT, "sound": "ping", "click_action": ".myapp.MainActivity"},
                    "mode": "dev",
                    "priority": "high",
                    "topic": "org.example.app",
                    "mutable_content": True,
                    "time_to_live": 3600,
                },
            )
            for version in ("v2", "v3")
        ),
    ],
)
def test_every_option(version, content):
    """Typed as the schema names them; tags and what nobody knows stay out."""
    assert content_of(version, **FULL) == content


@pytest.mark.parametrize("silent", ["true", "1"])
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_silent(version, silent):
    """The whole summary as data and no alert; sound and click_action have no place then."""
    notification = Notification(a_summary(message_count=3), {"jingle-message": "propose"})
    content = content_of(version, notification, silent=silent, topic="t", sound="s", click_action="c")
    assert content == {
        "service": "fcm",
        "data": {
            "message-count": 3,
            "last-message-sender": "bob@localhost",
            "last-message-body": "Hello",
            "jingle-message": "propose",
        },
        "topic": "t",
    }


def test_silent_carries_what_there_is():
    """An empty summary is empty data, which wakes the app all the same."""
    assert content_of("v3", Notification(), silent="true") == {"service": "fcm", "data": {}}


@pytest.mark.parametrize(
    ("version", "silent"), [("v1", "true"), ("v2", "false"), ("v3", "0"), ("v3", "TRUE"), ("v3", "")]
)
def test_not_silent(version, silent):
    """v1 knows no silent pushes."""
    content = content_of(version, silent=silent)
    assert content.get("alert", content)["body"] == "Hello"


@pytest.mark.parametrize(
    ("summary", "alert"),
    [
        (PushSummary(), {"title": "localhost", "body": "New message", "badge": 1}),
        (
            PushSummary(7, None, "b@x", None),
            {"title": "b@x", "tag": "b@x", "body": "New message", "badge": 7},
        ),
        (PushSummary(None, None, None, "Hi"), {"title": "localhost", "body": "Hi", "badge": 1}),
        (PushSummary(0, None, "", ""), {"title": "localhost", "body": "New message", "badge": 0}),
        (PushSummary(10**30), {"title": "localhost", "body": "New message", "badge": 2**31 - 1}),
        (PushSummary(-5), {"title": "localhost", "body": "New message", "badge": 0}),
    ],
)
def test_a_summary_without_this_or_that(summary, alert):
    """MongoosePush wants title and body; the badge fits its int32."""
    assert content_of("v3", Notification(summary))["alert"] == alert


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("time_to_live", "abc"),
        ("time_to_live", "60.0"),
        ("time_to_live", "99999999999"),
        ("time_to_live", "٣"),
        ("mutable_content", "yes"),
        ("mode", "production"),
        ("priority", "urgent"),
        ("service", "sms"),
        ("service", ""),
        ("device_id", ""),
        ("device_id", "."),
        ("device_id", ".."),
        ("device_id", "x" * 4001),
        ("device_id", "ü" * 2000),
    ],
)
def test_values_that_do_not_fit(option, value):
    """Refused by the option's name; the value is in no text."""
    with pytest.raises(PreconditionNotMet) as caught:
        content_of(**{option: value})
    assert option in str(caught.value)
    assert not value or len(value) < 3 or value not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "typed"),
    [
        ("time_to_live", "-5", -5),
        ("time_to_live", "+060", 60),
        ("mutable_content", "0", False),
        ("mutable_content", "1", True),
    ],
)
def test_values_that_fit(option, value, typed):
    """What MongoosePush takes as a string, as the number or boolean that its schema names."""
    assert content_of(**{option: value})[option] == typed


def test_an_urgent_notification_has_priority():
    """A call; what the registration says of itself counts more, and version 1 knows no priority."""
    call = Notification(a_summary(), {"priority": "high"})
    assert content_of(notification=call)["priority"] == "high"
    assert content_of("v2", call)["priority"] == "high"
    assert content_of(notification=call, silent="true")["priority"] == "high"
    assert content_of(notification=call, priority="normal")["priority"] == "normal"
    assert "priority" not in content_of("v1", call)
    assert "priority" not in content_of(notification=Notification(a_summary(), {"priority": "x"}))


def test_empty_options_say_nothing():
    """A form field without a value is as if it were not there."""
    names = (
        "mode",
        "priority",
        "topic",
        "sound",
        "click_action",
        "mutable_content",
        "time_to_live",
        "silent",
    )
    assert content_of(**dict.fromkeys(names, "")) == {"service": "fcm", "alert": ALERT}


@pytest.mark.parametrize("options", [{}, {"service": "fcm"}, {"device_id": "tok"}])
def test_missing_options(options):
    """Without a form, or without one of the two that matter."""
    with pytest.raises(PreconditionNotMet):
        request_for(a_publish(options=options), "v3")


@pytest.mark.parametrize(
    ("options", "segment"),
    [
        ({"device": "tutorial"}, "tutorial"),
        ({"device": "b", "device_id": "a"}, "a"),
        ({"device": "b", "device_id": ""}, "b"),
        ({"device_id": "fcm:APA91b_x-y.z~"}, "fcm%3AAPA91b_x-y.z~"),
        ({"device_id": "a/../b?c#d e"}, "a%2F..%2Fb%3Fc%23d%20e"),
        ({"device_id": "x\r\nEvil: 1"}, "x%0D%0AEvil%3A%201"),
        ({"device_id": "100%/é"}, "100%25%2F%C3%A9"),
        ({"device_id": "a" * 4000}, "a" * 4000),
    ],
)
def test_device_id(options, segment):
    """One path segment, whatever is in it; the tutorial's name for it is taken, too."""
    path, _ = request_for(a_publish(options={"service": "fcm", **options}), "v3")
    assert path == f"/v3/notification/{segment}"


def test_other_services_by_parameter():
    """For push services that know more than MongoosePush."""
    publish = a_publish(options={"service": "webpush", "device_id": "tok"})
    assert orjson.loads(request_for(publish, "v3", ("fcm", "webpush"))[1])["service"] == "webpush"


@pytest.mark.parametrize("text", ["x" * 9000, "ü" * 5000, "\N{PILE OF POO}" * 3000, '"\n' * 4000, "x" * 2501])
def test_long_text_is_shortened(text):
    """The providers' 4096 bytes are for everything: the phone gets the beginning, not nothing."""
    short = shortened(text, MAX_TEXT)
    assert short.endswith("…")
    assert text.startswith(short[:-1])
    assert MAX_TEXT - 8 <= len(orjson.dumps(short)) - 2 <= MAX_TEXT


@pytest.mark.parametrize("text", ["", "Hello", "x" * 2500, "ü" * 1250])
def test_text_that_fits_stays(text):
    """Up to the limit nothing is cut."""
    assert shortened(text, MAX_TEXT) == text
