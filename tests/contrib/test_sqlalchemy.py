"""SQLAlchemy sessions per message, with real sessions on SQLite; and pools over a fork."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from lightbus import Api, Bus, Event, RetryPolicy
from lightbus.contrib.sqlalchemy import forget_pool_in_children, message_scope, session_per_message
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.worker import WorkerOptions
from tests.runtime.workers import working


class Orders(Api, name="tests.orders", version="1.0"):
    class placed(Event):
        id: int


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    with engine.begin() as connection:
        connection.execute(text("create table orders (id integer)"))
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> scoped_session[Session]:
    return scoped_session(sessionmaker(engine), scopefunc=message_scope)


@pytest.fixture
def bus(session: scoped_session[Session]) -> Iterator[Bus]:
    bus = Bus("shop", transport=MemoryTransport(MemoryBroker()), middleware=[session_per_message(session)])
    yield bus
    bus.close()


def add(session: scoped_session[Session], number: int) -> None:
    session.execute(text("insert into orders values (:id)"), {"id": number})


def rows(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("select id from orders order by id")).scalars())


def test_each_message_has_a_session_of_its_own_and_a_failure_leaves_nothing_behind(
    bus: Bus, session: scoped_session[Session], engine: Engine
) -> None:
    done = Queue[Session]()

    @bus.on(Orders.placed, retry=RetryPolicy(max_retries=0))
    def keep(event: Orders.placed) -> None:
        add(session, event.id)
        done.put(session())
        if event.id == 13:
            raise ValueError("unlucky")
        session.commit()

    with working(bus, options=WorkerOptions(threads=1)):  # one thread: without care they would share a session
        for number in (1, 13, 2):
            bus.fire(Orders.placed(id=number))
        sessions = [done.get(timeout=10) for _ in range(3)]

    assert len({id(one) for one in sessions}) == 3
    assert rows(engine) == [1, 2]
    assert not any(one.in_transaction() for one in sessions)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_coroutines_that_run_at_once_do_not_share_a_session(
    bus: Bus, session: scoped_session[Session], engine: Engine
) -> None:
    seen = Queue[tuple[int, int]]()
    both_here = asyncio.Event()
    here: list[int] = []

    @bus.on(Orders.placed)
    async def keep(event: Orders.placed) -> None:
        here.append(event.id)
        before = id(session())
        if len(here) == 2:
            both_here.set()
        await asyncio.wait_for(both_here.wait(), 10)
        assert id(session()) == before
        seen.put((event.id, before))

    with working(bus):
        bus.fire(Orders.placed(id=1))
        bus.fire(Orders.placed(id=2))
        pairs = dict(seen.get(timeout=15) for _ in range(2))

    assert len(set(pairs.values())) == 2


def test_a_forked_process_has_an_empty_pool_and_leaves_the_parents_connections_alone(engine: Engine) -> None:
    forget_pool_in_children(engine)
    with engine.connect() as connection:
        ours = connection.connection.dbapi_connection  # held, so that no other object gets its place
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            empty = engine.pool.checkedin() == 0  # type: ignore[attr-defined]
            with engine.connect() as connection:
                connection.execute(text("select 1"))
                own = connection.connection.dbapi_connection is not ours
            code = 0 if empty and own else 2
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is ours
        assert connection.execute(text("select 1")).scalar() == 1
