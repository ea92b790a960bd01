"""Parts of the chain on their own: CPU microseconds for each operation, in this process."""

import asyncio
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.words.xish import domish

from benchmarks.client import chat_message
from benchmarks.server import free_port
from benchmarks.sink import listen

IN_FLIGHT = 100
Figure = tuple[str, float]


def parse(messages: int = 20_000) -> Iterator[Figure]:
    """A chat message of 400 bytes, into an element and back into text."""
    from xmpppush.server.parser import StreamParser

    stanza = chat_message(12345, "user123@localhost")
    header = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    received: list[domish.Element] = []
    parser = StreamParser(lambda _: None, received.append, lambda: None, 1 << 18)
    parser.feed(header)
    yield f"StreamParser, {len(stanza)} bytes", _each(lambda: parser.feed(stanza), messages)
    twenty = stanza * 20
    yield "StreamParser, 20 at a time", _each(lambda: parser.feed(twenty), messages // 20) / 20
    stock = domish.elementStream()
    stock.DocumentStartEvent = lambda _: None
    stock.ElementEvent = received.append
    stock.parse(header)
    yield "domish.ExpatElementStream", _each(lambda: stock.parse(stanza), messages)
    yield "Element.toXml", _each(received[0].toXml, messages)


def jids(count: int = 5_000) -> Iterator[Figure]:
    """Addresses: one that was seen before, and new ones."""
    from xmpppush.jids import parse_jid

    names = iter([f"user{number}@localhost/phone" for number in range(count + 1)])
    yield "parse_jid, new", _each(lambda: parse_jid(next(names)), count)
    yield "parse_jid, seen before", _each(lambda: parse_jid("user1@localhost/phone"), count)


def http(reactor: Any, requests: int = 10_000) -> "Deferred[list[Figure]]":
    """POST of a notification to a sink in another process, by each agent."""
    from xmpppush.config.sections import HTTPConnectionsSection
    from xmpppush.http_connections import HTTPPool
    from xmpppush.testing.builders import a_delivery

    async def measure() -> list[Figure]:
        figures = []
        delivery = a_delivery()
        with sink_process() as port:
            for agent in ("fast", "stock"):
                section = HTTPConnectionsSection("sink", f"http://127.0.0.1:{port}", connections=IN_FLIGHT)
                pool = HTTPPool(section, reactor, agent=agent, max_connections=IN_FLIGHT)

                def post(pool: Any = pool) -> "Deferred[Any]":
                    return pool.post(delivery.path, delivery.body)

                await _all(post, IN_FLIGHT)  # connections open
                figures.append((f"POST, {agent} agent", await _all(post, requests)))
                await pool.stopService()
        return figures

    return Deferred.fromCoroutine(measure())


def storage(reactor: Any, messages: int = 20_000) -> "Deferred[list[Figure]]":
    """A message and its delivery kept, and settled, in a SQLite file with synchronous=FULL."""
    from xmpppush.config.sections import StorageSection
    from xmpppush.storage import open_storage
    from xmpppush.testing.builders import a_delivery, an_offline_message

    async def measure() -> list[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "benchmark.db"
            store = open_storage(StorageSection(f"sqlite:///{path}"), Path(folder), reactor)
            store.startService()
            message, delivery, ids = an_offline_message(), a_delivery(), []

            def keep() -> "Deferred[Any]":
                kept = store.messages.keep(message, [delivery], messages + 1)
                return kept.addCallback(lambda rows: ids.append(rows[0].id))

            kept = await _all(keep, messages)
            waiting = iter(ids)
            settled = await _all(lambda: store.messages.settle([next(waiting)]), messages)
            await store.stopService()
        return [("keep: a message and a delivery", kept), ("settle", settled)]

    return Deferred.fromCoroutine(measure())


def _each(action: Callable[[], object], times: int) -> float:
    """Microseconds of CPU that one call takes, the best of five rounds."""
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(times // 5):
            action()
        rounds.append((time.process_time() - start) / (times // 5))
    return min(rounds) * 1e6


async def _all(action: "Callable[[], Deferred[Any]]", times: int) -> float:
    """The same of Deferreds, `IN_FLIGHT` at a time, with all threads of this process."""
    left = iter(range(times))

    async def some() -> None:
        for _ in left:
            await action()

    start = time.process_time()
    await DeferredList(
        [Deferred.fromCoroutine(some()) for _ in range(IN_FLIGHT)], fireOnOneErrback=True, consumeErrors=True
    )
    return (time.process_time() - start) / times * 1e6


@contextmanager
def sink_process() -> Iterator[int]:
    """A sink on another core; gives its port."""
    port = free_port()
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,), daemon=True)
    child.start()
    try:
        _wait_for(port)
        yield port
    finally:
        child.terminate()
        child.join()


def _serve(port: int) -> None:
    async def serve() -> None:
        server = await listen(lambda *_: None, port)
        await server.serve_forever()

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    asyncio.run(serve())


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the sink did not start")
