"""The control socket on the real reactor, with an application that is a fake."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread

from xmpppush import control
from xmpppush.control import (
    ControlError,
    ControlServer,
    DataDirInUse,
    NoServer,
    _ControlFactory,
    call,
    claim,
    is_claimed,
)
from xmpppush.errors import PushError


class FakeAccounts:
    def __init__(self) -> None:
        self.jids = ["alice@localhost", "bob@localhost"]

    def list(self):
        return succeed(tuple(self.jids))

    def remove(self, jid):
        return succeed(jid in self.jids)

    def add(self, accounts):
        raise AssertionError("nothing was to be added")


class FakePush:
    async def test(self, account, body):
        if body == "fail":
            raise PushError("no such\naccount")
        if body == "crash":
            raise RuntimeError("a secret")
        return [f"{account}: {body}"]


def an_application(**changes):
    values = {
        "storage": SimpleNamespace(accounts=FakeAccounts()),
        "push": FakePush(),
        "sandbox": None,
        "addresses": {"c2s": ("127.0.0.1", 5222)},
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture
def data_dir(tmp_path: Path):
    return tmp_path / "data"


@pytest.fixture
def server(data_dir):
    """Runs on the real reactor until the end of the test."""
    held = claim(data_dir)
    service = ControlServer(an_application(), held, reactor)
    service.startService()
    yield service
    pytest_twisted.blockon(service.stopService())
    held.release()


def ask(data_dir, operation, **arguments):
    return deferToThread(call, data_dir, operation, 10.0, **arguments)


@pytest_twisted.ensureDeferred
async def test_an_operation_is_answered(server, data_dir):
    """A request is dispatched to its operation and its result comes back."""
    assert await ask(data_dir, "ping") == "pong"
    assert await ask(data_dir, "accounts.list") == ["alice@localhost", "bob@localhost"]
    answer = await ask(data_dir, "status")
    assert answer["addresses"] == {"c2s": ["127.0.0.1", 5222]}
    assert answer["pid"] == os.getpid()


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_one_line(server, data_dir):
    """What an operation raises on purpose arrives as a line."""
    with pytest.raises(ControlError, match=r"^no such account$"):
        await ask(data_dir, "push.test", account="x@localhost", body="fail")


@pytest_twisted.ensureDeferred
async def test_a_fault_is_told_without_its_text(server, data_dir):
    """What an operation did not expect is for the log, not for the socket."""
    with pytest.raises(ControlError, match="internal error"):
        await ask(data_dir, "push.test", account="x@localhost", body="crash")


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("no.such", {}),
        ("ping", {"x": 1}),
        ("accounts.remove", {}),
        ("__class__", {}),
        ("accounts.add", {"accounts": [{}]}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nonsense_is_refused(server, data_dir, operation, arguments):
    """Unknown operations, wrong arguments and accounts that are none change nothing."""
    with pytest.raises(ControlError, match=r"no such operation|takes other arguments|not an account"):
        await ask(data_dir, operation, **arguments)


@pytest_twisted.ensureDeferred
async def test_only_the_owner_may_open_the_socket(server, data_dir):
    """Socket and folder are closed to others."""
    assert stat.S_IMODE((data_dir / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


@pytest_twisted.ensureDeferred
async def test_a_large_request_fits(server, data_dir):
    """The accounts of a large batch travel in one request."""
    with pytest.raises(ControlError, match="not an account"):
        await ask(data_dir, "accounts.add", accounts=[{"jid": "x" * 2_000_000}])


@pytest_twisted.ensureDeferred
async def test_a_stopped_server_leaves_no_socket(data_dir):
    """After a stop nothing is listening and nothing lies around."""
    held = claim(data_dir)
    service = ControlServer(an_application(), held, reactor)
    service.startService()
    await service.stopService()
    held.release()
    assert list(data_dir.iterdir()) == []
    with pytest.raises(NoServer):
        call(data_dir, "ping")


def test_no_data_dir_is_no_server(tmp_path):
    """A server that was never started is simply not there."""
    with pytest.raises(NoServer):
        call(tmp_path / "missing", "ping")


@pytest_twisted.ensureDeferred
async def test_a_socket_left_by_a_killed_server_is_replaced(data_dir):
    """The claim ends with the process, so what lies there belongs to nobody."""
    program = (
        "import sys; from pathlib import Path; from twisted.internet import reactor;"
        "from xmpppush.control import ControlServer, claim; held = claim(Path(sys.argv[1]));"
        "ControlServer(None, held, reactor).startService(); print('up', flush=True); reactor.run()"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(data_dir)], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"up\n"
        assert is_claimed(data_dir)
        with pytest.raises(DataDirInUse, match="another xmpppush is running with this data_dir"):
            claim(data_dir, sleep=lambda seconds: None)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert (data_dir / "control.sock").exists()
    with pytest.raises(NoServer):
        call(data_dir, "ping")
    held = claim(data_dir)
    service = ControlServer(an_application(), held, reactor)
    service.startService()
    assert await ask(data_dir, "ping") == "pong"
    await service.stopService()
    held.release()


def test_a_file_in_the_way_is_left_alone(data_dir):
    """Something else than a socket is not ours to remove."""
    held = claim(data_dir)
    (data_dir / "control.sock").write_text("precious")
    with pytest.raises(ControlError, match="no socket"):
        ControlServer(an_application(), held, reactor).startService()
    held.release()
    assert (data_dir / "control.sock").read_text() == "precious"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux only")
@pytest_twisted.ensureDeferred
async def test_a_deep_data_dir_works(tmp_path):
    """A path longer than a socket's address is reached through its folder."""
    deep = tmp_path / ("x" * 120)
    held = claim(deep)
    service = ControlServer(an_application(), held, reactor)
    service.startService()
    assert await ask(deep, "ping") == "pong"
    await service.stopService()
    held.release()
    assert list(deep.iterdir()) == []


def test_too_deep_a_data_dir_is_named(tmp_path, monkeypatch):
    """Where there is no such way the operator is told what is too long."""
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    with pytest.raises(ControlError, match="longer than 107 bytes"):
        _ = claim(tmp_path / ("x" * 120)).socket


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_up_is_told(data_dir):
    """An answer that never came is no empty answer."""
    data_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(data_dir / "control.sock"))
        listener.listen()
        hung = deferToThread(call, data_dir, "ping", 10.0)
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.close()
        with pytest.raises(ControlError, match="stopped before it had answered"):
            await hung


# One connection in memory, for what takes time or a hostile peer.


class Connection(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


def connected(application=None):
    clock = Clock()
    factory = _ControlFactory(application or an_application(), clock)
    protocol, transport = factory.buildProtocol(None), Connection()
    protocol.makeConnection(transport)
    return protocol, transport, clock


def test_a_silent_connection_is_closed():
    """Who asks nothing is not waited for."""
    _, transport, clock = connected()
    clock.advance(control.REQUEST_TIMEOUT)
    assert transport.aborted


def test_an_endless_request_is_cut(monkeypatch):
    """No more is kept of a request than may be in one."""
    monkeypatch.setattr(control._Connection, "MAX_LENGTH", 1000)
    protocol, transport, _ = connected()
    protocol.dataReceived(b"x" * 1001)
    assert b"MiB at the most" in transport.value()
    assert transport.disconnecting


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"operation": "ping", "arguments": 3}']
)
def test_lines_that_are_no_request_are_answered(line):
    """Anything may come in; it is refused and the connection closed."""
    protocol, transport, clock = connected()
    protocol.dataReceived(line + b"\n")
    assert "error" in orjson.loads(transport.value())
    assert transport.disconnecting
    assert clock.getDelayedCalls() == []


def stuck():
    class Stuck:
        def list(self):
            return Deferred()

    return an_application(storage=SimpleNamespace(accounts=Stuck()))


def test_an_operation_that_takes_too_long_is_given_up():
    """The command is told in bounded time, and that it may have been done."""
    protocol, transport, clock = connected(stuck())
    protocol.dataReceived(b'{"operation": "accounts.list"}\n')
    clock.advance(control.OPERATION_TIMEOUT)
    assert "took too long" in orjson.loads(transport.value())["error"]


def test_a_stop_answers_what_is_under_way():
    """A stopping server does not leave its commands waiting."""
    protocol, transport, clock = connected(stuck())
    protocol.dataReceived(b'{"operation": "accounts.list"}\n')
    protocol.stop()
    assert "stopping" in orjson.loads(transport.value())["error"]
    assert clock.getDelayedCalls() == []


def test_one_connection_asks_once():
    """A second request on a connection is not read."""
    protocol, transport, _ = connected()
    protocol.dataReceived(b'{"operation": "ping"}\n{"operation": "status"}\n')
    assert transport.value() == b'{"result":"pong"}\n'


def test_who_may_not_ask_is_told_who_may(data_dir, monkeypatch):
    """The folder and its owner, for whoever forgot to become the server's user."""
    data_dir.mkdir(exist_ok=True)

    def may_not(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(control, "_exchange", may_not)
    with pytest.raises(ControlError) as caught:
        call(data_dir, "ping")
    assert (
        str(caught.value)
        == f"{data_dir}: belongs to {data_dir.owner()}: permission denied; be that user, or root"
    )
    monkeypatch.setattr(control.os, "open", may_not)
    with pytest.raises(ControlError, match="belongs to"):
        claim(data_dir)
