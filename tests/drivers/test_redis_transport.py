"""What the Redis transport promises beyond the contract: Celery beside it, death, restarts, silence when idle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import kombu
import pytest
import redis

from lightbus.core.errors import ConnectionLost
from lightbus.core.message import Route, Wire
from lightbus.core.outcome import REPEAT_HEADER
from lightbus.core.topology import Binding, Exchange, Queue, Topology
from lightbus.drivers import open_transport
from lightbus.drivers.kombu import redis_take, virtual_consumer
from lightbus.drivers.kombu.wire import GARBAGE_TYPE
from lightbus.ports import Delivery, Transport
from lightbus.testing.bench import Inbox, eventually, let_pass, settle_now
from tests.brokers import Redis

QUEUE = Queue(name="jobs")
OPTIONS: list[dict[str, Any]] = [{}, {"global_keyprefix": "shop:", "sep": ":", "priority_steps": [0, 5]}]

#: Acknowledges what it gets, telling so, until it is killed.
ACKER = """
import sys, threading
from lightbus.core.topology import Queue
from lightbus.drivers import open_transport
def handle(delivery):
    print(delivery.wire.body.decode(), int(delivery.redelivered), flush=True)
    delivery.ack()
open_transport(sys.argv[1]).consume([Queue(name="jobs")], handle, prefetch=20)
threading.Event().wait()
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def transport(redis_url: str) -> Iterator[Transport]:
    transport = open_transport(redis_url)
    transport.declare(Topology(queues=(QUEUE,)))
    yield transport
    transport.close()


@pytest.fixture
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_take, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(redis_take, "KEEP_EVERY_SECONDS", 0.1)


def send(transport: Transport, *bodies: bytes, priority: int | None = None) -> None:
    for body in bodies:
        transport.publish(Wire(body=body, priority=priority), QUEUE.route).result(10)


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "prefix, sep and steps"])
def test_kombu_and_lightbus_read_each_others_messages(redis_url: str, options: dict[str, Any]) -> None:
    transport = open_transport(redis_url, options=options)
    transport.declare(Topology(queues=(QUEUE,)))
    with kombu.Connection(redis_url, transport_options=options) as connection:
        with connection.SimpleQueue(QUEUE.name) as simple:
            simple.put({"n": 1}, headers={"h": "x"}, priority=7, correlation_id="c", serializer="json")
            inbox = Inbox(settle_now)
            consumer = transport.consume([QUEUE], inbox, prefetch=1)
            (delivery,) = inbox.wait(1)
            consumer.close()
            wire = delivery.wire
            assert (json.loads(wire.body), wire.headers["h"], wire.priority) == ({"n": 1}, "x", 7)
            assert (wire.correlation_id, wire.content_type) == ("c", "application/json")

            transport.publish(wire, QUEUE.route).result(10)
            message = simple.get(timeout=5)
            assert (message.payload, message.headers["h"]) == ({"n": 1}, "x")
            assert message.properties["priority"] == 7
            assert message.delivery_info["routing_key"] == QUEUE.name
            message.ack()
    transport.close()


def test_priorities_come_in_kombus_order(transport: Transport) -> None:
    for priority in (9, 3, 0, 6):
        send(transport, b"%d" % priority, priority=priority)
    inbox = Inbox(settle_now)

    transport.consume([QUEUE], inbox, prefetch=1)

    inbox.wait(4)
    assert inbox.bodies() == [b"0", b"3", b"6", b"9"]


def test_a_binding_that_kombu_made_routes_what_lightbus_publishes_and_the_other_way_round(
    redis_url: str, transport: Transport
) -> None:
    exchange = Exchange("events", "topic")
    transport.declare(Topology((exchange,), (QUEUE,), (Binding("events", "a.*", QUEUE.name),)))
    with kombu.Connection(redis_url) as connection:
        theirs = kombu.Queue("theirs", kombu.Exchange("events", type="topic"), routing_key="a.#")
        theirs(connection.channel()).declare()
        transport.publish(Wire(body=b"1"), Route("events", "a.b")).result(10)
        connection.Producer().publish({}, exchange=theirs.exchange, routing_key="a.c", declare=[theirs])

    assert (transport.message_count(QUEUE.name), transport.message_count("theirs")) == (2, 2)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"{}",
        b'{"properties": 7}',
        b'{"body": "?!", "properties": {"body_encoding": "base64"}}',
    ],
)
def test_bytes_that_are_no_envelope_are_handed_over_as_they_are(
    client: Any, transport: Transport, garbage: bytes
) -> None:
    client.lpush(QUEUE.name, garbage)
    inbox = Inbox()
    consumer = transport.consume([QUEUE], inbox, prefetch=1)
    (bad, *_) = inbox.wait(1)
    consumer.close()

    assert (bad.wire.body, bad.wire.content_type) == (garbage, GARBAGE_TYPE)
    assert client.lrange(QUEUE.name, 0, -1) == [garbage]


def test_a_message_is_noted_as_unacked_by_the_same_command_that_takes_it(client: Any, transport: Transport) -> None:
    send(transport, b"x")
    with client.monitor() as monitor:
        assert transport.get(QUEUE.name) is not None
        client.echo("end of the test")
        commands = []
        for seen in monitor.listen():
            if "end of the test" in seen["command"]:
                break
            commands.append((seen["client_type"], seen["command"].split()[0]))

    script = [name for kind, name in commands if kind == "lua"]
    assert script[script.index("RPOP") + 1] == "HSET"
    assert "RPOP" not in [name for kind, name in commands if kind != "lua"]
    assert client.hlen("lightbus.unacked") == client.zcard("lightbus.unacked_index") == 1
    assert not client.exists("unacked")


@pytest.mark.usefixtures("_short_leases")
def test_a_message_held_longer_than_a_lease_stays_with_its_holder(redis_url: str, transport: Transport) -> None:
    send(transport, b"x")
    holder, other = Inbox(), Inbox(settle_now)
    transport.consume([QUEUE], holder, prefetch=1)
    (delivery,) = holder.wait(1)
    second = open_transport(redis_url)
    second.consume([QUEUE], other, prefetch=1)

    let_pass(2.0)  # more than three leases
    delivery.ack()
    send(transport, b"y")
    eventually(lambda: len(holder.all()) + len(other.all()), lambda n: n == 2, "the second message only")
    second.close()

    assert b"x" not in other.bodies()


@pytest.mark.usefixtures("_short_leases")
def test_a_late_acknowledgement_does_not_take_the_message_from_its_new_holder(client: Any, redis_url: str) -> None:
    first, second = open_transport(redis_url), open_transport(redis_url)
    first.declare(Topology(queues=(QUEUE,)))
    send(first, b"x")
    old, new = Inbox(), Inbox()
    consumer = first.consume([QUEUE], old, prefetch=1)
    (stale,) = old.wait(1)
    (tag,) = client.zrange("lightbus.unacked_index", 0, -1)
    consumer._session._taker._held.clear()  # type: ignore[attr-defined]  # as if its keeper had stood still
    consumer.cancel()
    second.consume([QUEUE], new, prefetch=1)
    (fresh,) = new.wait(1)

    stale.ack()
    first.close()

    assert fresh.redelivered
    assert tag not in client.hkeys("lightbus.unacked")
    assert client.hlen("lightbus.unacked") == 1
    fresh.ack()
    eventually(lambda: client.hlen("lightbus.unacked"), lambda count: count == 0, "the new holder's acknowledgement")
    second.close()


def test_consumers_that_are_killed_again_and_again_lose_nothing(redis_url: str, transport: Transport) -> None:
    bodies = {b"%d" % number for number in range(600)}
    send(transport, *sorted(bodies))
    done: list[tuple[bytes, bool]] = []
    for _ in range(3):
        process: Any = subprocess.Popen([sys.executable, "-c", ACKER, redis_url], stdout=subprocess.PIPE)
        for _ in range(100):
            body, flag = process.stdout.readline().split()
            done.append((body, flag == b"1"))
        process.send_signal(signal.SIGKILL)
        with process.stdout:  # what it had said before it died
            done += [(words[0], words[1] == b"1") for line in process.stdout if len(words := line.split()) == 2]
        process.wait()
    inbox = Inbox(settle_now)
    transport.consume([QUEUE], inbox, prefetch=50)

    def all_seen() -> set[bytes]:
        return {body for body, _ in done} | set(inbox.bodies())

    eventually(all_seen, lambda seen: seen == bodies, "every message")
    first_seen: set[bytes] = set()
    for body, flagged in [*done, *((delivery.wire.body, delivery.redelivered) for delivery in inbox.all())]:
        assert body not in first_seen or flagged, f"{body!r} came twice without a flag"
        first_seen.add(body)


def test_an_idle_consumer_asks_for_almost_nothing(own_redis: Redis) -> None:
    """On a server of its own: the count is of all that any client asks."""
    transport = open_transport(own_redis.url)
    transport.declare(Topology(queues=(QUEUE,)))
    inbox = Inbox(settle_now)
    transport.consume([QUEUE], inbox, prefetch=10)
    send(transport, b"x")
    inbox.wait(1)
    with redis.Redis.from_url(own_redis.url, protocol=2) as client:
        before = client.info("stats")["total_commands_processed"]

        let_pass(3.0)

        # A script counts with the commands inside it: about 15 each second for leases and what is due.
        assert client.info("stats")["total_commands_processed"] - before < 100
    transport.close()


def test_a_queue_that_was_empty_has_its_turn_while_another_never_is(transport: Transport, prefix: str) -> None:
    """Only lists that may have something are asked for; the server says when one of the others has."""
    busy, *others = queues = [Queue(name=f"{prefix}.{number}") for number in range(200)]
    transport.declare(Topology(queues=tuple(queues)))
    come: list[str] = []

    def keep_busy(delivery: Delivery) -> None:
        come.append(delivery.queue)
        if come[-1] == busy.name:
            transport.publish(Wire(body=b"{}", headers={}), busy.route).result(30)
        delivery.ack()

    for _ in range(20):
        transport.publish(Wire(body=b"{}", headers={}), busy.route).result(30)
    transport.consume(queues, keep_busy, prefetch=4)
    for other in (others[150], others[7], others[150]):
        eventually(lambda: len(come), lambda count: count > 100, "the busy queue alone")
        come.clear()
        transport.publish(Wire(body=b"{}", headers={}), other.route).result(30)
        eventually(lambda: come[:], lambda seen, name=other.name: name in seen, "the one of the other queue")


def test_a_waiting_consumer_is_woken_and_does_not_have_to_look(transport: Transport) -> None:
    latencies: list[float] = []
    woken = threading.Event()

    def on_delivery(delivery: Delivery) -> None:
        latencies.append(time.perf_counter() - float(delivery.wire.body))
        delivery.ack()
        woken.set()

    transport.consume([QUEUE], on_delivery, prefetch=10)
    for _ in range(20):
        woken.clear()
        send(transport, b"%.9f" % time.perf_counter())
        assert woken.wait(5)
        let_pass(0.01)  # so that it waits again

    assert sorted(latencies)[10] < 0.05  # a look comes once a second


def test_a_restart_of_the_server_loses_nothing_and_the_consumer_comes_back(own_redis: Redis) -> None:
    transport = open_transport(own_redis.url)
    transport.declare(Topology(queues=(QUEUE,)))
    inbox = Inbox()
    transport.consume([QUEUE], inbox, prefetch=5)
    send(transport, b"held")
    (held,) = inbox.wait(1)
    sent: list[Any] = []

    own_redis.stop()
    publisher = threading.Thread(target=lambda: sent.append(transport.publish(Wire(body=b"meanwhile"), QUEUE.route)))
    publisher.start()
    held.ack()
    own_redis.start()
    publisher.join()
    sent[0].result(10)

    _, meanwhile = inbox.wait(2)
    meanwhile.ack()
    transport.close()
    with redis.Redis.from_url(own_redis.url) as client:
        assert (client.llen(QUEUE.name), client.hlen("lightbus.unacked")) == (0, 0)
    assert meanwhile.wire.body == b"meanwhile"
    assert meanwhile.wire.headers.get(REPEAT_HEADER, 1) == 1


def test_a_transport_works_on_both_sides_of_a_fork(transport: Transport) -> None:
    send(transport, b"before")
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            send(transport, b"child")
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    send(transport, b"after")

    assert status == 0
    assert transport.message_count(QUEUE.name) == 3


def test_a_reply_to_a_caller_that_is_gone_leaves_nothing_behind(client: Any, transport: Transport) -> None:
    transport.publish(Wire(body=b"late", durable=False), Route("", "reply.of.nobody")).result(10)

    assert not client.exists("reply.of.nobody")


def test_what_a_killed_process_declared_for_itself_is_cleared_up(client: Any, transport: Transport) -> None:
    mine = Queue(name="mine", expires_seconds=0.2)
    exchange = Exchange("events", "topic")
    transport.declare(Topology((exchange,), (mine,), (Binding("events", "k", "mine"),)))
    send_to_mine = transport.publish(Wire(body=b"1"), Route("events", "k"))
    send_to_mine.result(10)
    assert transport.message_count("mine") == 1
    eventually(lambda: client.exists("lightbus.queue.mine"), lambda stands: not stands, "its lifetime to end")

    transport.publish(Wire(body=b"2"), Route("events", "k")).result(10)
    assert not client.exists("mine")
    transport._session.sweep()  # type: ignore[attr-defined,union-attr]

    assert client.smembers("_kombu.binding.events") == set()
    assert client.smembers("lightbus.transient") == set()


def test_a_server_without_change_notices_is_looked_at_instead(
    monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    monkeypatch.setattr(redis_take, "open_feed", lambda client: None)
    inbox = Inbox(settle_now)
    transport.consume([QUEUE], inbox, prefetch=1)

    for number in range(3):
        send(transport, b"%d" % number)
        inbox.wait(number + 1)


def test_a_closed_transport_says_so(transport: Transport) -> None:
    transport.close()

    with pytest.raises(ConnectionLost, match="closed"):
        transport.publish(Wire(body=b"x"), QUEUE.route).result(1)


def test_large_messages_are_taken_a_few_at_a_time(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefetch counts messages; what they weigh has a limit of its own."""
    monkeypatch.setattr(virtual_consumer, "MOST_HELD_BYTES", 8 * 2**20)
    body, inbox = b"x" * (3 * 2**20), Inbox()
    for _ in range(6):
        transport.publish(Wire(body=body), QUEUE.route).result(20)

    transport.consume([QUEUE], inbox, prefetch=100)

    held = inbox.wait(4)  # 3 MiB are 4 MiB in the envelope: two of these are what one look takes
    let_pass(0.2)
    assert len(inbox.all()) == 4
    assert transport.message_count(QUEUE.name) == 2
    while len(inbox.all()) < 6:
        for delivery in held:
            delivery.ack()
        held = inbox.wait(len(held) + 1)
    assert {len(delivery.wire.body) for delivery in inbox.all()} == {len(body)}
