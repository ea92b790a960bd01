"""The trace as text; test_push_stories.py compares the manual's stories with what really happens."""

from pathlib import Path

import pytest

from xmpppush.model import TraceNote
from xmpppush.stories import stories_of, told, verdict_on
from xmpppush.trace import REASONS, STAGES, Decision

T = 1_795_363_311.004  # 2026-11-22 16:01:51.004 UTC
PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.rst").read_text()
BOB = {"sender": "bob@localhost", "message": "m1"}
FCM = {"service": "fcm"}


def a_story(*notes, trace="660df98652960"):
    """Notes from (seconds, node, decision, reason, fields)."""
    return [
        TraceNote(trace, T + seconds, "alice@localhost", node, decision, reason, fields)
        for seconds, node, decision, reason, fields in notes
    ]


ACCEPTED = (0.0, "a1f", Decision.ACCEPTED, "no-session", BOB)
STORIES = {
    "delivered": (
        [ACCEPTED, (0.023, "a1f", Decision.DELIVERED, "HTTP 200", {**FCM, "attempt": 1})],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  pushed to 1 device
    16:01:51.004  mod_push      node a1f: accepted for a push: nobody of this account is connected
    16:01:51.027  push service  node a1f: delivered to fcm, try 1: HTTP 200
""",
    ),
    "retried": (
        [
            ACCEPTED,
            (5.001, "a1f", Decision.POSTPONED, "503 overloaded", {**FCM, "attempt": 1, "delay": 0.8}),
            (5.823, "a1f", Decision.DELIVERED, "HTTP 200", {**FCM, "attempt": 2}),
        ],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  pushed to 1 device
    16:01:51.004  mod_push      node a1f: accepted for a push: nobody of this account is connected
    16:01:56.005  push service  node a1f: try 1 failed: 503 overloaded; the next in 0.8 s
    16:01:56.827  push service  node a1f: delivered to fcm, try 2: HTTP 200
""",
    ),
    "waiting": (
        [
            ACCEPTED,
            (0.01, "a1f", Decision.POSTPONED, "connection refused", {**FCM, "attempt": 1, "delay": 1}),
        ],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  on its way to 1 device
    16:01:51.004  mod_push      node a1f: accepted for a push: nobody of this account is connected
    16:01:51.014  push service  node a1f: try 1 failed: connection refused; the next in 1 s
""",
    ),
    "given up": (
        [
            ACCEPTED,
            (0.01, "a1f", Decision.POSTPONED, "connection refused", {**FCM, "attempt": 1, "delay": 86000}),
            (86000.01, "a1f", Decision.GIVEN_UP, "connection refused", {**FCM, "attempt": 2}),
        ],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  nothing was pushed: given up after 2 tries: connection refused
    16:01:51.004  mod_push      node a1f: accepted for a push: nobody of this account is connected
    16:01:51.014  push service  node a1f: try 1 failed: connection refused; the next in 86000 s
    2026-11-23 15:55:11.014  push service  node a1f: given up after 2 tries: connection refused
""",
    ),
    "refused": (
        [ACCEPTED, (0.023, "a1f", Decision.REFUSED, "400 invalid_request", {**FCM, "attempt": 1})],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  nothing was pushed: the push service answered 400 invalid_request
    16:01:51.004  mod_push      node a1f: accepted for a push: nobody of this account is connected
    16:01:51.027  push service  node a1f: refused: 400 invalid_request
""",
    ),
    "removed": (
        [
            ACCEPTED,
            (0.023, "a1f", Decision.UNREGISTERED, "410 unregistered", {**FCM, "attempt": 1}),
            (0.023, "a1f", Decision.REMOVED, "device-gone", {}),
        ],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  nothing was pushed: the push service answered 410 unregistered
    16:01:51.004  mod_push      node a1f: accepted for a push: nobody of this account is connected
    16:01:51.027  push service  node a1f: unregistered: 410 unregistered
    16:01:51.027  registration  node a1f: removed: the push service does not know the device any more
""",
    ),
    "filtered": (
        [(0.0, "", Decision.FILTERED, "no-content", BOB)],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  nothing was pushed: it has no text
    16:01:51.004  mod_push      filtered: it has no text
""",
    ),
    "online elsewhere": (
        [
            (0.0, "c07", Decision.ONLINE, "device-online", BOB),
            (0.0, "a1f", Decision.ACCEPTED, "device-absent", BOB),
            (0.023, "a1f", Decision.DELIVERED, "HTTP 200", {**FCM, "attempt": 1}),
        ],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  pushed to 1 device, not to 1 device: the device is connected and gets the message itself
    16:01:51.004  mod_push      node c07: online: the device is connected and gets the message itself
    16:01:51.004  mod_push      node a1f: accepted for a push: the device is not connected
    16:01:51.027  push service  node a1f: delivered to fcm, try 1: HTTP 200
""",
    ),
    "app server": (
        [(0.0, "a1f", Decision.NOT_PUBLISHED, "no way to pubsub.example", BOB)],
        """
2026-11-22 16:01:51.004 UTC  message m1 from bob@localhost  [660df98652960]
  nothing was pushed: the app server did not take it: no way to pubsub.example
    16:01:51.004  app server    node a1f: not published: no way to pubsub.example
""",
    ),
    "disabled": (
        [(0.0, "a1f", Decision.REMOVED, "client", {})],
        """
2026-11-22 16:01:51.004 UTC  registration  [660df98652960]
    16:01:51.004  registration  node a1f: removed: the client disabled it
""",
    ),
}


@pytest.mark.parametrize(("notes", "text"), STORIES.values(), ids=STORIES)
def test_a_story_is_told(notes, text):
    """When and about what, then the answer, then how it came to it."""
    (story,) = stories_of(a_story(*notes))
    assert told(story) == text.strip("\n").split("\n")


@pytest.mark.parametrize("word", [*Decision, *REASONS.values()])
def test_the_manual_has_the_vocabulary(word):
    """Each decision and reason is explained."""
    assert word in " ".join(PAGE.split()), word


def test_what_is_alike_is_told_once():
    """Somebody types: the last of it, and how often."""
    notes = []
    for number in range(5):
        notes += a_story(
            (
                number,
                "",
                Decision.FILTERED,
                "no-content",
                {"sender": "bob@localhost", "message": f"m{number}"},
            ),
            trace=f"t{number}",
        )
    notes += a_story((9, "a1f", Decision.ACCEPTED, "no-session", BOB), trace="t9")
    typing, message = stories_of(notes)
    assert told(typing) == [
        "2026-11-22 16:01:55.004 UTC  message m4 from bob@localhost  [t4]",
        "  nothing was pushed: it has no text",
        "    16:01:55.004  mod_push      filtered: it has no text",
        "    and 4 more like it since 2026-11-22 16:01:51.004",
    ]
    assert message.notes[0].trace == "t9"


def test_pushes_are_told_each():
    """Also where two were the same."""
    notes = a_story(ACCEPTED, trace="t1") + a_story(ACCEPTED, trace="t2")
    assert len(stories_of(notes)) == 2


def test_a_story_without_its_beginning():
    """After a kill -9, or when it is too old."""
    notes = a_story((0.0, "a1f", Decision.DELIVERED, "HTTP 200", {**FCM, "attempt": 3}))
    (story,) = stories_of(notes)
    assert told(story)[0] == "2026-11-22 16:01:51.004 UTC  notification  [660df98652960]"


def test_words_of_a_newer_version_are_shown_as_they_are():
    """Notes outlive a downgrade."""
    notes = a_story((0.0, "a1f", "teleported", "to-mars", {}))
    (story,) = stories_of(notes)
    assert told(story)[1:] == [
        "  nothing was pushed: to-mars",
        "    16:01:51.004                node a1f: teleported: to-mars",
    ]


@pytest.mark.parametrize("decision", Decision)
def test_every_decision_alone_can_be_told(decision):
    """None is left without words, nor needs fields that may be missing."""
    (story,) = stories_of(a_story((0.0, "a1f", decision, "", {})))
    assert told(story)
    assert bool(verdict_on(story.notes)) == (STAGES[decision] != "registration")


def test_stories_of_an_earlier_version_are_told_as_well_as_they_can_be():
    """Before its limit, its successor and its next try were noted."""

    def told_of(decision, reason, **fields):
        (story,) = stories_of(a_story((0.0, "a1f", decision, reason, fields)))
        return told(story)[1].strip()

    assert told_of(Decision.GIVEN_UP, "503", attempt=1) == "nothing was pushed: given up after 1 try: 503"
    assert told_of(Decision.COLLAPSED, "", attempt=1) == "nothing was pushed: collapsed"
    assert (
        told_of(Decision.SUSPENDED, "not you") == "nothing was pushed: the registration is suspended: not you"
    )
