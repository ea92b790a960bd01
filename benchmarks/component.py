"""
xmpppush as the component of an XMPP server: publishes in over XEP-0114, notifications out over HTTP.

The XMPP server is this process: it takes the component's connection, and writes what Prosody or ejabberd
would (INTEROP.md) as fast as it is read.
"""

import asyncio
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import instructions
from benchmarks.client import Client
from benchmarks.instructions import Counting
from benchmarks.pipeline import Load, Pipeline, Result, Setup, token_of
from benchmarks.server import ServerFailed, ServerProcess
from benchmarks.sink import listen
from benchmarks.yardstick import yardstick_on

COMPONENT = "pubsub.chat.test"
COMPONENT_INI = """\
[server]
domains =
data_dir = var
log_level = {log_level}

[storage]
url = sqlite:///xmpppush.db

[component]
jid = pubsub.chat.test
endpoint = tcp:127.0.0.1:{xmpp_port}
secret = benchmark

[mod_pubsub]
host = pubsub.chat.test
max_nodes_per_user = 100000

[listen:http]
endpoint = tcp:{port}:interface=127.0.0.1
tls = none

[http_connections:mongoose_push_http]
server = http://127.0.0.1:{sink_port}
connections = {connections}

[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
api_version = {api_version}
max_http_connections = {connections}
"""

_OPTIONS = (
    "<publish-options><x type='submit' xmlns='jabber:x:data'><field var='FORM_TYPE'>"
    "<value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='service'>"
    "<value>fcm</value></field><field var='device_id'><value>{token}</value></field><field var='mode'>"
    "<value>prod</value></field><field var='click_action'><value>open.chat</value></field></x>"
    "</publish-options>"
)
_BODY = "#{number} Wherefore art thou Romeo? Deny thy father and refuse thy name"
# As captured (tests/data/wire), with sender and body shown.
STYLES = {
    "prosody": (
        "<iq id='{number:064x}' from='chat.test' to='pubsub.chat.test' type='set'>"
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='node-{user}'><item>"
        "<notification xmlns='urn:xmpp:push:0'><x type='form' xmlns='jabber:x:data'><field type='hidden'"
        " var='FORM_TYPE'><value>urn:xmpp:push:summary</value></field><field type='text-single'"
        " var='message-count'><value>1</value></field><field type='text-single'"
        " var='pending-subscription-count'/><field type='jid-single' var='last-message-sender'>"
        "<value>juliet@chat.test/phone</value></field><field type='text-single' var='last-message-body'>"
        "<value>"
        + _BODY
        + "</value></field></x></notification></item></publish>"
        + _OPTIONS
        + "</pubsub></iq>"
    ),
    "ejabberd": (
        "<iq to='pubsub.chat.test' from='chat.test' type='set'"
        " id='rr-1795352805875-17024752959071566270-ojFFzsuDB7zEE+Y8080QcLiaAJ0=-{number}'>"
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='node-{user}'><item>"
        "<notification xmlns='urn:xmpp:push:0'><x type='submit' xmlns='jabber:x:data'><field var='FORM_TYPE'"
        " type='hidden'><value>urn:xmpp:push:summary</value></field><field var='last-message-sender'"
        " type='jid-single' label='The sender of the last received message'>"
        "<value>juliet@chat.test/phone</value></field><field var='last-message-body' type='text-single'"
        " label='The body text of the last received message'><value>"
        + _BODY
        + "</value></field></x></notification></item></publish>"
        + _OPTIONS
        + "</pubsub></iq>"
    ),
}


class Server(Client):
    """Our end of the component's stream."""

    async def accept(self) -> None:
        """The handshake; whatever secret it proves will do."""
        await self._read(re.compile(rb"<stream:stream [^>]*>"))
        self._write(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept'"
            " xmlns:stream='http://etherx.jabber.org/streams' from='pubsub.chat.test' id='s1'>"
        )
        await self._read(re.compile(rb"</handshake>"))
        self._write("<handshake/>")

    async def create(self, node: str) -> None:
        """The node of a user of ours."""
        self._write(
            f"<iq type='set' id='c' from='romeo@chat.test/phone' to='{COMPONENT}'>"
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'>"
            f"<create node='{node}' type='push'/></pubsub></iq>"
        )
        await self._read(re.compile(rb"<iq\b[^>]*>.*?</iq>", re.DOTALL))


class ComponentPipeline(Pipeline):
    """Publishes in place of chat messages."""

    style = "prosody"

    def stanza(self, number: int) -> bytes:
        user = self._recipient(number)
        return STYLES[self.style].format(number=number, user=user, token=token_of(user)).encode()


class CountingComponent(Counting, ComponentPipeline):
    """See `Counting`."""


def count(messages: int, users: int, registrations: int) -> float:
    """As `benchmarks.instructions.count`."""
    return instructions.count(messages, users, registrations, serve, CountingComponent, 1)


def measure(load: Load, setup: Setup, style: str) -> Result:
    """As `benchmarks.pipeline.measure`."""
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    styled = type("Styled", (ComponentPipeline,), {"style": style})
    with tempfile.TemporaryDirectory(prefix="xmpppush-benchmark-") as folder:
        return asyncio.run(serve(load, setup, Path(folder), server_core, (), styled))


async def serve(
    load: Load,
    setup: Setup,
    folder: Path,
    core: int | None,
    under: Sequence[str] = (),
    pipeline: type[Pipeline] = ComponentPipeline,
) -> Result:
    """As `benchmarks.pipeline.serve`."""
    running: Pipeline | None = None

    def listener(device: str, request: dict[str, object] | None) -> None:
        assert running is not None
        running.on_request(device, request)

    attached: asyncio.Queue[Server] = asyncio.Queue()
    sink = await listen(listener, delay=setup.delay)
    xmpp = await asyncio.start_server(lambda *pair: attached.put_nowait(Server(*pair)), "127.0.0.1", 0)
    settings = {
        "sink_port": sink.sockets[0].getsockname()[1],
        "xmpp_port": xmpp.sockets[0].getsockname()[1],
        "api_version": setup.api_version,
        "connections": setup.connections,
        "log_level": setup.log_level,
    }
    server = ServerProcess(folder, settings, {"XMPPPUSH_HTTP_AGENT": setup.agent}, COMPONENT_INI)
    yardstick = yardstick_on(core)
    begin = time.perf_counter()
    server.start(core, setup.profile, under)
    start, rss = time.perf_counter() - begin, server.usage().rss
    watcher: asyncio.Task[None] | None = None
    try:
        component = await asyncio.wait_for(attached.get(), 60)
        await component.accept()
        for user in range(load.users):
            await component.create(f"node-{user}")
        running = pipeline(load, server, setup.delay)
        watcher = asyncio.create_task(component.watch())
        runs = [await running.run([component], number * load.messages) for number in range(load.runs)]
    except TimeoutError:
        raise ServerFailed(f"it does not attach\n{server.log_tail()}") from None
    finally:
        if watcher is not None:
            watcher.cancel()
        xmpp.close()
        server.stop()
        sink.close()
    yardstick = (yardstick + yardstick_on(core)) / 2
    return Result(tuple(runs), server.rows("deliveries"), 0, start, rss, yardstick, server.log_tail())
