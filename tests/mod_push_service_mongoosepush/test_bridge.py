"""The bridge on a clock, with a push service that answers when told to."""

import random
from collections import deque

import orjson
import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from xmpppush.config.sections import BridgeSection
from xmpppush.errors import (
    DeviceUnregistered,
    GivenUp,
    PreconditionNotMet,
    Refused,
    StorageError,
    TryLater,
    Unreachable,
)
from xmpppush.http_connections import Response
from xmpppush.interfaces import IPushService
from xmpppush.mod_push_service_mongoosepush import service as service_module
from xmpppush.mod_push_service_mongoosepush.service import MongoosePushBridge
from xmpppush.model import Encrypted, Notification, PushExtras, PushSummary, Route
from xmpppush.storage.memory import memory_storage
from xmpppush.testing.builders import a_delivery, a_publish

NOW = 1000.0


class Pool:
    """Takes requests; answers come from ``answers`` at once, or from the test."""

    trouble = None

    def __init__(self):
        self.requests = []
        self.open = deque()
        self.answers = deque()

    def post(self, path, body):
        self.requests.append((path, body))
        if self.answers:
            answer = self.answers.popleft()
            return fail(answer) if isinstance(answer, Exception) else succeed(answer)
        done = Deferred()
        self.open.append(done)
        return done

    def answer(self, code=200, body=b"null", retry_after=None):
        """Answer the oldest open request."""
        self.open.popleft().callback(Response(code, body, retry_after))

    def fail(self, error):
        """Lose the oldest open request."""
        self.open.popleft().errback(error)


class HalfChance(random.Random):
    def random(self):
        return 1.0


@pytest.fixture
def world():
    """A bridge with everything around it."""

    class World:
        clock = Clock()
        pool = Pool()
        messages = memory_storage().messages
        unregistered = []

        def bridge(self, start=True, **options):
            capacity = options.pop("capacity", 100)
            section = BridgeSection("push", **{"max_http_connections": 2, **options})
            bridge = MongoosePushBridge(
                section,
                self.pool,
                self.messages,
                self.clock,
                HalfChance(),
                self.unregistered.append,
                capacity=capacity,
            )
            if start:
                bridge.startService()
                self.clock.advance(0)
            return bridge

        def stored(self, **changes):
            delivery = a_delivery(**{"created": NOW, **changes})
            return now(self.messages.keep(None, [delivery], 0))[0]

        def rows(self):
            return now(self.messages.queued(0, 10_000))

    World.pool, World.clock, World.unregistered = Pool(), Clock(), []
    World.messages = memory_storage().messages
    World.clock.advance(NOW)
    return World()


def now(deferred):
    """The result of a Deferred that has fired."""
    results = []
    deferred.addCallback(results.append)
    assert results, deferred
    return results[0]


@pytest.fixture
def log():
    """What is logged at warning and above, as text with its fields."""
    events = []

    def observe(event):
        if event["log_level"] >= LogLevel.info and event["log_namespace"].startswith("xmpppush"):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def lines(events):
    return [event["log_format"].format(**event) for event in events]


def test_it_is_a_push_service(world):
    """As its contract says."""
    assert verifyObject(IPushService, world.bridge())


def test_options_of_other_servers_are_not_remembered(world, monkeypatch):
    """They are another object each time: 1.4 kB a push of what is never found again."""
    bridge = world.bridge()
    monkeypatch.setattr(bridge._targets, "of", lambda options: pytest.fail("remembered"))
    assert bridge.prepare(evolve(a_publish(), account=""), 5.0).service == "fcm"


def test_prepare(world):
    """A publish becomes the delivery to store, for the API version configured."""
    delivery = world.bridge(api_version="v2").prepare(a_publish(), 5.0)
    assert (delivery.id, delivery.service, delivery.created) == (0, "fcm", 5.0)
    assert (delivery.account, delivery.node) == ("alice@localhost", "node-1")
    assert delivery.path == "/v2/notification/token-1"
    with pytest.raises(PreconditionNotMet):
        world.bridge().prepare(a_publish(options={}), 5.0)


def test_a_delivery_is_posted_and_settled(world):
    """With its answer the row goes, and not before."""
    bridge = world.bridge()
    delivery = world.stored()
    outcomes = []
    bridge.enqueue(delivery, outcomes.append)
    assert world.pool.requests == [(delivery.path, delivery.body)]
    assert (bridge.in_flight, len(world.rows()), outcomes) == (1, 1, [])
    world.pool.answer()
    world.clock.advance(0)
    assert (bridge.in_flight, world.rows(), outcomes) == (0, (), [None])
    assert bridge.outcomes == {"delivered": 1}
    assert world.clock.getDelayedCalls() == []


def test_no_more_in_flight_than_allowed(world):
    """The third waits for one of two, in order."""
    bridge = world.bridge()
    for number in range(4):
        bridge.enqueue(world.stored(path=f"/{number}"))
    assert (bridge.in_flight, bridge.queued) == (2, 2)
    world.pool.answer()
    assert [path for path, _ in world.pool.requests] == ["/0", "/1", "/2"]


def test_answers_at_once_do_not_recurse(world):
    """A thousand failures in one turn."""
    bridge = world.bridge(max_http_connections=1, capacity=2000)
    deliveries = [world.stored() for _ in range(1000)]
    world.pool.answers.extend([Response(200)] * 1001)
    blocker = world.stored()
    world.pool.answers.clear()
    bridge.enqueue(blocker)
    world.pool.answers.extend([Response(200)] * 1000)
    for delivery in deliveries:
        bridge.enqueue(delivery)
    world.pool.answer()
    assert bridge.outcomes["delivered"] == 1001


def test_settling_is_done_once_a_turn(world, monkeypatch):
    """All answers of a turn are one call of the store."""
    calls = []
    settle = world.messages.settle
    monkeypatch.setattr(world.messages, "settle", lambda ids: calls.append(ids) or settle(ids))
    bridge = world.bridge()
    first, second = world.stored(), world.stored()
    bridge.enqueue(first)
    bridge.enqueue(second)
    world.pool.answer()
    world.pool.answer()
    world.clock.advance(0)
    assert calls == [[first.id, second.id]]


@pytest.mark.parametrize(
    "error", [TryLater("connection refused"), Response(503), Response(429), Response(500)]
)
def test_temporary_failure_is_retried_after_the_delay(world, error):
    """Tried again, not before the delay is over, and the row tells of it meanwhile."""
    bridge = world.bridge(retry_base=2.0)
    outcomes = []
    world.pool.answers.append(error)
    bridge.enqueue(world.stored(), outcomes.append)
    assert isinstance(outcomes[0], TryLater)
    row = world.rows()[0]
    assert (row.attempts, row.next_try) == (1, NOW + 2.0)
    world.clock.advance(1.9)
    assert len(world.pool.requests) == 1
    world.clock.advance(0.1)
    assert len(world.pool.requests) == 2
    world.pool.answer()
    world.clock.advance(0)
    assert world.rows() == ()
    assert len(outcomes) == 1
    assert bridge.outcomes == {"postponed": 1, "delivered": 1}
    assert world.clock.getDelayedCalls() == []


def test_retry_after_is_honoured(world):
    """The push service knows best, up to the cap."""
    world.bridge(retry_cap=60.0)
    bridge = world.bridge(retry_cap=60.0)
    world.pool.answers.extend([Response(429, b"", 30.0), Response(503, b"", 7200.0)])
    bridge.enqueue(world.stored())
    world.clock.advance(29.0)
    assert len(world.pool.requests) == 1
    world.clock.advance(1.0)
    assert len(world.pool.requests) == 2
    assert world.rows()[0].next_try == world.clock.seconds() + 60.0


def test_waiting_deliveries_share_one_timer(world):
    """However many wait, and the earliest is first."""
    bridge = world.bridge(retry_base=4.0)
    world.pool.answers.extend([Response(503, b"", 10.0), Response(503), Response(503, b"", 20.0)])
    for number in range(3):
        bridge.enqueue(world.stored(path=f"/{number}"))
    assert len(world.clock.getDelayedCalls()) == 1
    world.clock.advance(4.0)
    assert world.pool.requests[3][0] == "/1"
    world.clock.advance(6.0)
    assert world.pool.requests[4][0] == "/0"


def test_a_waiting_delivery_does_not_hold_others(world):
    """The next one goes out at once."""
    bridge = world.bridge(max_http_connections=1)
    world.pool.answers.append(Response(503, b"", 100.0))
    bridge.enqueue(world.stored())
    bridge.enqueue(world.stored(path="/next"))
    assert world.pool.requests[-1][0] == "/next"


def test_an_unregistered_device_is_told_and_settled(world, log):
    """410: no retry, no log line, the registration's owner hears of it."""
    bridge = world.bridge()
    delivery = world.stored()
    outcomes = []
    world.pool.answers.append(Response(410))
    bridge.enqueue(delivery, outcomes.append)
    world.clock.advance(0)
    assert world.unregistered == [delivery]
    assert isinstance(outcomes[0], DeviceUnregistered)
    assert (world.rows(), log) == ((), [])


def test_the_row_outlives_a_registration_that_is_not_gone_yet(world):
    """A Deferred from on_unregistered is waited for, also when stopping."""
    bridge = world.bridge()
    forgotten = Deferred()
    bridge._on_unregistered = lambda delivery: forgotten
    world.pool.answers.append(Response(410))
    bridge.enqueue(world.stored())
    world.clock.advance(0)
    assert len(world.rows()) == 1
    stopped = []
    bridge.stopService().addCallback(stopped.append)
    assert stopped == []
    forgotten.callback(1)
    assert (world.rows(), stopped) == ((), [None])


@pytest.mark.parametrize("fault", [ValueError("boom"), None])
def test_a_faulty_listener_loses_nothing(world, log, fault):
    """What on_unregistered or first raise is logged and the delivery concluded."""

    def explode(_):
        raise ValueError("boom")

    bridge = world.bridge()
    bridge._on_unregistered = explode
    world.pool.answers.append(Response(410 if fault else 200))
    bridge.enqueue(world.stored(), explode)
    world.clock.advance(0)
    assert world.rows() == ()
    assert bridge.in_flight == 0
    assert log


def test_a_refused_notification_is_logged_once_and_settled(world, log):
    """With node and reason, and never the token."""
    bridge = world.bridge()
    outcomes = []
    world.pool.answers.append(Response(400, b'{"reason":"no_matching_pool"}'))
    bridge.enqueue(world.stored(path="/v3/notification/SECRETTOKEN"), outcomes.append)
    world.clock.advance(0)
    assert isinstance(outcomes[0], Refused)
    assert world.rows() == ()
    assert lines(log) == [
        "push service refused a notification for node node-1: 400 no_matching_pool; it is lost"
    ]
    assert "SECRETTOKEN" not in repr(log)


def test_max_attempts(world, log):
    """Given up after so many tries, with one line for the delivery."""
    bridge = world.bridge(max_attempts=2, retry_base=1.0)
    world.pool.answers.extend([TryLater("connection refused")] * 2)
    bridge.enqueue(world.stored())
    world.clock.advance(1.0)
    world.clock.advance(0)
    assert (world.rows(), bridge.outcomes["given-up"]) == ((), 1)
    assert lines(log) == ["gave up a notification for node node-1 after 2 tries: connection refused"]
    assert world.clock.getDelayedCalls() == []


def test_ttl(world, log):
    """What is too old is dropped without a request, and says so."""
    bridge = world.bridge(ttl=60.0)
    outcomes = []
    bridge.enqueue(world.stored(created=NOW - 61), outcomes.append)
    world.clock.advance(0)
    assert world.pool.requests == []
    assert isinstance(outcomes[0], GivenUp)
    assert world.rows() == ()
    assert lines(log) == ["gave up a notification for node node-1 after 0 tries: too old"]


def test_trouble_is_logged_when_it_begins_and_ends(world, log):
    """Not for each push."""
    bridge = world.bridge(max_http_connections=10)
    world.pool.answers.extend([Response(503, b'{"reason":"unable_to_connect"}')] * 5)
    for number in range(5):
        bridge.enqueue(world.stored(path=f"/{number}"))
    world.pool.answers.extend([Response(200)] * 5)
    world.clock.advance(1.0)
    assert lines(log) == [
        "push service has trouble with fcm: 503 unable_to_connect; notifications wait",
        "push service is well again with fcm after 1.0 s",
    ]
    assert bridge.outcomes == {"postponed": 5, "delivered": 5}


def test_a_removed_account_is_told_nothing_more(world):
    """What waits, for its turn or another try, is dropped; what its JID's next owner gets is not."""
    bridge = world.bridge(max_http_connections=2)
    world.pool.answers.append(Response(503))
    for number, name in enumerate(("alice", "alice", "bob", "alice")):
        bridge.enqueue(world.stored(account=f"{name}@localhost", path=f"/{number}"))
    assert len(world.pool.requests) == 3
    bridge.forget_account("alice@localhost")
    world.pool.answer(503)
    world.pool.answer(200)
    world.clock.advance(400.0)
    assert len(world.pool.requests) == 3
    bridge.enqueue(world.stored(created=NOW + 400.0))
    assert len(world.pool.requests) == 4
    world.pool.answer(200)
    world.clock.advance(0)
    assert (bridge.in_flight, bridge.queued, world.rows()) == (0, 0, ())


def test_a_bug_in_the_way_out_is_no_loss(world, log):
    """An unexpected exception is logged, and the delivery tried again."""
    bridge = world.bridge()
    world.pool.answers.append(KeyError("x"))
    bridge.enqueue(world.stored())
    assert len(world.rows()) == 1
    world.clock.advance(1.0)
    assert len(world.pool.requests) == 2


def test_start_resumes_what_is_stored(world):
    """In pages, in order, those whose time has not come at their time."""
    deliveries = [world.stored(path=f"/{number}") for number in range(3)]
    now(world.messages.postpone(evolve(deliveries[1], attempts=4, next_try=NOW + 50)))
    world.pool.answers.extend([Response(200)] * 3)
    world.bridge(retry_cap=300.0)
    world.clock.advance(0)
    assert [path for path, _ in world.pool.requests] == ["/0", "/2"]
    world.clock.advance(50.0)
    assert [path for path, _ in world.pool.requests] == ["/0", "/2", "/1"]
    world.clock.advance(0)
    assert world.rows() == ()


def test_resuming_in_pages(world, monkeypatch):
    """More rows than a page, and than fit into memory: each is sent once."""
    monkeypatch.setattr(service_module, "PAGE", 3)
    for number in range(20):
        world.stored(path=f"/{number}")
    bridge = world.bridge(capacity=8)
    for _ in range(100):
        world.clock.advance(0)
        if world.pool.open:
            world.pool.answer()
    world.clock.advance(0)
    assert [path for path, _ in world.pool.requests] == [f"/{number}" for number in range(20)]
    assert world.rows() == ()
    assert bridge.outcomes == {"delivered": 20}
    assert world.clock.getDelayedCalls() == []


def test_what_does_not_fit_into_memory_stays_on_disk_until_there_is_room(world):
    """Memory is bounded in an outage, nothing is lost and nothing sent twice."""
    bridge = world.bridge(capacity=4)
    outcomes = []
    for number in range(10):
        bridge.enqueue(world.stored(path=f"/{number}"), outcomes.append)
    assert bridge.in_flight + bridge.queued == 4
    assert len(outcomes) == 6
    for _ in range(60):
        if world.pool.open:
            world.pool.answer()
        world.clock.advance(0)
    assert sorted(path for path, _ in world.pool.requests) == [f"/{number}" for number in range(10)]
    assert world.rows() == ()


def test_a_row_fetched_before_it_is_handed_over_is_sent_once(world):
    """The store has it before enqueue is called; the first outcome is told all the same."""
    delivery = world.stored()
    bridge = world.bridge()
    outcomes = []
    bridge.enqueue(delivery, outcomes.append)
    world.pool.answer()
    assert len(world.pool.requests) == 1
    assert outcomes == [None]


def test_what_has_to_wait_says_for_what(world):
    """'push test' shows it to an operator, who wants to know what is wrong."""
    bridge = world.bridge()
    bridge.enqueue(world.stored())
    world.pool.trouble = "connection refused"
    world.pool.fail(Unreachable("connection refused"))
    outcomes = []
    bridge.enqueue(world.stored(), outcomes.append)
    assert [(type(outcome), str(outcome)) for outcome in outcomes] == [(TryLater, "connection refused")]


def test_settled_rows_still_on_disk_are_not_fetched_again(world, monkeypatch):
    """A page read before the deletion was committed."""
    bridge = world.bridge(capacity=4)
    pending = Deferred()
    page = Deferred()
    monkeypatch.setattr(world.messages, "settle", lambda ids: pending)
    delivery = world.stored()
    bridge.enqueue(delivery)
    world.pool.answer()
    world.clock.advance(0)
    monkeypatch.setattr(world.messages, "queued", lambda after, limit: page)
    bridge._leave_on_disk(0)
    bridge._load_soon(0)
    world.clock.advance(0)
    pending.callback(None)
    page.callback((delivery,))
    world.clock.advance(0)
    assert len(world.pool.requests) == 1


def test_a_store_that_fails_to_settle_is_asked_again(world, monkeypatch):
    """The row is not sent again meanwhile."""
    bridge = world.bridge()
    settle, failures = world.messages.settle, [StorageError("disk full")]
    monkeypatch.setattr(
        world.messages, "settle", lambda ids: fail(failures.pop()) if failures else settle(ids)
    )
    bridge.enqueue(world.stored())
    world.pool.answer()
    world.clock.advance(0)
    assert len(world.rows()) == 1
    world.clock.advance(service_module.STORE_PAUSE)
    assert world.rows() == ()
    assert len(world.pool.requests) == 1


def test_a_store_that_fails_to_list_is_asked_again(world, monkeypatch):
    """Resuming waits for the store."""
    queued, failures = world.messages.queued, [StorageError("locked")]
    monkeypatch.setattr(
        world.messages, "queued", lambda *args: fail(failures.pop()) if failures else queued(*args)
    )
    world.stored()
    world.bridge()
    assert world.pool.requests == []
    world.clock.advance(service_module.STORE_PAUSE)
    assert len(world.pool.requests) == 1


def test_a_clock_set_back_does_not_hold_deliveries(world):
    """A next try far in the future is not believed further than the cap."""
    now(world.messages.postpone(evolve(world.stored(), attempts=1, next_try=NOW + 10**6)))
    world.bridge(retry_cap=300.0)
    world.clock.advance(300.0)
    assert len(world.pool.requests) == 1


def test_a_clock_set_forward_while_we_were_away_gives_up_with_a_line(world, log):
    """By more than ttl: nobody can tell it from a long outage. By less it changes nothing."""
    world.stored(node="early")
    world.stored(node="late", path="/v3/notification/late", created=NOW + 86000)
    world.clock.advance(86401)
    world.bridge()
    assert len(world.pool.requests) == 1
    assert lines(log) == ["gave up a notification for node early after 0 tries: too old"]


def test_before_the_start_rows_wait_on_disk(world):
    """Handed over too early, they are resumed with the rest."""
    bridge = world.bridge(start=False)
    bridge.enqueue(world.stored())
    assert world.pool.requests == []
    bridge.startService()
    world.clock.advance(0)
    assert len(world.pool.requests) == 1


def test_stop_waits_for_what_is_in_flight(world):
    """No new requests, outcomes stored, the rest left on disk, nothing ticking."""
    bridge = world.bridge(max_http_connections=2)
    world.pool.answers.append(Response(503))
    outcomes = []
    for number in range(4):
        bridge.enqueue(world.stored(path=f"/{number}"), outcomes.append)
    stopped = []
    bridge.stopService().addCallback(stopped.append)
    assert stopped == []
    world.pool.answer(200)
    assert stopped == []
    world.pool.fail(TryLater("connection lost"))
    assert stopped == [None]
    assert len(world.pool.requests) == 3
    assert [(row.path, row.attempts) for row in world.rows()] == [("/0", 1), ("/2", 1), ("/3", 0)]
    assert world.clock.getDelayedCalls() == []
    bridge.enqueue(world.stored())
    assert len(world.pool.requests) == 3


@pytest.mark.parametrize("limit", [{"max_attempts": 1}, {"ttl": 10.0}])
def test_what_a_stop_cuts_off_is_not_given_up(world, log, limit):
    """It was not the push service that failed; the next start tries it, for the last time perhaps."""
    bridge = world.bridge(**limit)
    delivery = world.stored()
    bridge.enqueue(delivery)
    world.clock.advance(9.9)
    stopped = bridge.stopService()
    world.pool.fail(TryLater("stopping"))
    world.clock.advance(0)
    assert stopped.called
    assert lines(log) == []
    (row,) = world.rows()
    assert row.next_try <= world.clock.seconds()
    world.bridge(**limit)
    assert len(world.pool.requests) == 2


def test_stop_does_not_wait_for_ever(world):
    """A push service that does not answer: the row stays for the next start."""
    bridge = world.bridge()
    bridge.enqueue(world.stored())
    stopped = []
    bridge.stopService().addCallback(stopped.append)
    world.clock.advance(service_module.STOP_TIME)
    assert stopped == [None]
    assert len(world.rows()) == 1
    world.pool.answer()
    world.clock.advance(0)
    assert world.rows() == ()
    assert world.clock.getDelayedCalls() == []


def test_stop_when_idle_is_at_once(world):
    """Also before it was started."""
    stopped = []
    world.bridge().stopService().addCallback(stopped.append)
    world.bridge(start=False).stopService().addCallback(stopped.append)
    assert stopped == [None, None]


def test_restart_in_one_process(world):
    """A stopped bridge takes up its work again."""
    bridge = world.bridge()
    bridge.stopService()
    bridge.enqueue(world.stored())
    bridge.startService()
    world.clock.advance(0)
    world.pool.answer()
    world.clock.advance(0)
    assert world.rows() == ()


# Outages


def test_while_there_is_no_connection_one_push_at_a_time_is_tried(world, log):
    """The others wait without a try of theirs being counted, and all get through when it is back."""
    bridge = world.bridge(max_http_connections=10, max_attempts=8)
    world.pool.answers.extend([Unreachable("connection refused")] * 4)
    outcomes = []
    for number in range(30):
        bridge.enqueue(world.stored(path=f"/{number}"), outcomes.append)
    assert len(world.pool.requests) == 1
    assert bridge.outages == {"fcm": "connection refused"}
    assert [type(outcome) for outcome in outcomes] == [Unreachable, *[TryLater] * 29]
    for seconds in (1.0, 2.0, 4.0):
        world.clock.advance(seconds)
    assert len(world.pool.requests) == 4
    assert [row.attempts for row in world.rows()].count(0) == 26
    world.pool.answers.extend([Response(200)] * 100)
    world.clock.advance(8.0)
    world.clock.advance(8.0)
    world.clock.advance(0)
    assert world.rows() == ()
    assert bridge.outcomes == {"postponed": 4, "delivered": 30}
    assert sorted({path for path, _ in world.pool.requests}) == sorted(f"/{number}" for number in range(30))
    assert len(log) == 0  # the pool says it
    assert bridge.outages == {}
    assert world.clock.getDelayedCalls() == []


@pytest.mark.parametrize("answer", [Response(500), Response(503), Response(429, b"", 20.0)])
def test_an_outage_of_minutes_costs_few_requests_and_no_push(world, log, answer):
    """Each device is tried a few times, one line tells of the beginning and one of the end."""
    bridge = world.bridge(max_http_connections=50, max_attempts=20)
    world.pool.answers.extend([answer] * 10_000)
    for number in range(200):
        bridge.enqueue(world.stored(path=f"/{number}"))
    for _ in range(300):
        world.clock.advance(1.0)
    tried = len(world.pool.requests)
    assert tried < 80
    world.pool.answers.clear()
    world.pool.answers.extend([Response(200)] * 500)
    for _ in range(600):
        world.clock.advance(1.0)
    assert world.rows() == ()
    assert bridge.outcomes["delivered"] == 200
    assert len(log) == 2


def test_a_device_in_trouble_does_not_stop_the_others(world):
    """APNs answers 429 for one token: it has its own back-off."""
    bridge = world.bridge(max_http_connections=10)
    world.pool.answers.extend([Response(429)] * 8)
    bridge.enqueue(world.stored(path="/bad"))
    for _ in range(8):
        world.clock.advance(300.0)
    world.pool.answers.extend([Response(200)])
    bridge.enqueue(world.stored(path="/good", created=world.clock.seconds()))
    assert bridge.outcomes["delivered"] == 1


def test_restart_with_an_open_breaker_asks_again(world):
    """A stopped bridge keeps nothing waiting."""
    bridge = world.bridge()
    world.pool.answers.append(Unreachable("connection refused"))
    bridge.enqueue(world.stored(path="/a"))
    bridge.enqueue(world.stored(path="/b"))
    bridge.stopService()
    assert world.clock.getDelayedCalls() == []
    bridge.startService()
    world.clock.advance(0)
    world.pool.answers.extend([Response(200)] * 2)
    world.clock.advance(1.0)
    world.clock.advance(1.0)
    world.clock.advance(0)
    assert world.rows() == ()


def body_from(sender, text):
    return orjson.dumps({"service": "fcm", "alert": {"title": sender, "tag": sender, "body": text}})


def test_collapse(world):
    """The phone gets the newest of each sender; the older rows are gone."""
    bridge = world.bridge()
    world.pool.answers.append(Response(503))
    outcomes = []
    for sender, text in [("bob", "1"), ("bob", "2"), ("eve", "3"), ("bob", "4")]:
        bridge.enqueue(world.stored(body=body_from(sender, text)), outcomes.append)
    world.clock.advance(0)
    assert [row.body for row in world.rows()] == [body_from("eve", "3"), body_from("bob", "4")]
    assert len(outcomes) == 4
    world.pool.answers.extend([Response(200)] * 2)
    world.clock.advance(1.0)
    world.clock.advance(0)
    assert [body for _, body in world.pool.requests[1:]] == [body_from("eve", "3"), body_from("bob", "4")]
    assert world.rows() == ()
    assert bridge.outcomes == {"postponed": 1, "collapsed": 2, "delivered": 2}


def test_collapse_loses_nothing_to_a_crash(world, monkeypatch):
    """Killed before the older row is gone: both are sent, the newer last."""
    bridge = world.bridge()
    world.pool.answers.append(Response(503))
    bridge.enqueue(world.stored(body=body_from("bob", "old")))
    monkeypatch.setattr(bridge, "_flush", lambda: None)  # as a kill -9 before it
    bridge.enqueue(world.stored(body=body_from("bob", "new")))
    assert len(world.rows()) == 2
    bridge.stopService()
    world.bridge()
    world.pool.answers.extend([Response(200)] * 2)
    world.clock.advance(1.0)
    world.clock.advance(0)
    assert world.pool.requests[-1][1] == body_from("bob", "new")
    assert world.rows() == ()


def test_rows_on_disk_are_collapsed_when_they_are_fetched(world):
    """After a restart during an outage, the first that fails stands for all of its sender."""
    for number in range(4):
        world.stored(body=body_from("bob", f"{number}"))
    world.pool.answers.append(Response(503))
    bridge = world.bridge()
    world.clock.advance(0)
    assert [row.body for row in world.rows()] == [body_from("bob", "3")]
    assert bridge.outcomes == {"postponed": 1, "collapsed": 3}


# Speed and fairness


def test_throughput_follows_max_http_connections(world):
    """Answers after a second, a thousand requests in flight: a thousand pushes a second, of 500 devices."""
    bridge = world.bridge(max_http_connections=1000, capacity=50_000)
    answer, clock = Response(200), world.clock

    def post(path, body):
        done = Deferred()
        clock.callLater(1.0, done.callback, answer)
        return done

    world.pool.post = post
    deliveries = [a_delivery(id=number + 1, path=f"/{number % 500}", created=NOW) for number in range(6000)]
    for delivery in deliveries:
        bridge.enqueue(delivery)
    for _ in range(60):
        clock.advance(0.1)
    assert bridge.outcomes["delivered"] >= 800 * 5


def test_a_hanging_service_leaves_the_other_its_share(world):
    """APNs does not answer, FCM goes on."""
    bridge = world.bridge(max_http_connections=10)
    hanging, post = Deferred(), world.pool.post
    world.pool.post = lambda path, body: hanging if path.startswith("/apns") else post(path, body)
    world.pool.answers.extend([Response(200)] * 50)
    bridge.enqueue(world.stored(path="/fcm"))
    for number in range(30):
        bridge.enqueue(world.stored(path=f"/apns{number}", service="apns"))
    for number in range(20):
        bridge.enqueue(world.stored(path=f"/fcm{number}"))
    assert bridge.outcomes["delivered"] == 21
    assert bridge.in_flight == 9


def test_order_is_kept_between_disk_and_memory(world):
    """A new one does not overtake older ones that are on disk alone."""
    bridge = world.bridge(capacity=2, max_http_connections=1)
    for number in range(3):
        bridge.enqueue(world.stored(body=b"%d" % number))
    world.pool.answer()
    bridge.enqueue(world.stored(body=b"3"))
    for _ in range(30):
        world.clock.advance(0)
        if world.pool.open:
            world.pool.answer()
    assert [body for _, body in world.pool.requests] == [b"0", b"1", b"2", b"3"]


def test_lost_pushes_are_not_a_flood_of_lines(world, log):
    """One line for each reason in half a minute, which tells how many there were."""
    bridge = world.bridge(max_http_connections=50)
    world.pool.answers.extend([Response(404)] * 100)
    for number in range(100):
        bridge.enqueue(world.stored(path=f"/{number}"))
    assert len(log) == 1
    world.clock.advance(service_module.QUIET)
    world.pool.answers.extend([Response(404), Response(413)])
    bridge.enqueue(world.stored(path="/x"))
    bridge.enqueue(world.stored(path="/y"))
    assert lines(log)[1:] == [
        "push service refused a notification for node node-1: 404; it is lost"
        " (99 more since the last such line)",
        "push service refused a notification for node node-1: 413; it is lost",
    ]
    assert bridge.outcomes["refused"] == 102


def test_lost_pushes_are_counted_for_their_own_reason(world, log):
    """A line about 413 does not tell how many were lost for 404."""
    bridge = world.bridge()
    for number, code in enumerate((404, 404, 404, 413)):
        world.pool.answers.append(Response(code))
        bridge.enqueue(world.stored(path=f"/{number}"))
    world.clock.advance(service_module.QUIET)
    world.pool.answers.append(Response(404))
    bridge.enqueue(world.stored(path="/x"))
    assert lines(log) == [
        "push service refused a notification for node node-1: 404; it is lost",
        "push service refused a notification for node node-1: 413; it is lost",
        "push service refused a notification for node node-1: 404; it is lost"
        " (2 more since the last such line)",
    ]


def test_outcomes_are_counted_by_service(world):
    """Known services from zero on, so that a rate can be told from the first one."""
    bridge = world.bridge()
    assert bridge.by_service["apns", "delivered"] == 0
    assert len(bridge.by_service) == 12
    for code, service in ((200, "fcm"), (410, "apns"), (400, "fcm"), (503, "fcm")):
        world.pool.answers.append(Response(code))
        bridge.enqueue(world.stored(service=service))
    assert {key: number for key, number in bridge.by_service.items() if number} == {
        ("fcm", "delivered"): 1,
        ("apns", "unregistered"): 1,
        ("fcm", "refused"): 1,
        ("fcm", "postponed"): 1,
    }


def test_latency_counts_from_the_message_to_the_final_answer(world):
    """Retries are part of it."""
    bridge = world.bridge()
    bridge.enqueue(world.stored(created=NOW - 2.0))
    world.pool.answer(503)
    assert sum(bridge.latency.counts) == 0
    world.clock.advance(1.0)
    world.pool.answer()
    assert (sum(bridge.latency.counts), bridge.latency.total) == (1, 3.0)


def test_trouble_lasts_until_the_push_service_answers_well(world):
    """Also an answer that the device is gone is one."""
    bridge = world.bridge()
    assert bridge.trouble is None
    bridge.enqueue(world.stored())
    world.pool.answer(503, b'{"reason":"service_unavailable"}')
    assert bridge.trouble == "fcm: 503 service_unavailable"
    world.clock.advance(1.0)
    world.pool.answer(410)
    assert bridge.trouble is None
    world.pool.trouble = "connection refused"
    assert bridge.trouble == "connection refused"


def test_an_app_has_its_own_lane_and_pool(world):
    """What is in trouble for one app does not hold another up, and tokens go to their own pool alone."""
    bridge = world.bridge()
    own = Pool()
    bridge._pools = {"fcm@chat": own}
    for service, node in (("fcm@chat", "a"), ("fcm@gone", "b"), ("fcm", "c")):
        bridge.enqueue(world.stored(service=service, node=node, path=f"/v3/notification/{node}"))
    assert [path for path, _ in own.requests] == ["/v3/notification/a"]
    assert [path for path, _ in world.pool.requests] == ["/v3/notification/c"]
    assert bridge.by_service["fcm@gone", "postponed"] == 1
    assert len(world.rows()) == 3


def test_a_route_is_the_operators_word(world):
    """Label, pools of the push service and the app's data; a client's options say none of it."""
    publish = a_publish(
        options={"service": "fcm", "device_id": "t", "tags": "stolen"},
        route=Route("chat", ("chat",), {"account": "x"}),
    )
    delivery = world.bridge().prepare(publish, NOW)
    assert delivery.service == "fcm@chat"
    body = orjson.loads(delivery.body)
    assert (body["tags"], body["data"]) == (["chat"], {"account": "x"})
    assert "tags" not in orjson.loads(world.bridge().prepare(evolve(publish, route=None), NOW).body)


def test_what_is_encrypted_reaches_the_device(world):
    """As data beside an alert that says nothing."""
    extras = PushExtras("high", None, Encrypted("aXY=", "dGV4dA==", True))
    publish = a_publish(notification=Notification(PushSummary(), extras=extras))
    body = orjson.loads(world.bridge().prepare(publish, NOW).body)
    assert body["data"] == {"encrypted": "dGV4dA==", "iv": "aXY=", "type": "voip"}
    assert (body["priority"], body["alert"]["body"]) == ("high", "New message")
