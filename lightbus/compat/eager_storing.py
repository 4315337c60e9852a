"""Storing what became of a task that ran in the caller, where `task_store_eager_result` asks for it, as Celery does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import states
from .recording import storable
from .results import ResultDocument, exception_triple, format_traceback

if TYPE_CHECKING:
    from .request import Request
    from .task import Task


def store_success(task: Task, request: Request, result: Any) -> None:
    """Store SUCCESS, unless the result is ignored.

    Raises:
        EncodeError: the result cannot be written down.
        TransportError: it could not be handed over.
    """
    if task.setting("store_eager_result") and not task.ignores_result(request):
        _store(task, request, states.SUCCESS, storable(result), None)


def store_error(task: Task, request: Request, state: str, error: BaseException, cause: BaseException | None) -> None:
    """Store FAILURE or RETRY; of an ignored result too, where `store_errors_even_if_ignored` says so.

    Args:
        error: with whose traceback.
        cause: what is stored; for RETRY that which made it necessary.

    Raises:
        TransportError: it could not be handed over.
    """
    ignored = task.ignores_result(request)
    if task.setting("store_errors_even_if_ignored" if ignored else "store_eager_result"):
        _store(task, request, state, None if cause is None else exception_triple(cause), format_traceback(error))


def _store(task: Task, request: Request, state: str, result: Any, traceback: str | None) -> None:
    app = task.app
    extended: dict[str, Any] = {}
    if app.settings.result_extended:
        extended = {
            "name": task.name, "args": request.args, "kwargs": request.kwargs, "worker": request.hostname,
            "retries": request.retries, "queue": None,
        }  # fmt: skip
    document = ResultDocument(
        task_id=str(request.id), status=state, result=result, traceback=traceback,
        children=[child.as_tuple() for child in request.children],
        date_done=app.now_text() if state in states.READY_STATES else None,
        group_id=request.group, parent_id=request.parent_id, extended=extended,
    )  # fmt: skip
    app.results.store(document, reply_to="", correlation_id=document.task_id)
