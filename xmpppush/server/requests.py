"""Requests that the server itself sends to others, and their answers."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.words.xish.domish import Element

from xmpppush.errors import BadStanza, TryLater, Unreachable
from xmpppush.interfaces import IRouter
from xmpppush.jids import parse_jid
from xmpppush.xep.conditions import bounce_reason

ANSWER_TIMEOUT = 30.0  # seconds


class Requests:
    """
    Asks, and gives up asking after a while.

    Args:
        random: Gives that many random octets, for ids: nobody else can answer what they cannot name.
    """

    def __init__(self, router: IRouter, clock: IReactorTime, random: Callable[[int], bytes]) -> None:
        self._router = router
        self._clock = clock
        self._random = random
        # By id, the oldest first: until when, whom, and who wants to know.
        self._asked: dict[str, tuple[float, str, Deferred[Element]]] = {}
        self._timer: Any = None

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, iq: Element) -> "Deferred[Element]":
        """
        Send a request; its id is set here.

        Returns:
            Fires with the answer, be it a result or an error of whom was asked.

        Raises (or fails with):
            Unreachable: They were not reached.
            TryLater: They have not answered.
        """
        number = iq["id"] = self._random(12).hex()
        answer: Deferred[Element] = Deferred()
        self._asked[number] = self._clock.seconds() + ANSWER_TIMEOUT, parse_jid(iq["to"]).full(), answer
        if self._timer is None:
            self._timer = self._clock.callLater(ANSWER_TIMEOUT, self._too_late)
        self._router.route(iq)
        return answer

    def answered(self, stanza: Element) -> bool:
        """Is this iq, an answer to one of our domains, one that is waited for?"""
        number = stanza.attributes.get("id", "")
        asked = self._asked.get(number)
        if asked is None or not _is_from(stanza, asked[1]):
            return False
        del self._asked[number]
        if not self._asked and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        answer = asked[2]
        reason = bounce_reason(stanza)
        if reason is None:
            answer.callback(stanza)
        else:
            answer.errback(Unreachable(reason))
        return True

    def _too_late(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        late = []
        for number, (deadline, _, answer) in self._asked.items():
            if deadline > now:
                self._timer = self._clock.callLater(deadline - now, self._too_late)
                break
            late.append((number, answer))
        for number, _ in late:
            del self._asked[number]
        for _, answer in late:
            answer.errback(TryLater("no answer"))


def _is_from(stanza: Element, to: str) -> bool:
    try:
        return bool(parse_jid(stanza.attributes.get("from", "")).full() == to)
    except BadStanza:
        return False
