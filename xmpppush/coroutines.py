"""Starting coroutines that hardly ever wait."""

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def start(
    coroutine: Coroutine[Any, Any, Any], failed: Callable[..., object], *args: object
) -> "Deferred[Any] | None":
    """
    Run a coroutine for what it does, not for a result.

    ``Deferred.fromCoroutine`` costs microseconds even where everything awaited is there already, which
    is the case for nearly every message. So it is only made when the coroutine really waits.

    Args:
        coroutine: May return a Deferred for what is left to do, that does not fail.
        failed: Called with the `Failure`, and ``args``, where the coroutine raises.

    Returns:
        Fires when all is done; ``None``: it is.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration as stop:
        left: Deferred[Any] | None = stop.value
        return left
    except Exception:
        failed(Failure(), *args)
        return None
    return Deferred.fromCoroutine(_go_on(coroutine, awaited)).addErrback(failed, *args)


async def _go_on(coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
    """What is left of a coroutine that waits for the Deferred ``awaited``."""
    try:
        while True:
            try:
                result = await awaited
            except Exception as error:
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(result)
    except StopIteration as stop:
        left = stop.value
    if left is not None:
        await left
