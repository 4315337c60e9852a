"""What a failure sends or calls: errbacks of either of Celery's two kinds (celery/backends/base.py).

One that takes `(request, exc, traceback)` and is a function of this process is called here and now, in the place where
the task failed. All others are sent as tasks that get the id of the task that failed.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .canvas import Signature, signature

if TYPE_CHECKING:
    from .app import TaskApp
    from .request import Request
    from .task import Task

logger = logging.getLogger(__name__)


def errbacks_to_send(
    app: TaskApp, errbacks: Iterable[Any], request: Request, error: BaseException, traceback: str | None
) -> list[Signature]:
    """Call those of `errbacks` that are called, and return the others, which get the failed task's id as argument.

    What one of them raises is logged, and keeps none of the others from being called.
    """
    to_send: list[Signature] = []
    for one in errbacks:
        errback = signature(one, app=app)
        task = app.find(errback.task)
        if task is None or errback.task.startswith("celery.") or not _takes_failure(task, errback):
            to_send.append(errback)
            continue
        try:
            errback(request, error, traceback)
        except Exception:  # the project's own code
            logger.exception("the errback %r of task %s[%s] failed", errback.task, request.task, request.id)
    return to_send


def _takes_failure(task: Task, errback: Signature) -> bool:
    """Whether more than an id is missing of the arguments that the errback's function has places for."""
    if task.errback_header is None:
        return False
    # Celery looks at the outermost function: one around it that takes anything is called.
    parameters = inspect.signature(task.errback_header, follow_wrapped=False).parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return True
    places = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(places if errback.immutable else _left(places, errback.args, errback.kwargs)) > 1


def _left(places: list[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """The places that its own arguments leave: after one that is given by name, none is filled by position."""
    if len(args) > len(places):
        return places  # it does not fit either way
    left = places[len(args) :]
    named = [number for number, name in enumerate(left) if name in kwargs]
    return left[: min(named, default=len(left))]
