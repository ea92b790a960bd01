"""
Other people's XMPP servers as child processes: Debian's Prosody and ejabberd, each with a component.

Their configuration is what the documentation tells operators to write (``docs/examples/app-server``), with
ports, names and paths of the test around it. They live in a folder of their own and listen on loopback only.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from xmpppush.certificates import CertificateStore
from xmpppush.testing.processes import wait_for

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "app-server"
DOMAIN = "example.org"
COMPONENT = f"push.{DOMAIN}"
SECRET = "change-me"  # noqa: S105 - of the examples
PASSWORD = "secret"  # noqa: S105

# Below the ephemeral range, so that nobody's outgoing connection takes one between the look and the bind.
PORTS = range(15000, 31000)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    found: list[int] = []
    start = os.getpid() * 37 % len(PORTS)
    for port in (*PORTS[start:], *PORTS[:start]):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class XMPPServerProcess:
    """
    A server that is not ours; a context manager.

    Args:
        folder: Where everything of it goes.
        users: Local parts of its accounts; their password is `PASSWORD`.

    Attributes:
        address: Where clients connect, by STARTTLS.
        component_port: Where components connect.
        ca_file: What its certificate is verified with.
        log: Its log file.
    """

    name: ClassVar[str]
    domain: ClassVar[str] = DOMAIN

    def __init__(self, folder: Path, users: Iterable[str]) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.users = tuple(users)
        self.port, self.component_port = free_ports(2)
        self.address = ("127.0.0.1", self.port)
        store = CertificateStore(self.folder)
        store.server_options(self.domain)
        self.ca_file = store.ca_path
        (self.certificate,) = (
            path for path in store.ca_path.parent.glob("*.pem") if self.domain in path.name
        )
        self.log = self.folder / "server.log"
        self._output = self.folder / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be run here, ``None``: it can."""
        raise NotImplementedError

    def configure(self) -> tuple[list[str], dict[str, str]]:
        """Write its files; returns the command that runs it in the foreground, and its environment."""
        raise NotImplementedError

    def start(self) -> None:
        command, environ = self.configure()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=self.folder, env={**os.environ, **environ}
            )
        wait_for(f"{self.name} listens", self._is_up, 30)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended:\n{self.logs()}")
        return listens(self.port) and listens(self.component_port)

    def stop(self) -> None:
        """May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def logs(self, lines: int = 60) -> str:
        texts = (path.read_text(errors="replace") for path in (self._output, self.log) if path.exists())
        return "\n".join(line for text in texts for line in text.splitlines()[-lines:])

    def __enter__(self) -> "XMPPServerProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind:
            sys.stderr.write(self.logs())


class Prosody(XMPPServerProcess):
    """Prosody 0.12 with mod_cloud_notify of prosody-modules."""

    name = "prosody"

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("prosody") is None:
            return "Prosody is not installed (apt-get install prosody prosody-modules)"
        if not Path("/usr/lib/prosody/modules/mod_cloud_notify").exists():
            return "mod_cloud_notify is not installed (apt-get install prosody-modules)"
        return None

    def write_accounts(self) -> None:
        accounts = self.folder / "data" / self.domain.replace(".", "%2e") / "accounts"
        accounts.mkdir(parents=True, exist_ok=True)
        for user in self.users:
            (accounts / f"{user}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}" }};\n')

    def configure(self) -> tuple[list[str], dict[str, str]]:
        self.write_accounts()
        config = self.folder / "prosody.cfg.lua"
        config.write_text(
            f"""
run_as_root = true
pidfile = "{self.folder}/prosody.pid"
data_path = "{self.folder}/data"
log = {{ debug = "{self.log}" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {self.port} }}
component_ports = {{ {self.component_port} }}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "posix" }}
modules_disabled = {{ "s2s" }}
authentication = "internal_plain"
c2s_require_encryption = true
ssl = {{ certificate = "{self.certificate}", key = "{self.certificate}" }}

"""
            + (EXAMPLES / "prosody.cfg.lua").read_text(),
            encoding="utf-8",
        )
        return ["prosody", "-F", "--config", str(config)], {}


class Ejabberd(XMPPServerProcess):
    """ejabberd 23.01 with mod_push, without Erlang's distribution, so that nothing but it is started."""

    name = "ejabberd"

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("erl") is None or not cls._libraries():
            return "ejabberd is not installed (apt-get install ejabberd)"
        return None

    @staticmethod
    def _libraries() -> list[Path]:
        return sorted(Path("/usr/lib").glob("*/ejabberd-*/ebin"))

    def configure(self) -> tuple[list[str], dict[str, str]]:
        example = (EXAMPLES / "ejabberd.yml").read_text()
        example = re.sub(r"port: 5347\b", f"port: {self.component_port}", example)
        example = example.replace(
            "listen:\n",
            f"""listen:
  -
    port: {self.port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    starttls_required: true
    max_stanza_size: 262144
    shaper: none
    access: all
""",
        ).replace("modules:\n", "modules:\n  mod_offline: {}\n  mod_roster: {}\n  mod_disco: {}\n")
        config = self.folder / "ejabberd.yml"
        config.write_text(
            f'certfiles: ["{self.certificate}"]\nca_file: "{self.ca_file}"\nloglevel: info\n'
            f"auth_method: internal\ns2s_access: none\n{example}",
            encoding="utf-8",
        )
        return self.command(config)

    def command(self, config: Path) -> tuple[list[str], dict[str, str]]:
        """What runs it on a configuration, with its accounts."""
        users = ",".join(f'<<"{user}">>' for user in self.users)
        register = (
            "{ok, _} = application:ensure_all_started(ejabberd), lists:foreach(fun(User) -> "
            f'ejabberd_auth:try_register(User, <<"{self.domain}">>, <<"{PASSWORD}">>) end, [{users}]).'
        )
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        environ = {
            "ERL_LIBS": str(self._libraries()[-1].parents[1]),
            "EJABBERD_CONFIG_PATH": str(config),
            "EJABBERD_LOG_PATH": str(self.log),
            "ERL_CRASH_DUMP": str(self.folder / "crash.dump"),
            "HOME": str(self.folder),
        }
        return ["erl", "-noinput", "+S", "1:1", "-mnesia", "dir", f'"{spool}"', "-eval", register], environ


SERVERS = (Prosody, Ejabberd)
