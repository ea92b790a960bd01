"""
The exchanges that were recorded of MongoosePush 2.2.0, asked of ours, with providers over TLS.

Where an answer differs, ``tests/data/mongoosepush-differences.json`` has ours and the key of the row in
docs/mongoosepush.rst that says why.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path

import orjson
import pytest
import pytest_twisted
from attrs import define, field
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport

from xmpppush.config.sections import APNsPoolSection, FCMPoolSection, MongoosePushSection
from xmpppush.mongoosepush.api import NotificationAPI, PushAPI
from xmpppush.mongoosepush.http_server import HTTPServerFactory
from xmpppush.mongoosepush.pools import make_pools
from xmpppush.testing.providers import (
    APNsEmulator,
    FCMEmulator,
    make_apns_credentials,
    make_fcm_credentials,
    make_test_authority,
)
from xmpppush.testing.providers.wire import Reply

DATA = Path(__file__).parents[1] / "data"
DOCS = Path(__file__).parents[2] / "docs" / "mongoosepush.rst"
EXCHANGES = json.loads((DATA / "mongoosepush-contract.json").read_text(encoding="utf-8"))
DIFFERENCES_FILE = DATA / "mongoosepush-differences.json"
DIFFERENCES = json.loads(DIFFERENCES_FILE.read_text(encoding="utf-8")) if DIFFERENCES_FILE.exists() else {}
TOPIC = "org.example.cert"
# Keys of what a provider gets otherwise; `compare_with_provider` finds them.
AT_PROVIDER = {
    "push-type",
    "expiration",
    "default-topic",
    "background-priority",
    "device-id-encoded",
    "duplicate-key",
    "new-token",
}
# What every answer of MongoosePush has, and ours.
HEADERS = ("cache-control", "content-type", "content-length", "date", "server", "x-request-id")


class Scripted:
    """Gives the answer of the exchange that is being replayed, to whatever comes."""

    answer = None

    def received_request(self, request):
        answer = self.answer or {"status": 200, "body": ""}
        if self.kind_of(request) == "oauth":
            super().received_request(request)
            return
        self.seen.append(request)
        behaviour = answer.get("behaviour", "").partition(" ")[0]
        if behaviour in ("close", "rst", "goaway"):
            action = {"close": "drop", "rst": "reset", "goaway": "drop"}[behaviour]
            request.connection.fail(request.stream, action)
        elif answer.get("behaviour") in (None, "slow 3.0"):
            body = answer.get("body", "").encode()
            headers = ((b"content-type", b"application/json"),)
            request.connection.send(request.stream, Reply(answer.get("status", 200), headers, body))


class ScriptedAPNs(Scripted, APNsEmulator):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = []


class ScriptedFCM(Scripted, FCMEmulator):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = []


@define
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return orjson.loads(self.body) if self.body else None


@define
class Service:
    """The push service with the pools of a recording, and its providers."""

    apns: ScriptedAPNs
    fcm: ScriptedFCM
    folder: Path
    apis: dict = field(factory=dict)
    pools: dict = field(factory=dict)

    def api_of(self, exchange):
        """Of the exchange's configuration; made when it is first asked for."""
        kind = configuration_of(exchange)
        if kind not in self.apis:
            with pytest.MonkeyPatch.context() as patch:
                if kind == "impatient":
                    patch.setattr("xmpppush.mongoosepush.apns.REQUEST_TIMEOUT", 0.5)
                    patch.setattr("xmpppush.mongoosepush.fcm.REQUEST_TIMEOUT", 0.5)
                pools = make_pools(self.section("toml" if kind == "impatient" else kind), reactor)
            pools.startService()
            self.pools[kind] = pools
            self.apis[kind] = PushAPI(NotificationAPI([pools], reactor))
        return self.apis[kind]

    async def renew(self, exchange):
        """Other exchanges of this configuration meet pools that know nothing of this one."""
        kind = configuration_of(exchange)
        del self.apis[kind]
        await self.pools.pop(kind).stopService()
        self.api_of(exchange)
        await self.connected()

    async def connected(self):
        """Wait until the pools that have a provider are ready."""
        for _ in range(500):
            pools = [pool for kind in ("toml", "environment", "impatient") for pool in self.pools[kind]]
            if all(pool.health().connected and self.has_token(pool) for pool in pools):
                return
            await deferLater(reactor, 0.01)
        raise AssertionError("pools do not connect")

    def has_token(self, pool):
        return pool.service == "apns" or pool._tokens.current is not None

    def section(self, kind):
        def apns(name, **keys):
            endpoint = keys.pop("endpoint", self.apns.endpoint)
            return APNsPoolSection(name, ca_file=self.folder / "ca.pem", endpoint=endpoint, **keys)

        def fcm(name, account="account.json", **keys):
            endpoint = keys.pop("endpoint", self.fcm.endpoint)
            return FCMPoolSection(
                name, self.folder / account, ca_file=self.folder / "ca.pem", endpoint=endpoint, **keys
            )

        token = {"key_id": "K" * 10, "team_id": "T" * 10, "p8_file": self.folder / "token.p8"}
        certificate = {"certfile": self.folder / "cert.pem", "keyfile": self.folder / "key.pem"}
        nobody = {"endpoint": "127.0.0.1:1"}
        pools = {
            "toml": [
                apns("apns_1", default_topic=TOPIC, **token),
                apns("apns_2", tags=("cert-tag", "second"), **certificate),
                apns("apns_3", mode="dev", **token),
                fcm("fcm_1"),
                fcm("fcm_2", tags=("fcm-tagged",)),
            ],
            "environment": [
                apns("prod", default_topic=TOPIC, **token),
                apns("dev", mode="dev", default_topic=TOPIC, **token),
                fcm("default"),
            ],
            "no APNs": [
                apns("apns_1", default_topic=TOPIC, **token, **nobody),
                apns("apns_2", tags=("cert-tag", "second"), **certificate, **nobody),
                apns("apns_3", mode="dev", **token, **nobody),
                fcm("fcm_1"),
                fcm("fcm_2", tags=("fcm-tagged",)),
            ],
            "refusing": [apns("apns_1", **token, **nobody), fcm("fcm_1", **nobody)],
            "nobody": [
                apns("prod", **token, **nobody),
                apns("dev", mode="dev", **token, **nobody),
                fcm("default", account="nobody.json", **nobody),
            ],
            "no OAuth": [fcm("default", account="nobody.json")],
            "only FCM": [fcm("default")],
            "none": [],
        }[kind]
        return MongoosePushSection(
            apns={pool.name: pool for pool in pools if isinstance(pool, APNsPoolSection)},
            fcm={pool.name: pool for pool in pools if isinstance(pool, FCMPoolSection)},
        )


def configuration_of(exchange):
    name = exchange["name"]
    for words, kind in (
        ("no service enabled", "none"),
        ("only FCM enabled", "only FCM"),
        ("OAuth endpoint answers 401", "no OAuth"),
        ("every provider down since start: GET", "nobody"),
        ("every provider down", "refusing"),
        ("provider refuses connections", "refusing"),
        ("APNs down", "no APNs"),
        ("answers after 7 s", "impatient"),
    ):
        if words in name:
            return kind
    return exchange["configuration"]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Up before the first exchange: its APNs pools are connected."""
    folder = tmp_path_factory.mktemp("replay")
    authority = make_test_authority()
    credentials, account = make_apns_credentials(authority, TOPIC), make_fcm_credentials()
    service = Service(ScriptedAPNs(authority, credentials), ScriptedFCM(authority, account), folder)

    async def begin():
        await gatherResults([service.apns.listen(reactor), service.fcm.listen(reactor)])
        write(folder, authority, credentials, account, service.fcm.token_uri)
        for exchange in EXCHANGES:
            service.api_of(exchange)
        await service.connected()

    pytest_twisted.blockon(Deferred.fromCoroutine(begin()))
    yield service

    async def end():
        await gatherResults([pools.stopService() for pools in service.pools.values()])
        await gatherResults([service.apns.stop(), service.fcm.stop()])

    pytest_twisted.blockon(Deferred.fromCoroutine(end()))


def write(folder, authority, apns, fcm, token_uri):
    (folder / "ca.pem").write_bytes(authority.ca)
    (folder / "token.p8").write_bytes(apns.p8)
    (folder / "account.json").write_bytes(fcm.service_account(token_uri))
    (folder / "nobody.json").write_bytes(fcm.service_account("https://127.0.0.1:1/token"))
    client = apns.certificate
    (folder / "cert.pem").write_bytes(client.certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(
        client.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


async def ask(api, request):
    """The whole way through the HTTP server, but for the socket."""
    factory = HTTPServerFactory(api, api.refuse, reactor, os.urandom, 10)
    protocol = factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(octets_of(request))
    for _ in range(400):
        if b"content-length" in transport.value():
            break
        await deferLater(reactor, 0.005)
    protocol.connectionLost()
    octets = transport.value().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, body = octets.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return Answer(int(lines[0].split(" ")[1]), headers, body)


def octets_of(request):
    path = request["path"]
    if "... (" in path:
        path = "/v3/notification/" + "a" * 12000
    body = (request.get("body") or "").encode("utf-8", "surrogateescape")
    if "body_length" in request:
        start, end = b'{"service":"apns","alert":{"title":"t","body":"', b'"}}'
        body = start + b"x" * (request["body_length"] - len(start) - len(end)) + end
    if "invalid UTF-8" in request.get("name", ""):
        body = b'{"service":"apns","title":"t","body":"\xff\xfe"}'
    headers = {"host": "localhost", **request["headers"]}
    if body or request["method"] in ("POST", "PUT", "PATCH"):
        headers["content-length"] = str(len(body))
    lines = [f"{request['method']} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def replay(service, exchange):
    """Our answer, and what the providers got."""
    provider = exchange["provider"]
    recorded = provider if isinstance(provider, dict) else None
    service.apns.answer = service.fcm.answer = recorded["answer"] if recorded else None
    service.apns.seen.clear()
    service.fcm.seen.clear()
    api = service.api_of(exchange)
    answer = await ask(api, {**exchange["request"], "name": exchange["name"]})
    if exchange["name"] == "v3 duplicate key":
        recorded = None  # ours goes elsewhere
    if recorded and ("behaviour" in recorded["answer"] or recorded["answer"]["status"] in (401, 403)):
        # What it thinks of its credentials or its provider now is for it alone.
        await service.renew(exchange)
    return answer, [*service.apns.seen, *service.fcm.seen]


def shown(exchange, answer):
    """The answer as the recording has it, as far as it can be compared."""
    path = exchange["request"]["path"].strip("/")
    if path in ("metrics", "swagger.json", "swaggerui"):
        return {"status": answer.status}
    content = answer.json if exchange["request"]["method"] != "HEAD" else None
    if path == "healthcheck" and content:
        return {"status": answer.status, "json": health_of(content)}
    return {"status": answer.status, "json": content}


def health_of(content):
    """What does not depend on how many connections a pool keeps."""
    if "checks" not in content:
        return content
    pools = {name: check[0]["status"] for name, check in content["checks"].items()}
    return {"status": content["status"], "checks": pools}


def recorded_answer(exchange):
    response = exchange["response"]
    body = response.get("body")
    return shown(exchange, Answer(response["status"], {}, body.encode() if body else b""))


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["name"])
@pytest_twisted.ensureDeferred
async def test_answer(exchange, service):
    """It is the recorded one, or differs on purpose; the provider gets what MongoosePush's got."""
    answer, seen = await replay(service, exchange)
    recorded, ours = recorded_answer(exchange), shown(exchange, answer)
    if ours != recorded:
        assert exchange["name"] in DIFFERENCES, (recorded, ours)
        difference = dict(DIFFERENCES[exchange["name"]])
        assert difference.pop("key") in documented_keys()
        assert ours == difference
    else:
        assert exchange["name"] not in DIFFERENCES
        if exchange["response"]["headers"].get("content-type", "").startswith("application/json"):
            for name in ("content-type", "cache-control", "content-length"):
                if "notification" in exchange["request"]["path"]:
                    assert answer.headers[name] == exchange["response"]["headers"].get(name)
    assert set(HEADERS) <= answer.headers.keys()
    compare_with_provider(exchange, seen, ours == recorded)


def compare_with_provider(exchange, seen, same_answer):
    provider = exchange["provider"]
    if not isinstance(provider, dict) or "headers" not in provider:
        return
    if provider["service"] == "fcm" and seen and seen[-1].path.startswith("/3/"):
        assert exchange["name"] == "v3 duplicate key"
        assert "duplicate-key" in documented_keys()
        return
    if not same_answer and not seen:
        return  # we refuse it ourselves, which the table of answers says
    *before, request = seen
    if before:
        assert exchange["name"].endswith(("403 ExpiredProviderToken", "401 UNAUTHENTICATED, no details"))
        assert len(before) == 1
        assert "new-token" in documented_keys()
    ours = comparable(
        request.method, request.path, {n.decode(): v.decode() for n, v in request.headers}, request.body
    )
    theirs = comparable(
        provider["method"], provider["path"], provider["headers"], orjson.dumps(provider["body"])
    )
    asked = exchange["request"]["json"]
    keys = differences_at_provider(asked, provider["service"], ours, theirs)
    assert set(keys) <= documented_keys(), keys
    assert ours == theirs


def comparable(method, path, headers, body):
    wanted = ("apns-", "content-type", "accept")
    return {
        "method": method,
        "path": path if path.startswith("/3/") else "fcm",
        "headers": {name: value for name, value in headers.items() if name.startswith(wanted)},
        "body": orjson.loads(body) if body else None,
    }


def differences_at_provider(asked, service, ours, theirs):
    """Take what differs on purpose out of both; the keys of the rows that say so."""
    keys = []
    mine, other = ours["headers"], theirs["headers"]

    def drop(key, name):
        if mine.get(name) != other.get(name):
            keys.append(key)
        mine.pop(name, None)
        other.pop(name, None)

    if service == "apns":
        drop("push-type", "apns-push-type")
        drop("expiration", "apns-expiration")
        if "topic" not in asked:
            drop("default-topic", "apns-topic")
        if "alert" not in asked and "title" not in asked:
            drop("background-priority", "apns-priority")
        if ours["path"] != theirs["path"]:
            keys.append("device-id-encoded")
            theirs["path"] = ours["path"]
    else:
        for name in ("accept", "accept-encoding", "content-type"):
            mine.pop(name, None)
            other.pop(name, None)
    return keys


def documented_keys():
    """The first column of the tables "Where we differ"."""
    text = DOCS.read_text(encoding="utf-8").partition("Where we differ\n")[2]
    return set(re.findall(r"(?m)^``([a-z0-9-]+)`` ", text))


def test_every_difference_is_explained_and_every_explanation_needed():
    """The rows of the tables and the keys in use are the same."""
    used = Counter(difference["key"] for difference in DIFFERENCES.values())
    assert documented_keys() - AT_PROVIDER == used.keys() - AT_PROVIDER
    assert {each["name"] for each in EXCHANGES} >= DIFFERENCES.keys()
