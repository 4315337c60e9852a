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
from .request import Entry, entered
from .results import format_traceback

if TYPE_CHECKING:
    pass

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


def succeeded(entry: Entry, result: Any) -> None:
    """The task returned `result`."""
    if entry.task._hooks:
        _call(entry, entry.task.on_success, result, *_what(entry))


def failed(entry: Entry, error: BaseException) -> None:
    """The task failed with `error`."""
    if entry.task._hooks:
        _call(entry, entry.task.on_failure, error, *_what(entry), einfo_of(error))


def returned(entry: Entry, state: str, value: Any) -> None:
    """It has ended in `state`, with a result or an error; after who listens to signals was told of that."""
    if entry.task._hooks:
        einfo = einfo_of(value) if state == states.FAILURE else None
        _call(entry, entry.task.after_return, state, value, *_what(entry), einfo)


def retried(entry: Entry, cause: BaseException) -> None:
    """The task was sent again because of `cause`."""
    if entry.task._hooks:
        _call(entry, entry.task.on_retry, cause, *_what(entry), einfo_of(cause))


def _call(entry: Entry, hook: Callable[..., None], *arguments: Any) -> None:
    with entered(entry):
        try:
            hook(*arguments)
        except Exception:
            logger.exception("a hook of task %s[%s] failed", entry.task.name, entry.request.id)


def _what(entry: Entry) -> tuple[Any, Any, Any]:
    request = entry.request
    return request.id, request.args, request.kwargs
