"""The settings `broker_read_url` and `broker_write_url`: consume by one URL and publish by the other, as Celery does.

They may name two users of one broker, two addresses of it, or two brokers between which somebody else carries messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

from .. import open_transport
from ..core.message import Route, Wire
from ..core.rate import Turn
from ..core.topology import Exchange, Queue, Topology
from ..ports import Announces, Capabilities, Consumer, Delivery, RateStore, Transport


def open_two(read_url: str, write_url: str, options: Mapping[str, object]) -> TwoWays:
    """The transport that consumes by `read_url` and publishes by `write_url`; it connects on first use.

    Raises:
        ConfigError: no driver has one of the schemes.
    """
    return TwoWays(open_transport(read_url, options=options), open_transport(write_url, options=options))


class TwoWays:
    """See `ports.Transport`, `Announces` and `RateStore`. Queues are declared by both, as Celery's consumers and
    producers both declare them; but an exclusive one by the consumer alone, whose connection it belongs to.
    """

    def __init__(self, read: Transport, write: Transport) -> None:
        self._read = read
        self._write = write

    @property
    def capabilities(self) -> Capabilities:
        read = self._read.capabilities
        return replace(self._write.capabilities, rates=read.rates, single_active=read.single_active, permits=False)

    def declare(self, topology: Topology) -> None:
        self._read.declare(topology)
        own = {queue.name for queue in topology.queues if queue.exclusive}
        self._write.declare(
            Topology(
                topology.exchanges,
                tuple(queue for queue in topology.queues if queue.name not in own),
                tuple(binding for binding in topology.bindings if binding.queue not in own),
            )
        )

    def publish(self, wire: Wire, route: Route, *, delay_seconds: float = 0.0, mandatory: bool = False) -> Future[None]:
        return self._write.publish(wire, route, delay_seconds=delay_seconds, mandatory=mandatory)

    def consume(
        self,
        queues: Sequence[Queue],
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        no_ack: bool = False,
    ) -> Consumer:
        return self._read.consume(queues, on_delivery, prefetch=prefetch, no_ack=no_ack)

    def get(self, queue: str) -> Delivery | None:
        return self._read.get(queue)

    def message_count(self, queue: str) -> int | None:
        return self._read.message_count(queue)

    def delete(self, queue: str) -> None:
        self._read.delete(queue)
        self._write.delete(queue)

    def announce(self, wire: Wire, exchange: Exchange, routing_key: str) -> None:
        if not isinstance(self._write, Announces):
            raise TypeError(f"{self._write.capabilities.name} has no messages for whoever listens")
        self._write.announce(wire, exchange, routing_key)

    def take_turn(self, name: str, interval_seconds: float, *, most_wait_seconds: float) -> Turn:
        if not isinstance(self._read, RateStore):  # `capabilities.rates` says so too
            raise TypeError(f"{self._read.capabilities.name} keeps no rates")
        return self._read.take_turn(name, interval_seconds, most_wait_seconds=most_wait_seconds)

    def close(self) -> None:
        self._read.close()
        self._write.close()
