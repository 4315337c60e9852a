"""Events and calls through a whole bus: encode, route, decode, validate, handle, settle. On the in-memory broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from queue import Queue

import pytest

from lightbus import (
    Api,
    ApiError,
    BadArguments,
    Bus,
    CallTimeout,
    DeclarationError,
    Event,
    NotServed,
    Rejected,
    RemoteError,
    RetryPolicy,
    Unroutable,
    current_delivery,
    rpc,
)
from lightbus.core.codec import decode_call, encode_reply
from lightbus.core.message import ReplyMessage, Route, Wire
from lightbus.core.topology import Topology, event_route, rpc_queue
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.worker import WorkerOptions
from tests.processes import wait_for

from .workers import working

QUICK = RetryPolicy(max_retries=2, base_seconds=0.02, cap_seconds=0.02)


class Tickets(Api, name="support.tickets", version="1.2"):
    class created(Event):
        id: int
        email: str = ""

    class closed(Event):
        id: int

    class NotFound(ApiError):
        id: int

    @rpc(timeout_seconds=5.0, errors=[NotFound])
    def get(self, *, id: int) -> str:
        raise NotImplementedError

    @rpc(timeout_seconds=5.0)
    def nested(self, *, id: int) -> str:
        raise NotImplementedError

    @rpc(timeout_seconds=0.2)
    def slow(self, *, release: bool) -> str:
        raise NotImplementedError


class TicketsOwner(Tickets):
    def __init__(self, client: Tickets) -> None:
        self.client = client
        self.release = threading.Event()
        self.slow_ran = Queue[float | None]()

    @rpc()
    async def get(self, *, id: int) -> str:  # type: ignore[override]  # a coroutine answers the same call
        if id == 404:
            raise Tickets.NotFound("no such ticket", id=id)
        if id == 500:
            raise ValueError("a defect")
        if id == 501:
            return 501  # type: ignore[return-value]
        return f"ticket {id}"

    @rpc()
    def nested(self, *, id: int) -> str:
        return "nested " + self.client.get(id=id)

    @rpc()
    def slow(self, *, release: bool) -> str:
        delivery = current_delivery()
        assert delivery is not None
        self.slow_ran.put(delivery.deadline)
        assert release or self.release.wait(10)
        return "late"


class Shop:
    """Two apps on one broker: `support` owns the tickets, `shop` uses them."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.shop = Bus("shop", transport=MemoryTransport(self.broker))
        self.support = Bus("support", transport=MemoryTransport(self.broker))
        self.tickets = self.shop.client(Tickets)
        self.owner = TicketsOwner(self.support.client(Tickets))

    def dead(self) -> Wire:
        deadline = time.monotonic() + 10
        while (found := self.shop.transport.get("lightbus.dead")) is None:
            assert time.monotonic() < deadline, "nothing was parked"
            time.sleep(0.005)
        found.ack()
        return found.wire


@pytest.fixture
def shop() -> Iterator[Shop]:
    apps = Shop()
    yield apps
    apps.shop.close()
    apps.support.close()


# -- events


def test_each_listener_gets_an_event_once_and_the_publisher_knows_none_of_them(shop: Shop) -> None:
    got = Queue[tuple[str, int, str]]()

    @shop.support.on(Tickets.created)
    def mail(event: Tickets.created) -> None:
        got.put(("mail", event.id, event.email))

    @shop.support.on(Tickets.created, Tickets.closed, name="statistics")
    async def count(event: Tickets.created | Tickets.closed) -> None:
        got.put(("statistics", event.id, type(event).__name__))

    with working(shop.support):
        shop.shop.fire(Tickets.created(id=7, email="a@b.c"))
        asyncio.run(shop.shop.fire_async(Tickets.closed(id=8)))
        received = {got.get(timeout=10) for _ in range(3)}

    assert received == {("mail", 7, "a@b.c"), ("statistics", 7, "created"), ("statistics", 8, "closed")}
    assert got.empty()


def test_a_listener_that_is_away_loses_nothing(shop: Shop) -> None:
    got = Queue[int]()
    shop.support.on(Tickets.created, name="later")(lambda event: got.put(event.id))
    with working(shop.support):
        pass
    shop.shop.fire(Tickets.created(id=1))
    shop.shop.fire(Tickets.created(id=2))

    back = Bus("support", transport=MemoryTransport(shop.broker))
    back.on(Tickets.created, name="later")(lambda event: got.put(event.id))
    with working(back, options=WorkerOptions(threads=1)):
        assert [got.get(timeout=10), got.get(timeout=10)] == [1, 2]


def test_a_failure_is_tried_again_with_its_attempt_and_then_parked_with_its_reason(shop: Shop) -> None:
    attempts = Queue[int]()

    @shop.support.on(Tickets.created, retry=QUICK)
    def fails(event: Tickets.created) -> None:
        delivery = current_delivery()
        assert delivery is not None
        attempts.put(delivery.attempt)
        raise ValueError("not today")

    with working(shop.support):
        shop.shop.fire(Tickets.created(id=7))
        dead = shop.dead()

    assert [attempts.get_nowait() for _ in range(3)] == [1, 2, 3]
    assert attempts.empty()
    assert dead.body == b'{"id":7,"email":""}'
    assert dead.headers["lightbus_dead_reason"] == "handler-failed"
    assert dead.headers["lightbus_dead_error"] == "ValueError: not today"
    assert dead.headers["lightbus_dead_queue"] == "support.on.fails"
    assert dead.headers["lightbus_dead_attempts"] == 3


def test_a_failing_listener_does_not_disturb_the_other_one(shop: Shop) -> None:
    got = Queue[int]()

    @shop.support.on(Tickets.created, retry=QUICK)
    def fails(event: Tickets.created) -> None:
        raise ValueError("not today")

    shop.support.on(Tickets.created, name="works")(lambda event: got.put(event.id))
    with working(shop.support):
        shop.shop.fire(Tickets.created(id=7))
        shop.dead()
        assert got.get(timeout=10) == 7
        assert got.empty()


def test_what_a_handler_fires_carries_the_conversation(shop: Shop) -> None:
    origins = Queue[tuple[str, str]]()

    @shop.support.on(Tickets.created)
    def close(event: Tickets.created) -> None:
        shop.support.fire(Tickets.closed(id=event.id))

    @shop.support.on(Tickets.closed)
    def see(event: Tickets.closed) -> None:
        delivery = current_delivery()
        assert delivery is not None
        origins.put((delivery.id, delivery.correlation_id))

    with working(shop.support):
        shop.shop.fire(Tickets.created(id=7))
        message_id, correlation_id = origins.get(timeout=10)
    assert correlation_id
    assert correlation_id != message_id


def test_a_wrong_field_fails_on_the_line_that_fires(shop: Shop) -> None:
    with pytest.raises(BadArguments, match=r"Tickets\.created.* id: .*namely '7'"):
        shop.shop.fire(Tickets.created(id="7"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"body": b"\xff{"}, "bad-arguments"),
        ({"body": b'{"id":"x"}'}, "bad-arguments"),
        ({"content_type": "text/xml"}, "undecodable"),
        ({"headers": {}}, "undecodable"),
        ({"headers": {"cloudEvents_id": 5}}, "undecodable"),
    ],
    ids=["bytes", "wrong type", "content type", "no headers", "header type"],
)
def test_bad_input_is_parked_with_its_reason_and_the_next_event_is_handled(
    shop: Shop, change: dict[str, object], reason: str
) -> None:
    got = Queue[int]()
    shop.support.on(Tickets.created, name="listen")(lambda event: got.put(event.id))
    with working(shop.support):
        wire = Wire(**{"body": b"{}", "headers": _headers_of_an_event(shop), **change})  # type: ignore[arg-type]
        shop.shop.transport.publish(wire, event_route("support.tickets.created", 1)).result(5)
        shop.shop.fire(Tickets.created(id=2))
        dead = shop.dead()
        assert got.get(timeout=10) == 2
    assert dead.headers["lightbus_dead_reason"] == reason
    assert dead.body == wire.body


def _headers_of_an_event(shop: Shop) -> dict[str, object]:
    return dict(shop.shop.parcel_of(Tickets.created(id=1)).wire.headers)


# -- calls


def test_a_call_is_answered_sync_and_async_and_in_parallel(shop: Shop) -> None:
    shop.support.serve(shop.owner)

    async def both() -> tuple[str, str]:
        return await shop.shop.call_async(Tickets.get, id=3), await shop.tickets.get.aio(id=4)

    with working(shop.support):
        assert shop.tickets.get(id=1) == "ticket 1"
        assert shop.shop.call(Tickets.get, id=2) == "ticket 2"
        assert asyncio.run(both()) == ("ticket 3", "ticket 4")
        futures = [shop.tickets.get.start(id=n) for n in range(50)]
        assert [future.result(10) for future in futures] == [f"ticket {n}" for n in range(50)]


@pytest.mark.parametrize(
    "failed, garbage",
    [
        (False, b'"\xff"'),
        (False, b""),
        (False, b"null"),
        (True, b'{"type": "\xff", "title": ""}'),
        (True, b'{"type": "", "title": "", "fields": {"deep": ' + b"[" * 100_000),
        (True, b"null"),
    ],
    ids=["no UTF-8", "empty", "of another type", "error: no UTF-8", "error: deep", "error: no problem"],
)
def test_an_answer_that_cannot_be_read_ends_its_call_and_no_other(shop: Shop, failed: bool, garbage: bytes) -> None:
    calls = rpc_queue("support.tickets", 1)
    server = shop.support.transport
    server.declare(Topology(queues=(calls,)))

    def answer(payload: bytes, *, failed: bool) -> None:
        asked = wait_for(lambda: server.get(calls.name), 10, "the call")
        assert asked is not None
        asked.ack()
        call = decode_call(asked.wire)
        reply = ReplyMessage(call_id=call.origin.id, payload=payload, failed=failed)
        server.publish(encode_reply(reply), Route("", call.reply_to)).result(5)

    first = shop.tickets.get.start(id=1)
    answer(garbage, failed=failed)
    with pytest.raises(RemoteError):
        first.result(3)
    second = shop.tickets.get.start(id=2)
    answer(b'"ticket 2"', failed=False)
    assert second.result(3) == "ticket 2"


def test_a_sync_call_works_inside_a_running_loop(shop: Shop) -> None:
    shop.support.serve(shop.owner)

    async def inside() -> str:
        return shop.tickets.get(id=1)

    with working(shop.support):
        assert asyncio.run(inside()) == "ticket 1"


def test_errors_of_a_call_reach_the_caller_by_whose_fault_they_are(shop: Shop) -> None:
    shop.support.serve(shop.owner)
    with working(shop.support):
        with pytest.raises(Tickets.NotFound, match="no such ticket") as declared:
            shop.tickets.get(id=404)
        assert declared.value.id == 404
        with pytest.raises(RemoteError, match="ValueError: a defect") as defect:
            shop.tickets.get(id=500)
        assert defect.value.error_type == "ValueError"
        with pytest.raises(RemoteError, match="returned 501"):
            shop.tickets.get(id=501)
        with pytest.raises(BadArguments, match="id"):
            shop.tickets.get(id="x")  # type: ignore[arg-type]


def test_nobody_serving_is_said_at_once(shop: Shop) -> None:
    with pytest.raises(NotServed, match=r"support\.tickets\.get"):
        shop.tickets.get.with_options(timeout_seconds=30)(id=1)


def test_no_answer_by_the_deadline_is_a_timeout_that_may_have_run(shop: Shop) -> None:
    shop.support.serve(shop.owner)
    with working(shop.support):
        with pytest.raises(CallTimeout, match=r"slow.*0\.2 s") as timeout:
            shop.tickets.slow(release=False)
        assert timeout.value.may_have_run
        assert shop.owner.slow_ran.get(timeout=5)
        shop.owner.release.set()


def test_a_server_skips_a_call_whose_caller_has_left(shop: Shop) -> None:
    shop.support.serve(shop.owner)
    options = WorkerOptions(threads=1)
    with working(shop.support, options=options):
        running = shop.tickets.slow.with_options(timeout_seconds=10).start(release=False)
        assert shop.owner.slow_ran.get(timeout=5)
        with pytest.raises(CallTimeout):
            shop.tickets.slow.with_options(timeout_seconds=0.1)(release=True)
        shop.owner.release.set()
        assert running.result(10) == "late"
    assert shop.owner.slow_ran.empty()


def test_the_deadline_bounds_the_calls_that_a_handler_makes(shop: Shop) -> None:
    shop.support.serve(shop.owner)
    with working(shop.support):
        assert shop.tickets.nested.with_options(timeout_seconds=2)(id=5) == "nested ticket 5"


def test_a_caller_that_is_newer_than_the_server_is_rejected_with_what_to_do(shop: Shop) -> None:
    class Newer(Api, name="support.tickets", version="1.9"):
        @rpc()
        def get(self, *, id: int) -> str:
            raise NotImplementedError

    shop.support.serve(shop.owner)
    with working(shop.support), pytest.raises(Rejected, match=r"1\.9.*1\.2.*deploy the server first"):
        shop.shop.call(Newer.get, id=1)


def test_an_unknown_call_and_wrong_arguments_are_answered_and_not_parked(shop: Shop) -> None:
    class Other(Api, name="support.tickets", version="1.0"):
        @rpc()
        def got(self, *, id: int) -> str:
            raise NotImplementedError

        @rpc()
        def get(self, *, id: str) -> str:
            raise NotImplementedError

    shop.support.serve(shop.owner)
    with working(shop.support):
        with pytest.raises(Rejected, match=r"no call 'support\.tickets\.got'"):
            shop.shop.call(Other.got, id=1)
        with pytest.raises(Rejected, match="Expected `int`"):
            shop.shop.call(Other.get, id="x")
        assert shop.shop.transport.message_count("lightbus.dead") == 0


def test_a_call_that_cannot_be_answered_is_parked(shop: Shop) -> None:
    shop.support.serve(shop.owner)
    with working(shop.support):
        route = rpc_queue("support.tickets", 1).route
        shop.shop.transport.publish(Wire(body=b"{}", headers={"lightbus_kind": "call"}), route).result(5)
        assert shop.dead().headers["lightbus_dead_reason"] == "undecodable"
        assert shop.tickets.get(id=1) == "ticket 1"


def test_closing_the_bus_ends_calls_under_way(shop: Shop) -> None:
    shop.support.serve(shop.owner)
    with working(shop.support):
        future = shop.tickets.slow.with_options(timeout_seconds=30).start(release=False)
        assert shop.owner.slow_ran.get(timeout=5)
        shop.shop.close()
        with pytest.raises(CallTimeout, match="closed"):
            future.result(5)
        shop.owner.release.set()


# -- declarations


def test_what_is_declared_wrongly_fails_where_it_is_written(shop: Shop) -> None:
    with pytest.raises(DeclarationError, match="'a b'"):
        Bus("a b")
    with pytest.raises(DeclarationError, match="at least one event"):
        shop.support.on()
    shop.support.on(Tickets.created, name="x")(print)
    with pytest.raises(DeclarationError, match="'x' already"):
        shop.support.on(Tickets.closed, name="x")(print)
    shop.support.serve(shop.owner)
    with pytest.raises(DeclarationError, match="served already"):
        shop.support.serve(shop.owner)


def test_an_owner_must_implement_every_call(shop: Shop) -> None:
    class Half(Tickets):
        @rpc()
        def get(self, *, id: int) -> str:
            return ""

    with pytest.raises(DeclarationError, match="Half does not implement"):
        shop.shop.serve(Half())


def test_an_event_without_an_api_is_refused(shop: Shop) -> None:
    class Loose(Event):
        id: int

    with pytest.raises(BadArguments, match="Loose"):
        shop.shop.fire(Loose(id=1))
    with pytest.raises(DeclarationError, match="Loose"):
        shop.shop.on(Loose)(print)


def test_a_publish_to_nowhere_says_so(shop: Shop) -> None:
    with pytest.raises(Unroutable):
        shop.shop.transport.publish(Wire(body=b""), rpc_queue("no.one", 1).route, mandatory=True).result(5)
