"""Dead letters looked at, replayed and thrown away, through a whole bus on each broker."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from queue import Queue

import pytest

from lightbus import Api, Bus, Event, RetryPolicy, current_delivery
from lightbus.core.message import Route, Wire
from lightbus.core.parked import Selection
from lightbus.core.topology import Queue as BrokerQueue
from lightbus.core.topology import Topology
from lightbus.deadletters import ReplayOptions
from lightbus.drivers.memory import MemoryTransport
from tests.processes import ROOT, wait_for

from .workers import working

NEVER = RetryPolicy(max_retries=0)


class Orders(Api, name="dead.orders", version="1.0"):
    class placed(Event):
        id: int


@pytest.fixture
def bus(broker_url: str) -> Iterator[Bus]:
    bus = Bus("dead", url=broker_url)
    yield bus
    bus.close()


def parked_at(bus: Bus, count: int) -> None:
    wait_for(lambda: bus.dead_letters().count() == count, 60, f"{count} dead letters")


def test_a_replay_goes_to_the_listener_that_failed_and_brings_its_history_back(bus: Bus) -> None:
    heard = Queue[tuple[int, int, bool]]()
    sick = True

    @bus.on(Orders.placed, retry=NEVER)
    def pay(event: Orders.placed) -> None:
        if sick or event.id == 3:
            raise ConnectionError(f"no bank for {event.id}")
        delivery = current_delivery()
        assert delivery is not None
        heard.put((event.id, delivery.attempt, delivery.redelivered))

    others = Queue[int]()
    bus.on(Orders.placed, name="count")(lambda event: others.put(event.id))

    with working(bus):
        for number in (1, 2, 3):
            bus.fire(Orders.placed(id=number))
        letters = bus.dead_letters()
        parked_at(bus, 3)
        for _ in range(2):  # looking changes nothing
            seen = letters.look()
            assert sorted(parked.failure.error for parked in seen) == [
                f"ConnectionError: no bank for {number}" for number in (1, 2, 3)
            ]
            assert {parked.failure.queue for parked in seen} == {"dead.on.pay"}
        sick = False

        assert letters.replay(Selection(error="for 1")).done == 1
        assert heard.get(timeout=30)[:2] == (1, 1)
        assert letters.replay(Selection(names=("other.*",))).done == 0
        assert letters.replay(options=ReplayOptions(rate_per_second=100)).done == 2
        assert heard.get(timeout=30)[:2] == (2, 1)

        parked_at(bus, 1)
        (again,) = letters.look()
        assert again.failure.error == "ConnectionError: no bank for 3"
        assert [failure.error for failure in again.history] == ["ConnectionError: no bank for 3"]
        outcome = letters.replay(Selection(ids=(again.id,)), options=ReplayOptions(payload='{"id": 4}'))
        assert outcome.done == 1
        assert heard.get(timeout=30)[:2] == (4, 1)
        wait_for(lambda: others.qsize() >= 3, 60, "the other listener")
    assert sorted(others.get() for _ in range(others.qsize())) == [1, 2, 3]  # no replay came to it
    assert bus.dead_letters().count() == 0


def test_what_has_no_queue_any_more_stays_and_says_so(bus: Bus) -> None:
    fill(bus, 3, queue="dead.on.gone")
    letters = bus.dead_letters()

    outcome = letters.replay()

    assert outcome.done == 0
    assert len(outcome.kept) == 3
    assert "dead.on.gone" in outcome.kept[0][1]
    assert [parked.id for parked in letters.look()] == ["m0", "m1", "m2"]
    assert letters.discard(Selection(ids=("m1",))) == 1
    assert [parked.id for parked in letters.look()] == ["m0", "m2"]
    assert letters.replay(options=ReplayOptions(to="dead.on.pay", limit=1)).done == 1
    assert [parked.id for parked in letters.look()] == ["m2"]
    assert bus.transport.message_count("dead.on.pay") == 1


KILLED = """
import os, signal, sys
from lightbus import Bus
from lightbus.drivers.kombu import redis_take
from lightbus.ports import Delivery

count = int(sys.argv[2])

def ack(self, real=Delivery.ack):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)  # confirmed, and not acknowledged
    real(self)

Delivery.ack = ack
redis_take.GET_LEASE_SECONDS = 2.0
Bus("dead", url=sys.argv[1]).dead_letters().replay()
"""


def test_a_replay_that_is_killed_loses_nothing_and_flags_what_it_doubles(bus: Bus, broker_url: str) -> None:
    fill(bus, 20)
    killed = subprocess.run([sys.executable, "-c", KILLED, broker_url, "5"], cwd=ROOT, check=False, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    bus.on(Orders.placed, name="count")(lambda event: None)
    with working(bus):  # a worker puts back what the dead held
        parked_at(bus, 16)
    letters = bus.dead_letters()

    assert letters.replay().done == 16

    ids: dict[str, list[bool]] = {}
    while (delivery := bus.transport.get("dead.on.pay")) is not None:
        ids.setdefault(delivery.wire.message_id, []).append(delivery.may_repeat)
        delivery.ack()
    assert sorted(ids) == sorted(f"m{number}" for number in range(20))
    assert all(any(flags) for flags in ids.values() if len(flags) > 1)
    assert any(len(flags) > 1 for flags in ids.values())


def test_ten_thousand_are_looked_at_replayed_and_thrown_away_in_their_order() -> None:
    with contextlib.closing(Bus("dead", transport=MemoryTransport())) as bus:
        fill(bus, 10_000)
        letters = bus.dead_letters()
        assert [parked.id for parked in letters.look()] == [f"m{number}" for number in range(10_000)]
        assert letters.replay(Selection(ids=("m1",))).done == 1_111
        assert letters.discard(Selection(ids=("m2", "m3"))) == 2_222
        left = [parked.id for parked in letters.look()]
    assert left == [f"m{number}" for number in range(10_000) if str(number)[0] not in "123"]


def fill(bus: Bus, count: int, queue: str = "dead.on.pay") -> None:
    """Dead letters `m0`, `m1` and so on, in this order, as a worker parks them."""
    bus.transport.declare(
        Topology(queues=(BrokerQueue(name=bus.dead_letter_queue), BrokerQueue(name="dead.on.pay", replicated=True)))
    )
    headers = {
        "cloudEvents_type": "dead.orders.placed.v1", "lightbus_kind": "event", "lightbus_dead_queue": queue,
        "lightbus_dead_reason": "handler-failed", "lightbus_dead_error": "ValueError: x",
    }  # fmt: skip
    sent = [
        bus.transport.publish(
            Wire(body=b'{"id":1}', headers=headers, message_id=f"m{number}"), Route("", bus.dead_letter_queue)
        )
        for number in range(count)
    ]
    for confirmed in sent:
        confirmed.result(timeout=60)
