"""The whole chain in a server process of its own, at a size that takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "options",
    [["--in-flight", "20"], ["--agent", "stock", "--api-version", "v2"], ["--registrations", "1000"]],
)
def test_every_message_becomes_one_push(options):
    """Nothing is lost, doubled or sent to another device, and no delivery is left in the queue."""
    command = [sys.executable, "-m", "benchmarks", "pipeline", "--json", "--runs", "1"]
    size = ["--messages", "200", "--users", "10", "--senders", "2"]
    done = subprocess.run([*command, *size, *options], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    (run,) = result["runs"]
    assert (run["pushes"], run["missing"], run["duplicates"], run["strange"], run["errors"]) == (
        200,
        0,
        0,
        0,
        0,
    )
    assert (result["queued"], result["offline"]) == (0, 200)
