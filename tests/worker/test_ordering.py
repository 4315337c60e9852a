"""Listeners with ordered_by: a ledger of who began what when, over processes and workers, kills and stops."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from lightbus import Api, Batch, Bus, Concurrency, DeclarationError, Event, Ordered, RetryPolicy, current_delivery
from lightbus.core.message import Wire
from lightbus.core.topology import DEAD_LETTER_QUEUE
from lightbus.describing import ask
from lightbus.drivers import open_transport
from lightbus.endpoint import HasLanes
from lightbus.ports import Delivery, PermitStore
from lightbus.testing import harness
from lightbus.worker import Permits, WorkerOptions
from lightbus.worker.lanes import Lanes, LaneSource
from lightbus.worker.settle import Settler
from tests.processes import Process, Processes, handlers, wait_for
from tests.runtime.workers import working

SECONDS = 90.0
KEYS, EACH = 12, 20

APP = """
import json, os, time
from pathlib import Path
from lightbus import Api, Bus, Event, RetryPolicy, current_delivery

FOLDER = Path(os.environ["FOLDER"])


def note(what, event):
    line = {"what": what, "key": event.key, "number": event.number, "pid": os.getpid()}
    with open(FOLDER / "ledger.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")


class Accounts(Api, name="tests.accounts", version="1.0"):
    class moved(Event):
        key: str
        number: int


bus = Bus(os.environ["APP"], url=os.environ["BROKER"])


@bus.on(Accounts.moved, ordered_by="key", retry=RetryPolicy(max_retries=3, base_seconds=0.02))
def book(event):
    note("began", event)
    time.sleep(0.005)
    if str(event.number) == os.environ.get("HANGS"):
        time.sleep(600)
    if event.number % 7 == 3 and current_delivery().attempt == 1:
        raise ValueError("the first try of some fails")
    note("ended", event)
"""


class Accounts(Api, name="tests.accounts", version="1.0"):
    class moved(Event):
        key: str
        number: int

    class closed(Event):
        number: int


class Ledger:
    """Workers of one app, and what their handlers wrote down."""

    def __init__(self, folder: Path, url: str, app: str, processes: Processes) -> None:
        self.folder, self._url, self._app, self._processes = folder, url, app, processes
        (folder / "accounts.py").write_text(APP)

    def worker(self, *options: str, **more: str) -> Process:
        environment = {"FOLDER": str(self.folder), "BROKER": self._url, "APP": self._app, **more}
        process = self._processes.start(
            "python", "-m", "lightbus.cli", "worker", "-A", "accounts:bus", "-c", "2", *options, name="worker",
            environment=environment, folder=self.folder,
        )  # fmt: skip
        process.wait_for_log("lightbus worker ready")
        return process

    def fire(self, keys: int = KEYS, each: int = EACH) -> None:
        bus = Bus("sender", url=self._url)
        for number in range(each):
            for key in range(keys):
                bus.fire(Accounts.moved(key=f"k{key}", number=number))
        bus.close()

    def lines(self) -> list[dict[str, Any]]:
        file = self.folder / "ledger.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def done(self) -> set[tuple[str, int]]:
        return {(line["key"], line["number"]) for line in self.lines() if line["what"] == "ended"}

    def wait_for_done(self, count: int, workers: list[Process]) -> None:
        wait_for(lambda: len(self.done()) >= count, SECONDS, f"{count} to be done", [one.log for one in workers])

    def violations(self) -> list[dict[str, Any]]:
        """Lines that tell of a handler which began before all that were fired before it, with its key, had ended."""
        ended: dict[str, set[int]] = {}
        found = []
        for line in self.lines():
            before = ended.setdefault(line["key"], set())
            if line["what"] == "ended":
                before.add(line["number"])
            elif not before.issuperset(range(line["number"])):
                found.append({**line, "ended": sorted(before)})
        return found


def test_the_order_of_a_key_is_kept_over_kills_stops_and_retries_and_nothing_is_lost(
    tmp_path: Path, broker_url: str, prefix: str, processes: Processes
) -> None:
    ledger = Ledger(tmp_path, broker_url, prefix, processes)
    one, two = ledger.worker(), ledger.worker()
    firing = threading.Thread(target=ledger.fire)
    firing.start()
    ledger.wait_for_done(30, [one, two])
    os.kill(handlers(one.pid)[0], signal.SIGKILL)
    ledger.wait_for_done(90, [one, two])
    one.kill_group()
    three = ledger.worker()
    ledger.wait_for_done(150, [two, three])
    assert two.stop() == 0  # in the midst of it: what it has not begun goes on elsewhere
    ledger.wait_for_done(KEYS * EACH, [three])
    firing.join()

    assert ledger.violations() == []
    assert three.stop() == 0
    transport = open_transport(broker_url)
    assert transport.message_count(DEAD_LETTER_QUEUE) in (0, None)
    transport.close()


def test_the_processes_of_a_worker_share_the_lanes(
    tmp_path: Path, broker_url: str, prefix: str, processes: Processes
) -> None:
    ledger = Ledger(tmp_path, broker_url, prefix, processes)
    worker = ledger.worker()
    ledger.fire()
    ledger.wait_for_done(KEYS * EACH, [worker])

    assert ledger.violations() == []
    assert {line["pid"] for line in ledger.lines()} == set(handlers(worker.pid))
    pids_by_key = {(line["key"], line["pid"]) for line in ledger.lines()}
    assert len(pids_by_key) == KEYS, "the events of a key stay in one process"


def test_what_is_tried_again_holds_back_its_own_lane_and_no_other(broker_url: str, prefix: str) -> None:
    bus, seen, tries = Bus(prefix, url=broker_url), list[tuple[str, int]](), list[tuple[int, bool]]()
    may_pass = threading.Event()
    ordered = Ordered("key", lanes=2)
    slow, quick = (next(k for k in map(str, range(99)) if ordered.lane_of(moved(k, 0)) == lane) for lane in (0, 1))

    @bus.on(Accounts.moved, ordered_by=ordered, retry=RetryPolicy(max_retries=20, base_seconds=0.1, cap_seconds=0.1))
    async def book(event: Accounts.moved) -> None:
        if event.key == slow and event.number == 0 and not may_pass.is_set():
            delivery = current_delivery()
            assert delivery is not None
            tries.append((delivery.attempt, delivery.redelivered))
            raise ValueError("not yet")
        seen.append((event.key, event.number))

    with working(bus, options=WorkerOptions(threads=1)):
        for number in range(3):
            bus.fire(moved(slow, number))
            bus.fire(moved(quick, number))
        wait_for(lambda: len(seen) == 3 and len(tries) >= 2, SECONDS, "the quick ones, and a second try")
        assert seen == [(quick, 0), (quick, 1), (quick, 2)]
        may_pass.set()
        wait_for(lambda: len(seen) == 6, SECONDS, "the others")
    assert seen[3:] == [(slow, 0), (slow, 1), (slow, 2)]
    assert [attempt for attempt, _ in tries] == list(range(1, len(tries) + 1))
    bus.close()


def test_what_fails_for_good_is_parked_and_the_next_of_its_key_goes_on(broker_url: str, prefix: str) -> None:
    bus, seen = Bus(prefix, url=broker_url, dead_letter_queue=f"{prefix}.dead"), list[int]()

    @bus.on(Accounts.moved, ordered_by="key", retry=RetryPolicy(max_retries=1, base_seconds=0.01))
    def book(event: Accounts.moved) -> None:
        if event.number == 1:
            raise ValueError("never")
        seen.append(event.number)

    with working(bus):
        for number in range(4):
            bus.fire(moved("a", number))
        wait_for(lambda: len(seen) == 3, SECONDS, "the others")
        wait_for(lambda: bus.transport.message_count(f"{prefix}.dead") == 1, SECONDS, "the dead letter")
    assert seen == [0, 2, 3]
    bus.close()


def test_a_stop_between_two_tries_loses_nothing_and_keeps_the_order(broker_url: str, prefix: str) -> None:
    seen, failed, broken = list[int](), threading.Event(), [True]

    def make_bus() -> Bus:
        bus = Bus(prefix, url=broker_url)

        @bus.on(Accounts.moved, ordered_by="key", retry=RetryPolicy(max_retries=2, base_seconds=60.0))
        def book(event: Accounts.moved) -> None:
            if broken[0]:
                failed.set()
                raise ValueError("wait a minute")
            seen.append(event.number)

        return bus

    first = make_bus()
    with working(first):
        for number in range(3):
            first.fire(moved("a", number))
        assert failed.wait(SECONDS)
    broken[0] = False
    with working(make_bus()):
        wait_for(lambda: len(seen) == 3, SECONDS, "all")
    assert seen == [0, 1, 2]


def test_one_worker_stands_by_until_the_other_has_gone(broker_url: str, prefix: str) -> None:
    seen = list[tuple[str, int]]()

    def make_bus(name: str) -> Bus:
        bus = Bus(prefix, url=broker_url)
        bus.on(Accounts.moved, name="book", ordered_by="key")(lambda event: seen.append((name, event.number)))
        return bus

    first, second = make_bus("first"), make_bus("second")
    with working(second):
        with working(first):
            for number in range(10):
                first.fire(moved("a", number))
            wait_for(lambda: len(seen) == 10, SECONDS, "ten")
            assert {name for name, _ in seen} == {"second"}
    with working(first):
        for number in range(10, 20):
            first.fire(moved("a", number))
        wait_for(lambda: len(seen) == 20, SECONDS, "twenty")
    assert [number for _, number in seen] == list(range(20))
    assert {name for name, number in seen if number >= 10} == {"first"}


def test_a_process_that_ends_leaves_its_lanes_though_another_handler_still_runs(broker_url: str, prefix: str) -> None:
    seen, running, may_end = list[str](), threading.Event(), threading.Event()

    def make_bus(name: str) -> Bus:
        bus = Bus(prefix, url=broker_url)
        bus.on(Accounts.moved, name="book", ordered_by="key")(lambda event: seen.append(name))
        return bus

    def wait(event: Accounts.closed) -> None:
        running.set()
        assert may_end.wait(SECONDS)

    first, second = make_bus("first"), make_bus("second")
    first.on(Accounts.closed, name="wait")(wait)
    with working(first, options=WorkerOptions(threads=2)) as process, working(second):
        first.fire(Accounts.closed(number=0))
        assert running.wait(SECONDS)
        process.stop()
        for number in range(5):
            second.fire(moved("a", number))
        wait_for(lambda: len(seen) == 5, SECONDS, "the events to be handled")
        assert set(seen) == {"second"}
        may_end.set()


@pytest.mark.parametrize("broker_url", ["redis", "sqlite"], indirect=True)
def test_a_lane_that_another_worker_has_taken_over_is_left(broker_url: str, prefix: str) -> None:
    bus, seen = Bus(prefix, url=broker_url), list[bytes]()
    bus.on(Accounts.moved, name="book", ordered_by=Ordered("key", lanes=1))(lambda event: None)
    endpoint, transport = bus.endpoints()[0], bus.transport
    assert isinstance(endpoint, HasLanes)
    assert isinstance(transport, PermitStore)
    transport.declare(endpoint.topology())
    (queue,) = [one for one in endpoint.topology().queues if one.name == f"{prefix}.ordered.book.0"]

    def take(delivery: Delivery) -> None:
        seen.append(delivery.wire.body)
        delivery.ack()

    def send(*bodies: bytes) -> None:
        for body in bodies:
            transport.publish(Wire(body=body), queue.route).result(SECONDS)

    lanes = Lanes(Permits({queue.name: Concurrency(1)}), 1)
    lanes.add(LaneSource(transport, endpoint, [queue], take, Settler(transport, DEAD_LETTER_QUEUE)))
    send(b"0")
    wait_for(lambda: seen == [b"0"], SECONDS, "the first")
    (lane,) = lanes.held()
    transport.free_permit(queue.name, lane.holder)  # as its lease ends while this process stands still
    assert transport.hold_permit(queue.name, "another worker", 1, lease_seconds=60.0)
    wait_for(lambda: not lanes.held(), SECONDS, "the lane to be left")
    send(b"1", b"2")
    assert seen == [b"0"]
    assert transport.message_count(queue.name) == 2
    transport.free_permit(queue.name, "another worker")
    wait_for(lambda: len(seen) == 3, SECONDS, "the rest")
    assert seen == [b"0", b"1", b"2"]
    lanes.close(timeout_seconds=10.0)
    bus.close()


def test_lanes_that_no_other_process_takes_are_taken_beyond_the_share(sqlite_url: str, prefix: str) -> None:
    bus, seen = Bus(prefix, url=sqlite_url), set[str]()
    bus.on(Accounts.moved, name="book", ordered_by="key")(lambda event: seen.add(event.key))
    with working(bus, options=WorkerOptions(processes=4)):  # the other three do not start
        for key in range(40):
            bus.fire(moved(str(key), 0))
        wait_for(lambda: len(seen) == 40, SECONDS, "the keys of all lanes")
    bus.close()


def test_what_runs_over_its_hard_limit_is_parked_and_not_tried_for_ever(
    tmp_path: Path, broker_url: str, prefix: str, processes: Processes
) -> None:
    ledger = Ledger(tmp_path, broker_url, prefix, processes)
    worker = ledger.worker("--time-limit", "1", HANGS="3")
    ledger.fire(keys=1, each=6)
    ledger.wait_for_done(5, [worker])

    assert sorted(number for _, number in ledger.done()) == [0, 1, 2, 4, 5]
    transport = open_transport(broker_url)
    assert transport.message_count(DEAD_LETTER_QUEUE) == 1
    transport.close()


def test_a_worker_that_is_given_the_listeners_queue_has_its_lanes_too(
    tmp_path: Path, sqlite_url: str, prefix: str, processes: Processes
) -> None:
    ledger = Ledger(tmp_path, sqlite_url, prefix, processes)
    worker = ledger.worker("-Q", f"{prefix}.on.book")
    ledger.fire()
    ledger.wait_for_done(KEYS * EACH, [worker])

    assert f"{prefix}.ordered.book.3" in worker.read_log()
    transport = open_transport(sqlite_url)
    found = ask(transport, "tester", seconds=2.0)
    assert len([one for one in found if f"{prefix}.ordered.book.0" in one.queues]) == 1
    transport.close()


def moved(key: str, number: int) -> Accounts.moved:
    return Accounts.moved(key=key, number=number)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ordered_by": "nothing"}, "has no such field, it has key, number"),
        ({"ordered_by": ""}, "the name of a field or a function"),
        ({"ordered_by": Ordered("key"), "rate": "1/s"}, "has no rate"),
        ({"ordered_by": "key", "batch": Batch(size=2), "each_process": True}, "no batch and no each_process"),
        ({"ordered_by": "key", "concurrency": 2}, "no concurrency"),
        ({"ordered_by": "key", "retry": RetryPolicy(max_retries=20)}, "hold up what comes after"),
    ],
)
def test_what_does_not_go_with_an_order_is_refused(options: dict[str, Any], message: str) -> None:
    bus = Bus("shop")
    with pytest.raises(DeclarationError, match=message):
        bus.on(Accounts.moved, name="book", **options)(lambda event: None)


def test_each_event_of_the_listener_has_the_key() -> None:
    with pytest.raises(DeclarationError, match=r"event tests.accounts.closed has no such field"):
        Bus("shop").on(Accounts, name="book", ordered_by="key")(lambda event: None)


@pytest.mark.parametrize("lanes", [0, 257])
def test_there_are_so_many_lanes_and_no_more(lanes: int) -> None:
    with pytest.raises(DeclarationError, match="1 to 256"):
        Ordered("key", lanes=lanes)


def test_a_key_stays_in_its_lane_and_keys_are_spread() -> None:
    ordered = Ordered(lambda event: (event.key, 1), lanes=8)
    lanes = [ordered.lane_of(moved(f"customer-{number}", 0)) for number in range(800)]
    assert lanes == [ordered.lane_of(moved(f"customer-{number}", 1)) for number in range(800)]
    assert all(50 < lanes.count(lane) < 150 for lane in range(8))


def test_the_harness_handles_what_a_listener_with_an_order_hears() -> None:
    bus, seen = Bus("shop"), list[int]()

    @bus.on(Accounts.moved, ordered_by="key")
    def book(event: Accounts.moved) -> None:
        if event.number == 13:
            raise ValueError("unlucky")
        seen.append(event.number)

    with harness(bus) as t:
        t.simulate(Accounts.moved, key="a", number=1)
        bus.fire(moved("a", 2))
        bus.fire(moved("b", 3))
        t.settle()
        assert sorted(seen) == [1, 2, 3]
        with pytest.raises(ValueError, match="unlucky"):
            t.simulate(Accounts.moved, key="a", number=13)
