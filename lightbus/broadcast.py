"""Listeners that every process of an app hears for itself: a cache to empty, a setting to read again.

Each process has a queue of its own, which goes with it. So nothing is kept for a process that does not run, nothing is
tried twice, and nothing is parked: at most once.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Collection, Mapping

from .core.concurrency import Concurrency
from .core.errors import DeclarationError
from .core.outcome import Ack, Outcome
from .core.rate import Rate
from .core.topology import Topology, broadcast_topology
from .endpoint import Invocation
from .listeners import EventEndpoint, Listener, routing_keys_of
from .ports import Delivery

logger = logging.getLogger("lightbus.events")


class BroadcastEndpoint:
    """Answers the queues that this process has for itself; their names are others in a forked child. See `Endpoint`."""

    kind = "event"
    blocking = False

    def __init__(self, app: str) -> None:
        self._app = app
        self._listeners: dict[str, Listener] = {}
        self._follows: Callable[[], float] | None = None
        self._pid = 0
        self._own = EventEndpoint(app)
        self._stable: dict[str, str] = {}  # queue of this process to the listener's name

    def add(self, listener: Listener) -> None:
        """Raises DeclarationError: the name is taken, or an event belongs to no API."""
        routing_keys_of(listener)
        if listener.name in self._listeners:
            raise DeclarationError(
                f"app {self._app!r} has a listener of each process named {listener.name!r} already; "
                "give one of them another name="
            )
        self._listeners[listener.name] = listener
        self._pid = 0

    def listeners(self) -> Collection[Listener]:
        """All listeners, for tools."""
        return self._listeners.values()

    def follow(self, now: Callable[[], float]) -> None:
        """Take the time from `now`, in Unix seconds."""
        self._follows = now
        self._own.follow(now)

    def topology(self) -> Topology:
        """See `Endpoint`."""
        return self._here().topology()

    def queues(self) -> Collection[str]:
        """See `Endpoint`."""
        return self._here().queues()

    def rates(self) -> Mapping[str, Rate | None]:
        """See `Rated`. All processes of a worker share one rate, so its name must not be that of a process."""
        return {self._stable_name(name): listener.rate for name, listener in self._listeners.items()}

    def rate_name(self, delivery: Delivery) -> str | None:
        """See `Rated`."""
        return self._stable.get(delivery.queue)

    def limits(self) -> Mapping[str, Concurrency]:
        """See `Limited`. All processes of a worker share one limit."""
        return {
            self._stable_name(name): one.concurrency
            for name, one in self._listeners.items()
            if one.concurrency is not None
        }

    def limit_name(self, queue: str) -> str | None:
        """See `Limited`."""
        return None if self._here().limit_name(queue) is None else self._stable[queue]

    def prepare(self, delivery: Delivery) -> Invocation | Outcome:
        """See `Endpoint`."""
        prepared = self._here().prepare(delivery)
        if isinstance(prepared, Invocation):
            prepared.ack_early = True
        return prepared

    def succeed(self, invocation: Invocation, result: object) -> Outcome:
        """See `Endpoint`."""
        return Ack()

    def fail(self, invocation: Invocation, error: BaseException) -> Outcome:
        """It is logged, and that is all."""
        logger.error("listener of each process failed name=%s queue=%s id=%s error=%s: %s", invocation.name,
                     invocation.queue, invocation.id, type(error).__name__, error, exc_info=error)  # fmt: skip
        return Ack("error")

    def _here(self) -> EventEndpoint:
        """What answers in this process."""
        pid = os.getpid()
        if self._pid != pid:
            own, token, stable = EventEndpoint(self._app), f"{pid}.{uuid.uuid4().hex[:12]}", {}
            if self._follows is not None:
                own.follow(self._follows)
            for name, listener in self._listeners.items():
                topology = broadcast_topology(self._app, name, routing_keys_of(listener), token)
                own.add(listener, topology)
                stable[topology.queues[0].name] = self._stable_name(name)
            self._own, self._stable, self._pid = own, stable, pid
        return self._own

    def _stable_name(self, listener: str) -> str:
        """What stands for the listener's queues in all processes."""
        return f"{self._app}.each.{listener}"
