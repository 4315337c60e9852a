"""The state of an in-memory broker: queues, bindings, who waits, and what is due later.

One lock guards it all; a single timer thread runs while something is due later and ends when nothing is. What talks
to it from outside is `memory.MemoryTransport`.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ..core.errors import ConnectionLost, TopologyMismatch, Unroutable
from ..core.matching import key_matches
from ..core.message import Route, Wire
from ..core.topology import Binding, Exchange, Queue, Topology


@dataclass(order=True, slots=True)
class Entry:
    """A message in one queue; the order is the order in which the queue gives them out."""

    rank: tuple[int, int]  #: (priority reversed, running number): it keeps its place when it is handed back
    wire: Wire = field(compare=False)
    expires_at: float | None = field(compare=False, default=None)  #: on the monotonic clock
    redelivered: bool = field(compare=False, default=False)


class MemoryQueue:
    """One queue. Guarded by the broker's lock."""

    def __init__(self, spec: Queue, owner: object, now: float) -> None:
        self.spec = spec
        self.owner = owner  #: whose closing ends an exclusive queue
        self.consumers: set[object] = set()
        self.last_used = now
        self._waiting: list[Entry] = []

    def push(self, entry: Entry) -> None:
        heapq.heappush(self._waiting, entry)

    def pop(self, now: float) -> Entry | None:
        """The next message that has not expired."""
        while self._waiting:
            entry = heapq.heappop(self._waiting)
            if entry.expires_at is None or entry.expires_at > now:
                return entry
        return None

    def count(self, now: float) -> int:
        return sum(1 for entry in self._waiting if entry.expires_at is None or entry.expires_at > now)

    def clear(self) -> None:
        self._waiting.clear()

    def goes_at(self) -> float | None:
        """When it is to be removed for want of use; None while it is used, or when it stays."""
        if self.spec.expires_seconds is None or self.consumers:
            return None
        return self.last_used + self.spec.expires_seconds

    def rank_of(self, wire: Wire, number: int) -> tuple[int, int]:
        top = self.spec.max_priority or 0
        return (-min(wire.priority or 0, top), number)


class MemoryBroker:
    """A broker in this process. Transports that are given the same one see the same queues. Thread-safe."""

    def __init__(self) -> None:
        lock = threading.RLock()  # guards everything here
        self.changed = threading.Condition(lock)  #: notified when a consumer may go on
        self._queues: dict[str, MemoryQueue] = {}
        self._exchanges: dict[str, Exchange] = {}
        self._bindings: list[Binding] = []
        self._numbers = itertools.count()
        self._later: list[tuple[float, int, Route, Wire]] = []  # due, number, where it is routed then, message
        self._timer: threading.Thread | None = None
        self._timer_wakes = threading.Condition(lock)
        self._closed = False

    def declare(self, topology: Topology, owner: object) -> None:
        """Raises TopologyMismatch: something stands with other arguments, or does not stand."""
        with self.changed:
            for exchange in topology.exchanges:
                standing = self._exchanges.setdefault(exchange.name, exchange)
                if standing.kind != exchange.kind:
                    raise TopologyMismatch(f"exchange {exchange.name!r} exists as {standing.kind}, not {exchange.kind}")
            for queue in topology.queues:
                self._declare_queue(queue, owner)
            for binding in topology.bindings:
                if binding.exchange not in self._exchanges:
                    raise TopologyMismatch(f"there is no exchange {binding.exchange!r} to bind {binding.queue!r} to")
                if binding.queue not in self._queues:
                    raise TopologyMismatch(f"there is no queue {binding.queue!r} to bind to {binding.exchange!r}")
                if binding not in self._bindings:
                    self._bindings.append(binding)
            self._wake_timer()

    def _declare_queue(self, queue: Queue, owner: object) -> None:
        standing = self._queues.get(queue.name)
        if queue.passive:
            if standing is None:
                raise TopologyMismatch(f"queue {queue.name!r} was expected to exist already: declare it first")
            return
        if standing is None:
            self._queues[queue.name] = MemoryQueue(queue, owner, time.monotonic())
        elif standing.spec != queue or dict(standing.spec.arguments) != dict(queue.arguments):
            raise TopologyMismatch(f"queue {queue.name!r} exists with other arguments: {standing.spec}, not {queue}")
        elif queue.exclusive and standing.owner is not owner:
            raise TopologyMismatch(f"queue {queue.name!r} is exclusive to another connection")

    def publish(self, wire: Wire, route: Route, delay_seconds: float, mandatory: bool) -> None:
        """Raises Unroutable: there is no such exchange, or nobody takes the message and it was mandatory."""
        with self.changed:
            if self._closed:
                raise ConnectionLost("the in-memory broker is closed")
            queues = self._queues_for(route)
            if mandatory and not queues:
                raise Unroutable(f"no queue takes messages for exchange {route.exchange!r}, key {route.routing_key!r}")
            if delay_seconds > 0:
                due = time.monotonic() + delay_seconds
                heapq.heappush(self._later, (due, next(self._numbers), route, wire))
                self._wake_timer()
                return
            for name in queues:
                self._put(name, wire)
            self.changed.notify_all()

    def _queues_for(self, route: Route) -> list[str]:
        if not route.exchange:
            return [route.routing_key] if route.routing_key in self._queues else []
        exchange = self._exchanges.get(route.exchange)
        if exchange is None:
            raise Unroutable(f"there is no exchange {route.exchange!r}: nobody has declared it on this broker")
        names = (
            binding.queue
            for binding in self._bindings
            if binding.exchange == route.exchange and key_matches(exchange.kind, binding.routing_key, route.routing_key)
        )
        return list(dict.fromkeys(names))  # a queue with two matching bindings gets one copy

    def _put(self, name: str, wire: Wire) -> None:
        queue = self._queues.get(name)
        if queue is None:
            return  # it went while the message was held back
        expires_at = None
        if wire.expiration_seconds is not None:
            expires_at = time.monotonic() + wire.expiration_seconds
        # Each queue's reader gets headers of its own: a handler that changes them must not change another's.
        queue.push(
            Entry(
                queue.rank_of(wire, next(self._numbers)),
                msgspec.structs.replace(wire, headers=dict(wire.headers)),
                expires_at,
            )
        )

    def take(self, names: Sequence[str]) -> tuple[str, Entry] | None:
        """The next message of the first of `names` that has one. Called with the lock held."""
        now = time.monotonic()
        for name in names:
            queue = self._queues.get(name)
            entry = queue.pop(now) if queue else None
            if queue and entry:
                queue.last_used = now
                return name, entry
        return None

    def give_back(self, name: str, entry: Entry, *, flagged: bool) -> None:
        """Put a message that was taken back to its place. Called with the lock held."""
        queue = self._queues.get(name)
        if queue is not None:
            entry.redelivered = entry.redelivered or flagged
            queue.push(entry)
            self.changed.notify_all()

    def subscribe(self, names: Sequence[str], consumer: object) -> None:
        """Raises TopologyMismatch: one of the queues does not stand."""
        with self.changed:
            missing = [name for name in names if name not in self._queues]
            if missing:
                raise TopologyMismatch(f"there is no queue {missing[0]!r} to consume: declare it first")
            for name in names:
                self._queues[name].consumers.add(consumer)

    def unsubscribe(self, names: Sequence[str], consumer: object) -> None:
        """A queue that is deleted with its last consumer goes now."""
        with self.changed:
            for name in names:
                queue = self._queues.get(name)
                if queue is None or consumer not in queue.consumers:
                    continue
                queue.consumers.discard(consumer)
                queue.last_used = time.monotonic()
                if queue.spec.auto_delete and not queue.consumers:
                    self.delete(name)
            self._wake_timer()

    def count(self, name: str) -> int | None:
        with self.changed:
            queue = self._queues.get(name)
            return None if queue is None else queue.count(time.monotonic())

    def delete(self, name: str) -> None:
        with self.changed:
            self._queues.pop(name, None)
            self._bindings = [binding for binding in self._bindings if binding.queue != name]

    def forget_owner(self, owner: object) -> None:
        """`owner` disconnects: its exclusive queues go."""
        with self.changed:
            gone = [name for name, queue in self._queues.items() if queue.spec.exclusive and queue.owner is owner]
            for name in gone:
                self.delete(name)

    def close(self) -> None:
        """Drop everything. Twice is harmless."""
        with self.changed:
            self._closed = True
            for queue in self._queues.values():
                queue.clear()
            self._later.clear()
            self._timer_wakes.notify_all()
            self.changed.notify_all()
            timer = self._timer
        if timer is not None and timer is not threading.current_thread():
            timer.join()

    def _wake_timer(self) -> None:
        if self._timer is None and self._next_moment() is not None:
            self._timer = threading.Thread(target=self._run_timer, name="lightbus-memory-timer", daemon=True)
            self._timer.start()
        self._timer_wakes.notify_all()

    def _next_moment(self) -> float | None:
        moments = [moment for queue in self._queues.values() if (moment := queue.goes_at()) is not None]
        if self._later:
            moments.append(self._later[0][0])
        return min(moments, default=None)

    def _run_timer(self) -> None:
        with self.changed:
            while not self._closed and (moment := self._next_moment()) is not None:
                now = time.monotonic()
                if moment > now:
                    self._timer_wakes.wait(moment - now)
                    continue
                while self._later and self._later[0][0] <= now:
                    _, _, route, wire = heapq.heappop(self._later)
                    for name in self._queues_for(route):
                        self._put(name, wire)
                for name, queue in list(self._queues.items()):
                    goes_at = queue.goes_at()
                    if goes_at is not None and goes_at <= now:
                        self.delete(name)
                self.changed.notify_all()
            self._timer = None
