"""Batches: full ones, late ones, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
from queue import Queue

import pytest

from lightbus import Api, Batch, Bus, DeclarationError, Event, RetryPolicy, current_delivery
from lightbus.batches import Batches
from lightbus.testing import harness
from lightbus.worker import WorkerOptions
from tests.processes import wait_for
from tests.runtime.workers import working


class Orders(Api, name="shop.orders", version="1.0"):
    class placed(Event):
        order: int


def results(batches: Batches, events: list[int]) -> list[BaseException | None]:
    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*(batches.take(event) for event in events), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_a_batch_begins_when_it_is_full_and_the_rest_when_its_time_is_over() -> None:
    seen: list[list[int]] = []
    assert results(Batches(seen.append, Batch(3, wait_seconds=0.05)), list(range(7))) == [None] * 7
    assert seen == [[0, 1, 2], [3, 4, 5], [6]]

    batches = Batches(seen.append, Batch(3, wait_seconds=0.05))
    results(batches, [7, 8])
    results(batches, [9])  # on another loop, as in another worker
    assert seen[3:] == [[7, 8], [9]]


@pytest.mark.parametrize("is_coroutine", [True, False], ids=["coroutine", "plain"])
def test_only_what_fails_alone_has_failed(is_coroutine: bool) -> None:
    tried: list[list[int]] = []

    def handle(events: list[int]) -> None:
        tried.append(events)
        if 5 in events:
            raise ValueError("five")

    async def handle_async(events: list[int]) -> None:
        handle(events)

    ended = results(Batches(handle_async if is_coroutine else handle, Batch(8)), list(range(8)))

    assert [repr(error) for error in ended] == ["None"] * 5 + ["ValueError('five')"] + ["None"] * 2
    assert tried == [[*range(8)], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]


def test_one_that_is_stopped_does_not_stop_the_others() -> None:
    seen: list[list[int]] = []

    async def both() -> None:
        batches = Batches(seen.append, Batch(10, wait_seconds=0.05))
        first, second = asyncio.ensure_future(batches.take(1)), asyncio.ensure_future(batches.take(2))
        await asyncio.sleep(0)
        first.cancel()
        await second

    asyncio.run(both())
    assert seen == [[1, 2]]


def test_a_batch_is_acknowledged_as_a_whole_and_what_fails_is_parked_alone(broker_url: str) -> None:
    shop, office = Bus("shop", url=broker_url), Bus("office", url=broker_url)
    handled = Queue[list[int]]()

    @office.on(Orders.placed, batch=Batch(10, wait_seconds=0.5), retry=RetryPolicy(max_retries=1, base_seconds=0.01))
    def insert(events: list[Orders.placed]) -> None:
        assert current_delivery() is not None
        if any(event.order == 13 for event in events):
            raise ValueError("unlucky")
        handled.put([event.order for event in events])

    with working(office):  # its queue stands from now on
        pass
    office = Bus("office", url=broker_url)
    office.on(Orders.placed, name="insert", batch=Batch(10, wait_seconds=0.5),
              retry=RetryPolicy(max_retries=1, base_seconds=0.01))(insert)  # fmt: skip
    for order in range(1, 26):
        shop.fire(Orders.placed(order=order))
    with working(office, options=WorkerOptions(threads=1)):
        got: list[int] = []
        sizes: list[int] = []
        while len(got) < 24:
            orders = handled.get(timeout=60)
            got += orders
            sizes.append(len(orders))
        wait_for(lambda: shop.transport.message_count("lightbus.dead") == 1, 60, "the one that fails to be parked")
        wait_for(lambda: shop.transport.message_count("office.on.insert") == 0, 60, "the others to be acknowledged")

    assert sorted(got) == [order for order in range(1, 26) if order != 13]
    assert max(sizes) > 1
    assert max(sizes) <= 10
    assert shop.transport.message_count("office.on.insert") == 0
    parked = list(shop.dead_letters().look())
    assert [(one.failure.reason, one.failure.attempts, one.wire.body) for one in parked] == [
        ("handler-failed", 2, b'{"order":13}')
    ]
    shop.close()
    office.close()


def test_in_the_harness_a_batch_has_one_event_and_nobody_waits() -> None:
    bus, seen = Bus("office", url="memory://"), list[list[int]]()
    with harness(bus) as t:
        bus.on(Orders.placed, name="insert", batch=Batch(100, wait_seconds=3600))(
            lambda events: seen.append([event.order for event in events])
        )
        t.simulate(Orders.placed, order=1)
        bus.fire(Orders.placed(order=2))
        t.settle()
    assert seen == [[1], [2]]


def test_what_cannot_be_is_refused() -> None:
    for size, wait_seconds in ((0, 1.0), (1, 0.0)):
        with pytest.raises(DeclarationError, match="a batch has"):
            Batch(size, wait_seconds)
