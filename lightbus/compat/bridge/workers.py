"""What a Celery worker does with the messages of moved and of unknown tasks: it hands them to Lightbus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery, bootsteps

from .bridge import Bridge, Handler, bridge_of
from .producers import add_stubs


def forward_strategy(task: Any, app: Celery, consumer: Any, **_options: object) -> Handler:
    """A `Strategy` for Celery tasks: hands every message of the task to Lightbus."""
    return bridge_of(app).handler(consumer)


class _Strategies(dict[Any, Any]):
    """Celery's table of task name to strategy, answering also for moved and for unknown names."""

    def __init__(self, known: Mapping[Any, Any], bridge: Bridge, consumer: Any) -> None:
        super().__init__(known)
        self._bridge = bridge
        self._consumer = consumer

    def __getitem__(self, name: Any) -> Any:
        own = self.get(name)
        if own is not None and not self._bridge.is_moved(name):
            return own
        return self._bridge.handler(self._consumer, own)


class ForwardStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery carries no types
    """Puts `_Strategies` in place once the consumer has its strategies, at each (re)connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    name = "lightbus forwarder"

    def start(self, consumer: Any) -> None:
        bridge = bridge_of(consumer.app)
        add_stubs(bridge)
        consumer.strategies = _Strategies(consumer.strategies, bridge, consumer)

    def stop(self, consumer: Any) -> None:
        # The broker gives these messages out again by itself; returned late, one could be in other hands already.
        for _due, entry in vars(consumer).pop("lightbus_held", ()):
            entry.cancel()
