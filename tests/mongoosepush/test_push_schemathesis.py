"""schemathesis against ``/swagger.json``: what it makes up of the document finds nothing."""

import os

import pytest
from hypothesis import HealthCheck, Phase, assume, settings
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from xmpppush.interfaces import IPushProvider
from xmpppush.mongoosepush.api import NotificationAPI, PushAPI
from xmpppush.mongoosepush.health import IHasPools, PoolHealth
from xmpppush.mongoosepush.http_server import HTTPServerFactory

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow


@implementer(IPushProvider, IHasPools)
class Anything:
    """A provider that takes it."""

    services = ("apns", "fcm", "webpush")

    def push(self, service, device_id, request):
        return succeed(None)

    def pools(self):
        return [PoolHealth("all", 1)]


def call(environ, start_response):
    """The service as a WSGI application, which is how schemathesis asks without a socket."""
    api = PushAPI(NotificationAPI([Anything()], Clock()))
    factory = HTTPServerFactory(api, api.refuse, Clock(), os.urandom, 10)
    protocol, transport = factory.buildProtocol(None), StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(octets_of(environ))
    head, _, body = transport.value().partition(b"\r\n\r\n")
    protocol.connectionLost()
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    start_response(status.partition(" ")[2], headers)
    return [body]


def octets_of(environ):
    path = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") and name not in ("HTTP_CONNECTION", "HTTP_ACCEPT_ENCODING")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    body = environ["wsgi.input"].read()
    if body or environ["REQUEST_METHOD"] == "POST":
        headers["content-length"] = str(len(body))
    lines = [f"{environ['REQUEST_METHOD']} {path} HTTP/1.1"]
    lines += [
        f"{name}: {value}" for name, value in headers.items() if "\r" not in value and "\n" not in value
    ]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


schema = schemathesis.openapi.from_wsgi("/swagger.json", call)


@schema.parametrize()
@settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_nothing_is_found(case):
    """Good and bad requests to each operation, the same ones each time, and all of schemathesis' checks."""
    assume(not any_whole_float(case.body))
    case.call_and_validate()


def any_whole_float(value):
    """5.0 is an integer in JSON Schema, and none to MongoosePush."""
    if isinstance(value, dict):
        return any(map(any_whole_float, value.values()))
    if isinstance(value, list):
        return any(map(any_whole_float, value))
    return isinstance(value, float) and value.is_integer()
