"""The signals of a worker's own life, in Celery's order: its start, its processes, its log, its end.

The command line calls these methods; of the supervisor it hears as one of its signs (`worker.Sign`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import ConfigError
from . import celery_context, signals
from .node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TASK_LOGGER = "celery.task"  #: the parent of what Celery's `get_task_logger` gives


class Health(Protocol):
    """What is looked at of `worker.Health`."""

    @property
    def ready(self) -> bool: ...

    @property
    def stopping(self) -> bool: ...


class WorkerLife:
    """Tells receivers what becomes of one worker.

    Args:
        node: the sender, and the `instance` that they get.
        conf: what they get as the configuration.
    """

    def __init__(self, node: Node, conf: Any) -> None:
        self._node = node
        self._conf = conf
        self._ready = self._stopping = False

    def begins(self, options: Mapping[str, Any]) -> bool:
        """The app is loaded; receivers may change its configuration. Whether there were any."""
        heard = bool(signals.celeryd_init.receivers or signals.worker_init.receivers)
        name = self._node.hostname
        signals.celeryd_init.send(name, instance=self._node, conf=self._conf, options=dict(options))
        signals.worker_init.send(self._node)
        return heard

    def set_up_logging(self, level: int, template: str, handler: logging.Handler | None) -> None:
        """Leave the log to a receiver of `setup_logging`, or let receivers change what is set up.

        Args:
            template: the format of a line.
            handler: what writes the log so far; None when the program had set one up itself.

        Raises:
            ConfigError: the receiver of `setup_logging` failed.
        """
        root = logging.getLogger()
        about = {"loglevel": level, "logfile": None, "format": template, "colorize": None}
        if signals.setup_logging.receivers:
            if handler is not None:
                root.removeHandler(handler)  # `logging.basicConfig` in the receiver does nothing while there is one
                root.setLevel(logging.WARNING)
            for receiver, answer in signals.setup_logging.send(None, **about):
                if isinstance(answer, Exception):
                    raise ConfigError(f"the receiver {receiver!r} of setup_logging failed: {answer!r}") from answer
            return
        signals.after_setup_logger.send(None, logger=root, **about)
        if signals.after_setup_task_logger.receivers:
            signals.after_setup_task_logger.send(None, logger=_task_logger(level, root), **about)

    def is_set_up(self) -> None:
        """All is known, nothing is connected yet."""
        signals.celeryd_after_setup.send(self._node.hostname, instance=self._node, conf=self._conf)

    def before_fork(self) -> None:
        """In the supervisor, before each process."""
        signals.worker_before_create_process.send(self._node)

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        """Around the whole life of a process that handles tasks, in it."""
        celery_context.set_join_will_block()
        signals.worker_process_init.send(self._node.hostname)
        yield
        signals.worker_process_shutdown.send(self._node.hostname, pid=os.getpid(), exitcode=0)

    def ready(self) -> None:
        """It consumes."""
        if not self._ready:
            self._ready = True
            signals.worker_ready.send(self._node)

    def stops(self) -> None:
        """It was asked to stop."""
        if not self._stopping:
            self._stopping = True
            signals.worker_shutting_down.send(self._node.hostname, sig="SIGTERM", how="Warm", exitcode=0)

    def show(self, health: Health, now: float) -> None:
        """See `worker.Sign`."""
        if health.ready:
            self.ready()
        if health.stopping:
            self.stops()

    def reloading(self) -> None:
        """See `worker.Sign`: it goes on as another program, whose life begins anew."""

    def gone(self) -> None:
        """See `worker.Sign`."""
        signals.worker_shutdown.send(self._node)


def _task_logger(level: int, root: logging.Logger) -> logging.Logger:
    """The logger of tasks with a handler of its own, which receivers may change; only where somebody wants to."""
    logger = logging.getLogger(TASK_LOGGER)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        if root.handlers:
            handler.setFormatter(root.handlers[0].formatter)
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(level)
    return logger
