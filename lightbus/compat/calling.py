"""The call of a task's function as a worker makes it: on the handler's thread, in the context of its request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .celery_context import within_task
from .request import entered
from .task import Task

if TYPE_CHECKING:
    from .observing import Observers
    from .recording import Recorder, Run


def function_of(run: Run, recorder: Recorder, observers: Observers) -> Callable[..., Any]:
    """The task's function with what goes before it; a coroutine function for a coroutine function.

    As in Celery whoever listens to the beginning of a run does so before STARTED is stored. Of a coroutine it has been
    stored by then, because storing waits, and would make all others wait on its thread.
    """
    task = run.task
    function: Callable[..., Any] = task.run if type(task).__call__ is Task.__call__ else task
    if task._is_coroutine:

        async def start(*args: Any, **kwargs: Any) -> Any:
            run.began = time.monotonic()
            observers.started(run)
            if task._hooks:
                task.before_start(run.request.id, run.request.args, run.request.kwargs)
            return await function(*args, **kwargs)

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with entered(run, in_celery=False):
                return await within_task(task, start(*args, **kwargs))

        recorder.started(run)
        return call_async

    def call(*args: Any, **kwargs: Any) -> Any:
        run.began = time.monotonic()
        with entered(run):
            observers.started(run)
            recorder.started(run)
            if task._hooks:
                task.before_start(run.request.id, run.request.args, run.request.kwargs)
            return function(*args, **kwargs)

    return call
