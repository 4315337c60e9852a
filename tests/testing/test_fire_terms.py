"""Events that are fired for later, for a while, or before others; and what an event says of its cause."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from lightbus import BadArguments, Bus, ConfigError, current_delivery
from lightbus.core.codec import decode_event, encode_event
from lightbus.core.message import EventMessage, Origin, Route
from lightbus.core.outcome import DeadLetter, Received, copy_for
from lightbus.core.parked import parked_of, replayed
from lightbus.testing import Harness, harness
from tests.testing.apps import Orders, Tickets


class Two:
    """A shop that fires, and two listeners, the second of which fires in turn."""

    def __init__(self) -> None:
        self.shop, self.office = Bus("shop", url="memory://"), Bus("office", url="memory://")
        self.seen: list[tuple[str, int]] = []
        self.causes: list[tuple[str, str, str]] = []

        @self.office.on(Orders.placed)
        def note(event: Orders.placed) -> None:
            self.seen.append(("placed", event.order))
            self._note_cause()
            self.office.fire(Orders.shipped(order=event.order))

        @self.office.on(Orders.shipped)
        async def send(event: Orders.shipped) -> None:
            self.seen.append(("shipped", event.order))
            self._note_cause()
            await self.office.fire_async(Tickets.opened(ticket=event.order, title=""), delay_seconds=60)

        @self.office.on(Tickets.opened)
        def open_ticket(event: Tickets.opened) -> None:
            self._note_cause()

    def _note_cause(self) -> None:
        delivery = current_delivery()
        assert delivery is not None
        self.causes.append((delivery.id, delivery.correlation_id, delivery.causation_id))


@pytest.fixture
def two() -> Two:
    return Two()


@pytest.fixture
def t(two: Two) -> Iterator[Harness]:
    with harness(two.shop, two.office) as started:
        yield started


def placed(order: int) -> Orders.placed:
    return Orders.placed(order=order, email="")


def test_a_delayed_event_comes_when_it_is_due(t: Harness, two: Two) -> None:
    two.shop.fire(placed(1), delay_seconds=3600)
    two.shop.fire(placed(2), at=datetime.now(timezone.utc) + timedelta(hours=2))
    two.shop.fire(placed(3), at=datetime.now(timezone.utc) - timedelta(hours=2))

    t.settle()
    assert two.seen == [("placed", 3), ("shipped", 3)]
    t.advance(3600)
    assert two.seen[2:] == [("placed", 1), ("shipped", 1)]
    t.advance(3600)
    assert two.seen[4:] == [("placed", 2), ("shipped", 2)]


def test_a_test_can_say_how_long_an_event_is_delayed(t: Harness, two: Two) -> None:
    two.shop.fire(placed(1), delay_seconds=60)
    two.shop.fire(placed(2), at=datetime.now(timezone.utc) + timedelta(hours=2))
    two.shop.fire(placed(3))

    t.delayed(60).assert_fired(Orders.placed, order=1, email="")
    t.delayed(7200).assert_fired(Orders.placed, order=2, email="")
    t.delayed(0).assert_fired(Orders.placed, order=3, email="")
    with pytest.raises(AssertionError, match="was not fired"):
        t.delayed(60).assert_fired(Orders.placed, order=3, email="")
    with pytest.raises(TypeError, match="for assertions"):
        t.delayed(60).simulate(Orders.placed, order=3, email="")


def test_an_expired_event_is_not_handled_and_not_parked(t: Harness, two: Two) -> None:
    two.shop.fire(placed(1), expires_seconds=10)
    two.shop.fire(placed(2), expires_seconds=10, delay_seconds=3600)
    t.settle()
    assert two.seen == [("placed", 1), ("shipped", 1)]

    t.advance(3600)  # it expires after it has become due
    assert two.seen[2:] == [("placed", 2), ("shipped", 2)]

    two.seen.clear()
    two.office.fire(placed(3), expires_seconds=10)
    t._stage.clock.passed_seconds += 11  # while no worker is free
    t.settle()
    assert two.seen == []
    assert t.parked == ()


def test_the_moment_at_which_an_event_expires_travels_and_a_replay_forgets_it() -> None:
    origin = Origin(id="1", source="shop", sent_at=1000.0, correlation_id="1")
    message = EventMessage(origin=origin, name="a.b", version="1.0", payload=b"{}", expires_at=2000.5)
    wire = encode_event(message)
    assert wire.headers["cloudEvents_expirytime"] == "1970-01-01T00:33:20.500Z"
    assert decode_event(wire) == message

    dead = copy_for(DeadLetter("handler-failed", ""), Received(wire=wire, queue="q", redelivered=False),
                    dead_queue="dead", now=0.0)  # fmt: skip
    again = replayed(parked_of(dead.wire), may_repeat=False)
    assert (again.route, decode_event(again.wire).expires_at) == (Route("", "q"), None)


def test_a_high_priority_is_handled_first_by_a_listener_that_asks_for_it() -> None:
    bus, seen = Bus("shop", url="memory://"), list[int]()
    bus.on(Orders.placed, name="urgent", max_priority=9)(lambda event: seen.append(event.order))
    with harness(bus) as t:
        for order, priority in ((1, None), (2, 9), (3, 5)):
            bus.fire(placed(order), priority=priority)
        t.settle()
    assert seen == [2, 3, 1]


def test_a_broker_without_priorities_says_so(redis_url: str) -> None:
    bus = Bus("shop", url=redis_url)
    with pytest.raises(ConfigError, match="Redis has no priorities"):
        bus.fire(placed(1), priority=3)
    bus.close()


def test_values_that_cannot_be_are_told_to_the_caller(t: Harness, two: Two) -> None:
    moment = datetime.now(timezone.utc)
    for wrong in (
        {"delay_seconds": -1},
        {"delay_seconds": float("nan")},
        {"delay_seconds": 1, "at": moment},
        {"at": moment.replace(tzinfo=None)},
        {"expires_seconds": 0},
        {"priority": 10},
        {"priority": -1},
    ):
        with pytest.raises(BadArguments, match=next(iter(wrong))):
            two.shop.fire(placed(1), **wrong)  # type: ignore[arg-type]
    t.assert_nothing_sent()


def test_what_a_handler_fires_carries_the_conversation_and_its_cause(t: Harness, two: Two) -> None:
    two.shop.fire(placed(1))
    t.settle()
    t.advance()

    first, second, third = two.causes
    assert first[1:] == (first[0], "")
    assert second[1:] == (first[0], first[0])
    assert third[1:] == (first[0], second[0])
    assert len({first[0], second[0], third[0]}) == 3
