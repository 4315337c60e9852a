"""A broker that dies, stands still or is full, under load: nothing confirmed is lost, and every repeat says so."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis

from lightbus.core.errors import TransportError
from lightbus.core.message import Route, Wire
from lightbus.core.topology import Queue, Topology
from lightbus.drivers import open_transport
from lightbus.ports import Delivery, Transport
from tests.brokers import RabbitMQ, Redis
from tests.faults.conftest import QUICK
from tests.faults.load import Load
from tests.processes import wait_for

pytestmark = pytest.mark.xdist_group("own-rabbitmq")  # one private broker at a time: two cores


@dataclass
class Own:
    """A broker that other tests do not use meanwhile, and a transport on it."""

    server: RabbitMQ | Redis
    transport: Transport


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Own]:
    server = request.getfixturevalue(f"killable_{request.param}")
    scheme = server.url.partition("://")[0]
    transport = open_transport(server.url, options=QUICK[scheme])
    yield Own(server, transport)
    transport.close()


def run_through_a_restart(own: Own, prefix: str, *, replicated: bool, times: int) -> None:
    with Load(own.transport, own.transport, prefix, replicated=replicated) as load:
        for _ in range(times):
            load.wait_for_flow()
            if isinstance(own.server, RabbitMQ):
                own.server.sync_tables()
            own.server.stop()  # as kill -9
            own.server.start()
            load.wait_for_flow(seconds=40)
        load.finish()
    own.transport.delete(load.queue.name)


@pytest.mark.parametrize("own", ["rabbitmq"], indirect=True)
def test_rabbitmq_killed_and_restarted_under_load_costs_nothing(own: Own, prefix: str) -> None:
    run_through_a_restart(own, prefix, replicated=True, times=1)  # classic queues: tests/drivers/test_amqp_faults.py


@pytest.mark.parametrize("own", ["redis"], indirect=True)
def test_redis_killed_and_restarted_under_load_costs_nothing(own: Own, prefix: str) -> None:
    run_through_a_restart(own, prefix, replicated=False, times=4)


@pytest.mark.parametrize("own", ["rabbitmq", "redis"], indirect=True)
def test_a_broker_that_stands_still_under_load_is_given_up_and_costs_nothing(own: Own, prefix: str) -> None:
    with Load(own.transport, own.transport, prefix) as load:
        load.wait_for_flow()
        own.server.freeze()
        try:
            wait_for(lambda: load.ledger.failed, 10, "publishes to fail in bounded time")
            time.sleep(2.0)  # the standstill itself goes on past two heartbeats
        finally:
            own.server.thaw()
        load.wait_for_flow(seconds=40)
        load.finish()
    own.transport.delete(load.queue.name)


@contextlib.contextmanager
def short_of(resource: str, server: RabbitMQ | Redis) -> Iterator[None]:
    """While it lasts the broker has not enough of it; it ends however the test does."""
    if isinstance(server, Redis):
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", "1")
            try:
                yield
            finally:
                client.config_set("maxmemory", "0")
        return
    limits = {
        "memory": ("vm_memory_monitor:set_vm_memory_high_watermark({})", "0.00001", "0.4"),
        "disk": ("rabbit_disk_monitor:set_disk_free_limit({})", "1000000000000000", "50000000"),
    }
    call, tight, wide = limits[resource]
    server.evaluate(f"{call.format(tight)}, ok")
    try:
        yield
    finally:
        server.evaluate(f"{call.format(wide)}, ok")


SHORTAGES = [("rabbitmq", "memory"), ("rabbitmq", "disk"), ("redis", "memory")]


@pytest.mark.parametrize(("own", "resource"), SHORTAGES, indirect=["own"])
def test_a_full_broker_refuses_in_bounded_time_and_consumers_go_on(own: Own, resource: str, prefix: str) -> None:
    waiting = Queue(name=f"{prefix}.waiting", replicated=False)
    own.transport.declare(Topology(queues=(waiting,)))
    for number in range(20):
        own.transport.publish(Wire(body=str(number).encode()), Route("", waiting.name)).result(10)
    held: list[Delivery] = []
    consumer = own.transport.consume([waiting], held.append, prefetch=5)
    with Load(own.transport, own.transport, prefix) as load:
        load.wait_for_flow()
        with short_of(resource, own.server):
            wait_for(lambda: load.ledger.failed, 10, "publishes to fail in bounded time")
            for count in range(20):
                wait_for(lambda count=count: len(held) > count, 10, "consumption in the shortage")
                held[count].ack()
            began = time.monotonic()
            with pytest.raises(TransportError):
                own.transport.publish(Wire(body=b"x"), Route("", waiting.name)).result(20)
            assert time.monotonic() - began < 5
        load.wait_for_flow(seconds=20)
        load.finish()
    consumer.close()
    assert [delivery.wire.body for delivery in held] == [str(number).encode() for number in range(20)]
    own.transport.delete(waiting.name)
    own.transport.delete(load.queue.name)


@pytest.mark.parametrize("own", ["redis"], indirect=True)
def test_a_full_redis_lets_a_running_handler_keep_its_message(own: Own, prefix: str) -> None:
    queue = Queue(name=f"{prefix}.held")
    own.transport.declare(Topology(queues=(queue,)))
    held: list[Delivery] = []
    with redis.Redis.from_url(own.server.url) as client:
        others = set(client.zrange("lightbus.unacked_index", 0, -1))  # of a connection that an earlier test cut
        consumer = own.transport.consume([queue], held.append, prefetch=5)
        own.transport.publish(Wire(body=b"1"), Route("", queue.name)).result(10)
        wait_for(lambda: held, 10, "the message")
        with short_of("memory", own.server):
            leases = dict(client.zrange("lightbus.unacked_index", 0, -1, withscores=True))
            (lease,) = leases.keys() - others
            wait_for(
                lambda: client.zscore("lightbus.unacked_index", lease) > leases[lease] + 2000,
                10,
                "renewals of its lease",
            )
    held[0].ack()
    wait_for(lambda: not own.transport.message_count(queue.name), 10, "the queue to be empty")
    consumer.close()
    own.transport.delete(queue.name)
