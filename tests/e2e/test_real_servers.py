"""
With Debian's Prosody and ejabberd as the XMPP server and xmpppush as their component (issue 5, done when 1).

A phone enables push on the real server as the tutorial does, leaves, and what the real server publishes for
it is followed to the push service.
"""

import asyncio
import json
import re
import time
from contextlib import suppress
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from xmpppush.testing.clients import Phone
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for
from xmpppush.testing.xmppservers import (
    COMPONENT,
    DOMAIN,
    EXAMPLES,
    PASSWORD,
    SERVERS,
    Prosody,
    free_ports,
)

PROSODY_MAX_ERRORS = 16  # push_max_errors, INTEROP.md

pytestmark = pytest.mark.slow

CREATE = """
<iq type='set' to='{component}' id='create1'>
  <pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='node-{user}' type='push'/></pubsub>
</iq>"""

ENABLE = """
<iq type='set' id='x43'>
  <enable xmlns='urn:xmpp:push:0' jid='{component}' node='node-{user}'>
    <x xmlns='jabber:x:data' type='submit'>
      <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
      <field var='service'><value>fcm</value></field>
      <field var='device_id'><value>token-{user}</value></field>
    </x>
  </enable>
</iq>"""


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.name)
def xmpp_server(request, tmp_path_factory):
    """A real server that runs, with accounts for Juliet and the phones of all tests."""
    missing = request.param.missing()
    if missing:
        pytest.skip(missing)
    users = [phone for letter in "abcdefg" for phone in phones(letter, 6)]
    with request.param(tmp_path_factory.mktemp("servers"), ["juliet", *users]) as server:
        yield server


def phones(letter, count):
    """Users of one test; their registrations stay on the server."""
    return [f"{letter}{number}" for number in range(count)]


def app_server(folder, xmpp_server, push_service, more=""):
    """Ours, by the documentation's example, with the test's ports."""
    ini = (EXAMPLES / "server.ini").read_text().partition("; The push service in the same process")[0]
    for old, new in (
        ("data_dir = ../var\n", ""),
        ("127.0.0.1:5347", f"127.0.0.1:{xmpp_server.component_port}"),
        ("https://localhost:8443", f"https://localhost:{push_service.port}"),
        ("ca_file = builtin", f"ca_file = {push_service.ca_file}"),
        ("pool_name =", f"{more}\npool_name ="),
    ):
        assert old in ini
        ini = ini.replace(old, new)
    return ServerProcess(folder, ini)


def attachments(server):
    return server.log.read_text().count("attached to 127.0.0.1")


async def logged_in(xmpp_server, user):
    phone = Phone(f"{user}@{DOMAIN}/phone", PASSWORD, xmpp_server.address, xmpp_server.ca_file)
    assert await phone.log_in()
    return phone


async def enabled_and_gone(xmpp_server, *users):
    """Phones that have push enabled and are not there."""
    for user in users:
        phone = await logged_in(xmpp_server, user)
        with suppress(AssertionError):
            assert (await phone.ask(CREATE.format(component=COMPONENT, user=user))).get("type") == "result"
        assert (await phone.ask(ENABLE.format(component=COMPONENT, user=user))).get("type") == "result"
        await phone.log_out()


class Juliet:
    """Writes to phones, one after the other."""

    def __init__(self, xmpp_server):
        self._xmpp_server = xmpp_server

    async def __aenter__(self):
        self._client = await logged_in(self._xmpp_server, "juliet")
        return self

    async def __aexit__(self, *_error):
        await self._client.log_out()

    async def writes(self, user, text="Wherefore art thou?"):
        self._client.send_message(f"{user}@{DOMAIN}", text)
        # A round trip: the server has taken it.
        await self._client.ask(
            "<iq type='get' id='p1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
        )


def tokens(push_service):
    return [request["path"].rpartition("/")[2] for request in push_service.requests()]


async def requests(push_service, count):
    return await asyncio.to_thread(push_service.wait_for_requests, count)


def test_a_message_for_an_absent_phone_is_a_post(tmp_path, xmpp_server):
    """Create and enable on the real server, leave, get a message: one POST with the server's text."""

    async def scenario(push_service):
        await enabled_and_gone(xmpp_server, "a0")
        async with Juliet(xmpp_server) as juliet:
            await juliet.writes("a0")
            await requests(push_service, 1)
        phone = await logged_in(xmpp_server, "a0")
        assert await phone.wait_for_messages(1) == ["Wherefore art thou?"]
        await phone.log_out()

    with StandIn(tmp_path) as push_service:
        with app_server(tmp_path, xmpp_server, push_service) as server:
            wait_for("the component is attached", lambda: attachments(server))
            asyncio.run(scenario(push_service))
            log = server.log.read_text()
            trace = server.command("push", "trace", COMPONENT)
        (request,) = push_service.requests()
    assert request["path"] == "/v3/notification/token-a0"
    assert request["json"]["service"] == "fcm"
    text = {"prosody": "New Message!", "ejabberd": "New message"}[xmpp_server.name]
    assert request["json"]["alert"]["body"] == text
    assert "token-a0" not in log + trace
    assert "delivered" in trace


P2 = """
<iq type='set' to='{component}' id='a'><command xmlns='http://jabber.org/protocol/commands'
 node='register-push-fcm' action='execute'><x xmlns='jabber:x:data' type='submit'>
 <field var='token'><value>{token}</value></field><field var='android-id'><value>D1</value></field>
 </x></command></iq>"""
ENABLE_SECRET = """
<iq type='set' id='x44'><enable xmlns='urn:xmpp:push:0' jid='{component}' node='{node}'>
 <x xmlns='jabber:x:data' type='submit'>
 <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
 <field var='secret'><value>{secret}</value></field></x></enable></iq>"""


def test_a_registered_device_is_pushed_to_and_changes_its_token(tmp_path, xmpp_server):
    """p2's way over a real server: register, enable with the secret; a new token needs no other enable."""

    async def registered(phone, token):
        answer = await phone.ask(P2.format(component=COMPONENT, token=token))
        fields = answer.iter("{jabber:x:data}field")
        return {field.get("var"): field.findtext("{jabber:x:data}value") for field in fields}

    async def scenario(push_service):
        phone = await logged_in(xmpp_server, "g0")
        got = await registered(phone, "first")
        enable = ENABLE_SECRET.format(component=COMPONENT, node=got["node"], secret=got["secret"])
        assert (await phone.ask(enable)).get("type") == "result"
        await phone.log_out()
        async with Juliet(xmpp_server) as juliet:
            await juliet.writes("g0")
            await requests(push_service, 1)
            phone = await logged_in(xmpp_server, "g0")
            assert await registered(phone, "second") == got
            if not isinstance(xmpp_server, Prosody):  # ejabberd's registrations are the session's
                assert (await phone.ask(enable)).get("type") == "result"
            await phone.log_out()
            await juliet.writes("g0")
            await requests(push_service, 2)

    with StandIn(tmp_path) as push_service:
        server = app_server(tmp_path, xmpp_server, push_service)
        server.config.write_text(server.config.read_text() + "\n[app:chat]\nservice = fcm\np2 = *\n")
        with server:
            wait_for("the component is attached", lambda: attachments(server))
            asyncio.run(scenario(push_service))
            log = server.log.read_text()
        assert tokens(push_service) == ["first", "second"]
    assert "first" not in log
    assert "secret" not in log


def test_a_device_that_is_gone_is_forgotten_by_the_server(tmp_path, xmpp_server):
    """410 becomes cancel/item-not-found: ejabberd drops the registration at once, Prosody after 16."""
    tries = PROSODY_MAX_ERRORS if isinstance(xmpp_server, Prosody) else 1

    async def scenario(push_service):
        await enabled_and_gone(xmpp_server, "b0", "b1")
        async with Juliet(xmpp_server) as juliet:
            for number in range(tries):
                await juliet.writes("b0", f"message {number}")
                await requests(push_service, number + 1)
                await asyncio.sleep(0.05)  # the answer is on its way to the server
            await juliet.writes("b0", "one more")
            await juliet.writes("b1")
            # Servers publish in order: were the registration still there, it would have come first.
            await requests(push_service, tries + 1)

    with StandIn(tmp_path, "--answer", "410") as push_service:
        with app_server(tmp_path, xmpp_server, push_service) as server:
            wait_for("the component is attached", lambda: attachments(server))
            asyncio.run(scenario(push_service))
        assert tokens(push_service) == ["token-b0"] * tries + ["token-b1"]


def test_nothing_is_lost_while_the_push_service_is_down(tmp_path, xmpp_server):
    """Registrations stay on the real server, notifications wait here until it is back."""
    (port,) = free_ports(1)
    users = phones("c", 4)

    async def written(push_service, expected):
        async with Juliet(xmpp_server) as juliet:
            for user in users:
                await juliet.writes(user)
        if expected:
            await requests(push_service, expected)

    with (
        StandIn(tmp_path, "--port", str(port)) as push_service,
        app_server(tmp_path, xmpp_server, push_service, "retry_base = 50ms\nretry_cap = 200ms") as server,
    ):
        wait_for("the component is attached", lambda: attachments(server))
        asyncio.run(enabled_and_gone(xmpp_server, *users))
        push_service.stop()
        # More of them to each than either server forgives permanent errors.
        for _ in range(5):
            asyncio.run(written(push_service, 0))
        with StandIn(tmp_path, "--port", str(port)) as back:
            everybody = {f"token-{user}" for user in users}
            wait_for("a push for each", lambda: set(tokens(back)) == everybody)
            before = len(tokens(back))
            asyncio.run(written(back, before + 4))
            wait_for("a push for each again", lambda: set(tokens(back)[before:]) == everybody)
        assert server.log.read_text().count("[component]") == 1


def test_one_user_cannot_end_the_stream_of_all(tmp_path, xmpp_server):
    """By a request whose answer would be more than the server takes from a component."""
    user = phones("a", 1)[0]

    async def scenario():
        phone = await logged_in(xmpp_server, user)
        for size in (100_000, 250_000):  # escaped on its way, each is four times as long
            phone.send_raw(
                f"<iq type='get' id='big' to='{COMPONENT}'><query xmlns='a'>{'>' * size}</query></iq>"
            )
        ping = f"<iq type='get' id='p' to='{COMPONENT}'><ping xmlns='urn:xmpp:ping'/></iq>"
        assert (await phone.ask(ping)).get("type") == "result"
        await phone.log_out()

    with StandIn(tmp_path) as push_service, app_server(tmp_path, xmpp_server, push_service) as server:
        wait_for("the component is attached", lambda: attachments(server))
        asyncio.run(scenario())
        assert server.log.read_text().count("[component]") == 1


def test_a_restart_of_the_app_server(tmp_path, xmpp_server):
    """
    Under load: Prosody loses no registration.

    ejabberd deletes those of whoever gets a message while nobody is attached, and only those: the gap is
    measured.
    """
    gap, lost = asyncio.run(restarted_under_load(tmp_path, xmpp_server, phones("d", 6), stop_and_start))
    print(f"{xmpp_server.name}: {gap:.2f} s without a component, {lost} of 5 registrations lost")
    assert gap < 20
    if isinstance(xmpp_server, Prosody):
        assert lost == 0


def test_a_server_that_takes_over_leaves_no_gap(tmp_path, xmpp_server):
    """``--take-over``: no registration is lost, on ejabberd neither, which lets two be attached."""
    took, lost = asyncio.run(
        restarted_under_load(tmp_path, xmpp_server, phones("f", 6), ServerProcess.replace)
    )
    print(f"{xmpp_server.name}: taken over within {took:.2f} s, {lost} of 5 registrations lost")
    assert lost == 0


def stop_and_start(server):
    server.stop()
    server.start()


async def restarted_under_load(folder, xmpp_server, users, restart):
    """Seconds that it took, and how many registrations went; the last user has no load."""
    spared = users[-1]
    with StandIn(folder) as push_service, app_server(folder, xmpp_server, push_service) as server:
        await asyncio.to_thread(wait_for, "the component is attached", lambda: attachments(server))
        await enabled_and_gone(xmpp_server, *users)
        stop = asyncio.Event()

        async def load():
            async with Juliet(xmpp_server) as juliet:
                while not stop.is_set():
                    for user in users[:-1]:
                        await juliet.writes(user)

        working = asyncio.ensure_future(load())
        await requests(push_service, 10)
        begin = time.monotonic()
        await asyncio.to_thread(restart, server)
        await asyncio.to_thread(wait_for, "the new one is attached", lambda: attachments(server) == 2)
        took = time.monotonic() - begin
        stop.set()
        await working
        before = len(push_service.requests())
        async with Juliet(xmpp_server) as juliet:
            for user in users:
                await juliet.writes(user)
        await asyncio.to_thread(
            wait_for, "the spared one's push", lambda: f"token-{spared}" in tokens(push_service)[before:]
        )
        return took, len(users) - len(set(tokens(push_service)[before:]))


def test_the_server_is_gone_and_comes_back(tmp_path, xmpp_server):
    """One line when it goes, one when it is back; pushes go on by themselves, and /health knows."""
    with StandIn(tmp_path) as push_service:
        server = app_server(tmp_path, xmpp_server, push_service)
        with server.config.open("a") as config:
            config.write("[listen:http]\nendpoint = tcp:0:interface=127.0.0.1\ntls = none\n")
        with server:
            wait_for("the component is attached", lambda: attachments(server))
            asyncio.run(enabled_and_gone(xmpp_server, "e0"))
            assert health(server) == []
            xmpp_server.stop()
            wait_for("it is noticed", lambda: health(server) == [f"component {COMPONENT}"])
            time.sleep(1)
            xmpp_server.start()
            wait_for("the component is attached again", lambda: attachments(server) == 2, 30)

            async def scenario():
                async with Juliet(xmpp_server) as juliet:
                    await juliet.writes("e0")
                await requests(push_service, 1)

            asyncio.run(scenario())
            assert health(server) == []
            lines = [line for line in server.log.read_text().splitlines() if "[component]" in line]
    assert len(lines) == 3
    assert f"not attached as {COMPONENT}" in lines[1]
    assert re.search(r"again, after [0-9.]+ s", lines[2])


def health(server):
    """What fails."""
    host, port = server.address("listen:http")
    try:
        with urlopen(f"http://{host}:{port}/health", timeout=10) as answer:
            return json.load(answer)["failing"]
    except HTTPError as error:
        return json.load(error)["failing"]


@pytest.mark.parametrize(
    ("old", "new", "on_prosody", "on_ejabberd"),
    [
        (
            "secret = change-me",
            "secret = wrong",
            "wrong secret (not-authorized)",
            "wrong secret (not-authorized)",
        ),
        (
            COMPONENT,
            "other.example.org",
            "knows no component other.example.org",
            "for component other.example.org",
        ),
    ],
    ids=["wrong secret", "unknown host"],
)
def test_a_login_that_fails_is_explained(tmp_path, xmpp_server, old, new, on_prosody, on_ejabberd):
    """In the log and in no more than one line."""
    with StandIn(tmp_path) as push_service:
        server = app_server(tmp_path, xmpp_server, push_service)
        server.config.write_text(server.config.read_text().replace(old, new))
        with server:
            wait_for("the explanation", lambda: "not attached" in server.log.read_text())
            time.sleep(1)
            (line,) = [line for line in server.log.read_text().splitlines() if "[component]" in line]
    assert (on_prosody if isinstance(xmpp_server, Prosody) else on_ejabberd) in line
    assert "change-me" not in line
