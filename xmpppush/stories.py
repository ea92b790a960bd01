"""
The trace as a person reads it: pure text from notes.

A story is headed by when and about what it is, then the answer in one line, then how it came to it.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import evolve, field, frozen

from xmpppush.model import REMOTE, TraceNote
from xmpppush.trace import REASONS, STAGES, Decision, Stage

UNDER_WAY = (Decision.ACCEPTED, Decision.BATCHED, Decision.POSTPONED)
# A story of these alone says no more than the last one like it did: somebody types, or both are online.
UNEVENTFUL = (Decision.ONLINE, Decision.FILTERED)
LIMITS = {
    "max_attempts": "the most allowed ([mod_push_service_mongoosepush] max_attempts)",
    "ttl": "too old for another ([mod_push_service_mongoosepush] ttl)",
}


@frozen
class Story:
    """
    What one message led to for one account.

    Attributes:
        notes: By time, at least one.
        like_it: When further, uneventful ones like it were before it.
    """

    notes: tuple[TraceNote, ...]
    like_it: tuple[float, ...] = field(default=())

    @property
    def began(self) -> float:
        return self.notes[0].at


def stories_of(notes: Iterable[TraceNote]) -> list[Story]:
    """The stories, by their beginning; of several uneventful ones in a row that are alike the last."""
    by_trace: dict[str, list[TraceNote]] = {}
    for note in notes:
        by_trace.setdefault(note.trace, []).append(note)
    stories: list[Story] = []
    for story in sorted((Story(tuple(each)) for each in by_trace.values()), key=lambda story: story.began):
        if stories and _is_like(story, stories[-1]):
            before = stories.pop()
            story = evolve(story, like_it=(*before.like_it, before.began))
        stories.append(story)
    return stories


def _is_like(story: Story, other: Story) -> bool:
    return _gist(story) == _gist(other) and all(note.decision in UNEVENTFUL for note in story.notes)


def _gist(story: Story) -> object:
    return [(note.node, note.decision, note.reason, note.fields.get("sender")) for note in story.notes]


def told(story: Story) -> list[str]:
    """The lines of a story."""
    first = story.notes[0]
    day = _day(first.at)
    lines = [f"{day} {_time(first.at)} UTC  {_subject(story)}  [{first.trace}]"]
    verdict = verdict_on(story.notes)
    if verdict:
        lines.append(f"  {verdict}")
    for note in story.notes:
        when = _time(note.at) if _day(note.at) == day else f"{_day(note.at)} {_time(note.at)}"
        lines.append(f"    {when}  {_stage(note):12}  {_about(note)}{sentence(note)}")
    if story.like_it:
        count = len(story.like_it)
        lines.append(f"    and {count} more like it since {_day(story.like_it[0])} {_time(story.like_it[0])}")
    return lines


def as_values(story: Story) -> dict[str, Any]:
    """The same for programs: plain JSON values, the words of `told` beside those of the vocabulary."""
    return {
        "id": story.notes[0].trace,
        "account": story.notes[0].account,
        "about": _subject(story),
        "answer": verdict_on(story.notes),
        "alike": len(story.like_it),
        "notes": [
            {
                "at": note.at,
                "stage": _stage(note),
                "node": note.node,
                "decision": note.decision,
                "reason": note.reason,
                "told": sentence(note),
                "fields": dict(note.fields),
            }
            for note in story.notes
        ],
    }


def verdict_on(notes: Sequence[TraceNote]) -> str:
    """What became of it, ``""`` where the story is about no message."""
    last = {note.node: note for note in notes if _stage(note) != Stage.REGISTRATION}
    if not last:
        return ""
    said = []
    delivered = sum(note.decision == Decision.DELIVERED for note in last.values())
    if delivered:
        said.append(f"pushed to {_devices(delivered)}")
    waiting = [note for note in last.values() if note.decision in UNDER_WAY]
    if waiting:
        said.append(f"on its way to {_devices(len(waiting))}")
    others = [note for note in last.values() if note not in waiting and note.decision != Decision.DELIVERED]
    whys = dict.fromkeys(_why(note) for note in others)
    if whys and not said:
        said.append(f"nothing was pushed: {'; '.join(whys)}")
    elif whys:
        said.append(f"not to {_devices(len(others))}: {'; '.join(whys)}")
    return ", ".join(said)


def is_under_way(story: Story) -> bool:
    """Does a push of it still wait?"""
    last = {note.node: note for note in story.notes if _stage(note) != Stage.REGISTRATION}
    return any(note.decision in UNDER_WAY for note in last.values())


def sentence(note: TraceNote) -> str:
    """What a note says, without time and node."""
    reason = REASONS.get(note.reason, note.reason)
    attempt, service = note.fields.get("attempt", 0), note.fields.get("service", "the push service")
    if note.decision == Decision.DELIVERED and service.startswith(REMOTE):
        return f"published to app server {service.removeprefix(REMOTE)}, try {attempt}"
    if note.decision == Decision.DELIVERED:
        return f"delivered to {service}, try {attempt}: {reason}"
    if note.decision == Decision.POSTPONED:
        return f"try {attempt} failed: {reason}; the next in {note.fields.get('delay', 0):g} s"
    if note.decision == Decision.GIVEN_UP:
        return _given_up(note, reason)
    if note.decision == Decision.ACCEPTED:
        return f"accepted for a push: {reason}"
    if note.decision == Decision.COLLAPSED and note.fields.get("into"):
        return f"collapsed: a newer push of the same sender took its place, see [{note.fields['into']}]"
    if note.decision in (Decision.SUSPENDED, Decision.DISABLED) and note.fields.get("until"):
        return f"suspended until {_moment(note.fields['until'])}: {reason}"
    if note.decision == Decision.ONLINE and note.fields.get("resource"):
        return f"online as {note.account}/{note.fields['resource']}: {reason}"
    return f"{note.decision}: {reason}" if reason else note.decision


def _given_up(note: TraceNote, reason: str) -> str:
    """Whose limit it was tells the operator what to change, and its last error what to mend."""
    attempt, limit = note.fields.get("attempt", 0), LIMITS.get(note.fields.get("limit", ""), "")
    tries = f"{attempt} {'try' if attempt == 1 else 'tries'}"
    if limit and note.reason != "too old":
        tries = f"{tries}, {limit}"
    return f"given up after {tries}: {reason}"


def _why(note: TraceNote) -> str:
    reason = REASONS.get(note.reason, note.reason)
    if note.decision == Decision.GIVEN_UP:
        return sentence(note)
    if note.decision == Decision.COLLAPSED:
        return sentence(note).removeprefix("collapsed: ")
    if note.decision in (Decision.REFUSED, Decision.UNREGISTERED):
        return f"the push service answered {reason}"
    if note.decision == Decision.NOT_PUBLISHED:
        return f"the app server did not take it: {reason}"
    if note.decision == Decision.SUSPENDED:
        return f"the registration is {sentence(note)}"
    return reason or note.decision


def _stage(note: TraceNote) -> str:
    return STAGES.get(note.decision, "")


def _subject(story: Story) -> str:
    for note in story.notes:
        if note.reason == "test" and note.decision == Decision.ACCEPTED:
            return "test notification"
        sender = note.fields.get("sender")
        if sender:
            message = note.fields.get("message")
            return f"message {message} from {sender}" if message else f"message from {sender}"
    if all(_stage(note) == Stage.REGISTRATION for note in story.notes):
        return "registration"
    return "notification"


def _about(note: TraceNote) -> str:
    return f"node {note.node}: " if note.node else ""


def _devices(count: int) -> str:
    return f"{count} device{'' if count == 1 else 's'}"


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f}"[:-3]
