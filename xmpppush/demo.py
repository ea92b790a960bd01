"""
``xmpppush demo``: the whole chain on this machine, told step by step.

The server is a process of its own, started like any other by twistd; the phone is a real XMPP client
(slixmpp). What they say to each other is the MongooseIM push tutorial's.
"""

import asyncio
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from xmpppush import control
from xmpppush.config.reader import load
from xmpppush.errors import PushError
from xmpppush.model import Account
from xmpppush.operations import pack_account
from xmpppush.server.sasl import derive_keys

PATIENCE = 30.0  # seconds until the first notification
STOP_PATIENCE = 5.0
LOG_LINES = 30

HOST = "127.0.0.1"
DOMAIN = "localhost"
POOL = "mongoose_push_http"
ALICE, BOB = f"alice@{DOMAIN}", f"bob@{DOMAIN}"
PUBSUB = f"pubsub.{DOMAIN}"
NODE = "punsub_node_for_my_private_iphone"  # the tutorial's own spelling

CONFIG = """\
[server]
domains = {domain}
data_dir = data

[listen:c2s]
endpoint = tcp:{c2s}:interface={host}

[mod_push]

[mod_pubsub]
host = pubsub.@HOST@

[http_connections:{pool}]
server = https://localhost:{push}
ca_file = builtin

[mod_push_service_mongoosepush]
pool_name = {pool}

[mongoosepush]
endpoint = ssl:{push}:interface={host}

[mongoosepush:sandbox]
services = fcm, apns
"""

CREATE = """\
<pubsub xmlns='http://jabber.org/protocol/pubsub'>
  <create node='{node}' type='push'/>
</pubsub>"""

ENABLE = """\
<enable xmlns='urn:xmpp:push:0' jid='{pubsub}' node='{node}'>
  <x xmlns='jabber:x:data' type='submit'>
    <field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
    <field var='service'><value>fcm</value></field>
    <field var='device_id'><value>{device_id}</value></field>
    <field var='mode'><value>prod</value></field>
    <field var='click_action'><value>open_chat</value></field>
  </x>
</enable>"""

# `python -m twisted` would be twist, without twistd's options.
_TWISTD = "from twisted.scripts.twistd import run; run()"


class DemoFailed(PushError):
    """The notification did not come, or something before it went wrong."""


class Story:
    """What is told: plain words, and the stanzas that matter."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = 0

    def step(self, text: str) -> None:
        self._step += 1
        self._print(Text.assemble("\n", (f"{self._step}.", "bold"), " ", text))

    def say(self, text: str) -> None:
        self._print(Text(text))

    def show(self, text: str, language: str) -> None:
        text = "\n".join(f"     {line}" for line in text.splitlines())
        if self._console.is_terminal:
            # The terminal's own colours, which fit its background.
            self._print(Syntax("", language, theme="ansi_dark").highlight(text))
        else:
            self._print(Text(text))

    def _print(self, text: Text) -> None:
        """Never as markup: rich finds an emoji in 'jabber:x:data'. Lines stay whole, to be copied."""
        text.rstrip()
        self._console.print(text, soft_wrap=True)

    def stanza(self, element: ElementTree.Element) -> None:
        self.show(readable(element), "xml")


def readable(element: ElementTree.Element) -> str:
    """A stanza for people: indented, ``jabber:client`` not repeated, other namespaces as declared."""
    return "\n".join(_readable(element, "jabber:client", ""))


def _readable(element: ElementTree.Element, inherited: str, indent: str) -> list[str]:
    namespace, _, name = element.tag.rpartition("}")
    namespace = namespace.removeprefix("{") or inherited
    attributes = {"xmlns": namespace} if namespace != inherited else {}
    attributes |= {_attribute(key): value for key, value in element.attrib.items()}
    start = f"<{name}" + "".join(f" {key}='{_escaped(value)}'" for key, value in attributes.items())
    text = _escaped((element.text or "").strip())
    if not len(element):
        return [f"{indent}{start}>{text}</{name}>" if text else f"{indent}{start}/>"]
    if len(element) == 1 and not len(element[0]) and (element[0].text or "").strip():
        # <field var='service'><value>fcm</value></field> reads better on one line.
        return [f"{indent}{start}>{_readable(element[0], namespace, '')[0]}</{name}>"]
    lines = [f"{indent}{start}>{text}"]
    for child in element:
        lines += _readable(child, namespace, indent + "  ")
    return [*lines, f"{indent}</{name}>"]


def _attribute(key: str) -> str:
    return key.replace("{http://www.w3.org/XML/1998/namespace}", "xml:")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has now; all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class DemoServer:
    """A server process with a data folder of its own; `close` leaves nothing of either."""

    def __init__(self) -> None:
        self.c2s_port, self.push_port = free_ports(2)
        self.folder = Path(tempfile.mkdtemp(prefix="xmpppush-demo-"))
        self.config_file = self.folder / "server.ini"
        self._log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.config_file.write_text(
            CONFIG.format(domain=DOMAIN, host=HOST, pool=POOL, c2s=self.c2s_port, push=self.push_port)
        )
        # The operator's own MongoosePush settings are not meant for the demo.
        self._environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PUSH_") and name != "NOTIFY_SOCKET"
        }
        config = load(self.config_file, self._environ)
        self.data_dir = config.server.data_dir
        self.ca_file = config.http_connections[POOL].ca_file

    def start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [
                    sys.executable,
                    "-c",
                    _TWISTD,
                    "--nodaemon",
                    "--pidfile=",
                    "xmpppush",
                    f"--config={self.config_file}",
                ],
                cwd=self.folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def check(self) -> None:
        """
        Raises:
            DemoFailed: The server has ended.
        """
        if self._process is not None and self._process.poll() is not None:
            raise DemoFailed(f"the server ended with status {self._process.returncode}")

    def call(self, operation: str, **arguments: Any) -> Any:
        return control.call(self.data_dir, operation, **arguments)

    def log_tail(self) -> list[str]:
        try:
            return self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            return []

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


_CLIENTS: list[Any] = []


class Client:
    """An XMPP client with one account: logs in over STARTTLS, trusts the generated CA only."""

    def __init__(self, jid: str, password: str, server: DemoServer) -> None:
        from slixmpp import ClientXMPP

        self._server = server
        self._xmpp: Any = ClientXMPP(jid, password)
        # slixmpp cancels its sender task when it is garbage collected, and asyncio complains on the
        # terminal of a task that was still pending then. asyncio.run ends it in time.
        _CLIENTS.append(self._xmpp)
        self._xmpp.enable_direct_tls = False
        self._xmpp.enable_plaintext = False
        self._xmpp.ca_certs = server.ca_file
        self._xmpp.ssl_context.verify_mode = ssl.CERT_REQUIRED
        self._xmpp.ssl_context.check_hostname = True
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self._xmpp.add_event_handler("message", self.messages.put_nowait)

    async def log_in(self) -> str:
        """Returns what the connection is secured with."""
        ready = asyncio.get_running_loop().create_future()

        def failed(_event: Any) -> None:
            if not ready.done():
                ready.set_exception(DemoFailed(f"{self._xmpp.boundjid.bare} could not log in"))

        def started(_event: Any) -> None:
            if not ready.done():
                ready.set_result(None)

        self._xmpp.add_event_handler("session_start", started)
        for name in ("failed_all_auth", "connection_failed", "ssl_invalid_chain"):
            self._xmpp.add_event_handler(name, failed)
        self._xmpp.connect(HOST, self._server.c2s_port)
        await ready
        self._xmpp.send_presence()
        cipher = self._xmpp.transport.get_extra_info("cipher")
        return str(cipher[1]) if cipher else "no TLS"

    async def set(self, to: str | None, payload: str, show: Callable[[ElementTree.Element], None]) -> None:
        """Send an iq of type set, shown before it is sent, and wait for its result, shown too."""
        from slixmpp.exceptions import IqError, IqTimeout

        iq = self._xmpp.make_iq(ito=to, itype="set")
        iq.append(ElementTree.fromstring(payload))  # noqa: S314  # our own text
        show(iq.xml)
        try:
            result = await iq.send(timeout=10)
        except IqError as error:
            show(error.iq.xml)
            raise DemoFailed("the server answered with an error") from error
        except IqTimeout as error:
            raise DemoFailed("the server did not answer") from error
        show(result.xml)

    def write(self, to: str, body: str, show: Callable[[ElementTree.Element], None]) -> None:
        message = self._xmpp.make_message(mto=to, mbody=body, mtype="chat")
        show(message.xml)
        message.send()

    async def leave(self) -> None:
        await self._xmpp.disconnect(wait=1.0)


async def until(condition: Callable[[], Awaitable[Any]], server: DemoServer, pause: float = 0.1) -> Any:
    """What ``condition`` returns once it is true; a server that ends in between ends the wait."""
    while True:
        value = await condition()
        if value:
            return value
        server.check()
        await asyncio.sleep(pause)


async def is_up(server: DemoServer) -> bool:
    try:
        return bool(await asyncio.to_thread(server.call, "ping") == "pong")
    except PushError:
        return False


async def play(story: Story, server: DemoServer, once: bool) -> None:
    """
    The tutorial, from nothing to a notification; without ``once`` the demo then goes on until Ctrl-C.

    Raises:
        DemoFailed: The first notification did not come in `PATIENCE` seconds.
    """
    passwords = {jid: secrets.token_urlsafe(9) for jid in (ALICE, BOB)}
    device_id = f"demo-phone-{secrets.token_hex(16)}"
    try:
        async with asyncio.timeout(PATIENCE):
            await set_up(story, server, passwords)
            await prepare_phone(story, server, passwords[ALICE], device_id)
            bob = await write_first(story, server, passwords[BOB])
            await first_notification(story, server, device_id)
    except TimeoutError as error:
        raise DemoFailed(f"no notification within {PATIENCE:.0f} s") from error
    if once:
        await bob.leave()
        return
    await wake_up(story, server, passwords[ALICE])
    await stay(story, server, passwords)


async def set_up(story: Story, server: DemoServer, passwords: dict[str, str]) -> None:
    story.step("The server starts, with all four roles in one process.")
    server.start()
    await until(lambda: is_up(server), server)
    story.say(f"     XMPP server    {HOST}:{server.c2s_port} (STARTTLS), domain {DOMAIN}")
    story.say(f"     app server     {PUBSUB}, node type 'push'")
    story.say(f"     push service   https://localhost:{server.push_port}, with a sandbox for FCM and APNs")
    story.step(f"Two accounts are added while it runs: {ALICE} and {BOB}.")
    accounts = [
        pack_account(Account(jid, derive_keys(password), time.time())) for jid, password in passwords.items()
    ]
    await asyncio.to_thread(server.call, "accounts.add", accounts=accounts)


async def prepare_phone(story: Story, server: DemoServer, password: str, device_id: str) -> None:
    phone = Client(ALICE, password, server)
    secured = await phone.log_in()
    story.step(f"Alice's phone logs in ({secured}) and creates its node at the app server.")
    await phone.set(PUBSUB, CREATE.format(node=NODE), story.stanza)
    story.step("The phone enables push with its device token (XEP-0357).")
    await phone.set(None, ENABLE.format(pubsub=PUBSUB, node=NODE, device_id=device_id), story.stanza)
    story.step("The phone goes to sleep: it disconnects.")
    await phone.leave()


async def write_first(story: Story, server: DemoServer, password: str) -> Client:
    bob = Client(BOB, password, server)
    await bob.log_in()
    story.step("Bob writes to Alice, who is not there.")
    bob.write(ALICE, "Lunch at noon?", story.stanza)
    return bob


async def first_notification(story: Story, server: DemoServer, device_id: str) -> None:
    sent = time.monotonic()

    async def arrived() -> list[dict[str, Any]]:
        notifications = await asyncio.to_thread(server.call, "sandbox.list")
        return [each for each in notifications if each["device_id"] == device_id]

    notification = (await until(arrived, server))[0]
    story.step(f"The notification reaches Alice's phone, {time.monotonic() - sent:.2f} s later.")
    story.show(json.dumps(notification["content"], indent=2, ensure_ascii=False), "json")


async def wake_up(story: Story, server: DemoServer, password: str) -> None:
    phone = Client(ALICE, password, server)
    await phone.log_in()
    story.step("The phone wakes up, logs in, and gets the message that waited for it.")
    story.stanza((await asyncio.wait_for(phone.messages.get(), 10)).xml)
    await phone.leave()


async def stay(story: Story, server: DemoServer, passwords: dict[str, str]) -> None:
    """Show what else reaches the phone, until Ctrl-C."""
    story.step(
        "Now you: log in with a client of your own; each message to Alice is one more notification here."
    )
    story.say(
        f"     server    {HOST}, port {server.c2s_port}, STARTTLS, certificate signed by {server.ca_file}"
    )
    story.say(f"     account   {BOB}, password {passwords[BOB]}")
    command = Path(sys.executable).with_name("xmpppush")
    story.say(f"     commands  {command} -c {server.config_file} push test {ALICE} --body Hello")
    story.say(f"               {command} -c {server.config_file} push trace {ALICE}")
    story.say("     Ctrl-C ends the demo and removes all of it.")
    seen = await asyncio.to_thread(server.call, "sandbox.list")
    while True:
        await asyncio.sleep(0.5)
        server.check()
        now = await asyncio.to_thread(server.call, "sandbox.list")
        for notification in now:
            if notification not in seen:
                story.step("A notification reaches the phone.")
                story.show(json.dumps(notification["content"], indent=2, ensure_ascii=False), "json")
        seen = now


def run(once: bool = False) -> int:
    """
    Run the demo.

    Returns:
        The exit status: 0 once a notification has reached the phone, 1 where none has.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        import slixmpp  # noqa: F401
    except ImportError:
        errors.print("the demo's phone needs slixmpp: pip install 'xmpppush[demo]'")
        return 1
    logging.getLogger("slixmpp").setLevel(logging.CRITICAL + 1)
    server = DemoServer()
    try:
        asyncio.run(_until_signal(play(Story(Console()), server, once)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0 if not once else 1
    except (PushError, OSError) as error:
        tail = server.log_tail()
        errors.print(
            f"\nThe demo failed: {error}",
            *(["The end of the server's log:", *tail] if tail else []),
            sep="\n",
        )
        return 1
    finally:
        server.close()
    return 0


async def _until_signal(playing: Any) -> None:
    """SIGTERM ends the demo like Ctrl-C: with everything cleaned up."""
    task = asyncio.ensure_future(playing)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task
