"""The methods of a task's class that are called around its run: `on_success`, `on_failure`, `on_retry`, `after_return`.

In Celery's order: after the result is stored and what follows is sent. One that raises is logged and changes nothing
more: the task has ended. (`before_start` belongs to the run itself, and its error is the task's.)
"""

from __future__ import annotations

import logging
import sys
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
    """What `einfo` of the hooks and signals tells of an error; `str()` of it is the traceback."""

    exception: BaseException
    internal: bool = False

    @property
    def type(self) -> type[BaseException]:
        return type(self.exception)

    @property
    def tb(self) -> TracebackType | None:
        return self.exception.__traceback__

    @property
    def traceback(self) -> str:
        return format_traceback(self.exception)

    @property
    def exc_info(self) -> tuple[Any, BaseException, TracebackType | None]:
        return self.type, self.exception, self.tb

    def __str__(self) -> str:
        return self.traceback


def einfo_of(error: BaseException) -> Any:
    """`einfo` as Celery gives it: billiard's where that is loaded, since receivers look at its class; else ours.

    Billiard's needs a traceback, and the cause of a retry may never have been raised.
    """
    theirs = sys.modules.get("billiard.einfo")
    if theirs is None or error.__traceback__ is None:
        return ExceptionInfo(error)
    return theirs.ExceptionInfo((type(error), error, error.__traceback__))


def succeeded(task: Task, request: Request, result: Any) -> None:
    """The task returned `result`."""
    if task._hooks:
        _call(task, request, task.on_success, result, request.id, request.args, request.kwargs)


def failed(task: Task, request: Request, error: BaseException) -> None:
    """The task failed with `error`."""
    if task._hooks:
        _call(task, request, task.on_failure, error, request.id, request.args, request.kwargs, einfo_of(error))


def returned(task: Task, request: Request, state: str, value: Any) -> None:
    """It has ended in `state`, with a result or an error; after who listens to signals was told of that."""
    if task._hooks:
        einfo = einfo_of(value) if state == states.FAILURE else None
        _call(task, request, task.after_return, state, value, request.id, request.args, request.kwargs, einfo)


def retried(task: Task, request: Request, cause: BaseException) -> None:
    """The task was sent again because of `cause`."""
    if task._hooks:
        _call(task, request, task.on_retry, cause, request.id, request.args, request.kwargs, einfo_of(cause))


def _call(task: Task, request: Request, hook: Callable[..., None], *arguments: Any) -> None:
    with running(task, request):
        try:
            hook(*arguments)
        except Exception:
            logger.exception("a hook of task %s[%s] failed", task.name, request.id)
