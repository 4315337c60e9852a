"""Misfire and overlap policies of a Celery project's own `beat_schedule`, which Celery's beat goes on reading."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from tests.cli.conftest import Project
from tests.processes import Processes

PROJECT = """
from celery import Celery
from celery.schedules import crontab

app = Celery("proj", broker="{broker}", backend="{backend}")
app.conf.beat_schedule = {{
    "sweep": {{"task": "proj.sweep", "schedule": {seconds}, "options": {{"queue": "policies"}}}},
    "reports.daily": {{"task": "proj.sweep", "schedule": crontab(hour=3, minute=0)}},
    "reports.weekly": {{"task": "proj.sweep", "schedule": crontab(hour=3, minute=0, day_of_week=1)}},
}}
app.conf.lightbus_beat_policies = {policies}


@app.task(name="proj.sweep")
def sweep():
    pass
"""
POLICIES = """{
    "reports.*": {"misfire": {"rule": "all", "limit": 3}, "jitter_seconds": 5, "count": 7},
    "sweep": {"overlap": "skip", "misfire": "skip"},
    "reports.weekly": {"misfire": "skip", "start": "2026-01-01T00:00:00Z"},
}"""
SHOW = """
import json
from lightbus.cli import apps
from lightbus.cli.scheduling import AppSchedule

entries = [job.entry for job in AppSchedule.of(apps.load(("proj",), None), None).jobs]
print(json.dumps({
    one.id: [one.overlap, one.misfire.rule, one.misfire.limit, one.jitter_seconds, one.max_count, str(one.start)]
    for one in entries
}))
"""


def written(policies: str, broker: str = "sqlite:///bus.db", backend: str = "", seconds: float = 3600.0) -> str:
    teach = "import lightbus.drivers.sqlite\n" if broker.startswith("sqlite") else ""
    return teach + PROJECT.format(policies=policies, broker=broker, backend=backend, seconds=seconds)


def test_policies_stand_beside_the_schedule_by_name_and_by_pattern(empty: Project, redis_url: str) -> None:
    empty.write("proj.py", written(POLICIES, backend=redis_url))
    empty.write("show.py", SHOW)

    shown = empty.python("show.py")

    assert shown.code == 0, shown.err
    assert json.loads(shown.out) == {
        "sweep": ["skip", "skip", 100, 0.0, None, "None"],
        "reports.daily": ["allow", "all", 3, 5, 7, "None"],
        "reports.weekly": ["allow", "skip", 100, 0.0, None, "2026-01-01 00:00:00+00:00"],
    }


@pytest.mark.parametrize(
    "policies, words",
    [
        ('{"sweeep": {}}', ["beat_schedule has no entry 'sweeep'", "did you mean 'sweep'?"]),
        ('{"mail.*": {"misfire": "skip"}}', ["no entry 'mail.*'"]),
        ('{"sweep": {"overlaps": "skip"}}', ["'sweep'", "did you mean overlap?"]),
        ('{"sweep": {"overlap": "never"}}', ["'sweep'", "overlap cannot be 'never'"]),
        ('{"sweep": {"misfire": "later"}}', ["'sweep'", "misfire cannot be 'later'"]),
        ('{"sweep": {"misfire": {"limit": "3"}}}', ["'sweep'", "limit cannot be \"'3'\"", "a whole number"]),
        ('{"sweep": {"jitter_seconds": "5"}}', ["'sweep'", "jitter_seconds cannot be \"'5'\"", "a number of seconds"]),
        ('{"sweep": "skip"}', ["'sweep'", "a dict of"]),
        ('["sweep"]', ["must be a dict of entry names"]),
        ('{"sweep": {"overlap": "skip"}}', ["'sweep'", "overlap cannot be 'skip'", "nobody could tell"]),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_used_is_refused_by_entry_and_field(
    empty: Project, policies: str, words: list[str]
) -> None:
    empty.write("proj.py", written(policies))

    done = empty.run("beat", "-A", "proj", "--check")

    assert done.code == 78, done.err
    assert all(word in done.err for word in words), done.err


def test_celery_beat_reads_a_file_with_policies_and_its_messages_do_not_change(
    empty: Project, processes: Processes, redis_url: str, prefix: str
) -> None:
    """Going back needs no edit: the old beat takes the file, and sends what it sent without the setting."""
    sent: list[dict[str, Any]] = []
    for number, policies in enumerate(("{}", '{"sweep": {"misfire": "skip"}}')):
        queue = f"{prefix}.{number}"
        text = written(policies, broker=redis_url, seconds=0.2).replace('"policies"', repr(queue))
        empty.write(f"proj{number}.py", text)
        beat = processes.start(
            "python", "-m", "celery", "-A", f"proj{number}", "beat", "-s", f"state{number}", name=f"beat{number}",
            folder=empty.folder,
        )  # fmt: skip
        with redis.Redis.from_url(redis_url) as server:
            taken = server.brpop([queue], timeout=60)
            beat.kill()
            beat.wait()
            server.delete(queue)
        assert taken is not None, beat.read_log()
        sent.append(json.loads(taken[1]))
    without, beside = sent
    assert set(beside["headers"]) == set(without["headers"])
    assert set(beside["properties"]) == set(without["properties"])
    assert beside["body"] == without["body"]
