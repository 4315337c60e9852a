"""Both ends of the wire are real: Celery's own classes read what Lightbus writes, and the other way round."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import celery.exceptions
import kombu.exceptions
import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.worker.request import Request as CeleryRequest
from kombu.message import Message

from lightbus.compat import MaxRetriesExceededError, Settings, TaskApp
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.compat.exceptions import EncodeError, RemoteTaskError
from lightbus.compat.protocol import TaskMessage, encode_task
from lightbus.core.message import Wire
from lightbus.drivers import open_result_backend, open_transport
from lightbus.ports import Transport
from tests.compat.bench import Bench, handle

RICH = {
    "at": datetime(2026, 11, 24, 3, tzinfo=timezone.utc),
    "price": Decimal("1.50"),
    "id": uuid.UUID(int=7),
    "raw": b"\xff\x00",
}


@pytest.fixture
def celery_app(redis_url: str) -> Iterator[Celery]:
    """A Celery app whose broker and results are in the test's own Redis."""
    app = Celery("interop", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, task_acks_late=True)

    @app.task(name="celery.side.add", shared=False)
    def add(x: Any, y: Any) -> Any:
        return x + y

    @app.task(name="celery.side.echo", shared=False)
    def echo(value: Any) -> Any:
        return value

    @app.task(name="celery.side.fail", shared=False)
    def fail() -> None:
        raise ValueError("no", 7)

    yield app
    app.close()


@pytest.fixture
def task_app(redis_url: str) -> Iterator[TaskApp]:
    transport = open_transport(redis_url)
    backend = open_result_backend(redis_url)
    app = TaskApp(Settings(celery_serves_others=True), transport=transport, result_backend=backend)
    yield app
    app.close()
    transport.close()


def kombu_message(wire: Wire) -> Message:
    return Message(
        body=wire.body, content_type=wire.content_type, content_encoding=wire.content_encoding,
        headers=dict(wire.headers), accept=["application/json"], delivery_info={"exchange": "", "routing_key": "q"},
        properties={"correlation_id": wire.correlation_id, "reply_to": wire.reply_to, "priority": wire.priority},
    )  # fmt: skip


def test_celerys_request_reads_a_message_that_lightbus_wrote(celery_app: Celery) -> None:
    now = datetime.now(timezone.utc)
    bench = Bench()
    bench.app.send_task(
        "celery.side.add", (1,), {"y": RICH["at"]}, task_id="i", eta=now + timedelta(hours=1), expires=7200, retries=2,
        time_limit=9, soft_time_limit=8, root_id="r", parent_id="p", group_id="g", group_index=3, reply_to="q",
        headers={"tenant": "a"}, priority=3, link={"task": "a", "args": []}, link_error={"task": "b"}, shadow="s",
        stamped_headers=["who"], who="me",
    )  # fmt: skip
    message = kombu_message(encode_task(bench.published[0][1]))

    request = CeleryRequest(message, app=celery_app, hostname="h")
    context = request._context

    assert (request.id, request.type, request.name) == ("i", "celery.side.add", "s")
    assert (request.args, request.kwargs) == ([1], {"y": RICH["at"]})
    assert request.eta == now + timedelta(hours=1)
    assert timedelta(seconds=7100) < request.expires - now < timedelta(seconds=7300)
    assert request.time_limits == [9, 8]
    assert (request.root_id, request.parent_id, request.group, request.group_index) == ("r", "p", "g", 3)
    assert (context.retries, context.reply_to, context.correlation_id) == (2, "q", "i")
    assert (context.callbacks, context.errbacks) == ([{"task": "a", "args": []}], [{"task": "b"}])
    assert (context.headers, context.stamps) == ({"tenant": "a"}, {"who": "me"})
    assert request.argsrepr == "(1,)"


def test_celery_reads_the_results_that_lightbus_stores(celery_app: Celery, redis_url: str) -> None:
    bench = Bench(result_extended=True)
    bench.app = TaskApp(bench.settings, transport=bench.transport, result_backend=open_result_backend(redis_url))
    bench.task(name="rich")(lambda: RICH)
    bench.task(name="fail")(lambda: {}["missing"])
    bench.task(name="large")(lambda: object())
    used_up = bench.task(name="used_up", bind=True, max_retries=0)(lambda self: self.retry())
    ids = {name: bench.app.tasks[name].delay().id for name in ("rich", "fail", "large", used_up.name)}
    bench.app.send_task("rich", task_id="late", expires=datetime(2020, 1, 1, tzinfo=timezone.utc))

    bench.work()

    read = celery_app.AsyncResult
    assert read(ids["rich"]).get(timeout=5) == RICH
    assert (read(ids["rich"]).name, read(ids["rich"]).worker) == ("rich", "lightbus@bench")
    with pytest.raises(KeyError, match="missing"):
        read(ids["fail"]).get(timeout=5)
    assert "missing" in read(ids["fail"]).traceback
    with pytest.raises(kombu.exceptions.EncodeError):
        read(ids["large"]).get(timeout=5)
    with pytest.raises(celery.exceptions.MaxRetriesExceededError):
        read(ids["used_up"]).get(timeout=5)
    assert read("late").state == "REVOKED"
    bench.app.close()


def test_lightbus_reads_the_results_that_celery_stores(celery_app: Celery, task_app: TaskApp) -> None:
    class Refused(Exception):
        pass

    backend = celery_app.backend
    backend.mark_as_done("good", RICH)
    backend.mark_as_failure("bad", ValueError("no", 7), traceback="Traceback ...")
    backend.mark_as_failure("own", Refused("x"))
    backend.mark_as_failure("spent", celery.exceptions.MaxRetriesExceededError("enough"))
    backend.mark_as_failure("odd", kombu.exceptions.EncodeError("odd"))
    backend.store_result("half", {"done": 5}, "PROGRESS")

    read = task_app.AsyncResult
    assert read("good").get(timeout=5) == RICH
    assert repr(read("bad").get(timeout=5, propagate=False)) == "ValueError('no', 7)"
    assert read("bad").traceback == "Traceback ..."
    with pytest.raises(RemoteTaskError, match="x") as caught:
        read("own").get(timeout=5)
    assert type(caught.value).__name__ == "Refused"
    with pytest.raises(MaxRetriesExceededError):
        read("spent").get(timeout=5)
    with pytest.raises(EncodeError):
        read("odd").get(timeout=5)
    assert (read("half").state, read("half").info) == ("PROGRESS", {"done": 5})


def test_a_celery_worker_runs_what_lightbus_sends_and_lightbus_gets_the_result(
    celery_app: Celery, task_app: TaskApp
) -> None:
    sums = [task_app.send_task("celery.side.add", (n, 1)) for n in range(3)]
    echo = task_app.send_task("celery.side.echo", (RICH,), priority=3)
    fail = task_app.send_task("celery.side.fail")

    with start_worker(celery_app, pool="solo", perform_ping_check=False, shutdown_timeout=30.0):
        assert [one.get(timeout=20) for one in sums] == [1, 2, 3]
        assert echo.get(timeout=20) == RICH
        assert repr(fail.get(timeout=20, propagate=False)) == "ValueError('no', 7)"


def test_lightbus_runs_what_celery_sends_and_celery_gets_the_result_and_the_next_step(
    celery_app: Celery, task_app: TaskApp
) -> None:
    task_app.task(name="moved.double")(lambda value: 2 * value)
    first = celery_app.signature("moved.double", args=(4,), queue="lightbus.celery")
    chain = first | celery_app.signature("celery.side.add", args=(1,))
    sent = chain.apply_async(link=celery_app.signature("celery.side.echo"))
    endpoint = TaskEndpoint(task_app)
    task_app.transport.declare(endpoint.topology())

    outcome = work_one(endpoint, task_app.transport, "lightbus.celery")

    assert type(outcome).__name__ == "Ack"
    with start_worker(celery_app, pool="solo", perform_ping_check=False, shutdown_timeout=30.0):
        assert sent.get(timeout=20) == 9
    assert sent.parent.get(timeout=5) == 8
    assert [child.id for child in sent.parent.children] == [sent.id]


def work_one(endpoint: TaskEndpoint, transport: Transport, queue: str) -> Any:
    deadline = time.monotonic() + 20
    while (delivery := transport.get(queue)) is None:  # Celery does not wait until the broker has its message
        assert time.monotonic() < deadline, f"nothing came to {queue!r}"
        time.sleep(0.01)
    outcome = handle(endpoint, delivery)
    delivery.ack()
    return outcome


def test_a_retry_made_by_lightbus_is_read_by_celery(celery_app: Celery) -> None:
    bench = Bench()

    @bench.task(name="celery.side.add", bind=True)
    def add(self: Any, x: int, y: int) -> None:
        raise self.retry(countdown=60)

    bench.put(encode_task(TaskMessage(task="celery.side.add", id="i", args=(1, 2), expires=None)))
    bench.work()

    request = CeleryRequest(kombu_message(encode_task(bench.published[-1][1])), app=celery_app, hostname="h")

    assert request._context.retries == 1
    assert timedelta(seconds=30) < request.eta - datetime.now(timezone.utc) < timedelta(seconds=70)


# RabbitMQ, with results by reply


@pytest.fixture
def rpc_celery(amqp_vhost_url: str) -> Iterator[Celery]:
    app = Celery("rpc", broker=amqp_vhost_url, backend="rpc://", set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, task_queue_max_priority=9)

    @app.task(name="celery.side.add", shared=False)
    def add(x: Any, y: Any) -> Any:
        return x + y

    yield app
    app.close()


@pytest.fixture
def rpc_app(amqp_vhost_url: str) -> Iterator[TaskApp]:
    transport = open_transport(amqp_vhost_url)
    app = TaskApp(Settings(result_backend="rpc://", celery_serves_others=True), transport=transport)
    yield app
    app.close()
    transport.close()


def test_a_celery_worker_replies_to_a_caller_that_does_not_know_its_queues_arguments(
    rpc_celery: Celery, rpc_app: TaskApp
) -> None:
    with start_worker(rpc_celery, pool="solo", perform_ping_check=False, shutdown_timeout=30.0):
        results = [rpc_app.send_task("celery.side.add", (n, 1), priority=4) for n in range(3)]

        assert [one.get(timeout=20) for one in results] == [1, 2, 3]


def test_lightbus_replies_to_a_celery_caller(rpc_celery: Celery, rpc_app: TaskApp) -> None:
    rpc_celery.conf.task_queue_max_priority = None  # both sides declare the queue, from the same settings
    rpc_app.task(name="moved.double")(lambda value: 2 * value)
    rpc_app.task(name="moved.fail")(lambda: {}["missing"])
    endpoint = TaskEndpoint(rpc_app)
    rpc_app.transport.declare(endpoint.topology())
    good = rpc_celery.send_task("moved.double", (4,), queue="lightbus.celery")
    bad = rpc_celery.send_task("moved.fail", queue="lightbus.celery")

    for _ in range(2):
        work_one(endpoint, rpc_app.transport, "lightbus.celery")

    assert good.get(timeout=20) == 8
    with pytest.raises(KeyError, match="missing"):
        bad.get(timeout=20)


def test_lightbus_callers_and_workers_need_no_celery_for_replies(rpc_app: TaskApp) -> None:
    rpc_app.task(name="moved.double")(lambda value: 2 * value)
    endpoint = TaskEndpoint(rpc_app)
    rpc_app.transport.declare(endpoint.topology())
    result = rpc_app.tasks["moved.double"].delay(21)

    work_one(endpoint, rpc_app.transport, "lightbus.celery")

    assert result.get(timeout=20) == 42
