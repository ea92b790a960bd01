"""What is written to the log, and what is not."""

import io
import json

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger, globalLogPublisher

from xmpppush import logs
from xmpppush.listening import written


@pytest.fixture
def log(monkeypatch):
    """Chosen as twistd would; gives a function that returns the lines so far."""
    stream = io.StringIO()
    monkeypatch.setattr(logs, "_chosen", None)
    observers = []

    def choose(log_format="text", log_level="info"):
        logs.choose(log_format, log_level, lambda: stream)
        observers.append(logs.chosen())
        globalLogPublisher.addObserver(observers[0])
        return lambda: stream.getvalue().splitlines()

    yield choose
    globalLogPublisher.removeObserver(observers[0])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_twisted_does_not_say_again_which_ports_are_open(log, log_format, tmp_path):
    """Our own lines have the section and the address."""
    from twisted.internet import reactor

    class Wrapped(Factory):
        def logPrefix(self):
            return "_Site (AdminFactory) (TLS)"

    lines = log(log_format)
    factory = Wrapped()
    factory.noisy = False
    for port in (
        reactor.listenTCP(0, factory, interface="127.0.0.1"),
        reactor.listenUNIX(str(tmp_path / "socket"), factory),
    ):
        port.stopReading()
        port.connectionLost(None)
    assert lines() == []


def test_the_rest_of_the_old_kind_is_kept(log):
    """What libraries say with twisted.python.log is worth reading."""
    from twisted.python import log as old

    lines = log()
    old.msg("a port is starting on a journey")
    old.msg("something else", system="x")
    assert len(lines()) == 2


def test_level(log):
    """Below it nothing is written."""
    lines = log(log_level="warn")
    Logger(namespace="x").info("quiet")
    Logger(namespace="x").warn("loud")
    assert [line.split(" ", 1)[1] for line in lines()] == ["[x#warn] loud"]


def test_json_has_the_fields(log):
    """Plain values only, and one line whatever is in them."""
    lines = log("json")
    Logger(namespace="x").info("{count} of {what}", count=3, what="a\nb", secret=object())
    (line,) = lines()
    entry = json.loads(line)
    assert (entry["message"], entry["count"], entry["level"], entry["logger"]) == (
        "3 of a\nb",
        3,
        "info",
        "x",
    )
    assert "secret" not in entry


def test_a_log_that_cannot_be_written_is_one_line(tmp_path):
    """Twistd ends with it, before it goes into the background."""
    with pytest.raises(SystemExit) as caught:
        logs.twistd_stream("no/twistd.log", foreground=False, rundir=str(tmp_path))()
    assert caught.value.code == f"{tmp_path}/no/twistd.log: cannot be written: No such file or directory"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (IPv4Address("TCP", "127.0.0.1", 5222), "127.0.0.1:5222"),
        (IPv6Address("TCP", "::1", 5222), "[::1]:5222"),
        (UNIXAddress(b"/run/c2s"), "/run/c2s"),
    ],
)
def test_addresses_are_written_for_people(address, text):
    """As they stand in a URL."""
    assert written(address) == text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_node_that_may_be_a_token_is_shortened(log, log_format):
    """fpush's way: the node is the device token."""
    token = "0123456789abcdef" * 4
    lines = log(log_format)
    Logger().error("push service refused a notification for node {node}", node=token)
    Logger().error("push service refused a notification for node {node}", node="node-1")
    first, second = lines()
    assert token not in first
    assert "node 012345...cdef" in first
    assert "node node-1" in second
