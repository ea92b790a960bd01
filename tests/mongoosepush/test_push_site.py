"""What the push service's listener has beside notifications: metrics, OpenAPI, its page; and the keys."""

import json
import re
from hashlib import sha256
from html.parser import HTMLParser

import orjson
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from xmpppush.config.sections import SandboxSection
from xmpppush.errors import DeviceUnregistered, Refused, TryLater
from xmpppush.mongoosepush.api import NotificationAPI, PushAPI
from xmpppush.mongoosepush.api_keys import APIKeys, Client
from xmpppush.mongoosepush.http_server import HTTPRequest
from xmpppush.mongoosepush.openapi import openapi
from xmpppush.mongoosepush.page import render
from xmpppush.mongoosepush.pools import Pools
from xmpppush.mongoosepush.sandbox import Sandbox
from xmpppush.mongoosepush.schemas import EXTENSIONS, InvalidRequest, read_request
from xmpppush.testing.pools import FakePool

V3 = {"service": "apns", "alert": {"title": "t", "body": "b"}}
KEY = "k" * 32


def api(*pools, keys=None, clock=None):
    return PushAPI(NotificationAPI([Pools(pools)], clock or Clock()), keys)


def get(api, path, method="GET", **headers):
    return api(HTTPRequest(method, path, {k.replace("_", "-"): v for k, v in headers.items()}, b""))


def post(api, body=V3, path=b"/v3/notification/tok", **headers):
    headers = {"content-type": "application/json", **headers}
    return api(HTTPRequest("POST", path, headers, orjson.dumps(body)))


def samples(answer):
    families = text_string_to_metric_families(answer.body.decode())
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_metrics_are_mongoosepushs():
    """Its histogram, with its labels and buckets; the provider's word is the reason."""
    gone = DeviceUnregistered("unregistered")
    gone.provider_word = "Unregistered"
    pool = FakePool(result=None)
    site = api(pool)
    post(site)
    pool.result = gone
    post(site)
    post(site, {**V3, "mode": "dev"})
    post(site, {**V3, "service": "fcm"})
    found = samples(get(site, b"/metrics"))
    name = "mongoose_push_notification_send_time_microsecond"

    def labels(category, reason, service, status):
        return (
            ("error_category", category),
            ("error_reason", reason),
            ("service", service),
            ("status", status),
        )

    assert found[(f"{name}_count", *labels("", "", "apns", "success"))] == 1
    assert found[(f"{name}_count", *labels("unregistered", "Unregistered", "apns", "error"))] == 1
    for service in ("apns", "fcm"):
        assert found[(f"{name}_count", *labels("generic", "no_matching_pool", service, "error"))] == 1
    buckets = [float(dict(key[1:])["le"]) for key in found if key[0] == f"{name}_bucket"]
    assert buckets[:9] == [1000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, float("inf")]


def test_metrics_have_the_time_in_microseconds():
    """From the valid request to the provider's answer."""
    clock, answer = Clock(), Deferred()
    site = api(FakePool(result=answer), clock=clock)
    post(site)
    clock.advance(0.25)
    answer.callback(None)
    found = samples(get(site, b"/metrics"))
    (total,) = [value for key, value in found.items() if key[0].endswith("microsecond_sum")]
    assert total == 250_000


def test_metrics_have_the_pools():
    """Connections, and when a certificate ends."""
    site = api(FakePool("a", expiry=1.8e9), FakePool("f", "fcm", up=0))
    found = samples(get(site, b"/metrics", accept="text/plain"))
    expiry = "xmpppush_push_pool_certificate_expiry_timestamp_seconds"
    assert {key: value for key, value in found.items() if key[0] == expiry} == {
        (expiry, ("pool", "a"), ("service", "apns")): 1.8e9
    }
    up = ("xmpppush_push_pool_connections", ("pool", "f"), ("service", "fcm"), ("state", "up"))
    assert found[up] == 0


def test_hostile_words_make_no_labels():
    """A provider's word counts where it is documented; what a client wrote never gets there."""
    site = api(FakePool(result=Refused("x" * 10_000)))
    post(site, path=b"/v3/notification/s3cret")
    text = get(site, b"/metrics").body
    assert b"s3cret" not in text
    assert b"xxx" not in text
    assert b'error_reason="invalid_request"' in text


@pytest.mark.parametrize("path", [b"/metrics", b"/swagger.json", b"/swaggerui", b"/healthcheck"])
def test_pages_are_read_only(path):
    """405 with Allow for the rest, 406 for who wants something else."""
    site = api(FakePool())
    assert get(site, path).status == 200
    assert get(site, path, "HEAD").status == 200
    refused = get(site, path, "POST")
    assert (refused.status, refused.headers) == (405, (("allow", "GET, HEAD"),))
    assert get(site, path, accept="image/png").status == 406


def test_swagger_is_valid_openapi():
    """By somebody else's judgement."""
    OpenAPIV31SpecValidator(json.loads(get(api(), b"/swagger.json").body)).validate()


@pytest.mark.parametrize(
    "body",
    [
        V3,
        {"service": "fcm", "data": {"a": [1, {"b": None}]}},
        {**V3, "time_to_live": "60", "mutable_content": "true", "topic": None, "tags": ["a"]},
        {**V3, "apns_collapse_id": "x", "apns_expiration": 0, "apns_push_type": "voip", "thread_id": "y"},
        {**V3, "collapse_key": "k", "analytics_label": "a-b_c.d~e%f", "channel_id": "news"},
        {**V3, "alert": {**V3["alert"], "badge": "7", "sound": None}},
    ],
)
def test_swagger_and_the_api_agree(body):
    """What the document allows is accepted."""
    document = openapi("1")
    schema = {**document["components"]["schemas"]["V3"], "components": document["components"]}
    Draft202012Validator(schema).validate(body)
    read_request("v3", body)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("apns_collapse_id", "x" * 65, "String length is larger than maxLength: 64"),
        ("apns_collapse_id", "", "String length is smaller than minLength: 1"),
        ("apns_expiration", -1, "Invalid format. Expected :int64"),
        ("apns_expiration", 10**12, "Invalid format. Expected :int64"),
        ("apns_expiration", "soon", "Invalid integer. Got: string"),
        ("apns_push_type", "loud", "Invalid value for enum"),
        ("thread_id", 5, "Invalid string. Got: integer"),
        ("collapse_key", "x" * 256, "String length is larger than maxLength: 255"),
        ("analytics_label", "a b", "Invalid format. Expected ^[a-zA-Z0-9_.~%-]{1,50}$"),
        ("analytics_label", "ok\n", "Invalid format. Expected ^[a-zA-Z0-9_.~%-]{1,50}$"),
        ("channel_id", [], "Invalid string. Got: array"),
    ],
)
def test_extensions_have_bounds(name, value, message):
    """Also behind a good request of the same kind, which is remembered."""
    good = {"apns_expiration": 1, "apns_push_type": "alert"}.get(name, "ok")
    for version in ("v2", "v3"):
        read_request(version, {**V3, name: good})
        with pytest.raises(InvalidRequest) as raised:
            read_request(version, {**V3, name: value})
        (problem,) = raised.value.problems
        assert (problem.message, problem.pointer) == (message, f"/{name}")


def test_v1_has_no_extensions():
    """Nor had it any of v2's fields."""
    for name in EXTENSIONS:
        with pytest.raises(InvalidRequest, match="Unexpected field"):
            read_request("v1", {"service": "apns", "title": "t", "body": "b", name: "x"})


class Reader(HTMLParser):
    """Notes what a page would load or run, and whether its tags match."""

    def __init__(self):
        super().__init__()
        self.loads, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.loads += [
            value for name, value in attrs if name in ("src", "href") and not value.startswith("#")
        ]
        if tag in ("script", "img", "iframe", "link"):
            self.loads.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_loads_nothing_from_elsewhere():
    """One link, to the document; and a policy that allows nothing else."""
    answer = get(api(), b"/swaggerui", accept="text/html,*/*;q=0.8")
    reader = Reader()
    reader.feed(answer.body.decode())
    assert reader.open == []
    assert reader.loads == ["/swagger.json"]
    assert "default-src 'none'" in dict(answer.headers)["content-security-policy"]
    for word in (*EXTENSIONS, "/v3/notification/{device_id}", "mutable_content"):
        assert word in reader.text


def test_the_page_escapes():
    """Whatever the document says."""
    document = openapi("<script>alert(1)</script>")
    assert not re.search(b"<script", render(document))


def keys(rate=0.0):
    return APIKeys([Client("one", sha256(KEY.encode()).digest(), rate)])


def test_keys_guard_notifications_and_metrics():
    """401 and how to do better; health and document are for everybody."""
    site = api(FakePool(), keys=keys())
    for answer in (post(site), post(site, authorization="Bearer wrong"), get(site, b"/metrics")):
        assert (answer.status, orjson.loads(answer.body)) == (401, {"reason": "unauthorized"})
        assert dict(answer.headers)["www-authenticate"].startswith("Bearer")
    assert post(site, {}, b"/v1/notification/x").body == b'{"details":"unauthorized"}'
    assert post(site, authorization=f"Bearer {KEY}").status == 200
    assert get(site, b"/metrics", authorization=f"Bearer {KEY}").status == 200
    assert get(site, b"/healthcheck").status == get(site, b"/swagger.json").status == 200


def test_quotas_say_when_to_come_back():
    """429 with Retry-After; what is refused for its form counts, too."""
    clock = Clock()
    site = api(FakePool(), keys=keys(1.0), clock=clock)
    assert post(site, {}, authorization=f"Bearer {KEY}").status == 422
    answer = post(site, authorization=f"Bearer {KEY}")
    assert (answer.status, answer.headers) == (429, (("retry-after", "1"),))
    assert orjson.loads(answer.body) == {"reason": "too_many_requests"}
    clock.advance(1)
    assert post(site, authorization=f"Bearer {KEY}").status == 200


def test_a_providers_retry_after_is_passed_on():
    """Rounded up."""
    answer = post(api(FakePool(result=TryLater("too_many_requests", 2.2))))
    assert (answer.status, answer.headers) == (429, (("retry-after", "3"),))


def test_v1_and_v2_have_the_providers_word():
    """As MongoosePush's; v3 has ours."""
    error = Refused("invalid_request")
    error.provider_word = "BadDeviceToken"
    site = api(FakePool(result=error))
    assert post(site, path=b"/v2/notification/x").body == b'{"details":"BadDeviceToken"}'
    assert post(site).body == b'{"reason":"invalid_request"}'


def test_the_sandbox_takes_web_push():
    """Where it stands in for that."""
    sandbox = Sandbox(SandboxSection(("webpush",)), Clock())
    site = PushAPI(NotificationAPI([Pools([]), sandbox], Clock()))
    assert post(site, {**V3, "service": "webpush"}).status == 200
    assert sandbox.notifications[0].content["payload"] == {"title": "t", "body": "b"}
