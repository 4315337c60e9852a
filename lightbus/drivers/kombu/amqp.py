"""The transport for RabbitMQ: publishing, consuming and looking into queues, each on a connection of its own.

A memory or disk alarm blocks the connections that publish and not those that consume; that is why they are two.
Declarations and look-ups take a third, opened when needed, since each waits for the broker's answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from ...core.errors import ConnectionLost, TopologyMismatch, TransportError
from ...core.message import Route, Wire
from ...core.topology import Exchange, Queue, Topology
from ...forks import renewed_after_fork
from ...ports import Capabilities, Consumer, Delivery, Settlement
from .amqp_consumer import AmqpConsumer
from .amqp_declare import declare_ladder, declare_topology, takes_delays
from .amqp_errors import CHANNEL_ERRORS, CONNECTION_ERRORS
from .amqp_options import read_options
from .amqp_publisher import AmqpPublisher
from .amqp_turns import consumer_for
from .amqp_wire import wire_of
from .link import connect

T = TypeVar("T")

_BROKEN: tuple[type[Exception], ...] = (ConnectionLost, *CONNECTION_ERRORS)

CAPABILITIES = Capabilities(
    name="RabbitMQ",
    confirms=True,
    returns_unroutable=True,
    shared=True,
    persistent=True,
    delay_resolution_seconds=1.0,
    redelivery_seconds=1.0,
    priorities=True,
    expires=True,
    releases=False,
    single_active=True,
)


class AmqpTransport:
    """`ports.Transport` for AMQP 0.9.1. Several nodes of a cluster are written `amqp://a//;amqp://b//`."""

    capabilities = CAPABILITIES

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        self._url = url
        self._options = read_options(options)
        self._publisher = AmqpPublisher(url, self._options)
        self.publish = self._publisher.publish  # bound and not wrapped: the way of a message is short
        self._topology = Topology()
        self._consumers: list[AmqpConsumer] = []
        self._announced_on: set[str] = set()
        self._lock = threading.RLock()
        self._tools: Any = None
        self._tools_channel: Any = None
        self._parents: list[Any] = []
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `Renewable`. The publisher is renewed by itself."""
        self._parents += [self._tools, self._tools_channel, *self._consumers]
        self._lock = threading.RLock()
        self._tools = self._tools_channel = None
        self._consumers = []

    def declare(self, topology: Topology) -> None:
        """See `ports.Transport.declare`."""
        # An exclusive queue belongs to the connection that declares it: the consumer's, which declares it itself.
        exclusive = {queue.name for queue in topology.queues if queue.exclusive}
        queues = tuple(queue for queue in topology.queues if queue.name not in exclusive)
        bindings = tuple(binding for binding in topology.bindings if binding.queue not in exclusive)

        def declare(channel: Any) -> None:
            if any(takes_delays(queue) for queue in queues) or any(one.delays for one in topology.exchanges):
                declare_ladder(self._tools, self._options.delay_queue_type)
            declare_topology(channel, Topology(topology.exchanges, queues, bindings))

        self._with_channel(declare)
        self._topology += topology

    def announce(self, wire: Wire, exchange: Exchange, routing_key: str) -> None:
        """See `ports.Announces`."""
        if exchange.name not in self._announced_on:
            self.declare(Topology((exchange,)))
            self._announced_on.add(exchange.name)
        self.publish(wire, Route(exchange.name, routing_key))

    def consume(
        self,
        queues: Sequence[Queue],
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        no_ack: bool = False,
    ) -> Consumer:
        """See `ports.Transport.consume`."""
        names = {queue.name for queue in queues}
        consumer = consumer_for(queues, no_ack=no_ack)(
            self._url, self._options, lambda: self._topology_of(names, queues), queues, on_delivery,
            prefetch=prefetch, no_ack=no_ack,
        )  # fmt: skip
        consumer.start()
        self._consumers.append(consumer)
        return consumer

    def get(self, queue: str) -> Delivery | None:
        """See `ports.Transport.get`."""

        def get(channel: Any) -> Delivery | None:
            message = channel.basic_get(queue)
            if message is None:
                return None
            info = message.delivery_info
            settle = partial(self._settle_got, channel, info["delivery_tag"])
            return Delivery(wire_of(message), queue, bool(info["redelivered"]), settle)

        return self._with_channel(get)

    def message_count(self, queue: str) -> int | None:
        """See `ports.Transport.message_count`."""
        try:
            return self._with_channel(lambda channel: int(channel.queue_declare(queue, passive=True).message_count))
        except TopologyMismatch:
            return None

    def delete(self, queue: str) -> None:
        """See `ports.Transport.delete`."""
        self._with_channel(lambda channel: channel.queue_delete(queue))

    def close(self) -> None:
        """See `ports.Transport.close`."""
        self._publisher.close()
        for consumer in self._consumers:
            consumer.close()
        self._consumers.clear()
        with self._lock:
            self._close_tools()

    def _topology_of(self, names: set[str], queues: Sequence[Queue]) -> Topology:
        """The part of what was declared that these queues need after a reconnection."""
        known = self._topology
        declared = tuple(q for q in known.queues if q.name in names)
        rest = tuple(q for q in queues if q.exclusive and q.name not in {d.name for d in declared})
        bindings = tuple(b for b in known.bindings if b.queue in names)
        exchanges = tuple(e for e in known.exchanges if e.name in {b.exchange for b in bindings})
        return Topology(exchanges, declared + rest, bindings)

    def _with_channel(self, operation: Callable[[Any], T]) -> T:
        """Do something on the channel for declarations and look-ups, under its lock.

        A connection that broke while nobody used it is opened anew, once.

        Raises:
            TransportError: it could not be done.
        """
        with self._lock:
            for is_last in (self._tools is None, True):
                if self._tools is None:
                    self._tools = connect(self._url, self._options, beats=False)
                    self._tools_channel = self._tools.channel()
                try:
                    return operation(self._tools_channel)
                except CHANNEL_ERRORS as error:
                    self._close_tools()
                    raise TopologyMismatch(str(error)) from error
                except _BROKEN as error:
                    self._close_tools()
                    if is_last:
                        raise ConnectionLost(f"the connection to the broker broke: {error}") from error
                except TransportError:
                    self._close_tools()
                    raise
        raise AssertionError("the loop returns or raises")

    def _close_tools(self) -> None:
        connection, self._tools, self._tools_channel = self._tools, None, None
        if connection is not None:
            try:
                connection.close()
            except (*CONNECTION_ERRORS, *CHANNEL_ERRORS):
                pass  # it is broken; that is why it is closed

    def _settle_got(self, channel: Any, tag: int, settlement: Settlement) -> None:
        def settle(current: Any) -> None:
            if current is channel:  # else the broker has taken the message back already
                if settlement is Settlement.ACK:
                    channel.basic_ack(tag)
                else:
                    channel.basic_reject(tag, requeue=True)

        self._with_channel(settle)
