"""The HTTP/2 client against servers in memory that do the unpleasant."""

import pytest
from h2.errors import ErrorCodes
from h2.events import PingReceived
from h2.settings import SettingCodes
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError as Refusal
from twisted.internet.testing import StringTransport

from xmpppush.errors import TryLater, Unreachable
from xmpppush.http2.client import (
    CONNECT_TIMEOUT,
    MAX_TRIES,
    AnswerCut,
    ConnectionGone,
    HTTP2Client,
    NoAnswer,
    QueueFull,
)
from xmpppush.http2.connection import CLOSE_TIME, MAX_UNREAD, PING_INTERVAL, PING_TIMEOUT, Connection
from xmpppush.http2.headers import pack

HEAD = pack(
    [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"example.org"), (b":path", b"/")]
)


def test_a_request_and_its_answer(client_with, network, ask):
    """Headers and body arrive as they are; status, headers and body come back."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client, "/3/device/abc", b'{"aps":{}}')
    (stream,) = peer.read()
    assert peer.requests[stream] == {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "example.org",
        ":path": "/3/device/abc",
    }
    assert peer.bodies[stream] == b'{"aps":{}}'
    peer.answer(stream, "400", b'{"reason":"x"}', [("retry-after", "7")])
    assert outcome.response.code == 400
    assert outcome.response.body == b'{"reason":"x"}'
    assert outcome.response.raw_headers == [(b"retry-after", b"7")]


def test_requests_of_one_turn_are_one_write(client_with, network, clock):
    """However many there are."""
    client = client_with()
    peer = network.accept()
    writes = []
    peer.write = lambda data: writes.append(data)
    for _ in range(20):
        client.request(HEAD, b"{}")
    assert writes == []
    clock.advance(0)
    assert len(writes) == 1


def test_no_request_before_the_settings(client_with, network, ask):
    """Nobody knows the limit before."""
    client = client_with()
    peer = network.accept(greet=False)
    outcome = ask(client)
    assert client.connected == 0
    peer.greet()
    assert client.connected == 1
    (stream,) = peer.read()
    peer.answer(stream)
    assert outcome.response.code == 200


def test_streams_stay_below_the_limit_and_the_rest_waits(client_with, network, ask):
    """In order, and no request is refused before the queue is full."""
    network.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 3}
    client = client_with(max_waiting=4)
    peer = network.accept()
    outcomes = [ask(client, f"/{number}") for number in range(8)]
    assert isinstance(outcomes[7].error, QueueFull)
    assert len(peer.read()) == 3
    assert client.waiting == 4
    for stream in (1, 3, 5, 7, 9, 11, 13):
        peer.answer(stream)
        peer.read()
    assert [each.response.code for each in outcomes[:7]] == [200] * 7
    assert [headers[":path"] for headers in peer.requests.values()] == [f"/{number}" for number in range(7)]


def test_a_limit_that_rises_lets_the_waiting_go(client_with, network, ask):
    """SETTINGS may come at any time (RFC 9113 section 6.5.2)."""
    network.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    client = client_with()
    peer = network.accept()
    for _ in range(3):
        ask(client)
    assert len(peer.read()) == 1
    peer.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 10})
    peer.flush()
    assert len(peer.read()) == 2


def test_a_body_larger_than_the_window_waits_for_updates(client_with, network, ask):
    """A stream's window and a frame's size bound what is sent; all of it arrives once."""
    network.settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1000}
    client = client_with()
    peer = network.accept()
    peer.acknowledge = False
    body = bytes(range(256)) * 400
    outcome = ask(client, "/", body)
    assert peer.read() == []
    assert len(peer.bodies[1]) == 1000
    while 1 not in peer.requests:
        peer.h2.increment_flow_control_window(50_000, 1)
        peer.h2.increment_flow_control_window(50_000)
        peer.flush()
        peer.read()
    assert peer.bodies[1] == body
    peer.answer(1)
    assert outcome.response.code == 200


def test_an_initial_window_that_grows_counts_for_open_streams(client_with, network, ask):
    """RFC 9113 section 6.9.2."""
    network.settings = {SettingCodes.INITIAL_WINDOW_SIZE: 0}
    client = client_with()
    peer = network.accept()
    ask(client, "/", b"hello")
    assert peer.read() == []
    peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
    peer.flush()
    assert peer.read() == [1]
    assert peer.bodies[1] == b"hello"


def test_an_answer_before_the_end_of_the_body_counts(client_with, network, ask):
    """The rest of the body is not sent."""
    network.settings = {SettingCodes.INITIAL_WINDOW_SIZE: 10}
    client = client_with()
    peer = network.accept()
    peer.acknowledge = False
    outcome = ask(client, "/", b"x" * 100)
    peer.read()
    peer.answer(1, "413")
    peer.read()
    assert outcome.response.code == 413
    assert 1 in peer.resets
    assert client.connected == 1


def test_received_data_are_acknowledged(client_with, network, ask):
    """More than a window's worth of answers can come, over time."""
    client = client_with()
    peer = network.accept()
    for _ in range(10):
        outcome = ask(client)
        (stream,) = peer.read()
        peer.answer(stream, "400", b"x" * 16_000)
        assert len(outcome.response.body) == 16_000
        peer.read()


def test_goaway_moves_what_the_server_did_not_see(client_with, network, ask, clock):
    """Streams above the last are sent elsewhere, once; those at or below it get their answer."""
    client = client_with()
    first = network.accept()
    outcomes = [ask(client, f"/{number}") for number in range(4)]
    first.read()
    clock.advance(2)
    first.h2.close_connection(last_stream_id=3)
    goaway = first.h2.data_to_send()
    first.protocol.dataReceived(goaway)
    clock.advance(0)
    late = ask(client, "/late")
    second = network.accept()
    second.read()
    assert [headers[":path"] for headers in second.requests.values()] == ["/2", "/3", "/late"]
    # Our own h2 is confused by its GOAWAY, so the answers are made by hand.
    for stream in (1, 3):
        first.protocol.dataReceived(b"\x00\x00\x01\x01\x05" + stream.to_bytes(4, "big") + b"\x88")
    assert [each.response.code for each in outcomes[:2]] == [200, 200]
    assert not first.open
    for stream in (1, 3, 5):
        second.answer(stream)
    assert all(each.response.code == 200 for each in [*outcomes, late])
    assert client.connected == 1


def test_goaway_and_the_end_fail_what_the_server_saw(client_with, network, ask, clock):
    """It may have acted upon it: nothing is sent twice."""
    client = client_with()
    peer = network.accept()
    outcomes = [ask(client), ask(client)]
    peer.read()
    clock.advance(2)
    peer.h2.close_connection(last_stream_id=1)
    peer.flush()
    peer.drop()
    assert isinstance(outcomes[0].error, ConnectionGone)
    assert not outcomes[1].over
    clock.advance(0)
    second = network.accept()
    (stream,) = second.read()
    second.answer(stream)
    assert outcomes[1].response.code == 200


def test_a_warning_goaway_moves_nothing(client_with, network, ask, clock):
    """2**31-1 as last stream announces the end (RFC 9113 section 6.8); no new streams go there."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    clock.advance(2)
    peer.h2.close_connection(last_stream_id=2**31 - 1)
    peer.flush()
    assert client.connected == 0
    assert not outcome.over
    peer.protocol.dataReceived(b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88")
    assert outcome.response.code == 200


def test_a_server_that_sends_everybody_away_is_given_up(client_with, network, ask, clock):
    """A request goes from connection to connection a few times, and connecting slows down."""
    client = client_with(timeout=60.0)
    outcome = None
    for _ in range(MAX_TRIES):
        peer = network.accept()
        outcome = outcome or ask(client)
        peer.read()
        peer.h2.close_connection(last_stream_id=0)
        peer.flush()
        assert not network.attempts
        clock.advance(1)
    assert isinstance(outcome.error, ConnectionGone)


def test_refused_stream_is_sent_again(client_with, network, ask, clock):
    """REFUSED_STREAM says that nothing was done (RFC 9113 section 8.7)."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    peer.h2.reset_stream(1, ErrorCodes.REFUSED_STREAM)
    peer.flush()
    assert peer.read() == [3]
    peer.answer(3)
    assert outcome.response.code == 200


def test_refused_stream_for_ever_is_given_up(client_with, network, ask, clock):
    """After some tries, with pauses."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    tries = 0
    while not outcome.over:
        for stream in peer.read():
            tries += 1
            peer.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        peer.flush()
        clock.advance(0.1)
        assert tries <= MAX_TRIES
    assert isinstance(outcome.error, ConnectionGone)
    assert tries == MAX_TRIES


def test_other_resets_fail_the_request_alone(client_with, network, ask):
    """The connection and its other streams go on."""
    client = client_with()
    peer = network.accept()
    lost, kept = ask(client), ask(client)
    peer.read()
    peer.h2.reset_stream(1, ErrorCodes.INTERNAL_ERROR)
    peer.answer(3)
    assert isinstance(lost.error, ConnectionGone)
    assert kept.response.code == 200
    assert client.connected == 1


def test_a_lost_connection_fails_what_was_written(client_with, network, ask, clock):
    """What was not written yet goes to the next connection."""
    client = client_with()
    peer = network.accept()
    written = ask(client)
    clock.advance(2)
    unwritten = client.request(HEAD, b"{}")
    peer.drop()
    clock.advance(0)
    second = network.accept()
    assert isinstance(written.error, ConnectionGone)
    assert second.read() == [1]
    second.answer(1)
    assert unwritten.result.code == 200


def test_no_connection_is_told_at_once(client_with, network, ask, clock):
    """Who waits for an attempt learns of its failure; in the pause nobody waits."""
    client = client_with()
    waiting = ask(client)
    network.refuse(Refusal())
    assert isinstance(waiting.error, Unreachable)
    assert str(waiting.error) == "connection refused"
    assert isinstance(ask(client).error, Unreachable)
    assert client.trouble == "connection refused"


def test_attempts_grow_rarer(client_with, network, clock):
    """Half a second, doubled up to half a minute."""
    client_with()
    times = []
    for _ in range(9):
        network.refuse(Refusal())
        began = clock.seconds()
        while not network.attempts:
            clock.advance(0.5)
        times.append(clock.seconds() - began)
    assert times == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_request_in_the_pause_tries_at_once(client_with, network, ask, clock):
    """But not within a second of the last attempt."""
    client = client_with()
    for pause in (0.5, 1, 2, 4):
        network.refuse(Refusal())
        clock.advance(pause)
    network.refuse(Refusal())
    clock.advance(1)
    outcome = ask(client)
    peer = network.accept()
    peer.answer(*peer.read())
    assert outcome.response.code == 200


def test_a_silent_server_times_out_the_attempt(client_with, network, ask, clock):
    """TCP alone is no connection: its SETTINGS are missing."""
    client = client_with()
    outcome = ask(client)
    peer = network.accept(greet=False)
    clock.advance(CONNECT_TIMEOUT)
    assert str(outcome.error) == "timed out connecting"
    assert not peer.open


def test_a_server_of_another_protocol_is_found_out(client_with, network, ask):
    """An HTTP/1.1 answer ends the attempt."""
    client = client_with()
    outcome = ask(client)
    peer = network.accept(greet=False)
    peer.protocol.dataReceived(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    assert str(outcome.error) == "answer is not HTTP/2"


def test_a_deadline_resets_the_stream_and_asks_for_life(client_with, network, ask, clock):
    """The late answer is dropped; a peer that does not answer a PING then is left."""
    client = client_with(timeout=4.5)
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    clock.advance(4.5)
    assert isinstance(outcome.error, NoAnswer)
    clock.advance(0)
    clock.advance(PING_TIMEOUT)
    assert not peer.open
    assert client.connected == 0


def test_a_late_answer_does_no_harm(client_with, network, ask, clock):
    """The connection lives on."""
    client = client_with(timeout=4.5)
    peer = network.accept()
    ask(client)
    peer.read()
    clock.advance(4.5)
    peer.answer(1, "200", b"late")
    clock.advance(0)
    peer.read()
    outcome = ask(client)
    peer.answer(*peer.read())
    assert outcome.response.code == 200
    assert client.connected == 1


def test_waiting_too_long_fails_too(client_with, network, ask, clock):
    """A request that never got a stream."""
    network.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 0}
    client = client_with(timeout=4.5)
    network.accept()
    outcome = ask(client)
    clock.advance(4.5)
    assert str(outcome.error) == "no free stream in time"
    assert client.waiting == 0


def test_cancelling_resets_the_stream(client_with, network, ask, clock):
    """And makes room for another."""
    network.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    client = client_with()
    peer = network.accept()
    first, second = ask(client), ask(client)
    peer.read()
    first.deferred.cancel()
    clock.advance(0)
    assert isinstance(first.error, CancelledError)
    peer.answer(*peer.read())
    assert peer.resets == {1: ErrorCodes.CANCEL}
    assert second.response.code == 200
    waiting = client.request(HEAD, b"")
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    assert client.waiting == 0


def test_an_idle_connection_is_asked_for_life(client_with, network, clock):
    """A PING after silence; the answer keeps the connection, silence ends it."""
    client = client_with()
    peer = network.accept()
    for _ in range(5):
        clock.advance(PING_INTERVAL)
        clock.advance(0)
        peer.read()
    assert any(isinstance(event, PingReceived) for event in peer.events)
    assert client.connected == 1
    clock.advance(PING_INTERVAL)
    clock.advance(PING_INTERVAL)
    clock.advance(PING_TIMEOUT)
    assert client.connected == 0
    assert not peer.open


def test_an_answer_without_end_is_cut(client_with, network, ask):
    """The body is capped, for this request alone."""
    client = client_with(max_body=1000)
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    peer.h2.send_headers(1, [(":status", "200")])
    peer.h2.send_data(1, b"x" * 1001)
    peer.flush()
    peer.read()
    assert str(outcome.error) == "answer is too long"
    assert peer.resets == {1: ErrorCodes.CANCEL}
    assert client.connected == 1


def test_headers_without_end_cost_the_connection(client_with, network, ask):
    """A block over the limit, however it is packed."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    peer.h2.send_headers(1, [(":status", "200"), ("x", "y" * 30_000)])
    peer.flush()
    assert isinstance(outcome.error, ConnectionGone)
    assert client.connected == 0


@pytest.mark.parametrize("block", [b"\xbe", b"\x00\x01x\x01y", b"\x48\x0299", b"\x3f\xe1\x1f\x88", b"\x80"])
def test_a_block_that_breaks_the_rules_fails_the_request(client_with, network, ask, block):
    """An index into a table that is not there, no status, nonsense as status."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    frame = len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + block
    peer.protocol.dataReceived(frame)
    assert isinstance(outcome.error, ConnectionGone)


def test_interim_answers_are_passed_over(client_with, network, ask):
    """1xx before the real one (RFC 9110 section 15.2)."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    peer.h2.send_headers(1, [(":status", "103")])
    peer.answer(1, "200")
    assert outcome.response.code == 200


def test_several_connections_share_the_requests(client_with, network, ask):
    """The one with most room is next."""
    client = client_with(connections=3)
    peers = [network.accept() for _ in range(3)]
    for _ in range(9):
        ask(client)
    assert [len(peer.read()) for peer in peers] == [3, 3, 3]
    assert (client.connected, client.disconnected) == (3, 0)


def test_a_peer_that_does_not_read_gets_no_more(client_with, network, ask, clock):
    """Requests wait instead of piling up in a buffer."""
    client = client_with()
    peer = network.accept()
    peer.producer.pauseProducing()
    outcome = ask(client)
    assert client.waiting == 1
    peer.producer.resumeProducing()
    clock.advance(0)
    peer.answer(*peer.read())
    assert outcome.response.code == 200


def test_close_waits_for_answers(client_with, network, ask, clock):
    """Then it says goodbye, and nothing is left ticking."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    closed = []
    client.close(5.0).addCallback(closed.append)
    assert isinstance(ask(client).error, TryLater)
    assert closed == []
    peer.answer(*peer.read())
    assert outcome.response.code == 200
    assert closed == [None]
    assert clock.getDelayedCalls() == []


def test_close_gives_up_after_its_patience(client_with, network, ask, clock):
    """What is in flight then fails."""
    client = client_with(timeout=60.0)
    network.accept()
    outcome = ask(client)
    closed = []
    client.close(5.0).addCallback(closed.append)
    clock.advance(5.0)
    assert isinstance(outcome.error, TryLater)
    assert closed == [None]
    assert clock.getDelayedCalls() == []


def test_close_while_connecting(client_with, network, ask, clock):
    """The attempt ends, and with it who waits."""
    client = client_with()
    outcome = ask(client)
    closed = []
    client.close(5.0).addCallback(closed.append)
    assert outcome.error is not None
    assert closed == [None]
    assert clock.getDelayedCalls() == []


def test_close_in_the_pause(client_with, network, clock):
    """No further attempt is made."""
    client = client_with()
    network.refuse(Refusal())
    client.close(5.0)
    clock.advance(100)
    assert network.attempts == []


def test_without_h2_in_alpn_nothing_is_sent(clock, network):
    """A server that picks another protocol, or none, is refused before a byte of a request."""
    client = HTTP2Client("test", clock, network, None, random=lambda: 1.0)
    owner = type("Owner", (), {"clock": clock, "max_body": 1, "leaving": lambda *a: reasons.append(a[-1])})()
    reasons = []
    connection = Connection(owner, tls=True)
    transport = StringTransport()
    transport.negotiatedProtocol = b"http/1.1"
    connection.makeConnection(transport)
    connection.handshakeCompleted()
    assert transport.value() == b""
    assert reasons == ["the server does not speak HTTP/2 here (ALPN without h2)"]
    assert client.connected == 0


def test_five_thousand_with_goaways_in_between(client_with, network, clock):
    """None is lost and none is answered by two servers."""
    client = client_with(timeout=600.0)
    outcomes = [client.request(HEAD, b"%d" % number) for number in range(5000)]
    seen = []
    rounds = 0
    clock.advance(0)
    while len(seen) < 5000 and rounds < 500:
        if network.attempts:
            network.accept()
        peer = network.peers[-1]
        if not peer.open:
            clock.advance(0.2)
            rounds += 1
            continue
        streams = peer.read()
        rounds += 1
        if rounds % 7 == 0 and peer.open and len(streams) > 1:
            last = streams[len(streams) // 2]
            seen += [peer.bodies[stream] for stream in streams if stream <= last]
            peer.h2.close_connection(last_stream_id=last)
            data = peer.h2.data_to_send()
            for stream in [each for each in streams if each <= last]:
                data += b"\x00\x00\x01\x01\x05" + stream.to_bytes(4, "big") + b"\x88"
            peer.protocol.dataReceived(data)
        else:
            for stream in streams:
                seen.append(peer.bodies[stream])
                peer.answer(stream, flush=False)
            peer.flush()
        clock.advance(0.2)
        assert len(peer.h2.streams) <= 101
    assert len(set(seen)) == len(seen) == 5000
    assert all(outcome.result.code == 200 for outcome in outcomes)
    assert len(network.peers) > 3


def test_close_lingers_no_longer_than_allowed(client_with, network, clock):
    """A peer that does not answer the closing is cut off."""
    client = client_with()
    peer = network.accept()
    peer.loseConnection = lambda: None
    closed = []
    client.close(5.0).addCallback(closed.append)
    assert closed == []
    clock.advance(CLOSE_TIME)
    assert closed == [None]


def test_an_answer_in_the_socket_of_a_reactor_that_stood_still(client_with, network, ask, clock):
    """Timers run before sockets are read: who gave up at once would have it sent twice."""
    client = client_with(timeout=4.5)
    peer = network.accept()
    outcome = ask(client)
    (stream,) = peer.read()
    clock.advance(10.0)  # the timer is late now
    assert not outcome.over
    peer.answer(stream)
    assert outcome.response.code == 200
    lost = ask(client)
    peer.read()
    clock.advance(10.0)
    clock.advance(1.0)
    assert isinstance(lost.error, NoAnswer)


@pytest.mark.parametrize("end", ["reset", "lost", "late"])
def test_half_an_answer_tells_what_became_of_the_request(client_with, network, ask, clock, end):
    """Whoever knows the status need not send it again."""
    client = client_with(timeout=4.5)
    peer = network.accept()
    outcome = ask(client)
    (stream,) = peer.read()
    peer.h2.send_headers(stream, [(":status", "200")])
    peer.flush()
    if end == "reset":
        peer.h2.reset_stream(stream)
        peer.flush()
    elif end == "lost":
        peer.drop()
    else:
        clock.advance(4.5)
    assert isinstance(outcome.error, AnswerCut)
    assert outcome.error.code == 200


def test_a_peer_that_asks_and_does_not_read(client_with, network, ask):
    """Answers to PING do not pile up without end (RFC 9113 section 10.5)."""
    client = client_with()
    peer = network.accept()
    peer.producer.pauseProducing()
    frame = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8)
    for _ in range(MAX_UNREAD // (17 * 1000) + 2):
        if peer.open:
            peer.protocol.dataReceived(frame * 1000)
    assert not peer.open
    assert client.connected == 0
    assert len(peer.value()) < 2 * MAX_UNREAD


def _frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _number(value):
    return value.to_bytes(4, "big")


DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (_frame(DATA, 0, 3, b"x"), ErrorCodes.PROTOCOL_ERROR),  # a stream that never was
        (_frame(HEADERS, 5, 2, b"\x88"), ErrorCodes.PROTOCOL_ERROR),  # and that only a server could open
        (_frame(RST_STREAM, 0, 9, bytes(4)), ErrorCodes.PROTOCOL_ERROR),
        (_frame(WINDOW_UPDATE, 0, 3, _number(1)), ErrorCodes.PROTOCOL_ERROR),
        (_frame(WINDOW_UPDATE, 0, 0, _number(0)), ErrorCodes.PROTOCOL_ERROR),
        (_frame(WINDOW_UPDATE, 0, 0, _number(2**31 - 1)), ErrorCodes.FLOW_CONTROL_ERROR),
        (
            _frame(WINDOW_UPDATE, 0, 1, _number(2**31 - 70_000))
            + _frame(SETTINGS, 0, 0, b"\x00\x04" + _number(2**31 - 1)),
            ErrorCodes.FLOW_CONTROL_ERROR,
        ),
        (_frame(HEADERS, 5, 1, b"\xbe"), ErrorCodes.COMPRESSION_ERROR),
    ],
)
def test_a_peer_that_breaks_the_rules_is_left(client_with, network, ask, frames, code):
    """It is told why, and what was in flight fails."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    peer.protocol.dataReceived(frames)
    assert isinstance(outcome.error, ConnectionGone)
    assert client.connected == 0
    assert not peer.open
    assert peer.value().endswith(_frame(GOAWAY, 0, 0, _number(0) + _number(code)))


@pytest.mark.parametrize(
    ("frames", "reset"),
    [
        (_frame(WINDOW_UPDATE, 0, 1, _number(0)), ErrorCodes.PROTOCOL_ERROR),
        (_frame(WINDOW_UPDATE, 0, 1, _number(2**31 - 1)), ErrorCodes.FLOW_CONTROL_ERROR),
        (_frame(DATA, 0, 1, b"x"), ErrorCodes.PROTOCOL_ERROR),  # no head before it
        (_frame(HEADERS, 4, 1, b"\x88") * 2, ErrorCodes.PROTOCOL_ERROR),  # two heads
        (_frame(HEADERS, 5, 1, b"\x08\x03100"), ErrorCodes.PROTOCOL_ERROR),  # the end, and no answer
        (_frame(HEADERS, 5, 1, b"\x88\x0f\x0d\x015"), None),  # content-length: 5, and nothing
        (_frame(HEADERS, 4, 1, b"\x88\x0f\x0d\x015") + _frame(DATA, 1, 1, b"1234"), None),
    ],
)
def test_a_malformed_answer_costs_its_stream(client_with, network, ask, frames, reset):
    """The others go on (RFC 9113 section 8.1.1)."""
    client = client_with()
    peer = network.accept()
    lost, kept = ask(client), ask(client)
    peer.read()
    peer.protocol.dataReceived(frames)
    assert isinstance(lost.error, ConnectionGone)
    assert client.connected == 1
    peer.h2.streams.pop(1)  # what it knows of it is not what we made it say
    expected = b"" if reset is None else _frame(RST_STREAM, 0, 1, _number(reset))
    assert peer.value() == expected
    peer.protocol.dataReceived(_frame(DATA, 1, 1, b"late"))
    peer.protocol.dataReceived(_frame(HEADERS, 5, 3, b"\x88"))
    assert kept.response.code == 200


def test_headers_may_follow_the_body(client_with, network, ask):
    """Trailers (RFC 9113 section 8.1) end the answer and mean nothing else."""
    client = client_with()
    peer = network.accept()
    outcome = ask(client)
    peer.read()
    peer.protocol.dataReceived(
        _frame(HEADERS, 4, 1, b"\x88") + _frame(DATA, 0, 1, b"{}") + _frame(HEADERS, 5, 1, b"\x00\x01x\x01y")
    )
    assert (outcome.response.code, outcome.response.body) == (200, b"{}")


def test_a_window_that_shrinks_below_zero(client_with, network, ask):
    """RFC 9113 section 6.9.2: what was sent stays sent, and the rest waits until all of that is paid back."""
    network.settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1000}
    client = client_with()
    peer = network.accept()
    peer.acknowledge = False
    ask(client, "/", b"x" * 1500)
    peer.read()
    peer.protocol.dataReceived(_frame(SETTINGS, 0, 0, b"\x00\x04" + _number(100)))  # now 900 below zero
    peer.protocol.dataReceived(_frame(WINDOW_UPDATE, 0, 1, _number(900)))
    assert b"xx" not in peer.value()
    peer.protocol.dataReceived(_frame(WINDOW_UPDATE, 0, 1, _number(200)))
    assert peer.value().count(b"x" * 200) == 1
    peer.protocol.dataReceived(_frame(WINDOW_UPDATE, 0, 1, _number(10_000)))
    assert peer.value().endswith(_frame(DATA, 1, 1, b"x" * 300))


def test_the_window_is_given_back(client_with, network, ask):
    """Also for streams that nobody waits for any more: all of them share the connection's."""
    client = client_with()
    peer = network.accept()
    ask(client).deferred.cancel()
    told = []
    peer.write = told.append
    for _ in range(200):  # 3.2 MB, all of it told to have come
        peer.protocol.dataReceived(_frame(DATA, 0, 1, bytes(16_000)))
    assert client.connected == 1
    given = sum(int.from_bytes(each[9:13], "big") for each in told if each[3] == WINDOW_UPDATE)
    assert 3_200_000 - 600_000 < given <= 3_200_000
