"""One connection to a broker without AMQP, used by one thread at a time: the seam inside `virtual`.

`VirtualTransport` and its consumers own threads, locks and reconnections; a session knows one kind of broker. It raises
the errors of `lightbus.core.errors`; after `ConnectionLost` or `BrokerUnreachable` it is closed and another is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...core.message import Route, Wire
from ...core.rate import Turn
from ...core.topology import Exchange, Queue, Topology
from ...ports import Capabilities


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that a session took and still holds under `tag`."""

    tag: str
    wire: Wire
    queue: str
    redelivered: bool


class Session(Protocol):
    """See the module."""

    def declare(self, topology: Topology) -> None:
        """Raises TopologyMismatch."""

    def publish(self, wire: Wire, route: Route, delay_seconds: float, mandatory: bool) -> None:
        """Returns when the broker has the message. Raises Unroutable, NotConfirmed."""

    def announce(self, wire: Wire, exchange: Exchange, routing_key: str) -> None:
        """See `ports.Announces`."""

    def take_turn(self, name: str, interval_seconds: float, most_wait_seconds: float) -> Turn:
        """See `ports.RateStore`. Raises ConfigError where the broker counts no rates."""

    def hold_permit(self, name: str, holder: str, most: int, lease_seconds: float) -> bool:
        """See `ports.PermitStore`. Raises ConfigError where the broker counts no permits."""

    def free_permit(self, name: str, holder: str) -> None:
        """See `ports.PermitStore`."""

    def get(self, queue: str) -> Taken | None:
        """Take one message without a subscription."""

    def count(self, queue: str) -> int | None: ...

    def delete(self, queue: str) -> None: ...

    def subscribe(self, queues: Sequence[Queue], prefetch: int, held: Iterable[str]) -> None:
        """Begin to consume `queues`; `held` are the tags that a session before this one took (see `SessionKind`)."""

    def set_prefetch(self, count: int) -> None:
        """Take no more than `count` from now on, 0 for none; what `exchange` has not given out goes back."""

    def exchange(
        self, acks: Sequence[str], requeues: Sequence[str], limit: int, *, releases: Sequence[str] = ()
    ) -> list[Taken]:
        """Carry out settlements, then take at most `limit` messages without waiting for any.

        Args:
            releases: as `requeues`, but unflagged where the broker can.
        """

    def wait(self, timeout_seconds: float) -> None:
        """Return when a message may have come, after `wake`, or at the timeout. Keeps leases meanwhile."""

    def wake(self) -> None:
        """End a `wait` now. The only method that any thread may call."""

    def stop(self) -> None:
        """End the subscription; what was taken can still be settled."""

    def close(self, *, hand_back: bool = True, gone: Sequence[Queue] = ()) -> None:
        """Hand back what is held, remove the queues `gone`, and disconnect; never raises."""


class SessionKind(Protocol):
    """One kind of broker: opens sessions, and says what they can do."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def tags_survive(self) -> bool:
        """A new session can settle what an old one took."""

    def open(self) -> Session:
        """Raises BrokerUnreachable, AccessRefused."""
