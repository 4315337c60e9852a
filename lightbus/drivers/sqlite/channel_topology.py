"""What a channel declares, binds, deletes and counts: the half of AMQP's methods that moves no message."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import amqp
from amqp.protocol import queue_declare_ok_t
from kombu.transport import base

from ...core.rate import Turn
from .channel_errors import amqp_errors
from .permits import free_permit, hold_permit
from .rates import take_turn
from .sessions import count_consumers
from .store import Store
from .topology import NotFound, QueueSpec

if TYPE_CHECKING:
    from .transport import Transport


class TopologyChannel(base.StdChannel):
    """The channel of the embedded broker as far as exchanges, queues and bindings go, and what is counted there."""

    def __init__(self, transport: Transport, store: Store) -> None:
        self._transport = transport
        self._store = store

    def exchange_declare(
        self,
        exchange: str = "",
        type: str = "direct",
        durable: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, object] | None = None,
        nowait: bool = False,
        passive: bool = False,
    ) -> None:
        with amqp_errors():
            if not passive:
                self._store.topology.declare_exchange(
                    exchange, type or "direct", durable=durable, auto_delete=auto_delete, arguments=arguments or {}
                )
            elif not self._store.topology.exchange_exists(exchange):
                raise NotFound("exchange", exchange)

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        with amqp_errors():
            self._store.topology.delete_exchange(exchange, if_unused=if_unused)

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> queue_declare_ok_t:
        """Returns (name, messages that wait, consumers in all processes)."""
        queue = queue or f"amq.gen-{uuid.uuid4()}"
        with amqp_errors():
            session = self._transport.session() if exclusive else self._transport.session_or_none()
            if not passive:
                spec = QueueSpec(queue, durable, exclusive, auto_delete, arguments or {})
                self._store.topology.declare_queue(spec, session)
            return queue_declare_ok_t(queue, *self._store.count(queue, session))

    def queue_bind(
        self,
        queue: str,
        exchange: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        with amqp_errors():
            self._store.topology.bind(queue, exchange or "amq.direct", routing_key or "")

    def queue_unbind(
        self,
        queue: str,
        exchange: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        self._store.topology.unbind(queue, exchange or "amq.direct", routing_key or "")

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, nowait: bool = False) -> int:
        with amqp_errors():
            return self._store.topology.delete_queue(queue, if_unused=if_unused, if_empty=if_empty)

    def queue_purge(self, queue: str, nowait: bool = False) -> int:
        with amqp_errors():
            return self._store.purge(queue)

    def exchange_bind(self, *arguments: object, **options: object) -> None:
        raise amqp.AMQPNotImplementedError("the embedded broker binds queues to exchanges, not exchanges")

    exchange_unbind = exchange_bind

    def list_bindings(self) -> Iterator[tuple[str, str, str]]:
        """All bindings, as (queue, exchange, routing key)."""
        return iter(self._store.topology.bindings())

    def get_exchanges(self) -> list[str]:
        return self._store.topology.exchange_names()

    def has_consumers(self, queue: str) -> bool:
        """Whether anybody alive, in any process, consumes the queue."""
        return count_consumers(self._store.database, queue) > 0

    def prepare_queue_arguments(self, arguments: Mapping[str, object], **options: Any) -> Mapping[str, object]:
        prepared: Mapping[str, object] = base.to_rabbitmq_queue_arguments(arguments, **options)
        return prepared

    def take_turn(self, name: str, interval_seconds: float, most_wait_seconds: float) -> Turn:
        """See `lightbus.ports.RateStore`."""
        with amqp_errors():
            return take_turn(self._store.database, name, interval_seconds, most_wait_seconds)

    def hold_permit(self, name: str, holder: str, most: int, lease_seconds: float) -> bool:
        """See `lightbus.ports.PermitStore`."""
        with amqp_errors():
            return hold_permit(self._store.database, name, holder, most, lease_seconds)

    def free_permit(self, name: str, holder: str) -> None:
        """See `lightbus.ports.PermitStore`."""
        with amqp_errors():
            free_permit(self._store.database, name, holder)
