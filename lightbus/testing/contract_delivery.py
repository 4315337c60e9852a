"""The contract's part about messages: that they arrive as they were, once, and are never lost."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ..core.message import Wire
from ..core.topology import Queue, Topology
from ..ports import Delivery
from .bench import PATIENCE_SECONDS, Bench, Inbox, eventually, settle_now

HOSTILE_BODIES = {
    "empty": b"",
    "nul": b"\x00a\x00",
    "not utf-8": b"\xff\xfe\x80{",
    "every byte": bytes(range(256)),
    "5 MB": b"\x00\xff" * 2_621_440,
}

HEADERS: dict[str, object] = {
    "text": "gr\u00fc\u00dfe \u2028 \x00",
    "int": 7,
    "negative": -(2**40),
    "zero": 0,
    "true": True,
    "false": False,
    "none": None,
    "float": 1.5,
    "empty": {},
    "nested": {"list": [1, "two", {"three": None}], "text": "x"},
}

LEDGER_SIZE = 2000

#: Takes messages and never settles them, until it is killed.
HOLDER = """
import sys, threading
from lightbus.core.topology import Queue
from lightbus.drivers import open_transport
url, name = sys.argv[1:]
taken = threading.Semaphore(0)
transport = open_transport(url)
transport.consume([Queue(name=name)], lambda delivery: taken.release(), prefetch=3)
for _ in range(3):
    taken.acquire()
print("holding", flush=True)
threading.Event().wait()
"""


class DeliveryContract(Bench):
    """Messages arrive as they were sent, and come back until they are acknowledged."""

    @pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=HOSTILE_BODIES.keys())
    def test_a_body_arrives_byte_for_byte(self, body: bytes) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        inbox, _ = self.collect(transport, queue)

        self.send(transport, queue, body, b"last")

        first, last = (delivery.wire.body for delivery in inbox.wait(2))
        assert first == body
        assert last == b"last"

    def test_headers_and_properties_arrive_as_they_were_sent(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        inbox, _ = self.collect(transport, queue)
        sent = Wire(
            body=b"{}", content_type="application/x-thing", content_encoding="binary", headers=HEADERS,
            message_id="m-1", correlation_id="c-1", reply_to="some.queue", priority=3, expiration_seconds=61.5,
            extra={"app_id": "shop", "type": "kind"},
        )  # fmt: skip

        transport.publish(sent, queue.route).result(PATIENCE_SECONDS)

        (delivery,) = inbox.wait(1)
        assert delivery.wire == sent
        assert type(delivery.wire.headers["true"]) is bool
        assert delivery.queue == queue.name
        assert not delivery.redelivered

    def test_properties_that_were_not_set_arrive_unset(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        inbox, _ = self.collect(transport, queue)

        transport.publish(Wire(body=b"x", durable=False), queue.route).result(PATIENCE_SECONDS)

        (delivery,) = inbox.wait(1)
        got = delivery.wire
        assert (got.message_id, got.correlation_id, got.reply_to) == ("", "", "")
        assert (got.expiration_seconds, got.durable, dict(got.headers), dict(got.extra)) == (None, False, {}, {})
        assert got.priority in (None, 0)

    def test_one_consumer_gets_one_queue_in_order(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        bodies = [b"%d" % number for number in range(300)]
        self.send(transport, queue, *bodies[:150])
        inbox, _ = self.collect(transport, queue, prefetch=10)
        self.send(transport, queue, *bodies[150:])

        inbox.wait(300)

        assert inbox.bodies() == bodies

    def test_one_consumer_serves_several_queues(self) -> None:
        transport = self.open()
        queues = [self.new_queue(transport) for _ in range(3)]
        inbox = Inbox(settle_now)
        transport.consume(queues, inbox, prefetch=2)

        for queue in queues:
            self.send(transport, queue, queue.name.encode())

        assert {delivery.queue: delivery.wire.body.decode() for delivery in inbox.wait(3)} == {
            queue.name: queue.name for queue in queues
        }

    def test_what_a_closed_consumer_had_not_settled_comes_back_flagged_and_in_order(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, b"1", b"2", b"3", b"4")
        inbox = Inbox()
        consumer = transport.consume([queue], inbox, prefetch=3)
        inbox.wait(3)[1].ack()

        consumer.close()

        taken = len(inbox.all()) == 4  # the place of the one that was settled may have been filled
        again, _ = self.collect(transport, queue)
        seen = [(delivery.wire.body, delivery.redelivered) for delivery in again.wait(3)]
        assert seen == [(b"1", True), (b"3", True), (b"4", taken)]

    def test_what_a_killed_process_held_comes_back_flagged(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, b"1", b"2", b"3")
        url = self.url_for_processes()
        assert transport.capabilities.shared == (url is not None)
        if url is None:  # nobody else can hold a message of a broker that lives and dies with this process
            assert transport.capabilities.redelivery_seconds == 0
            return
        holder: Any = subprocess.Popen([sys.executable, "-c", HOLDER, url, queue.name], stdout=subprocess.PIPE)
        try:
            assert holder.stdout.readline() == b"holding\n"
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()

        inbox, _ = self.collect(transport, queue)

        seen = inbox.wait(3, seconds=transport.capabilities.redelivery_seconds + 5)
        assert sorted((delivery.wire.body, delivery.redelivered) for delivery in seen) == [
            (b"1", True), (b"2", True), (b"3", True),
        ]  # fmt: skip

    def test_a_requeued_message_comes_back_flagged(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, b"again")
        inbox = Inbox(lambda delivery: delivery.ack() if delivery.redelivered else delivery.requeue())

        transport.consume([queue], inbox, prefetch=1)

        assert [delivery.redelivered for delivery in inbox.wait(2)] == [False, True]
        self.wait_for_count(transport, queue, 0)

    def test_a_message_whose_handing_over_failed_comes_back(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, b"again")

        def fail_once(delivery: Delivery) -> None:
            if not delivery.redelivered:
                raise RuntimeError("the callback fails")
            delivery.ack()

        inbox = Inbox(fail_once)
        transport.consume([queue], inbox, prefetch=1)

        assert [delivery.redelivered for delivery in inbox.wait(2)] == [False, True]

    def test_a_cancelled_consumer_takes_nothing_more_and_can_still_settle(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, b"1", b"2", b"3")
        inbox = Inbox()
        consumer = transport.consume([queue], inbox, prefetch=1)
        (first,) = inbox.wait(1)

        consumer.cancel()
        first.ack()
        consumer.close()

        assert len(inbox.all()) == 1
        assert self.drain(transport, queue) == [b"2", b"3"]

    def test_only_the_first_settlement_counts(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, b"acked", b"requeued")

        def settle_twice(delivery: Delivery) -> None:
            if delivery.wire.body == b"acked" or delivery.redelivered:
                delivery.ack()
                delivery.requeue()
            else:
                delivery.requeue()
                delivery.ack()

        inbox = Inbox(settle_twice)
        transport.consume([queue], inbox, prefetch=1)
        inbox.wait(3)

        self.wait_for_count(transport, queue, 0)
        assert sorted(inbox.bodies()) == [b"acked", b"requeued", b"requeued"]

    def test_settling_after_the_close_does_nothing(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, b"x")
        inbox = Inbox()
        consumer = transport.consume([queue], inbox, prefetch=1)
        (delivery,) = inbox.wait(1)
        consumer.close()

        delivery.ack()

        assert self.drain(transport, queue) == [b"x"]

    def test_a_call_is_answered_on_another_connection(self) -> None:
        client, server = self.open(), self.open()
        calls = self.new_queue(server)
        replies = Queue(name=self.name("reply"), durable=False, exclusive=True, auto_delete=True)
        client.declare(Topology(queues=(replies,)))
        answers, _ = self.collect(client, replies)

        def answer(delivery: Delivery) -> None:
            wire = delivery.wire
            reply = Wire(body=wire.body.upper(), correlation_id=wire.correlation_id, durable=False)
            server.publish(reply, Queue(name=wire.reply_to).route)
            delivery.ack()

        server.consume([calls], answer, prefetch=1)
        call = Wire(body=b"ping", reply_to=replies.name, correlation_id="17", durable=False)
        client.publish(call, calls.route, mandatory=True).result(PATIENCE_SECONDS)

        (reply,) = answers.wait(1)
        assert (reply.wire.body, reply.wire.correlation_id) == (b"PING", "17")

    def test_many_threads_lose_nothing_and_double_nothing(self) -> None:
        senders, receivers = [self.open(), self.open()], [self.open(), self.open()]
        queue = self.new_queue(senders[0])
        done: Counter[bytes] = Counter()
        lock = threading.Lock()
        settlers = ThreadPoolExecutor(4)

        def settle(delivery: Delivery) -> None:
            with lock:
                done[delivery.wire.body] += 1
            delivery.ack()

        def hand_to_a_settler(delivery: Delivery) -> None:
            settlers.submit(settle, delivery)

        for receiver in receivers:
            receiver.consume([queue], hand_to_a_settler, prefetch=50)

        def send(number: int) -> None:
            bodies = [b"%d-%d" % (number, count) for count in range(LEDGER_SIZE // 4)]
            self.send(senders[number % 2], queue, *bodies)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(send, range(4)))
        sent = {b"%d-%d" % (number, count) for number in range(4) for count in range(LEDGER_SIZE // 4)}
        eventually(lambda: len(done), lambda count: count == LEDGER_SIZE, f"{LEDGER_SIZE} messages to be handled")
        settlers.shutdown()
        for receiver in receivers:
            receiver.close()

        assert set(done) == sent
        assert max(done.values()) == 1, "doubled"
        assert self.drain(senders[0], queue) == [], "acknowledged messages came back"

    def test_closing_in_the_middle_of_the_stream_loses_nothing(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        bodies = {b"%d" % number for number in range(200)}
        half = threading.Event()

        def ack_and_count(delivery: Delivery) -> None:
            delivery.ack()
            if len(inbox.all()) >= 50:
                half.set()

        inbox = Inbox(ack_and_count)
        consumer = transport.consume([queue], inbox, prefetch=10)
        sender = threading.Thread(target=self.send, args=(transport, queue, *sorted(bodies)))
        sender.start()
        assert half.wait(PATIENCE_SECONDS)

        consumer.close()
        sender.join()
        seen_before = set(inbox.bodies())

        again, _ = self.collect(transport, queue)
        self.wait_for_count(transport, queue, 0)
        again.wait(len(bodies - seen_before))
        repeats = [delivery for delivery in again.all() if delivery.wire.body in seen_before]
        assert seen_before | set(again.bodies()) == bodies
        assert all(delivery.redelivered for delivery in repeats)
