"""Messages on RabbitMQ that other clients wrote, in ways that py-amqp itself cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue as Inbox

import amqp
import kombu
import pytest

from lightbus.core.errors import Unroutable, Unwritable
from lightbus.core.message import Route, Wire
from lightbus.core.topology import Queue, Topology
from lightbus.drivers.kombu.amqp import AmqpTransport
from lightbus.ports import Delivery


@pytest.fixture
def transport(amqp_url: str) -> Iterator[AmqpTransport]:
    transport = AmqpTransport(amqp_url, {"delay_queue_type": "classic"})
    yield transport
    transport.close()


@pytest.fixture
def queue(transport: AmqpTransport, prefix: str) -> Iterator[Queue]:
    queue = Queue(name=f"{prefix}.work")
    transport.declare(Topology(queues=(queue,)))
    yield queue
    transport.delete(queue.name)


def first_of_two(transport: AmqpTransport, queue: Queue, amqp_url: str, **properties: object) -> Wire:
    """What arrives of a message with `properties`; another message after it must arrive too."""
    with kombu.Connection(amqp_url) as connection:
        channel = connection.channel()
        channel.basic_publish(amqp.Message(b"first", **properties), routing_key=queue.name)
    transport.publish(Wire(body=b"next"), queue.route).result(10)
    inbox = Inbox[Delivery]()
    consumer = transport.consume([queue], inbox.put, prefetch=10)
    first, following = inbox.get(timeout=10), inbox.get(timeout=10)
    assert (first.wire.body, following.wire.body) == (b"first", b"next")
    first.ack()
    following.ack()
    consumer.close()
    assert transport.message_count(queue.name) == 0
    return first.wire


def test_a_property_that_is_no_text_does_not_stop_the_consumer(
    transport: AmqpTransport, queue: Queue, amqp_url: str
) -> None:
    wire = first_of_two(transport, queue, amqp_url, content_type=b"\xff\xfe", application_headers={"a": 1})

    assert wire == Wire(body=b"first", content_type="", content_encoding="")


def test_a_header_whose_name_is_no_text_gets_one(transport: AmqpTransport, queue: Queue, amqp_url: str) -> None:
    wire = first_of_two(transport, queue, amqp_url, application_headers={b"\xffkey": b"\xfevalue", "a": 1})

    assert dict(wire.headers) == {"\ufffdkey": b"\xfevalue", "a": 1}


def test_a_message_that_cannot_be_written_fails_alone(transport: AmqpTransport, queue: Queue) -> None:
    good = [transport.publish(Wire(body=b"1"), queue.route) for _ in range(5)]
    bad = transport.publish(Wire(body=b"2", headers={"a": object()}), queue.route)
    good += [transport.publish(Wire(body=b"3"), queue.route) for _ in range(5)]

    with pytest.raises(Unwritable, match=r"cannot be written.*object"):
        bad.result(10)
    for future in good:
        future.result(10)
    assert transport.message_count(queue.name) == 10


class Deep(amqp.Message):
    """A message with a header table in a table, and so on; py-amqp itself could not write it."""

    def _serialize_properties(self) -> bytes:
        table = b""
        for _ in range(10_000):
            table = b"\x01aF" + len(table).to_bytes(4, "big") + table
        return b"\x20\x00" + len(table).to_bytes(4, "big") + table


def test_a_header_table_that_is_too_deep_does_not_stop_the_consumer(
    transport: AmqpTransport, queue: Queue, amqp_url: str
) -> None:
    with kombu.Connection(amqp_url) as connection:
        connection.channel().basic_publish(Deep(b"first"), routing_key=queue.name)
    transport.publish(Wire(body=b"next"), queue.route).result(10)
    inbox = Inbox[Delivery]()
    consumer = transport.consume([queue], inbox.put, prefetch=10)
    first, following = inbox.get(timeout=10), inbox.get(timeout=10)

    assert (first.wire.body, dict(first.wire.headers), following.wire.body) == (b"first", {}, b"next")
    consumer.close()


def test_headers_that_fit_into_no_frame_fail_alone_and_at_once(transport: AmqpTransport, queue: Queue) -> None:
    good = [transport.publish(Wire(body=b"good"), queue.route) for _ in range(20)]
    large = transport.publish(Wire(body=b"large", headers={"x": "y" * 200_000}), queue.route)
    good += [transport.publish(Wire(body=b"good"), queue.route) for _ in range(20)]

    with pytest.raises(Unwritable, match="200"):
        large.result(5)
    for future in good:
        future.result(5)
    assert transport.message_count(queue.name) == 40


def test_a_burst_of_all_kinds_keeps_its_order_and_each_message_gets_its_own_end(
    transport: AmqpTransport, queue: Queue
) -> None:
    """Frames are gathered while many messages are under way; the broker numbers them as they come."""

    def kind(number: int) -> tuple[Wire, Route, bool]:
        body = str(number).encode()
        match number % 50:
            case 17:
                return Wire(body=body, extra={"app_id": "left to py-amqp"}), queue.route, False
            case 29:
                return Wire(body=body, headers={"a": object()}), queue.route, False
            case 41:
                return Wire(body=body, message_id=str(number)), Route("", f"{queue.name}.nowhere"), True
            case 43:
                return Wire(body=body + b" " * 40_000), queue.route, False
        return Wire(body=body), queue.route, False

    ends = []
    for number in range(2000):
        wire, route, mandatory = kind(number)
        ends.append(transport.publish(wire, route, mandatory=mandatory))
    errors = [type(end.exception(30)) for end in ends]

    expected = {29: Unwritable, 41: Unroutable}
    assert errors == [expected.get(number % 50, type(None)) for number in range(2000)]
    inbox = Inbox[Delivery]()
    consumer = transport.consume([queue], inbox.put, prefetch=100)
    taken = []
    for _ in range(2000 - 80):
        delivery = inbox.get(timeout=10)
        taken.append(int(delivery.wire.body))
        delivery.ack()
    assert taken == [number for number in range(2000) if number % 50 not in expected]
    consumer.close()
