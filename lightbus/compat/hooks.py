"""The methods of a task's class that are called around its run: `on_success`, `on_failure`, `on_retry`, `after_return`.

In Celery's order: after the result is stored and what follows is sent. One that raises is logged and changes nothing
more: the task has ended. (`before_start` belongs to the run itself, and its error is the task's.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import states
from .request import Request, running
from .results import format_traceback

if TYPE_CHECKING:
    from .task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExceptionInfo:
    """What `einfo` of the hooks tells of an error; `str()` of it is the traceback."""

    exception: BaseException

    @property
    def type(self) -> type[BaseException]:
        return type(self.exception)

    @property
    def tb(self) -> TracebackType | None:
        return self.exception.__traceback__

    @property
    def traceback(self) -> str:
        return format_traceback(self.exception)

    def __str__(self) -> str:
        return self.traceback


def succeeded(task: Task, request: Request, result: Any) -> None:
    """The task returned `result`."""
    if not task._hooks:
        return
    about = (request.id, request.args, request.kwargs)
    _call(task, request, task.on_success, result, *about)
    _call(task, request, task.after_return, states.SUCCESS, result, *about, None)


def failed(task: Task, request: Request, error: BaseException) -> None:
    """The task failed with `error`."""
    about = (request.id, request.args, request.kwargs, ExceptionInfo(error))
    _call(task, request, task.on_failure, error, *about)
    _call(task, request, task.after_return, states.FAILURE, error, *about)


def retried(task: Task, request: Request, cause: BaseException) -> None:
    """The task was sent again because of `cause`."""
    _call(task, request, task.on_retry, cause, request.id, request.args, request.kwargs, ExceptionInfo(cause))


def _call(task: Task, request: Request, hook: Callable[..., None], *arguments: Any) -> None:
    with running(task, request):
        try:
            hook(*arguments)
        except Exception:
            logger.exception("a hook of task %s[%s] failed", task.name, request.id)
