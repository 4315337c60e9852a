"""Running a task in the caller: `apply`, and `apply_async` under `task_always_eager`."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import hooks, states
from .canvas import signature
from .eagerresult import EagerResult
from .exceptions import Ignore, Reject, Retry
from .request import Request, current_request, running
from .results import format_traceback
from .signatures import as_signature_dicts

if TYPE_CHECKING:
    from .task import Task


def request_for(
    task: Task, args: Any, kwargs: Mapping[str, Any], options: Mapping[str, Any], *, task_id: str, retries: int
) -> Request:
    """The request of a run in the caller, with what `apply` was told in `options`."""
    parent = current_request()
    callbacks, errbacks = (as_signature_dicts(options.get(key), key) for key in ("link", "link_error"))
    limits = [options.get("time_limit", task.time_limit), options.get("soft_time_limit", task.soft_time_limit)]
    return Request(
        id=task_id,
        task=task.name,
        args=list(args),
        kwargs=dict(kwargs),
        retries=retries,
        is_eager=True,
        called_directly=False,
        hostname=socket.gethostname(),
        parent_id=parent.id if parent else None,
        root_id=(parent.root_id or parent.id) if parent else task_id,
        callbacks=None if callbacks is None else list(callbacks),
        errbacks=None if errbacks is None else list(errbacks),
        headers=options.get("headers"),
        timelimit=None if limits == [None, None] else limits,
        ignore_result=options.get("ignore_result"),
        delivery_info={
            "is_eager": True, "exchange": None, "routing_key": None, "priority": options.get("priority"),
        },
    )  # fmt: skip


def run(task: Task, request: Request, *, throw: bool) -> EagerResult:
    """Call the task, its retries and its callbacks until there is an end."""
    task_id = str(request.id)
    with running(task, request):
        try:
            task.before_start(task_id, request.args, request.kwargs)
            result = task.run(*request.args, **request.kwargs)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
        except Retry as error:
            if throw:
                raise
            if error.sig is None:
                return EagerResult(task_id, error, states.RETRY, format_traceback(error), task.name)
            hooks.retried(task, request, error.exc or error)
            again = error.sig
            options = {key: value for key, value in again.options.items() if key not in ("retries", "task_id")}
            return task.apply(again.args, again.kwargs, task_id=task_id, retries=request.retries + 1, **options)
        except (Ignore, Reject) as error:  # never thrown: they are no failures
            return EagerResult(
                task_id, error, states.IGNORED if isinstance(error, Ignore) else states.REJECTED, name=task.name
            )
        except Exception as error:  # user code
            hooks.failed(task, request, error)
            if throw:
                raise
            _send(task, request.errbacks, (task_id,), request)
            return EagerResult(task_id, error, states.FAILURE, format_traceback(error), task.name)
        _send(task, request.callbacks, (result,), request)
        hooks.succeeded(task, request, result)
    return EagerResult(task_id, result, states.SUCCESS, name=task.name)


def _send(task: Task, signatures: Any, args: tuple[Any, ...], request: Request) -> None:
    for one in signatures or ():
        signature(one, app=task.app).apply_async(args, parent_id=request.id, root_id=request.root_id)
