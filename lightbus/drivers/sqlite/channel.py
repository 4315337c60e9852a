"""A kombu channel on the broker file: AMQP's methods, carried out on `store.py`.

The channel decides who gets which message next within its connection, and remembers what was handed out and not yet
settled. The connection (`transport.py`) owns the session, waits, and calls `fill` and `deliver_next`.

One thread consumes; acknowledgements may come from any thread.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import amqp
from kombu.message import Message as KombuMessage

from ...core.turns import Turns
from . import envelope
from .channel_errors import amqp_errors
from .channel_topology import TopologyChannel
from .store import Leased, Store

if TYPE_CHECKING:
    from .transport import Transport

logger = logging.getLogger(__name__)

MAX_BATCH = 100  # messages taken at once; more would only keep them from other consumers


@dataclass(frozen=True)
class Consumer:
    """One `basic_consume`."""

    tag: str
    queue: str
    no_ack: bool
    callback: Callable[[KombuMessage], object]


class Channel(TopologyChannel):
    """What kombu's producers and consumers talk to."""

    Message: type[KombuMessage] = KombuMessage  #: what deliveries are made as

    def __init__(self, transport: Transport, store: Store, channel_id: int) -> None:
        super().__init__(transport, store)
        self.connection: Transport | None = transport
        self.channel_id = channel_id
        self.prefetch_count = 0
        self.no_ack_consumers: set[str] = set()  # type: ignore[assignment]  # kombu says None, and means "or a set"
        self.events: dict[str, set[Callable[..., object]]] = defaultdict(set)
        self._tags = itertools.count(1)
        self._consumers: dict[str, Consumer] = {}
        self._queues: dict[str, deque[Consumer]] = {}  # who consumes each, the next in front
        self.turns: Turns | None = None  #: of queues that are not all alike; with it, this channel consumes only them
        self._last_queue = ""  # that was taken from: the others come first now
        self._buffer: deque[Leased] = deque()
        self._unacked: dict[int, int] = {}  # delivery tag: message id
        self._paused = False
        self._full = False  # the prefetch stopped `fill`: settling must end the wait for messages

    # -- publishing

    def prepare_message(
        self,
        body: str | bytes,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, object] | None = None,
        properties: dict[str, object] | None = None,
    ) -> dict[str, Any]:
        properties = dict(properties or {})
        properties.setdefault("priority", priority or 0)
        return {
            "body": body,
            "content-type": content_type,
            "content-encoding": content_encoding,
            "headers": headers or {},
            "properties": properties,
        }

    def basic_publish(  # noqa: PLR0913 - AMQP's signature
        self,
        message: dict[str, Any],
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        delay_seconds: float | None = None,
    ) -> int:
        """Publish. When this returns, the message is in the file.

        Args:
            message: as `prepare_message` made it.
            mandatory: when no queue takes it, the callbacks in `events["basic_return"]` are called before this
                returns, with (error, exchange, routing key, message).
            delay_seconds: it becomes visible after that long; one to an exchange is routed then.

        Returns:
            How many queues took it. 0 means that nobody has it.

        Raises:
            amqp.NotFound: there is no such exchange.
        """
        routing_key = routing_key or ""
        with amqp_errors():
            row = envelope.to_envelope(message, exchange or "", routing_key, delay_seconds)
            count = self._store.publish(exchange or "", routing_key, row)
        if mandatory and not count:
            error = amqp.NoConsumers("NO_ROUTE", (60, 50), "basic.return", 312)
            for callback in list(self.events["basic_return"]):
                callback(error, exchange, routing_key, message)
        return count

    # -- consuming

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """At most `prefetch_count` unsettled messages on this channel; 0 for no limit."""
        self.prefetch_count = prefetch_count
        self._make_room()

    def hold_at_most(self, count: int) -> None:
        """As `basic_qos`, but 0 means none, and what was taken beyond it and not handed out goes back untouched."""
        self.prefetch_count = count
        self._paused = count == 0
        keep = max(0, count - len(self._unacked))
        back = [self._buffer.pop().id for _ in range(len(self._buffer) - keep)]
        session = self._transport.session_or_none()
        if back and session is not None:
            self._store.release(session, back, unseen=True)
        self._make_room()

    def basic_consume(
        self,
        queue: str,
        no_ack: bool = False,
        callback: Callable[[KombuMessage], object] | None = None,
        consumer_tag: str = "",
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
        on_cancel: Callable[[str], object] | None = None,
    ) -> str:
        if callback is None:
            raise ValueError(f"basic_consume from {queue!r} needs a callback")
        tag = consumer_tag or str(uuid.uuid4())
        with amqp_errors():
            # A tag is unique within a channel only, and the row within a connection.
            self._store.sessions.add_consumer(self._transport.session(), f"{self.channel_id}.{tag}", queue)
        self._consumers[tag] = consumer = Consumer(tag, queue, no_ack, callback)
        self._queues.setdefault(queue, deque()).append(consumer)
        if no_ack:
            self.no_ack_consumers.add(tag)
        return tag

    def basic_cancel(self, consumer_tag: str, nowait: bool = False) -> None:
        """Stop a consumer. What was taken for it and not handed out goes back as if it had not been touched."""
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is None:
            return
        self.no_ack_consumers.discard(consumer_tag)
        session = self._transport.session_or_none()
        self._queues[consumer.queue].remove(consumer)
        if not self._queues[consumer.queue]:
            del self._queues[consumer.queue]
            back = [leased.id for leased in self._buffer if leased.queue == consumer.queue]
            self._buffer = deque(leased for leased in self._buffer if leased.queue != consumer.queue)
            if back and session is not None:
                self._store.release(session, back, unseen=True)
        if session is not None:
            self._store.sessions.remove_consumer(session, f"{self.channel_id}.{consumer_tag}")

    def basic_get(self, queue: str, no_ack: bool = False, accept: object = None) -> KombuMessage | None:
        """One waiting message, or None."""
        with amqp_errors():
            session = self._transport.session()
            self._store.promote()
            leased = self._store.lease(session, [queue], 1)
            if not leased:
                self._store.count(queue, session)  # raises when there is no such queue
                return None
        if no_ack:
            self._store.ack(session, [leased[0].id])
        return self._hand_out(leased[0], None, no_ack=no_ack)

    @property
    def consuming(self) -> bool:
        return bool(self._consumers)

    def fill(self, session: str) -> None:
        """Take waiting messages, as many as the prefetch leaves room for."""
        room = MAX_BATCH
        if self._paused:
            return
        if self.prefetch_count:
            self._full = True  # before counting: whoever settles after it sees this
            room = min(room, self.prefetch_count - len(self._unacked) - len(self._buffer))
            self._full = room <= 0
        if room > 0 and self._queues:
            taken = self._store.lease(session, self._queues, room, self._last_queue, self.turns)
            if taken:
                self._last_queue = taken[-1].queue
            if self.turns is not None:
                self.turns.had(len(taken))
            self._buffer.extend(taken)

    def deliver_next(self, session: str) -> bool:
        """Hand one message that was taken to its consumer; False when there is none."""
        while self._buffer:
            leased = self._buffer.popleft()
            consumer = self._next_consumer(leased.queue)
            if consumer.no_ack and not self._store.ack(session, [leased.id]):
                continue  # the lease was lost: somebody else will get it
            consumer.callback(self._hand_out(leased, consumer.tag, no_ack=consumer.no_ack))
            return True
        return False

    def _next_consumer(self, queue: str) -> Consumer:
        """The consumers of one queue on this channel take turns."""
        consumers = self._queues[queue]
        consumers.rotate(-1)
        return consumers[-1]

    def _hand_out(self, leased: Leased, consumer_tag: str | None, *, no_ack: bool) -> KombuMessage:
        tag = next(self._tags)
        if not no_ack:
            self._unacked[tag] = leased.id
        return envelope.to_message(leased, self, tag, consumer_tag, self.Message)

    def message_to_python(self, raw_message: KombuMessage) -> KombuMessage:
        return raw_message

    # -- settling

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Forget a message, with `multiple` also all before it. After a lost lease this does nothing."""
        if multiple:
            self.ack_many([tag for tag in list(self._unacked) if tag <= delivery_tag])
        else:
            self.ack_many([delivery_tag])

    def ack_many(self, tags: Iterable[int]) -> int:
        """Acknowledge in one transaction. Returns how many of the messages were still this connection's."""
        ids = self._settle(tags)
        session = self._transport.session_or_none()
        if not ids or session is None:
            return 0
        count = self._store.ack(session, ids)
        if count < len(ids):
            logger.warning(
                "%d of %d acknowledgements found no message: its lease was lost, and it is delivered again, "
                "or its queue was deleted",
                len(ids) - count,
                len(ids),
            )
        return count

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Give a message back, or drop it."""
        ids = self._settle([delivery_tag])
        session = self._transport.session_or_none()
        if ids and session is not None:
            if requeue:
                self._store.release(session, ids)
            else:
                self._store.ack(session, ids)

    def release_many(self, tags: Iterable[int]) -> None:
        """Give messages back that nobody has looked at, unflagged, in one transaction."""
        self._give_back(tags, unseen=True)

    def basic_recover(self, requeue: bool = True) -> None:
        """Give back all that is not settled."""
        self._give_back(list(self._unacked), unseen=False)

    def _settle(self, tags: Iterable[int]) -> list[int]:
        ids = [id_ for id_ in (self._unacked.pop(tag, None) for tag in tags) if id_ is not None]
        self._make_room()
        return ids

    def _make_room(self) -> None:
        """Another thread may be waiting, and it stopped taking messages because of the prefetch."""
        if self._full:
            self._full = False
            self._transport.look_again()

    def _give_back(self, tags: Iterable[int], *, unseen: bool) -> None:
        ids = self._settle(tags)
        session = self._transport.session_or_none()
        if ids and session is not None:
            self._store.release(session, ids, unseen=unseen)

    # -- the end

    def forget(self) -> None:
        """Drop what was taken and handed out: the session is lost, or belongs to the parent of a fork."""
        self._buffer.clear()
        self._unacked.clear()

    def close(self) -> None:
        """Cancel the consumers and give back what is not settled."""
        if self.connection is None:
            return
        for tag in list(self._consumers):
            self.basic_cancel(tag)
        self.basic_recover()
        self._transport.close_channel(self)
