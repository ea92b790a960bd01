"""
What happened to a push: the vocabulary of the delivery trace, and who collects it.

A *story* is everything that one message led to for one account. Its id is given out when a message meets a
registration, travels with the `Publish` and the `Delivery`, also over a restart, and is on every *note*:
one thing that was decided or happened, with time, node, decision and reason.

Notes hold no text of a message and no device token; a registration is named by its node.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from xmpppush.errors import StorageError
from xmpppush.interfaces import ITrace, ITraceStore
from xmpppush.model import TraceLimits

# Notes wait for company: at most so long, and so many. A kill -9 costs that much of the trace, never a push.
DELAY = 0.1  # seconds
MANY = 1000
PRUNE_EVERY = 3600.0  # seconds; a busy server prunes with every write
MAX_REASON = 200  # characters
LONG_NODE = 64  # characters; APNs' tokens have as many, FCM's more


class Stage(StrEnum):
    """Where on its way a push was."""

    MOD_PUSH = "mod_push"
    APP_SERVER = "app server"
    PUSH_SERVICE = "push service"
    REGISTRATION = "registration"


class Decision(StrEnum):
    """
    The vocabulary. Each decision belongs to one `Stage`; see `STAGES` and ``docs/troubleshooting.rst``.

    A reason is one of the words in `REASONS`, or a text that is fit for a log, such as ``503 overloaded``.
    """

    # mod_push, about a message
    ACCEPTED = "accepted"  # the device gets a push, which is stored with the message
    ONLINE = "online"  # it gets the message itself
    FILTERED = "filtered"  # the message is no push
    BATCHED = "batched"  # the push waits for the end of [mod_push] batch_window
    SUSPENDED = "suspended"  # the registration is suspended, so it was not tried
    NOT_STORED = "not stored"  # the message was refused, and with it the push
    # the app server
    NOT_PUBLISHED = "not published"  # refused by the app server, or no way to it
    # the push service
    DELIVERED = "delivered"
    POSTPONED = "postponed"  # a try failed, another one follows
    COLLAPSED = "collapsed"  # while it waited a newer push of the same sender took its place
    GIVEN_UP = "given up"  # too many tries, or too old
    REFUSED = "refused"  # the push service finds the request wrong
    UNREGISTERED = "unregistered"  # the push service does not know the device any more
    # the registration itself
    DISABLED = "disabled"  # it will not be tried for a while
    REVIVED = "revived"  # it is tried again
    REMOVED = "removed"  # it is gone


STAGES: Mapping[str, Stage] = {
    **dict.fromkeys(Decision, Stage.PUSH_SERVICE),
    **dict.fromkeys(
        (
            Decision.ACCEPTED,
            Decision.ONLINE,
            Decision.FILTERED,
            Decision.BATCHED,
            Decision.SUSPENDED,
            Decision.NOT_STORED,
        ),
        Stage.MOD_PUSH,
    ),
    Decision.NOT_PUBLISHED: Stage.APP_SERVER,
    **dict.fromkeys((Decision.DISABLED, Decision.REVIVED, Decision.REMOVED), Stage.REGISTRATION),
}

REASONS: Mapping[str, str] = {
    "no-session": "nobody of this account is connected",
    "device-absent": "the device is not connected",
    "device-hibernated": "the device's connection broke, and it has not come back yet",
    "device-silent": "the device is connected but does not answer any more",
    "device-unavailable": "the device is connected but takes no messages (no presence, or priority below 0)",
    "device-inactive": "it is urgent, and the app is in the background ([mod_push] notify_inactive)",
    "test": "asked for by 'push test'",
    "device-online": "the device is connected and gets the message itself",
    "account-online": "somebody of this account is online ([mod_push] notify = account-offline)",
    "error": "it is an error message",
    "headline": "it is a headline",
    "own-message": "it is what the account itself wrote on another device",
    "chat-state": "it only says that somebody is typing, or has stopped",
    "receipt": "it is a delivery receipt",
    "marker": "it says what was read",
    "call-signal": "it belongs to a call, and is not its beginning",
    "subject-only": "it has a subject and no text",
    "no-content": "it has no text",
    "burst": "the first push of the burst has been sent; the last one is, at the end of the window",
    "published": "the app server takes its pushes again",
    "app-server": "the app server disabled it",
    "no-store": "its sender wants it kept nowhere (no-store hint)",
    "told-before": "the device was told of this message before",
    "plugin": "a plugin of [mod_push] plugin_module is against it",
    "muted": "the device wants none of this sender",
    "unknown-sender": "the sender is not in the roster, and the device wants none of strangers",
    "room": "the device does not want this message of the room",
    "calls": "it is a call, and the app cannot ring",
    "offline-full": "too many messages wait for this account ([limits] offline_messages_per_user)",
    "node-gone": "the app server has no such node any more",
    "device-gone": "the push service does not know the device any more",
    "errors": "too many errors in a row ([mod_push] max_errors)",
    "client": "the client disabled it",
    "operator": "the operator disabled it",
    "too old": "older than [mod_push_service_mongoosepush] ttl",
}


def node_name(node: str) -> str:
    """A node as people are shown it: a long one may be a device token, which is its own secret (fpush)."""
    return node if len(node) < LONG_NODE else f"{node[:6]}...{node[-4:]}"


@implementer(ITrace)
class NoTrace:
    """Keeps nothing: the default, and what ``[trace] max_notes = 0`` means."""

    def begin(self) -> str:
        return ""

    def note(
        self, trace: str, account: str, node: str, decision: str, reason: str = "", **fields: object
    ) -> None:
        """Costs nothing."""

    def flush(self) -> "Deferred[None]":
        return succeed(None)


NO_TRACE = NoTrace()


@implementer(ITrace)
class Trace(Service):
    """
    Collects notes and stores them together.

    It is never in the way: notes that cannot be stored are dropped, and nobody waits for them.

    Attributes:
        dropped: How many notes could not be stored.
    """

    name = "trace"
    _log = Logger()

    def __init__(self, store: ITraceStore, clock: Any, keep: float, max_notes: int) -> None:
        """
        Args:
            keep: Seconds; older notes are forgotten.
            max_notes: The most that are kept, about.
        """
        self.dropped = 0
        self._store = store
        self._clock = clock
        self._seconds: Callable[[], float] = clock.seconds
        self._keep = keep
        self._max_notes = max_notes
        self._notes: list[tuple[Any, ...]] = []
        self._flush_call: IDelayedCall | None = None
        self._prune_call: IDelayedCall | None = None
        # Microseconds since the epoch, as hexadecimal: ids of different runs differ, and sort by time.
        self._last = int(clock.seconds() * 1_000_000)

    def begin(self) -> str:
        self._last += 1
        return f"{self._last:x}"

    def note(
        self, trace: str, account: str, node: str, decision: str, reason: str = "", **fields: object
    ) -> None:
        """See `ITrace.note`. Some microseconds count here: it is called twice for each push."""
        notes = self._notes
        if len(node) >= LONG_NODE:
            node = node_name(node)
        notes.append((trace, self._seconds(), account, node, decision, reason, fields))
        if self._flush_call is None:
            self._flush_call = self._clock.callLater(DELAY, self._flush_late)
        elif len(notes) >= MANY:
            self.flush()

    def _flush_late(self) -> None:
        self._flush_call = None
        self.flush()

    def flush(self) -> "Deferred[None]":
        """Store what was noted; fires when it is, or could not be."""
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None
        if not self._notes:
            return succeed(None)
        notes, self._notes = self._notes, []
        return self._store.add(notes, self._limits).addErrback(self._not_stored, notes)

    @property
    def _limits(self) -> TraceLimits:
        return TraceLimits(self._seconds() - self._keep, self._max_notes)

    def _not_stored(self, failure: Failure, notes: list[Any]) -> None:
        self.dropped += len(notes)
        # The storage itself says once when it is out of order and when it is back.
        if not failure.check(StorageError):
            self._log.failure("{count} notes of the trace are lost", failure, count=len(notes))

    def startService(self) -> None:
        """Forget what became too old, now and every hour: an idle server does not keep it either."""
        super().startService()
        self._prune()

    def _prune(self) -> None:
        self._prune_call = self._clock.callLater(PRUNE_EVERY, self._prune)
        self._store.prune(self._limits).addErrback(self._not_stored, [])

    def stopService(self) -> "Deferred[None]":
        """Fires when everything noted is stored."""
        super().stopService()
        if self._prune_call is not None:
            self._prune_call.cancel()
            self._prune_call = None
        return self.flush()


def told(error: Exception) -> str:
    """The reason that an error of ours gives: its text, which is fit for a log, on one short line."""
    return " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
