"""Calls `add` in one way, named by the first argument, as often as the second says; prints latency and calls/s."""

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
    deadline = time.monotonic() + 20
    while True:
        try:
            adder.add(x=1, y=2)
            break
        except NotServed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # until the server is up
    return lambda number: adder.add.start(x=number, y=3).result


def celery() -> Start:
    from bench_rpc_celery import add

    add.delay(1, 2).get(timeout=30)

    def start(number: int) -> Callable[[], Any]:
        result = add.delay(number, 3)
        return lambda: result.get(timeout=30)

    return start


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


def main(way: str, count: int) -> None:
    start = {"raw": raw, "lightbus": lightbus, "celery": celery}[way]()
    call(start, WARM_UP, 1)
    seconds = sorted(call(start, count, 1))
    in_flight = sum(call(start, count, IN_FLIGHT))
    figures = {
        "p50_ms": statistics.median(seconds) * 1000,
        "p99_ms": seconds[int(len(seconds) * 0.99)] * 1000,
        "calls_per_second": count / in_flight,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
