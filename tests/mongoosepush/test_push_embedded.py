"""``server = embedded:``: the same as over HTTP, without it."""

import orjson
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from xmpppush.errors import DeviceUnregistered, Refused, TryLater
from xmpppush.mongoosepush.api import NotificationAPI
from xmpppush.mongoosepush.embedded import EmbeddedPool
from xmpppush.mongoosepush.pools import Pools
from xmpppush.testing.pools import FakePool

BODY = orjson.dumps({"service": "apns", "alert": {"title": "t", "body": "b"}, "time_to_live": "60"})


def embedded(*pools):
    return EmbeddedPool("pool", NotificationAPI([Pools(pools)], Clock()))


def answer_of(deferred):
    found = []
    deferred.addCallback(found.append)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("path", "device_id"),
    [("/v3/notification/tok", "tok"), ("/v2/notification/a%2Fb%20%C3%A9", "a/b é")],
)
def test_the_pool_gets_what_would_have_come(path, device_id):
    """The device id decoded once, numbers as numbers."""
    pool = FakePool()
    connections = embedded(pool)
    assert answer_of(connections.post(path, BODY)).code == 200
    assert pool.pushed == [(device_id, {"alert": {"title": "t", "body": "b"}, "time_to_live": 60})]
    assert connections.statuses[200] == 1
    assert connections.trouble is None


@pytest.mark.parametrize(
    ("error", "code", "after"),
    [
        (DeviceUnregistered("unregistered"), 410, None),
        (Refused("payload_too_large"), 413, None),
        (TryLater("too_many_requests", 7.0), 429, 7.0),
        (TryLater("unable_to_connect"), 503, None),
    ],
)
def test_errors_are_http_ones(error, code, after):
    """So that retries, traces and metrics are the same."""
    response = answer_of(embedded(FakePool(result=error)).post("/v3/notification/tok", BODY))
    assert (response.code, response.retry_after) == (code, after)
    assert orjson.loads(response.body)["reason"] == str(error)


def test_a_bad_request_is_one_here_too():
    """The same checks."""
    connections = embedded(FakePool())
    assert answer_of(connections.post("/v3/notification/tok", b"{}")).code == 422
    assert answer_of(connections.post("/v3/notification/%FF", BODY)).code == 400
    assert answer_of(connections.post("/v3/notification/tok", b'{"service":"fcm","data":{}}')).code == 400


def test_answers_may_come_later():
    """When the provider gives them."""
    waiting = Deferred()
    answer = embedded(FakePool(result=waiting)).post("/v3/notification/tok", BODY)
    found = []
    answer.addCallback(found.append)
    assert found == []
    waiting.callback(None)
    assert found[0].code == 200
