"""Four ways to register, with the bytes of real clients, from the command to the push and back (issue 5)."""

import asyncio
import hashlib

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
host = push.@HOST@
[app:conversations]
service = fcm
p2 = *
tags = conv
[app:chatsecure]
service = fcm
appserver = yes
topic = org.chatsecure
[app:siskin]
service = apns
tigase = tigase:messenger:apns:1
topic = org.tigase.siskin
[app:monal]
service = apns
push_module = monalProdiOS
mode = dev
pool_name = other
[http_connections:pool]
server = https://localhost:{port}
ca_file = {ca}
[http_connections:other]
server = https://localhost:{port}/other
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = pool
"""

P2 = """
<iq type='set' to='push.localhost' id='a'><command xmlns='http://jabber.org/protocol/commands'
 node='register-push-fcm' action='execute'><x xmlns='jabber:x:data' type='submit'>
 <field var='token'><value>FCM</value></field><field var='android-id'><value>92afd7a91cdba9a0</value></field>
 </x></command></iq>"""
P2_END = """
<iq type='set' to='push.localhost' id='b'><command xmlns='http://jabber.org/protocol/commands'
 node='unregister-push-fcm' action='execute'><x xmlns='jabber:x:data' type='submit'>
 <field var='device-id'><value>92afd7a91cdba9a0</value></field></x></command></iq>"""

FORM = "https://github.com/tmolitor-stud-tu/mod_push_appserver/#"
APPSERVER = f"""
<iq to='push.localhost' id='1' type='set'>
 <command xmlns='http://jabber.org/protocol/commands' node='v1-register-push' action='execute'>
  <x xmlns='jabber:x:data' type='submit'>
   <field type='hidden' var='FORM_TYPE'><value>{FORM}v1-register-push</value></field>
   <field var='type'><value>fcm</value></field><field var='node'><value>STABLE-DEVICE-ID</value></field>
   <field var='token'><value>TOKEN</value></field></x></command></iq>"""
APPSERVER_END = f"""
<iq to='push.localhost' id='1' type='set'>
 <command xmlns='http://jabber.org/protocol/commands' node='v1-unregister-push' action='execute'>
  <x xmlns='jabber:x:data' type='submit'>
   <field type='hidden' var='FORM_TYPE'><value>{FORM}v1-unregister-push</value></field>
   <field var='type'><value>fcm</value></field>
   <field var='node'><value>STABLE-DEVICE-ID</value></field></x></command></iq>"""

TIGASE = """
<iq type='set' to='push.localhost' id='t'><command xmlns='http://jabber.org/protocol/commands'
 node='{}' action='execute'><x xmlns='jabber:x:data' type='submit'>
 <field var='provider'><value>tigase:messenger:apns:1</value></field>
 <field var='device-token'><value>APNS</value></field></x></command></iq>"""

ENABLE = """
<iq type='set' id='x43'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='{node}'>{form}</enable>
</iq>"""
FIELD = """<x xmlns='jabber:x:data' type='submit'>
 <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
 <field var='{}'><value>{}</value></field></x>"""
DISABLE = (
    "<iq type='set' id='d'><disable xmlns='urn:xmpp:push:0' jid='push.localhost' node='DEVICE_TOKEN'/></iq>"
)

HELLO = {"title": "bob@localhost", "body": "Hello", "badge": 1, "tag": "bob@localhost"}
GENERIC = {"title": "localhost", "body": "New message", "badge": 1}
ACCOUNT = hashlib.sha1(b"alice@localhost\x0092afd7a91cdba9a0").hexdigest()

# What it says to register, and to unregister; the path and JSON of the push.
WAYS = {
    "p2": (
        P2,
        P2_END,
        "/v3/notification/FCM",
        {
            "service": "fcm",
            "mode": "prod",
            "priority": "high",
            "tags": ["conv"],
            "data": {"account": ACCOUNT},
        },
    ),
    "appserver": (
        APPSERVER,
        APPSERVER_END,
        "/v3/notification/TOKEN",
        {"service": "fcm", "mode": "prod", "priority": "high", "topic": "org.chatsecure", "data": {}},
    ),
    "tigase": (
        TIGASE.format("register-device"),
        TIGASE.format("unregister-device"),
        "/v3/notification/APNS",
        {
            "service": "apns",
            "mode": "prod",
            "topic": "org.tigase.siskin",
            "mutable_content": True,
            "alert": HELLO,
            "data": {"account": "alice@localhost"},
        },
    ),
    "fpush": (
        None,
        DISABLE,
        "/other/v3/notification/DEVICE_TOKEN",
        {"service": "apns", "mode": "dev", "mutable_content": True, "alert": GENERIC},
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One server and one push service for all of them."""
    folder = tmp_path_factory.mktemp("registration")
    with StandIn(folder) as push_service:
        ini = INI.format(port=push_service.port, ca=push_service.ca_file)
        with ServerProcess(folder, ini) as server:
            server.command("user", "add", "alice@localhost", "--password", "wonderland")
            server.command("user", "add", "bob@localhost", "--password", "builder")
            yield server, push_service


def fields_in(answer):
    fields = answer.iter("{jabber:x:data}field")
    return {field.get("var"): field.findtext("{jabber:x:data}value") for field in fields}


@pytest.mark.parametrize("way", WAYS)
def test_from_registration_to_push_to_unregistration(world, way):
    """Register, enable, leave, get a message: a push as the app wants it; unregistered, there is none."""
    server, push_service = world
    before = len(push_service.requests())
    register, unregister, path, body = WAYS[way]
    asyncio.run(scenario(server, push_service, register, unregister, before))
    (request,) = push_service.requests()[before:]
    assert request["path"] == path
    assert request["json"] == body
    assert "FCM" not in server.log.read_text()


async def scenario(server, push_service, register, unregister, before):
    address, ca_file = server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem"

    async def logged_in(jid, password):
        phone = Phone(jid, password, address, ca_file)
        assert await phone.log_in()
        return phone

    phone = await logged_in("alice@localhost/phone", "wonderland")
    node, form = "DEVICE_TOKEN", FIELD.format("pushModule", "monalProdiOS")
    if register is not None:
        answer = await phone.ask(register)
        assert answer.get("type") == "result"
        fields = fields_in(answer)
        node, form = fields["node"], ""
        if "secret" in fields:
            assert fields["jid"] == "push.localhost"
            form = FIELD.format("secret", fields["secret"])
        assert fields_in(await phone.ask(register)) == fields  # again: the same
    assert (await phone.ask(ENABLE.format(node=node, form=form))).get("type") == "result"
    await phone.log_out()
    bob = await logged_in("bob@localhost/desk", "builder")
    bob.send_message("alice@localhost", "Hello")
    await asyncio.to_thread(push_service.wait_for_requests, before + 1)

    phone = await logged_in("alice@localhost/phone", "wonderland")
    await phone.wait_for_messages(1)
    assert (await phone.ask(unregister)).get("type") == "result"
    await phone.log_out()
    bob.send_message("alice@localhost", "Not this one")
    phone = await logged_in("alice@localhost/phone", "wonderland")
    await phone.wait_for_messages(1)
    await phone.log_out()
    await bob.log_out()
    assert server.command("push", "list", "alice@localhost").strip().splitlines()[1:] == []
