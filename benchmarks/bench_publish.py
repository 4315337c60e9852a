"""Publishes messages in one way, named by the first argument, as many as the second says; prints messages/s and CPU."""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

URL = os.environ["BENCH_BROKER_URL"]
THREADS = 8
WARM_UP = 20
Publish = Callable[[int], object]


def raw(confirmed: bool) -> Publish:
    import amqp
    from bench_rpc_raw import connect

    connection = connect()
    connection.client_properties["capabilities"]["connection.blocked"] = False
    channel = connection.channel()
    channel.queue_declare("bench.sink", durable=True, auto_delete=False)
    confirms = [0]
    if confirmed:
        channel.confirm_select()
        channel.events["basic_ack"].add(lambda tag, multiple: confirms.__setitem__(0, tag))
    sent = 0

    def publish(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            message = amqp.Message('{"x": 1, "y": 2}', content_type="application/json", delivery_mode=2)
            channel.basic_publish(message, exchange="", routing_key="bench.sink")
            sent += 1
        while confirmed and confirms[0] < sent:
            connection.drain_events()

    return publish


def celery(confirmed: bool, backend: str | None = None) -> Publish:
    from celery import Celery

    app = Celery("bench", broker=URL, backend=backend)
    app.conf.update(task_default_queue="bench.sink", task_ignore_result=backend is None)
    if confirmed:
        app.conf.broker_transport_options = {"confirm_publish": True}

    @app.task(name="bench.noop")
    def noop(a, b):
        pass

    return repeated(lambda: noop.delay(1, 2))


def dramatiq() -> Publish:
    os.environ["BENCH_DONE"] = os.devnull
    from bench_tasks_dramatiq import noop

    return repeated(lambda: noop.send(1, 2))


def huey() -> Publish:
    os.environ["BENCH_DONE"] = os.devnull
    from bench_tasks_huey import noop

    return repeated(lambda: noop(1, 2))


def lightbus_delay(threads: int = 1) -> Publish:
    os.environ["BENCH_DONE"] = os.devnull
    from bench_tasks_lightbus import noop

    def one() -> None:
        noop.delay(1, 2)

    if threads == 1:
        return repeated(one)
    pool = ThreadPoolExecutor(threads)

    def publish(count: int) -> None:
        for _ in pool.map(lambda _: repeated(one)(count // threads), range(threads)):
            pass

    return publish


def lightbus_later() -> Publish:
    import dataclasses

    os.environ["BENCH_DONE"] = os.devnull
    from bench_tasks_lightbus import noop

    app = noop.app
    app.configure(dataclasses.replace(app.settings, confirm_later=True))

    def publish(count: int) -> None:
        repeated(lambda: noop.delay(1, 2))(count)
        app.wait_for_confirms()

    return publish


def lightbus_together() -> Publish:
    os.environ["BENCH_DONE"] = os.devnull
    from bench_tasks_lightbus import noop

    from lightbus.compat import together

    def publish(count: int) -> None:
        for first in range(0, count, 500):
            with together():
                for _ in range(first, min(count, first + 500)):
                    noop.delay(1, 2)

    return publish


def lightbus_fire(how: str) -> Publish:
    import asyncio

    from bench_contract import Adder

    from lightbus import Bus

    bus = Bus("bench-sink")
    if how == "one":
        return repeated(lambda: bus.fire(Adder.added(x=1, y=2)))
    if how == "all":
        return lambda count: bus.fire_all(Adder.added(x=1, y=2) for _ in range(count))

    async def fire(count: int) -> None:
        for first in range(0, count, 500):
            events = (Adder.added(x=1, y=2) for _ in range(first, min(count, first + 500)))
            await asyncio.gather(*(bus.fire_async(event) for event in events))

    return lambda count: asyncio.run(fire(count))


def repeated(one: Callable[[], object]) -> Publish:
    def publish(count: int) -> None:
        for _ in range(count):
            one()

    return publish


WAYS: dict[str, Callable[[], Publish]] = {
    "raw": lambda: raw(False),
    "raw-confirmed": lambda: raw(True),
    "celery": lambda: celery(False),
    "celery-rpc-results": lambda: celery(False, "rpc://"),
    "celery-confirmed": lambda: celery(True),
    "dramatiq": dramatiq,
    "huey": huey,
    "lightbus-delay": lightbus_delay,
    "lightbus-delay-threads": lambda: lightbus_delay(THREADS),
    "lightbus-delay-together": lightbus_together,
    "lightbus-delay-later": lightbus_later,
    "lightbus-fire": lambda: lightbus_fire("one"),
    "lightbus-fire-all": lambda: lightbus_fire("all"),
    "lightbus-fire-gathered": lambda: lightbus_fire("gathered"),
}


def main(way: str, count: int) -> None:
    publish = WAYS[way]()
    publish(WARM_UP)  # connections are opened at the first message
    began, cpu = time.perf_counter(), time.process_time()
    publish(count)
    seconds = time.perf_counter() - began
    used = time.process_time() - cpu
    print(json.dumps({"messages_per_second": count / seconds, "cpu_us": used / count * 1e6}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
