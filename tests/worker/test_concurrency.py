"""Limits of how many handlers run at a time: kept over processes and workers, given back by the dead."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightbus import Api, Batch, Bus, Concurrency, ConfigError, DeclarationError, Event, rpc
from lightbus.worker import Permits, WorkerOptions
from tests.processes import Process, Processes, handlers, wait_for
from tests.runtime.workers import working

SECONDS = 60.0

APP = """
import asyncio, json, os, time
from pathlib import Path
from lightbus import Api, Bus, Concurrency, Event, current_delivery

FOLDER = Path(os.environ["FOLDER"])
LIMIT = Concurrency(int(os.environ["MOST"]), everywhere=os.environ.get("EVERYWHERE") == "yes")


def note(what, number):
    with open(FOLDER / "journal.jsonl", "a") as file:
        file.write(json.dumps({"what": what, "number": number, "pid": os.getpid(), "at": time.monotonic()}) + "\\n")


class Work(Api, name="limited.work", version="1.0"):
    class slow(Event):
        number: int
        waits: bool = False
    class quick(Event):
        number: int


bus = Bus(os.environ["APP"], url=os.environ["BROKER"])


@bus.on(Work.slow, concurrency=LIMIT)
def slow(event):
    note("began", event.number)
    seen = FOLDER / f"seen{event.number}"
    if event.waits and not seen.exists():  # not when it comes again, after a kill
        seen.touch()
        while not (FOLDER / f"gate{event.number}").exists():
            time.sleep(0.01)
    time.sleep(0.02)
    note("ended", event.number)


@bus.on(Work.quick)
def quick(event):
    note("quick", event.number)
"""


class Work(Api, name="limited.work", version="1.0"):
    class slow(Event):
        number: int
        waits: bool = False

    class quick(Event):
        number: int

    @rpc(timeout_seconds=20.0)
    def ask(self) -> int:
        raise NotImplementedError


class Fleet:
    """Workers of one app on one broker, and the journal of their handlers."""

    def __init__(self, folder: Path, url: str, app: str, processes: Processes) -> None:
        self.folder, self._url, self._app, self._processes = folder, url, app, processes
        (folder / "limited.py").write_text(APP)
        self.bus = Bus("sender", url=url)

    def worker(self, count: int, *, most: int, everywhere: bool = False) -> Process:
        environment = {
            "FOLDER": str(self.folder), "BROKER": self._url, "APP": self._app, "MOST": str(most),
            "EVERYWHERE": "yes" if everywhere else "no",
        }  # fmt: skip
        process = self._processes.start(
            "python", "-m", "lightbus.cli", "worker", "-A", "limited:bus", "-c", str(count),
            name="worker", environment=environment, folder=self.folder,
        )  # fmt: skip
        process.wait_for_log("lightbus worker ready")
        return process

    def noted(self, *what: str) -> list[dict[str, object]]:
        file = self.folder / "journal.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["what"] in what]

    def wait_for(self, what: str, count: int) -> list[dict[str, object]]:
        wait_for(lambda: len(self.numbers(what)) >= count, SECONDS, f"{count} that {what}")
        return self.noted(what)

    def numbers(self, what: str) -> set[object]:
        return {entry["number"] for entry in self.noted(what)}

    def most_at_a_time(self, dead: int = 0) -> int:
        """What ran at the most; of a process that was killed nothing ran after its last note."""
        running, most = 0, 0
        for entry in self.noted("began", "ended"):
            if entry["pid"] != dead:
                running += 1 if entry["what"] == "began" else -1
                most = max(most, running)
        return most

    def open(self, number: int) -> None:
        (self.folder / f"gate{number}").touch()


@pytest.fixture
def fleet(tmp_path: Path, broker_url: str, prefix: str, processes: Processes) -> Fleet:
    return Fleet(tmp_path, broker_url, prefix, processes)


@pytest.mark.parametrize("most", [0, -1, 10_001, True, 1.5])
def test_a_limit_is_a_number_of_handlers(most: int) -> None:
    with pytest.raises(DeclarationError, match="whole number"):
        Bus("shop").on(Work.slow, name="slow", concurrency=most)(lambda event: None)


def test_a_listener_with_batches_has_no_limit() -> None:
    with pytest.raises(DeclarationError, match="would not fill"):
        Bus("shop").on(Work.slow, concurrency=1, batch=Batch(size=10))


def test_the_permits_of_a_process_that_is_killed_are_free_at_once() -> None:
    permits = Permits({"a": Concurrency(2), "b": Concurrency(1)})
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, bytes([permits.take("a") is not None, permits.take("a") is not None]))
        signal.pause()
    assert os.read(reader, 2) == b"\1\1"
    assert permits.take("a") is None
    assert permits.take("b") is not None
    assert permits.take("b") is None, "its own threads count too"

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    first, second = permits.take("a"), permits.take("a")
    assert first is not None
    assert second is not None
    assert permits.take("a") is None
    permits.free(first)
    assert permits.take("a") is not None
    os.close(reader)
    os.close(writer)


def test_the_processes_of_a_worker_keep_a_limit_together_and_the_quick_pass(fleet: Fleet) -> None:
    worker = fleet.worker(3, most=2)
    for number in (1, 2):
        fleet.bus.fire(Work.slow(number=number, waits=True))
    fleet.wait_for("began", 2)
    for number in range(3, 23):
        fleet.bus.fire(Work.slow(number=number))
    for number in range(20):
        fleet.bus.fire(Work.quick(number=number))
    fleet.wait_for("quick", 20)  # on the one process that is left, though the others wait before them
    assert fleet.numbers("began") == {1, 2}

    fleet.open(1)
    fleet.wait_for("ended", 21)
    fleet.open(2)
    fleet.wait_for("ended", 22)

    assert fleet.most_at_a_time() == 2
    assert len(fleet.noted("ended")) == 22
    assert worker.stop() == 0


def test_a_process_that_is_killed_gives_its_permit_back(fleet: Fleet) -> None:
    worker = fleet.worker(2, most=1)
    fleet.bus.fire(Work.slow(number=1, waits=True))
    (first,) = fleet.wait_for("began", 1)
    fleet.bus.fire(Work.slow(number=2))
    dead = int(str(first["pid"]))
    assert dead in handlers(worker.pid)

    os.kill(dead, signal.SIGKILL)
    fleet.wait_for("ended", 2)

    assert fleet.most_at_a_time(dead) == 1
    assert worker.stop() == 0


def test_what_one_worker_may_not_run_another_may(fleet: Fleet) -> None:
    fleet.worker(2, most=1)
    fleet.bus.fire(Work.slow(number=1, waits=True))
    fleet.wait_for("began", 1)
    for number in (2, 3):  # more than the first worker's processes can hold
        fleet.bus.fire(Work.slow(number=number))
    other = fleet.worker(1, most=1)

    fleet.wait_for("ended", 2)

    pids = {entry["pid"] for entry in fleet.noted("ended")}
    assert pids == set(handlers(other.pid))
    fleet.open(1)
    fleet.wait_for("ended", 3)


def test_a_limit_of_all_workers_is_kept_by_workers_that_do_not_know_each_other(
    request: pytest.FixtureRequest, tmp_path: Path, prefix: str, processes: Processes
) -> None:
    for fixture in ("redis_url", "sqlite_url"):
        folder = tmp_path / fixture
        folder.mkdir()
        fleet = Fleet(folder, request.getfixturevalue(fixture), prefix, processes)
        one, other = (fleet.worker(1, most=1, everywhere=True) for _ in range(2))
        fleet.bus.fire(Work.slow(number=1, waits=True))
        (first,) = fleet.wait_for("began", 1)
        for number in range(2, 10):
            fleet.bus.fire(Work.slow(number=number))
        holder = one if first["pid"] in handlers(one.pid) else other
        dead = int(str(first["pid"]))

        holder.kill_group()  # its lease ends, and the other goes on
        fleet.wait_for("ended", 9)

        assert fleet.most_at_a_time(dead) == 1


@pytest.mark.parametrize("broker_url", ["amqp"], indirect=True)
def test_a_broker_that_cannot_count_refuses_a_limit_of_all_workers(broker_url: str, prefix: str) -> None:
    bus = Bus(prefix, url=broker_url)
    bus.on(Work.slow, name="slow", concurrency=Concurrency(2, everywhere=True))(lambda event: None)
    with pytest.raises(ConfigError, match="RabbitMQ cannot count"), working(bus):
        pass


def test_coroutines_of_a_listener_and_of_an_api_run_so_many_at_a_time(broker_url: str, prefix: str) -> None:
    running, most, done = {"event": 0, "call": 0}, {"event": 0, "call": 0}, threading.Semaphore(0)

    async def work(kind: str) -> int:
        running[kind] += 1
        most[kind] = max(most[kind], running[kind])
        await asyncio.sleep(0.02)
        running[kind] -= 1
        return most[kind]

    class Ours(Work):
        @rpc()
        async def ask(self) -> int:
            return await work("call")

    bus = Bus(prefix, url=broker_url)

    @bus.on(Work.slow, concurrency=3)
    async def slow(event: Work.slow) -> None:
        await work("event")
        done.release()

    bus.serve(Ours(), concurrency=2)
    with working(bus, options=WorkerOptions(threads=2)), ThreadPoolExecutor(8) as callers:
        for number in range(30):
            bus.fire(Work.slow(number=number))
        client = bus.client(Work)
        answers = [callers.submit(client.ask) for _ in range(16)]
        for _ in range(30):
            assert done.acquire(timeout=SECONDS)
        assert all(answer.result() for answer in answers)
    assert most == {"event": 3, "call": 2}
    bus.close()


def test_what_waits_for_a_permit_goes_back_at_a_stop(broker_url: str, prefix: str) -> None:
    gate, began, seen = threading.Event(), threading.Event(), list[int]()
    bus = Bus(prefix, url=broker_url)

    @bus.on(Work.slow, concurrency=1)
    def slow(event: Work.slow) -> None:
        seen.append(event.number)
        began.set()
        assert gate.wait(SECONDS)

    queue = next(iter(bus.endpoints()[0].queues()))
    with working(bus, options=WorkerOptions(threads=4)):
        for number in range(5):
            bus.fire(Work.slow(number=number))
        assert began.wait(SECONDS)
        wait_for(lambda: bus.transport.message_count(queue) == 4, SECONDS, "the others to wait in their queue")
        threading.Timer(0.2, gate.set).start()
    left = 5 - len(seen)
    assert bus.transport.message_count(queue) == left
    with working(bus):
        wait_for(lambda: len(seen) == 5, SECONDS, "the rest")
    assert sorted(seen) == list(range(5))
    bus.close()


def test_a_limited_listener_of_each_process_hears_all(broker_url: str, prefix: str) -> None:
    seen, running, most = list[int](), [0], [0]
    lock = threading.Lock()
    bus = Bus(prefix, url=broker_url)

    @bus.on(Work.slow, each_process=True, concurrency=1)
    def slow(event: Work.slow) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
            seen.append(event.number)

    with working(bus, options=WorkerOptions(threads=4)):
        for number in range(20):
            bus.fire(Work.slow(number=number))
        wait_for(lambda: len(seen) == 20, SECONDS, "all")
    assert sorted(seen) == list(range(20))
    assert most == [1]
    bus.close()
