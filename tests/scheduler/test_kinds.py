"""Intervals, single moments and windows; and the search for slots, held against walking through all of them."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightbus_scheduler import Cron, Every, Once, Schedule, ScheduleError, Window, between, last_between, parse
from lightbus_scheduler.plain import entry_from, plain_schedule, schedule_from

T0 = datetime(2025, 3, 29, 22, 0, tzinfo=timezone.utc)  # the clocks of Europe change that night
MODEST = settings(max_examples=100, deadline=None, derandomize=True, database=None)

SCHEDULES: list[Schedule] = [
    Every(timedelta(seconds=7), T0 + timedelta(seconds=3)),
    Every(timedelta(minutes=13)),
    Every(timedelta(seconds=0.4), T0),
    Once(T0 + timedelta(hours=2)),
    Cron("*/7 * * * *", "Europe/Berlin"),
    Cron("30 2 * * *", "Europe/Berlin", gap="skip"),
    Cron("30 2 * * *", "Europe/Lisbon"),
    Cron(parse("*/30 9-10 * * *", "celery"), "Antarctica/Troll", fold="both"),
    Window(Every(timedelta(seconds=11), T0), T0 + timedelta(seconds=11), T0 + timedelta(minutes=2)),
]
moments = st.floats(0, 3 * 3600).map(lambda seconds: T0 + timedelta(seconds=seconds))


@MODEST
@given(st.sampled_from(SCHEDULES), st.lists(moments, min_size=3, max_size=3))
def test_slots_of_a_span_are_those_of_its_parts(schedule: Schedule, drawn: list[datetime]) -> None:
    first, middle, last = sorted(drawn)
    parts = [*between(schedule, first, middle), *between(schedule, middle, last)]
    assert list(between(schedule, first, last)) == parts
    assert all(a < b for a, b in itertools.pairwise(parts))


@MODEST
@given(st.sampled_from(SCHEDULES), moments, moments)
def test_the_last_slot_is_found_without_walking_through_all(schedule: Schedule, a: datetime, b: datetime) -> None:
    walked = list(between(schedule, a, b))
    assert last_between(schedule, a, b) == (walked[-1] if walked else None)


def test_the_last_slot_of_ten_years_of_seconds_takes_few_steps() -> None:
    asked = []

    class Counted:
        def next_after(self, moment: datetime) -> datetime | None:
            asked.append(moment)
            return Every(timedelta(seconds=1), T0).next_after(moment)

    assert last_between(Counted(), T0, T0 + timedelta(days=3650)) == T0 + timedelta(days=3650)
    assert len(asked) < 100


def test_an_interval_without_anchor_counts_from_the_first_moment_that_is_given_and_keeps_it() -> None:
    every = Every(timedelta(seconds=30)).anchored(T0 + timedelta(seconds=5))
    assert every.next_after(T0 + timedelta(seconds=6)) == T0 + timedelta(seconds=35)
    assert every.anchored(T0) == every


@pytest.mark.parametrize(
    "plain, word",
    [
        ({"cron": "0 3 * * *", "every_seconds": 3}, "cron, every_seconds"),
        ({}, "nothing"),
        ({"cron": "0 3 31 2 *"}, "31 2"),
        ({"cron": "0 3 * * *", "tz": "Europe/Lisboa"}, "Europe/Lisboa"),
        ({"every_seconds": 0}, "0 s"),
        ({"every_seconds": "5"}, "'5'"),
        ({"at": "tomorrow"}, "tomorrow"),
        ({"at": "2026-01-01T00:00:00"}, "2026-01-01T00:00:00"),
        ({"every_seconds": 5, "misfire": "twice"}, "twice"),
        ({"every_seconds": 5, "misfire": {"grace": 3}}, "grace_seconds"),
        ({"every_seconds": 5, "overlap": "both"}, "both"),
        ({"every_seconds": 5, "jitter_seconds": -1}, "-1"),
        ({"every_seconds": 5, "count": 0}, "0"),
        ({"every_seconds": 5, "start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "end"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_field_and_value(plain: dict[str, object], word: str) -> None:
    with pytest.raises(ScheduleError, match=word):
        entry_from({"id": "x", **plain})


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if not isinstance(s, Window)], ids=str)
def test_a_schedule_survives_being_written_down(schedule: Schedule) -> None:
    assert schedule_from(plain_schedule(schedule)) == schedule
