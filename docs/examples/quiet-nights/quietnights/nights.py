"""When it is night."""

from datetime import datetime, time

from twisted.words.xish.domish import Element

from xmpppush.mod_push.rules import importance_of
from xmpppush.model import Importance

EVENING, MORNING = time(22, 0), time(7, 0)
ASLEEP = Importance(False, "asleep")


def is_night(now: datetime) -> bool:
    return not MORNING <= now.time() < EVENING


def at(now: datetime, stanza: Element) -> Importance:
    """What ``defaults`` says, except that at night only what is urgent is a push."""
    importance = importance_of(stanza)
    if importance.push and not importance.urgent and is_night(now):
        return ASLEEP
    return importance
