"""Carries an outcome out: acknowledges a delivery, or publishes a copy of it with confirm and acknowledges then.

A crash between the two repeats a message and never loses it.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future

from ..core.errors import Unwritable
from ..core.message import Route, Wire
from ..core.outcome import SLOT_HEADER, Ack, Copy, DeadLetter, Outcome, Received, Requeue, copy_for, printable
from ..core.topology import ENDS_QUEUE, Topology, dead_letter_queue
from ..ports import Delivery, Transport

logger = logging.getLogger("lightbus.worker")


class Settler:
    """Settles the deliveries of one transport. Thread-safe; never blocks on the broker."""

    def __init__(self, transport: Transport, dead_queue: str) -> None:
        self._transport = transport
        self._dead_queue = dead_queue
        self._idle = threading.Condition()
        self._under_way = 0

    def topology(self) -> Topology:
        """What must stand for dead letters to be kept."""
        return Topology(queues=(dead_letter_queue(self._dead_queue),))

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Carry `outcome` out. A delivery that was acknowledged early keeps that, and only its copy is published."""
        if isinstance(outcome, Ack):
            if SLOT_HEADER in delivery.wire.headers and outcome.verdict != "retry":
                self._tell_end(delivery)
            delivery.ack()
            return
        if isinstance(outcome, Requeue):
            delivery.requeue()
            return
        received = Received(wire=delivery.wire, queue=delivery.queue, redelivered=delivery.redelivered)
        try:
            copy = copy_for(outcome, received, dead_queue=self._dead_queue, now=time.time())
        except Exception as error:  # whatever a hostile header does: the slot must live, and the message be kept
            logger.exception("%s of a message of queue %s could not be written; it is parked", outcome, delivery.queue)
            self._park_body(delivery, DeadLetter("defect", repr(error)))
            return
        if isinstance(outcome, DeadLetter):
            self._log(delivery, outcome)
        self._send_copy(delivery, outcome, copy, is_bare=False)

    def _park_body(self, delivery: Delivery, outcome: DeadLetter) -> None:
        """Keep of a message what can always be kept: its body, and the reason."""
        bare = Wire(body=delivery.wire.body, content_type="application/octet-stream")
        received = Received(wire=bare, queue=delivery.queue, redelivered=delivery.redelivered)
        self._log(delivery, outcome)
        copy = copy_for(outcome, received, dead_queue=self._dead_queue, now=time.time())
        self._send_copy(delivery, outcome, copy, is_bare=True)

    def _log(self, delivery: Delivery, outcome: DeadLetter) -> None:
        logger.error(
            "dead letter queue=%s reason=%s error=%s kept_in=%s",
            delivery.queue, outcome.reason, printable(outcome.error), self._dead_queue,
        )  # fmt: skip

    def _send_copy(self, delivery: Delivery, outcome: Outcome, copy: Copy, *, is_bare: bool) -> None:
        with self._idle:
            self._under_way += 1
        sent = self._transport.publish(copy.wire, copy.route, delay_seconds=copy.delay_seconds)
        sent.add_done_callback(lambda done: self._on_sent(delivery, outcome, done, is_bare=is_bare))

    def _tell_end(self, delivery: Delivery) -> None:
        """Tell the schedule that fired it. A crash before the acknowledgement tells it again, which does no harm."""
        told = Wire(body=b"", headers={SLOT_HEADER: delivery.wire.headers[SLOT_HEADER]})
        self.send(told, Route("", ENDS_QUEUE))

    def send(self, wire: Wire, route: Route) -> None:
        """Publish what belongs to no delivery."""
        with self._idle:
            self._under_way += 1
        self._transport.publish(wire, route).add_done_callback(self._on_answered)

    def drain(self, timeout_seconds: float) -> None:
        """Wait until the copies under way are confirmed."""
        with self._idle:
            self._idle.wait_for(lambda: self._under_way == 0, timeout_seconds)

    def _on_sent(self, delivery: Delivery, outcome: Outcome, sent: Future[None], *, is_bare: bool) -> None:
        error = sent.exception()
        if error is None:
            if isinstance(outcome, DeadLetter) and SLOT_HEADER in delivery.wire.headers:
                self._tell_end(delivery)
            delivery.ack()
        elif isinstance(error, Unwritable) and not is_bare:  # to hand it back would bring it again, for ever
            self._park_body(delivery, DeadLetter("unwritable", str(error)))
        else:
            late = "it was acknowledged before it ran and is lost" if delivery.settled else "it goes back to its queue"
            logger.error("%s of a message of queue %s failed, %s: %s", outcome, delivery.queue, late, error)
            delivery.requeue()
        with self._idle:
            self._under_way -= 1
            self._idle.notify_all()

    def _on_answered(self, sent: Future[None]) -> None:
        if (error := sent.exception()) is not None:
            logger.error("what belongs to no delivery was not sent: %s", error)
        with self._idle:
            self._under_way -= 1
            self._idle.notify_all()
