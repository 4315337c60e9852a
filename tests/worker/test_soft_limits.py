"""Soft time limits: raised in the handler that is over its limit, wherever it runs, and in no other."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightbus import Api, Bus, Event, SoftTimeLimitExceeded
from lightbus.core.retry import RetryPolicy
from lightbus.core.topology import DEAD_LETTER_QUEUE
from lightbus.drivers.memory import MemoryTransport
from lightbus.testing.bench import eventually
from lightbus.worker import WorkerOptions
from tests.processes import Processes
from tests.runtime.workers import working

NEVER_AGAIN = RetryPolicy(max_retries=0)


class Limited(Api, name="tests.soft", version="1.0"):
    class asked(Event):
        number: int


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus("soft", transport=MemoryTransport())
    yield bus
    bus.transport.close()


def fire(bus: Bus, count: int = 1) -> None:
    bus.transport.declare(bus.endpoints()[0].topology())
    for number in range(count):
        bus.fire(Limited.asked(number=number))


MAIN_THREAD = """
import json, signal, sys, time
from lightbus import Api, Bus, Event, SoftTimeLimitExceeded
from lightbus.worker import Process, WorkerOptions

class Limited(Api, name="tests.soft", version="1.0"):
    class asked(Event):
        number: int

bus = Bus("soft", url=sys.argv[1])
rang = []

@bus.on(Limited.asked, soft_limit_seconds=0.3)
def sleep(event):
    signal.signal(signal.SIGALRM, lambda number, frame: rang.append("the library's alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.1)  # as a library may do
    started = time.monotonic()
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        print(json.dumps([time.monotonic() - started, rang]), flush=True)
        process.stop()

bus.transport.declare(bus.endpoints()[0].topology())
bus.fire(Limited.asked(number=1))
process = Process([bus], WorkerOptions())
process.run()
"""


def test_on_the_main_thread_it_ends_a_sleep_and_leaves_a_librarys_alarm_alone(
    processes: Processes, tmp_path: Path, sqlite_url: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(MAIN_THREAD)

    process = processes.start("python", program, sqlite_url)

    assert process.wait() == 0, process.read_log()
    seconds, rang = json.loads(process.read_log().splitlines()[-1])
    assert 0.25 < seconds < 5
    assert rang == ["the library's alarm"]


@pytest.mark.parametrize("threads", [1, 3])
def test_on_a_thread_it_ends_running_code(bus: Bus, threads: int) -> None:
    ended: list[str] = []

    @bus.on(Limited.asked, soft_limit_seconds=0.1, retry=NEVER_AGAIN)
    def spin(event: Limited.asked) -> None:
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended.append("cleaned up")

    fire(bus, 3)
    with working(bus, options=WorkerOptions(threads=threads)):
        eventually(lambda: len(ended), lambda count: count == 3, "all to be ended")
        eventually(lambda: bus.transport.message_count(DEAD_LETTER_QUEUE), lambda count: count == 3, "all to be parked")
        dead = bus.transport.get(DEAD_LETTER_QUEUE)
    assert dead is not None
    assert "SoftTimeLimitExceeded: the handler ran for longer" in str(dead.wire.headers["lightbus_dead_error"])


def test_in_a_coroutine_it_is_a_cancellation_inside_and_itself_outside(bus: Bus) -> None:
    seen: list[str] = []

    @bus.on(Limited.asked, soft_limit_seconds=0.1, retry=NEVER_AGAIN)
    async def wait(event: Limited.asked) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    fire(bus, 5)
    with working(bus):
        eventually(lambda: bus.transport.message_count(DEAD_LETTER_QUEUE), lambda count: count == 5, "all to be parked")
        dead = bus.transport.get(DEAD_LETTER_QUEUE)
    assert seen == ["cancelled"] * 5
    assert dead is not None
    assert str(dead.wire.headers["lightbus_dead_error"]).startswith("SoftTimeLimitExceeded")


def test_the_workers_limit_is_for_handlers_that_name_none(bus: Bus) -> None:
    ended: list[str] = []

    def spin(name: str) -> None:
        until = time.monotonic() + 0.6
        try:
            while time.monotonic() < until:
                time.sleep(0.001)
            ended.append(f"{name} came to its end")
        except SoftTimeLimitExceeded:
            ended.append(f"{name} was over its limit")

    bus.on(Limited.asked, name="silent")(lambda event: spin("silent"))
    bus.on(Limited.asked, name="patient", soft_limit_seconds=30)(lambda event: spin("patient"))
    fire(bus)
    with working(bus, options=WorkerOptions(threads=2, soft_limit_seconds=0.1)):
        eventually(lambda: sorted(ended), lambda seen: len(seen) == 2, "both to end")

    assert sorted(ended) == ["patient came to its end", "silent was over its limit"]


def test_it_never_hits_the_message_after_the_one_that_was_over_its_limit(bus: Bus) -> None:
    """Handlers that end at about their limit, and between them some that have none, on the same threads."""
    done: list[int] = []
    failed: list[int] = []
    random.seed(5)

    def about(event: Limited.asked) -> None:
        until = time.monotonic() + 0.004 + random.uniform(-0.0005, 0.0005)
        try:
            while time.monotonic() < until:
                pass
        except SoftTimeLimitExceeded:
            failed.append(event.number)

    def unlimited(event: Limited.asked) -> None:
        for _ in range(50):
            pass
        done.append(event.number)

    bus.on(Limited.asked, name="about", soft_limit_seconds=0.004)(about)
    bus.on(Limited.asked, name="unlimited", retry=NEVER_AGAIN)(unlimited)
    fire(bus, 400)
    with working(bus, options=WorkerOptions(threads=2)):
        eventually(lambda: len(done), lambda count: count == 400, "those without a limit to be done", 40)

    assert sorted(done) == list(range(400))
    assert failed, "no handler was over its limit: this shows nothing"
    assert not any(thread.name == "lightbus-limits" for thread in threading.enumerate())
