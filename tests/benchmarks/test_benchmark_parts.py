"""The load generator counts right: what it reports rests on these parts."""

import asyncio
import math
from pathlib import Path

import pytest

from benchmarks.client import Client, RefusedByServer, chat_message
from benchmarks.pipeline import Load, Pipeline, number_in, token_of
from benchmarks.server import cpu_in
from benchmarks.sink import listen, text_of
from benchmarks.tally import Tally, percentile


def test_each_message_is_counted_once():
    """A second arrival is a duplicate, and what did not come is missing."""
    tally = Tally(100, 3)
    for number in (100, 101, 102):
        tally.sent(number, 1.0)
    assert [tally.arrived(number, 3.5) for number in (100, 102, 100)] == [True, True, False]
    assert (tally.pushes, tally.missing, tally.duplicates, tally.strange) == (2, 1, 1, 0)
    assert tally.latencies() == [2.5, 2.5]


@pytest.mark.parametrize("number", [-1, 99, 101, 102, 10**9])
def test_what_was_not_sent_is_strange(number):
    """A push of an earlier run, of nobody, or before its message counts for nothing."""
    tally = Tally(100, 2)
    tally.sent(100, 1.0)
    assert not tally.arrived(number, 2.0)
    assert (tally.pushes, tally.strange) == (0, 1)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([1.0], 50, 1.0), ([1.0, 2.0, 3.0, 4.0], 50, 3.0), (list(range(100)), 99, 99), ([5.0], 100, 5.0)],
)
def test_percentile_is_the_nearest_rank(values, percent, expected):
    """No interpolation: a percentile is a latency that was measured."""
    assert percentile(values, percent) == expected
    assert math.isnan(percentile([], percent))


@pytest.mark.parametrize(
    ("text", "number"),
    [("#17 Wherefore", 17), ("#0 x", 0), ("17 x", -1), ("#x", -1), ("", -1), ("#", -1), ("#-3 x", -1)],
)
def test_number_of_a_message_is_read_from_its_text(text, number):
    """Anything else than our own text has none."""
    assert number_in(text) == number


def test_message_carries_its_number_and_has_the_usual_size():
    """FLOORS.md measured with 404 bytes."""
    assert b"<body>#7 " in chat_message(7, "user7@localhost")
    assert 390 < len(chat_message(12345, "user123@localhost")) < 420


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"service": "fcm", "alert": {"title": "a", "body": "#1 x"}}, "#1 x"),
        ({"service": "fcm", "title": "a", "body": "#1 x"}, "#1 x"),
        ({"alert": "nonsense"}, ""),
        ({"alert": {"body": 1}}, ""),
        (None, ""),
    ],
)
def test_text_of_a_notification_of_every_version(request_, text):
    """Version 1 is flat, 2 and 3 have an alert."""
    assert text_of(request_) == text


def test_push_for_the_wrong_device_is_strange():
    """A message that rings another phone is no push, and a rerun of it no arrival."""
    pipeline = Pipeline(Load(messages=10, users=5), server=None)  # type: ignore[arg-type]
    pipeline._tally = tally = Tally(0, 10)
    tally.sent(7, 0.0)
    pipeline.on_request(token_of(3), {"alert": {"body": "#7 x"}})
    assert (tally.pushes, tally.strange) == (0, 1)
    pipeline.on_request(token_of(2), {"alert": {"body": "#7 x"}})
    assert (tally.pushes, tally.strange) == (1, 1)


def test_sink_answers_kept_alive_and_split_requests():
    """Two requests on one connection, cut anywhere, are two notifications and two answers."""
    seen = []

    async def talk() -> bytes:
        server = await listen(lambda device, request: seen.append((device, request)))
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for device, body in (("t%2F1", b'{"service":"fcm"}'), ("t2", b"no json")):
            head = (
                f"POST /v3/notification/{device} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            for part in (head[:30].encode(), head[30:].encode() + body[:3], body[3:]):
                writer.write(part)
                await asyncio.sleep(0)
        answers = b""
        while answers.count(b"null") < 2:
            answers += await reader.read(1000)
        writer.close()
        server.close()
        return answers

    answers = asyncio.run(asyncio.wait_for(talk(), 10))
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert seen == [("t%2F1", {"service": "fcm"}), ("t2", None)]


def a_server(*answers: bytes):
    """A peer that waits for something and says the next answer, whatever it was."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(65536)
            for byte in range(0, len(answer), 7):
                writer.write(answer[byte : byte + 7])
                await writer.drain()
        writer.close()

    return asyncio.start_server(serve, "127.0.0.1", 0)


HEADER = b"<stream:stream from='localhost'><stream:features><bind/></stream:features>"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((HEADER, b"<failure xmlns='x'><not-authorized/></failure>"), "not-authorized"),
        ((HEADER, b"<success/>", HEADER, b"<iq type='error' id='ask'><error/></iq>"), "type='error'"),
        ((b"<stream:stream><stream:error><host-unknown/></stream:error>",), "host-unknown"),
        ((HEADER, b""), "^$"),
    ],
)
def test_client_tells_what_the_server_refused(answers, words):
    """A set-up that went wrong ends with the server's own words, not with figures."""

    async def login() -> None:
        server = await a_server(*answers)
        try:
            await Client.login("127.0.0.1", server.sockets[0].getsockname()[1], "user1")
        finally:
            server.close()

    with pytest.raises(RefusedByServer, match=words):
        asyncio.run(asyncio.wait_for(login(), 10))


def test_cpu_time_is_read_past_a_name_with_spaces(tmp_path: Path):
    """The name in a stat file is in parentheses, and anything may be in it."""
    stat = tmp_path / "stat"
    stat.write_text("123 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 99")
    assert cpu_in(stat) == pytest.approx(3.0)
