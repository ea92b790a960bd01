"""``/health`` and ``/metrics`` of a real server over TLS, while a push goes through and when none does."""

import asyncio
import json
import signal
import sqlite3
import ssl
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for
from xmpppush.testing.stanzas import push_requests

INI = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
[listen:http]
endpoint = tcp:0:interface=127.0.0.1
[listen:plain]
type = http
endpoint = tcp:0:interface=127.0.0.1
tls = none
[admin]
password = file:admin-password
[mod_push]
[mod_pubsub]
[http_connections:push]
server = https://localhost:{port}
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = push
"""


class Operator:
    """Somebody with curl."""

    def __init__(self, server):
        self.context = ssl.create_default_context(cafile=server.data_dir / "tls" / "ca.pem")
        _, self.port = server.address("listen:http")
        _, self.plain_port = server.address("listen:plain")

    def get(self, path, password="", tls=True):
        """Status and text."""
        address = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.plain_port}"
        request = Request(address + path)
        if password:
            request.add_header("Authorization", "Basic " + b64encode(f"me:{password}".encode()).decode())
        try:
            with urlopen(request, timeout=10, context=self.context if tls else None) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """Name and labels to value."""
        status, text = self.get("/metrics", "sesam")
        assert status == 200
        return {
            " ".join(
                (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items())))
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def health(self):
        status, text = self.get("/health", tls=False)
        return status, json.loads(text)


async def a_message(server, operator, enable=False, body="Hello?"):
    """Bob writes to Alice, who is away; she has push enabled by then."""
    address, ca_file = server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem"
    if enable:
        alice = Phone("alice@localhost/phone", "wonderland", address, ca_file)
        assert await alice.log_in()
        for request in push_requests():
            assert (await alice.ask(request)).get("type") == "result"
        await alice.log_out()
    bob = Phone("bob@localhost/desk", "builder", address, ca_file)
    assert await bob.log_in()
    assert operator.metrics()["xmpppush_c2s_sessions"] == 1
    bob.send_message("alice@localhost", body)
    await bob.ask("<iq type='get' to='localhost' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>")
    await bob.log_out()


def test_an_operator_watches_a_push(tmp_path):
    """The figures follow it; when the push service goes away, that is the part that fails."""
    (tmp_path / "admin-password").write_text("sesam\n")
    with StandIn(tmp_path) as push_service:
        ini = INI.format(port=push_service.port, ca=push_service.ca_file)
        with ServerProcess(tmp_path, ini) as server:
            server.command("user", "add", "alice@localhost", "--password", "wonderland")
            server.command("user", "add", "bob@localhost", "--password", "builder")
            operator = Operator(server)
            check_access(operator)
            check_before(operator)
            asyncio.run(a_message(server, operator, enable=True))
            push_service.wait_for_requests(1)
            wait_for("it is settled", lambda: operator.metrics()["xmpppush_notifications_queued"] == 0)
            check_after_a_push(operator)
            asyncio.run(a_message(server, operator, body=""))
            check_after_no_push(operator)
            check_a_locked_database(server, operator)
            push_service.stop()
            asyncio.run(a_message(server, operator))
            wait_for("the outage is noticed", lambda: operator.health()[0] == 503)
            check_in_an_outage(operator)
            assert server.stop() in (0, -signal.SIGTERM)
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "sesam" not in log


def check_access(operator):
    assert operator.get("/metrics")[0] == 401
    assert operator.get("/metrics", "other")[0] == 401
    assert operator.get("/metrics", "sesam", tls=False)[0] == 200
    status, text = operator.get("/", "sesam")
    assert (status, json.loads(text)["error"]) == (404, "not-found")


def check_before(operator):
    status, body = operator.health()
    assert (status, body["status"], body["failing"]) == (200, "pass", [])
    assert set(body["checks"]) == {
        "storage",
        "push service",
        "listen:c2s",
        "listen:http",
        "listen:plain",
        "certificate localhost",
    }
    metrics = operator.metrics()
    assert metrics["xmpppush_c2s_sessions"] == 0
    assert metrics["xmpppush_push_registrations"] == 0
    assert metrics["xmpppush_notifications_total outcome=delivered service=fcm"] == 0


def check_after_a_push(operator):
    metrics = operator.metrics()
    for key, value in {
        "xmpppush_push_registrations": 1,
        "xmpppush_stanzas_total direction=in kind=message": 1,
        "xmpppush_stanzas_total direction=out kind=message": 0,
        "xmpppush_push_events_total decision=push": 1,
        "xmpppush_notifications_total outcome=delivered service=fcm": 1,
        "xmpppush_notification_latency_seconds_count": 1,
        "xmpppush_http_requests_total pool=push status=200": 1,
        "xmpppush_http_requests_total pool=push status=none": 0,
        "xmpppush_healthy part=push service": 1,
    }.items():
        assert metrics[key] == value, key
    assert metrics["xmpppush_stanzas_total direction=in kind=iq"] >= 3
    assert metrics["xmpppush_stanzas_total direction=out kind=iq"] >= 3
    assert metrics["xmpppush_stanzas_total direction=in kind=presence"] >= 1
    assert metrics["xmpppush_storage_seconds_count operation=write"] >= 3
    assert 0 < metrics["xmpppush_notification_latency_seconds_sum"] < 10
    assert metrics["xmpppush_certificate_expiry_timestamp_seconds name=localhost"] > 1.7e9


def check_after_no_push(operator):
    """What was decided against a push is counted, too."""
    metrics = operator.metrics()
    assert metrics["xmpppush_push_events_total decision=filtered"] == 1
    assert metrics["xmpppush_push_events_total decision=push"] == 1
    assert metrics["xmpppush_c2s_sessions"] == 0
    assert metrics["xmpppush_stanzas_total direction=in kind=message"] == 2


def check_a_locked_database(server, operator):
    """Somebody copies it with a lock: no write comes to an end."""
    database = sqlite3.connect(server.data_dir / "xmpppush.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as executor:
        removing = executor.submit(server.call, "accounts.remove", jid="nobody@localhost")
        wait_for("the lock is noticed", lambda: operator.health()[0] == 503)
        _, body = operator.health()
        assert body["failing"] == ["storage"]
        assert body["checks"]["storage"]["reason"] in ("writing takes very long", "database is locked")
        assert operator.metrics()["xmpppush_healthy part=storage"] == 0
        database.execute("ROLLBACK")
        database.close()
        removing.exception()  # in time or not
    assert server.call("accounts.remove", jid="nobody@localhost") is False
    assert operator.health()[0] == 200
    assert operator.metrics()["xmpppush_storage_backlog"] == 0


def check_in_an_outage(operator):
    _, body = operator.health()
    assert body["failing"] == ["push service"]
    assert body["checks"]["push service"]["reason"]
    metrics = operator.metrics()
    assert metrics["xmpppush_healthy part=push service"] == 0
    assert metrics["xmpppush_notifications_queued"] == 1
    assert metrics["xmpppush_notifications_total outcome=postponed service=fcm"] >= 1
    assert metrics["xmpppush_http_requests_total pool=push status=none"] >= 1


def test_a_push_service_alone(tmp_path):
    """Without a domain there is still a certificate for it, and the parts that are off are not named."""
    ini = """
[server]
domains =
[mongoosepush]
endpoint = ssl:0:interface=127.0.0.1
[mongoosepush:sandbox]
[listen:http]
endpoint = tcp:0:interface=127.0.0.1
"""
    with ServerProcess(tmp_path, ini) as server:
        context = ssl.create_default_context(cafile=server.data_dir / "tls" / "ca.pem")
        _, port = server.address("listen:http")
        for path in ("health", "metrics"):
            with urlopen(f"https://localhost:{port}/{path}", timeout=10, context=context) as answer:
                text = answer.read().decode()
            if path == "health":
                assert json.loads(text)["checks"].keys() == {
                    "storage",
                    "mongoosepush",
                    "listen:http",
                    "certificate [mongoosepush]",
                    "certificate localhost",
                }
            else:
                assert "xmpppush_push_registrations 0.0" in text
