"""Tasks in an outbox: what waits there is what `apply_async` would have sent, and workers run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from lightbus import Bus
from lightbus.compat import Settings, TaskApp
from lightbus.contrib.outbox.sqlalchemy import Outbox
from lightbus.core.outbox import entry_of, parcel_of
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.outbox import Relay, Row

QUEUE = "lightbus.celery"


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def app(broker: MemoryBroker) -> Iterator[TaskApp]:
    app = TaskApp(transport=MemoryTransport(broker))
    app.configure(Settings())
    yield app
    app.close()


def test_what_waits_is_what_apply_async_sends(app: TaskApp, broker: MemoryBroker) -> None:
    @app.task(name="tests.resize", priority=3, time_limit=20)
    def resize(path: str, width: int = 10) -> None: ...

    options = {"task_id": "one", "headers": {"tenant": "x"}, "expires": 3600, "origin": "here"}
    resize.apply_async(("a.png",), {"width": 5}, **options)
    delivery = MemoryTransport(broker).get(QUEUE)
    assert delivery is not None
    delivery.ack()

    parcel = resize.parcel(("a.png",), {"width": 5}, **options)
    entry = entry_of(parcel, kind="task", name="tests.resize", now=0.0)
    relayed = parcel_of(Row(position=1, attempts=1, next_at=0.0, error="", is_aside=False, entry=entry), now=0.0)
    assert (relayed.route.exchange, relayed.route.routing_key) == ("", QUEUE)
    sent, waited = delivery.wire, relayed.wire
    moment = {"expires": None}  # each counts from its own moment
    assert {**sent.headers, **moment} == {**waited.headers, **moment}
    assert waited.headers["expires"] is not None
    assert msgspec.structs.replace(sent, headers={}) == msgspec.structs.replace(waited, headers={})


def test_a_task_waits_until_its_queue_stands_and_keeps_its_delay(
    app: TaskApp, broker: MemoryBroker, tmp_path: Path
) -> None:
    @app.task(name="tests.resize")
    def resize(path: str) -> None: ...

    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    outbox = Outbox(Bus("shop", transport=MemoryTransport(broker)), engine)
    outbox.metadata.create_all(engine)
    relay = Relay(outbox.store, MemoryTransport(broker))
    with Session(engine) as session, session.begin():
        task_id = outbox.send(session, resize, "a.png")
        with pytest.raises(TypeError):
            outbox.send(session, resize, "a.png", "too many")

    assert relay.flush() == 0
    (row,) = outbox.store.rows()
    assert (row.entry.kind, row.entry.name, row.error.partition(":")[0]) == ("task", "tests.resize", "Unroutable")
    app.declare("celery")  # as a worker does
    outbox.store.retry([row.position])
    assert relay.flush() == 1
    delivery = MemoryTransport(broker).get(QUEUE)
    assert delivery is not None
    assert delivery.wire.headers["id"] == task_id
    assert delivery.wire.correlation_id == task_id
    assert resize.parcel(("a.png",), countdown=60).delay_seconds > 50
    engine.dispose()


def test_a_task_of_celery_goes_to_celerys_queue_without_asking_the_broker() -> None:
    app = TaskApp(transport=MemoryTransport())
    app.configure(Settings())
    outgoing = app.outgoing("tests.elsewhere", (), {}, {"queue": "old"}, declare=False)
    assert (outgoing.route.exchange, outgoing.route.routing_key) == ("", "old")
    assert app.transport.message_count("old") is None
    app.close()
