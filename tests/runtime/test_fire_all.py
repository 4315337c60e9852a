"""`fire_all`: many events and one wait; what failed is named, and nothing that was begun is forgotten."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import Future
from queue import Queue

import pytest

from lightbus import Api, Bus, Event
from lightbus.core.errors import BadArguments, LightbusError, NotConfirmed, PartlyPublished
from lightbus.pipeline import MOST_UNDER_WAY, publish_all, publish_all_async
from tests.runtime.workers import working


class Stock(Api, name="tests.stock", version="1.0"):
    class counted(Event):
        number: int


def counted(count: int) -> Iterator[Event]:
    return (Stock.counted(number=number) for number in range(count))


def run(publishing: Iterator[Future[None]], *, is_async: bool) -> int:
    return asyncio.run(publish_all_async(publishing)) if is_async else publish_all(publishing)


def done(error: LightbusError | None = None) -> Future[None]:
    future = Future[None]()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return future


either = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@either
def test_more_than_may_be_under_way_arrive_from_a_generator(broker_url: str, is_async: bool) -> None:
    bus, heard, count = Bus("stock", url=broker_url), Queue[int](), MOST_UNDER_WAY + 200

    @bus.on(Stock.counted)
    def count_one(event: Stock.counted) -> None:
        heard.put(event.number)

    with working(bus):
        fired = asyncio.run(bus.fire_all_async(counted(count))) if is_async else bus.fire_all(counted(count))
        numbers = [heard.get(timeout=60) for _ in range(count)]
    bus.close()

    assert fired == count
    assert sorted(numbers) == list(range(count))


def test_the_terms_are_those_of_each_event(broker_url: str) -> None:
    bus, heard = Bus("stock", url=broker_url), Queue[int]()
    bus.on(Stock.counted, name="count")(lambda event: heard.put(event.number))

    with working(bus):
        bus.fire_all(counted(3), delay_seconds=1.0)
        assert heard.empty()
        assert sorted(heard.get(timeout=20) for _ in range(3)) == [0, 1, 2]
    bus.close()


@either
def test_nothing_to_publish_is_nothing_to_wait_for(is_async: bool) -> None:
    assert run(iter(()), is_async=is_async) == 0


@either
def test_after_a_failure_nothing_more_is_begun_and_what_is_under_way_is_waited_for(is_async: bool) -> None:
    late = Future[None]()
    begun: list[int] = []

    def publishing() -> Iterator[Future[None]]:
        for number in range(MOST_UNDER_WAY + 50):
            begun.append(number)
            if number == MOST_UNDER_WAY - 2:
                late.set_exception(NotConfirmed("the broker is full"))
            yield late if number in (0, 7) else done()

    with pytest.raises(PartlyPublished, match=r"2 of 1000 messages .* number 0, .*: the broker is full") as raised:
        run(publishing(), is_async=is_async)

    assert begun == list(range(MOST_UNDER_WAY))
    assert (raised.value.failed, raised.value.begun) == ((0, 7), MOST_UNDER_WAY)


@either
def test_a_value_that_an_event_cannot_have_is_named_and_the_events_before_it_are_out(is_async: bool) -> None:
    def publishing() -> Iterator[Future[None]]:
        yield done()
        raise BadArguments("number must be an int, got 'many'")

    with pytest.raises(PartlyPublished, match=r"1 of 2 messages .* number 1, .* got 'many'") as raised:
        run(publishing(), is_async=is_async)

    assert raised.value.failed == (1,)
    assert isinstance(raised.value.__cause__, BadArguments)


@either
def test_an_error_of_the_callers_own_iterator_comes_out_as_it_is(is_async: bool) -> None:
    def publishing() -> Iterator[Future[None]]:
        yield done()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(publishing(), is_async=is_async)


def test_a_coroutine_that_is_cancelled_ends_at_once_and_says_nothing_later(caplog: pytest.LogCaptureFixture) -> None:
    never = Future[None]()

    async def cancelled() -> None:
        task = asyncio.create_task(publish_all_async(iter([never])))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    never.set_exception(NotConfirmed("the transport was closed"))
    gc.collect()

    assert not caplog.records


def test_others_have_their_turn_while_many_are_published() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both() -> None:
        task = asyncio.create_task(other())
        await publish_all_async(done() for _ in range(10 * MOST_UNDER_WAY))
        task.cancel()

    asyncio.run(both())

    assert turns > 50
