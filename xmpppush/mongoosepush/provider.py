"""What the pools towards HTTP providers have in common: how they stand, and what is said about it."""

from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from xmpppush.errors import TryLater, Unreachable
from xmpppush.http.outage import Outage

# A bit less than the API gives a provider, so that the pool says what it was.
REQUEST_TIMEOUT = 4.5
STOP_TIME = 3.0  # seconds that a stop waits for answers
REMIND = 3600.0  # seconds until the same remark is made again


def without_answer(error: TryLater) -> TryLater:
    """A fault of the connection in the words of `xmpppush.mongoosepush.api.STATUS`."""
    if isinstance(error, Unreachable):
        return TryLater("unable_to_connect")
    if error.reason == "no answer in time":
        return TryLater("request_timeout")
    return TryLater("service_internal" if error.reason == "stopping" else "connection_lost")


class Remarks:
    """Log lines about a pool: of each kind one, and after an hour another."""

    _log = Logger()

    def __init__(self, service: str, name: str, clock: IReactorTime) -> None:
        self._service = service
        self._name = name
        self._clock = clock
        self._said: dict[str, float] = {}

    def say(self, kind: str, remark: str) -> None:
        """
        Args:
            kind: One of a few: what a provider or a client made up is none.
            remark: For the operator; no device id, no token.
        """
        now = self._clock.seconds()
        if now - self._said.get(kind, float("-inf")) >= REMIND:
            self._said[kind] = now
            self._log.warn(
                "{service} pool {pool}: {remark}", service=self._service, pool=self._name, remark=remark
            )


class Reach:
    """Does a provider answer at all? Said when it no longer does, and when it does again."""

    _log = Logger()

    def __init__(self, service: str, name: str, host: str, clock: IReactorTime) -> None:
        self._about = {"service": service, "pool": name, "host": host}
        self._clock = clock
        self._outage = Outage()

    @property
    def lost(self) -> bool:
        """Was the last try in vain?"""
        return self._outage.since is not None

    def answered(self) -> None:
        """It did, whatever it said."""
        if self._outage.since is None:
            return
        lasted = self._outage.succeeded(self._clock.seconds())
        if lasted is not None:
            self._log.info(
                "{service} pool {pool}: {host} answers again after {seconds} s",
                seconds=round(lasted, 1),
                **self._about,
            )

    def failed(self, failure: Failure) -> TryLater:
        """There is no answer; returns what to tell, or raises what is no such fault."""
        failure.trap(TryLater)
        error = cast(TryLater, failure.value)
        if error.reason != "stopping" and self._outage.failed(error.reason, self._clock.seconds()):
            self._log.error(
                "{service} pool {pool}: {host} cannot be reached: {reason}",
                reason=error.reason,
                **self._about,
            )
        return without_answer(error)
