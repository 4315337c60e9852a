"""Workers are asked what they are, on each broker: all answer, each once, and what they say is what they serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import cast

import pytest

from lightbus import Api, Bus, Event, rpc
from lightbus.contracts.document import api_document
from lightbus.core.codec import encode_call
from lightbus.core.description import ROUTE, Description
from lightbus.core.message import CallMessage, Origin, Wire
from lightbus.core.topology import DESCRIBE_EXCHANGE, describe_topology
from lightbus.describing import Load, RunningWorker, ask, describe
from lightbus.drivers import open_transport
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.ports import Transport
from lightbus.worker.answering import answered_here
from tests.processes import wait_for

from .workers import working

SECONDS = 20.0


class Orders(Api, name="sales.orders", version="1.2"):
    class placed(Event):
        id: int

    @rpc()
    def get(self, *, id: int) -> str:
        raise NotImplementedError


class Odd(Api, name="sales.odd", version="2.0"):
    @rpc()
    def anything(self) -> complex:  # has no JSON Schema
        raise NotImplementedError


class OurOrders(Orders):
    @rpc()
    def get(self, *, id: int) -> str:
        return "open"


def sales(transport: Transport) -> Bus:
    bus = Bus("sales", transport=transport)
    bus.serve(OurOrders())
    return bus


def support(transport: Transport) -> Bus:
    bus = Bus("support", transport=transport)
    bus.on(Orders.placed, name="greet")(lambda event: None)
    return bus


@pytest.fixture(params=["amqp_vhost_url", "redis_url", "sqlite_url", "memory"])
def transports(request: pytest.FixtureRequest) -> Iterator[Sequence[Transport]]:
    """Three connections to one broker."""
    if request.param == "memory":
        broker = MemoryBroker()
        opened: list[Transport] = [MemoryTransport(broker) for _ in range(3)]
    else:
        url = request.getfixturevalue(request.param)
        opened = [open_transport(url) for _ in range(3)]
    yield opened
    for transport in opened:
        transport.close()


def test_each_worker_answers_once_with_what_it_serves_and_none_is_there_when_all_have_ended(
    transports: Sequence[Transport],
) -> None:
    first, second, asking = transports
    assert ask(asking, "shell", seconds=SECONDS) == [], "nobody is there, which is said at once"
    running = RunningWorker(), RunningWorker(queues=["support.on.greet"])
    with ExitStack() as workers:
        for bus, worker, transport in [(sales(first), running[0], first), (support(second), running[1], second)]:
            said = describe(bus, worker, tasks=["resize"] if bus.name == "sales" else ())
            found = [(transport, said)]
            workers.enter_context(answered_here(lambda found=found: found, lambda: Load(4, 8, 3)))  # type: ignore[misc]
        wait_for(lambda: len(ask(asking, "shell", seconds=1.0)) == 2, SECONDS, "both to be there")
        seller, helper = ask(asking, "shell", seconds=SECONDS, enough=lambda found: len(found) == 2)

        assert (seller.app, seller.worker, seller.pid) == ("sales", running[0].id, running[0].pid)
        assert (seller.processes, seller.slots, seller.busy, seller.tasks) == (4, 8, 3, ("resize",))
        assert [(api.name, api.version, api.queue) for api in seller.apis] == [
            ("sales.orders", "1.2", "lightbus.rpc.sales.orders.v1")
        ]
        assert seller.apis[0].contract == api_document(Orders)
        assert seller.queues == ("lightbus.rpc.sales.orders.v1",)
        assert helper.apis == ()
        (listener,) = helper.listeners
        assert (listener.name, listener.queue) == ("greet", "support.on.greet")
        assert [(event.name, event.version) for event in listener.events] == [("sales.orders.placed", "1.2")]
        queue = describe_topology("sales", running[0].id).queues[0].name
    wait_for(lambda: ask(asking, "shell", seconds=1.0) == [], SECONDS, "both to be gone")
    assert asking.message_count(queue) is None, "an ended worker leaves no queue"


def test_what_is_no_question_or_comes_too_late_is_not_answered(transports: Sequence[Transport]) -> None:
    first, _, asking = transports
    said = describe(sales(first), RunningWorker())
    origin = Origin(id="1", source="shell", sent_at=time.time(), correlation_id="1")
    late = CallMessage(
        origin=origin, name="lightbus.describe", version="1.0", payload=b"{}", reply_to="lightbus.reply.shell.1",
        deadline=time.time() - 5,
    )  # fmt: skip
    with answered_here(lambda: [(first, said)], Load):
        wait_for(lambda: ask(asking, "shell", seconds=1.0), SECONDS, "the worker")
        for wire in (Wire(body=b"?"), encode_call(late, now=time.time() - 6)):
            asking.publish(wire, ROUTE).result(SECONDS)

        answers = ask(asking, "shell", seconds=SECONDS, enough=lambda found: len(found) == 1)

    assert [one.app for one in answers] == ["sales"]


def test_a_worker_of_which_every_slot_is_busy_answers() -> None:
    broker = MemoryBroker()
    bus, asking = support(MemoryTransport(broker)), MemoryTransport(broker)
    began, go_on = threading.Event(), threading.Event()

    @bus.on(Orders.placed, name="slow")
    def slow(event: Orders.placed) -> None:
        began.set()
        go_on.wait(SECONDS)

    said = describe(bus, RunningWorker())
    try:
        with working(bus), answered_here(lambda: [(bus.transport, said)], lambda: Load(busy=1)):
            for number in range(5):
                bus.fire(Orders.placed(id=number))
            assert began.wait(SECONDS)
            found = wait_for(lambda: ask(asking, "shell", seconds=1.0), SECONDS, "an answer")
            assert [(one.app, one.busy) for one in found] == [("support", 1)]
            go_on.set()
    finally:
        go_on.set()


def test_a_listener_of_each_process_is_announced_without_a_queue() -> None:
    bus = support(MemoryTransport())
    bus.on(Orders.placed, name="refresh", each_process=True)(lambda event: None)

    said = describe(bus, RunningWorker())
    chosen = describe(bus, RunningWorker(queues=["support.on.greet"]))

    assert [(one.name, one.queue) for one in said.listeners] == [("greet", "support.on.greet"), ("refresh", "")]
    assert said.queues == ("support.on.greet",)
    assert [one.name for one in chosen.listeners] == ["greet"]


def test_an_api_without_a_schema_is_announced_without_its_contract(caplog: pytest.LogCaptureFixture) -> None:
    class OurOdd(Odd):
        @rpc()
        def anything(self) -> complex:
            return 1j

    bus = Bus("sales", transport=MemoryTransport())
    bus.serve(OurOdd())

    said: Description = describe(bus, RunningWorker())

    assert [(api.name, api.contract) for api in said.apis] == [("sales.odd", None)]
    assert "sales.odd" in caplog.text


def test_a_broker_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightbus.core.errors import AccessRefused, BrokerUnreachable
    from lightbus.worker import answering

    class Refusing(MemoryTransport):
        tries = 0

        def declare(self, topology: object) -> None:
            self.tries += 1
            raise self.error

        error: Exception = BrokerUnreachable("away")

    away, forbidden = Refusing(), Refusing()
    forbidden.error = AccessRefused("no")
    monkeypatch.setattr(answering, "FIRST_PAUSE_SECONDS", 0.0)
    said = describe(sales(cast(Transport, away)), RunningWorker())
    looks = iter([False, False, False, True])

    answering.answer_until(lambda: next(looks), [(away, said), (forbidden, said)], Load)

    assert away.tries == 4
    assert forbidden.tries == 1
    assert DESCRIBE_EXCHANGE == "lightbus.describe"
