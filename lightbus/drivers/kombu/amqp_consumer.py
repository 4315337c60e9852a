"""Consuming over AMQP: a connection of its own, whose thread delivers, and settles what handlers decided.

Handlers never touch the channel. What they decide goes into one queue of settlements; the link's thread is woken by the
first, waits a moment for more, and acknowledges them together. A settlement of a connection that is gone does nothing.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ...core.errors import TransportError
from ...core.message import Wire
from ...core.topology import Queue, Topology
from ...ports import Delivery, Settlement
from .ack_window import AckWindow
from .amqp_declare import declare_topology
from .amqp_options import AmqpOptions
from .amqp_reader import Taker
from .amqp_wire import wire_of
from .link import Link

logger = logging.getLogger("lightbus.amqp")

#: Settlements are carried out together when there are that many, or when the oldest has waited that long.
SETTLE_BATCH = 50
SETTLE_LINGER_SECONDS = 0.005


class AmqpConsumer:
    """A subscription to some queues, healed by itself until it is closed."""

    def __init__(
        self,
        url: str,
        options: AmqpOptions,
        topology: Callable[[], Topology],
        queues: Sequence[Queue],
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        no_ack: bool = False,
    ) -> None:
        """`topology()` is what must stand before the queues are consumed, asked anew for each connection."""
        self._topology = topology
        self._queues = queues
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._no_ack = no_ack
        self._subscribed = 0  # the prefetch of the subscription that stands; 0 when there is none
        self._subscribed_from = 0  # the last delivery tag before it
        self._falling = False  # the prefetch fell, and the subscription has not reached it yet
        self._batch = batch_of(prefetch)
        self._keep_every_seconds = min((queue.expires_seconds or math.inf for queue in queues), default=math.inf) / 3
        self._next_keep = 0.0
        self._window = AckWindow()
        self._generation = 0  # counts connections: a settlement for an older one is void
        self._settlements: deque[tuple[int, int, Settlement]] = deque()
        self._oldest_settlement = 0.0
        self._looks_soon = False  # the link's thread looks at the settlements within the linger, without being woken
        self._looked_at = 0  # the last delivery tag at its last look
        self._channel: Any = None
        self._consumer_tags: list[str] = []
        self._first: threading.Event = threading.Event()
        self._first_error: TransportError | None = None
        self._cancel_wanted = False
        self._cancelled = threading.Event()
        self._takers: dict[bytes, Taker] = {}
        self._link = Link(url, options, self, name="consume", takers=self._takers)

    def start(self) -> None:
        """Subscribe, and return when the broker has accepted.

        Raises:
            TransportError: it could not be done; the consumer is then closed.
        """
        self._link.start()
        self._first.wait()
        if self._first_error is not None:
            self._link.stop(5.0)
            raise self._first_error

    def set_prefetch(self, count: int) -> None:
        """See `ports.Consumer.set_prefetch`."""
        lasting = any(queue.auto_delete for queue in self._queues)  # such a queue would go in a pause
        self._prefetch = max(1, count) if lasting else count
        self._link.wake()

    def cancel(self) -> None:
        """See `ports.Consumer.cancel`."""
        self._cancel_wanted = True
        self._link.wake()
        self._cancelled.wait(10.0)

    def close(self, *, timeout_seconds: float = 10.0) -> None:
        """See `ports.Consumer.close`. What is not settled goes back to its queue with the connection."""
        self._cancel_wanted = True
        self._link.stop(timeout_seconds)

    # -- called by the link, on its thread --------------------------------------------------------------------------

    def on_open(self, connection: Any) -> None:
        channel = connection.channel()
        declare_topology(channel, self._topology())
        self._generation += 1
        self._window = AckWindow()
        self._looked_at = 0
        self._channel = channel
        self._takers.clear()
        self._consumer_tags, self._subscribed, self._subscribed_from, self._falling = [], 0, 0, False
        if not self._cancel_wanted:
            self._apply_prefetch()
        self._first.set()

    def on_lost(self, error: TransportError) -> None:
        self._channel = None
        self._generation += 1
        self._cancelled.set() if self._cancel_wanted else None
        if not self._first.is_set():
            self._first_error = error
            self._first.set()

    def on_channel_error(self, error: Exception) -> None:
        raise error

    def on_tick(self) -> float:
        if self._channel is None:
            return 1.0
        if self._cancel_wanted and not self._cancelled.is_set():
            self._cancel_on_broker()
        self._looks_soon = False  # before the count: what is settled after it wakes this thread
        count = len(self._settlements)
        if not self._cancel_wanted and self._subscribed != self._prefetch:
            self._apply_prefetch()
        if not self._consumer_tags and not self._cancel_wanted:
            self._keep_queues()
        if not count:
            self._oldest_settlement = 0.0
            if self._window.last_tag == self._looked_at:
                return 1.0
            # Something was delivered just now. A short task is done within the linger, and need not wake this thread.
            self._looked_at, self._looks_soon = self._window.last_tag, True
            return SETTLE_LINGER_SECONDS
        now = time.monotonic()
        self._oldest_settlement = self._oldest_settlement or now
        left_seconds = self._oldest_settlement + SETTLE_LINGER_SECONDS - now
        if left_seconds > 0 and count < self._batch:
            return left_seconds
        # No more than were there before the prefetch was looked at: it falls before messages are handed back, and
        # the broker would send them here again.
        self._carry_out_settlements(count)
        return 1.0

    def rest_seconds(self) -> float:
        """None: a message may be waited for."""
        return 0.0

    def on_stop(self) -> None:
        if not self._cancelled.is_set():
            self._cancel_on_broker()
        self._carry_out_settlements(len(self._settlements))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _deliver(self, queue: str, generation: int, wire: Wire, tag: int, redelivered: bool) -> None:
        self._hand_over(self._delivery(queue, generation, wire, tag, redelivered))

    def _delivery(self, queue: str, generation: int, wire: Wire, tag: int, redelivered: bool) -> Delivery:
        self._window.delivered(tag)
        return Delivery(wire, queue, redelivered, functools.partial(self._settle, generation, tag))

    def _hand_over(self, delivery: Delivery) -> None:
        try:
            self._on_delivery(delivery)
        except Exception:  # the top of this thread: a defect above must not cost the subscription
            logger.exception("a message of queue %r could not be taken on; it goes back", delivery.queue)
            delivery.requeue()

    def _deliver_settled(self, queue: str, wire: Wire, tag: int, redelivered: bool) -> None:
        delivery = Delivery(wire, queue, redelivered, _nothing)
        delivery.ack()
        try:
            self._on_delivery(delivery)
        except Exception:  # as in `_deliver`
            logger.exception("a message of queue %r could not be taken on; it is lost", queue)

    def _settle(self, generation: int, tag: int, settlement: Settlement) -> None:
        """From any thread."""
        self._settlements.append((generation, tag, settlement))
        waiting = len(self._settlements)
        if waiting == self._batch or (waiting == 1 and not self._looks_soon):
            self._link.wake()

    def _carry_out_settlements(self, count: int) -> None:
        channel = self._channel
        for _ in range(count):
            generation, tag, settlement = self._settlements.popleft()
            if generation != self._generation:
                continue
            if settlement is Settlement.ACK:
                self._window.settled(tag)
            else:
                self._window.rejected(tag)
                channel.basic_reject(tag, requeue=True)
        for tag, multiple in self._window.acknowledgements():
            channel.basic_ack(tag, multiple=multiple)
        self._oldest_settlement = 0.0

    def _apply_prefetch(self) -> None:
        """Bring the subscription nearer to the wanted prefetch.

        RabbitMQ applies a consumer's prefetch when it subscribes, and quorum queues know no limit for a channel, so a
        change is a new subscription and the old one's end. After a fall, what the old one has out counts against the
        new limit, which is reached in steps as that is settled.
        """
        wanted, held = self._prefetch, self._window.open_count
        if wanted < self._subscribed:
            self._falling = True
            self._unsubscribe(self._consumer_tags)
        if not self._falling or held <= wanted // 4:
            room, self._falling = wanted, False
        else:
            room = max(0, wanted - held)
        free = self._subscribed - self._window.open_beyond(self._subscribed_from)
        if room == 0 or (room < wanted and room - max(0, free) < max(1, wanted // 8)):
            return
        older = self._consumer_tags
        self._subscribe(room)
        self._unsubscribe(older)

    def _subscribe(self, prefetch: int) -> None:
        channel = self._channel
        self._subscribed, self._subscribed_from = prefetch, self._window.last_tag
        self._batch = batch_of(prefetch)
        channel.basic_qos(0, prefetch, False)
        self._consumer_tags = []
        last = self._queues[-1]
        for queue in self._queues:
            consumer_tag = f"lightbus-{next(_consumer_numbers)}"
            take: Taker
            if self._no_ack:
                take = functools.partial(self._deliver_settled, queue.name)
            else:
                take = functools.partial(self._deliver, queue.name, self._generation)
            self._takers[consumer_tag.encode()] = take
            channel.basic_consume(
                queue.name,
                consumer_tag=consumer_tag,
                no_ack=self._no_ack,
                callback=functools.partial(_take_message, take),
                on_cancel=functools.partial(self._on_cancelled_by_broker, queue.name),
                nowait=queue is not last,  # the broker takes them in order, so one answer is the answer to all
            )
            self._consumer_tags.append(consumer_tag)

    def _unsubscribe(self, consumer_tags: Sequence[str]) -> None:
        channel = self._channel
        for consumer_tag in consumer_tags:
            channel.basic_cancel(consumer_tag, nowait=consumer_tag is not consumer_tags[-1])
        for consumer_tag in consumer_tags:  # not sooner: until the answer to the last, messages may arrive for each
            self._takers.pop(consumer_tag.encode(), None)
            channel.callbacks.pop(consumer_tag, None)
            channel.cancel_callbacks.pop(consumer_tag, None)
        if consumer_tags is self._consumer_tags:
            self._consumer_tags, self._subscribed = [], 0

    def _keep_queues(self) -> None:
        """In a pause: a queue that goes when it is unused for a while must not go."""
        now = time.monotonic()
        if now >= self._next_keep:
            if self._next_keep:
                declare_topology(self._channel, self._topology())
            self._next_keep = now + self._keep_every_seconds

    def _cancel_on_broker(self) -> None:
        # The next consumer would get what lies behind a message that goes back with this connection only afterwards.
        if not any(queue.single_active for queue in self._queues):
            self._unsubscribe(self._consumer_tags)
        self._cancelled.set()

    def _on_cancelled_by_broker(self, queue: str, consumer_tag: str) -> None:
        if not self._cancel_wanted:
            raise TransportError(f"the broker ended the subscription to queue {queue!r}: it was deleted")


def batch_of(prefetch: int) -> int:
    """Settlements to carry out together."""
    # Half of the prefetch at most, so that the broker sends more while the other half is handled.
    return max(1, min(SETTLE_BATCH, prefetch // 2))


def _nothing(settlement: Settlement) -> None:
    """The broker knows."""


def _take_message(take: Taker, message: Any) -> None:
    """A delivery that py-amqp read, since it is not of the usual form."""
    info = message.delivery_info
    take(wire_of(message), info["delivery_tag"], bool(info["redelivered"]))


_consumer_numbers = itertools.count(1)
