"""kill -9 at every step of an outbox: what committed is handled once, what did not commit is never heard of.

With PostgreSQL and RabbitMQ. The programs below kill themselves where the test says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from lightbus import Bus
from lightbus.contrib.outbox.sqlalchemy import Outbox
from lightbus.drivers.memory import MemoryTransport
from tests.faults.ledger import Ledger
from tests.processes import Processes, wait_for

APP = """
import os
import signal

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from lightbus import Api, Bus, Event, current_delivery
from lightbus.contrib.outbox.sqlalchemy import Outbox


class Orders(Api, name="{prefix}.orders", version="1.0"):
    class placed(Event):
        id: str


engine = create_engine({database!r})
bus = Bus("{prefix}", url={broker!r})
outbox = Outbox(bus, engine)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def place(*ids, and_then=lambda: None):
    with Session(engine) as session, session.begin():
        for id in ids:
            outbox.fire(session, Orders.placed(id=id))
        and_then()


@bus.on(Orders.placed)
def keep(event):
    flagged = current_delivery().redelivered
    with engine.begin() as connection:  # apart from the effect: every call is written down
        connection.execute(text("insert into calls values (:id, :flagged)"), {{"id": event.id, "flagged": flagged}})
    with Session(engine) as session, session.begin():
        if outbox.is_new(session):
            session.execute(text("insert into effects values (:id)"), {{"id": event.id}})
        if event.id.endswith("before-commit") and not flagged:
            die()
    if event.id.endswith("before-ack") and not flagged:
        die()
"""
WRITER = """
from app import die, place

place("alive-1", "alive-2")
place("torn-1", "torn-2", and_then=die)
"""
RELAY = """
import sys

from app import bus, die, outbox, place
from lightbus.outbox import Relay, RelayOptions

step, *ids = sys.argv[1:]
place(*ids[:3])
place(*ids[3:])
store = outbox.store
load, delete = store.load, store.delete
if step == "claimed":
    store.load = lambda positions: die()
elif step == "confirmed":
    store.delete = lambda positions: die()
else:
    store.delete = lambda positions: (delete(positions), die())
Relay(store, bus.transport, RelayOptions(lease_seconds=2.0, batch=4)).flush()
"""
STEPS = ("claimed", "confirmed", "deleted")


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    Outbox(Bus("tables", transport=MemoryTransport()), engine).metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("create table calls (id text, flagged boolean)"))
        connection.execute(text("create table effects (id text)"))
    yield engine
    engine.dispose()


@pytest.mark.timeout(300)
def test_killed_at_every_step_nothing_is_lost_doubled_or_invented(
    engine: Engine, amqp_vhost_url: str, prefix: str, tmp_path: Path, processes: Processes
) -> None:
    database = engine.url.render_as_string(hide_password=False)
    (tmp_path / "app.py").write_text(APP.format(prefix=prefix, database=database, broker=amqp_vhost_url))
    (tmp_path / "writer.py").write_text(WRITER)
    (tmp_path / "relay.py").write_text(RELAY)
    worker = processes.start("python", "-m", "lightbus.cli", "worker", "-A", "app", "-c", "1", name="worker")
    worker.wait_for_log("lightbus worker ready", 60)

    ledger = Ledger()
    assert processes.start("python", "writer.py", name="writer").wait(60) == -9
    ledger.confirmed |= {"alive-1", "alive-2"}
    for step in STEPS:
        ids = [f"{step}-{number}" for number in range(6)] + [f"{step}-before-commit", f"{step}-before-ack"]
        assert processes.start("python", "relay.py", step, *ids, name=f"relay-{step}").wait(60) == -9
        ledger.confirmed |= set(ids)
    ledger.sent |= ledger.confirmed
    relays = [
        processes.start("python", "-m", "lightbus.cli", "outbox", "relay", "-A", "app", "--lease-seconds", "2",
                        name="relay")
        for _ in range(2)
    ]  # fmt: skip

    def effects() -> list[str]:
        with engine.connect() as connection:
            return list(connection.execute(text("select id from effects")).scalars())

    def is_done() -> bool:
        with engine.connect() as connection:
            waiting = connection.execute(text("select count(*) from lightbus_outbox")).scalar()
        return waiting == 0 and ledger.confirmed <= set(effects())

    logs = [worker.log, *(relay.log for relay in relays)]
    wait_for(is_done, 90, "all that committed to be handled", logs)
    for process in (*relays, worker):
        assert process.stop(60) == 0, process.read_log()

    with engine.connect() as connection:
        for entry, flagged in connection.execute(text("select id, flagged from calls")):
            ledger.record_done(entry, flagged=flagged)
    assert not ledger.differences(), ledger
    assert ledger.repeats > 0, "the kills had an effect"
    assert sorted(effects()) == sorted(ledger.confirmed), json.dumps(sorted(effects()))
