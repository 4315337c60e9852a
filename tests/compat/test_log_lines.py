"""What a worker logs about a task: one line when nothing went wrong, and the traceback besides when something did."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from lightbus.compat import Ignore, Settings, TaskApp
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from tests.processes import wait_for
from tests.runtime.workers import working


@pytest.fixture
def app() -> Iterator[TaskApp]:
    app = TaskApp(Settings(task_ignore_result=True), transport=MemoryTransport(MemoryBroker()))

    @app.task(name="good")
    def good() -> str:
        return "fine"

    @app.task(name="ignored")
    def ignored() -> None:
        raise Ignore

    @app.task(name="bad")
    def bad() -> None:
        raise ValueError("broken")

    app.bus.add_endpoint(TaskEndpoint(app))
    yield app
    app.close()


@pytest.mark.parametrize("name, outcome, lines", [("good", "ok", 1), ("ignored", "ignored", 1), ("bad", "error", 2)])
def test_a_task_is_one_line_and_a_failure_its_traceback_too(
    app: TaskApp, caplog: pytest.LogCaptureFixture, name: str, outcome: str, lines: int
) -> None:
    with caplog.at_level(logging.INFO, "lightbus"), working(app.bus):
        task_id = app.tasks[name].delay().id
        wait_for(lambda: "handled " in caplog.text, 10, "the line")
    about = [record for record in caplog.records if task_id in record.getMessage()]

    assert len(about) == lines, [record.getMessage() for record in about]
    (handled,) = [record.getMessage() for record in about if record.getMessage().startswith("handled ")]
    assert f"name={name} id={task_id} attempt=1" in handled
    assert f"outcome={outcome} queue=lightbus.celery" in handled
    assert [record.levelname for record in about if record.exc_info] == (["ERROR"] if name == "bad" else [])
