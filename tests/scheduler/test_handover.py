"""An entry that goes from another scheduler to this one goes on where the other ended."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lightbus_scheduler import Entry, Every, Progress, ScheduleError, between, new_command
from lightbus_scheduler.handover import taken
from lightbus_scheduler.plain import Plain

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
ENTRY = Entry(id="report", schedule=Every(timedelta(seconds=10)))
HELD = Progress(decided=T0, paused="left")


def take(last: datetime) -> Plain:
    return new_command("take", "report", last=last.isoformat(), note="left")


def test_every_slot_since_the_others_last_run_is_still_to_be_decided() -> None:
    last = T0 - timedelta(seconds=3)
    begun = taken(take(last), ENTRY, HELD, now=T0 + timedelta(seconds=25))
    assert begun == Progress(decided=last, anchor=last, last_slot=last, last_at=last)


def test_after_a_long_absence_the_latest_missed_slot_alone_is_made_up_for() -> None:
    last, now = T0, T0 + timedelta(hours=5, seconds=4)
    begun = taken(take(last), ENTRY, HELD, now)
    assert begun is not None
    assert begun.anchor is not None
    due = list(between(Every(timedelta(seconds=10), begun.anchor), begun.decided, now))
    assert due == [T0 + timedelta(hours=5)]


@pytest.mark.parametrize("paused", [None, "for repairs"])
def test_an_entry_that_is_ours_already_stays_as_it_is(paused: str | None) -> None:
    ours = Progress(decided=T0, paused=paused, fired=3)
    assert taken(take(T0 - timedelta(days=1)), ENTRY, ours, T0) is None


def test_of_code_that_is_not_loaded_yet_it_is_noted_for_whoever_loads_it() -> None:
    begun = taken(take(T0), None, None, T0 + timedelta(days=1))
    assert begun == Progress(decided=T0, anchor=T0, last_slot=T0, last_at=T0)


def test_a_last_run_that_is_no_moment_is_refused() -> None:
    with pytest.raises(ScheduleError, match="last"):
        taken(new_command("take", "report", last="yesterday", note="left"), ENTRY, HELD, T0)
