"""Answers of the push service, by table."""

import pytest

from xmpppush.errors import DeviceUnregistered, Refused, TryLater
from xmpppush.mod_push_service_mongoosepush.outcomes import outcome_of, reason_in


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (200, b"null", None),
        (204, b"", None),
        (410, b'{"reason":"unregistered"}', DeviceUnregistered),
        (410, b"", DeviceUnregistered),
        (429, b'{"reason":"too_many_requests"}', TryLater),
        (408, b"", TryLater),
        (500, b"", TryLater),
        (500, b"null", TryLater),
        (500, b'{"reason":"request_timeout"}', TryLater),
        (500, b'{"details":"connection_lost"}', TryLater),
        (500, b'{"details":"QUOTA_EXCEEDED"}', TryLater),
        (503, b'{"details":"Please try again later"}', TryLater),
        (503, b'{"reason":"internal_config"}', TryLater),
        (502, b"<html>", TryLater),
        (599, b"", TryLater),
        (500, b'{"details":"Unregistered"}', DeviceUnregistered),
        (500, b'{"details":"UNREGISTERED"}', DeviceUnregistered),
        (500, b'{"details":"BadDeviceToken"}', DeviceUnregistered),
        (500, b'{"details":"not_registered"}', DeviceUnregistered),
        (500, b'{"reason":"ExpiredToken"}', DeviceUnregistered),
        (500, b'{"reason":"NOT_FOUND"}', DeviceUnregistered),
        (500, b'{"details":"no_matching_pool"}', Refused),
        (500, b'{"details":"PayloadTooLarge"}', Refused),
        (500, b'{"details":"invalid_request"}', Refused),
        (503, b'{"details":"Unregistered"}', TryLater),
        (400, b'{"reason":"invalid_request"}', Refused),
        (401, b'{"reason":"unauthorized"}', TryLater),
        (403, b"", TryLater),
        (407, b"", TryLater),
        (404, b"", Refused),
        (413, b"", Refused),
        (422, b'{"errors":[{"message":"Missing field: body"}]}', Refused),
        (302, b"", TryLater),
        (307, b"", TryLater),
        (199, b"", Refused),
    ],
)
def test_outcome(code, body, kind):
    """2xx is done; 410 forgets the device; what may pass waits; the rest is refused."""
    error = outcome_of(code, body)
    assert (error and type(error)) is kind


def test_the_hint_is_kept():
    """Retry-After goes with the error."""
    assert outcome_of(429, b"", 12.5).after == 12.5
    assert outcome_of(503).after is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"reason":"no_matching_pool"}', "no_matching_pool"),
        (b'{"errors":[{"message":"Unexpected field: x","source":{"pointer":"/x"}}]}', "Unexpected field: x"),
        (b'{"details":"' + b"ab" * 32 + b'"}', ""),
        (b'{"errors":[{"message":"bad token ' + b"ab" * 32 + b'"}]}', ""),
        (b'{"reason":"a\\nforged log line"}', ""),
        (b'{"reason":5}', ""),
        (b'{"errors":[5]}', ""),
        (b'{"errors":{}}', ""),
        (b"[]", ""),
        (b"\xff", ""),
        (b"[" * 5000, ""),
    ],
)
def test_the_reason_is_fit_for_a_log(body, reason):
    """Short words only: a push service may echo the token or worse."""
    assert reason_in(body) == reason


def test_the_text_names_code_and_reason():
    """That is what the operator reads."""
    assert str(outcome_of(400, b'{"reason":"no_matching_pool"}')) == "400 no_matching_pool"
    assert str(outcome_of(404)) == "404"
