"""The transport of a bus under test: messages to a broker are noted, delayed by a virtual clock, or lost."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from ..core.errors import BrokerUnreachable, NotConfirmed
from ..core.message import Route, Wire
from ..core.topology import Queue, Topology
from ..ports import Capabilities, Consumer, Delivery, Transport


class Watcher(Protocol):
    """Who looks on while an app publishes."""

    def before(self, wire: Wire, route: Route, delay_seconds: float) -> bool:
        """Called before the broker has the message; True when it shall not get it."""

    def after(self, wire: Wire, route: Route) -> None:
        """Called when the message is in its queues."""


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.passed_seconds = 0.0


@dataclass
class Faults:
    """What a test lets go wrong with its broker."""

    is_down: bool = False  #: it cannot be reached
    lost_confirms: int = 0  #: so many messages more are taken without a word


class Wiretap:
    """One app's connection to the broker of a test; see `ports.Transport`.

    Args:
        inner: the broker, shared by all apps of the test.
    """

    def __init__(
        self, inner: Transport, clock: Clock, watcher: Watcher | None = None, faults: Faults | None = None
    ) -> None:  # fmt: skip
        self._inner = inner
        self._clock = clock
        self._faults = faults or Faults()
        self._watcher = watcher
        self._later: list[tuple[float, int, Wire, Route]] = []
        self._numbers = itertools.count()

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def declare(self, topology: Topology) -> None:
        self._check_up()
        self._inner.declare(topology)

    def publish(self, wire: Wire, route: Route, *, delay_seconds: float = 0.0, mandatory: bool = False) -> Future[None]:
        future: Future[None] = Future()
        if self._faults.is_down:
            future.set_exception(BrokerUnreachable("the test has taken the broker down"))
            return future
        if self._watcher is not None and self._watcher.before(wire, route, delay_seconds):
            future.set_result(None)
        elif delay_seconds > 0:
            due = self._clock.passed_seconds + delay_seconds
            heapq.heappush(self._later, (due, next(self._numbers), wire, route))
            future.set_result(None)
        else:
            future = self._inner.publish(wire, route, mandatory=mandatory)
            # Waited for here, so that whoever looks into the queues next finds it there, on any broker.
            if future.exception() is None and self._watcher is not None:
                self._watcher.after(wire, route)
        if self._faults.lost_confirms and future.exception() is None:
            self._faults.lost_confirms -= 1
            future = Future()
            future.set_exception(NotConfirmed("the test has lost the broker's confirm: it may have the message"))
        return future

    def next_due_seconds(self) -> float | None:
        """When, on the test's clock, the next delayed message is due."""
        return self._later[0][0] if self._later else None

    def release_due(self) -> None:
        """Let the delayed messages arrive that are due now."""
        while self._later and self._later[0][0] <= self._clock.passed_seconds:
            _, _, wire, route = heapq.heappop(self._later)
            self._inner.publish(wire, route).result()

    def consume(
        self,
        queues: Sequence[Queue],
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        no_ack: bool = False,
    ) -> Consumer:
        self._check_up()
        return self._inner.consume(queues, on_delivery, prefetch=prefetch, no_ack=no_ack)

    def get(self, queue: str) -> Delivery | None:
        return self._inner.get(queue)

    def message_count(self, queue: str) -> int | None:
        return self._inner.message_count(queue)

    def delete(self, queue: str) -> None:
        self._inner.delete(queue)

    def close(self) -> None:
        """The broker belongs to the test."""

    def _check_up(self) -> None:
        if self._faults.is_down:
            raise BrokerUnreachable("the test has taken the broker down")
