"""One process that serves two domains, each with a certificate of its own (issue 6)."""

import asyncio
import json
import ssl
from datetime import UTC, datetime
from urllib.request import urlopen

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from xmpppush.certificates import _bundle, issue, make_authority
from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess, StandIn

INI = """
[server]
domains = one.test, two.test
[tls:two.test]
certfile = {folder}/two.pem
keyfile = {folder}/two.pem
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
[listen:direct]
type = c2s
endpoint = tcp:0:interface=127.0.0.1
tls = direct
[listen:http]
endpoint = tcp:0:interface=127.0.0.1
tls = none
[mod_push]
[mod_pubsub]
host = pubsub.@HOST@
[http_connections:push]
server = https://localhost:{port}
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = push
"""

CREATE = """
<iq type='set' to='pubsub.{domain}' id='c1'>
  <pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='node' type='push'/></pubsub>
</iq>"""

ENABLE = """
<iq type='set' id='e1'>
  <enable xmlns='urn:xmpp:push:0' jid='pubsub.{domain}' node='node'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='service'><value>fcm</value></field>
      <field var='device_id'><value>token-{domain}</value></field>
    </x>
  </enable>
</iq>"""

ITEMS = "<iq type='get' to='{domain}' id='d1'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>"


@pytest.fixture
def push_service(tmp_path):
    with StandIn(tmp_path) as stand_in:
        yield stand_in


@pytest.fixture
def server(tmp_path, push_service):
    """One domain with a generated certificate, the other with the operator's."""
    now = datetime.now(UTC)
    authority = make_authority(now)
    (tmp_path / "two-ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "two.pem").write_bytes(_bundle(issue(authority, ["two.test"], now)))
    ini = INI.format(folder=tmp_path, port=push_service.port, ca=push_service.ca_file)
    with ServerProcess(tmp_path, ini) as process:
        yield process


def ca_of(server, domain):
    return server.folder / "two-ca.pem" if domain == "two.test" else server.data_dir / "tls" / "ca.pem"


def test_both_domains_chat_and_push(server, push_service):
    """Clients verify their own domain's certificate; messages cross, pushes take each domain's host."""
    users = {"one.test": "alice@one.test", "two.test": "bob@two.test"}
    for user in users.values():
        server.command("user", "add", user, "--password", "secret")

    async def scenario():
        phones = {}
        for domain, user in users.items():
            phone = phones[domain] = Phone(
                f"{user}/phone", "secret", server.address("listen:c2s"), ca_of(server, domain)
            )
            assert await phone.log_in()
            assert (await phone.ask(CREATE.format(domain=domain))).get("type") == "result"
            assert (await phone.ask(ENABLE.format(domain=domain))).get("type") == "result"
            items = await phone.ask(ITEMS.format(domain=domain))
            assert [item.get("jid") for item in items[0]] == [f"pubsub.{domain}"]
        alice, bob = phones.values()
        alice.send_message("bob@two.test", "Across")
        assert await bob.wait_for_messages(1) == ["Across"]
        bob.send_message("alice@one.test", "And back")
        assert await alice.wait_for_messages(1) == ["And back"]
        await bob.log_out()
        alice.send_message("bob@two.test", "A push")
        await asyncio.to_thread(push_service.wait_for_requests, 1)
        await alice.log_out()
        bob = Phone("bob@two.test/phone", "secret", server.address("listen:c2s"), ca_of(server, "two.test"))
        assert await bob.log_in()
        bob.send_message("alice@one.test", "Another push")
        await asyncio.to_thread(push_service.wait_for_requests, 2)
        await bob.log_out()

    asyncio.run(scenario())
    first, second = push_service.requests()
    assert (first["path"], second["path"]) == (
        "/v3/notification/token-two.test",
        "/v3/notification/token-one.test",
    )
    assert first["json"]["alert"]["title"] == "alice@one.test"
    assert second["json"]["alert"]["title"] == "bob@two.test"


def subject_by_sni(server, name, domain):
    """The names in what a direct TLS client gets who asks for ``name`` and trusts the CA of ``domain``."""
    context = ssl.create_default_context(cafile=ca_of(server, domain))
    context.check_hostname = False

    async def connect():
        _, writer = await asyncio.open_connection(
            *server.address("listen:direct"), ssl=context, server_hostname=name
        )
        certificate = writer.get_extra_info("peercert")
        writer.close()
        return [value for _, value in certificate["subjectAltName"]]

    return asyncio.run(connect())


def test_direct_tls_chooses_by_name(server):
    """SNI says which; who asks for a domain that is not served gets the first one's (XEP-0368)."""
    assert subject_by_sni(server, "one.test", "one.test") == ["one.test"]
    assert subject_by_sni(server, "two.test", "two.test") == ["two.test"]
    assert subject_by_sni(server, "TWO.test", "two.test") == ["two.test"]
    assert subject_by_sni(server, "unknown.test", "one.test") == ["one.test"]


def test_each_certificate_is_watched(server):
    """``/health`` looks at both, ``/metrics`` has the end of both."""
    host, port = server.address("listen:http")
    with urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for domain in ("one.test", "two.test"):
        assert f'xmpppush_certificate_expiry_timestamp_seconds{{name="{domain}"}}' in text
    with urlopen(f"http://{host}:{port}/health", timeout=10) as answer:
        assert json.load(answer)["failing"] == []
