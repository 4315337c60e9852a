"""What an entry of `beat_schedule` means, written with Celery's objects or with ours."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import celery.beat
import celery.schedules
import pytest

from lightbus.compat import TaskApp
from lightbus.compat.beat import jobs_of
from lightbus.compat.schedules import crontab, periodic_tasks, schedule, schedule_of, solar
from lightbus.core.errors import ConfigError
from lightbus_scheduler import Cron, Every

LISBON = ZoneInfo("Europe/Lisbon")
MONTH = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"minute": 30, "hour": "3"},
        {"minute": "*/15", "hour": "22-2", "day_of_week": "fri-mon"},
        {"minute": "0", "hour": [1, 13], "day_of_month": "1,15", "day_of_week": (1, 2)},
        {"minute": 0, "hour": 0, "month_of_year": "*/3", "day_of_month": {1, 2}},
    ],
)
def test_a_crontab_of_celery_and_one_of_ours_fire_at_the_same_times(values: dict[str, Any]) -> None:
    theirs, ours = (schedule_of(kind(**values), LISBON) for kind in (celery.schedules.crontab, crontab))
    assert isinstance(theirs, Cron)
    assert theirs == ours
    assert theirs.tz is LISBON
    assert len(list(islice(theirs.iterate(MONTH), 5))) == 5


def test_positional_values_of_a_crontab_are_in_celerys_order() -> None:
    values = ("1", "2", "3", "4", "5")
    assert schedule_of(celery.schedules.crontab(*values), LISBON) == schedule_of(crontab(*values), LISBON)


def test_intervals_in_every_spelling_are_the_same() -> None:
    minute = timedelta(minutes=1)
    spellings = [60, 60.0, minute, schedule(minute), schedule(60.0), celery.schedules.schedule(minute)]
    assert {schedule_of(one, LISBON) for one in spellings} == {Every(minute)}
    relative = schedule_of(celery.schedules.schedule(timedelta(hours=1), relative=True), LISBON)
    assert relative.next_after(MONTH + timedelta(minutes=7)) == MONTH + timedelta(hours=1)


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"schedule": 5}, "has no 'task'"),
        ({"task": "t"}, "has no 'schedule'"),
        ({"task": "t", "schedule": 0}, "interval cannot be '0 s'"),
        ({"task": "t", "schedule": "0 3 * * *"}, "is no schedule"),
        ({"task": "t", "schedule": 5, "args": "x"}, r"a tuple of one is written \(x,\)"),
        ({"task": "t", "schedule": solar("moonset", 38.7, -9.1)}, "solar cannot be 'moonset'"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused_by_its_name_and_value(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"'nightly'.*{words}"):
        list(periodic_tasks({"nightly": entry}, LISBON))


def test_entries_that_celery_keeps_as_objects_are_read_too() -> None:
    app = celery.Celery("objects", set_as_current=False)
    kept = celery.beat.ScheduleEntry(
        name="kept", task="proj.tick", schedule=celery.schedules.schedule(5.0), args=(1,),
        options={"queue": "low"}, app=app,
    )  # fmt: skip
    (read,) = periodic_tasks({"kept": kept}, LISBON)
    assert (read.task, read.args, read.options) == ("proj.tick", (1,), {"queue": "low"})
    assert read.schedule == Every(timedelta(seconds=5))
    app.close()


def test_arguments_that_do_not_fit_the_task_are_refused_before_anything_fires() -> None:
    app = TaskApp()

    @app.task(name="proj.add")  # type: ignore[untyped-decorator]
    def add(a: int, b: int) -> int:
        return a + b

    with pytest.raises(ConfigError, match="'sum'"):
        jobs_of(app, {"sum": {"task": "proj.add", "schedule": 5, "args": (1,)}}, "beat_schedule")
