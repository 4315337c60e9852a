"""A `Topology` made to stand on an AMQP channel, and the ladder of queues that keeps delayed messages.

Delays use kombu's ladder, which Celery's workers share: 28 queues whose time to live is a power of two seconds; the
bits of the delay say through which of them a message goes. A message comes out on exchange `celery_delayed_delivery`
under its own key, so each durable queue is bound there. Our key is one word without dots (`lightbus/celery` for
`lightbus.celery`): Celery binds `#.celery` for its queue `celery`, and that would match a key that ends in `.celery`.

A delayed message to an exchange carries the exchange's name, written in that way, before its key; whatever is bound to
the exchange is bound to the ladder's end by the same pattern. So it is routed when it is due, and by the broker alone.
"""

from __future__ import annotations

import math
from typing import Any

from kombu.transport import native_delayed_delivery as ladder

from ...core.message import Route
from ...core.topology import Queue, Topology
from .amqp_errors import CHANNEL_ERRORS, CONNECTION_ERRORS, declare_error

LADDER_EXCHANGE = ladder.CELERY_DELAYED_DELIVERY_EXCHANGE
#: Longer delays than the 28 bits of the ladder hold (8.5 years) are cut to that.
LONGEST_DELAY_SECONDS = 2**ladder.MAX_NUMBER_OF_BITS_TO_USE - 1
_ANY_DELAY = "*." * ladder.MAX_NUMBER_OF_BITS_TO_USE


def declare_topology(channel: Any, topology: Topology) -> None:
    """Declare exchanges, then queues, then bindings. The ladder has to stand where one of them takes delays.

    Raises:
        TopologyMismatch, AccessRefused, ConnectionLost: the channel or the connection is then closed.
    """
    for exchange in topology.exchanges:
        with _naming(f"exchange {exchange.name!r}"):
            channel.exchange_declare(exchange.name, type=exchange.kind, durable=True, auto_delete=False)
    for queue in topology.queues:
        with _naming(f"queue {queue.name!r}"):
            if queue.passive:
                channel.queue_declare(queue.name, passive=True)
            else:
                channel.queue_declare(
                    queue.name, durable=queue.durable, exclusive=queue.exclusive, auto_delete=queue.auto_delete,
                    arguments=queue_arguments(queue),
                )  # fmt: skip
            if takes_delays(queue):
                channel.queue_bind(queue.name, LADDER_EXCHANGE, _ANY_DELAY + _delay_key(queue.route))
    delaying = {exchange.name for exchange in topology.exchanges if exchange.delays}
    for binding in topology.bindings:
        with _naming(f"binding {binding.routing_key!r} of queue {binding.queue!r}"):
            channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
            if binding.exchange in delaying:
                key = _ANY_DELAY + _delay_key(Route(binding.exchange, binding.routing_key))
                channel.queue_bind(binding.queue, LADDER_EXCHANGE, key)


def declare_ladder(connection: Any, queue_type: str) -> None:
    """Make the delay ladder stand; one that stands already is used as it is, whoever declared it."""
    channel = connection.channel()
    try:
        channel.exchange_declare(LADDER_EXCHANGE, type="topic", passive=True)
        channel.close()
    except CHANNEL_ERRORS:
        with _naming("the queues for delayed messages (celery_delayed_*)"):
            ladder.declare_native_delayed_delivery_exchanges_and_queues(connection, queue_type)


def takes_delays(queue: Queue) -> bool:
    """Whether delayed messages may be sent to `queue`: not to those that come and go with a connection."""
    return queue.durable and not (queue.exclusive or queue.auto_delete or queue.passive or queue.expires_seconds)


def delayed_route(route: Route, delay_seconds: float) -> Route:
    """Where a message for `route` goes in at the top of the ladder, to come out after `delay_seconds`, rounded up."""
    seconds = min(math.ceil(delay_seconds), LONGEST_DELAY_SECONDS)
    return Route(ladder.level_name(ladder.MAX_LEVEL), ladder.calculate_routing_key(seconds, _delay_key(route)))


def queue_arguments(queue: Queue) -> dict[str, object]:
    """The broker's `x-` arguments for `queue`."""
    arguments: dict[str, object] = dict(queue.arguments)
    if queue.replicated:
        arguments["x-queue-type"] = "quorum"
    if queue.single_active:
        arguments["x-single-active-consumer"] = True
    if queue.expires_seconds is not None and not queue.exclusive:
        arguments["x-expires"] = int(queue.expires_seconds * 1000)
    if queue.max_priority is not None:
        arguments["x-max-priority"] = queue.max_priority
    return arguments


def _delay_key(route: Route) -> str:
    if route.exchange:
        return f"{route.exchange.replace('.', '/')}.{route.routing_key}"
    return route.routing_key.replace(".", "/")


class _naming:
    """Turns what a declaration raises into an error that names `what`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and isinstance(error, (*CHANNEL_ERRORS, *CONNECTION_ERRORS)):
            raise declare_error(error, self._what) from error
