"""The tutorial, verbatim, by slixmpp over STARTTLS against real processes (issue 2, done when 2)."""

import asyncio
import json

import pytest

from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess, StandIn

INI = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
tls = required
[mod_push]
[mod_pubsub]
host = pubsub.@HOST@
plugins = push
[http_connections:mongoose_push_http]
server = https://localhost:{port}
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
api_version = {version}
"""

CREATE = """
<iq type='set' to='pubsub.localhost' id='create1'>
  <pubsub xmlns='http://jabber.org/protocol/pubsub'>
    <create node='punsub_node_for_my_private_iphone' type='push'/>
  </pubsub>
</iq>"""

ENABLE = """
<iq type='set' id='x43'>
  <enable xmlns='urn:xmpp:push:0' jid='pubsub.localhost' node='punsub_node_for_my_private_iphone'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='service'><value>apns</value></field>
      <field var='device'><value>your_pns_device_token</value></field>
      <field var='mode'><value>prod</value></field>
      <field var='click_action'><value>.myapp.MainActivity</value></field>
    </x>
  </enable>
</iq>"""

DISABLE_NODE = """
<iq type='set' id='x44'>
  <disable xmlns='urn:xmpp:push:0' jid='pubsub.localhost' node='punsub_node_for_my_private_iphone'/>
</iq>"""

DISABLE_ALL = "<iq type='set' id='x97'><disable xmlns='urn:xmpp:push:0' jid='pubsub.localhost'/></iq>"

ALERT = {
    "title": "bob@localhost",
    "body": "Are you there?",
    "badge": 1,
    "tag": "bob@localhost",
    "click_action": ".myapp.MainActivity",
}
EXPECTED = {
    "v1": {"service": "apns", "mode": "prod", **ALERT},
    "v2": {"service": "apns", "mode": "prod", "alert": ALERT},
    "v3": {"service": "apns", "mode": "prod", "alert": ALERT},
}


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_the_tutorial_ends_in_a_post_at_the_push_service(tmp_path, version):
    """Create, enable, leave, get a message: a POST; after either kind of disable none comes."""
    with StandIn(tmp_path) as push_service:
        ini = INI.format(port=push_service.port, ca=push_service.ca_file, version=version)
        with ServerProcess(tmp_path, ini) as server:
            server.command("user", "add", "alice@localhost", "--password", "wonderland")
            server.command("user", "add", "bob@localhost", "--password", "builder")
            asyncio.run(scenario(server, push_service))
            requests = push_service.requests()
            trace = server.command("push", "trace", "alice@localhost")
    assert [request["path"] for request in requests] == [f"/{version}/notification/your_pns_device_token"] * 2
    assert requests[0]["json"] == EXPECTED[version]
    assert "The last one" in json.dumps(requests[1]["json"])
    stories = [line.strip() for line in trace.splitlines() if line.startswith("  ") and line[2] != " "]
    assert stories == [
        "nothing was pushed: the device is connected and gets the message itself",
        "pushed to 1 device",
        "pushed to 1 device",
    ]
    assert trace.count("removed: the client disabled it") == 2
    assert "your_pns_device_token" not in trace


async def scenario(server, push_service):
    address, ca_file = server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem"

    async def alice():
        phone = Phone("alice@localhost/phone", "wonderland", address, ca_file)
        assert await phone.log_in()
        return phone

    bob = Phone("bob@localhost/desk", "builder", address, ca_file)
    assert await bob.log_in()

    phone = await alice()
    assert (await phone.ask(CREATE)).get("type") == "result"
    assert (await phone.ask(ENABLE)).get("type") == "result"
    bob.send_message("alice@localhost", "While she reads, no push")
    assert await phone.wait_for_messages(1) == ["While she reads, no push"]
    await phone.log_out()
    bob.send_message("alice@localhost", "Are you there?")
    await asyncio.to_thread(push_service.wait_for_requests, 1)

    phone = await alice()
    assert await phone.wait_for_messages(1) == ["Are you there?"]
    assert (await phone.ask(DISABLE_NODE)).get("type") == "result"
    await phone.log_out()
    bob.send_message("alice@localhost", "Not this one")

    phone = await alice()
    await phone.wait_for_messages(1)
    assert (await phone.ask(ENABLE)).get("type") == "result"
    assert (await phone.ask(DISABLE_ALL)).get("type") == "result"
    await phone.log_out()
    bob.send_message("alice@localhost", "Not this one either")

    phone = await alice()
    await phone.wait_for_messages(1)
    assert (await phone.ask(ENABLE)).get("type") == "result"
    await phone.log_out()
    bob.send_message("alice@localhost", "The last one")
    # Order is kept, so what would have come before this one has come.
    await asyncio.to_thread(push_service.wait_for_requests, 2)
    await bob.log_out()
