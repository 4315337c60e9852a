"""RabbitMQ that goes away, refuses, or is full, with a ledger: nothing confirmed is lost, no repeat is unmarked."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures

import pytest

from lightbus.core.errors import BrokerUnreachable, NotConfirmed, Unroutable
from lightbus.core.message import Route, Wire
from lightbus.core.topology import Binding, Exchange, Queue, Topology
from lightbus.drivers.kombu.amqp import AmqpTransport
from lightbus.ports import Delivery
from tests.brokers import RabbitMQ
from tests.processes import wait_for

pytestmark = pytest.mark.xdist_group("own-rabbitmq")  # one private broker at a time: two cores

TOPOLOGY = Topology((Exchange("t.events", "topic"),), (Queue(name="t.work"),), (Binding("t.events", "a.#", "t.work"),))


@pytest.fixture
def own_rabbitmq(killable_rabbitmq: RabbitMQ) -> RabbitMQ:
    return killable_rabbitmq


@pytest.fixture
def transport(own_rabbitmq: RabbitMQ) -> Iterator[AmqpTransport]:
    transport = AmqpTransport(own_rabbitmq.url, {"delay_queue_type": "classic"})
    transport.delete("t.work")
    transport.declare(TOPOLOGY)
    yield transport
    transport.close()


class Ledger:
    """What was confirmed, and what arrived, by body."""

    def __init__(self) -> None:
        self.confirmed: set[bytes] = set()
        self.failed: set[bytes] = set()
        self.handled: Counter[bytes] = Counter()
        self.unmarked_repeats: list[bytes] = []

    def handle(self, delivery: Delivery) -> None:
        body = delivery.wire.body
        if self.handled[body] and not (delivery.redelivered or "lightbus_repeat" in delivery.wire.headers):
            self.unmarked_repeats.append(body)
        self.handled[body] += 1
        delivery.ack()


def test_a_broker_that_is_killed_and_comes_back_under_load_loses_nothing(
    own_rabbitmq: RabbitMQ, transport: AmqpTransport
) -> None:
    ledger = Ledger()
    consumer = transport.consume(TOPOLOGY.queues, ledger.handle, prefetch=20)
    ending = threading.Event()

    def publish() -> None:
        number = 0
        while not ending.is_set():
            number += 1
            body = str(number).encode()
            try:
                transport.publish(Wire(body=body), Route("t.events", "a.b")).result()
                ledger.confirmed.add(body)
            except (NotConfirmed, BrokerUnreachable):
                ledger.failed.add(body)

    publisher = threading.Thread(target=publish)
    publisher.start()
    wait_for(lambda: len(ledger.handled) > 50, 20, "messages to flow")
    own_rabbitmq.stop()
    own_rabbitmq.start()
    before = len(ledger.confirmed)
    wait_for(lambda: len(ledger.confirmed) > before + 50, 40, "messages to flow again")
    ending.set()
    publisher.join(30)
    wait_for(lambda: not ledger.confirmed - ledger.handled.keys(), 30, "every confirmed message to arrive")
    consumer.close()

    assert not ledger.unmarked_repeats
    assert ledger.handled.keys() <= ledger.confirmed | ledger.failed
    assert transport.message_count("t.work") == 0


def test_a_closed_connection_is_opened_anew_with_its_queues_and_unsettled_messages_return(
    own_rabbitmq: RabbitMQ, transport: AmqpTransport
) -> None:
    held: list[Delivery] = []
    consumer = transport.consume(TOPOLOGY.queues, held.append, prefetch=20)
    transport.publish(Wire(body=b"1"), Route("", "t.work")).result(10)
    wait_for(lambda: len(held) == 1, 10, "the message")
    transport.delete("t.work")  # the broker ends the subscription; it must be declared and bound again
    transport.declare(TOPOLOGY)
    own_rabbitmq.evaluate('rabbit_networking:close_all_connections(<<"a test">>), ok')
    wait_for(lambda: _arrives(transport, held), 20, "messages after the reconnection")

    held[0].ack()  # of a connection that is gone: must not disturb the new one
    for delivery in held[1:]:
        delivery.ack()
    wait_for(lambda: transport.message_count("t.work") == 0, 10, "the queue to be empty")
    consumer.close()


def _arrives(transport: AmqpTransport, held: list[Delivery]) -> bool:
    transport.publish(Wire(body=b"2"), Route("t.events", "a.b")).result(10)
    return any(delivery.wire.body == b"2" for delivery in held)


def test_an_alarm_stops_publishers_in_bounded_time_and_not_consumers(
    own_rabbitmq: RabbitMQ, transport: AmqpTransport
) -> None:
    ledger = Ledger()
    for number in range(20):
        transport.publish(Wire(body=str(number).encode()), Route("", "t.work")).result(10)
    with alarm(own_rabbitmq):
        # The broker tells its connections of an alarm one by one, so the first publishes may still be taken.
        wait_for(lambda: not _is_taken(transport, seconds=1), 30, "the alarm to reach the connection")
        consumer = transport.consume(TOPOLOGY.queues, ledger.handle, prefetch=20)
        wait_for(lambda: len(ledger.handled) >= 20, 10, "consumption during the alarm")

        began = time.monotonic()
        with pytest.raises(NotConfirmed, match=r"10 s|takes no messages"):
            transport.publish(Wire(body=b"x"), Route("", "t.work")).result(20)
        assert time.monotonic() - began < 15
    wait_for(lambda: _is_taken(transport, seconds=20), 30, "publishing")
    consumer.close()


@contextlib.contextmanager
def alarm(server: RabbitMQ) -> Iterator[None]:
    """While it lasts the broker believes that it has no memory left; it ends however the test does."""
    server.evaluate("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}), ok")
    try:
        yield
    finally:
        server.evaluate("rabbit_alarm:clear_alarm({resource_limit, memory, node()}), ok")


def _is_taken(transport: AmqpTransport, *, seconds: float) -> bool:
    """Whether the broker confirms a message within that long."""
    with contextlib.suppress(futures.TimeoutError):
        return transport.publish(Wire(body=b"y"), Route("", "t.work")).exception(seconds) is None
    return False


def test_a_message_for_no_exchange_fails_alone(transport: AmqpTransport) -> None:
    good = [transport.publish(Wire(body=b"1"), Route("", "t.work")) for _ in range(20)]
    bad = transport.publish(Wire(body=b"2"), Route("nonesuch", "k"))
    good += [transport.publish(Wire(body=b"3"), Route("", "t.work")) for _ in range(20)]

    with pytest.raises(Unroutable, match="nonesuch"):
        bad.result(10)
    for future in good:
        future.result(10)


def test_a_forked_child_publishes_on_a_connection_of_its_own(transport: AmqpTransport) -> None:
    transport.publish(Wire(body=b"parent"), Route("", "t.work")).result(10)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            transport.publish(Wire(body=b"child"), Route("", "t.work")).result(10)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    transport.publish(Wire(body=b"parent again"), Route("", "t.work")).result(10)

    assert os.waitstatus_to_exitcode(status) == 0
    assert transport.message_count("t.work") == 3
