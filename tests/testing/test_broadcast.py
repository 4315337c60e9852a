"""Listeners of each process, in the harness and across a fork."""

from __future__ import annotations

import os

import pytest

from lightbus import Bus, DeclarationError, RetryPolicy
from lightbus.endpoint import shared_queues
from lightbus.testing import harness
from tests.testing.apps import Orders


@pytest.mark.parametrize("broker", ["memory", "amqp", "redis", "sqlite"])
def test_the_harness_hands_it_over_like_any_event(request: pytest.FixtureRequest, broker: str) -> None:
    fixture = {"amqp": "amqp_vhost_url", "redis": "redis_url", "sqlite": "sqlite_url"}.get(broker)
    bus, seen = Bus("office", url="memory://"), list[int]()
    bus.on(Orders.placed, name="refresh", each_process=True)(lambda event: seen.append(event.order))
    with harness(bus, url=request.getfixturevalue(fixture) if fixture else "") as t:
        bus.fire(Orders.placed(order=1, email=""))
        t.settle()
        t.simulate(Orders.placed, order=2, email="")
        bus.fire(Orders.placed(order=3, email=""), delay_seconds=60, expires_seconds=5)
        t.advance(60)
    assert seen == [1, 2, 3]


def test_a_forked_child_has_a_queue_of_its_own_under_the_same_rate() -> None:
    bus = Bus("office", url="memory://")
    bus.on(Orders.placed, name="refresh", each_process=True, rate="5/s")(print)
    (endpoint,) = bus.endpoints()
    (own,) = endpoint.queues()
    assert own.startswith(f"office.each.refresh.{os.getpid()}.")
    assert list(endpoint.queues()) == [own]
    assert shared_queues(endpoint) == []
    rates = list(endpoint.rates())  # type: ignore[attr-defined]

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, " ".join([*endpoint.queues(), *endpoint.rates()]).encode())  # type: ignore[attr-defined]
        os._exit(0)
    os.waitpid(pid, 0)
    childs, *same = os.read(reader, 1000).decode().split()
    os.close(reader)
    os.close(writer)
    assert childs.startswith(f"office.each.refresh.{pid}.")
    assert same == rates == ["office.each.refresh"]


def test_what_cannot_be_promised_cannot_be_asked_for() -> None:
    bus = Bus("office", url="memory://", claims="memory://")
    for options in ({"retry": RetryPolicy()}, {"dedupe": "7d"}, {"max_priority": 9}):
        with pytest.raises(DeclarationError, match="each_process"):
            bus.on(Orders.placed, each_process=True, **options)  # type: ignore[arg-type]
    bus.on(Orders.placed, name="refresh", each_process=True)(print)
    with pytest.raises(DeclarationError, match="already"):
        bus.on(Orders.placed, name="refresh", each_process=True)(print)
