"""Running a task in the caller: `apply`, and `apply_async` under `task_always_eager`."""

from __future__ import annotations

import inspect
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import eager_storing, hooks, states
from .canvas import Signature, signature
from .canvas.signature import as_list
from .eagerresult import EagerResult
from .errbacks import errbacks_to_send
from .exceptions import EncodeError, Ignore, Reject, Retry
from .request import Request, Running, current_request, running
from .results import format_traceback
from .signals import observer as signals
from .signatures import as_signature_dicts

if TYPE_CHECKING:
    from .task import Task


def request_for(
    task: Task, args: Any, kwargs: Mapping[str, Any], options: Mapping[str, Any], *, task_id: str, retries: int
) -> Request:
    """The request of a run in the caller, with what `apply` was told in `options`."""
    parent = current_request()
    callbacks, errbacks = (as_signature_dicts(options.get(key), key) for key in ("link", "link_error"))
    stamped = as_list(options.get("stamped_headers")) if "stamped_headers" in options else None
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
        stamped_headers=stamped,
        stamps=None if stamped is None else {name: as_list(options.get(name)) for name in stamped},
        delivery_info={
            "is_eager": True, "exchange": None, "routing_key": None, "priority": options.get("priority"),
        },
    )  # fmt: skip


def run(task: Task, request: Request, *, throw: bool) -> EagerResult:
    """Call the task, its retries and its callbacks until there is an end."""
    task_id = str(request.id)
    began = time.monotonic()
    ending = _Ending()
    with running(task, request):
        signals.send_prerun(task, request)
        try:
            result = _run(task, request, began, ending, throw=throw)
        finally:
            signals.send_postrun(task, request, ending.state, ending.value)
    if isinstance(result, Signature):
        options = {key: value for key, value in result.options.items() if key not in ("retries", "task_id")}
        return task.apply(result.args, result.kwargs, task_id=task_id, retries=request.retries + 1, **options)
    return result


@dataclass
class _Ending:
    """How a run ended, for whoever listens to that."""

    state: str = states.FAILURE
    value: Any = None


def _run(task: Task, request: Request, began: float, ending: _Ending, *, throw: bool) -> EagerResult | Signature:
    """One try: its result, or what is to be tried next."""
    task_id, entry = str(request.id), Running(task, request)
    try:
        task.before_start(task_id, request.args, request.kwargs)
        result = task.run(*request.args, **request.kwargs)
        if inspect.iscoroutine(result):
            import asyncio  # it takes longer to load than a worker without coroutines needs it

            result = asyncio.run(result)
    except Retry as error:
        ending.state, ending.value = states.RETRY, error
        if throw:
            raise
        if error.sig is None:
            return EagerResult(task_id, error, states.RETRY, format_traceback(error), task.name)
        eager_storing.store_error(task, request, states.RETRY, error, error.exc)
        hooks.retried(entry, error.exc or error)
        signals.send_retry(task, request, error)
        return error.sig
    except (Ignore, Reject) as error:  # never thrown: they are no failures
        ending.state, ending.value = states.IGNORED if isinstance(error, Ignore) else states.REJECTED, error
        return EagerResult(task_id, error, ending.state, name=task.name)
    except Exception as error:  # noqa: BLE001 - user code
        return _failed(task, request, error, ending, throw=throw)
    _send(task, request.callbacks, (result,), request)
    try:
        eager_storing.store_success(task, request, result)
    except EncodeError as error:
        return _failed(task, request, error, ending, throw=throw)
    ending.state, ending.value = states.SUCCESS, result
    hooks.succeeded(entry, result)
    signals.send_success(task, request, result, time.monotonic() - began)
    hooks.returned(entry, states.SUCCESS, result)
    return EagerResult(task_id, result, states.SUCCESS, name=task.name)


def _failed(task: Task, request: Request, error: Exception, ending: _Ending, *, throw: bool) -> EagerResult:
    task_id = str(request.id)
    ending.value = error
    if throw:
        _tell_failed(task, request, error)
        raise error
    eager_storing.store_error(task, request, states.FAILURE, error, error)
    _tell_failed(task, request, error)
    traceback = format_traceback(error)
    errbacks = errbacks_to_send(task.app, request.errbacks or (), request, error, traceback)
    _send(task, errbacks, (task_id,), request)
    return EagerResult(task_id, error, states.FAILURE, traceback, task.name)


def _tell_failed(task: Task, request: Request, error: Exception) -> None:
    entry = Running(task, request)
    hooks.failed(entry, error)
    signals.send_failure(task, request, error)
    hooks.returned(entry, states.FAILURE, error)


def _send(task: Task, signatures: Any, args: tuple[Any, ...], request: Request) -> None:
    for one in signatures or ():
        signature(one, app=task.app).apply_async(args, parent_id=request.id, root_id=request.root_id)
