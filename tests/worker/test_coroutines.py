"""Coroutine handlers: many at a time and no more, each with a context of its own, all to their end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import pytest

from lightbus import Api, Bus, Event, rpc
from lightbus.drivers.memory import MemoryTransport
from lightbus.endpoint import current_delivery
from lightbus.testing.bench import eventually
from lightbus.worker import WorkerOptions
from tests.runtime.workers import working


class Many(Api, name="tests.coroutines", version="1.0"):
    class came(Event):
        number: int

    @rpc()
    def double(self, *, number: int) -> int:
        raise NotImplementedError


class Gate:
    """Counts the handlers inside, and holds them until it is opened. Opened from another thread than the loop's."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.most = 0
        self.done: list[int] = []
        self._open = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, event: Many.came) -> None:
        self._loop = asyncio.get_running_loop()
        self.inside.add(event.number)
        self.most = max(self.most, len(self.inside))
        await self._open.wait()
        self.inside.discard(event.number)
        self.done.append(event.number)

    def open(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._open.set)


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus("many", transport=MemoryTransport())
    yield bus
    bus.transport.close()


def fire(bus: Bus, count: int) -> None:
    bus.transport.declare(bus.endpoints()[0].topology())
    for number in range(count):
        bus.fire(Many.came(number=number))


def listen(bus: Bus, gate: Gate) -> Gate:
    async def gated(event: Many.came) -> None:
        await gate(event)

    bus.on(Many.came, name="gated")(gated)
    return gate


def test_thousands_run_at_a_time_and_the_prefetch_follows_them(bus: Bus) -> None:
    gate = listen(bus, Gate())
    fire(bus, 3000)
    threads_before = threading.active_count()

    with working(bus, options=WorkerOptions(threads=1, coroutines=3000)):
        eventually(lambda: len(gate.inside), lambda count: count == 3000, "all to run at a time")
        assert threading.active_count() < threads_before + 20
        gate.open()
        eventually(lambda: len(gate.done), lambda count: count == 3000, "all to end")


def test_no_more_than_the_most_run_and_the_rest_goes_back_to_the_broker(bus: Bus) -> None:
    gate = listen(bus, Gate())
    fire(bus, 100)
    (queue,) = bus.endpoints()[0].queues()

    with working(bus, options=WorkerOptions(threads=1, coroutines=10, prefetch=50)):
        eventually(lambda: bus.transport.message_count(queue), lambda count: count == 90, "the rest to be handed back")
        assert len(gate.inside) == 10
        gate.open()
        eventually(lambda: len(gate.done), lambda count: count == 100, "all to be handled")
    assert gate.most == 10
    assert sorted(gate.done) == list(range(100))


def test_a_stop_waits_for_what_has_begun_and_hands_the_rest_back(bus: Bus) -> None:
    gate = listen(bus, Gate())
    fire(bus, 20)
    (queue,) = bus.endpoints()[0].queues()

    with working(bus, options=WorkerOptions(threads=1, coroutines=5, prefetch=20)) as process:
        eventually(lambda: len(gate.inside), lambda count: count == 5, "some to run")
        process.stop()
        eventually(lambda: bus.transport.message_count(queue), lambda count: count == 15, "the rest to be handed back")
        assert gate.done == []
        gate.open()

    assert len(gate.done) == 5


def test_each_has_a_context_of_its_own(bus: Bus) -> None:
    mark: ContextVar[str] = ContextVar("mark", default="nobody's")
    seen: list[tuple[str, str, str]] = []

    @bus.on(Many.came, name="marks")
    async def marks(event: Many.came) -> None:
        before = mark.get()
        mark.set(str(event.number))
        invocation = current_delivery()
        assert invocation is not None
        await asyncio.sleep(0.001 * (event.number % 3))
        after = current_delivery()
        assert after is invocation
        assert invocation.args[0] is event
        seen.append((before, mark.get(), str(event.number)))

    fire(bus, 50)
    with working(bus, options=WorkerOptions(threads=2, coroutines=7)):
        eventually(lambda: len(seen), lambda count: count == 50, "all to be handled")

    assert {before for before, _, _ in seen} == {"nobody's"}
    assert all(own == number for _, own, number in seen)


@pytest.mark.parametrize("fails", [False, True], ids=["answer", "error"])
def test_the_answer_of_a_coroutine_reaches_its_caller(broker_url: str, prefix: str, fails: bool) -> None:
    class Own(Many):
        @rpc()
        async def double(self, *, number: int) -> int:  # type: ignore[override]
            await asyncio.sleep(0)
            if fails:
                raise RuntimeError("it fails")
            return 2 * number

    bus, caller = Bus(prefix, url=broker_url), Bus(f"{prefix}-caller", url=broker_url)
    bus.serve(Own())
    call: Callable[..., int] = caller.client(Many).double
    with working(bus):
        if fails:
            with pytest.raises(Exception, match="it fails"):
                call(number=4)
        else:
            assert call(number=4) == 8
    caller.close()
