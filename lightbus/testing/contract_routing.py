"""The contract's part about where and when messages go: exchanges, delays, expiry, priority, queues themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import pytest

from ..core.errors import TopologyMismatch, Unroutable
from ..core.message import Route, Wire
from ..core.topology import Binding, Exchange, Queue, Topology
from .bench import PATIENCE_SECONDS, Bench, Inbox, eventually, let_pass, settle_now

DELAY_SECONDS = 1.0

#: kind of exchange -> key of a queue's binding -> keys of the messages it gets
ROUTING: Mapping[str, Mapping[str, str]] = {
    "direct": {"a": "a", "a.b": "a.b", "a.*": "", "#": ""},
    "topic": {
        "a": "a",
        "a.*": "a.b",
        "a.#": "a a.b a.b.c",
        "#": "a a.b a.b.c b b.c",
        "*": "a b",
        "*.b": "a.b",
        "#.c": "a.b.c b.c",
        "a.#.c": "a.b.c",
        "*.*": "a.b b.c",
    },
    "fanout": {"": "a a.b a.b.c b b.c"},
}
KEYS = ("a", "a.b", "a.b.c", "b", "b.c")


class RoutingContract(Bench):
    """Messages go where the topology says, when they are due."""

    @pytest.mark.parametrize("kind", ROUTING)
    def test_an_exchange_routes_by_the_rules_of_its_kind(self, kind: str) -> None:
        transport = self.open()
        exchange = Exchange(self.name("exchange"), kind)  # type: ignore[arg-type]
        queues = {pattern: Queue(name=self.name()) for pattern in ROUTING[kind]}
        bindings = tuple(Binding(exchange.name, pattern, queue.name) for pattern, queue in queues.items())
        transport.declare(Topology((exchange,), tuple(queues.values()), bindings))

        for key in KEYS:
            transport.publish(Wire(body=key.encode()), Route(exchange.name, key)).result(PATIENCE_SECONDS)

        got = {pattern: b" ".join(self.drain(transport, queue)).decode() for pattern, queue in queues.items()}
        assert got == ROUTING[kind]

    def test_a_queue_with_two_matching_bindings_gets_one_copy(self) -> None:
        transport = self.open()
        exchange, queue = Exchange(self.name("exchange"), "topic"), Queue(name=self.name())
        bindings = (Binding(exchange.name, "a.#", queue.name), Binding(exchange.name, "*.b", queue.name))
        transport.declare(Topology((exchange,), (queue,), bindings))

        transport.publish(Wire(body=b"x"), Route(exchange.name, "a.b")).result(PATIENCE_SECONDS)

        assert self.drain(transport, queue) == [b"x"]

    def test_a_binding_of_one_connection_serves_the_publisher_on_another(self) -> None:
        publisher, listener = self.open(), self.open()
        exchange, queue = Exchange(self.name("exchange"), "topic"), Queue(name=self.name())
        publisher.declare(Topology((exchange,)))
        publisher.publish(Wire(body=b"before"), Route(exchange.name, "k")).result(PATIENCE_SECONDS)
        listener.declare(Topology((exchange,), (queue,), (Binding(exchange.name, "k", queue.name),)))

        publisher.publish(Wire(body=b"after"), Route(exchange.name, "k")).result(PATIENCE_SECONDS)

        assert self.drain(listener, queue) == [b"after"]

    @pytest.mark.parametrize("through_exchange", [False, True], ids=["queue", "exchange"])
    def test_a_mandatory_message_that_nobody_takes_fails_where_the_transport_can_tell(
        self, through_exchange: bool
    ) -> None:
        transport = self.open()
        exchange = Exchange(self.name("exchange"), "topic")
        transport.declare(Topology((exchange,)))
        route = Route(exchange.name, "nobody") if through_exchange else Route("", self.name("nobody"))

        error = transport.publish(Wire(body=b"x"), route, mandatory=True).exception(PATIENCE_SECONDS)

        assert isinstance(error, Unroutable) == transport.capabilities.returns_unroutable
        assert error is None or isinstance(error, Unroutable)

    def test_a_mandatory_message_reaches_a_queue_that_stands_without_a_consumer(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)

        transport.publish(Wire(body=b"x"), queue.route, mandatory=True).result(PATIENCE_SECONDS)

        assert self.drain(transport, queue) == [b"x"]

    def test_a_queue_that_nobody_serves_any_more_makes_mandatory_fail(self) -> None:
        transport = self.open()
        queue = Queue(name=self.name(), expires_seconds=1.0)
        transport.declare(Topology(queues=(queue,)))
        inbox, consumer = self.collect(transport, queue)
        let_pass(2.5)  # longer than it may be unused: the consumer keeps it
        transport.publish(Wire(body=b"served"), queue.route, mandatory=True).result(PATIENCE_SECONDS)
        inbox.wait(1)
        consumer.close()
        asker = self.open()  # one that never declared it, and waits for answers as callers do
        replies = Queue(name=self.name("reply"), durable=False, exclusive=True, auto_delete=True)
        asker.declare(Topology(queues=(replies,)))
        self.collect(asker, replies)

        def refused() -> bool:
            error = asker.publish(Wire(body=b"?", durable=False), queue.route, mandatory=True).exception(5)
            return isinstance(error, Unroutable)

        if transport.capabilities.returns_unroutable:
            # Asking does not count as use; some brokers look only every few seconds.
            eventually(refused, bool, "the queue to go")
        else:
            assert not refused()

    def test_an_exclusive_queue_goes_with_its_consumer(self) -> None:
        transport = self.open()
        queue = Queue(name=self.name("reply"), durable=False, exclusive=True, auto_delete=True)
        transport.declare(Topology(queues=(queue,)))
        inbox, consumer = self.collect(transport, queue)
        self.send(transport, queue, b"x")
        inbox.wait(1)

        consumer.close()

        self.wait_for_count(self.open(), queue, None)

    def test_a_delayed_message_waits_and_outlives_its_publisher(self) -> None:
        receiver, sender = self.open(), self.open()
        queue = self.new_queue(receiver)
        resolution = receiver.capabilities.delay_resolution_seconds
        wire = Wire(body=b"later", headers={"n": 1}, message_id="m", correlation_id="c")
        future = sender.publish(wire, queue.route, delay_seconds=DELAY_SECONDS)
        started = time.monotonic()
        if math.isinf(resolution):
            assert future.exception(PATIENCE_SECONDS) is not None, "a delay that cannot be kept must be refused"
            return
        future.result(PATIENCE_SECONDS)
        sender.close()
        arrived: list[float] = []
        inbox = Inbox(lambda delivery: arrived.append(time.monotonic()) or delivery.ack())  # type: ignore[func-returns-value]
        receiver.consume([queue], inbox, prefetch=1)
        self.send(receiver, queue, b"now")

        now, later = inbox.wait(2, DELAY_SECONDS + resolution + PATIENCE_SECONDS)
        assert (now.wire.body, later.wire.body) == (b"now", b"later")
        assert (later.wire.message_id, later.wire.correlation_id) == ("m", "c")
        assert later.wire.headers.get("n") == 1
        waited = arrived[1] - started
        assert DELAY_SECONDS - 0.1 <= waited <= DELAY_SECONDS + resolution + 1.5

    def test_delayed_messages_come_in_the_order_in_which_they_are_due(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        step = max(0.2, transport.capabilities.delay_resolution_seconds)
        if math.isinf(step):
            refused = transport.publish(Wire(body=b"x"), queue.route, delay_seconds=1.0)
            assert refused.exception(PATIENCE_SECONDS) is not None
            return
        inbox, _ = self.collect(transport, queue)

        for body, steps in ((b"3", 3), (b"1", 1), (b"2", 2)):
            transport.publish(Wire(body=body), queue.route, delay_seconds=steps * step).result(PATIENCE_SECONDS)

        inbox.wait(3)
        assert inbox.bodies() == [b"1", b"2", b"3"]

    def test_a_delayed_message_to_an_exchange_is_routed_when_it_is_due(self) -> None:
        sender, receiver = self.open(), self.open()
        exchange = Exchange(self.name("exchange"), "topic", delays=True)
        sender.declare(Topology((exchange,)))
        patterns = ("a.b.c", "a.*.c", "a.#", "#", "*.b", "other.a.b.c")
        matching, delay_seconds, elapsed = patterns[:4], 1.0, math.inf
        while elapsed >= delay_seconds:  # again with more time, when this machine was too slow for what has to be early
            delay_seconds *= 2
            queues = {pattern: Queue(name=self.name()) for pattern in patterns}
            bindings = tuple(Binding(exchange.name, pattern, queue.name) for pattern, queue in queues.items())
            gone = Queue(name=self.name())
            sender.declare(Topology((exchange,), (gone,), (Binding(exchange.name, "#", gone.name),)))
            started = time.monotonic()
            future = sender.publish(
                Wire(body=b"%d" % delay_seconds, headers={"n": 1}, message_id="m"), Route(exchange.name, "a.b.c"),
                delay_seconds=delay_seconds,
            )  # fmt: skip
            if math.isinf(sender.capabilities.delay_resolution_seconds):
                assert future.exception(PATIENCE_SECONDS) is not None, "a delay that cannot be kept must be refused"
                return
            future.result(PATIENCE_SECONDS)
            sender.delete(gone.name)
            receiver.declare(Topology((exchange,), tuple(queues.values()), bindings))
            elapsed = time.monotonic() - started

        inboxes = {pattern: self.collect(receiver, queue)[0] for pattern, queue in queues.items()}

        for pattern in matching:
            wire = next(one.wire for one in inboxes[pattern].wait(1) if one.wire.body == b"%d" % delay_seconds)
            assert (wire.message_id, wire.headers.get("n")) == ("m", 1)
        assert time.monotonic() - started >= delay_seconds - 0.1
        assert {pattern for pattern, inbox in inboxes.items() if inbox.all()} == set(matching)
        assert sender.message_count(gone.name) is None

    def test_an_expired_message_is_dropped_where_the_broker_does_that(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        transport.publish(Wire(body=b"old", expiration_seconds=0.05), queue.route).result(PATIENCE_SECONDS)
        self.send(transport, queue, b"good")
        let_pass(0.3)

        inbox, _ = self.collect(transport, queue)

        expected = [b"good"] if transport.capabilities.expires else [b"old", b"good"]
        inbox.wait(len(expected))
        assert inbox.bodies() == expected

    def test_priority_orders_a_queue_where_the_broker_does_that(self) -> None:
        transport = self.open()
        queue = Queue(name=self.name(), max_priority=9)
        transport.declare(Topology(queues=(queue,)))
        for priority in (1, 9, 5):
            wire = Wire(body=b"%d" % priority, priority=priority)
            transport.publish(wire, queue.route).result(PATIENCE_SECONDS)

        inbox = Inbox(settle_now)
        transport.consume([queue], inbox, prefetch=1)

        inbox.wait(3)
        if transport.capabilities.priorities:
            assert inbox.bodies() == [b"9", b"5", b"1"]
        else:
            assert sorted(inbox.bodies()) == [b"1", b"5", b"9"]

    def test_declaring_twice_is_harmless(self) -> None:
        transport, other = self.open(), self.open()
        exchange, queue = Exchange(self.name("exchange"), "topic"), Queue(name=self.name(), expires_seconds=60.0)
        topology = Topology((exchange,), (queue,), (Binding(exchange.name, "k", queue.name),))
        transport.declare(topology)
        self.send(transport, queue, b"kept")

        transport.declare(topology)
        other.declare(topology)

        assert self.drain(other, queue) == [b"kept"]

    def test_declaring_with_other_arguments_fails_where_the_broker_tells(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        other = Topology(queues=(Queue(name=queue.name, max_priority=5),))

        if self.tells_mismatch:
            with pytest.raises(TopologyMismatch):
                self.open().declare(other)
        else:
            self.open().declare(other)
        self.send(transport, queue, b"still")
        assert self.drain(transport, queue) == [b"still"]

    def test_a_passive_queue_has_to_stand(self) -> None:
        transport = self.open()
        name = self.name()
        passive = Topology(queues=(Queue(name=name, passive=True),))

        with pytest.raises(TopologyMismatch):
            transport.declare(passive)
        transport.declare(Topology(queues=(Queue(name=name),)))
        transport.declare(passive)

        self.send(transport, Queue(name=name), b"x")
        assert self.drain(transport, Queue(name=name)) == [b"x"]

    def test_queues_can_be_counted_looked_into_and_deleted(self) -> None:
        transport = self.open()
        missing = self.name("missing")
        assert transport.message_count(missing) is None
        transport.delete(missing)
        queue = self.new_queue(transport)
        assert transport.message_count(queue.name) == 0
        assert transport.get(queue.name) is None
        self.send(transport, queue, b"1", b"2")
        self.wait_for_count(transport, queue, 2)

        first = transport.get(queue.name)
        assert first is not None
        assert (first.wire.body, first.queue, first.redelivered) == (b"1", queue.name, False)
        first.requeue()
        again = transport.get(queue.name)
        assert again is not None
        assert (again.wire.body, again.redelivered) == (b"1", True)
        again.ack()
        self.wait_for_count(transport, queue, 1)

        transport.delete(queue.name)
        assert transport.message_count(queue.name) is None

    def test_what_was_looked_at_and_not_settled_comes_back_after_the_close(self) -> None:
        transport, other = self.open(), self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, b"x")
        assert other.get(queue.name) is not None
        self.wait_for_count(transport, queue, 0)

        other.close()

        self.wait_for_count(transport, queue, 1)
        back = transport.get(queue.name)
        assert back is not None
        assert back.redelivered
        back.ack()

    def test_closing_twice_is_harmless(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        inbox, consumer = self.collect(transport, queue)
        self.send(transport, queue, b"x")
        inbox.wait(1)

        for _ in range(2):
            consumer.close()
            transport.close()

        assert self.open().message_count(queue.name) == 0
