"""`broker_read_url` and `broker_write_url`: the same settings make of a Celery and of a Lightbus worker the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import kombu
import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker

from lightbus import compat
from lightbus.compat import Settings, TaskApp
from lightbus.compat.bridge import settings_from
from tests.brokers import Brokers
from tests.compat.test_brokers import Worker
from tests.processes import wait_for

KINDS = ("redis", "amqp")
#: Nobody listens there: the second URL of a list is taken.
AWAY = {"redis": "redis://127.0.0.1:1/0", "amqp": "amqp://guest:guest@127.0.0.1:1//"}


@pytest.fixture(params=KINDS)
def urls(request: pytest.FixtureRequest, brokers: Brokers) -> Iterator[dict[str, Any]]:
    """The two settings; RabbitMQ's as lists, whose first broker is away."""
    with ExitStack() as stack:
        made = brokers.redis_database if request.param == "redis" else brokers.vhost
        read, write = (stack.enter_context(made()) for _ in range(2))
        if request.param == "amqp":
            yield {"broker_read_url": [AWAY["amqp"], read], "broker_write_url": f"{AWAY['amqp']};{write}"}
        else:
            yield {"broker_read_url": read, "broker_write_url": write}


def last_of(url: Any) -> str:
    return str(url[-1] if isinstance(url, list) else url).rpartition(";")[2]


def count(url: Any, queue: str) -> int:
    with kombu.Connection(last_of(url)) as connection, connection.channel() as channel:
        return int(kombu.Queue(queue, channel=channel, durable=True).queue_declare().message_count)


@contextmanager
def celery_worker(urls: dict[str, Any]) -> Iterator[Callable[[], None]]:
    app = Celery("theirs", set_as_current=False)
    app.conf.update(urls, broker_connection_retry_on_startup=True, task_create_missing_queue_type="classic")

    @app.task(name="first", shared=False)
    def first() -> None:
        app.send_task("second", queue="next")

    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60.0):
        yield lambda: None
    app.close()


@contextmanager
def lightbus_worker(urls: dict[str, Any]) -> Iterator[Callable[[], None]]:
    app = TaskApp(Settings.from_mapping(urls))
    app.task(name="first")(lambda: app.send_task("second", queue="next") and None)
    worker = Worker(app)
    yield worker.work_one
    worker.close()
    app.close()


@pytest.mark.parametrize("side", ["celery", "lightbus"])
def test_a_worker_reads_from_one_broker_and_publishes_to_the_other(urls: dict[str, Any], side: str) -> None:
    worker, served = {"celery": (celery_worker, "celery"), "lightbus": (lightbus_worker, "lightbus.celery")}[side]
    with worker(urls) as work:
        with Celery("caller", broker=last_of(urls["broker_read_url"]), set_as_current=False) as caller:
            caller.send_task("first", queue=served)
        work()
        wait_for(lambda: count(urls["broker_write_url"], "next") == 1, 60, "the second task where it is published")
        assert count(urls["broker_read_url"], "next") == 0


def test_results_by_rpc_come_back_over_two_addresses_of_one_broker(amqp_vhost_url: str) -> None:
    other = amqp_vhost_url.replace("127.0.0.1", "localhost")
    assert other != amqp_vhost_url
    given = {"broker_read_url": amqp_vhost_url, "broker_write_url": other, "result_backend": "rpc://"}
    app = TaskApp(Settings.from_mapping(given))
    app.task(name="double")(lambda value: 2 * value)
    worker = Worker(app)
    result = app.tasks["double"].apply_async((4,), countdown=0.01)
    worker.work_one()

    assert result.get(timeout=30) == 8
    worker.close()
    app.close()


def test_the_urls_are_read_as_celery_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "redis://of-the-environment/1")
    given = {"broker_url": "redis://one/0", "broker_read_url": ["redis://a/0", "redis://b/0"]}
    theirs, ours = (kind("proj", set_as_current=False) for kind in (Celery, compat.Celery))
    theirs.conf.update(given)
    ours.conf.update(given)

    for settings in (ours.settings, settings_from(theirs)):
        assert (settings.read_url, settings.write_url) == ("redis://a/0;redis://b/0", "redis://of-the-environment/1")
    for name in ("connection_for_read", "connection_for_write", "connection"):
        assert getattr(ours, name)().as_uri() == getattr(theirs, name)().as_uri()
    only = Settings.from_mapping({"broker_write_url": "redis://w/0"})
    assert (only.broker_url, only.read_url, only.write_url) == ("redis://w/0",) * 3
