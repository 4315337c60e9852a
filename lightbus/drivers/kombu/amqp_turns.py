"""Consuming over AMQP in an order: some queues before others, or more of some than of others.

RabbitMQ sends of each queue what the prefetch allows, whatever the other queues have, and what was sent would have to
be held, or handed back again and again, until it is its turn. So this consumer asks for each message, of the queue
whose turn it is. While all queues are empty it subscribes to all of them, so that it need not look again and again;
with the first message that comes it asks again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ...core.message import Wire
from ...core.topology import Queue
from ...core.turns import Turns
from ...ports import Delivery
from .amqp_consumer import AmqpConsumer, batch_of
from .amqp_wire import wire_of

#: Settlements and other threads have their turn after that many.
MOST_AT_ONCE = 20
#: What arrived together with another message, and has waited that long for a place, goes back.
HELD_SECONDS = 0.5


class AmqpTurnsConsumer(AmqpConsumer):
    """As `AmqpConsumer`, for queues that differ in weight or rank. The prefetch is of all queues together."""

    _turns: Turns
    _names: list[str]
    _arrived: dict[str, deque[Delivery]]
    _arrived_at: float

    def on_open(self, connection: Any) -> None:
        self._turns = Turns(self._queues)
        self._names = [queue.name for queue in self._queues]
        self._arrived = {name: deque() for name in self._names}  # nothing of the connection before
        self._arrived_at = 0.0
        super().on_open(connection)

    def on_tick(self) -> float:
        wait_seconds = super().on_tick()
        if self._channel is None or self._cancel_wanted:
            return wait_seconds
        self._batch = batch_of(self._prefetch)
        return min(wait_seconds, self._take_turns())

    def _apply_prefetch(self) -> None:
        """It is looked at before each message."""

    def _deliver(self, queue: str, generation: int, wire: Wire, tag: int, redelivered: bool) -> None:
        self._arrived_at = time.monotonic()
        self._arrived[queue].append(self._delivery(queue, generation, wire, tag, redelivered))

    def _cancel_on_broker(self) -> None:
        super()._cancel_on_broker()
        self._give_arrived_back()

    def _take_turns(self) -> float:
        """Take what there is room for; returns the seconds until there is more to do here."""
        if self._consumer_tags and self._arrived_count:
            self._unsubscribe(self._consumer_tags)
        for _ in range(MOST_AT_ONCE):
            if self._window.open_count - self._arrived_count >= self._prefetch:
                return self._until_given_back()
            if self._consumer_tags:
                return 1.0
            delivery = self._next()
            if delivery is None:
                self._subscribe(1)
            else:
                self._turns.had(1)
                self._hand_over(delivery)
        return 0.0

    def _next(self) -> Delivery | None:
        for _, row in self._turns.rows(self._names):
            for name in dict.fromkeys(row):
                if self._arrived[name]:
                    return self._arrived[name].popleft()
                message = self._channel.basic_get(name)
                if message is not None:
                    info = message.delivery_info
                    tag, redelivered = info["delivery_tag"], bool(info["redelivered"])
                    return self._delivery(name, self._generation, wire_of(message), tag, redelivered)
        return None

    @property
    def _arrived_count(self) -> int:
        return sum(map(len, self._arrived.values()))

    def _until_given_back(self) -> float:
        """Without room: a message that arrived with others must not wait here for a long handler's end."""
        if not self._arrived_count:
            return 1.0
        left_seconds = self._arrived_at + HELD_SECONDS - time.monotonic()
        if left_seconds <= 0:
            self._give_arrived_back()
        return max(0.0, left_seconds)

    def _give_arrived_back(self) -> None:
        for arrived in self._arrived.values():
            while arrived:
                arrived.pop().release()


def consumer_for(queues: Sequence[Queue], *, no_ack: bool) -> type[AmqpConsumer]:
    """The kind of consumer that these queues need. What is settled beforehand has no order to wait for."""
    lasting = any(queue.auto_delete for queue in queues)  # such a queue would go with the end of a subscription
    return AmqpConsumer if lasting or no_ack or Turns(queues).are_even else AmqpTurnsConsumer
