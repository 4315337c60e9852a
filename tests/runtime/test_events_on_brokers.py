"""What events promise, on each broker that is promised to work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Queue

import pytest

from lightbus import Api, Bus, ConfigError, Event, RetryPolicy
from lightbus.worker import WorkerOptions
from tests.runtime.workers import working

PATIENCE_SECONDS = 60.0


class Orders(Api, name="shop.orders", version="1.0"):
    class placed(Event):
        order: int


@pytest.fixture
def shop(broker_url: str) -> Iterator[Bus]:
    bus = Bus("shop", url=broker_url)
    yield bus
    bus.close()


@pytest.fixture
def office(broker_url: str) -> Iterator[Bus]:
    bus = Bus("office", url=broker_url)
    yield bus
    bus.close()


def test_a_delayed_event_comes_once_to_each_listener_though_its_sender_has_left(shop: Bus, office: Bus) -> None:
    seen, failed = Queue[tuple[str, int, float]](), list[int]()

    @office.on(Orders.placed, max_priority=9)
    def first(event: Orders.placed) -> None:
        seen.put(("first", event.order, time.monotonic()))

    @office.on(Orders.placed, retry=RetryPolicy(max_retries=1, base_seconds=0.01))
    async def second(event: Orders.placed) -> None:
        if event.order == 1 and not failed:
            failed.append(event.order)
            raise ValueError("once")
        seen.put(("second", event.order, time.monotonic()))

    with working(office, options=WorkerOptions(threads=1)):
        started = time.monotonic()
        shop.fire(Orders.placed(order=1), delay_seconds=1.5, expires_seconds=600)
        shop.fire(Orders.placed(order=2), expires_seconds=600)
        if shop.transport.capabilities.priorities:
            shop.fire(Orders.placed(order=3), priority=9, delay_seconds=0.5)
        else:
            with pytest.raises(ConfigError, match="priorities"):
                shop.fire(Orders.placed(order=3), priority=9)
            shop.fire(Orders.placed(order=3))
        shop.close()
        got = [seen.get(timeout=PATIENCE_SECONDS) for _ in range(6)]

    assert sorted((name, order) for name, order, _ in got) == [
        (name, order) for name in ("first", "second") for order in (1, 2, 3)
    ]
    assert failed == [1]
    assert min(at for _, order, at in got if order == 1) >= started + 1.4
    assert seen.empty()
