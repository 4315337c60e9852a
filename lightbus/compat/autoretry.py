"""`autoretry_for` and its family: a task that is tried again by itself when it raises what it said it would.

The rules are Celery's: `Retry`, `Ignore` and `Reject` pass, `dont_autoretry_for` wins, `retry_backoff` doubles from its
factor up to `retry_backoff_max`, and with `retry_jitter` the delay is drawn between 0 and that.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from .exceptions import TaskPredicate

if TYPE_CHECKING:
    from .task import Task


def with_autoretry(task: Task, run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` of a task that has `autoretry_for`; a coroutine function for a coroutine function."""
    if inspect.iscoroutinefunction(run):

        @functools.wraps(run)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            try:
                return await run(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - which of them is the task's own choice
                _again(task, error)

        return run_async

    @functools.wraps(run)
    def run_plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - as above
            _again(task, error)

    return run_plain


def backoff_seconds(task: Task, retries: int, draw: Callable[[int], int]) -> int:
    """The delay before the next try.

    Args:
        retries: tries so far, after the first.
        draw: a whole number from 0 to below its argument, at random.
    """
    longest = min(int(task.retry_backoff_max), int(max(1.0, float(task.retry_backoff))) * 2 ** min(retries, 63))
    return max(0, draw(longest + 1) if task.retry_jitter else longest)


def _again(task: Task, error: Exception) -> NoReturn:
    passes = isinstance(error, (TaskPredicate, *task.dont_autoretry_for))
    if passes or not isinstance(error, tuple(task.autoretry_for)):
        raise error
    options: dict[str, Any] = dict(task.retry_kwargs)
    if task.retry_backoff:
        options["countdown"] = backoff_seconds(task, task.request.retries, random.randrange)
    if task.override_max_retries is not None:
        options["max_retries"], task.override_max_retries = task.override_max_retries, None
    raise task.retry(exc=error, **options)
