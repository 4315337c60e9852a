"""A broker in this process, for tests and for trying things out: `memory://`.

It keeps every promise of a transport except outliving the process. `MemoryBroker` is the broker; each transport that
is given the same one is a connection to it, and `open_transport("memory://")` makes a private one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from ..core.errors import ConnectionLost, TransportError
from ..core.message import Route, Wire
from ..core.topology import Exchange, Queue, Topology
from ..core.turns import Turns
from ..ports import Capabilities, Delivery, Settlement, settled_first
from .memory_broker import Entry, MemoryBroker

logger = logging.getLogger("lightbus.memory")

CAPABILITIES = Capabilities(
    name="in memory",
    confirms=True,
    returns_unroutable=True,
    shared=False,
    persistent=False,
    delay_resolution_seconds=0.001,
    redelivery_seconds=0.0,
    priorities=True,
    expires=True,
    releases=True,
)


def open_memory(url: str, options: Mapping[str, object]) -> MemoryTransport:
    """The transport for `memory://`, on a broker of its own. A name after the slashes is for people only."""
    return MemoryTransport()


class MemoryTransport:
    """One connection to an in-memory broker; see `ports.Transport`.

    Args:
        broker: the broker to share; a private one, closed with this transport, when left out.
    """

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self._owns_broker = broker is None
        self._broker = broker if broker is not None else MemoryBroker()
        self._consumers: list[MemoryConsumer] = []
        self._taken: dict[int, tuple[str, Entry]] = {}  # what `get` handed out and is not settled
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def declare(self, topology: Topology) -> None:
        self._check_open()
        self._broker.declare(topology, self)

    def publish(self, wire: Wire, route: Route, *, delay_seconds: float = 0.0, mandatory: bool = False) -> Future[None]:
        future: Future[None] = Future()
        try:
            self._check_open()
            self._broker.publish(wire, route, delay_seconds, mandatory)
        except TransportError as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def announce(self, wire: Wire, exchange: Exchange, routing_key: str) -> None:
        """See `ports.Announces`."""
        self.declare(Topology((exchange,)))
        self._broker.publish(wire, Route(exchange.name, routing_key), 0.0, False)

    def consume(
        self,
        queues: Sequence[Queue],
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        no_ack: bool = False,
    ) -> MemoryConsumer:
        self._check_open()
        # An exclusive queue is its consumer's own, so nobody has to have declared it before.
        self.declare(Topology(queues=tuple(queue for queue in queues if queue.exclusive)))
        take = settled_first(on_delivery) if no_ack else on_delivery
        consumer = MemoryConsumer(self._broker, queues, take, prefetch)
        consumer.start()
        self._consumers.append(consumer)
        return consumer

    def get(self, queue: str) -> Delivery | None:
        self._check_open()
        with self._broker.changed:
            taken = self._broker.take([queue])
            if taken is None:
                return None
            _, entry = taken
            key = id(entry)
            self._taken[key] = taken
        return Delivery(entry.wire, queue, entry.redelivered, partial(self._settle, key))

    def _settle(self, key: int, settlement: Settlement) -> None:
        with self._broker.changed:
            taken = self._taken.pop(key, None)
            if taken is not None and settlement is not Settlement.ACK:
                self._broker.give_back(*taken, flagged=settlement is Settlement.REQUEUE)

    def message_count(self, queue: str) -> int | None:
        self._check_open()
        return self._broker.count(queue)

    def delete(self, queue: str) -> None:
        self._check_open()
        self._broker.delete(queue)

    def close(self) -> None:
        self._closed = True
        for consumer in self._consumers:
            consumer.close()
        self._consumers.clear()
        for key in list(self._taken):
            self._settle(key, Settlement.REQUEUE)
        self._broker.forget_owner(self)
        if self._owns_broker:
            self._broker.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLost("this in-memory transport is closed")


class MemoryConsumer:
    """A running subscription with a thread of its own; see `ports.Consumer`."""

    def __init__(
        self, broker: MemoryBroker, queues: Sequence[Queue], on_delivery: Callable[[Delivery], None], prefetch: int
    ) -> None:
        if prefetch < 1:
            raise ValueError(f"prefetch must be 1 or more, got {prefetch}")
        self._broker = broker
        self._queues = [queue.name for queue in queues]
        self._turns = Turns(queues)
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._unsettled: dict[int, tuple[str, Entry]] = {}
        self._cancelled = False
        self._thread = threading.Thread(target=self._run, name="lightbus-memory-consumer", daemon=True)

    def start(self) -> None:
        """Raises TopologyMismatch: one of the queues does not stand."""
        self._broker.subscribe(self._queues, self)
        self._thread.start()

    def set_prefetch(self, count: int) -> None:
        with self._broker.changed:
            self._prefetch = count
            self._broker.changed.notify_all()

    def cancel(self) -> None:
        with self._broker.changed:
            self._cancelled = True
            self._broker.changed.notify_all()
        self._broker.unsubscribe(list(self._queues), self)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def close(self, *, timeout_seconds: float = 10.0) -> None:
        # Taken back before the subscription ends: a queue that goes with its last consumer is then gone for good.
        self.cancel()
        with self._broker.changed:
            for tag in list(self._unsettled):
                self._settle(tag, Settlement.REQUEUE)

    def _run(self) -> None:
        while (delivery := self._next()) is not None:
            try:
                self._on_delivery(delivery)
            except Exception:
                logger.exception("handing over a message of queue %r failed; it goes back", delivery.queue)
                delivery.requeue()

    def _next(self) -> Delivery | None:
        with self._broker.changed:
            while not self._cancelled:
                in_turn = [name for _, row in self._turns.rows(self._queues) for name in row]
                taken = self._broker.take(in_turn) if len(self._unsettled) < self._prefetch else None
                if taken is not None:
                    name, entry = taken
                    self._turns.had(1)
                    tag = id(entry)
                    self._unsettled[tag] = taken
                    return Delivery(entry.wire, name, entry.redelivered, partial(self._settle, tag))
                self._broker.changed.wait()
        return None

    def _settle(self, tag: int, settlement: Settlement) -> None:
        with self._broker.changed:
            taken = self._unsettled.pop(tag, None)
            if taken is None:
                return
            if settlement is Settlement.ACK:
                self._broker.changed.notify_all()
            else:
                self._broker.give_back(*taken, flagged=settlement is Settlement.REQUEUE)
