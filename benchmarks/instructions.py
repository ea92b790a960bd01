"""
How many instructions the server spends on a push, counted by valgrind.

A figure that no neighbour and no clock frequency changes: two runs of the same code differ by 0.2 percent. It
leaves out the kernel and the price of a cache miss, so it tells which of two versions does less, not how fast
either is.
"""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from attrs import evolve

from benchmarks.client import Client
from benchmarks.pipeline import Load, Pipeline, Result, Run, Setup, serve
from benchmarks.server import ServerFailed

# valgrind is some fifty times slower than the processor.
LOAD = Load(messages=2000, users=60, senders=5, runs=2, patience=120.0)


class Counting(Pipeline):
    """A pipeline whose second run is counted; the first one fills caches."""

    async def run(self, senders: Sequence[Client], first: int) -> Run:
        counted = first > 0
        if counted:
            self._control("-i", "on")
            self._control("-z")
        run = await super().run(senders, first)
        if counted:
            self._control("-d")
            self._control("-i", "off")
        return run

    def _control(self, *what: str) -> None:
        subprocess.run(["callgrind_control", *what, str(self._server.pid)], check=True, capture_output=True)


def count(
    messages: int,
    users: int = LOAD.users,
    registrations: int = 0,
    serve: Callable[..., Awaitable[Result]] = serve,
    pipeline: type[Counting] = Counting,
    senders: int = LOAD.senders,
) -> float:
    """
    Instructions for a push, all threads.

    Args:
        users, registrations: As in `Load`. With at least twice as many users as messages every push that is
            counted is the first one to its account, which no cache knows.
        serve: As `benchmarks.pipeline.serve`, of the pipeline.

    Raises:
        ServerFailed: There is no valgrind, or a push was missing.
    """
    if shutil.which("valgrind") is None:
        raise ServerFailed("there is no valgrind; on Debian and Ubuntu: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="xmpppush-benchmark-") as folder:
        out = Path(folder) / "callgrind"
        command = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}")
        load = evolve(LOAD, messages=messages, users=users, registrations=registrations, senders=senders)
        result = asyncio.run(measured(serve(load, Setup(), Path(folder), None, command, pipeline)))
        if not result.is_clean:
            raise ServerFailed(f"not every push arrived\n{result.log}")
        return max(map(total_of, Path(folder).glob("callgrind.*"))) / messages


async def measured(result: Awaitable[Result]) -> Result:
    return await result


def total_of(dump: Path) -> int:
    """The ``totals:`` of a callgrind dump, 0 where it has none."""
    for line in dump.read_text(errors="replace").splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    return 0
