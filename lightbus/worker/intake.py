"""The queues that a process consumes: each endpoint's together, those with a limit alone, lanes in their turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core.errors import ConfigError
from ..core.topology import Queue
from ..endpoint import Endpoint, EndsWithProcess, HasLanes, Limited, asked_for
from ..middleware import Middleware
from ..ports import Consumer, Delivery, Transport
from .lanes import Lanes, LaneSource
from .options import WorkerOptions
from .permits import Permits
from .served import Served
from .settle import Settler
from .slots import Slots
from .steering import Subscription
from .watch import Watch
from .work import Work


class Intake:
    """Begins and ends the consumers of one process.

    Attributes:
        subscriptions: remote control changes them.
        settlers: of each endpoint.
    """

    def __init__(self, slots: Slots, watch: Watch, options: WorkerOptions, permits: Permits) -> None:
        self._slots = slots
        self._watch = watch
        self._options = options
        self._lanes = Lanes(permits, options.processes)
        self._consumers: list[Consumer] = []
        self.subscriptions: list[Subscription] = []
        self.settlers: list[tuple[Endpoint, Settler]] = []

    def consume(self, bus: Served) -> None:
        """Declare what the endpoints of `bus` need, and consume their queues.

        Raises:
            LightbusError: it could not be done.
        """
        settler = Settler(bus.transport, bus.dead_letter_queue)
        middleware = (*self._options.middleware, *bus.middleware)
        bus.transport.declare(settler.topology())
        for endpoint in bus.endpoints():
            self.settlers.append((endpoint, settler))
            topology = endpoint.topology()
            bus.transport.declare(topology)
            named = asked_for(endpoint, self._options.queues)
            queues = [
                self._options.order.applied(queue)
                for queue in _queues_of(endpoint, topology.queues)
                if queue.name in named
            ]
            if queues:
                self._slots.gate.add(endpoint, bus.transport)
                self._subscribe(bus.transport, endpoint, queues, self._put_into_slots(endpoint, settler, middleware))
                lanes = [queue for queue in queues if _is_lane(endpoint, queue)]
                if lanes and isinstance(endpoint, HasLanes):
                    put = self._put_into_slots(endpoint, settler, middleware, keeps_place=True)
                    self._lanes.add(LaneSource(bus.transport, endpoint, lanes, put, settler))

    def _subscribe(
        self, transport: Transport, endpoint: Endpoint, queues: list[Queue], on_delivery: Callable[[Delivery], None]
    ) -> None:
        """Consume the queues of an endpoint together, but each with a limit alone: it may have to pause."""
        prefetch, turnstile, together = self._watch.prefetch, self._slots.gate.turnstile, list[Queue]()
        for queue in queues:
            if _is_lane(endpoint, queue):
                continue
            name = endpoint.limit_name(queue.name) if isinstance(endpoint, Limited) else None
            if name is None:
                together.append(queue)
                continue
            turnstile.add(queue, name, transport)
            few = transport.consume([queue], on_delivery, prefetch=turnstile.most(queue.name, prefetch))
            valve = turnstile.valve(queue.name, few, prefetch)
            self.take(valve)
            self.subscriptions.append(Subscription(transport, endpoint, [queue], on_delivery, valve))
        if together:
            consumer = transport.consume(together, on_delivery, prefetch=prefetch)
            self.take(consumer)
            self.subscriptions.append(Subscription(transport, endpoint, together, on_delivery, consumer))

    def take(self, consumer: Consumer) -> None:
        """Have another consumer in care, as remote control begins some."""
        self._consumers.append(consumer)
        self._watch.add(consumer)

    def _put_into_slots(
        self, endpoint: Endpoint, settler: Settler, middleware: tuple[Middleware, ...], *, keeps_place: bool = False
    ) -> Callable[[Delivery], None]:
        def put(delivery: Delivery) -> None:
            self._slots.put(Work(delivery, endpoint, settler, middleware, keeps_place))

        return put

    def drain(self) -> None:
        """Consume nothing more; what was taken on is still settled on its way."""
        self._lanes.drain()
        for consumer in self._consumers:
            consumer.cancel()

    def leave(self, timeout_seconds: float) -> None:
        """When everything is settled, or must be left: the end of all connections that consume."""
        for settler in {id(settler): settler for _, settler in self.settlers}.values():
            settler.drain(timeout_seconds)
        for endpoint, _ in self.settlers:
            if isinstance(endpoint, EndsWithProcess):
                endpoint.leave()
        self._slots.gate.turnstile.finish()
        self._lanes.close(timeout_seconds=timeout_seconds)
        for consumer in self._consumers:
            consumer.close(timeout_seconds=timeout_seconds)


def _is_lane(endpoint: Endpoint, queue: Queue) -> bool:
    return isinstance(endpoint, HasLanes) and queue.name in endpoint.lanes()


def _queues_of(endpoint: Endpoint, declared: Sequence[Queue]) -> list[Queue]:
    by_name = {queue.name: queue for queue in declared}
    missing = [name for name in endpoint.queues() if name not in by_name]
    if missing:
        raise ConfigError(f"{type(endpoint).__name__} serves queues that it does not declare: {', '.join(missing)}")
    return [by_name[name] for name in endpoint.queues()]
