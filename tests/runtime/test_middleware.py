"""Middleware around handlers, and reports of what became of messages. On the in-memory broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue

import pytest

from lightbus import Api, Bus, CallError, DeclarationError, Event, Invocation, Middleware, RetryPolicy, rpc
from lightbus.core.message import Route, Wire
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.report import Report
from lightbus.worker import WorkerOptions

from .workers import working


class Doors(Api, name="tests.doors", version="1.0"):
    class opened(Event):
        id: int

    @rpc(timeout_seconds=5.0)
    def knock(self, *, id: int) -> str:
        raise NotImplementedError


class OurDoors(Doors):
    @rpc()
    def knock(self, *, id: int) -> str:
        return f"who is {id}?"


def noting(word: str, notes: Queue[str]) -> Middleware:
    @contextmanager
    def note(invocation: Invocation) -> Iterator[None]:
        notes.put(f"{word} enter {invocation.name}")
        try:
            yield
        except Exception as error:
            notes.put(f"{word} saw {error}")
            raise
        finally:
            notes.put(f"{word} leave")

    return note


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus("doors", transport=MemoryTransport(MemoryBroker()))
    yield bus
    bus.close()


@pytest.fixture
def notes() -> Queue[str]:
    return Queue()


def taken(notes: Queue[str], count: int) -> list[str]:
    return [notes.get(timeout=10) for _ in range(count)]


def test_middleware_is_entered_in_its_order_and_left_in_reverse(notes: Queue[str]) -> None:
    bus = Bus("doors", transport=MemoryTransport(MemoryBroker()), middleware=[noting("bus", notes)])
    bus.use(noting("used", notes))

    @bus.on(Doors.opened)
    def heard(event: Doors.opened) -> None:
        notes.put(f"handler {event.id}")

    with working(bus, options=WorkerOptions(middleware=[noting("worker", notes)])):
        bus.fire(Doors.opened(id=4))
        seen = taken(notes, 7)
    bus.close()

    name = "tests.doors.opened"
    assert seen == [
        f"worker enter {name}", f"bus enter {name}", f"used enter {name}", "handler 4",
        "used leave", "bus leave", "worker leave",
    ]  # fmt: skip


def test_coroutines_and_calls_are_wrapped_too(bus: Bus, notes: Queue[str]) -> None:
    bus.use(noting("m", notes))
    bus.serve(OurDoors())

    @bus.on(Doors.opened)
    async def heard(event: Doors.opened) -> None:
        notes.put("in the coroutine")

    with working(bus):
        assert bus.client(Doors).knock(id=3) == "who is 3?"
        called = taken(notes, 2)
        bus.fire(Doors.opened(id=1))
        fired = taken(notes, 3)

    assert called == ["m enter tests.doors.knock", "m leave"]
    assert fired == ["m enter tests.doors.opened", "in the coroutine", "m leave"]


def test_a_middleware_of_one_bus_does_not_see_the_messages_of_another(notes: Queue[str]) -> None:
    broker = MemoryBroker()
    ours, theirs = Bus("ours", transport=MemoryTransport(broker)), Bus("theirs", transport=MemoryTransport(broker))
    ours.use(noting("ours", notes))
    ours.on(Doors.opened, name="here")(lambda event: notes.put("ours handled"))
    theirs.on(Doors.opened, name="there")(lambda event: notes.put("theirs handled"))
    with working(ours, theirs, options=WorkerOptions(threads=1)):
        ours.fire(Doors.opened(id=1))
        seen = taken(notes, 4)
    ours.close()
    theirs.close()

    assert seen.count("theirs handled") == 1
    assert [one for one in seen if one != "theirs handled"] == [
        "ours enter tests.doors.opened", "ours handled", "ours leave",
    ]  # fmt: skip


def test_what_a_middleware_raises_is_the_handlers_failure_and_the_outer_ones_are_left(
    bus: Bus, notes: Queue[str]
) -> None:
    @contextmanager
    def refusing(invocation: Invocation) -> Iterator[None]:
        raise PermissionError("not today")
        yield

    bus.use(noting("outer", notes), refusing)
    bus.serve(OurDoors())
    with working(bus):
        with pytest.raises(CallError, match="not today"):
            bus.client(Doors).knock(id=1)
        seen = taken(notes, 2)

    assert seen == ["outer enter tests.doors.knock", "outer leave"]


def test_what_cannot_be_called_is_refused_where_it_is_registered(bus: Bus) -> None:
    with pytest.raises(DeclarationError, match="from an Invocation to a context manager"):
        bus.use(42)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError):
        Bus("doors", middleware=["log"])  # type: ignore[list-item]


def test_a_report_says_what_became_of_each_delivery(bus: Bus) -> None:
    reports = Queue[Report]()
    handled = Queue[int]()

    @bus.on(Doors.opened, retry=RetryPolicy(max_retries=1, base_seconds=0.01, cap_seconds=0.01))
    def heard(event: Doors.opened) -> None:
        handled.put(event.id)
        if event.id == 13:
            raise ValueError("jammed")

    bus.serve(OurDoors())
    with working(bus, options=WorkerOptions(threads=1, observers=[reports.put])):
        bus.fire(Doors.opened(id=1))
        first = reports.get(timeout=10)
        bus.fire(Doors.opened(id=13))
        failed, parked = reports.get(timeout=10), reports.get(timeout=10)
        bus.client(Doors).knock(id=2)
        called = reports.get(timeout=10)
        bus.transport.publish(Wire(body=b"?"), Route("", "doors.on.heard")).result()
        unread = reports.get(timeout=10)

    assert (first.kind, first.name, first.verdict, first.delivery.queue) == (
        "event", "tests.doors.opened", "ok", "doors.on.heard",
    )  # fmt: skip
    assert first.waited_seconds is not None
    assert 0 <= first.waited_seconds < 5
    assert (failed.verdict, str(failed.error)) == ("retry", "jammed")
    assert parked.verdict == "parked"
    assert parked.invocation is not None
    assert parked.invocation.attempt == 2
    assert (called.kind, called.verdict) == ("call", "ok")
    assert (unread.kind, unread.name, unread.verdict) == ("event", "", "parked")


def test_an_observer_that_raises_costs_no_message(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    def broken(report: Report) -> None:
        raise RuntimeError("no room for counters")

    bus.serve(OurDoors())
    with working(bus, options=WorkerOptions(observers=[broken])):
        assert bus.client(Doors).knock(id=2) == "who is 2?"

    assert "an observer failed" in caplog.text


def test_a_handled_message_is_one_line_with_all_that_one_searches_for(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    bus.serve(OurDoors())
    with caplog.at_level(logging.INFO, "lightbus"), working(bus):
        bus.client(Doors).knock(id=2)

    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("handled ")]
    words = dict(word.split("=", 1) for word in line.split()[1:])
    assert list(words) == ["name", "id", "attempt", "seconds", "outcome", "queue", "redelivered"]
    assert words["name"] == "tests.doors.knock"
    assert (words["outcome"], words["redelivered"], words["attempt"]) == ("ok", "no", "1")


def test_reports_are_not_made_when_nobody_looks(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Queue[object]()
    monkeypatch.setattr("lightbus.worker.conclusions.Report", made.put)
    logger = logging.getLogger("lightbus.worker")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        bus.serve(OurDoors())
        with working(bus):
            bus.client(Doors).knock(id=2)
    finally:
        logger.setLevel(level)

    assert made.empty()
