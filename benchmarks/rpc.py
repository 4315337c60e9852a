"""The round trip of a call: one caller, one server process."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp
from measure import Samples, interleave, start, stop, table

FIGURES = (
    ("p50_ms", "p50 ms", True),
    ("p99_ms", "p99 ms", False),
    ("in_flight_per_second", "calls/s, 50 in flight", True),
)
IN_FLIGHT = 50
WARM_UP = 30

#: Answers n calls, at most `width` of them under way; returns the seconds of each when width is 1.
Caller = Callable[[int, int], list[float]]


def run(url: str, rounds: int, calls: int, progress: Callable[[str], None]) -> tuple[str, dict[str, Samples]]:
    """Measure all candidates on the RabbitMQ at `url`; the table and the samples."""
    folder = Path(tempfile.mkdtemp(prefix="lightbus-bench-"))
    os.environ["BENCH_AMQP_URL"] = url
    servers = {
        "raw py-amqp, own reply queue": (["bench_rpc_raw.py"], _raw_caller),
        "lightbus call": (
            ["-m", "lightbus.cli", "worker", "-A", "bench_rpc_lightbus", "--processes", "1", "--prefetch", "100",
             "-l", "WARNING"],
            _lightbus_caller,
        ),
        "celery delay().get(), rpc://, solo": (
            ["-m", "celery", "-A", "bench_rpc_celery", "worker", "-P", "solo", "-l", "ERROR", "--without-mingle"],
            _celery_caller,
        ),
    }  # fmt: skip
    candidates = {
        name: _candidate(url, folder, calls, arguments, caller) for name, (arguments, caller) in servers.items()
    }
    samples = interleave(candidates, rounds, progress)
    return table(samples, FIGURES), samples


def _candidate(
    url: str,
    folder: Path,
    calls: int,
    arguments: list[str],
    open_caller: Callable[[str], tuple[Caller, Callable[[], Any]]],
) -> Callable[[], Mapping[str, float]]:
    def measure() -> Mapping[str, float]:
        file = arguments[0] if arguments[0] == "-m" else str(Path(__file__).parent / arguments[0])
        server = start([file, *arguments[1:]], {"BENCH_AMQP_URL": url, "LIGHTBUS_URL": url}, folder / "rpc.log")
        call, close = open_caller(url)
        try:
            call(WARM_UP, 1)
            seconds = sorted(call(calls, 1))
            began = time.perf_counter()
            call(calls, IN_FLIGHT)
            rate = calls / (time.perf_counter() - began)
        finally:
            close()
            stop(server)
        return {
            "p50_ms": statistics.median(seconds) * 1000,
            "p99_ms": seconds[int(len(seconds) * 0.99)] * 1000,
            "in_flight_per_second": rate,
        }

    return measure


def _raw_caller(url: str) -> tuple[Caller, Callable[[], Any]]:
    parts = urlsplit(url)
    connection = amqp.Connection(
        f"{parts.hostname}:{parts.port}", parts.username, parts.password, virtual_host=parts.path[1:] or "/"
    )
    connection.connect()
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

    def send(number: int) -> str:
        call_id = str(uuid.uuid4())
        body = json.dumps({"x": number, "y": 3})
        message = amqp.Message(body, correlation_id=call_id, reply_to=reply_queue, content_type="application/json")
        channel.basic_publish(message, exchange="", routing_key="bench.raw-rpc")
        return call_id

    def call(n: int, width: int) -> list[float]:
        seconds = []
        for first in range(0, n, width):
            began = time.perf_counter()
            waiting = {send(number): number for number in range(first, min(n, first + width))}
            while not waiting.keys() <= answered.keys():
                connection.drain_events()
            assert all(answered.pop(call_id) == number + 3 for call_id, number in waiting.items())
            seconds.append(time.perf_counter() - began)
        return seconds

    return call, connection.close


def _lightbus_caller(url: str) -> tuple[Caller, Callable[[], Any]]:
    from bench_contract import Adder

    from lightbus import Bus, NotServed

    bus = Bus("bench-caller", url=url)
    adder = bus.client(Adder)
    deadline = time.monotonic() + 20
    while True:  # until the server is up
        try:
            adder.add(x=1, y=2)
            break
        except NotServed:
            assert time.monotonic() < deadline, "the server does not come up"
            time.sleep(0.05)

    def call(n: int, width: int) -> list[float]:
        seconds = []
        for first in range(0, n, width):
            began = time.perf_counter()
            futures = [(number, adder.add.start(x=number, y=3)) for number in range(first, min(n, first + width))]
            assert all(future.result() == number + 3 for number, future in futures)
            seconds.append(time.perf_counter() - began)
        return seconds

    return call, bus.close


def _celery_caller(url: str) -> tuple[Caller, Callable[[], Any]]:
    from bench_rpc_celery import add, app

    add.delay(1, 2).get(timeout=30)

    def call(n: int, width: int) -> list[float]:
        seconds = []
        for first in range(0, n, width):
            began = time.perf_counter()
            results = [(number, add.delay(number, 3)) for number in range(first, min(n, first + width))]
            assert all(result.get(timeout=30) == number + 3 for number, result in results)
            seconds.append(time.perf_counter() - began)
        return seconds

    return call, app.close
