"""What is sent when: the schedule, which is told the time."""

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from xmpppush.mod_push_service_mongoosepush.payload import body_for, collapse_key, target_of
from xmpppush.mod_push_service_mongoosepush.retry import RetryPolicy
from xmpppush.mod_push_service_mongoosepush.schedule import GAP, Schedule
from xmpppush.model import Notification
from xmpppush.testing.builders import OPTIONS, a_delivery, a_publish, a_summary

POLICY = RetryPolicy()


def a_schedule(limit=10, **options):
    return Schedule(limit, POLICY, lambda: 1.0, **options)


def push(number, device="a", sender="bob@localhost", **changes):
    """A delivery to a device."""
    alert = {"title": sender, "tag": sender, "body": f"#{number}"} if sender else {"title": "localhost"}
    body = orjson.dumps({"service": "fcm", "alert": alert})
    return a_delivery(**{"id": number, "path": f"/{device}", "body": body, **changes})


def taken(schedule, now=0.0):
    """Everything that may be sent now."""
    return list(iter(lambda: schedule.next(now), None))


def numbers(deliveries):
    return [delivery.id for delivery in deliveries]


def failed(schedule, delivery, now=0.0, delay=10.0, **how):
    """It failed and is tried again after ``delay``; gives what is replaced."""
    schedule.failed(delivery, "503", now, **how)
    again = evolve(delivery, attempts=delivery.attempts + 1, next_try=now + delay)
    return numbers(schedule.postponed(again, now))


def test_devices_take_turns_up_to_the_limit():
    """Whoever has much to send holds nobody."""
    schedule = a_schedule(2)
    for number, device in enumerate("aaabc"):
        schedule.add(push(number, device), 0.0)
    first = taken(schedule)
    assert numbers(first) == [0, 3]
    assert (schedule.in_flight, schedule.queued) == (2, 3)
    schedule.succeeded(first[0], 0.0)
    assert numbers(taken(schedule)) == [4]
    schedule.succeeded(first[1], 0.0)
    assert numbers(taken(schedule)) == [1]


def test_the_same_token_at_two_apps_is_two_devices():
    """What one app's push service does with it is nothing to the other's."""
    schedule = a_schedule()
    schedule.add(push(1, service="fcm@a"), 0.0)
    (first,) = taken(schedule)
    failed(schedule, first)
    schedule.add(push(2, service="fcm@b"), 0.0)
    schedule.add(push(3), 0.0)
    assert numbers(taken(schedule)) == [2, 3]
    schedule.add(push(4, service="fcm@a"), 0.0)
    assert taken(schedule) == []


def test_a_device_gets_the_next_when_the_last_is_answered():
    """So the order is kept."""
    schedule = a_schedule()
    schedule.add(push(1), 0.0)
    schedule.add(push(2), 0.0)
    (first,) = taken(schedule)
    assert taken(schedule) == []
    schedule.succeeded(first, 0.01)
    assert numbers(taken(schedule, 0.01)) == [2]
    assert schedule.wake_time() is None


def test_a_slow_answer_holds_a_device_for_the_gap_only():
    """With 500 devices and answers after a second 800 pushes a second must go out."""
    schedule = a_schedule()
    for number in range(3):
        schedule.add(push(number), 0.0)
    assert numbers(taken(schedule)) == [0]
    assert schedule.wake_time() == GAP
    schedule.wake(GAP)
    assert numbers(taken(schedule, GAP)) == [1]
    assert schedule.wake_time() == 2 * GAP


@pytest.mark.parametrize("now", [1_795_000_000.0, 1_795_000_000.7, 0.1, 2.0**33 + 0.3])
def test_the_gap_is_over_when_it_is_said_to_be(now):
    """Today's seconds plus a gap are rounded; woken at that very moment it must not wait for it once more."""
    schedule = a_schedule()
    schedule.add(push(1), now)
    schedule.add(push(2), now)
    assert numbers(taken(schedule, now)) == [1]
    then = schedule.wake_time()
    schedule.wake(then)  # for ever, once
    assert numbers(taken(schedule, then)) == [2]


def test_late_rows_are_sorted_in():
    """A page from disk may come behind newer ones."""
    schedule = a_schedule(1)
    for number in (0, 5, 3, 4):
        schedule.add(push(number), 0.0)
    order = []
    for _ in range(4):
        (delivery,) = taken(schedule)
        order.append(delivery.id)
        schedule.succeeded(delivery, 0.0)
    assert order == [0, 3, 4, 5]


def test_later_ones_wait_behind_one_that_is_tried_again():
    """Of another sender, so nothing is replaced; then all go in order."""
    schedule = a_schedule()
    schedule.add(push(1), 0.0)
    schedule.add(push(2, sender="carol@localhost"), 0.0)
    (first,) = taken(schedule)
    assert failed(schedule, first) == []
    assert (taken(schedule, 9.9), schedule.wake_time()) == ([], 10.0)
    schedule.wake(10.0)
    (again,) = taken(schedule, 10.0)
    assert (again.id, again.attempts) == (1, 1)
    schedule.succeeded(again, 10.0)
    assert numbers(taken(schedule, 10.0)) == [2]


# Replacing


def test_nothing_is_replaced_that_only_waits_for_its_turn():
    """Each message is told."""
    schedule = a_schedule(1)
    assert [numbers(schedule.add(push(number), 0.0)) for number in range(5)] == [[]] * 5


def test_while_one_waits_for_another_try_the_next_of_its_sender_replaces_it():
    """And waits as long, with tries of its own."""
    schedule = a_schedule()
    schedule.add(push(1), 0.0)
    failed(schedule, *taken(schedule))
    assert numbers(schedule.add(push(2), 1.0)) == [1]
    assert numbers(schedule.add(push(3, sender="carol@localhost"), 1.0)) == []
    assert numbers(schedule.add(push(4), 2.0)) == [2]
    assert taken(schedule, 9.9) == []
    schedule.wake(10.0)
    (first,) = taken(schedule, 10.0)
    assert (first.id, first.attempts) == (3, 0)
    schedule.succeeded(first, 10.0)
    (second,) = taken(schedule, 10.0)
    assert (second.id, schedule.queued) == (4, 0)


def test_what_fails_is_replaced_by_a_newer_one_behind_it():
    """It waits for a retry from now on, and all of its sender with it."""
    schedule = a_schedule()
    for number in (1, 2, 3):
        schedule.add(push(number), 0.0)
    assert sorted(failed(schedule, *taken(schedule))) == [1, 2]
    schedule.wake(10.0)
    assert numbers(taken(schedule, 10.0)) == [3]


def test_a_newer_one_that_was_delivered_meanwhile_replaces_it():
    """It would put old news in the place of new."""
    schedule = a_schedule()
    schedule.add(push(1), 0.0)
    schedule.add(push(2), 0.0)
    (first,) = taken(schedule)
    schedule.wake(GAP)
    (second,) = taken(schedule, GAP)
    assert failed(schedule, first, 1.0) == []
    assert numbers(schedule.succeeded(second, 1.0)) == [1]
    assert (schedule.queued, schedule.in_flight, schedule.wake_time()) == (0, 0, None)


def test_behind_an_open_breaker_it_is_the_same():
    """The first did not even get its try."""
    schedule = a_schedule()
    schedule.add(push(1, "a"), 0.0)
    failed(schedule, *taken(schedule), unreachable=True)
    assert numbers(schedule.add(push(2, "b"), 0.0)) == []
    assert numbers(schedule.add(push(3, "b"), 0.0)) == [2]
    assert taken(schedule) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": None},
        {"device": "b"},
        {"account": "carol@localhost"},
        {"node": "node-2"},
        {"pubsub": "other.localhost"},
        {"body": b'{"service":"fcm","priority":"high","alert":{"tag":"bob@localhost"}}'},
        {"body": b'{"service":"fcm","data":{"last-message-sender":"bob@localhost"}}'},
        {"body": b"[]"},
        {"body": b"nonsense"},
        {"body": b'{"alert":7}'},
    ],
)
def test_only_the_same_is_replaced(changes):
    """Same device, account, node, sender and urgency; who names no sender replaces nobody."""
    schedule = a_schedule()
    schedule.add(push(1), 0.0)
    failed(schedule, *taken(schedule))
    assert schedule.add(push(2, **changes), 0.0) == ()


def test_nothing_is_replaced_where_that_is_not_wanted():
    """``collapse = no``: each message keeps its own."""
    schedule = a_schedule(collapse=False)
    schedule.add(push(1), 0.0)
    failed(schedule, *taken(schedule))
    assert schedule.add(push(2), 0.0) == ()
    assert schedule.queued == 2


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@pytest.mark.parametrize("silent", ["true", "false"])
def test_the_sender_is_found_in_every_request(version, silent):
    """As we make them."""

    def key(sender):
        notification = Notification(a_summary(last_message_sender=sender))
        target = target_of({**OPTIONS, "silent": silent}, version)
        return collapse_key(a_delivery(body=body_for(target, a_publish(notification=notification))))

    assert key("bob@localhost") == key("bob@localhost") != key("carol@localhost")
    assert key(None) is None


# Services


def test_the_service_with_fewer_in_flight_is_first():
    """A slow one does not starve the other."""
    schedule = a_schedule(10)
    for number in range(30):
        schedule.add(push(number, f"p{number}", service="apns"), 0.0)
    slow = taken(schedule)
    for number in range(30, 60):
        schedule.add(push(number, f"f{number}"), 0.0)
    for _ in range(5):
        schedule.succeeded(slow.pop(), 0.0)
        assert [delivery.service for delivery in taken(schedule)] == ["fcm"]
    schedule.succeeded(slow.pop(), 0.0)
    assert len(taken(schedule)) == 1


def test_a_service_leaves_room_for_another_that_was_seen():
    """Though that has nothing to send at the moment."""
    schedule = a_schedule(20)
    schedule.add(push(0, "f"), 0.0)
    schedule.succeeded(*taken(schedule), 0.0)
    for number in range(1, 41):
        schedule.add(push(number, f"p{number}", service="apns"), 0.0)
    assert len(taken(schedule)) == 18
    schedule.add(push(50, "f"), 0.0)
    assert numbers(taken(schedule)) == [50]


def test_one_service_alone_has_everything():
    """Nobody to leave room for."""
    schedule = a_schedule(20)
    for number in range(40):
        schedule.add(push(number, f"{number}"), 0.0)
    assert len(taken(schedule)) == 20


def test_a_breaker_holds_its_service_alone():
    """APNs down, FCM well: MongoosePush answers 503 for the one and 200 for the other."""
    schedule = a_schedule()
    for number in range(8):
        schedule.add(push(number, f"p{number}", service="apns"), 0.0)
    for delivery in taken(schedule):
        failed(schedule, delivery)
    schedule.add(push(20, "p20", service="apns"), 0.0)
    schedule.add(push(21, "f"), 0.0)
    assert numbers(taken(schedule)) == [21]


# The breaker


def test_one_probe_then_a_ramp():
    """What waited was not tried, and does not come all at once."""
    schedule = a_schedule(100)
    schedule.add(push(0, "x"), 0.0)
    failed(schedule, *taken(schedule), unreachable=True)
    for number in range(1, 60):
        schedule.add(push(number, f"{number}"), 0.0)
    assert (taken(schedule, 0.9), schedule.wake_time()) == ([], 1.0)
    schedule.wake(1.0)
    (probe,) = taken(schedule, 1.0)
    assert (probe.id, probe.attempts) == (1, 0)
    schedule.succeeded(probe, 1.0)
    rounds, answered = [], 1
    while answered < 59:
        batch = taken(schedule, 1.0)
        rounds.append(len(batch))
        for delivery in batch:
            schedule.succeeded(delivery, 1.0)
        answered += len(batch)
    assert rounds == [4, 8, 16, 30]


def test_a_probe_waits_for_those_on_their_way():
    """They may have the answer."""
    schedule = a_schedule()
    for number in range(2):
        schedule.add(push(number, f"{number}"), 0.0)
    first, second = taken(schedule)
    failed(schedule, first, unreachable=True)
    schedule.add(push(2, "2"), 0.0)
    schedule.wake(1.0)
    assert taken(schedule, 1.0) == []
    schedule.succeeded(second, 1.5)
    assert numbers(taken(schedule, 1.5)) == [2]
    assert schedule.wake_time() == 10.0  # the first one's retry, nothing for the breaker


def test_a_probe_too_old_to_be_sent_makes_room_for_another():
    """Otherwise everything would wait for ever."""
    schedule = a_schedule()
    schedule.add(push(0, "x"), 0.0)
    failed(schedule, *taken(schedule), unreachable=True)
    schedule.add(push(1, "1"), 0.0)
    schedule.add(push(2, "2"), 0.0)
    (probe,) = taken(schedule, 1.0)
    schedule.finished(probe, 1.0, answered=False)
    assert numbers(taken(schedule, 1.0)) == [2]


def test_a_final_answer_is_a_sign_of_life():
    """410 and 400 come from a push service that works."""
    schedule = a_schedule()
    schedule.add(push(0, "x"), 0.0)
    failed(schedule, *taken(schedule), unreachable=True)
    schedule.add(push(1, "1"), 0.0)
    schedule.add(push(2, "2"), 0.0)
    (probe,) = taken(schedule, 1.0)
    schedule.finished(probe, 1.0)
    assert numbers(taken(schedule, 1.0)) == [2]


# Time


def test_what_was_put_off_by_its_maker_holds_nothing():
    """The end of a burst's window, say: no retry, so nothing waits behind it."""
    schedule = a_schedule()
    schedule.add(push(1, next_try=5.0), 0.0)
    schedule.add(push(2), 0.0)
    assert numbers(taken(schedule)) == [2]
    assert (schedule.queued, schedule.wake_time()) == (1, 5.0)
    assert schedule.wake(5.0) == []
    assert taken(schedule, 5.0) != []


def test_rows_of_an_earlier_life_keep_their_time():
    """And what comes behind them waits, and replaces."""
    schedule = a_schedule()
    schedule.add(push(1, attempts=3, next_try=5.0), 0.0)
    assert numbers(schedule.add(push(2), 0.0)) == [1]
    assert taken(schedule, 4.9) == []
    schedule.wake(5.0)
    (delivery,) = taken(schedule, 5.0)
    assert schedule.failed(delivery, "503", 5.0) == 4  # the back-off goes on where it was


def test_a_clock_that_is_set_back_holds_nothing_long():
    """Neither the gap between two pushes nor a wait is measured from the future."""
    schedule = a_schedule()
    schedule.add(push(1), 5000.0)
    (first,) = taken(schedule, 5000.0)
    schedule.add(push(2, sender="carol@localhost"), 1000.0)
    assert numbers(taken(schedule, 1000.0)) == [2]
    failed(schedule, first, 5000.0)
    schedule.add(push(3, "b", attempts=1, next_try=5010.0), 1000.0)
    assert schedule.wake_time() == 1000.0 + POLICY.cap


def test_clear_leaves_what_is_in_flight():
    """Its answers are still counted."""
    schedule = a_schedule(1)
    for number, device in enumerate("aab"):
        schedule.add(push(number, device), 0.0)
    schedule.add(push(9, next_try=9.0), 0.0)
    (first,) = taken(schedule)
    assert sorted(numbers(schedule.clear())) == [1, 2, 9]
    assert (schedule.queued, schedule.in_flight, schedule.wake_time()) == (0, 1, None)
    schedule.failed(first, "503", 0.0)
    schedule.dropped(first, 0.0)
    assert schedule.in_flight == 0
    schedule.add(push(1), 0.0)
    assert numbers(taken(schedule)) == [1]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["bob", "eve", None]), st.booleans()), max_size=30
    ),
    st.lists(st.sampled_from("snftu"), max_size=60),
    st.integers(1, 4),
    st.booleans(),
)
def test_nothing_is_lost_whatever_happens(pushes, events, limit, collapse):
    """Each is delivered, refused or replaced by a newer one of its sender, exactly once; counts add up."""
    schedule, now, flying, over = a_schedule(limit, collapse=collapse), 0.0, [], []
    pushes = [
        push(number, device, sender, service="apns" if slow else "fcm")
        for number, (device, sender, slow) in enumerate(pushes)
    ]
    by_number = {delivery.id: delivery for delivery in pushes}
    pushes = [evolve(each, path=each.path + each.service) for each in pushes]

    def step(event):
        nonlocal now
        now += 0.02
        over.extend(numbers(schedule.wake(now)))
        if pushes:
            over.extend(numbers(schedule.add(pushes.pop(0), now)))
        flying.extend(taken(schedule, now))
        assert schedule.in_flight == len(flying) <= limit
        if not flying:
            now = max(now, schedule.wake_time() or now)
            return
        delivery = flying.pop(0)
        if event in "st":
            over.append(delivery.id)
            over.extend(numbers(schedule.succeeded(delivery, now)))
        elif event == "n":
            over.append(delivery.id)
            schedule.finished(delivery, now)
        else:
            over.extend(failed(schedule, delivery, now, 0.5, unreachable=event == "u"))

    for event in events:
        step(event)
    for _ in range(500):
        if pushes or flying or schedule.queued:
            step("s")
    assert sorted(over) == sorted(by_number)
    assert (schedule.in_flight, schedule.queued, schedule.wake_time()) == (0, 0, None)


def test_a_service_that_is_back_is_asked_at_once():
    """Neither its open breaker nor the wait of a device lasts longer; those of other services do."""
    schedule = a_schedule()
    for number, service in ((1, "xmpp@a.test"), (2, "xmpp@b.test")):
        schedule.add(push(number, service, service=service), 0.0)
    for delivery in taken(schedule):
        failed(schedule, delivery, delay=300.0, unreachable=True)
    assert taken(schedule, 1.0) == []
    schedule.is_back("xmpp@a.test", 1.0)
    schedule.is_back("xmpp@unknown.test", 1.0)
    (delivery,) = taken(schedule, 1.0)
    assert delivery.id == 1
    schedule.succeeded(delivery, 1.0)
    assert taken(schedule, 1.0) == []
    schedule.wake(301.0)
    assert numbers(taken(schedule, 301.0)) == [2]
