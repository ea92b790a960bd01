"""
kill -9 at any moment: everything that was acknowledged arrives, and the phones are told.

People write to people who are away, the server is killed again and again and started on the same data, and
in the end an account is given of each message. What was acknowledged (XEP-0198) and sent once is
delivered once; what a client sent again because it knew nothing of its fate may come twice. Each copy gets at
least one push for each device; a push beyond that is one that was under way when the server was killed.

``XMPPPUSH_CHAOS_SEED`` says which moments and messages; it is printed. Where the server is at such a moment
is still up to the machine.
"""

import asyncio
import os
import signal
import sqlite3
from collections import Counter, defaultdict, deque
from contextlib import closing, suppress
from random import Random

import pytest

from xmpppush.testing.managed import ManagedStream, StreamEnded
from xmpppush.testing.processes import ServerProcess, StandIn, wait_for
from xmpppush.testing.stanzas import push_requests

KILLS = 10
SENDERS = 8
ABSENT = 40  # people who are away until the end
PRESENT = 4  # and some who read all the time, on a client that gets no push
WINDOW = 30  # messages of a sender that are not acknowledged yet
PAUSE = 0.04  # seconds between two messages of a sender, on average

INI = """
[server]
domains = localhost
[auth]
allow_plain_without_tls = yes
[limits]
c2s_stanzas_per_second = 0
offline_messages_per_user = 100000
[listen:c2s]
endpoint = tcp:0:interface=127.0.0.1
tls = none
[mod_push]
collapse = no
[mod_pubsub]
[http_connections:mongoose_push_http]
server = https://localhost:{port}
ca_file = {ca}
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
"""


class Message:
    """
    One message, which its sender sends until it is acknowledged.

    Attributes:
        name: Its stanza id and its text.
        sent: How often it was sent.
        acknowledged: An ``<a/>`` covered it.
    """

    def __init__(self, name, to):
        self.name = name
        self.to = to
        self.sent = 0
        self.acknowledged = False

    @property
    def xml(self):
        to = f"{self.to}@localhost"
        return f"<message to='{to}' type='chat' id='{self.name}'><body>{self.name}</body></message>"


class World:
    """The server, and what everybody knows of it: where it is, whether it is to go on."""

    def __init__(self, server):
        self.server = server
        self.address = None
        self.up = asyncio.Event()
        self.over = False

    async def start(self):
        await asyncio.to_thread(self.server.start)
        self.address = await asyncio.to_thread(self.server.address, "listen:c2s")
        self.up.set()

    async def kill(self):
        self.up.clear()
        await asyncio.to_thread(self.server.stop, signal.SIGKILL)

    async def log_in(self, name, resource, **callbacks):
        """A session, after as many attempts as it takes."""
        while True:
            await self.up.wait()
            with suppress(StreamEnded, OSError, TimeoutError):
                return await ManagedStream.log_in(
                    self.address, f"{name}@localhost/{resource}", name, **callbacks
                )
            await asyncio.sleep(0.05)

    def rows(self, table):
        path = f"file:{self.server.data_dir}/xmpppush.db?mode=ro"
        with closing(sqlite3.connect(path, uri=True, timeout=10)) as database:
            return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


class Sender:
    """
    Writes to people who are away, and again what it knows nothing of.

    Attributes:
        messages: All it wrote.
        errors: What was answered with an error, as XML.
    """

    def __init__(self, name, recipients, random):
        self.name = name
        self.messages = []
        self.errors = []
        self._recipients = recipients
        self._random = random
        self._unacknowledged = deque()
        self._room = asyncio.Event()
        self._known = 0

    async def write(self, world):
        """Until the world says that it is over and everything is acknowledged."""
        while not world.over or self._unacknowledged:
            self._known = 0
            stream = await world.log_in(
                self.name, "desk", on_message=self._got, on_acknowledged=self._acknowledged
            )
            reading = asyncio.ensure_future(stream.run())
            with suppress(StreamEnded):
                await self._write_on(stream, world, reading)
            stream.cut()
            await reading

    async def _write_on(self, stream, world, reading):
        for message in self._unacknowledged:
            self._send(stream, message)
        while not reading.done() and (not world.over or self._unacknowledged):
            if not world.over and len(self._unacknowledged) < WINDOW:
                message = Message(f"{self.name}-{len(self.messages)}", self._random.choice(self._recipients))
                self.messages.append(message)
                self._unacknowledged.append(message)
                self._send(stream, message)
                await stream.drained()
            await asyncio.sleep(self._random.uniform(0, 2 * PAUSE))

    def _send(self, stream, message):
        message.sent += 1
        stream.send(message.xml)

    def _acknowledged(self, count):
        for _ in range(count - self._known):
            self._unacknowledged.popleft().acknowledged = True
        self._known = count

    def _got(self, element):
        self.errors.append(element.toXml())


class Reader:
    """
    Reads what comes for it, through all that happens.

    Attributes:
        names: Of the messages, in the order they came.
    """

    def __init__(self, name):
        self.name = name
        self.names = []

    async def read(self, world):
        while True:
            with suppress(StreamEnded):
                stream = await world.log_in(self.name, "desk", on_message=self._got)
                stream.send("<presence/>")
                await stream.run()
                stream.cut()

    def _got(self, element):
        self.names.append(element["id"])


class Account:
    """
    What became of the messages.

    Attributes:
        acknowledged: The messages that must not be lost.
        lost: Those of them that nobody got.
        silent: Those of them that a device got no push for.
        repeated: Messages that came more often than they were sent; a reader may get one again after a kill,
            until the deletion of what it acknowledged is on disk.
        strange: Pushes to devices that are not the recipient's.
        disordered: Recipients who got a sender's messages in another order.
        pushes: How many there were.
        duplicates: How many of them were more than one for each device and stored copy.
    """

    def __init__(self, messages, delivered, pushed, devices):
        """
        Args:
            delivered: The names that came, by recipient in order.
            pushed: How many pushes there were, by name and device.
            devices: Of each recipient.
        """
        self.copies = {to: Counter(names) for to, names in delivered.items()}
        self.acknowledged = [each for each in messages if each.acknowledged]
        self.lost = [each for each in self.acknowledged if not self.copies[each.to][each.name]]
        self.silent = [
            each
            for each in self.acknowledged
            if not all(pushed[each.name, device] for device in devices[each.to])
        ]
        self.repeated = [
            each
            for each in messages
            if self.copies[each.to][each.name] > each.sent + (KILLS if each.to.startswith("present") else 0)
        ]
        recipients = {each.name: each.to for each in messages}
        self.strange = [key for key in pushed if key[1] not in devices[recipients[key[0]]]]
        self.disordered = [to for to, names in delivered.items() if not is_in_order(names)]
        self.pushes = sum(pushed.values())
        self.duplicates = sum(
            max(0, pushed[each.name, device] - self._stored(each))
            for each in messages
            for device in devices[each.to]
        )
        self.resent = sum(each.sent > 1 for each in messages)

    def _stored(self, message):
        return max(1, min(message.sent, self.copies[message.to][message.name]))

    def __str__(self):
        return (
            f"{len(self.acknowledged)} messages acknowledged, {self.resent} of them sent again;"
            f" {len(self.lost)} lost, {len(self.repeated)} too often, {len(self.silent)} without a push;"
            f" {self.pushes} pushes, {self.duplicates} of them duplicates"
            f" ({self.duplicates / max(1, self.pushes):.2%})"
        )


def is_in_order(names):
    """Each sender's messages in the order it first sent them, repeated ones left out."""
    newest = defaultdict(lambda: -1)
    for name in dict.fromkeys(names):
        sender, _, number = name.rpartition("-")
        if int(number) < newest[sender]:
            return False
        newest[sender] = int(number)
    return True


async def enable(world, name, devices):
    """Another client than the one that reads later, so there is a push for each message."""
    for device in devices:
        stream = await world.log_in(name, device)
        service = "fcm" if device.startswith("phone") else "apns"
        for request in push_requests(device, device, service):
            await stream.ask(request)
        await stream.close()


async def fetch(world, name):
    """The names of all that waits for somebody."""
    reader = Reader(name)
    reading = asyncio.ensure_future(reader.read(world))
    owned = f"offline_messages WHERE account = '{name}@localhost'"
    with suppress(AssertionError):
        await asyncio.to_thread(wait_for, f"{name} has all", lambda: not world.rows(owned), 30)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return reader.names


async def live_through(server, people, random):
    """Returns the senders, by recipient the names that came, and how many pushes are not through."""
    world = World(server)
    senders = [Sender(f"sender{number}", list(people), Random(random.random())) for number in range(SENDERS)]
    readers = [Reader(name) for name in people if name.startswith("present")]
    await world.start()
    await asyncio.gather(*(enable(world, name, devices) for name, devices in people.items()))
    reading = [asyncio.ensure_future(reader.read(world)) for reader in readers]
    writing = [asyncio.ensure_future(sender.write(world)) for sender in senders]
    try:
        for _ in range(KILLS):
            await asyncio.sleep(random.uniform(0, 3))
            await world.kill()
            await world.start()
        await asyncio.sleep(random.uniform(0, 1))
        world.over = True
        async with asyncio.timeout(30):
            await asyncio.gather(*writing)
        # Where that comes to nothing the account says more than a time-out would.
        for table in ("deliveries", "offline_messages WHERE account LIKE 'present%'"):
            with suppress(AssertionError):
                await asyncio.to_thread(wait_for, "done", lambda table=table: not world.rows(table), 30)
    finally:
        for task in (*reading, *writing):
            task.cancel()
        await asyncio.gather(*reading, *writing, return_exceptions=True)
    delivered = {reader.name: reader.names for reader in readers}
    limit = asyncio.Semaphore(8)

    async def fetch_for(name):
        async with limit:
            delivered[name] = await fetch(world, name)

    await asyncio.gather(*(fetch_for(name) for name in people if name.startswith("absent")))
    return senders, delivered, world.rows("deliveries")


@pytest.mark.slow
def test_ten_kills_cost_nothing(tmp_path, capsys):
    """0 lost: of the messages, and of the pushes for them."""
    seed = os.environ.get("XMPPPUSH_CHAOS_SEED") or str(int.from_bytes(os.urandom(4)))
    with capsys.disabled():
        print(f"\nchaos: XMPPPUSH_CHAOS_SEED={seed}", flush=True)
    names = [f"absent{number}" for number in range(ABSENT)] + [f"present{n}" for n in range(PRESENT)]
    # Every other one has two devices.
    people = {name: [f"phone-{name}", f"tablet-{name}"][: 1 + n % 2] for n, name in enumerate(names)}
    accounts = tmp_path / "accounts"
    writers = [f"sender{number}" for number in range(SENDERS)]
    accounts.write_text("".join(f"{name}@localhost\t{name}\n" for name in (*people, *writers)))
    with StandIn(tmp_path) as stand_in:
        server = ServerProcess(tmp_path, INI.format(port=stand_in.port, ca=stand_in.ca_file))
        server.command("user", "add", "--batch", str(accounts))
        try:
            senders, delivered, queued = asyncio.run(live_through(server, people, Random(seed)))
            messages = [message for sender in senders for message in sender.messages]
            account = Account(messages, delivered, pushes_in(stand_in), people)
            with capsys.disabled():
                print(f"chaos: {account}", flush=True)
            for message in [*account.lost, *account.silent, *account.repeated][:5]:
                print(story_of(server, message, account))
        finally:
            with suppress(AssertionError):  # it is not running, or does not stop: there is worse to tell
                server.stop()
    assert [error for sender in senders for error in sender.errors] == []
    assert [message.name for message in account.lost] == []
    assert [message.name for message in account.silent] == []
    assert [message.name for message in account.repeated] == []
    assert account.strange == []
    assert queued == 0
    assert account.disordered == []
    assert len(account.acknowledged) == len(messages) > 100 * KILLS
    assert "Traceback" not in server.log.read_text()


def pushes_in(stand_in):
    """How many the push service got, by text and device."""
    return Counter(
        (request["json"]["alert"]["body"], request["path"].rpartition("/")[2])
        for request in stand_in.requests()
    )


def story_of(server, message, account):
    """All that is known of a message, for who has to find out what happened."""
    lines = server.command("push", "trace", f"{message.to}@localhost", "--last", "1000").splitlines()
    story, is_mine = [], False
    for line in lines:
        if not line.startswith(" "):
            is_mine = f"message {message.name} from" in line
        if is_mine:
            story.append(line)
    return "\n".join(
        (
            f"{message.name} to {message.to}: sent {message.sent} times,"
            f" {'' if message.acknowledged else 'not '}acknowledged,"
            f" {account.copies[message.to][message.name]} copies delivered; its trace:",
            *(story or ["  none (the last tenth of a second before a kill may be missing)"]),
        )
    )
