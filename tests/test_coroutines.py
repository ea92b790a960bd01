"""Starting coroutines: those that are done at once, and those that wait."""

from twisted.internet.defer import Deferred, fail, succeed

from xmpppush.coroutines import start


def run(*awaited):
    """Start a coroutine that awaits each of these; returns what it got and what failed."""
    got, failures = [], []

    async def coroutine():
        for one in awaited:
            got.append(await one)  # noqa: PERF401 - what came before a failure counts

    start(coroutine(), lambda failure, *args: failures.append((failure.type, *args)), "x")
    return got, failures


def test_what_is_there_already_is_done_at_once():
    """No Deferred is made for it."""
    assert run(succeed(1), succeed(2)) == ([1, 2], [])


def test_it_waits_where_it_has_to():
    """And goes on with each result in turn."""
    first, second = Deferred(), Deferred()
    got, failures = run(succeed(0), first, second, succeed(3))
    assert got == [0]
    first.callback(1)
    assert got == [0, 1]
    second.callback(2)
    assert (got, failures) == ([0, 1, 2, 3], [])


def test_failures_are_told():
    """At once, or after waiting."""
    assert run(fail(KeyError("k"))) == ([], [(KeyError, "x")])
    waiting = Deferred()
    got, failures = run(succeed(0), waiting)
    waiting.errback(ValueError("v"))
    assert (got, failures) == ([0], [(ValueError, "x")])


def test_a_failure_can_be_handled_inside():
    """The coroutine sees the exception where it waits."""
    waiting, seen, failures = Deferred(), [], []

    async def coroutine():
        try:
            await waiting
        except ValueError as error:
            seen.append(str(error))
        seen.append(await succeed("after"))

    start(coroutine(), failures.append)
    waiting.errback(ValueError("inside"))
    assert (seen, failures) == (["inside", "after"], [])
