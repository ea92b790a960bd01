"""Real processes for end-to-end tests: ``twistd xmpppush`` and a MongoosePush stand-in."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import urlopen

from xmpppush import control
from xmpppush.certificates import CertificateStore
from xmpppush.config.sections import TLSSection

TWISTD = str(Path(sys.executable).parent / "twistd")


def wait_for(what: str, condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    """The first true answer of ``condition``; AssertionError after ``timeout`` seconds without one."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {timeout} seconds")


class ServerProcess:
    """
    ``twistd -n xmpppush`` on a configuration of its own; a context manager.

    Args:
        folder: Where its files go; ``server.ini`` there is written from ``ini``.
        ini: The configuration; ``data_dir = var`` is added. Listeners may use port 0. Without it the
            file is there already, with that data_dir.
    """

    def __init__(self, folder: Path, ini: str = "", environ: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.config = folder / "server.ini"
        self.data_dir = folder / "var"
        self.log = folder / "server.log"
        if ini:
            self.config.write_text(ini.replace("[server]", f"[server]\ndata_dir = {self.data_dir}", 1))
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "ServerProcess":
        self._process = self._spawn()
        wait_for("the server is up", self._is_up)
        return self

    def replace(self) -> None:
        """Have a new process take the old one's place (``--take-over``)."""
        assert self._process is not None
        old, self._process = self._process, self._spawn("--take-over")
        old.wait(30)
        wait_for("the new server is up", self._is_up)

    def _spawn(self, *words: str) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [TWISTD, "-n", "--pidfile=", "xmpppush", "-c", str(self.config), *words],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
                env=self._environ,
            )

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.log.read_text()}")
        try:
            return bool(self.call("ping"))
        except control.NoServer:
            return False

    def call(self, operation: str, **arguments: Any) -> Any:
        """An operation over its control socket."""
        return control.call(self.data_dir, operation, **arguments)

    def address(self, name: str) -> tuple[str, int]:
        host, port = self.call("status")["addresses"][name]
        return host, port

    def command(self, *words: str) -> str:
        """Run ``xmpppush -c FILE WORDS``; returns what it printed."""
        return subprocess.run(
            [sys.executable, "-m", "xmpppush.commands", "-c", str(self.config), *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
            env=self._environ,
        ).stdout

    def stop(self, with_signal: int = signal.SIGTERM, timeout: float = 10.0) -> int:
        """Stop it; returns its exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(with_signal)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not stop within {timeout} seconds") from None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> "ServerProcess":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.stop(signal.SIGKILL if kind else signal.SIGTERM)
        if kind:
            sys.stderr.write(self.log.read_text())


class StandIn:
    """
    A MongoosePush stand-in (`xmpppush.testing.pushservice`) on HTTPS with a CA of its own; a context manager.

    Args:
        arguments: Further options for it, such as ``--answer 503``.

    Attributes:
        ca_file: What its certificate is to be verified with.
        port: Where it listens, on loopback.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        store = CertificateStore(folder / "stand-in")
        store.service_options(TLSSection())
        self.ca_file = store.ca_path
        self._certfile = store.ca_path.parent / "push-service.pem"
        self._output = folder / "stand-in.jsonl"
        self._arguments = arguments

    def __enter__(self) -> "StandIn":
        words = [sys.executable, "-m", "xmpppush.testing.pushservice", "--certfile", str(self._certfile)]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen([*words, *self._arguments], stdout=output)
        wait_for("the stand-in listens", self._lines)
        self.port: int = self._lines()[0]["listening"]
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on nothing listens there; may be called twice."""
        self._process.kill()
        self._process.wait()

    def _lines(self) -> list[dict[str, Any]]:
        complete = self._output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines()]

    def requests(self) -> list[dict[str, Any]]:
        """What came so far: ``path``, ``headers``, ``json``."""
        return self._lines()[1:]

    def wait_for_requests(self, count: int) -> list[dict[str, Any]]:
        wait_for(f"{count} requests", lambda: len(self.requests()) >= count)
        return self.requests()


class EmulatorProcess:
    """
    ``xmpppush emulate``; a context manager.

    Attributes:
        section: The configuration that it printed.
        folder: Where its credentials are.
    """

    def __init__(self, folder: Path, service: str, *arguments: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "xmpppush.commands", "emulate", service, "--port", "0"]
        self._process = subprocess.Popen(
            [*command, "--write-credentials", str(folder), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def __enter__(self) -> "EmulatorProcess":
        # It listens when the first line is there; all lines are one print after another.
        self._control = self._line().rpartition("control on ")[2].strip()
        self.section = "".join(iter(self._line, "\n"))
        return self

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the emulator ended"
        return line

    def received(self) -> list[dict[str, Any]]:
        """Notifications that came so far; what was asked for an access token is none."""
        with urlopen(f"{self._control}/received", timeout=10) as answer:  # noqa: S310 - it printed http://
            received = json.loads(answer.read())["received"]
        return [each for each in received if not each["path"].endswith("/token")]

    def wait_for_received(self, count: int) -> list[dict[str, Any]]:
        wait_for(f"{count} notifications", lambda: len(self.received()) >= count)
        return self.received()

    def __exit__(self, *_error: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=10)
