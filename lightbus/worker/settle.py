"""Carries an outcome out: acknowledges a delivery, or publishes a copy of it with confirm and acknowledges then.

A crash between the two repeats a message and never loses it.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import replace

from ..core.message import Route, Wire
from ..core.outcome import Ack, DeadLetter, Outcome, Received, Requeue, copy_for
from ..core.topology import Topology, dead_letter_queue
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
            bare = replace(received, wire=Wire(body=delivery.wire.body, content_type="application/octet-stream"))
            outcome = DeadLetter("defect", repr(error))
            copy = copy_for(outcome, bare, dead_queue=self._dead_queue, now=time.time())
        if isinstance(outcome, DeadLetter):
            logger.error(
                "dead letter queue=%s reason=%s error=%s kept_in=%s",
                delivery.queue, outcome.reason, outcome.error, self._dead_queue,
            )  # fmt: skip
        with self._idle:
            self._under_way += 1
        sent = self._transport.publish(copy.wire, copy.route, delay_seconds=copy.delay_seconds)
        sent.add_done_callback(lambda done: self._on_sent(delivery, outcome, done))

    def send(self, wire: Wire, route: Route) -> None:
        """Publish an answer that belongs to no delivery."""
        with self._idle:
            self._under_way += 1
        self._transport.publish(wire, route).add_done_callback(self._on_answered)

    def drain(self, timeout_seconds: float) -> None:
        """Wait until the copies under way are confirmed."""
        with self._idle:
            self._idle.wait_for(lambda: self._under_way == 0, timeout_seconds)

    def _on_sent(self, delivery: Delivery, outcome: Outcome, sent: Future[None]) -> None:
        error = sent.exception()
        if error is None:
            delivery.ack()
        else:
            late = "it was acknowledged before it ran and is lost" if delivery.settled else "it goes back to its queue"
            logger.error("%s of a message of queue %s failed, %s: %s", outcome, delivery.queue, late, error)
            delivery.requeue()
        with self._idle:
            self._under_way -= 1
            self._idle.notify_all()

    def _on_answered(self, sent: Future[None]) -> None:
        if (error := sent.exception()) is not None:
            logger.error("an answer for a lost run was not sent: %s", error)
        with self._idle:
            self._under_way -= 1
            self._idle.notify_all()
