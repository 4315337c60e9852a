"""What cannot be scheduled is refused at once, from wherever it comes, by its entry, field and value."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lightbus.cli.apps import LoadedApp
from lightbus.cli.scheduling import AppSchedule
from lightbus.compat import TaskApp
from lightbus_scheduler import ScheduleError
from tests.cli.conftest import Ended, Project

CODE = """
from lightbus import Bus

bus = Bus("{prefix}", url="sqlite:///bus.db")


@bus.schedule({cron!r}, tz={tz!r}, name="nightly")
def nightly():
    pass
"""
TASKS = """
import lightbus.drivers.sqlite
from celery import Celery
from celery.schedules import crontab

app = Celery("{prefix}", broker="sqlite:///bus.db")


@app.task(name="proj.sweep")
def sweep():
    pass
"""
CELERY = """
from types import SimpleNamespace

app.conf.timezone = {tz!r}
minute, hour, day_of_month, month_of_year, day_of_week = {cron!r}.split()
# as a version of Celery that does not look at the values leaves them
app.conf.beat_schedule = {{
    "nightly": {{
        "task": {task!r},
        "schedule": SimpleNamespace(
            minute=minute, hour=hour, day_of_month=day_of_month, month_of_year=month_of_year, day_of_week=day_of_week
        ),
    }},
}}
"""

#: Fault to what is wrong, and the words that tell the field and the value.
FAULTS = {
    "expression": ({"cron": "0 25 * * *"}, ["hour cannot be '25'"]),
    "impossible date": ({"cron": "0 3 31 2 *"}, ["'0 3 31 2 *'", "cannot be '31 2'"]),
    "zone": ({"tz": "Mars/Base"}, ["zone", "'Mars/Base'"]),
    "task": ({"task": "proj.swep"}, ["task cannot be 'proj.swep'", "did you mean 'proj.sweep'?"]),
}
RIGHT = {"cron": "0 3 * * *", "tz": "Europe/Lisbon", "task": "proj.sweep"}


def from_code(project: Project, prefix: str, entry: dict[str, str]) -> Ended:
    project.write("proj.py", CODE.format(prefix=prefix, **entry))
    return project.run("beat", "-A", "proj", "--check")


def from_file(project: Project, prefix: str, entry: dict[str, str]) -> Ended:
    project.write("proj.py", TASKS.format(prefix=prefix))
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    project.write("lightbus.toml", "\n".join(['app = "proj"', "[schedule.nightly]", *lines]))
    return project.run("beat", "--check")


def from_celery(project: Project, prefix: str, entry: dict[str, str]) -> Ended:
    project.write("proj.py", TASKS.format(prefix=prefix) + CELERY.format(**entry))
    return project.run("beat", "-A", "proj", "--check")


def from_add(project: Project, prefix: str, entry: dict[str, str]) -> Ended:
    project.write("proj.py", TASKS.format(prefix=prefix))
    return project.run("schedule", "add", "nightly", "--definition", json.dumps(entry), "-A", "proj")


Source = Callable[[Project, str, "dict[str, str]"], Ended]
#: Exit code of each source: a configuration that is wrong, or a command that is.
SOURCES: dict[Source, int] = {from_code: 78, from_file: 78, from_celery: 78, from_add: 2}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_what_is_right_is_taken_from_each_source(empty: Project, prefix: str, source: Source) -> None:
    done = source(empty, prefix, RIGHT)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "source, fault",
    # a function in the code is its own target, and has no task whose name could be wrong
    [(source, fault) for source in SOURCES for fault in FAULTS if (source, fault) != (from_code, "task")],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_fault_is_refused_by_entry_field_and_value(empty: Project, prefix: str, source: Source, fault: str) -> None:
    change, words = FAULTS[fault]

    done = source(empty, prefix, {**RIGHT, **change})

    assert done.code == SOURCES[source], done.err
    if (source, fault) != (from_celery, "zone"):  # the app's setting, and no entry's
        words = [*words, "nightly"]
    assert all(word in done.err for word in words), done.err


@pytest.mark.parametrize(
    "key, value",
    [
        ("jitter_seconds", "5"), ("jitter_seconds", -1), ("overlap_limit_seconds", 0), ("count", "3"), ("count", 0),
        ("count", True), ("misfire", "later"), ("misfire", 7), ("misfire", {"limit": "x"}), ("overlap", ["skip"]),
        ("start", "tomorrow"), ("end", "2026-01-01T00:00:00"), ("tz", 7), ("dialect", "quartz"), ("dialect", ["cron"]),
        ("fold", "never"), ("gap", 3), ("args", {"a": 1}), ("kwargs", ["a"]), ("options", "low"), ("task", 7),
        ("croon", "x"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused_by_its_key(key: str, value: object) -> None:
    schedule = AppSchedule(LoadedApp(names=(), task_app=TaskApp()))

    with pytest.raises(ScheduleError) as refused:
        schedule.job_of({"id": "nightly", "cron": "0 3 * * *", "task": "proj.sweep", key: value})

    assert key.split("_")[0] in str(refused.value)


def test_a_task_of_another_app_is_sent_where_its_place_or_the_user_says_so(empty: Project, prefix: str) -> None:
    entry = {**RIGHT, "task": "other.sweep"}
    assert from_celery(empty, prefix, entry).code == 78
    allowed = empty.run("beat", "-A", "proj", "--check", "--allow-unknown-tasks")
    assert allowed.code == 0, allowed.err
    assert "task cannot be 'other.sweep'" in allowed.err
    text = TASKS.format(prefix=prefix) + CELERY.format(**entry)
    empty.write("proj.py", text + 'app.conf.task_routes = {"other.*": {"queue": "other"}}\n')
    assert empty.run("beat", "-A", "proj", "--check").code == 0
    empty.write("proj.py", text + 'app.conf.beat_schedule["nightly"]["options"] = {"queue": "other"}\n')
    assert empty.run("beat", "-A", "proj", "--check").code == 0
