"""Which message a worker takes next: queues take turns, and within one the priority decides, as in Celery."""

from __future__ import annotations

import threading

import pytest

from lightbus import Api, Bus, Event
from lightbus.compat import Settings, TaskApp
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.worker import WorkerOptions
from tests.processes import wait_for
from tests.runtime.workers import working


class Order(Api, name="tests.order", version="1.0"):
    class first(Event):
        number: int

    class second(Event):
        number: int


def test_a_long_queue_starves_no_short_one(broker_url: str, prefix: str) -> None:
    bus = Bus(prefix, url=broker_url)
    done: list[str] = []
    both_consumed = threading.Event()

    def note(name: str) -> None:
        assert both_consumed.wait(60)
        done.append(name)

    bus.on(Order.first, name="first")(lambda event: note("long"))
    bus.on(Order.second, name="second")(lambda event: note("short"))
    bus.transport.declare(bus.endpoints()[0].topology())
    for number in range(300):
        bus.fire(Order.first(number=number))
    for number in range(10):
        bus.fire(Order.second(number=number))

    with working(bus, options=WorkerOptions(threads=1, prefetch=10)):
        both_consumed.set()
        wait_for(lambda: len(done) == 310, 60, "all")
    last_short = 310 - done[::-1].index("short")
    assert last_short < 200  # in turns it is about 20; after the long queue it would be 310


@pytest.mark.parametrize("broker_url", ["amqp", "redis"], indirect=True)
def test_the_priority_of_a_task_decides_as_on_celerys_worker(broker_url: str, prefix: str) -> None:
    """On RabbitMQ 9 comes before 0, with `task_queue_max_priority`; on Redis kombu has it the other way round."""
    app = TaskApp(Settings(broker_url=broker_url, default_queue=prefix, queue_max_priority=10))
    order: list[int] = []

    @app.task(name=f"{prefix}.note")
    def note(priority: int) -> None:
        order.append(priority)

    app.bus.add_endpoint(TaskEndpoint(app))
    app.bus.transport.declare(TaskEndpoint(app).topology())
    for priority in (3, 9, 0, 6, 9, 3, 0, 6):
        note.apply_async((priority,), priority=priority)
    with working(app.bus, options=WorkerOptions(threads=1, prefetch=1)):
        wait_for(lambda: len(order) == 8, 60, "all")
    highest_first = broker_url.startswith("amqp")
    assert order == sorted(order, reverse=highest_first)
    app.close()
