"""
The way into a running server: a unix socket in ``data_dir`` that only its owner may open.

A connection carries one request and one answer, a line of JSON each: ``{"operation": NAME,
"arguments": {...}}``, then ``{"result": ...}`` or ``{"error": "one line"}``. Whoever can open the socket
can read the database as well, so there is no further authentication.
"""

import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTime, IReactorUNIX
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from xmpppush.errors import PushError
from xmpppush.operations import perform

SOCKET = "control.sock"
MAX_REQUEST = 16 * 1024 * 1024
MAX_ANSWER = 256 * 1024 * 1024
REQUEST_TIMEOUT = 30.0
OPERATION_TIMEOUT = 60.0

_SUN_PATH = 107  # bytes that fit into sockaddr_un, unix(7)


class DataDirInUse(PushError):
    """Another process works with this ``data_dir``."""


class NoServer(PushError):
    """No server listens there."""


class ControlError(PushError):
    """The server refused, or there is no way to it."""


class Claim:
    """
    The right to work with a ``data_dir``, held until `release` or the end of the process.

    It is a lock of the kernel on the folder itself: it is there for the children of a fork (twistd's
    daemon) and gone with the process, kill -9 included, so there is nothing stale to clean up.
    """

    def __init__(self, data_dir: Path, folder: int) -> None:
        self.data_dir = data_dir
        self._folder = folder

    @property
    def socket(self) -> str:
        return _address(self.data_dir / SOCKET, self._folder)

    def release(self) -> None:
        """May be called twice."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def claim(data_dir: Path, tries: int = 5, sleep: Callable[[float], None] = time.sleep) -> Claim:
    """
    Claim ``data_dir`` for this process, making the folder where it is missing.

    Args:
        tries: A command that looks whether a server runs holds the lock for a moment; a tenth of a
            second lies between two tries.

    Raises:
        DataDirInUse: Another process has it.
        ControlError: The folder cannot be made or opened.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ControlError(_no_way_in(data_dir, error)) from error
    for left in reversed(range(tries)):
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Claim(data_dir, folder)
        except BlockingIOError:
            if left:
                sleep(0.1)
        except OSError as error:
            os.close(folder)
            raise ControlError(f"{data_dir}: {error.strerror}") from error
    os.close(folder)
    raise DataDirInUse(f"{data_dir}: another xmpppush is running with this data_dir")


def _no_way_in(data_dir: Path, error: OSError) -> str:
    """Why ``data_dir`` cannot be used, and what to do where it is another user's."""
    with suppress(OSError, KeyError):
        if isinstance(error, PermissionError):
            return f"{data_dir}: belongs to {data_dir.owner()}: permission denied; be that user, or root"
    return f"{data_dir}: {error.strerror}"


def is_claimed(data_dir: Path) -> bool:
    """Does a process hold the claim at this moment? It may be on its way up or down, without a socket."""
    try:
        claim(data_dir, tries=1).release()
    except DataDirInUse:
        return True
    return False


def _address(path: Path, folder: int) -> str:
    """
    What to bind or connect to.

    A path too long for a socket is reached through the descriptor of its folder (Linux).

    Raises:
        ControlError: It is too long, and there is no such way here.
    """
    if len(os.fsencode(path)) <= _SUN_PATH:
        return str(path)
    if not os.path.isdir("/proc/self/fd"):
        raise ControlError(f"{path}: longer than {_SUN_PATH} bytes, too long for a socket; move data_dir")
    return f"/proc/self/fd/{folder}/{path.name}"


class _Connection(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = MAX_REQUEST
    factory: "_ControlFactory"
    transport: Any  # of a unix stream: connected, abortConnection
    _running: "Deferred[Any] | None" = None
    _asked = False

    def connectionMade(self) -> None:
        self.factory.connections.add(self)
        self._timeout = self.factory.clock.callLater(REQUEST_TIMEOUT, self.transport.abortConnection)

    def lineReceived(self, line: bytes) -> None:
        if self._asked:  # one request to a connection
            return
        self._asked = True
        self._timeout.cancel()
        try:
            request = orjson.loads(line)
            operation, arguments = request["operation"], request.get("arguments", {})
        except (ValueError, KeyError, TypeError, AttributeError):
            self._answer({"error": "not a request"})
            return
        running = Deferred.fromCoroutine(perform(self.factory.application, operation, arguments))
        self._running = running
        running.addTimeout(OPERATION_TIMEOUT, self.factory.clock)
        running.addCallbacks(lambda result: {"result": result}, self._failed)
        running.addCallback(self._answer)
        running.addErrback(self._unanswerable)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._asked = True
        self._answer({"error": f"a request has {MAX_REQUEST // 2**20} MiB at the most"})

    def stop(self) -> None:
        """The server stops: answer what is under way, then close."""
        if self._running is not None:
            self._running.cancel()
        self.transport.loseConnection()

    def _failed(self, failure: Failure) -> dict[str, str]:
        if failure.check(PushError):
            return {"error": " ".join(str(failure.value).split())}
        if failure.check(defer.TimeoutError):
            return {"error": "the server took too long; look whether it was done"}
        if failure.check(defer.CancelledError):
            return {"error": "the server is stopping; look whether it was done"}
        # Not with the request: it may hold keys.
        self.factory.log.failure("a control operation failed", failure)
        return {"error": "internal error; the server's log has more"}

    def _answer(self, answer: dict[str, Any]) -> None:
        if self.transport.connected:
            self.transport.write(orjson.dumps(answer) + b"\n")
            self.transport.loseConnection()

    def _unanswerable(self, failure: Failure) -> None:
        self.factory.log.failure("the answer of a control operation is no JSON", failure)
        self._answer({"error": "internal error; the server's log has more"})

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # What was asked for goes on: half an operation would be worse than one nobody waits for.
        self.factory.connections.discard(self)
        if self._timeout.active():
            self._timeout.cancel()


class _ControlFactory(Factory):
    protocol = _Connection  # type: ignore[assignment]
    noisy = False
    log = Logger(namespace="xmpppush.control")

    def __init__(self, application: Any, clock: IReactorTime) -> None:
        self.application = application
        self.clock = clock
        self.connections: set[_Connection] = set()


class ControlServer(Service):
    """
    Listens on the control socket.

    Args:
        application: What the operations work on, see `xmpppush.operations`.
        claim: The claim on ``data_dir``. It is kept to the end of the process: other parts may still be
            writing when this one has stopped.
        reactor: Where it listens and takes its time from.
    """

    name = "control"

    def __init__(self, application: Any, claim: Claim, reactor: Any) -> None:
        self._claim = claim
        self._reactor: IReactorUNIX = reactor
        self._factory = _ControlFactory(application, reactor)
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        path = self._claim.socket
        _remove_stale(path)
        # Twisted sets the mode only after bind: the mask closes that moment.
        mask = os.umask(0o177)
        try:
            self._port = self._reactor.listenUNIX(path, self._factory, mode=0o600)
        finally:
            os.umask(mask)
        super().startService()

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped
        for connection in list(self._factory.connections):
            connection.stop()

    def stopService(self) -> "Deferred[None]":
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def _remove_stale(path: str) -> None:
    """With the claim in hand a socket that lies there belongs to nobody: its server was killed."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ControlError(f"{path}: in the way, and no socket")
        os.unlink(path)
    except FileNotFoundError:
        pass


def call(data_dir: Path, operation: str, timeout: float = OPERATION_TIMEOUT + 30.0, **arguments: Any) -> Any:
    """
    Ask the server that runs with ``data_dir``; blocks.

    Args:
        timeout: Seconds without any progress after which it is given up.

    Returns:
        The result, plain JSON values.

    Raises:
        NoServer: None is running there.
        ControlError: It refused, with its reason, or the answer did not come.
    """
    request = orjson.dumps({"operation": operation, "arguments": arguments}) + b"\n"
    if len(request) > MAX_REQUEST:
        raise ControlError(
            f"too much for one request to a running server (at most {MAX_REQUEST // 2**20} MiB);"
            " make it several, or stop the server"
        )
    try:
        answer = _exchange(data_dir, request, timeout)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        raise NoServer(f"no server is running with {data_dir}") from error
    except TimeoutError as error:
        raise ControlError("the server did not answer in time") from error
    except OSError as error:
        raise ControlError(_no_way_in(data_dir, error)) from error
    try:
        values = orjson.loads(answer)
    except ValueError as error:
        raise ControlError("the server stopped before it had answered; look whether it was done") from error
    if "error" in values:
        raise ControlError(values["error"])
    return values["result"]


def _exchange(data_dir: Path, request: bytes, timeout: float) -> bytes:
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(_address(data_dir / SOCKET, folder))
            connection.sendall(request)
            answer = bytearray()
            while chunk := connection.recv(1 << 20):
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise ControlError("the server's answer is too long")
            return bytes(answer)
    finally:
        os.close(folder)
