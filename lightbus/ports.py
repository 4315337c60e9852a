"""The seams between Lightbus and a broker: what a transport must do, and the store of a schedule.

These are the whole of what somebody who adds a broker implements; `lightbus.testing.TransportContract` is the suite
that says whether it is right, and `Capabilities` says in what it may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol, runtime_checkable

from .core.message import Parcel, Route, Wire
from .core.outcome import REPEAT_HEADER
from .core.rate import Turn
from .core.topology import Exchange, Queue, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a transport adds to what every transport must do.

    Attributes:
        name: for people: `RabbitMQ`, `Redis`, `embedded (SQLite)`, `in memory`.
        confirms: a publish is finished when the broker said that it has the message.
        returns_unroutable: `mandatory=True` fails with `Unroutable` at once; otherwise it is ignored.
        shared: other processes can connect to it.
        persistent: messages survive a restart of the broker, or of the last process where there is no server.
        delay_resolution_seconds: a delay is rounded up to a multiple of this.
        redelivery_seconds: after kill -9 of a consumer its messages are back within that long.
        priorities: `Wire.priority` orders a queue that has `max_priority`.
        expires: the broker drops a message after `Wire.expiration_seconds`; receivers check anyway.
        rates: it is a `RateStore`.
        permits: it is a `PermitStore`.
        single_active: it keeps to `Queue.single_active`.
        releases: a message handed back by `Delivery.release` is not flagged as redelivered.
    """

    name: str
    confirms: bool
    returns_unroutable: bool
    shared: bool
    persistent: bool
    delay_resolution_seconds: float
    redelivery_seconds: float
    priorities: bool
    expires: bool
    releases: bool
    rates: bool = False
    permits: bool = False
    single_active: bool = False


class Settlement(Enum):
    """What a consumer tells the broker about one message."""

    ACK = auto()  #: handled, forget it
    REQUEUE = auto()  #: give it to the next consumer, flagged as redelivered
    RELEASE = auto()  #: the same, but nobody has begun to handle it: unflagged, where the broker can


class Delivery:
    """One message handed to this process, to be settled exactly once by `ack`, `requeue` or `release`.

    Thread-safe, and a second settlement does nothing. When the connection was lost since, settling does nothing
    either: the broker gives the message to somebody again, with `redelivered` set.

    Attributes:
        wire: the message.
        queue: the queue it came from.
        redelivered: it may have been handed out before.
    """

    __slots__ = ("_settle", "_settled", "queue", "redelivered", "wire")

    def __init__(self, wire: Wire, queue: str, redelivered: bool, settle: Callable[[Settlement], None]) -> None:
        """`settle` is called once, from any thread, and must not block."""
        self.wire = wire
        self.queue = queue
        self.redelivered = redelivered
        self._settle = settle
        self._settled = False

    @property
    def may_repeat(self) -> bool:
        """This message, or another copy of it, may have been handed out before."""
        return self.redelivered or REPEAT_HEADER in self.wire.headers

    @property
    def settled(self) -> bool:
        return self._settled

    def ack(self) -> None:
        """The message is handled; the broker may forget it."""
        if not self._settled:
            self._settled = True
            self._settle(Settlement.ACK)

    def requeue(self) -> None:
        """Hand the message back; the next consumer gets it, flagged as redelivered."""
        if not self._settled:
            self._settled = True
            self._settle(Settlement.REQUEUE)

    def release(self) -> None:
        """Hand back a message that nobody has begun to handle. Flagged only where the broker cannot do without
        (`Capabilities.releases`)."""
        if not self._settled:
            self._settled = True
            self._settle(Settlement.RELEASE)


def settled_first(on_delivery: Callable[[Delivery], None]) -> Callable[[Delivery], None]:
    """`on_delivery` behind an acknowledgement: `no_ack` for transports that gain nothing by it."""

    def acknowledge_and_take(delivery: Delivery) -> None:
        delivery.ack()
        on_delivery(delivery)

    return acknowledge_and_take


class Consumer(Protocol):
    """A running subscription. It survives lost connections by itself until it is closed."""

    def set_prefetch(self, count: int) -> None:
        """From now on hold at most `count` unsettled messages (per queue on AMQP); 0: take none until it is raised.

        What is held already counts when the number falls; when it rises, AMQP may for a moment exceed it by what was
        held. Any thread; does not wait. A message that is handed back
        after this call does not come back to this consumer because of the old number.
        """

    def cancel(self) -> None:
        """Take no more messages. Those delivered can still be settled. Returns when no further one will arrive."""

    def close(self, *, timeout_seconds: float = 10.0) -> None:
        """Cancel, carry out the settlements made so far, hand back what is not settled, and disconnect."""


class Transport(Protocol):
    """A broker. Thread-safe. Connects on first use, so that it may be created before a fork."""

    @property
    def capabilities(self) -> Capabilities: ...

    def declare(self, topology: Topology) -> None:
        """Make `topology` stand, now and after each reconnection.

        Raises:
            TopologyMismatch: something of that name stands with other arguments, or a passive queue does not stand.
            TransportError: the broker could not be reached.
        """

    def publish(self, wire: Wire, route: Route, *, delay_seconds: float = 0.0, mandatory: bool = False) -> Future[None]:
        """Send a message; the future is done when the broker has taken charge of it.

        Does not wait for the broker's answer, so that many can be under way. A message not yet confirmed when the
        connection breaks is sent again, with header `lightbus_repeat`.

        Args:
            delay_seconds: the message becomes visible after that long. Only for routes to a queue (exchange `""`) that
                this or another Lightbus process declared, or to an exchange that was declared with `delays`: it goes
                to the queues that are bound when it is due. Its `expiration_seconds` counts from then, if it is kept.
            mandatory: fail with `Unroutable` when no queue takes it, or, where the transport can tell, when the
                queue has had no living consumer for longer than it may be unused.

        The future's errors are `TransportError`s: Unroutable, NotConfirmed, ConnectionLost, BrokerUnreachable,
        AccessRefused.
        """

    def consume(
        self,
        queues: Sequence[Queue],
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        no_ack: bool = False,
    ) -> Consumer:
        """Hand each message of `queues` to `on_delivery`, at most `prefetch` unsettled at a time (per queue on AMQP).

        The queues must have been declared. `on_delivery` runs on the consumer's own thread and must not block; when
        it raises, the message is handed back. Returns once the broker has accepted the subscription.

        Args:
            no_ack: messages are settled as they are handed out: what is on its way when the connection breaks is lost,
                and nothing holds the broker back. For answers, which nobody else waits for.

        Raises:
            TransportError: the first connection could not be made. Later losses are healed in the background.
        """

    def get(self, queue: str) -> Delivery | None:
        """One waiting message, or None: for tools that look into a queue. Requeue it or ack it."""

    def message_count(self, queue: str) -> int | None:
        """Messages that wait in `queue`, or None when there is no such queue."""

    def delete(self, queue: str) -> None:
        """Remove a queue and what waits in it. Nothing happens when there is none."""

    def close(self) -> None:
        """Wait for confirms under way (a few seconds at most), close consumers, disconnect. Twice is harmless."""


@runtime_checkable
class Announces(Protocol):
    """A transport that has messages for whoever listens at the moment, in the form that Celery's monitors read."""

    def announce(self, wire: Wire, exchange: Exchange, routing_key: str) -> None:
        """Publish to an exchange, which is made to stand, without waiting until the broker has taken charge.

        On Redis it is a PUB/SUB message of kombu's, as for all exchanges of kind `fanout` there: nobody keeps it.

        Raises:
            TransportError: it could not be handed to the connection.
        """


@runtime_checkable
class RateStore(Protocol):
    """What a `Transport` does besides where `Capabilities.rates`."""

    def take_turn(self, name: str, interval_seconds: float, *, most_wait_seconds: float) -> Turn:
        """`core.rate.take` from the bucket `name`, which everybody on the broker shares.

        Raises:
            TransportError: the broker did not answer; no turn was given.
        """


@runtime_checkable
class PermitStore(Protocol):
    """What a `Transport` does besides where `Capabilities.permits`."""

    def hold_permit(self, name: str, holder: str, most: int, *, lease_seconds: float) -> bool:
        """Whether `holder` has one of the `most` permits of `name` for `lease_seconds` from now: newly, or still.

        Raises:
            TransportError: the broker did not answer.
        """

    def free_permit(self, name: str, holder: str) -> None:
        """Give it back, if it is held."""


class ScheduleStore(Protocol):
    """Where the schedule of one broker is kept, and the only way to send what it fires.

    What has to be true at one moment (this process leads; the decision is noted; the message is in its queue) the
    broker itself makes true. All processes with a store on one broker see one schedule.
    """

    def lead(self) -> str:
        """The name of this process's term of leading, begun or kept up by this call; `""` while another one leads.

        Raises:
            TransportError: the broker cannot be reached.
            ScheduleStateError: what was kept is gone.
        """

    def load(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Every record with its entry's id, one at a time, for a leader whose term has just begun.

        A commit in between does no harm. A record that changes meanwhile may come twice.

        Raises:
            ScheduleStateError: one cannot be read.
        """

    def commands(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Tag and content of the commands that wait, the oldest first."""

    def commit(
        self, records: Mapping[str, Mapping[str, Any] | None], messages: Sequence[Parcel], done: Sequence[str] = ()
    ) -> None:
        """Note `records` (None removes one), send `messages`, drop the commands tagged `done`: all or nothing.

        Raises:
            NotLeading: nothing of it, because this term has ended.
            TransportError: nothing or all of it; `load` in the next term tells.
        """

    def wait(self, seconds: float) -> None:
        """Let time pass, keeping the connection alive; returns early when something has arrived."""

    def resign(self) -> None:
        """Let another process lead, and disconnect. The store can be used again. Raises nothing."""

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        """Every record, for anybody, without leading."""

    def post(self, command: Mapping[str, Any]) -> None:
        """Leave a command for the leader of now or later. It has an id of its own under `request`."""

    def is_waiting(self, request: str) -> bool:
        """Whether that command, posted by this store object, still waits for the leader, as far as can be seen."""

    def reset(self) -> None:
        """Forget everything that is kept, readable or not. No process may lead meanwhile."""
