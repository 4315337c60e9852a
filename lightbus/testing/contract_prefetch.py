"""The contract's part about how many messages a consumer holds: prefetch, pauses, and settling beforehand."""

from __future__ import annotations

from ..core.message import Wire
from ..core.topology import Queue, Topology
from ..ports import Delivery, Transport
from .bench import PATIENCE_SECONDS, Bench, Inbox, let_pass, settle_now


class PrefetchContract(Bench):
    """No more messages are out than the consumer wants."""

    def test_no_more_than_the_prefetch_are_out_at_a_time(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, *(b"%d" % number for number in range(5)))
        inbox = Inbox()
        transport.consume([queue], inbox, prefetch=2)

        first = inbox.wait(2)
        self.wait_for_count(transport, queue, 3)
        assert len(inbox.all()) == 2
        first[0].ack()

        inbox.wait(3)
        self.wait_for_count(transport, queue, 2)
        assert len(inbox.all()) == 3

    def test_a_higher_prefetch_takes_more_at_once(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, *(b"%d" % number for number in range(9)))
        inbox = Inbox()
        consumer = transport.consume([queue], inbox, prefetch=1)
        first = inbox.wait(1)

        consumer.set_prefetch(6)
        inbox.wait(6)
        first[0].ack()

        for delivery in inbox.wait(7):
            delivery.ack()
        for delivery in inbox.wait(9):
            delivery.ack()
        consumer.close()
        self.wait_for_count(transport, queue, 0)
        assert not any(delivery.redelivered for delivery in inbox.all())

    def test_a_lower_prefetch_counts_what_is_held(self) -> None:
        transport = self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, *(b"%d" % number for number in range(9)))
        inbox = Inbox()
        consumer = transport.consume([queue], inbox, prefetch=6)
        held = inbox.wait(6)

        consumer.set_prefetch(2)
        for delivery in held[:4]:
            delivery.ack()
        self.wait_for_taken(transport, queue, held[4])
        assert len(inbox.wait(7)) == 7
        for delivery in held[5:]:
            delivery.ack()

        for delivery in inbox.wait(8)[6:]:
            delivery.ack()
        inbox.wait(9)[8].ack()
        self.wait_for_count(transport, queue, 0)

    def wait_for_taken(self, transport: Transport, queue: Queue, held: Delivery) -> None:
        """Settle one, and wait until the message that its place was for has been taken."""
        before = transport.message_count(queue.name)
        assert before is not None
        held.ack()
        self.wait_for_count(transport, queue, before - 1)

    def test_what_is_handed_back_in_a_pause_goes_to_others_and_the_pause_ends(self) -> None:
        transport, other = self.open(), self.open()
        queue = self.new_queue(transport)
        self.send(transport, queue, *(b"%d" % number for number in range(6)))
        inbox = Inbox()
        consumer = transport.consume([queue], inbox, prefetch=5)
        held = inbox.wait(5)

        consumer.set_prefetch(0)
        for delivery in held[1:]:
            delivery.release()
        others, other_consumer = self.collect(other, queue)

        taken = others.wait(5)
        unflagged = transport.capabilities.releases
        assert sorted((one.wire.body, one.redelivered) for one in taken) == [
            (b"1", not unflagged), (b"2", not unflagged), (b"3", not unflagged), (b"4", not unflagged), (b"5", False),
        ]  # fmt: skip
        assert len(inbox.all()) == 5
        other_consumer.close()
        held[0].ack()
        self.send(transport, queue, b"later")
        consumer.set_prefetch(1)
        inbox.wait(6)[5].ack()
        self.wait_for_count(transport, queue, 0)

    def test_a_queue_that_goes_when_it_is_unused_stays_in_a_pause(self) -> None:
        transport = self.open()
        queue = Queue(name=self.name(), expires_seconds=1.2)
        transport.declare(Topology(queues=(queue,)))
        inbox = Inbox(settle_now)
        consumer = transport.consume([queue], inbox, prefetch=1)

        consumer.set_prefetch(0)
        let_pass(1.8)
        transport.publish(Wire(body=b"x"), queue.route, mandatory=True).result(PATIENCE_SECONDS)
        consumer.set_prefetch(1)

        assert inbox.wait(1)[0].wire.body == b"x"

    def test_what_is_taken_without_acknowledgement_is_settled_when_it_is_handed_out(self) -> None:
        transport = self.open()
        queue, inbox = self.new_queue(transport), Inbox()
        consumer = transport.consume([queue], inbox, prefetch=2, no_ack=True)
        bodies = [b"%d" % number for number in range(20)]

        self.send(transport, queue, *bodies)

        deliveries = inbox.wait(20)  # ten times the prefetch
        assert [delivery.wire.body for delivery in deliveries] == bodies
        assert all(delivery.settled for delivery in deliveries)
        deliveries[-1].requeue()  # too late
        consumer.close()
        assert self.drain(transport, queue) == []
