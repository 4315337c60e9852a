"""What a worker tells of its own life where it serves tasks: Celery's signals. Nothing where it does not."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import apps as discovery
from . import logs

if TYPE_CHECKING:
    from ..compat.lifecycle import WorkerLife
    from ..worker import Sign


class Life:
    """The worker's life, as the command goes through it. Without tasks nobody is told."""

    def __init__(self, life: WorkerLife | None) -> None:
        self._life = life

    @property
    def signs(self) -> list[Sign]:
        return [] if self._life is None else [self._life]

    def set_up_logging(self, level: str, handler: logging.Handler | None) -> None:
        """Raises ConfigError: the app's own set-up of the log failed."""
        if self._life is not None:
            self._life.set_up_logging(getattr(logging, level.upper()), logs.TEXT, handler)

    def is_set_up(self) -> None:
        """All is known, nothing is connected yet."""
        if self._life is not None:
            self._life.is_set_up()

    def before_fork(self) -> None:
        """In the supervisor, before each process."""
        if self._life is not None:
            self._life.before_fork()

    def process(self) -> contextlib.AbstractContextManager[None]:
        """Around the whole life of a process, in it."""
        return contextlib.nullcontext() if self._life is None else self._life.process()

    def ready(self) -> None:
        """Without a supervisor: it consumes."""
        if self._life is not None:
            self._life.ready()

    def ended(self) -> None:
        """Without a supervisor: it has stopped."""
        if self._life is not None:
            self._life.stops()
            self._life.gone()


def begin(app: discovery.LoadedApp, options: Mapping[str, object], hostname: str) -> Life:
    """The life of a worker for `app`, which is loaded; receivers are told that it begins, and may change its settings.

    Args:
        hostname: the node's name; "" for the usual one.

    Raises:
        ConfigError: the changed settings cannot work.
    """
    if app.task_app is None:
        return Life(None)
    from ..compat.lifecycle import WorkerLife
    from ..compat.node import Node, node_name

    celery_app = app.celery_apps[0] if app.celery_apps else None
    told = celery_app or app.task_app
    life = WorkerLife(Node(node_name(hostname), told), getattr(told, "conf", app.task_app.settings))
    if life.begins(options) and celery_app is not None:
        discovery.read_settings(app, celery_app)
    return Life(life)
