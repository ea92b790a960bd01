"""sd_notify over real datagram sockets."""

import socket
from pathlib import Path

import pytest

from xmpppush.notify import READY, STOPPING, notify


@pytest.fixture
def manager(tmp_path: Path):
    """What systemd has at the other end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(5)
        yield receiver


def test_systemd_hears_that_the_server_is_ready(manager, tmp_path):
    """The state arrives as one datagram at the socket that systemd named."""
    manager.bind(str(tmp_path / "notify"))
    assert notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert manager.recv(100) == b"READY=1"


def test_abstract_sockets_are_reached(manager):
    """A leading @ stands for the zero byte of the abstract namespace."""
    manager.bind("\0xmpppush-test-notify-" + str(manager.fileno()))
    name = "@" + manager.getsockname()[1:].decode()
    assert notify(STOPPING, {"NOTIFY_SOCKET": name})
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1", "/nowhere/to/be/found", "/" + "x" * 200])
def test_nobody_waiting_is_no_error(address):
    """Without a socket, or with one that cannot be reached, nothing happens."""
    assert not notify(READY, {"NOTIFY_SOCKET": address})


def test_without_systemd_there_is_nothing_to_do():
    """Run by hand there is no NOTIFY_SOCKET."""
    assert not notify(READY, {})
