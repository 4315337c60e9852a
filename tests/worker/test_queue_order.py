"""Which message a worker takes next: queues take turns, by weight or one before the other, and within one the
priority decides, as in Celery."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest

from lightbus import Api, Bus, Event, Invocation, open_transport
from lightbus.compat import Settings, TaskApp
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.core.message import Wire
from lightbus.core.topology import Queue, Topology
from lightbus.core.turns import QueueOrder
from lightbus.ports import Delivery
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


def two_listeners(bus: Bus, done: list[str]) -> tuple[str, str]:
    """Queues "first" and "second", whose listeners note which of them got an event."""
    bus.on(Order.first, name="first")(lambda event: done.append("first"))
    bus.on(Order.second, name="second")(lambda event: done.append("second"))
    bus.transport.declare(bus.endpoints()[0].topology())
    return f"{bus.name}.on.first", f"{bus.name}.on.second"


def test_a_queue_has_as_many_turns_as_its_weight(broker_url: str, prefix: str) -> None:
    bus = Bus(prefix, url=broker_url)
    done: list[str] = []
    first, _ = two_listeners(bus, done)
    for number in range(50):
        bus.fire(Order.first(number=number))
        bus.fire(Order.second(number=number))

    order = QueueOrder(weights={first: 3})
    with working(bus, options=WorkerOptions(threads=1, prefetch=4, order=order)):
        wait_for(lambda: len(done) == 100, 60, "all")
        for event in (Order.first(number=50), Order.second(number=50)):  # and those that come when nothing waits
            bus.fire(event)
        wait_for(lambda: len(done) == 102, 60, "the last two")
    assert 28 <= done[:40].count("first") <= 32  # without the weight it would be 20
    assert done.count("first") == done.count("second") == 51


def test_what_is_first_is_served_before_all_others(broker_url: str, prefix: str) -> None:
    bus = Bus(prefix, url=broker_url)
    done: list[str] = []
    _, second = two_listeners(bus, done)
    for number in range(200):
        bus.fire(Order.first(number=number))
    for number in range(20):
        bus.fire(Order.second(number=number))

    def fire_one_more(invocation: Invocation) -> AbstractContextManager[None]:
        if len(done) == 40:
            bus.fire(Order.second(number=20))
        return nullcontext()

    options = WorkerOptions(threads=1, prefetch=4, order=QueueOrder(first=[second]), middleware=[fire_one_more])
    with working(bus, options=options):
        wait_for(lambda: len(done) == 221, 60, "all")
    assert set(done[:20]) == {"second"}
    assert done.index("second", 20) < 120  # in turn it would be the last: 221


def test_what_comes_at_one_moment_for_a_busy_process_goes_to_another(amqp_vhost_url: str, prefix: str) -> None:
    """On RabbitMQ several queues send at once to a process with an order that had nothing to do."""
    queues = [Queue(name=f"{prefix}.{number}", rank=number) for number in range(3)]
    held: list[Delivery] = []
    others: list[Delivery] = []
    one, other = open_transport(amqp_vhost_url), open_transport(amqp_vhost_url)
    one.declare(Topology(queues=tuple(queues)))
    one.consume(queues, held.append, prefetch=1)
    other.declare(Topology(queues=tuple(queues)))
    for queue in queues:
        other.publish(Wire(body=b"{}", headers={}), queue.route).result(30)
    wait_for(lambda: len(held) == 1, 60, "one message")

    other.consume([replace(queue, rank=0) for queue in queues], others.append, prefetch=3)
    wait_for(lambda: len(others) == 2, 60, "the other two, though the first is held for ever")
    assert len(held) == 1
    one.close()
    other.close()


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
