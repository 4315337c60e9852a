"""Celery's `rate_limit`: what is read, which messages it counts, and a worker's processes beside Celery's own."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery.utils.time import rate as celerys_rate

from lightbus import DeclarationError
from lightbus.compat import Settings, TaskApp
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.compat.protocol import TaskMessage, encode_task
from lightbus.compat.settings import rate_from
from lightbus.core.errors import ConfigError
from lightbus.core.message import Wire
from lightbus.ports import Delivery
from tests.processes import Processes, wait_for


@pytest.mark.parametrize("text", ["10/m", "100/s", "2/h", "0.5/s", "3", 5, 0.25, 0, "0", "0/m", None, ""])
def test_a_rate_limit_means_what_it_means_to_celery(text: Any) -> None:
    ours = rate_from(text)
    assert (ours.per_second if ours else 0) == pytest.approx(celerys_rate(text))


@pytest.mark.parametrize("text", ["10/d", "often", True, -1])
def test_a_wrong_one_fails_where_it_is_written(text: Any) -> None:
    with pytest.raises(DeclarationError, match="'t'"):
        TaskApp().task(name="t", rate_limit=text)(lambda: None)
    with pytest.raises(ConfigError, match="task_default_rate_limit"):
        Settings.from_mapping({"task_default_rate_limit": text})


def rates(settings: dict[str, Any], **option: Any) -> Any:
    app = TaskApp(Settings.from_mapping(settings))
    app.task(name="t", **option)(lambda: None)
    return TaskEndpoint(app).rates().get("t", "none at all")


def test_the_task_goes_before_the_setting_and_rate_limits_can_be_switched_off() -> None:
    assert rates({}) is None
    assert rates({}, rate_limit="2/s").per_second == 2
    assert rates({"task_default_rate_limit": "3/s"}).per_second == 3
    assert rates({"CELERY_TASK_DEFAULT_RATE_LIMIT": "3/s"}, rate_limit="2/s").per_second == 2
    assert rates({"CELERY_DEFAULT_RATE_LIMIT": "3/s"}, rate_limit=0) is None
    assert rates({"worker_disable_rate_limits": True}, rate_limit="2/s") == "none at all"
    assert rates({"CELERY_DISABLE_RATE_LIMITS": "true"}, rate_limit="2/s") == "none at all"


def test_what_is_too_early_too_late_or_unreadable_takes_no_turn() -> None:
    endpoint = TaskEndpoint(TaskApp())

    def named(wire: Wire) -> str | None:
        return endpoint.rate_name(Delivery(wire, "lightbus.celery", redelivered=False, settle=lambda _: None))

    def at(seconds: float) -> str:
        return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()

    def message(**fields: Any) -> Wire:
        return encode_task(TaskMessage(task="t", id="1", **fields))

    assert named(message()) == "t"
    assert named(message(eta=at(-1), expires=at(60))) == "t"
    assert named(message(eta=at(60))) is None
    assert named(message(expires=at(-60))) is None
    assert named(Wire(body=b"{}")) is None


PROJECT = """
import os
from lightbus.compat import Settings, default_app, task

default_app().configure(Settings(broker_url=os.environ["BROKER"], rate_limit="4/s"))

def note(what):
    with open(os.environ["NOTES"], "a") as file:
        file.write(what + "\\n")

@task(name="rates.limited")
def limited():
    note("limited")

@task(name="rates.free", rate_limit=0)
def free():
    note("free")
"""


def test_the_processes_of_one_worker_share_a_rate_and_other_tasks_pass(
    tmp_path: Path, redis_url: str, processes: Processes
) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    notes = tmp_path / "notes"
    app = TaskApp(Settings(broker_url=redis_url, moved=frozenset({"rates.limited", "rates.free"})))
    for _ in range(12):
        app.send_task("rates.limited")
    for _ in range(3):
        app.send_task("rates.free")
    app.close()

    began = time.monotonic()
    worker = processes.start(
        "python", "-m", "lightbus.cli", "worker", "-A", "project", "-c", "3", name="worker",
        environment={"BROKER": redis_url, "NOTES": str(notes)},
    )  # fmt: skip

    def done() -> list[str]:
        return notes.read_text().split() if notes.exists() else []

    wait_for(lambda: len(done()) == 15, 60, "all tasks", [worker.log])
    assert time.monotonic() - began > 2.7  # 12 turns at 4 per second, of three processes together
    assert done().index("free") < 11  # sent last, done before the last of those that have a rate
    assert sorted(done()) == ["free"] * 3 + ["limited"] * 12
