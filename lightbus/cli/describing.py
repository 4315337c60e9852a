"""What a worker of the loaded app says of itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from ..core.description import Description
from ..describing import RunningWorker, can_be_asked, describe
from ..ports import Transport
from .apps import LoadedApp

if TYPE_CHECKING:
    from ..bus import Bus


def describing(
    app: LoadedApp, buses: Sequence[Bus], queues: Collection[str]
) -> Callable[[], Sequence[tuple[Transport, Description]]]:
    """What makes the descriptions, one per bus, for a worker that begins now and in this process.

    Args:
        queues: those to serve; empty for all.
    """
    worker = RunningWorker(queues=queues)

    def describe_all() -> list[tuple[Transport, Description]]:
        return [
            (bus.transport, describe(bus, worker, tasks=_tasks_on(bus, app)))
            for bus in buses
            if can_be_asked(bus.transport)
        ]

    return describe_all


def _tasks_on(bus: Bus, app: LoadedApp) -> list[str]:
    tasks = app.task_app
    return [] if tasks is None or bus is not tasks.bus else [*tasks.tasks, *tasks.adopted]
