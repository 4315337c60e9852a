"""What every store of a schedule must do: one leader, all of a commit or nothing, no word from one that was it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import amqp
import kombu
import pytest
import redis

from lightbus.core.errors import LightbusError, NotLeading, ScheduleStateError, TransportError
from lightbus.core.message import Parcel, Route, Wire
from lightbus.core.topology import Binding, Exchange, Queue, Topology
from lightbus.drivers import open_schedule_store, open_transport
from lightbus.ports import ScheduleStore, Transport
from tests.processes import Processes, wait_for

T0 = "2026-01-01T00:00:00+00:00"
PROGRAM = """
import sys, time
from lightbus.drivers import open_schedule_store
store = open_schedule_store(sys.argv[1], options={"heartbeat": 1} if sys.argv[1].startswith("amqp") else {})
while True:
    try:
        term = store.lead()
    except Exception as error:
        print("lost:", error, flush=True)
        store.resign()
        term = ""
    if term:
        print("leading", flush=True)
        list(store.load())
    store.wait(0.1)
"""


@pytest.fixture(params=["sqlite", "redis", "amqp"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path}/bus.db"
        case "redis":
            return str(request.getfixturevalue("redis_url"))
    return str(request.getfixturevalue("amqp_vhost_url"))


@pytest.fixture
def stores(url: str) -> Iterator[Sequence[ScheduleStore]]:
    opened = [open_schedule_store(url) for _ in range(3)]
    yield opened
    for store in opened:
        store.resign()


@pytest.fixture
def transport(url: str) -> Iterator[Transport]:
    transport = open_transport(url)
    yield transport
    transport.close()


def leads(store: ScheduleStore) -> str:
    return wait_for(store.lead, 30, "the store to lead")


def wire(text: str) -> Wire:
    return Wire(body=text.encode(), message_id=text, headers={"task": "x"})


def bodies(transport: Transport, queue: str) -> list[str]:
    """What lies in the queue, which is taken from it."""
    found = []
    while (delivery := transport.get(queue)) is not None:
        found.append(delivery.wire.body.decode())
        delivery.ack()
    return found


def test_a_commit_sends_notes_and_drops_together_and_the_next_leader_goes_on_from_there(
    stores: Sequence[ScheduleStore], transport: Transport
) -> None:
    first, second, onlooker = stores
    transport.declare(
        Topology(
            (Exchange("shop", "topic"),), (Queue(name="jobs"), Queue(name="news")), (Binding("shop", "a.*", "news"),)
        )
    )
    assert leads(first)
    assert dict(first.load()) == {}
    assert second.lead() == ""
    onlooker.post({"do": "pause", "entry": "a", "request": "1"})
    ((tag, command),) = wait_for(lambda: first.lead() and first.commands(), 20, "the command")
    assert command["do"] == "pause"
    big = {f"e{n}": {"decided": T0, "note": "x" * 20} for n in range(4500)}
    first.commit(big, ())
    first.commit(
        {"e0": {"decided": T0, "fired": 1}, "e1": None},
        [
            Parcel(wire("task"), Route("", "jobs")),
            Parcel(wire("event"), Route("shop", "a.b")),
            Parcel(wire("nobody"), Route("shop", "c")),
            Parcel(wire("later"), Route("", "jobs"), 1.0),
        ],
        [tag],
    )
    expected = {**big, "e0": {"decided": T0, "fired": 1}}
    del expected["e1"]
    assert wait_for(lambda: bodies(transport, "news"), 20, "the event") == ["event"]
    arrived: list[str] = []
    consumer = wait_for(lambda: arrived.extend(bodies(transport, "jobs")) or arrived, 20, "the task")
    assert consumer[0] == "task"
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(dict(onlooker.records())))
    asking.start()  # while another leads; on RabbitMQ it is the leader who answers
    wait_for(lambda: first.lead() and (first.commands(), not asking.is_alive())[1], 30, "the answer")
    assert answers == [expected]
    first.resign()
    leads(second)
    assert dict(second.load()) == expected
    assert list(second.commands()) == []
    with pytest.raises(NotLeading):
        first.commit({"e0": None}, [Parcel(wire("late"), Route("", "jobs"))])
    assert "late" not in bodies(transport, "jobs")
    second.resign()
    assert dict(onlooker.records()) == expected


def test_a_leader_that_was_killed_or_frozen_is_followed_and_can_send_no_more(
    url: str, stores: Sequence[ScheduleStore], processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    leader = processes.start("python", str(tmp_path / "program.py"), url)
    leader.wait_for_log("leading", 60)
    store = stores[0]
    assert store.lead() == ""
    leader.kill()
    leads(store)
    store.commit({"a": {"decided": T0}}, ())
    store.resign()
    leader = processes.start("python", str(tmp_path / "program.py"), url)
    leader.wait_for_log("leading", 60)
    leader.signal(signal.SIGSTOP)
    term = leads(store)
    assert dict(store.load()) == {"a": {"decided": T0}}
    leader.signal(signal.SIGCONT)
    store.commit({"a": {"decided": T0, "fired": 1}}, ())
    assert store.lead() == term
    leader.kill()


def test_state_that_cannot_be_read_is_an_error_with_a_choice_and_never_forgotten_silently(
    url: str, stores: Sequence[ScheduleStore]
) -> None:
    first, second, _ = stores
    leads(first)
    first.commit({"report": {"decided": T0}}, ())
    first.resign()
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("UPDATE schedule_records SET record='{\"decided'")
            connection.commit()
    elif url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            client.hset("lightbus.schedule.records", "report", '{"decided')
    else:
        with kombu.Connection(url) as connection_:
            connection_.default_channel.basic_publish(amqp.Message('{"decided'), routing_key="lightbus.schedule")

    def read() -> bool:
        if not second.lead():
            return False
        list(second.load())
        return True

    with pytest.raises(ScheduleStateError, match=r"cannot be read.*--new-state"):
        wait_for(read, 30, "the store to read")
    second.resign()
    first.reset()
    leads(second)
    assert dict(second.load()) == {}


def test_a_purged_queue_is_an_error_and_not_a_new_beginning(
    amqp_vhost_url: str,
) -> None:
    store = open_schedule_store(amqp_vhost_url)
    leads(store)
    store.resign()
    with kombu.Connection(amqp_vhost_url) as connection:
        wait_for(lambda: connection.default_channel.queue_purge("lightbus.schedule"), 20, "the state to be purged")
    with pytest.raises(ScheduleStateError, match="purged"):
        wait_for(lambda: store.lead() or store.wait(0.2), 30, "the error")
    store.resign()


def test_a_broker_that_is_away_is_an_error_of_the_transport(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "folder")
    for url in ("redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//", f"sqlite:///{tmp_path}/folder"):
        store = open_schedule_store(url)
        with pytest.raises(TransportError):
            store.lead()
        store.resign()
    with pytest.raises(LightbusError, match="memory"):
        open_schedule_store("memory://")
