"""Outbox and inbox through SQLAlchemy, on PostgreSQL and SQLite, with relays in this process."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, create_engine, create_mock_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from lightbus import (
    Api,
    BadArguments,
    BrokerUnreachable,
    Bus,
    ConfigError,
    DeclarationError,
    Event,
    RetryPolicy,
    Unroutable,
)
from lightbus.contrib.outbox.sql import PAGE
from lightbus.contrib.outbox.sqlalchemy import Outbox
from lightbus.contrib.sqlalchemy import message_scope, session_per_message
from lightbus.core.message import Route, Wire
from lightbus.core.topology import listener_topology
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.outbox import Backlog, Relay, RelayOptions, RelayWatcher, Row, StoreUnavailable
from lightbus.testing import harness
from lightbus.worker import WorkerOptions
from tests.processes import wait_for
from tests.runtime.workers import working


class Orders(Api, name="tests.orders", version="1.0"):
    class placed(Event):
        id: int
        part: int = 0


SEEN = listener_topology("seen", "everything", ("tests.orders.placed.v1",))


@dataclasses.dataclass
class Shop:
    """One app with its database, its broker, and a queue that gets every event."""

    engine: Engine
    broker: MemoryBroker
    bus: Bus
    outbox: Outbox
    transport: MemoryTransport

    def session(self) -> Session:
        return Session(self.engine)

    def arrived(self) -> list[Wire]:
        """What has come since the last look, in order."""
        found = []
        while (delivery := self.transport.get(SEEN.queues[0].name)) is not None:
            delivery.ack()
            found.append(delivery.wire)
        return found

    def relay(self, transport: object = None, *, lease_seconds: float = 30.0, batch: int = 100) -> Relay:
        options = RelayOptions(lease_seconds=lease_seconds, batch=batch, poll_seconds=60.0)
        return Relay(self.outbox.store, transport or self.transport, options)  # type: ignore[arg-type]

    def orders(self) -> list[int]:
        with self.engine.connect() as connection:
            return list(connection.execute(text("select id from orders order by id")).scalars())


def ids(wires: list[Wire]) -> list[int]:
    return [json.loads(wire.body)["id"] for wire in wires]


@pytest.fixture(params=["postgresql", "sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    return str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def shop(database_url: str) -> Iterator[Shop]:
    yield from opened_shop(database_url)


@pytest.fixture
def postgres_shop(postgres_url: str) -> Iterator[Shop]:
    yield from opened_shop(postgres_url.replace("postgresql://", "postgresql+psycopg://"))


def opened_shop(url: str) -> Iterator[Shop]:
    engine, broker = create_engine(url), MemoryBroker()
    bus = Bus("shop", transport=MemoryTransport(broker))
    outbox = Outbox(bus, engine, MetaData())
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("create table orders (id integer)"))
    transport = MemoryTransport(broker)
    transport.declare(SEEN)
    yield Shop(engine, broker, bus, outbox, transport)
    bus.close()
    outbox.store.close()
    engine.dispose()


# Writing


def test_the_terms_of_fire_are_kept_with_the_row_and_honoured_by_the_relay(
    database_url: str, broker_url: str, prefix: str
) -> None:
    engine, seen = create_engine(database_url), Queue[tuple[int, float]]()
    bus = Bus(prefix, url=broker_url)
    outbox = Outbox(bus, engine, MetaData())
    outbox.metadata.create_all(engine)
    has_priorities = bus.transport.capabilities.priorities

    @bus.on(Orders.placed, name="all", max_priority=9)
    def keep(event: Orders.placed) -> None:
        seen.put((event.id, time.monotonic()))

    bus.transport.declare(bus.endpoints()[0].topology())
    with Session(engine) as session, session.begin():
        started = time.monotonic()
        outbox.fire(session, Orders.placed(id=1), delay_seconds=2.0, expires_seconds=600)
        outbox.fire(session, Orders.placed(id=2), at=datetime.now(timezone.utc) - timedelta(days=1))
        outbox.fire(session, Orders.placed(id=3), expires_seconds=0.001)
        outbox.fire(session, Orders.placed(id=4), expires_seconds=600)
        if has_priorities:
            outbox.fire(session, Orders.placed(id=5), priority=9)
        else:
            with pytest.raises(ConfigError, match="priorities"):
                outbox.fire(session, Orders.placed(id=5), priority=9)
        with pytest.raises(BadArguments, match="delay_seconds or at, not both"):
            outbox.fire(session, Orders.placed(id=6), delay_seconds=1, at=datetime.now(timezone.utc))
    relay_transport = bus.open_another_transport()
    assert Relay(outbox.store, relay_transport).flush() == 4 + has_priorities
    with working(bus, options=WorkerOptions(threads=1, prefetch=1)):
        got = [seen.get(timeout=60) for _ in range(3 + has_priorities)]

    ids = [id for id, _ in got]
    assert ids[-1] == 1
    assert got[-1][1] - started >= 1.9
    assert ids[:-1] == [5, 2, 4] if has_priorities else [2, 4]
    assert seen.empty()
    relay_transport.close()
    bus.close()
    engine.dispose()


def test_the_harness_knows_the_delay_of_what_was_fired_in_a_transaction(shop: Shop) -> None:
    heard = list[int]()
    shop.bus.on(Orders.placed, name="later")(lambda event: heard.append(event.id))
    with harness(shop.bus) as t, shop.session() as session:
        shop.outbox.fire(session, Orders.placed(id=1), delay_seconds=3600)
        session.commit()
        assert shop.relay(shop.bus.transport).flush() == 1
        t.settle()
        assert heard == []
        t.partial().assert_fired(Orders.placed, id=1)
        t.advance(3600)
    assert heard == [1]


def test_an_event_is_published_if_and_only_if_the_transaction_commits(shop: Shop) -> None:
    with shop.session() as session:
        kept = shop.outbox.fire(session, Orders.placed(id=1))
        session.commit()
        shop.outbox.fire(session, Orders.placed(id=2))
        session.rollback()
        shop.outbox.fire(session, Orders.placed(id=3))
        with suppress(ZeroDivisionError), session.begin_nested():
            shop.outbox.fire(session, Orders.placed(id=4))
            raise ZeroDivisionError
        assert shop.arrived() == []
        session.commit()

    assert shop.relay().flush() == 2
    arrived = shop.arrived()
    assert ids(arrived) == [1, 3]
    assert arrived[0].message_id == kept
    assert shop.outbox.store.backlog() == Backlog(0, 0.0, 0)
    assert shop.relay().flush() == 0


def test_a_wrong_payload_fails_on_the_line_that_fires_and_leaves_the_transaction_usable(shop: Shop) -> None:
    with shop.session() as session:
        session.execute(text("insert into orders values (1)"))
        with pytest.raises(BadArguments, match="id"):
            shop.outbox.fire(session, Orders.placed(id="seven"))  # type: ignore[arg-type]
        session.commit()
    assert shop.orders() == [1]
    assert shop.outbox.store.backlog().waiting == 0


def test_writing_needs_no_broker(database_url: str) -> None:
    engine = create_engine(database_url)
    bus = Bus("shop", url="amqp://127.0.0.1:1//")
    outbox = Outbox(bus, engine)
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        outbox.fire(connection, Orders.placed(id=1))
    (row,) = outbox.store.rows()
    assert (row.entry.name, row.entry.body, row.attempts) == ("tests.orders.placed", b'{"id":1,"part":0}', 0)
    engine.dispose()


def test_an_event_fired_in_a_handler_belongs_to_its_conversation(shop: Shop) -> None:
    @shop.bus.on(Orders.placed)
    def go_on(event: Orders.placed) -> None:
        if event.id == 1:
            with shop.session() as session, session.begin():
                shop.outbox.fire(session, Orders.placed(id=2))

    with working(shop.bus):
        shop.bus.fire(Orders.placed(id=1))
        wait_for(lambda: shop.outbox.store.backlog().waiting, 15, "the handler's event")
        shop.relay().flush()
    first, second = shop.arrived()
    assert second.headers["cloudEvents_causationid"] == first.message_id
    assert second.correlation_id == first.message_id


def test_an_async_session_writes_with_run_sync(postgres_url: str) -> None:
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    (shop,) = (opened := opened_shop(url), next(opened))[1:]

    async def fire() -> None:
        engine = create_async_engine(url)
        async with AsyncSession(engine) as session, session.begin():
            await session.run_sync(shop.outbox.fire, Orders.placed(id=5))
        await engine.dispose()

    asyncio.run(fire())
    shop.relay().flush()
    assert ids(shop.arrived()) == [5]
    opened.close()


# Relaying


def test_several_relays_share_the_work_and_keep_the_order_within_a_transaction(shop: Shop) -> None:
    transactions, parts = 40, 5
    for number in range(transactions):
        with shop.session() as session, session.begin():
            for part in range(parts):
                shop.outbox.fire(session, Orders.placed(id=number, part=part))
    shares: Counter[int] = Counter()
    both = threading.Barrier(3)

    def work(number: int) -> None:
        relay = shop.relay(MemoryTransport(shop.broker), batch=7)
        both.wait(20)
        while (done := relay.step()) is not None:
            shares[number] += done

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    shop.relay().flush()  # rows that one relay had while another one looked

    arrived = [json.loads(wire.body) for wire in shop.arrived()]
    assert Counter(one["id"] for one in arrived) == dict.fromkeys(range(transactions), parts)
    if shop.engine.dialect.name == "postgresql":
        for number in range(transactions):
            assert [one["part"] for one in arrived if one["id"] == number] == list(range(parts))


def test_a_long_transaction_keeps_its_order_and_holds_nobody_up(postgres_shop: Shop) -> None:
    shop, parts = postgres_shop, PAGE + 50
    with shop.session() as session, session.begin():
        for part in range(parts):
            shop.outbox.fire(session, Orders.placed(id=1, part=part))
    for number in (2, 3):
        with shop.session() as session, session.begin():
            shop.outbox.fire(session, Orders.placed(id=number))

    long = shop.outbox.store.claim(200, lease_seconds=60)
    assert len(long.rows) == 200
    assert shop.relay().flush() == 2, "those behind it go"
    assert ids(shop.arrived()) == [2, 3]
    shop.outbox.store.release(long, [row.position for row in long.rows], unsent=True)
    assert shop.relay(batch=200).flush() == parts
    assert [json.loads(wire.body)["part"] for wire in shop.arrived()] == list(range(parts))


def test_a_relay_that_dies_between_confirm_and_delete_leaves_a_flagged_repeat(shop: Shop) -> None:
    with shop.session() as session, session.begin():
        shop.outbox.fire(session, Orders.placed(id=1))
    dying = shop.outbox.store.claim(10, lease_seconds=0.5)
    (row,) = shop.outbox.store.load([one.position for one in dying.rows])
    shop.transport.publish(Wire(body=row.entry.body, message_id=row.entry.message_id), Route("", SEEN.queues[0].name))

    assert shop.relay().step() is None, "the lease is not over"
    wait_for(lambda: shop.relay().step(), 20, "the end of the lease")
    first, second = shop.arrived()
    assert first.message_id == second.message_id
    assert "lightbus_repeat" in second.headers
    shop.outbox.store.release(dying, [row.position], unsent=True)  # it was only frozen: too late to change anything
    assert shop.outbox.store.backlog().waiting == 0


def test_a_row_that_nobody_can_publish_is_set_aside_and_blocks_nothing(shop: Shop) -> None:
    with shop.session() as session, session.begin():
        for number in (1, 2, 3):
            shop.outbox.fire(session, Orders.placed(id=number))
    bad = shop.outbox.store.rows()[1]
    with shop.engine.begin() as connection:
        connection.execute(text("update lightbus_outbox set properties = '{' where id = :id"), {"id": bad.position})
    store = shop.outbox.store

    assert shop.relay().flush() == 2
    assert ids(shop.arrived()) == [1, 3]
    assert store.backlog().aside == 1
    (aside,) = store.rows([bad.entry.message_id[:8]], aside=True)
    assert aside.error.startswith("DecodeError: the properties of row")

    with shop.engine.begin() as connection:
        connection.execute(text("update lightbus_outbox set properties = :text"), {"text": bad.entry.properties})
    assert store.retry([aside.position]) == 1
    assert shop.relay().flush() == 1
    assert ids(shop.arrived()) == [2]
    assert store.discard([aside.position]) == 0


class Moody(MemoryTransport):
    """Fails the messages that it is told to."""

    def __init__(self, broker: MemoryBroker, mood: Callable[[Wire], Exception | None]) -> None:
        super().__init__(broker)
        self.mood = mood

    def publish(self, wire: Wire, route: Route, *, delay_seconds: float = 0.0, mandatory: bool = False) -> Future[None]:
        error = self.mood(wire)
        if error is None:
            return super().publish(wire, route, delay_seconds=delay_seconds, mandatory=mandatory)
        failed: Future[None] = Future()
        failed.set_exception(error)
        return failed


def test_a_refused_message_waits_alone_and_the_next_try_is_later(shop: Shop) -> None:
    for number in (1, 2):
        with shop.session() as session, session.begin():
            shop.outbox.fire(session, Orders.placed(id=number))
            shop.outbox.fire(session, Orders.placed(id=10 * number))
    moody = Moody(shop.broker, lambda wire: Unroutable("nobody") if json.loads(wire.body)["id"] == 10 else None)

    assert shop.relay(moody).flush() == 3
    assert ids(shop.arrived()) == [1, 2, 20]
    (row,) = shop.outbox.store.rows()
    assert (row.is_aside, row.error) == (False, "Unroutable: nobody")
    moody.mood = lambda wire: None
    assert shop.relay(moody).step() is None, "not before its time"
    assert shop.outbox.store.retry([row.position]) == 1
    assert shop.relay(moody).step() == 1
    assert ids(shop.arrived()) == [10]


def test_a_broker_that_is_away_costs_no_attempt_and_no_flag(shop: Shop) -> None:
    with shop.session() as session, session.begin():
        for number in range(5):
            shop.outbox.fire(session, Orders.placed(id=number))
    away = Moody(shop.broker, lambda wire: BrokerUnreachable("away"))

    for _ in range(3):
        with pytest.raises(Exception, match="away"):
            shop.relay(away).step()
    away.mood = lambda wire: None
    assert shop.relay(away).flush() == 5
    arrived = shop.arrived()
    assert ids(arrived) == list(range(5))
    assert not any("lightbus_repeat" in wire.headers for wire in arrived)


def test_a_running_relay_hears_of_a_commit_and_outlives_outages(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """It would poll once a minute: on PostgreSQL it is woken, on SQLite it polls quicker."""

    class Watcher(RelayWatcher):
        looked = 0

        def on_backlog(self, store: str, backlog: Backlog, lag_seconds: float) -> None:
            self.looked += 1

    down = threading.Event()
    moody = Moody(shop.broker, lambda wire: BrokerUnreachable("away") if down.is_set() else None)
    poll_seconds = 60.0 if shop.engine.dialect.name == "postgresql" else 0.05
    watcher = Watcher()
    relay = Relay(shop.outbox.store, moody, RelayOptions(poll_seconds=poll_seconds), watcher)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        wait_for(lambda: watcher.looked, 20, "its first turn")
        for number in range(3):
            with shop.session() as session, session.begin():
                shop.outbox.fire(session, Orders.placed(id=number))
            wait_for(lambda: shop.outbox.store.backlog().waiting == 0, 30, "the relay to be woken")
        assert "outbox=" not in caplog.text, "it was woken, and not after an error"
        down.set()
        with shop.session() as session, session.begin():
            shop.outbox.fire(session, Orders.placed(id=3))
        time.sleep(0.1)
        down.clear()
        wait_for(lambda: shop.outbox.store.backlog().waiting == 0, 30, "the end of the outage")
    finally:
        relay.stop()
        thread.join(20)
    assert not thread.is_alive()
    assert ids(shop.arrived()) == [0, 1, 2, 3]


def test_a_relay_whose_database_ends_its_connections_makes_others(postgres_shop: Shop) -> None:
    shop = postgres_shop
    relay = Relay(shop.outbox.store, shop.transport, RelayOptions(poll_seconds=60.0))
    thread = threading.Thread(target=relay.run)
    listening = "from pg_stat_activity where query like 'listen%' and datname = current_database()"
    thread.start()
    try:
        with shop.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

            def listener() -> int | None:
                return connection.execute(text(f"select pid {listening}")).scalar()

            first = wait_for(listener, 20, "it to listen")
            connection.execute(text(f"select pg_terminate_backend(pid) {listening}"))
            wait_for(lambda: (listener() or first) != first, 20, "it to listen again")
        with shop.session() as session, session.begin():
            shop.outbox.fire(session, Orders.placed(id=1))
        wait_for(lambda: shop.outbox.store.backlog().waiting == 0, 20, "the event to go")
    finally:
        relay.stop()
        thread.join(20)


def test_a_missing_table_is_said_in_the_databases_words(database_url: str) -> None:
    engine = create_engine(database_url)
    outbox = Outbox(Bus("shop", transport=MemoryTransport()), engine)
    with pytest.raises(StoreUnavailable, match="lightbus_outbox"):
        Relay(outbox.store, MemoryTransport()).flush()
    engine.dispose()


def test_a_database_that_has_not_what_is_needed_is_refused_at_once() -> None:
    engine: Any = create_mock_engine("mssql+pyodbc://", lambda *_: None)
    with pytest.raises(ConfigError, match="no outbox on 'mssql': it can be on mariadb, mysql, postgresql, sqlite"):
        Outbox(Bus("shop", transport=MemoryTransport()), engine)


def test_the_harness_sees_what_is_flushed_into_it(shop: Shop) -> None:
    heard = []
    shop.bus.on(Orders.placed, name="hear")(lambda event: heard.append(event.id))
    with harness(shop.bus) as t:
        with shop.session() as session, session.begin():
            shop.outbox.fire(session, Orders.placed(id=1))
        Relay(shop.outbox.store, shop.bus.transport).flush()
        t.assert_fired(Orders.placed, id=1)
        t.settle()
    assert heard == [1]


# The inbox


def test_a_duplicate_has_no_second_effect_and_a_failure_leaves_no_note(shop: Shop) -> None:
    session = scoped_session(sessionmaker(shop.engine), scopefunc=message_scope)
    shop.bus.use(session_per_message(session))
    calls = Queue[bool]()
    failures = [1]

    @shop.bus.on(Orders.placed, retry=RetryPolicy(max_retries=3, base_seconds=0.01))
    def keep(event: Orders.placed) -> None:
        is_new = shop.outbox.is_new(session)
        if is_new:
            session.execute(text("insert into orders values (:id)"), {"id": event.id})
        if failures:
            failures.pop()
            raise ZeroDivisionError
        session.commit()
        calls.put(is_new)

    @shop.bus.on(Orders.placed)
    def other(event: Orders.placed) -> None:
        with shop.session() as own, own.begin():
            calls.put(shop.outbox.is_new(own))

    with working(shop.bus, options=WorkerOptions(threads=1)):
        with shop.session() as own, own.begin():
            shop.outbox.fire(own, Orders.placed(id=7))
        shop.relay().flush()
        assert [calls.get(timeout=15), calls.get(timeout=15)] == [True, True], "each listener has its own note"
        (wire,) = shop.arrived()
        shop.transport.publish(wire, Route("", "shop.on.keep"))
        assert calls.get(timeout=15) is False
    assert shop.orders() == [7]


def test_two_copies_at_the_same_time_have_one_effect(shop: Shop) -> None:
    both = threading.Barrier(2)
    answers = Queue[bool]()

    @shop.bus.on(Orders.placed, retry=RetryPolicy(max_retries=9, base_seconds=0.05))
    def keep(event: Orders.placed) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(10)
        with shop.session() as session, session.begin():
            is_new = shop.outbox.is_new(session)
            if is_new:
                session.execute(text("insert into orders values (1)"))
        answers.put(is_new)

    with working(shop.bus, options=WorkerOptions(threads=2)):
        wire = shop.bus.parcel_of(Orders.placed(id=1)).wire
        for _ in range(2):
            shop.transport.publish(wire, Route("", "shop.on.keep"))
        assert {answers.get(timeout=20), answers.get(timeout=20)} == {True, False}
    assert shop.orders() == [1]


def test_notes_go_when_they_are_old(shop: Shop) -> None:
    with shop.engine.begin() as connection:
        add = text("insert into lightbus_inbox (listener, message_id, handled_at) values ('l', :id, :at)")
        now = time.time()
        connection.execute(add, [{"id": f"old{n}", "at": now - 8 * 86400 - n} for n in range(1500)])
        connection.execute(add, {"id": "young", "at": now - 6 * 86400})

    assert shop.outbox.store.clean() == 1500
    with shop.engine.connect() as connection:
        assert list(connection.execute(text("select message_id from lightbus_inbox")).scalars()) == ["young"]


def test_the_inbox_is_for_handlers(shop: Shop) -> None:
    with shop.session() as session, pytest.raises(DeclarationError, match="call it in a handler"):
        shop.outbox.is_new(session)


def test_rows_are_found_by_the_beginning_of_an_id_taken_literally(shop: Shop) -> None:
    with shop.session() as session, session.begin():
        one = shop.outbox.fire(session, Orders.placed(id=1))
        shop.outbox.fire(session, Orders.placed(id=2))
    store = shop.outbox.store

    def found(*beginnings: str) -> list[str]:
        return [row.entry.message_id for row in store.rows(beginnings)]

    assert found(one[:20]) == [one]
    assert len(found()) == len(found(one, "", "x")) == 2
    assert found("%") == found("_") == found("!") == []
    assert isinstance(store.rows(limit=1)[0], Row)
    assert len(store.rows(limit=1)) == 1
