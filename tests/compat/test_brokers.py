"""Tasks on each broker that is promised to work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from lightbus.compat import Settings, TaskApp
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.core.outcome import Ack
from lightbus.drivers import open_transport
from lightbus.drivers.memory_results import MemoryResults
from lightbus.ports import Delivery
from lightbus.worker import Process, WorkerOptions
from tests.compat.bench import handle


@pytest.fixture
def app(broker_url: str) -> Iterator[TaskApp]:
    transport = open_transport(broker_url)
    app = TaskApp(Settings(), transport=transport, result_backend=MemoryResults())
    yield app
    app.close()
    transport.close()


class Worker:
    """Handles one delivery after the other, in the calling thread."""

    def __init__(self, app: TaskApp) -> None:
        self.endpoint = TaskEndpoint(app)
        self._inbox: SimpleQueue[Delivery] = SimpleQueue()
        topology = self.endpoint.topology()
        app.transport.declare(topology)
        self._consumer = app.transport.consume(topology.queues, self._inbox.put, prefetch=1)

    def work_one(self) -> None:
        delivery = self._inbox.get(timeout=20)
        assert handle(self.endpoint, delivery) == Ack()
        delivery.ack()

    def close(self) -> None:
        self._consumer.close()


def test_delayed_and_retried_tasks_wait_in_the_broker_and_then_run(app: TaskApp) -> None:
    runs = []

    @app.task(name="t", bind=True)
    def t(self: Any, value: str) -> str:
        runs.append((value, self.request.retries, self.request.priority_note, time.time()))
        if self.request.retries == 0:
            raise self.retry(countdown=1)
        return value

    worker = Worker(app)
    sent_at = time.time()
    result = t.apply_async(("Zürich ✓",), countdown=1, expires=600, headers={"priority_note": "n"}, app_id="shop")

    worker.work_one()
    worker.work_one()
    worker.close()

    assert result.get(timeout=5) == "Zürich ✓"
    assert [run[:3] for run in runs] == [("Zürich ✓", 0, "n"), ("Zürich ✓", 1, "n")]
    assert runs[0][3] - sent_at >= 1
    assert runs[1][3] - runs[0][3] >= 1


def test_results_by_reply_work(app: TaskApp) -> None:
    app = TaskApp(Settings(result_backend="rpc://"), transport=app.transport)
    app.task(name="double")(lambda value: 2 * value)
    worker = Worker(app)
    results = [app.tasks["double"].delay(n) for n in range(3)]

    for _ in results:
        worker.work_one()
    worker.close()

    assert [one.get(timeout=20) for one in results] == [0, 2, 4]
    app.close()


def test_lightbuss_own_worker_runs_tasks_with_their_retries_callbacks_and_failures(app: TaskApp) -> None:
    steps = []

    @app.task(name="note")
    def note(*args: Any) -> None:
        steps.append(args)

    @app.task(name="blame")
    def blame(task_id: str) -> None:
        steps.append((task_id,))

    @app.task(name="twice", bind=True, acks_late=True)
    def twice(self: Any, value: int) -> int:
        if not self.request.retries:
            raise self.retry(countdown=0)
        return 2 * value

    @app.task(name="later")
    async def later(value: int) -> int:
        return value + 1

    @app.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    app.bus.add_endpoint(TaskEndpoint(app))
    worker = Process([app.bus], WorkerOptions())
    ready = threading.Event()
    thread = threading.Thread(target=worker.run, kwargs={"ready": ready.set})
    thread.start()
    try:
        assert ready.wait(30)
        retried = twice.apply_async((4,), link={"task": "note", "args": ["linked"]})
        coroutine, failed = later.delay(1), fail.apply_async(link_error={"task": "blame"})

        assert retried.get(timeout=20) == 8
        assert coroutine.get(timeout=20) == 2
        assert isinstance(failed.get(timeout=20, propagate=False), ValueError)
        note.delay("last").get(timeout=20)
    finally:
        worker.stop()
        thread.join()
    assert sorted(steps, key=str) == sorted([(8, "linked"), (failed.id,), ("last",)], key=str)
