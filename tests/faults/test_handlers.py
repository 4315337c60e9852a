"""Handlers that try a connection's patience: longer than the broker allows, busier than a heartbeat, slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightbus import Api, Bus, Event, RetryPolicy, current_delivery, rpc
from lightbus.worker import WorkerOptions
from lightbus.worker.children import resident_bytes
from tests.brokers import RabbitMQ
from tests.faults.copies import copier
from tests.processes import Processes, handlers, wait_for
from tests.runtime.workers import working


class Long(Api, name="tests.long", version="1.0"):
    class asked(Event):
        number: int
        text: str = ""

    @rpc(timeout_seconds=20.0)
    def echo(self, *, what: str) -> str:
        raise NotImplementedError


class Worker:
    """Notes what begins and ends; the first handling of event 0 lasts until it is let go."""

    def __init__(self, url: str, app: str, options: dict[str, object] | None = None) -> None:
        self.bus = Bus(app, url=url, options=options or {})
        self.begun: list[tuple[int, bool]] = []
        self.ended: list[int] = []
        self.let_go = threading.Event()
        self.bus.on(Long.asked, name="work", retry=RetryPolicy(max_retries=0))(self.handle)
        self.queue = self.bus.endpoints()[0].topology().queues[0].name

    def handle(self, event: Long.asked) -> None:
        delivery = current_delivery()
        assert delivery is not None
        self.begun.append((event.number, delivery.redelivered))
        if event.number == 0 and len([number for number, _ in self.begun if number == 0]) == 1:
            assert self.let_go.wait(120)
        self.ended.append(event.number)


@pytest.fixture
def impatient_rabbitmq(killable_rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
    """It closes a channel whose message is not acknowledged within 2 seconds, and looks each second."""

    def set_patience(timeout: str, tick: str) -> None:
        killable_rabbitmq.evaluate(
            f"application:set_env(rabbit, consumer_timeout, {timeout}), "
            f"application:set_env(rabbit, channel_tick_interval, {tick}), ok"
        )

    set_patience("2000", "1000")
    yield killable_rabbitmq
    set_patience("1800000", "60000")


@pytest.mark.xdist_group("own-rabbitmq")
def test_a_handler_longer_than_the_acknowledgement_timeout_costs_a_flagged_repeat_and_no_message(
    impatient_rabbitmq: RabbitMQ, prefix: str
) -> None:
    worker = Worker(impatient_rabbitmq.url, prefix)
    with working(worker.bus, options=WorkerOptions(threads=2)):
        for number in range(6):
            worker.bus.fire(Long.asked(number=number))
        wait_for(lambda: (0, True) in worker.begun, 60, "the broker to take it away and give it out again, flagged")
        worker.let_go.set()
        worker.bus.fire(Long.asked(number=6))
        wait_for(lambda: {*worker.ended} == {*range(7)}, 60, "all, and one that came afterwards")
        wait_for(lambda: not worker.bus.transport.message_count(worker.queue), 30, "the queue to be empty")
    assert len([number for number, flagged in worker.begun if number == 0 and not flagged]) == 1
    worker.bus.transport.delete(worker.queue)


def test_a_handler_that_computes_for_three_heartbeats_keeps_its_connection(amqp_vhost_url: str, prefix: str) -> None:
    bus = Bus(prefix, url=amqp_vhost_url, options={"heartbeat": 1})
    begun: list[bool] = []
    done = threading.Event()

    @bus.on(Long.asked, name="work")
    def compute(event: Long.asked) -> None:
        delivery = current_delivery()
        assert delivery is not None
        begun.append(delivery.redelivered)
        until = time.monotonic() + 3.5  # the broker gives up after two heartbeats without a sign
        while time.monotonic() < until:
            sum(range(10000))
        done.set()

    queue = bus.endpoints()[0].topology().queues[0].name
    with working(bus, options=WorkerOptions(threads=1)):
        bus.fire(Long.asked(number=1))
        assert done.wait(60)
        wait_for(lambda: not bus.transport.message_count(queue), 30, "the queue to be empty")
    assert begun == [False]  # a lost connection would have brought it again
    assert bus.transport.message_count(queue) == 0


PROGRAM = """
import threading
from lightbus import Bus
from tests.faults.test_handlers import Long

bus = Bus("{app}", url="{url}")


@bus.on(Long.asked, name="work")
def work(event):
    open("begun", "a").close()
    threading.Event().wait()
"""


def test_a_slow_consumer_holds_a_bounded_part_of_a_long_queue(
    tmp_path: Path, broker_url: str, prefix: str, processes: Processes
) -> None:
    (tmp_path / "slow.py").write_text(PROGRAM.format(app=prefix, url=broker_url))
    bus = Bus(prefix, url=broker_url)
    bus.on(Long.asked, name="work")(lambda event: None)
    bus.transport.declare(bus.endpoints()[0].topology())
    queue = bus.endpoints()[0].topology().queues[0].name
    bus.fire(Long.asked(number=1))
    put_copies = copier(bus.transport, broker_url, queue)
    worker = processes.start(
        "python", "-m", "lightbus.cli", "worker", "-A", "slow", "-c", "1", "--grace-seconds", "0", name="worker",
        folder=tmp_path,
    )  # fmt: skip
    worker.wait_for_log("lightbus worker ready", 60)
    (pid,) = handlers(worker.pid)
    empty_bytes = resident_bytes(pid)
    put_copies(100)  # thousand; as objects in memory they are more than 200 MB

    def waiting() -> int:
        return bus.transport.message_count(queue) or 0

    wait_for(lambda: (tmp_path / "begun").exists(), 60, "the first handler")
    wait_for(lambda: waiting() > 90_000, 60, "the queue")
    most = 0
    for _ in range(50):  # while it takes, is stuck, and hands back
        most = max(most, resident_bytes(pid))
        time.sleep(0.02)
    assert most - empty_bytes < 20 * 2**20, f"{(most - empty_bytes) / 2**20:.0f} MiB"
    assert waiting() > 90_000
    bus.close()


@pytest.mark.parametrize("jump_seconds", [-86400.0, 86400.0], ids=["back", "forward"])
def test_a_clock_that_jumps_takes_no_message_from_its_handler_and_stops_no_worker(
    broker_url: str, prefix: str, jump_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OurLong(Long):
        @rpc()
        def echo(self, *, what: str) -> str:
            return what

    worker = Worker(broker_url, prefix)
    worker.bus.serve(OurLong())
    real = time.time
    with working(worker.bus, options=WorkerOptions(threads=2)):
        worker.bus.fire(Long.asked(number=0))
        wait_for(lambda: worker.begun, 30, "the handler")
        # The kernel's clock does not jump here: a socket made after the jump would look a day old.
        assert worker.bus.client(Long).echo(what="before") == "before"
        monkeypatch.setattr(time, "time", lambda: real() + jump_seconds)
        for number in range(1, 20):
            worker.bus.fire(Long.asked(number=number))
            assert worker.bus.client(Long).echo(what=str(number)) == str(number)
        wait_for(lambda: len(worker.ended) == 19, 30, "those after the jump")
        worker.let_go.set()
        wait_for(lambda: len(worker.ended) == 20, 30, "the one that ran while the clock jumped")
    assert sorted(number for number, _ in worker.begun) == list(range(20))
    # A process hands back what waits behind a long handler, which RabbitMQ cannot do without the flag.
    assert not worker.bus.transport.capabilities.releases or not any(flagged for _, flagged in worker.begun)
