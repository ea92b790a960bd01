"""The push service's HTTP API, by treq's own stub."""

import json

import pytest
from attrs import define, field
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from xmpppush.config.sections import SandboxSection
from xmpppush.errors import DeviceUnregistered, Refused, TryLater
from xmpppush.interfaces import IPushProvider
from xmpppush.mongoosepush.api import NotificationAPI, PushAPI, accepts
from xmpppush.mongoosepush.health import IHasPools, PoolHealth, report
from xmpppush.mongoosepush.http_server import HTTPRequest
from xmpppush.mongoosepush.resource import PushResource
from xmpppush.mongoosepush.sandbox import Sandbox

V1 = {"service": "fcm", "title": "t", "body": "b"}
V3 = {"service": "fcm", "alert": {"title": "t", "body": "b"}}
BODIES = {"v1": V1, "v2": V3, "v3": V3}
JSON = {"content-type": "application/json"}


@implementer(IPushProvider)
@define
class Scripted:
    """A provider that does as it is told."""

    result: object = None
    services: tuple = ("fcm",)
    calls: list = field(factory=list)

    def push(self, service, device_id, request):
        self.calls.append((service, device_id, dict(request)))
        if isinstance(self.result, Deferred):
            return self.result
        return succeed(None) if self.result is None else fail(self.result)


@implementer(IHasPools)
@define
class Pools:
    up: tuple
    services: tuple = ()

    def pools(self):
        return [PoolHealth(f"p{index}", each, 5 - each) for index, each in enumerate(self.up)]


class Client:
    """An HTTP client of an API with these providers; answers are ``(status, JSON, headers)``."""

    def __init__(self, *providers, clock=None):
        self.clock = clock or Clock()
        self._treq = StubTreq(PushResource(PushAPI(NotificationAPI(providers, self.clock))))

    def start(self, method, path, **request):
        pending = self._treq.request(method, f"https://localhost{path}", **request)
        self._treq.flush()
        return pending

    def finish(self, pending):
        self._treq.flush()
        (response,) = results_of(pending)
        (content,) = results_of(response.content())
        headers = {name.lower(): values[0] for name, values in response.headers.getAllRawHeaders()}
        return response.code, json.loads(content) if content else None, headers

    def request(self, method, path, **request):
        return self.finish(self.start(method, path, **request))

    def post(self, path, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", path, data=data, headers={**JSON, **given})


def results_of(deferred):
    results = []

    def keep(result):
        results.append(result)
        return result

    deferred.addBoth(keep)
    return results


@pytest.fixture
def log():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_a_notification_reaches_its_provider(version):
    """200, the JSON text null, and the provider has it in v3's terms without ``service``."""
    provider = Scripted()
    status, body, headers = Client(provider).post(f"/{version}/notification/tok", BODIES[version])
    assert (status, body) == (200, None)
    assert headers[b"content-type"] == b"application/json; charset=utf-8"
    assert provider.calls == [("fcm", "tok", {"alert": {"title": "t", "body": "b"}})]


@pytest.mark.parametrize("service", ["fcm", "apns"])
def test_the_sandbox_takes_it(service):
    """The whole way with the real provider."""
    sandbox = Sandbox(SandboxSection(), Clock())
    assert Client(sandbox).post("/v3/notification/tok", {**V3, "service": service})[0] == 200
    assert [each.service for each in sandbox.notifications] == [service]


@pytest.mark.parametrize(
    ("segment", "device_id"),
    [
        ("a%2Fb", "a/b"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("a%zz", "a%zz"),
        ("a%252F", "a%2F"),
        ("%C5%BC", "ż"),
        ("a:b", "a:b"),
        ("%0D%0A", "\r\n"),
        ("%2e%2e", ".."),
    ],
)
def test_the_device_id_is_decoded_once(segment, device_id):
    """Whatever it holds it is one path segment for us, and one string for the provider."""
    provider = Scripted()
    request = PushAPI(NotificationAPI([provider], Clock()))
    assert request(an_http_request(f"/v3/notification/{segment}".encode())).status == 200
    assert provider.calls[0][1] == device_id


def an_http_request(path, method="POST", body=V3, headers=JSON):
    return HTTPRequest(method, path, headers, json.dumps(body).encode())


@pytest.mark.parametrize("segment", [b"%FF", b"\xff", b"x" * 4097])
def test_a_device_id_that_is_none_is_refused(segment):
    """Bytes that are no UTF-8, and more than anybody's token."""
    provider = Scripted()
    answer = PushAPI(NotificationAPI([provider], Clock()))(an_http_request(b"/v3/notification/" + segment))
    assert (answer.status, answer.body) == (400, b'{"reason":"invalid_request"}')
    assert provider.calls == []


@pytest.mark.parametrize("path", [b"//v3/notification/x", b"/v3//notification/x", b"/v3/notification/x/"])
def test_doubled_and_trailing_slashes_do_not_count(path):
    """As in MongoosePush."""
    assert PushAPI(NotificationAPI([Scripted()], Clock()))(an_http_request(path)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", "/", 404, {"reason": "not_found"}),
        ("POST", "/v3/notification", 404, {"reason": "not_found"}),
        ("POST", "/v3/notification/", 404, {"reason": "not_found"}),
        ("POST", "/v3/notification/a/b", 404, {"reason": "not_found"}),
        ("POST", "/V3/notification/a", 404, {"reason": "not_found"}),
        ("POST", "/v4/notification/a", 404, {"reason": "not_found"}),
        ("POST", "/v1/nothing", 404, {"details": "not_found"}),
        ("GET", "/v3/notification/a", 405, {"reason": "method_not_allowed"}),
        ("DELETE", "/v2/notification/a", 405, {"details": "method_not_allowed"}),
        ("POST", "/healthcheck", 405, {"reason": "method_not_allowed"}),
    ],
)
def test_wrong_paths_and_methods_are_told(method, path, status, body):
    """With a body in the words of the version, where MongoosePush has an empty 500."""
    answer = Client(Scripted()).request(method, path, headers=JSON, data=b"{}")
    assert answer[:2] == (status, body)
    assert (b"allow" in answer[2]) == (status == 405)


@pytest.mark.parametrize(
    ("version", "content", "body"),
    [
        ("v3", b"{", {"reason": "invalid_json"}),
        ("v3", b"\xef\xbb\xbf{}", {"reason": "invalid_json"}),
        ("v3", b'{"a": NaN}', {"reason": "invalid_json"}),
        ("v3", b"[" * 100_000, {"reason": "invalid_json"}),
        ("v2", b"{}x", {"details": "invalid_json"}),
        ("v1", b'"\xff"', {"details": "invalid_json"}),
    ],
)
def test_broken_json_is_400(version, content, body):
    """Also what is deeper than any parser should go."""
    assert Client(Scripted()).post(f"/{version}/notification/a", content)[:2] == (400, body)


def test_an_invalid_request_is_422_with_a_list():
    """In MongoosePush's shape, in all versions."""
    assert Client(Scripted()).post("/v1/notification/a", {"service": "fcm", "title": "t"})[:2] == (
        422,
        {
            "errors": [
                {
                    "message": "Missing field: body",
                    "source": {"pointer": "/body"},
                    "title": "Invalid value",
                }
            ]
        },
    )


def test_an_empty_body_is_an_empty_object():
    """422 and not 400."""
    assert Client(Scripted()).post("/v3/notification/a", b"")[0] == 422


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Missing header: content-type"),
        ({"content-type": "text/plain"}, "Invalid value for header: content-type"),
        ({"content-type": "APPLICATION/JSON"}, "Invalid value for header: content-type"),
        ({"content-type": "application/x-www-form-urlencoded"}, "Invalid value for header: content-type"),
    ],
)
def test_the_content_type_must_be_json(headers, message):
    """Nothing else is even parsed."""
    answer = PushAPI(NotificationAPI([Scripted()], Clock()))(
        an_http_request(b"/v3/notification/a", headers=headers)
    )
    assert answer.status == 422
    assert json.loads(answer.body)["errors"][0]["message"] == message


@pytest.mark.parametrize("value", ["application/json; charset=utf-8", "application/json;charset=ISO-8859-1"])
def test_parameters_of_the_content_type_do_not_count(value):
    """JSON is UTF-8 whatever they say."""
    answer = PushAPI(NotificationAPI([Scripted()], Clock()))(
        an_http_request(b"/v3/notification/a", headers={"content-type": value})
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        (None, True),
        ("*/*", True),
        ("application/*", True),
        ("text/html, application/json;q=0.5", True),
        ("text/html", False),
        ("garbage", False),
        ("", False),
    ],
)
def test_accept_must_take_json(accept, taken):
    """406 else, with a JSON body all the same."""
    assert accepts(accept, "application/json") is taken
    headers = {**JSON, **({} if accept is None else {"accept": accept})}
    answer = PushAPI(NotificationAPI([Scripted()], Clock()))(
        an_http_request(b"/v3/notification/a", headers=headers)
    )
    assert answer.status == (200 if taken else 406)


@pytest.mark.parametrize(
    ("error", "v3", "v2"),
    [
        (DeviceUnregistered(), (410, "unregistered"), (500, "unregistered")),
        (DeviceUnregistered("UNREGISTERED"), (410, "unregistered"), (500, "UNREGISTERED")),
        (Refused("BadDeviceToken"), (400, "invalid_request"), (500, "BadDeviceToken")),
        (Refused("invalid_notification"), (400, "invalid_notification"), (500, "invalid_notification")),
        (Refused("payload_too_large"), (413, "payload_too_large"), (500, "payload_too_large")),
        (TryLater("too_many_requests"), (429, "too_many_requests"), (500, "too_many_requests")),
        (TryLater("internal_config"), (503, "internal_config"), (500, "internal_config")),
        (TryLater("ServiceUnavailable"), (503, "service_internal"), (500, "ServiceUnavailable")),
        (TryLater("unable_to_connect"), (503, "unable_to_connect"), (503, "Please try again later")),
        (RuntimeError("secret"), (500, "internal_error"), (500, "internal_error")),
    ],
)
def test_a_providers_errors_are_told(error, v3, v2):
    """By v3 with status and reason; by v1 and v2 with details and 500, or 503."""
    assert Client(Scripted(error)).post("/v3/notification/a", V3)[:2] == (v3[0], {"reason": v3[1]})
    for version in ("v1", "v2"):
        answer = Client(Scripted(error)).post(f"/{version}/notification/a", BODIES[version])
        assert answer[:2] == (v2[0], {"details": v2[1]})


def test_retry_after_is_passed_on():
    """Rounded up to whole seconds."""
    provider = Scripted(TryLater("too_many_requests", after=1.2))
    assert Client(provider).post("/v3/notification/a", V3)[2][b"retry-after"] == b"2"


def test_a_service_without_a_pool():
    """As MongoosePush with the service switched off."""
    client = Client()
    assert client.post("/v3/notification/a", V3)[:2] == (400, {"reason": "no_matching_pool"})
    assert client.post("/v2/notification/a", V3)[:2] == (500, {"details": "no_matching_pool"})
    assert client.post("/v1/notification/a", V1)[:2] == (500, {"details": "no_matching_pool"})


def test_the_first_provider_of_a_service_has_it():
    """Order is the configuration's."""
    first, second = Scripted(services=("apns",)), Scripted(services=("apns", "fcm"))
    client = Client(first, second)
    client.post("/v3/notification/a", {**V3, "service": "apns"})
    client.post("/v3/notification/b", V3)
    assert [call[1] for call in first.calls] == ["a"]
    assert [call[1] for call in second.calls] == ["b"]


def test_an_answer_that_takes_time():
    """The client has it when the provider is through, and no timer is left."""
    result = Deferred()
    client = Client(Scripted(result))
    pending = client.start("POST", "/v3/notification/a", json=V3, headers=JSON)
    client.clock.advance(3)
    assert results_of(pending) == []
    result.callback(None)
    assert client.finish(pending)[:2] == (200, None)
    assert client.clock.getDelayedCalls() == []


@pytest.mark.parametrize(("version", "key"), [("v3", "reason"), ("v2", "details")])
def test_a_provider_that_never_answers(version, key):
    """After five seconds it is given up, and cancelled."""
    cancelled = []
    client = Client(Scripted(Deferred(cancelled.append)))
    pending = client.start("POST", f"/{version}/notification/a", json=V3, headers=JSON)
    client.clock.advance(5)
    assert client.finish(pending)[:2] == (500, {key: "request_timeout"})
    assert len(cancelled) == 1


def test_device_ids_stay_out_of_the_log(log):
    """Even where a provider fails unexpectedly; that is logged, once."""
    Client(Scripted(RuntimeError("oops"))).post("/v3/notification/secret-token", V3)
    (event,) = [each for each in log if each["log_level"].name in ("error", "critical", "warn")]
    assert "secret-token" not in str(event["log_failure"].getTraceback()) + event["log_format"]


@pytest.mark.parametrize(
    ("up", "status", "word"),
    [
        ((5,), 200, "pass"),
        ((1, 5), 200, "pass"),
        ((0, 5), 200, "warn"),
        ((0, 0), 503, "fail"),
        ((), 503, "fail"),
    ],
)
def test_health(up, status, word):
    """Some pools down is a warning, all down (or none there) a failure."""
    clock = Clock()
    clock.advance(1_000_000_000.25)
    code, body, _ = Client(Pools(up), clock=clock).request("GET", "/healthcheck")
    assert (code, body["status"]) == (status, word)
    assert list(body["checks"]) == [f"pool:p{index}" for index in range(len(up))]
    for index, connected in enumerate(up):
        assert body["checks"][f"pool:p{index}"] == [
            {
                "status": "pass" if connected else "fail",
                "time": "2001-09-09T01:46:40.250000Z",
                "output": {"connected": connected, "disconnected": 5 - connected},
            }
        ]


def test_health_of_the_sandbox():
    """Its pool is always there."""
    client = Client(Sandbox(SandboxSection(), Clock()))
    code, body, _ = client.request("GET", "/healthcheck", headers={"accept": "application/health+json"})
    assert code == 200
    assert list(body["checks"]) == ["pool:sandbox"]
    assert client.request("GET", "/healthcheck", headers={"accept": "text/html"})[0] == 406


def test_pools_of_one_name_are_both_in_the_health():
    """``[mongoosepush:fcm:default]`` and ``[mongoosepush:apns:default]``: none hides the other's fault."""
    status, body = report([PoolHealth("default", 0, 1), PoolHealth("default", 1)], 0.0, "1")
    assert (status, body["status"]) == (200, "warn")
    assert [each["status"] for each in body["checks"]["pool:default"]] == ["fail", "pass"]


@pytest.mark.parametrize("held_up", [5.2, 60.0])
def test_an_answer_that_came_while_the_process_was_held_up(held_up):
    """It is not given up before it could be read: that would send it twice."""
    clock, pending = Clock(), Deferred()
    answers = []
    api = NotificationAPI([Scripted(pending)], clock)
    answer = api.notify("v3", "tok", json.dumps(V3).encode())
    answer.addCallback(answers.append)
    clock.advance(held_up)
    pending.callback(None)
    assert [each.status for each in answers] == [200]
    assert not clock.getDelayedCalls()


def test_no_answer_although_the_process_was_held_up():
    """A little later it is over all the same."""
    clock = Clock()
    answers = []
    api = NotificationAPI([Scripted(Deferred())], clock)
    answer = api.notify("v3", "tok", json.dumps(V3).encode())
    answer.addCallback(answers.append)
    clock.advance(60.0)
    clock.advance(2.0)
    assert [each.status for each in answers] == [500]
    assert not clock.getDelayedCalls()


def test_each_answer_has_its_own_time():
    """One timer serves them all: a later one is not given up with the first, and not forgotten."""
    clock, pending = Clock(), [Deferred() for _ in range(3)]
    statuses = []
    provider = Scripted()
    api = NotificationAPI([provider], clock)
    for provider.result in pending:
        answer = api.notify("v3", "tok", json.dumps(V3).encode())
        answer.addCallback(lambda answer: statuses.append((clock.seconds(), answer.status)))
        clock.advance(1)
    pending[1].callback(None)
    for _ in range(5):
        clock.advance(1)
    assert statuses == [(3.0, 200), (5.0, 500), (7.0, 500)]
    assert not clock.getDelayedCalls()
