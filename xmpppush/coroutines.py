"""Starting coroutines that hardly ever wait."""

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def start(coroutine: Coroutine[Any, Any, None], failed: Callable[..., object], *args: object) -> None:
    """
    Run a coroutine for what it does, not for a result.

    ``Deferred.fromCoroutine`` costs microseconds even where everything awaited is there already, which
    is the case for nearly every message. So it is only made when the coroutine really waits.

    Args:
        failed: Called with the `Failure`, and ``args``, where the coroutine raises.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration:
        return
    except Exception:
        failed(Failure(), *args)
        return
    Deferred.fromCoroutine(_go_on(coroutine, awaited)).addErrback(failed, *args)


async def _go_on(coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
    """What is left of a coroutine that waits for the Deferred ``awaited``."""
    try:
        while True:
            try:
                result = await awaited
            except Exception as error:
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(result)
    except StopIteration:
        return
