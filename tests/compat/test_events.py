"""The events of tasks, read by Celery's own receiver and state, beside those that Celery's worker sends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.events.state import State

import lightbus.drivers.sqlite  # noqa: F401 - makes its URLs known to kombu
from lightbus.compat import Settings, TaskApp
from tests.processes import Processes, wait_for

PROJECT = Path(__file__).parent
KINDS = ("received", "started", "succeeded", "failed", "retried", "revoked", "sent")


@contextmanager
def listening(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """All events, as Celery's monitors get them."""
    events: list[dict[str, Any]] = []
    ready, ending = threading.Event(), threading.Event()

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": events.append})
            with receiver.consumer_context() as (active, _, _):
                ready.set()
                while not ending.is_set():
                    try:
                        active.drain_events(timeout=0.1)
                    except TimeoutError:
                        continue

    thread = threading.Thread(target=listen)
    thread.start()
    assert ready.wait(20)
    yield events
    ending.set()
    thread.join()


def run_on(side: str, broker: str, backend: str, processes: Processes, folder: Path) -> list[dict[str, Any]]:
    """The events of one scenario of each kind, run by a worker of `side`."""
    environment = {
        "SIGNALS_URL": broker, "SIGNALS_BACKEND": backend, "SIGNALS_SIDE": side, "SIGNALS_EVENTS": "1",
        "SIGNALS_LOG": str(folder / f"{side}.log"), "PYTHONPATH": str(PROJECT),
    }  # fmt: skip
    command = {
        "celery": ("python", "-m", "celery", "-A", "signals_project", "worker", "-c", "1", "-l", "INFO"),
        "lightbus": ("python", "-m", "lightbus.cli", "worker", "-A", "signals_project", "-c", "1"),
    }[side]
    monitor = Celery("monitor", broker=broker, backend=backend, set_as_current=False)
    queue = {"celery": "celery", "lightbus": "lightbus.celery"}[side]
    worker = processes.start(*command, name=f"{side}-events", environment=environment)
    worker.wait_for_log({"celery": "ready.", "lightbus": "lightbus worker ready"}[side], seconds=40)
    with listening(monitor) as events:
        ids = {
            "add": monitor.send_task("told.add", (1, 2), queue=queue).id,
            "fail": monitor.send_task("told.fail", queue=queue).id,
            "again": monitor.send_task("told.again", queue=queue).id,
            "expired": monitor.send_task("told.add", (1, 2), expires=1e-9, queue=queue).id,
        }

        def told(name: str, kind: str) -> bool:
            return any(event.get("uuid") == ids[name] and event["type"] == f"task-{kind}" for event in list(events))

        ends = [("add", "succeeded"), ("fail", "failed"), ("again", "succeeded")]
        wait_for(lambda: all(told(*end) for end in ends), 60, "the events of all tasks", [worker.log])
    worker.stop(30)
    monitor.close()
    names = {task_id: name for name, task_id in ids.items()}
    found = [
        {**event, "scenario": names[event["uuid"]]}
        for event in events
        if event.get("uuid") in names and event["type"].removeprefix("task-") in KINDS
    ]
    return [event for event in found if event["scenario"] != "expired"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_celerys_monitors_read_the_events_of_a_lightbus_worker(
    broker: str, request: pytest.FixtureRequest, redis_url: str, processes: Processes, tmp_path: Path
) -> None:
    url = redis_url if broker == "redis" else request.getfixturevalue("amqp_vhost_url")
    by_celery = run_on("celery", url, redis_url, processes, tmp_path)
    by_lightbus = run_on("lightbus", url, redis_url, processes, tmp_path)

    def told(events: list[dict[str, Any]]) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
        """For each task its events with the names of their fields, in the order of their making. Of a retry without
        order: Celery's worker receives it before its time, and says so in the middle of the first try."""
        ordered = sorted(events, key=lambda event: event["timestamp"])
        found = {
            scenario: [(one["type"], tuple(sorted(one))) for one in ordered if one["scenario"] == scenario]
            for scenario in ("add", "fail", "again")
        }
        return {**found, "again": sorted(found["again"])}

    assert told(by_lightbus) == told(by_celery)
    from_workers = [event for event in by_lightbus if event["type"] != "task-sent"]  # that is of who sends
    assert {event["hostname"].partition("@")[0] for event in from_workers} == {"lightbus"}
    state = State()
    for event in by_lightbus:
        state.event(dict(event))
    kinds = {event["scenario"]: state.tasks[event["uuid"]] for event in by_lightbus}
    assert (kinds["add"].state, kinds["add"].result, kinds["add"].name) == ("SUCCESS", "3", "told.add")
    assert kinds["fail"].state == "FAILURE"
    assert kinds["fail"].exception == "ValueError('no')"
    assert kinds["again"].retries == 1
    json.dumps(by_lightbus)


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack", "pickle"])
@pytest.mark.parametrize("broker", ["redis_url", "amqp_vhost_url"])
def test_events_are_written_by_the_serializer_of_the_settings(
    broker: str, serializer: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(broker)
    settings = {"broker_url": url, "event_serializer": serializer}
    monitor = Celery("monitor", broker=url, set_as_current=False)
    monitor.conf.event_serializer = serializer  # of which, and of JSON, its receiver reads
    theirs = Celery("theirs", broker=url, set_as_current=False)
    theirs.conf.event_serializer = serializer
    ours = TaskApp(Settings.from_mapping(settings))
    with listening(monitor) as events:
        ours.task_events.send("task-progress", uuid="i", done=5)  # in a message of its own
        ours.task_events.send("task-started", alone=False, uuid="i")  # in a list
        ours.task_events.close()
        with theirs.connection_for_write() as connection:
            theirs.events.Dispatcher(connection).send("task-progress", uuid="i", done=5)
        wait_for(lambda: len(events) >= 3, 30, "the events of both sides")
    alone = [set(event) for event in events if event["type"] == "task-progress"]
    assert alone[0] == alone[1]
    assert [event["uuid"] for event in events] == ["i"] * 3
    ours.close()
    monitor.close()
    theirs.close()


def test_a_field_without_a_form_in_the_serializer_is_the_callers_to_hear() -> None:
    app = TaskApp(Settings(broker_url="memory://", event_serializer="msgpack"))
    with pytest.raises(ValueError, match="msgpack"):
        app.task_events.send("task-progress", uuid="i", done=object())
    app.close()
