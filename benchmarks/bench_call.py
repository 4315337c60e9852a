"""Calls `add` in one way, named by the first argument, as often as the second says; prints latency and calls/s."""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

URL = os.environ["BENCH_BROKER_URL"]
IN_FLIGHT = 50
WARM_UP = 30

#: Starts the call `add(number, 3)`; what it returns waits for the answer.
Start = Callable[[int], Callable[[], Any]]


def until_it_is_served(call: Callable[[], object], not_served: type[Exception]) -> None:
    """Call until the server is up."""
    deadline = time.monotonic() + 20
    while True:
        try:
            call()
            return
        except not_served:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def raw() -> Start:
    import amqp
    from bench_rpc_raw import connect

    connection = connect()
    connection.client_properties["capabilities"]["connection.blocked"] = False
    channel = connection.channel()
    channel.queue_declare("bench.raw-rpc", durable=True, auto_delete=False)
    reply_queue = channel.queue_declare("", exclusive=True).queue
    answered: dict[str, Any] = {}
    channel.basic_consume(
        reply_queue,
        no_ack=True,
        callback=lambda m: answered.update({m.properties["correlation_id"]: json.loads(m.body)}),
    )

    def start(number: int) -> Callable[[], Any]:
        call_id = str(uuid.uuid4())
        body = json.dumps({"x": number, "y": 3})
        message = amqp.Message(body, correlation_id=call_id, reply_to=reply_queue, content_type="application/json")
        channel.basic_publish(message, exchange="", routing_key="bench.raw-rpc")

        def wait() -> Any:
            while call_id not in answered:
                connection.drain_events()
            return answered.pop(call_id)

        return wait

    return start


def lightbus() -> Start:
    from bench_contract import Adder

    from lightbus import Bus, NotServed

    adder = Bus("bench-caller").client(Adder)
    until_it_is_served(lambda: adder.add(x=1, y=2), NotServed)
    return lambda number: adder.add.start(x=number, y=3).result


def celery() -> Start:
    from bench_rpc_celery import add

    add.delay(1, 2).get(timeout=30)

    def start(number: int) -> Callable[[], Any]:
        result = add.delay(number, 3)
        return lambda: result.get(timeout=30)

    return start


def nameko() -> Start:
    from nameko.exceptions import UnknownService
    from nameko.standalone.rpc import ClusterRpcProxy

    adder = ClusterRpcProxy({"AMQP_URI": URL}, timeout=30).start().bench_adder
    until_it_is_served(lambda: adder.add(1, 2), UnknownService)
    return lambda number: adder.add.call_async(number, 3).result


async def faststream(count: int) -> dict[str, float]:
    """It has coroutines only, which are measured on their own loop."""
    from bench_rpc_faststream import QUEUE
    from faststream.rabbit import RabbitBroker

    async with RabbitBroker(URL) as broker:

        async def add(number: int, timeout_seconds: float = 30) -> None:
            answer = await broker.request({"x": number, "y": 3}, QUEUE, timeout=timeout_seconds)
            if (found := await answer.decode()) != number + 3:
                raise RuntimeError(f"add({number}, 3) gave {found!r}")

        async def call(count: int, width: int) -> list[float]:
            seconds = []
            for first in range(0, count, width):
                began = time.perf_counter()
                await asyncio.gather(*(add(number) for number in range(first, min(count, first + width))))
                seconds.append(time.perf_counter() - began)
            return seconds

        for _ in range(20):
            with contextlib.suppress(TimeoutError):  # the server is not up, and the call went nowhere
                await add(0, timeout_seconds=1)
                break
        await call(WARM_UP, 1)
        return figures(await call(count, 1), await call(count, IN_FLIGHT), count)


def call(start: Start, count: int, width: int) -> list[float]:
    """Seconds of each group of `width` calls."""
    seconds = []
    for first in range(0, count, width):
        began = time.perf_counter()
        waits = [(number, start(number)) for number in range(first, min(count, first + width))]
        for number, wait in waits:
            answer = wait()
            if answer != number + 3:
                raise RuntimeError(f"add({number}, 3) gave {answer!r}")
        seconds.append(time.perf_counter() - began)
    return seconds


def figures(one_by_one: list[float], in_flight: list[float], count: int) -> dict[str, float]:
    """What is printed, of the seconds of `count` calls."""
    seconds = sorted(one_by_one)
    return {
        "p50_ms": statistics.median(seconds) * 1000,
        "p99_ms": seconds[int(len(seconds) * 0.99)] * 1000,
        "calls_per_second": count / sum(in_flight),
    }


def main(way: str, count: int) -> None:
    if way == "faststream":
        print(json.dumps(asyncio.run(faststream(count))))
        return
    start = {"raw": raw, "lightbus": lightbus, "celery": celery, "nameko": nameko}[way]()
    call(start, WARM_UP, 1)
    print(json.dumps(figures(call(start, count, 1), call(start, count, IN_FLIGHT), count)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
