"""Tasks that expire in a queue: their callers hear REVOKED, where Celery's own worker would leave them waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError as CelerysTaskRevokedError

from lightbus.compat import TaskApp
from lightbus.compat.bridge import install, settings_from
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.core.outcome import Ack
from tests.compat.bench import handle
from tests.processes import wait_for

LIFE_SECONDS = 0.3


@pytest.fixture(params=["redis", "amqp"])
def theirs(request: pytest.FixtureRequest, redis_url: str) -> Any:
    url = redis_url if request.param == "redis" else request.getfixturevalue("amqp_vhost_url")
    app = Celery("theirs", broker=url, backend=redis_url, set_as_current=False)
    install(app, moved=["moved.task"])
    yield app
    app.close()


def by_celery(theirs: Celery, ours: TaskApp, **options: Any) -> Any:
    return theirs.send_task("moved.task", expires=LIFE_SECONDS, **options)


def by_lightbus(theirs: Celery, ours: TaskApp, **options: Any) -> Any:
    return ours.send_task("moved.task", expires=LIFE_SECONDS, **options)


@pytest.mark.parametrize("send", [by_celery, by_lightbus])
def test_what_expired_in_a_queue_is_revoked_when_a_worker_comes_to_it(theirs: Celery, send: Callable[..., Any]) -> None:
    ours = TaskApp(settings_from(theirs))
    ran: list[int] = []
    ours.task(name="moved.task")(lambda: ran.append(1))
    endpoint = TaskEndpoint(ours)
    ours.transport.declare(endpoint.topology())
    sent_at = time.time()
    result = send(theirs, ours)
    wait_for(lambda: time.time() > sent_at + 2 * LIFE_SECONDS, 10, "the end of its time")

    delivery = ours.transport.get("lightbus.celery")

    assert delivery is not None, "the broker dropped it, and nobody hears of it"
    assert handle(endpoint, delivery) == Ack("expired")
    delivery.ack()
    assert ran == []
    with pytest.raises(CelerysTaskRevokedError):
        theirs.AsyncResult(result.id).get(timeout=20)
    assert ours.AsyncResult(result.id).state == "REVOKED"
    ours.close()


def test_a_task_whose_result_nobody_wants_is_left_to_rabbitmq(amqp_vhost_url: str, redis_url: str) -> None:
    theirs = Celery("theirs", broker=amqp_vhost_url, backend=redis_url, set_as_current=False)
    install(theirs, moved=["moved.task"])
    ours = TaskApp(settings_from(theirs))
    ours.task(name="moved.task")(lambda: None)
    ours.transport.declare(TaskEndpoint(ours).topology())
    for send in (by_celery, by_lightbus):
        send(theirs, ours, ignore_result=True)
    wait_for(lambda: ours.transport.message_count("lightbus.celery") == 0, 20, "RabbitMQ to drop both")
    ours.close()
    theirs.close()


def test_what_celery_sends_to_a_queue_of_its_own_rabbitmq_drops_and_nobody_hears(
    amqp_vhost_url: str, redis_url: str
) -> None:
    """Celery's worker revokes only what it has taken into its memory before."""
    theirs = Celery("theirs", broker=amqp_vhost_url, backend=redis_url, set_as_current=False)
    result = theirs.send_task("their.task", expires=LIFE_SECONDS)
    with theirs.connection_for_read() as connection:

        def waits() -> int:
            return int(theirs.amqp.queues["celery"](connection.default_channel).queue_declare().message_count)

        assert waits() == 1
        wait_for(lambda: waits() == 0, 20, "RabbitMQ to drop it")
    assert result.state == "PENDING"
    theirs.close()
