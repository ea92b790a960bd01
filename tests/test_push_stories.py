"""
The stories of docs/troubleshooting.rst, each produced by the real parts and printed by the real command.

Behind a comment ``.. story: NAME`` the manual's next literal block is what `SCENARIOS` has under that name.
Clock and chance are given, so times and ids are compared, too.
"""

import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from xmpppush.commands import main
from xmpppush.config.reader import load
from xmpppush.errors import TryLater
from xmpppush.http_connections import Response
from xmpppush.mod_pubsub.service import PubSub
from xmpppush.mod_push.handler import PushHandler
from xmpppush.mod_push.plugins import chain_of
from xmpppush.mod_push.publisher import Publisher
from xmpppush.mod_push_service_mongoosepush.service import MongoosePushBridge
from xmpppush.model import Account
from xmpppush.server.handlers import DomainHandlers, add_server_handlers
from xmpppush.server.host import XMPPServer
from xmpppush.server.resources import Resources
from xmpppush.server.router import Router
from xmpppush.storage import open_inline
from xmpppush.testing.builders import a_node, a_registration
from xmpppush.testing.sessions import RecordingSession, stanza_of
from xmpppush.trace import DELAY, Trace

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.rst"
NOON = 1_795_363_311.004  # 2026-11-22 16:01:51.004 UTC
ALICE, BOB, HOST = "alice@localhost", "bob@localhost", "pubsub.localhost"
INI = """\
[server]
domains = localhost
data_dir = var
[mod_push]
{mod_push}
[mod_pubsub]
[http_connections:mongoose_push_http]
server = http://127.0.0.1:1
[mod_push_service_mongoosepush]
pool_name = mongoose_push_http
{bridge}
"""


class Pool:
    """A push service that answers, 23 ms later, in turn; ``None``: it is not there."""

    trouble = None

    def __init__(self, clock):
        self.answers = []
        self._clock = clock

    def post(self, path, body):
        answer = self.answers.pop(0) if self.answers else 200
        posted = Deferred()
        if answer is None:
            self._clock.callLater(0.01, posted.errback, TryLater("connection refused"))
        else:
            code, reason = answer if isinstance(answer, tuple) else (answer, "")
            body = b'{"reason":"%s"}' % reason.encode() if reason else b""
            self._clock.callLater(0.023, posted.callback, Response(code, body, None))
        return posted


class System:
    """The whole chain between a message and the push service, on a database of its own."""

    def __init__(self, folder, mod_push="", bridge=""):
        self.ini = folder / "server.ini"
        self.ini.write_text(INI.format(mod_push=mod_push, bridge=bridge))
        config = load(self.ini, {})
        self.clock = clock = Clock()
        clock.advance(NOON)
        self.storage = storage = open_inline(config.storage, config.server.data_dir)
        self.trace = Trace(storage.traces, clock, config.trace.keep, config.trace.max_notes)
        self.pool = Pool(clock)
        self.bridge = MongoosePushBridge(
            config.bridge,
            self.pool,
            storage.messages,
            clock,
            random.Random(1),
            lambda delivery: self.publisher.unregistered(delivery),
            trace=self.trace,
        )
        pubsub = PubSub(config.mod_pubsub, ["localhost"], storage.nodes, storage.messages, self.bridge, clock)
        section = config.mod_push
        self.publisher = Publisher(
            storage.registrations,
            storage.messages,
            chain_of(section.plugin_module),
            pubsub,
            self.bridge,
            clock,
            notify=section.notify,
            max_errors=section.max_errors,
            suspend_retry=section.suspend_retry,
            batch_window=section.batch_window,
            trace=self.trace,
        )
        self.handler = PushHandler(storage.registrations, self.publisher, clock, 20, self.trace)
        router, resources = Router(), Resources()
        handlers = DomainHandlers(router)
        add_server_handlers(handlers, storage.rosters, resources, lambda domain: [HOST], clock)
        handlers.startService()
        self.host = XMPPServer(
            ["localhost"],
            router,
            resources,
            handlers,
            storage.accounts,
            storage.messages,
            self.publisher,
            clock,
            1000,
        )
        storage.accounts.add([Account(ALICE, {}), Account(BOB, {})])
        self.bridge.startService()
        self.wait(0)
        self._number = 0
        self._bob = self.session(BOB, "desk")

    def wait(self, seconds):
        self.clock.advance(seconds)

    def session(self, account, resource):
        session = RecordingSession(self.host, account, resource)
        session.says("<presence/>")
        return session

    def enable(self, node="a1f", resource="phone"):
        node_row = a_node(
            host=HOST, name=node, owner=ALICE, affiliations={ALICE: "owner", "localhost": "publish-only"}
        )
        self.storage.nodes.create(node_row, 10)
        options = {"service": "fcm", "device_id": f"token-of-{node}"}
        self.storage.registrations.put(
            a_registration(node=node, resource=resource, options=options, created=self.clock.seconds()), 20
        )

    def message(self, payload="<body>Hi</body>", answers=(), wait=0.05):
        """One from Bob; and the time for what happens at once, in steps such as a reactor makes."""
        self.pool.answers.extend(answers)
        self._number += 1
        self._bob.says(f"<message id='m{self._number}' type='chat' to='{ALICE}'>{payload}</message>")
        self.wait_by_steps(wait)

    def wait_by_steps(self, seconds):
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 1e-6:
            calls = [call.getTime() for call in self.clock.getDelayedCalls()]
            due = min(calls, default=end) - self.clock.seconds()
            self.wait(max(min(due, left), 0))

    def trace_of(self, *words):
        """What ``xmpppush push trace`` prints."""
        self.wait(DELAY)
        self.trace.flush()
        result = CliRunner().invoke(main, ["-c", str(self.ini), "push", "trace", *words])
        assert result.exit_code == 0, result.output
        return result.output


# What happens, by the name in the manual. Each returns what is printed.


def delivered(system):
    system.enable()
    system.message()


def retried(system):
    system.enable()
    system.message(answers=[(503, "overloaded")], wait=2)


def waiting(system):
    system.enable()
    system.message(answers=[None] * 3, wait=2)


def collapsed(system):
    system.enable()
    system.message(answers=[None], wait=0.2)
    system.message(wait=2)


def given_up(system):
    system.enable()
    system.message(answers=[None] * 3, wait=10)


def too_old(system):
    system.enable()
    system.message(answers=[None] * 9, wait=90)


def refused(system):
    system.enable()
    system.message(answers=[(400, "invalid_request")])


def unregistered(system):
    system.enable()
    system.message(answers=[(410, "unregistered")])


def filtered(system):
    system.enable()
    typing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
    for _ in range(3):
        system.message(typing, wait=1)


def online(system):
    system.enable()
    system.session(ALICE, "phone")
    system.message()


def online_elsewhere(system):
    system.enable()
    system.enable("c07", "desk")
    system.session(ALICE, "desk")
    system.message()


def account_online(system):
    system.enable()
    system.session(ALICE, "desk")
    system.message()


def hibernated(system):
    system.enable()
    system.host.broken(system.session(ALICE, "phone"))
    system.message()


def suspended(system):
    system.enable()
    system.storage.nodes.affiliate(HOST, "a1f", {"localhost": "none"})
    for _ in range(11):
        system.message(wait=1)


def disabled(system):
    system.enable()
    system.message(wait=5)
    disable = f"<disable xmlns='urn:xmpp:push:0' jid='{HOST}'/>"
    iq = f"<iq type='set' id='1' from='{ALICE}/phone' to='{ALICE}'>{disable}</iq>"
    system.handler.on_disable(stanza_of(iq))
    system.message()


def no_registration(system):
    system.message()


def no_message(system):
    system.enable()


MOST_3, TTL_1M = "max_attempts = 3", "ttl = 1m"
SCENARIOS = {
    "delivered": (delivered, {}, ()),
    "retried": (retried, {}, ()),
    "waiting": (waiting, {}, ()),
    "collapsed": (collapsed, {}, ()),
    "given up": (given_up, {"bridge": MOST_3}, ()),
    "too old": (too_old, {"bridge": TTL_1M}, ()),
    "refused": (refused, {}, ()),
    "unregistered": (unregistered, {}, ()),
    "filtered": (filtered, {}, ()),
    "online": (online, {}, ()),
    "online elsewhere": (online_elsewhere, {}, ()),
    "account online": (account_online, {"mod_push": "notify = account-offline"}, ()),
    "hibernated": (hibernated, {}, ()),
    "suspended": (suspended, {}, ("--last", "2")),
    "disabled": (disabled, {}, ()),
    "no registration": (no_registration, {}, ()),
    "no message": (no_message, {}, ()),
}


def printed(name, folder):
    happens, settings, words = SCENARIOS[name]
    system = System(folder, **settings)
    try:
        happens(system)
        return system.trace_of(ALICE, *words)
    finally:
        system.storage.close()


def told_in(page):
    """The literal blocks behind ``.. story: NAME``, by name."""
    stories = {}
    for part in re.split(r"^\.\. story: ", page, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("\n")
        block = re.match(r"\n::\n\n((?:(?: {4}.*)?\n)+)", rest)
        assert block is not None, name
        lines = block[1].rstrip().split("\n")
        stories[name] = "".join(f"{line.removeprefix('    ')}\n" for line in lines)
    return stories


def test_the_manual_tells_every_story():
    """Those of the issue among them, and no other."""
    assert set(told_in(PAGE.read_text())) == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_story_is_what_the_manual_says(name, tmp_path):
    """Line by line, as the command prints it of what really happened."""
    assert printed(name, tmp_path) == told_in(PAGE.read_text()).get(name)
