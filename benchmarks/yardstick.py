"""
How quick this machine is now.

The same code took two to three times as long on the same machine on another day, so a figure without
its yardstick says little.
"""

import os
import time

from twisted.words.protocols.jabber.jid import JID

FLOORS_YARDSTICK = 48.0  # FLOORS.md section 2


def yardstick_on(core: int | None, times: int = 2_000) -> float:
    """Microseconds of CPU of twisted's ``JID(text)``, pure Python stringprep, on this core."""
    ours = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        start = time.process_time()
        for number in range(times):
            JID(f"user{number}@localhost/phone")
        return (time.process_time() - start) / times * 1e6
    finally:
        os.sched_setaffinity(0, ours)
