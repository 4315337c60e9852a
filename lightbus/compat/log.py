"""Loggers of tasks, as `celery.utils.log` and `celery.app.log` have them.

`get_task_logger(__name__)` gives a logger below `celery.task`, whose records carry `task_name` and `task_id`: of the
task that runs, or "???" outside of one.
"""

from __future__ import annotations

import logging
from typing import Any

from .request import current_entry

_RESERVED = ("celery", "celery.task")


class TaskFilter(logging.Filter):
    """Gives each record the name and the id of the task that runs. It lets all pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        entry = current_entry()
        record.task_name = entry[0].name if entry else "???"
        record.task_id = entry[1].id if entry else "???"
        return True


class TaskFormatter(logging.Formatter):
    """A formatter whose text may hold `%(task_name)s` and `%(task_id)s`; also for records of other loggers."""

    def __init__(self, fmt: str | None = None, use_color: bool = False, datefmt: str | None = None, **options: Any):
        super().__init__(fmt, datefmt, **options)

    def format(self, record: logging.LogRecord) -> str:
        if "task_id" not in vars(record):
            _TASK_FILTER.filter(record)
        return super().format(record)


_TASK_FILTER = TaskFilter()


def get_logger(name: str) -> logging.Logger:
    """The logger of that name, below `celery` unless it is below another one."""
    return _below(logging.getLogger("celery"), logging.getLogger(name))


def get_task_logger(name: str) -> logging.Logger:
    """The logger of a task module: below `celery.task`, with name and id of the running task on its records.

    Raises:
        RuntimeError: the name is one of Celery's own loggers.
    """
    if name in _RESERVED:
        raise RuntimeError(f"the logger name {name!r} is reserved")
    logger = _below(logging.getLogger("celery.task"), logging.getLogger(name))
    if _TASK_FILTER not in logger.filters:
        logger.addFilter(_TASK_FILTER)
    return logger


def _below(parent: logging.Logger, logger: logging.Logger) -> logging.Logger:
    above: logging.Logger | None = logger
    while above is not None and above is not parent:
        above = above.parent
    if above is None:
        logger.parent = parent
    return logger


class AppLog:
    """`app.log`: what projects call of Celery's logging set-up."""

    def get_default_logger(self, name: str = "celery", **_: Any) -> logging.Logger:
        """The logger of that name."""
        return logging.getLogger(name)
