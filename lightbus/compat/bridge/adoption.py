"""Adoption: a Lightbus worker runs tasks that are still written for Celery, from the registry of the Celery app.

The task stays an object of Celery's: its `self.request`, `self.retry`, `current_task` and what it sends are Celery's
own code, which finds the context that a Celery worker gives it. Lightbus takes the message, limits the run, stores the
result and settles. What the task raises to steer its worker is turned into the words of compat.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from celery import Celery, exceptions
from celery._state import _task_stack
from celery.app.task import Context
from celery.app.task import Task as CeleryTask
from celery.app.trace import setup_worker_optimizations

from ...core.errors import ConfigError, HandlerNotFound
from ..app import TaskApp
from ..decorators import HOOKS, build_task
from ..exceptions import Ignore, Reject, Replaced, Retry
from ..request import Request, current_request
from ..task import Task

#: Options of a task that say how it is run and sent. A Celery task has read its app's settings into them.
_OPTIONS = (
    "acks_late", "acks_on_failure", "ignore_result", "store_errors_even_if_ignored", "track_started", "time_limit",
    "soft_time_limit", "rate_limit", "throws", "queue", "priority", "expires", "max_retries", "default_retry_delay",
    "send_events", "resultrepr_maxsize",
)  # fmt: skip
_STRATEGY, _REQUEST = CeleryTask.Strategy, CeleryTask.Request


def adopt(app: TaskApp, celery_app: Celery, patterns: Iterable[str]) -> tuple[str, ...]:
    """Let `app` run the tasks of `celery_app` that `patterns` name, and return their names, sorted.

    For this process only: where their messages are sent is not changed; see `install(app, moved=...)`.

    Args:
        patterns: names of tasks, or patterns as in a shell (`proj.reports.*`). Celery's own tasks (`celery.*`) and
            those that have moved are not taken.

    Raises:
        ConfigError: a pattern names no task, or a task cannot be run here.
    """
    setup_worker_optimizations(celery_app)  # as Celery's own worker does: `current_app`, `__call__` that calls super
    registry = celery_app.tasks
    known = {name: registry[name] for name in registry if not name.startswith("celery.") and name not in app.tasks}
    names: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(known, pattern)
        if not found and pattern in app.tasks:
            raise ConfigError(f"the task {pattern!r} is written for Lightbus already: the worker serves it by itself")
        if not found:
            raise ConfigError(f"--tasks: the Celery app {celery_app.main!r} has {HandlerNotFound(pattern, known)}")
        names.update(found)
    for name in names:
        app.adopted[name] = _adopted(app, known[name])
    return tuple(sorted(names))


def _adopted(app: TaskApp, task: CeleryTask) -> Task:
    """A task of Lightbus that runs `task`.

    Raises:
        ConfigError: it cannot be run here.
    """
    if task.Strategy != _STRATEGY or task.Request != _REQUEST:
        raise ConfigError(
            f"--tasks: {task.name!r} has a Strategy or Request class of its own, which only Celery's worker calls"
        )
    if inspect.iscoroutinefunction(task.run):
        raise ConfigError(
            f"--tasks: {task.name!r} is a coroutine function, which Celery does not run; move it to lightbus.compat"
        )
    options = {key: value for key in _OPTIONS if (value := getattr(task, key, None)) is not None}
    if task.acks_on_failure_or_timeout is not None:
        options.setdefault("acks_on_failure", task.acks_on_failure_or_timeout)
    hooks = {
        name: _hook(task, getattr(task, name))
        for name in HOOKS
        if getattr(type(task), name) is not getattr(CeleryTask, name)
    }  # fmt: skip
    header = getattr(task, "__header__", None)  # only what the decorator made has one, a partial where it has `bind`
    written_as = {
        "__module__": type(task).__module__,  # where the task is written, for those who ask a worker what it loads
        "told_as": staticmethod(lambda: _told_as(task)),
        "errback_header": None if header is None or isinstance(header, partial) else staticmethod(header),
    }  # fmt: skip
    return build_task(lambda: app, _runner(task), task.name, {**options, **hooks, **written_as})


def _runner(task: CeleryTask) -> Callable[..., Any]:
    overridden = type(task).__call__ is not CeleryTask.__call__

    def run(*args: Any, **kwargs: Any) -> Any:
        with _context(task):
            try:
                return task(*args, **kwargs) if overridden else task.run(*args, **kwargs)
            except exceptions.Retry as error:
                raise Retry(error.message, error.exc or error.excs, error.when, sig=error.sig) from error
            except exceptions.Ignore as error:
                replaced = error.args == ("Replaced by new task",)  # what Celery's `replace` raises
                raise (Replaced if replaced else Ignore)(*error.args) from error
            except exceptions.Reject as error:
                raise Reject(error.reason, error.requeue) from error

    run.__name__ = run.__qualname__ = type(task).__name__
    run.__doc__, run.__module__ = task.__doc__, task.__module__
    return run


def _hook(task: CeleryTask, method: Callable[..., Any]) -> Callable[..., None]:
    def hook(self: Task, *args: Any) -> None:
        with _context(task):
            method(*args)

    return hook


@contextmanager
def _told_as(task: CeleryTask) -> Iterator[CeleryTask]:
    """See `Task.told_as`: receivers of signals get the task that they know, in its own context."""
    with _context(task):
        yield task


@contextmanager
def _context(task: CeleryTask) -> Iterator[None]:
    """Within the block `task` is the task that Celery finds running, for the request that Lightbus runs it for."""
    request = current_request() or Request()
    context = Context(vars(request), called_directly=request.called_directly)
    context.headers = request.headers
    context._children = request.children  # what it sends is told in the result that Lightbus stores
    _task_stack.push(task)
    task.request_stack.push(context)
    try:
        yield
    finally:
        task.request_stack.pop()
        _task_stack.pop()
