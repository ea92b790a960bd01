"""``twistd xmpppush`` as an operator runs it: in front, as a daemon, stopped, and refused."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from xmpppush.testing.processes import TWISTD, ServerProcess, wait_for

CHECKOUT = Path(__file__).parents[2]
STOPS_WITHIN = 5.0  # seconds, the bound


def delivered_configuration(folder):
    """etc/server.ini as it is, on free ports and with its data elsewhere."""
    ini = (CHECKOUT / "etc" / "server.ini").read_text()
    ini = ini.replace("tcp:5222:", "tcp:0:").replace("ssl:8443:", "ssl:0:")
    return re.sub(r"(?m)^data_dir = \S+", f"data_dir = {folder / 'var'}", ini)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "server.ini"
    path.write_text(delivered_configuration(tmp_path))
    return path


def test_in_front_and_stopped(tmp_path, config):
    """The delivered configuration works; SIGTERM ends it cleanly, soon."""
    server = ServerProcess(tmp_path).start()
    began = time.monotonic()
    assert server.stop() in (0, -signal.SIGTERM)  # Twisted ends by the signal, once all is stopped
    assert time.monotonic() - began < STOPS_WITHIN
    log = server.log.read_text()
    assert "is ready" in log
    assert "Server Shut Down." in log
    assert "Traceback" not in log


def test_as_a_daemon(tmp_path, config):
    """It forks once its configuration is good, and its pid file stops it."""
    pidfile, log = tmp_path / "twistd.pid", tmp_path / "twistd.log"
    words = [TWISTD, f"--pidfile={pidfile}", f"--logfile={log}", "xmpppush", "-c", str(config)]
    subprocess.run(words, cwd=CHECKOUT, check=True, timeout=30)
    pid = wait_for("the pid file", lambda: pidfile.exists() and int(pidfile.read_text() or 0))
    wait_for("it is ready", lambda: "is ready" in log.read_text())
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    wait_for("it is gone", lambda: not pidfile.exists())
    assert time.monotonic() - began < STOPS_WITHIN


def test_a_daemon_that_cannot_start_says_so(tmp_path, config):
    """To whoever started it, and in its log; no pid file is left."""
    pidfile, log = tmp_path / "twistd.pid", tmp_path / "twistd.log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("tcp:0:", f"tcp:{port}:"))
        words = [TWISTD, f"--pidfile={pidfile}", f"--logfile={log}", "xmpppush", "-c", str(config)]
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "'[listen:c2s] cannot listen" in done.stderr  # from its first letter on
    assert "[listen:c2s] cannot listen on tcp:" in log.read_text()
    assert not pidfile.exists()


def refused(config, *, environ=None):
    """Start it where it should not start; returns what it says."""
    done = subprocess.run(
        [TWISTD, "-n", "--pidfile=", "xmpppush", "-c", str(config)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **(environ or {})},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr


def test_a_bad_configuration_opens_no_port(config):
    """All its problems, a line each, and nothing else happens."""
    bad = config.read_text().replace("max_errors = 10", "max_errors = lots")
    config.write_text(bad.replace("[mod_push]", "[mod_push]\nworker = 3"))
    lines = sorted(refused(config).splitlines())
    assert len(lines) == 2
    assert "[mod_push] max_errors: " in lines[0]
    assert "[mod_push] worker: no such key; did you mean 'workers'?" in lines[1]
    assert not (config.parent / "var").exists()


def test_a_port_in_use_is_said_in_a_line(config):
    """Which listener, which port, and why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("tcp:0:", f"tcp:{port}:"))
        said = refused(config)
    assert said.splitlines()[-1].startswith("[listen:c2s] cannot listen on tcp:")
    assert "in use" in said


def test_a_second_server_on_the_same_data_is_refused(tmp_path, config):
    """They would both deliver the same queue."""
    with ServerProcess(tmp_path):
        assert "another xmpppush is running with this data_dir" in refused(config)


def test_a_newer_database_is_left_alone(tmp_path, config):
    """By name, and before a port opens."""
    (tmp_path / "var").mkdir(mode=0o700)
    database = sqlite3.connect(tmp_path / "var" / "xmpppush.db")
    database.execute("CREATE TABLE schema_versions (version INTEGER, name TEXT, applied REAL)")
    database.execute("INSERT INTO schema_versions VALUES (9999, '9999-later', 0)")
    database.commit()
    database.close()
    assert "xmpppush.db" in refused(config)


def test_ports_are_logged_once(tmp_path, config):
    """By us, with the address; Twisted says the same about its factories."""
    with ServerProcess(tmp_path) as server:
        pass
    log = server.log.read_text()
    assert "[listen:c2s] listens on 127.0.0.1:" in log
    assert "Factory" not in log
    assert "Closed)" not in log


def test_json_log(tmp_path, config):
    """[server] log_format = json: an object a line."""
    config.write_text(config.read_text().replace("log_format = text", "log_format = json"))
    with ServerProcess(tmp_path) as server:
        pass
    entries = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert any(entry["message"].endswith("is ready") for entry in entries)
    assert all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)


@pytest.mark.parametrize(
    "components", ["", "\n[component]\njid = {0}\nendpoint = tcp:127.0.0.1:9\nsecret = s\n"]
)
def test_a_take_over_that_cannot_start_says_so(tmp_path, config, components):
    """By its exit code too, for whoever supervises it, and without a word about what never ran."""
    pidfile = tmp_path / "twistd.pid"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ini = config.read_text().replace("tcp:0:", f"tcp:{port}:")
        config.write_text(ini + components.format("pubsub.localhost"))
        words = [TWISTD, "-n", f"--pidfile={pidfile}", "xmpppush", "-c", str(config), "--take-over"]
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "[listen:c2s] cannot listen on tcp:" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not pidfile.exists()


def test_a_daemons_take_over_that_cannot_start_says_so(tmp_path, config):
    """In its log alone: whoever started it was told that it runs, and that connection is closed."""
    pidfile, log = tmp_path / "twistd.pid", tmp_path / "twistd.log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("tcp:0:", f"tcp:{port}:"))
        words = [TWISTD, f"--pidfile={pidfile}", f"--logfile={log}", "xmpppush", "-c", str(config)]
        subprocess.run([*words, "--take-over"], cwd=CHECKOUT, check=True, timeout=30)
        wait_for("it is gone", lambda: log.exists() and "Server Shut Down." in log.read_text())
    assert "[listen:c2s] cannot listen on tcp:" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert "Bad file descriptor" not in log.read_text()
