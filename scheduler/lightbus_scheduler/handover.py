"""An entry that another scheduler has fired so far, and is this one's from now on."""

from __future__ import annotations

from datetime import datetime, timedelta

from .entries import Entry, Progress
from .kinds import Every, last_between
from .plain import Plain, moment_from

#: Since the other's last run: for longer, nobody watched, and what was missed is made up for once.
UNWATCHED_AFTER = timedelta(minutes=1)


def taken(command: Plain, entry: Entry | None, progress: Progress | None, now: datetime) -> Progress | None:
    """What is known of the entry once the command `take` is carried out; None when it is ours already.

    Args:
        command: `last`, the other's last run; `note`, that of the pause in which the entry was left to it.
        entry: None where this process has not loaded the code that defines it.

    Raises:
        ScheduleError: `last` is no moment.
    """
    last = moment_from(command["last"], "last")
    begun = Progress(decided=last, anchor=last, last_slot=last, last_at=last)
    if entry is None or progress is None:
        return begun
    if progress.paused != command["note"]:
        return None
    if now - last <= UNWATCHED_AFTER:
        return begun
    schedule = entry.schedule
    if isinstance(schedule, Every) and schedule.anchor is None:
        schedule = schedule.anchored(last)
    latest = last_between(schedule, last, now)
    before = None if latest is None else last_between(schedule, last, latest - timedelta(microseconds=1))
    return begun if before is None else Progress(decided=before, anchor=last, last_slot=last, last_at=last)
