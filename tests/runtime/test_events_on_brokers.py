"""What events promise, on each broker that is promised to work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Queue

import pytest

from lightbus import AnyEvent, Api, Bus, ConfigError, DeclarationError, Event, RetryPolicy, current_delivery
from lightbus.drivers import open_transport
from lightbus.testing import harness
from lightbus.worker import WorkerOptions
from tests.processes import wait_for
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


def test_an_event_for_each_process_is_heard_by_each_once_and_by_none_that_comes_later(
    shop: Bus, broker_url: str
) -> None:
    heard = Queue[tuple[str, int, bool]]()
    offices = [Bus("office", url=broker_url) for _ in range(3)]
    for name, bus in zip("abc", offices, strict=True):

        @bus.on(Orders.placed, each_process=True)
        async def refresh(event: Orders.placed, name: str = name) -> None:
            delivery = current_delivery()
            assert delivery is not None
            heard.put((name, event.order, delivery.redelivered))
            if event.order == 1:
                raise ValueError("nobody tries it again")

        @bus.on(Orders.placed, name="once")
        def once(event: Orders.placed) -> None:
            heard.put(("once", event.order, False))

    with working(offices[0]), working(offices[1]):
        shop.fire(Orders.placed(order=1))
        first = [heard.get(timeout=PATIENCE_SECONDS) for _ in range(3)]
        shop.fire(Orders.placed(order=2), delay_seconds=0.5)
        second = [heard.get(timeout=PATIENCE_SECONDS) for _ in range(3)]
        queues = [queue for bus in offices for endpoint in bus.endpoints() for queue in endpoint.queues()]
    with working(offices[2]):
        shop.fire(Orders.placed(order=3))
        third = [heard.get(timeout=PATIENCE_SECONDS) for _ in range(2)]

    assert sorted(first) == [("a", 1, False), ("b", 1, False), ("once", 1, False)]
    assert sorted(second) == [("a", 2, False), ("b", 2, False), ("once", 2, False)]
    assert sorted(third) == [("c", 3, False), ("once", 3, False)]
    assert heard.empty()
    left = open_transport(broker_url)
    assert left.message_count("lightbus.dead") == 0
    wait_for(
        lambda: {queue for queue in queues if left.message_count(queue) is not None} == {"office.on.once"},
        PATIENCE_SECONDS,
        "the queues of the processes to go",
    )
    left.close()
    for bus in offices:
        bus.close()


class Refunds(Api, name="shop.refunds", version="2.1"):
    class placed(Event):
        amount: float
        tags: tuple[str, ...] = ()


class Elsewhere(Api, name="post.orders", version="1.0"):
    class placed(Event):
        order: int


def test_a_pattern_hears_events_of_apis_that_the_listener_does_not_have(shop: Bus, office: Bus) -> None:
    by_star, by_name, mixed = Queue[AnyEvent](), Queue[AnyEvent](), Queue[object]()
    everywhere = Queue[str]()

    @office.on("shop.*.placed", retry=RetryPolicy(max_retries=1, base_seconds=0.01))
    def star(event: AnyEvent) -> None:
        delivery = current_delivery()
        assert delivery is not None
        if event.name == "shop.orders.placed" and delivery.attempt == 1:
            raise ValueError("once")
        by_star.put(event)

    office.on("shop.refunds.placed", name="by_name")(by_name.put)
    office.on(Orders.placed, "#.orders.placed", name="mixed")(mixed.put)

    @office.on("shop.#", each_process=True)
    async def each(event: AnyEvent) -> None:
        everywhere.put(event.name)

    with working(office):
        shop.fire(Orders.placed(order=1))
        shop.fire(Refunds.placed(amount=1.5, tags=("a",)), delay_seconds=0.5)
        shop.fire(Elsewhere.placed(order=2))
        stars = sorted((by_star.get(timeout=PATIENCE_SECONDS) for _ in range(2)), key=lambda event: event.name)
        named = by_name.get(timeout=PATIENCE_SECONDS)
        both = [mixed.get(timeout=PATIENCE_SECONDS) for _ in range(2)]
        heard = sorted(everywhere.get(timeout=PATIENCE_SECONDS) for _ in range(2))

    assert [(one.name, one.version, one.source, one.payload) for one in stars] == [
        ("shop.orders.placed", "1.0", "shop", {"order": 1}),
        ("shop.refunds.placed", "2.1", "shop", {"amount": 1.5, "tags": ["a"]}),
    ]
    assert named == stars[1]
    assert named.id
    assert abs(named.sent_at - time.time()) < PATIENCE_SECONDS
    assert Orders.placed(order=1) in both
    assert [one.name for one in both if isinstance(one, AnyEvent)] == ["post.orders.placed"]
    assert heard == ["shop.orders.placed", "shop.refunds.placed"]
    assert by_star.empty()
    assert by_name.empty()
    assert mixed.empty()


@pytest.mark.parametrize("pattern", ["", "shop..placed", "shop.or*", "shop.orders placed", ".", "a" * 151, "shop.*."])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(DeclarationError, match="is no pattern of event names"):
        Bus("office").on(pattern, name="all")(lambda event: None)


def test_the_key_of_an_order_is_a_function_where_fields_are_not_known(shop: Bus, office: Bus) -> None:
    with pytest.raises(DeclarationError, match="give a function"):
        office.on("shop.#", name="all", ordered_by="order")(lambda event: None)
    seen = Queue[int]()
    office.on("shop.#", name="all", ordered_by=lambda event: event.payload.get("order"))(
        lambda event: seen.put(event.payload["order"])
    )
    with working(office):
        for number in range(5):
            shop.fire(Orders.placed(order=number))
        assert sorted(seen.get(timeout=PATIENCE_SECONDS) for _ in range(5)) == list(range(5))


def test_the_harness_knows_who_listens_by_a_pattern() -> None:
    bus, seen = Bus("office"), list[AnyEvent]()
    bus.on("shop.*.placed", name="all")(seen.append)

    with harness(bus) as t:
        t.from_app("shop").simulate(Refunds.placed, amount=2.0)
        with pytest.raises(AssertionError, match=r"nobody under test listens to post.orders.placed"):
            t.simulate(Elsewhere.placed, order=1)
    assert [(one.name, one.source, one.payload["amount"]) for one in seen] == [("shop.refunds.placed", "shop", 2.0)]
