"""Requests that this server makes of others, and who answers them."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.words.protocols.jabber.error import NS_XMPP_STANZAS, STANZA_CONDITIONS, StanzaError
from twisted.words.xish.domish import Element

from xmpppush.errors import AppServerUnreachable, BadStanza
from xmpppush.jids import parse_jid
from xmpppush.server.router import Router
from xmpppush.server.stream import stop_timer
from xmpppush.xep.conditions import is_bounce

ANSWER_TIMEOUT = 30.0  # seconds


class Requests:
    """
    Sends iqs of the served domains and waits for their answers.

    Args:
        random: Gives that many random octets, for ids that nobody else can answer.
    """

    def __init__(self, router: Router, clock: IReactorTime, random: Callable[[int], bytes]) -> None:
        self._router = router
        self._clock = clock
        self._random = random
        self._waiting: dict[str, tuple[str, Deferred[Element], Any]] = {}

    def ask(self, iq: Element) -> "Deferred[Element]":
        """
        Send a request; it gets its ``id`` here.

        Returns:
            Fires with the result. Fails with the `StanzaError` that who was asked answered, or with
            `AppServerUnreachable` where the request did not get there, or nobody answered.
        """
        id = self._random(12).hex()
        iq["id"] = id
        answer: Deferred[Element] = Deferred()
        timer = self._clock.callLater(ANSWER_TIMEOUT, self._settle, id, AppServerUnreachable("no answer"))
        self._waiting[id] = (iq["to"], answer, timer)
        self._router.route(iq)
        return answer

    def answered(self, stanza: Element) -> bool:
        """Is this result or error the answer to a request of ours? Then that is concluded."""
        id = stanza.attributes.get("id", "")
        waiting = self._waiting.get(id)
        if waiting is None:
            return False
        try:
            if parse_jid(stanza.attributes.get("from", "")).full() != parse_jid(waiting[0]).full():
                return False
        except BadStanza:
            return False
        if stanza.attributes.get("type") == "result":
            self._settle(id, stanza)
            return True
        error = error_in(stanza)
        if is_bounce(stanza):
            self._settle(id, AppServerUnreachable(str(error.text or error.condition)))
        else:
            self._settle(id, error)
        return True

    def gone(self, host: str) -> None:
        """Whoever is asked there is gone, and with it what it was about to answer."""
        for id, (to, _, _) in list(self._waiting.items()):
            if parse_jid(to).host == host:
                self._settle(id, AppServerUnreachable("gone without an answer"))

    def _settle(self, id: str, outcome: Any) -> None:
        waiting = self._waiting.pop(id, None)
        if waiting is None:
            return
        _, answer, timer = waiting
        stop_timer(timer)
        if isinstance(outcome, Exception):
            answer.errback(outcome)
        else:
            answer.callback(outcome)


def error_in(stanza: Element) -> StanzaError:
    """
    The error that a stanza of type ``error`` carries, as far as it can be understood.

    Where its type is missing or none of RFC 6120 section 8.3.2 it is the one that its condition has there.
    """
    error = next((child for child in stanza.elements() if child.uri is None and child.name == "error"), None)
    if error is None:
        return StanzaError("undefined-condition", "cancel")
    names = [str(child.name) for child in error.elements() if child.uri == NS_XMPP_STANZAS]
    texts = [str(child) for child in error.elements(NS_XMPP_STANZAS, "text")]
    condition = next((name for name in names if name in STANZA_CONDITIONS), "undefined-condition")
    kind = error.attributes.get("type")
    if kind not in ("auth", "cancel", "continue", "modify", "wait"):
        kind = None  # StanzaError knows
    return StanzaError(condition, kind, text=texts[0][:200] if texts else None)
