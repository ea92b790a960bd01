"""Message to provider in one process: ``embedded:`` and the emulators of FCM, APNs and Web Push."""

import asyncio
from contextlib import ExitStack
from xml.sax.saxutils import escape

from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import EmulatorProcess, ServerProcess
from xmpppush.testing.stanzas import push_requests

INI = """
[server]
domains = localhost
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
tls = required
[mod_push]
[mod_pubsub]
host = pubsub.@HOST@
[http_connections:here]
server = embedded:
[mod_push_service_mongoosepush]
pool_name = here
[mongoosepush]
endpoint = ssl:0:interface=127.0.0.1
"""


def test_a_message_reaches_every_provider(tmp_path):
    """Once each, whatever the device is, and the trace knows it."""
    with ExitStack() as stack:
        emulators = {
            service: stack.enter_context(EmulatorProcess(tmp_path / service, service))
            for service in ("apns", "fcm", "webpush")
        }
        ini = INI + "\n".join(each.section for each in emulators.values())
        server = stack.enter_context(ServerProcess(tmp_path, ini))
        server.command("user", "add", "alice@localhost", "--password", "wonderland")
        server.command("user", "add", "bob@localhost", "--password", "builder")
        subscription = (tmp_path / "webpush" / "subscription-1.json").read_text()
        devices = {"apns": "0a" * 32, "fcm": "fcm-token", "webpush": escape(subscription)}
        asyncio.run(scenario(server, devices))
        received = {service: emulator.wait_for_received(1) for service, emulator in emulators.items()}
        trace = server.command("push", "trace", "alice@localhost")
    assert {service: len(each) for service, each in received.items()} == dict.fromkeys(devices, 1)
    for service, (notification,) in received.items():
        assert notification["status"] in (200, 201), service
        assert "Are you there?" in str(notification["content"]), service
    assert "pushed to 3 devices" in trace
    assert "fcm-token" not in trace + server.log.read_text()


async def scenario(server, devices):
    address, ca_file = server.address("listen:c2s"), server.data_dir / "tls" / "ca.pem"
    phone = Phone("alice@localhost/phone", "wonderland", address, ca_file)
    assert await phone.log_in()
    for service, device_id in devices.items():
        for request in push_requests(f"n-{service}", device_id, service):
            assert (await phone.ask(request)).get("type") == "result"
    await phone.log_out()
    bob = Phone("bob@localhost/desk", "builder", address, ca_file)
    assert await bob.log_in()
    bob.send_message("alice@localhost", "Are you there?")
    await bob.log_out()
