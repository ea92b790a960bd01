"""Turns at publishing."""

from twisted.internet.defer import Deferred, ensureDeferred

from xmpppush.mod_push.workers import Workers


def test_no_more_at_a_time_than_there_are_turns():
    """The third waits for the first that is done, and they go in order."""
    workers, log, answers = Workers(2), [], [Deferred() for _ in range(4)]

    async def publish(number):
        if not workers.free:
            await workers.turn()
        workers.free -= 1
        try:
            log.append(number)
            await answers[number]
        finally:
            workers.done()

    for number in range(4):
        ensureDeferred(publish(number)).addErrback(lambda failure: failure.trap(ValueError))
    assert log == [0, 1]
    answers[1].errback(ValueError("no"))
    assert log == [0, 1, 2]
    answers[0].callback(None)
    assert log == [0, 1, 2, 3]
    answers[2].callback(None)
    answers[3].callback(None)
    assert workers.free == 2
