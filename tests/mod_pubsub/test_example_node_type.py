"""The example of docs/pubsub.rst: installed, configured, and held to its own tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "notice-board"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as pip installs it; its build leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--quiet", "--target", target, source], check=True, timeout=120)
    return target


def python(installed, *arguments, cwd):
    # Of the checkout that is tested, whichever one the environment has installed.
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(installed), str(ROOT)))}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests_pass(installed, tmp_path):
    """The contract suite among them."""
    tests = shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    assert " passed" in python(installed, "-m", "pytest", "-p", "no:cacheprovider", tests, cwd=tmp_path)


RUN = """
import sys
from pathlib import Path
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from xmpppush.config import load
from xmpppush.jids import parse_jid
from xmpppush.mod_pubsub.items import Published
from xmpppush.mod_pubsub.nodetypes import node_types_of
from xmpppush.mod_pubsub.service import PubSub
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.sessions import stanza_of
from xmpppush.xep.pubsub_answers import payload_xml

config = load(Path("server.ini"), {})
types = node_types_of(config.mod_pubsub.plugins)
assert "noticeboard" not in sys.modules
storage = memory_storage()
pubsub = PubSub(
    config.mod_pubsub, ["localhost"], storage.nodes, storage.messages, None, Clock(), node_types=types
)

def done(coroutine):
    found = []
    Deferred.fromCoroutine(coroutine).addBoth(found.append)
    return getattr(found[0], "value", found[0])

alice, host = parse_jid("alice@localhost/x"), "pubsub.localhost"
print(done(pubsub.create(alice, host, "board", "notice-board", {})))
node = done(pubsub.lookup.existing(host, "board"))
for text in ("Tea at five", ""):
    payload = stanza_of(f"<notice xmlns='urn:example:notice'>{text}</notice>")
    published = Published(True, "i", payload, payload_xml(payload), {})
    print(done(pubsub.items.publish(alice, node, published, "new")))
print(done(pubsub.items.purge(alice, host, "board")).feature)
print(done(pubsub.items.retrieve(parse_jid("bob@localhost/x"), host, "board", [], None, None)))
"""


def test_the_server_uses_it(installed, tmp_path):
    """By its name in the configuration; it decides on items, and has the features that it lists."""
    (tmp_path / "server.ini").write_text("[mod_pubsub]\nplugins = push, notice-board\n")
    assert python(installed, "-c", RUN, cwd=tmp_path) == (
        "board\n"
        "('i', [])\n"
        "a notice is 1 to 200 characters of text\n"
        "purge-nodes\n"
        "the node is for subscribers\n"
    )


@pytest.mark.parametrize("name", ["twisted/plugins/noticeboard_plugin.py", "noticeboard/notices.py"])
def test_the_documentation_shows_its_files(name):
    """As they are."""
    shown = indent((EXAMPLE / name).read_text(), "    ")
    assert shown in (ROOT / "docs" / "pubsub.rst").read_text()
