"""
Log output: ``[server] log_format`` and ``log_level``.

``text`` is a line a person reads; ``json`` is an object a line, with ``time``, ``level``, ``logger``,
``message``, the event's own fields and, for a fault of ours, ``traceback``.
"""

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    eventAsText,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from xmpppush.trace import LONG_NODE, node_name

_PLAIN = (str, int, float, bool, type(None))


def json_line(event: LogEvent) -> str:
    """One event as a JSON object; fields that are no plain values are left out."""
    fields = {
        key: value
        for key, value in event.items()
        if not key.startswith("log_") and key not in _LEGACY and isinstance(value, _PLAIN)
    }
    entry: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(),
        "level": event["log_level"].name,
        "logger": event.get("log_namespace", "-"),
        "message": formatEvent(event),
        **fields,
    }
    if "log_failure" in event:
        entry["traceback"] = eventAsText(event, includeTimestamp=False, includeSystem=False)
    return json.dumps(entry, ensure_ascii=False)


# What twisted.python.log adds to every event of the old kind.
_LEGACY = frozenset({"time", "system", "isError", "message", "format", "legacyEvent", "level"})


@implementer(ILogObserver)
class JSONLines:
    """Writes `json_line` of each event."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __call__(self, event: LogEvent) -> None:
        self._stream.write(json_line(event) + "\n")
        self._stream.flush()


# Of each port, by twisted.python.log. Ours say the same, with their section and the whole address.
_OF_PORTS = re.compile(r"\w+( \(\w+\))* starting on (\d+|'.*')|\((TCP|TLS|UNIX) Port .* Closed\)")


def leave_out_ports(event: LogEvent) -> Any:
    """A filter: not what Twisted says about ports that open and close."""
    message = event.get("message")
    if event.get("log_namespace") == "log_legacy" and message and _OF_PORTS.fullmatch(str(message[0])):
        return PredicateResult.no
    return PredicateResult.maybe


def without_tokens(observer: Callable[[LogEvent], object]) -> Callable[[LogEvent], object]:
    """The observer, told of nodes that may be device tokens by their short names only."""

    def observe(event: LogEvent) -> None:
        node = event.get("node")
        if isinstance(node, str) and len(node) >= LONG_NODE:
            event = {**event, "node": node_name(node)}
        observer(event)

    return observe


_chosen: Callable[[], Any] | None = None


def choose(log_format: str, log_level: str, stream: Callable[[], IO[Any]]) -> None:
    """
    Decide what `chosen` makes.

    Args:
        stream: Opens what is written to; called after twistd has forked.
    """
    global _chosen

    def make() -> Any:
        out = stream()
        observer: Any = without_tokens(JSONLines(out) if log_format == "json" else textFileLogObserver(out))
        filters: Any = [leave_out_ports, LogLevelFilterPredicate(LogLevel.levelWithName(log_level))]
        return FilteringLogObserver(observer, filters)

    _chosen = make


def chosen() -> Any:
    """The log observer, for twistd's ``--logger``."""
    if _chosen is None:
        raise RuntimeError("no configuration has chosen a log format yet")
    return _chosen()


def twistd_stream(logfile: str | None, foreground: bool, rundir: str) -> Callable[[], IO[Any]]:
    """Where twistd would log: the terminal, the ``--logfile``, or ``twistd.log`` of a daemon."""

    def open_it() -> IO[Any]:
        if logfile == "-" or (not logfile and foreground):
            return sys.stdout
        path = Path(rundir, logfile or "twistd.log").absolute()
        try:
            rotating: Any = LogFile(path.name, str(path.parent), rotateLength=50_000_000, maxRotatedFiles=10)
        except OSError as error:
            raise SystemExit(f"{path}: cannot be written: {error.strerror}") from None
        return cast(IO[Any], rotating)

    return open_it
