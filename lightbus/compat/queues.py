"""Which queues a worker of tasks serves, and what must stand on the broker before it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.topology import TASK_QUEUE_PREFIX, Topology, task_queue_name

if TYPE_CHECKING:
    from .app import TaskApp


class TaskQueues:
    """Args:
    literal: names of queues; without them `lightbus.Q` for the default queue, each queue that Celery knows, and each
        that a task of `app` routes to.
    """

    def __init__(self, app: TaskApp, literal: Sequence[str]) -> None:
        self._app = app
        self._literal = tuple(literal)
        self._added: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        usual = self._literal or tuple(task_queue_name(name) for name in self._of_celery())
        return usual + tuple(name for name in self._added if name not in usual)

    def add(self, name: str) -> Topology:
        """Serve that queue too; what must stand for it."""
        if name not in self._added:
            self._added += (name,)
        return self._topology_of(name)

    def topology(self) -> Topology:
        topology = Topology()
        for name in self.names():
            topology += self._topology_of(name)
        return topology

    def _topology_of(self, name: str) -> Topology:
        settings = self._app.settings
        if name.startswith(TASK_QUEUE_PREFIX):
            return settings.celery_queue(name.removeprefix(TASK_QUEUE_PREFIX)).lightbus_topology()
        return settings.celery_queue(name).topology()

    def _of_celery(self) -> list[str]:
        settings = self._app.settings
        names = [settings.default_queue, *(queue.name for queue in settings.celery_queues)]
        tasks = {**self._app.tasks, **self._app.adopted}
        names += [settings.route(name, {"queue": task.queue}) for name, task in tasks.items()]
        return list(dict.fromkeys(names))
