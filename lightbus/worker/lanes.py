"""The lanes of ordered listeners: which this process has, and one message at a time in each.

A lane is a queue that one consumer reads, with a prefetch of one. In a worker one process has it, by a lock that the
kernel takes from the dead (`permits`). Among workers RabbitMQ lets one consumer be active; elsewhere a lease in the
broker says who may read. It is longer than the broker takes to put back what a killed process held, or its successor
would begin with the message behind that one.

No message of a lane is handed back on its own: a quorum queue puts it behind all others. What is not settled goes back
with the connection, to its place. For that the subscription is not ended first: messages would come past it.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..core.errors import ConfigError, LightbusError, MessageError, TransportError
from ..core.outcome import DeadLetter, Outcome
from ..core.topology import Queue
from ..endpoint import HasLanes, Invocation
from ..ports import Consumer, Delivery, PermitStore, Settlement, Transport
from .permits import Permits
from .settle import Settler

logger = logging.getLogger("lightbus.worker")

LEASE_SECONDS = 15.0
KEEP_SECONDS = LEASE_SECONDS / 5
#: After that long a message is handled again whose end could not be written.
AGAIN_SECONDS = 1.0
#: In a process that ends: how often it is looked which lanes can be left, and how long that may take.
DRAIN_SECONDS, LEAVE_SECONDS = 0.05, 10.0
#: How often a lane that another one has is asked for.
LOOK_SECONDS = 0.5
#: Lanes beyond its share a process takes only when nobody had them for so long: the others may be starting.
SPARE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LaneSource:
    """Where the lanes of one endpoint are, and who takes what comes.

    Attributes:
        put: hands a message to the slots.
        settler: for what only moves on to its lane.
    """

    transport: Transport
    endpoint: HasLanes
    queues: Sequence[Queue]
    put: Callable[[Delivery], None]
    settler: Settler

    def store(self) -> PermitStore | None:
        """What keeps lanes apart between workers; None where the broker or nobody needs to.

        Raises:
            ConfigError: nothing can.
        """
        broker = self.transport.capabilities
        if broker.single_active or not broker.shared:
            return None
        if broker.permits and isinstance(self.transport, PermitStore):
            return self.transport
        raise ConfigError(
            f"{broker.name} cannot keep listeners with ordered_by in order: use RabbitMQ, Redis or the embedded broker"
        )


@dataclass(slots=True, eq=False)
class Lane:
    """One lane of this worker, had by this process or not."""

    queue: Queue
    source: LaneSource
    store: PermitStore | None
    holder: str = ""
    permit: int | None = None
    consumer: Consumer | None = None
    fresh_until: float = float("inf")  #: on the monotonic clock; what comes later may be another worker's
    free_since: float = 0.0
    is_closing: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _current: Delivery | None = None
    _next: Delivery | None = None

    def on_delivery(self, delivery: Delivery) -> None:
        """From the consumer. After a lost connection the same message may come while it is still being handled."""
        with self._lock:
            if self.is_closing:
                return  # not settled: it goes back with the connection, at its place
            if self._current is not None:
                self._next = delivery
                return
            self._current = delivery
        self._begin(delivery)

    def _begin(self, delivery: Delivery, *, again: bool = False) -> None:
        if time.monotonic() >= self.fresh_until:
            delivery.requeue()  # where there are leases it keeps its place
            self._go_on()
            return
        own = Delivery(
            delivery.wire, delivery.queue, again or delivery.redelivered,
            lambda settlement: self._settled(delivery, settlement),
        )  # fmt: skip
        if self.source.endpoint.lanes()[self.queue.name] != self.queue.name:
            self.source.put(own)
            return
        # Here and not in a slot: behind a long handler all lanes would wait for it.
        try:
            outcome = _sorted(self.source.endpoint, own)
        except MessageError as error:
            outcome = DeadLetter(error.reason, str(error))
        except Exception as error:  # the top of this message's way: a defect must not cost the lane
            logger.exception("a defect while a message of queue %s was read; it is parked", delivery.queue)
            outcome = DeadLetter("defect", repr(error))
        self.source.settler.settle(own, outcome)

    def _settled(self, delivery: Delivery, settlement: Settlement) -> None:
        if settlement is Settlement.ACK:
            delivery.ack()
            self._go_on()
        elif self.is_closing:
            self._go_on()
        else:  # its end could not be written: the broker is away
            timer = threading.Timer(AGAIN_SECONDS, self._begin, (delivery,), {"again": True})
            timer.daemon = True
            timer.start()

    def _go_on(self) -> None:
        with self._lock:
            self._current, self._next = (None if self.is_closing else self._next), None
            following = self._current
        if following is not None:
            self._begin(following)

    def close_to_new(self) -> None:
        """What comes from now on is left to who has the lane next."""
        with self._lock:
            self.is_closing, self._next = True, None

    @property
    def is_done(self) -> bool:
        """Nothing of it is handled here any more, nor will be."""
        with self._lock:
            return self.is_closing and self._current is None


def _sorted(endpoint: HasLanes, delivery: Delivery) -> Outcome:
    outcome = endpoint.prepare(delivery)
    if isinstance(outcome, Invocation):
        raise TypeError(f"a message of {delivery.queue!r} is sorted and not handled")
    return outcome


class Lanes:
    """The lanes that this process has. A thread from the first lane to `close`.

    Args:
        permits: has a limit of one for each lane.
        processes: of this worker.
    """

    def __init__(self, permits: Permits, processes: int) -> None:
        self._permits = permits
        self._processes = processes
        self._lanes: list[Lane] = []
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, source: LaneSource) -> None:
        """Take part in the lanes of an endpoint; the first of them now.

        Raises:
            ConfigError: the broker cannot keep them in order.
            TransportError: a lane could not be read.
        """
        store = source.store()
        self._lanes += [Lane(queue, source, store, free_since=time.monotonic()) for queue in source.queues]
        self._look(first=True)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lightbus-lanes", daemon=True)
            self._thread.start()

    def held(self) -> list[Lane]:
        """Those that this process has now; for a look. Any thread."""
        return [lane for lane in self._lanes if lane.consumer is not None]

    def drain(self) -> None:
        """Begin nothing more. A lane is left when what runs in it has ended, whatever else runs in the process."""
        self._stopping.set()
        for lane in self._lanes:
            lane.close_to_new()

    def close(self, *, timeout_seconds: float) -> None:
        """Leave all lanes to others. When what ran is settled."""
        self.drain()
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        for lane in self._lanes:
            self._leave(lane, timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._look()
            except LightbusError as error:
                logger.warning("lanes could not be looked at, trying again: %s", error)
        while not self._ended.wait(DRAIN_SECONDS):
            for lane in self._lanes:
                if lane.is_done:
                    self._leave(lane, LEAVE_SECONDS)
                elif lane.consumer is not None:
                    self._keep(lane)

    def _look(self, *, first: bool = False) -> None:
        share = -(-len(self._lanes) // self._processes)
        for lane in self._lanes:
            if self._stopping.is_set():
                return
            if lane.consumer is not None:
                self._keep(lane)
                continue
            if len(self.held()) < share or (not first and time.monotonic() - lane.free_since >= SPARE_SECONDS):
                self._take(lane)

    def _take(self, lane: Lane) -> None:
        now = time.monotonic()
        permit = self._permits.take(lane.queue.name)
        if permit is None:
            lane.free_since = now
            return
        holder = uuid.uuid4().hex
        try:
            if lane.store is not None and not lane.store.hold_permit(
                lane.queue.name, holder, 1, lease_seconds=LEASE_SECONDS
            ):
                self._permits.free(permit)
                return
            lane.holder, lane.permit = holder, permit
            lane.fresh_until = float("inf") if lane.store is None else now + LEASE_SECONDS
            lane.consumer = lane.source.transport.consume([lane.queue], lane.on_delivery, prefetch=1)
        except BaseException:
            lane.permit = None
            self._permits.free(permit)
            raise
        logger.debug("lane %s is read here", lane.queue.name)

    def _keep(self, lane: Lane) -> None:
        now = time.monotonic()
        if lane.store is None or lane.fresh_until - now > LEASE_SECONDS - KEEP_SECONDS:
            return
        try:
            kept = lane.store.hold_permit(lane.queue.name, lane.holder, 1, lease_seconds=LEASE_SECONDS)
        except TransportError as error:
            logger.warning("lane %s could not be kept: %s", lane.queue.name, error)
            return
        if kept:
            lane.fresh_until = now + LEASE_SECONDS
        else:  # this process stood still for so long
            logger.warning("lane %s was taken over by another worker", lane.queue.name)
            lane.fresh_until = 0.0
            self._leave(lane, LEAVE_SECONDS)

    def _leave(self, lane: Lane, timeout_seconds: float) -> None:
        consumer, lane.consumer = lane.consumer, None
        if consumer is None:
            return
        consumer.close(timeout_seconds=timeout_seconds)
        if lane.store is not None:
            try:
                lane.store.free_permit(lane.queue.name, lane.holder)
            except TransportError as error:
                logger.warning("lane %s is free only after its lease: %s", lane.queue.name, error)
        if lane.permit is not None:
            self._permits.free(lane.permit)
            lane.permit = None
