"""Writing down what became of a task: which document, whether at all, and in whose hands it is then."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import TransportError
from . import states
from .asyncresult import AsyncResult
from .canvas.compose import signature
from .eagerresult import EagerResult
from .exceptions import EncodeError, Ignore, Replaced
from .groupresult import GroupResult
from .request import entered, request_from
from .results import ResultDocument, exception_triple, format_traceback, safe_repr

if TYPE_CHECKING:
    from ..ports import Delivery
    from .app import TaskApp
    from .protocol import TaskMessage
    from .request import Request
    from .task import Task

logger = logging.getLogger(__name__)

#: Pauses between the tries to hand a final result over. The task has run: a passing loss must not cost its answer.
RETRY_PAUSES_SECONDS: Sequence[float] = (0.1, 0.5, 2.0)


@dataclass(slots=True, eq=False)
class Run:
    """One delivery of a known task, on its way through a worker. An `Entry` of what runs.

    Attributes:
        hostname: of the worker, in results and requests.
        began: `time.monotonic()` of the call of its function; 0.0 before.
        state, value: how it ended: one of `states`, and what the function returned or raised. None before the end.
    """

    task: Task
    message: TaskMessage
    delivery: Delivery
    hostname: str
    began: float = 0.0
    state: str | None = None
    value: Any = None
    _request: Request | None = None

    @property
    def request(self) -> Request:
        """What the task may ask about the message. Made when somebody asks: few tasks do, and it has 40 fields."""
        if self._request is None:
            delivery = self.delivery
            self._request = request_from(
                self.message, queue=delivery.queue, redelivered=delivery.may_repeat, hostname=self.hostname
            )
        return self._request

    @property
    def children(self) -> Sequence[Any]:
        """Results of the tasks that it has sent."""
        return () if self._request is None else self._request.children

    @property
    def ignores_result(self) -> bool:
        return self.task.ignores_result(self.message if self._request is None else self._request)

    def ends(self, state: str, value: Any) -> None:
        """Note how it ended."""
        self.state, self.value = state, value


class Recorder:
    """Stores the states of runs, by the rules of `ignore_result`."""

    def __init__(self, app: TaskApp) -> None:
        self._app = app

    def started(self, run: Run) -> None:
        """Store STARTED where it is asked for, and where a Celery worker may share the backend.

        Celery 5.7 marks a revoked id REVOKED, although it runs elsewhere, as long as no state is stored.
        """
        if run.ignores_result:
            return
        shared = self._app.settings.celery_serves_others and self._app.results.keeps
        if not (shared or run.task.setting("track_started")):
            return
        try:
            meta = {"pid": os.getpid(), "hostname": run.hostname}
            self._store(run, self._document(run, states.STARTED, meta, None))
        except TransportError as error:
            logger.warning("task %s[%s] runs, but STARTED was not stored: %s", run.message.task, run.message.id, error)

    def succeeded(self, run: Run, result: Any) -> None:
        """Store SUCCESS, and count the task for its chord.

        Raises:
            EncodeError: the result cannot be written down.
            TransportError: it could not be handed over.
        """
        ignored = not self._stores(run)
        if ignored and run.message.chord is None:
            return
        document = self._document(run, states.SUCCESS, storable(result), None)
        if not ignored:
            self._store_surely(run, document)
        self._count(run, document)

    def failed(self, run: Run, error: BaseException) -> None:
        """Store FAILURE, also for the steps of the task's chain that now will not run, and count it for its chord.

        Raises:
            TransportError: it could not be handed over.
        """
        document = self._document(run, states.FAILURE, exception_triple(error), format_traceback(error))
        if self._stores_errors(run):
            self._store_surely(run, document)
        self._count(run, document)
        for step in reversed(run.message.chain or ()):
            try:
                self._app.chords.fail(signature(step, app=self._app), error, errbacks=False)
            except (TypeError, ValueError) as wrong:  # nobody can wait for what this is not
                logger.warning("task %s[%s]: a step is no signature: %r", run.message.task, run.message.id, wrong)

    def unread(self, run: Run, error: BaseException) -> None:
        """Count a run whose message cannot be read for the chord that it may be a part of.

        Raises:
            TransportError: the backend could not be told.
        """
        document = self._document(run, states.FAILURE, exception_triple(error), None)
        self._app.chords.unread(document, run.message.group_index)

    def retried(self, run: Run, cause: BaseException | None, error: BaseException) -> None:
        """Store RETRY with what made it necessary. Advisory, as the next try is under way already."""
        if not self._stores_errors(run):
            return
        result = None if cause is None else exception_triple(cause)
        try:
            self._store(run, self._document(run, states.RETRY, result, format_traceback(error)))
        except TransportError as lost:
            logger.warning("task %s[%s]: RETRY was not stored: %s", run.message.task, run.message.id, lost)

    def revoked(self, run: Run, error: BaseException) -> None:
        """Store REVOKED, and count it for its chord.

        Raises:
            TransportError: it could not be handed over.
        """
        document = self._document(run, states.REVOKED, exception_triple(error), None)
        if self._stores_errors(run):
            self._store_surely(run, document)
        self._count(run, document)

    def ignored(self, run: Run, error: Ignore) -> None:
        """No state is stored; but of a chord's task that nobody runs again the chord must hear, or it waits for ever.

        Raises:
            TransportError: it could not be told.
        """
        if run.message.chord is None or isinstance(error, Replaced) or run.request.sent_again:
            return
        document = self._document(run, states.FAILURE, exception_triple(error), None)
        if self._app.chords.reads_results:
            self._store_surely(run, document)
        self._count(run, document)

    def _stores(self, run: Run) -> bool:
        """Whether the result is kept: it is wanted, or the chord that the task is a part of reads it."""
        if not run.ignores_result:
            return True
        return run.message.chord is not None and self._app.chords.reads_results

    def _stores_errors(self, run: Run) -> bool:
        return self._stores(run) or bool(run.task.setting("store_errors_even_if_ignored"))

    def _count(self, run: Run, document: ResultDocument) -> None:
        """Tell the chord that the task is a part of. In the steps before the last one of a chain there is none."""
        if run.message.chord is not None:
            with entered(run):
                self._app.chords.ended(run.message.chord, document, run.message.group_index)

    def _store_surely(self, run: Run, document: ResultDocument) -> None:
        for pause in (*RETRY_PAUSES_SECONDS, None):
            try:
                self._store(run, document)
                return
            except TransportError:
                if pause is None:
                    raise
                time.sleep(pause)

    def _document(self, run: Run, status: str, result: Any, traceback: str | None) -> ResultDocument:
        message = run.message
        return ResultDocument(
            task_id=message.id,
            status=status,
            result=result,
            traceback=traceback,
            children=[child.as_tuple() for child in run.children],
            date_done=self._app.now_text() if status in states.READY_STATES else None,
            group_id=message.group,
            parent_id=message.parent_id,
            extended=self._extended(run) if self._app.settings.result_extended else {},
        )

    def _store(self, run: Run, document: ResultDocument) -> None:
        reply_to, correlation_id = run.message.reply_to, run.message.correlation_id or run.message.id
        try:
            self._app.results.store(document, reply_to=reply_to, correlation_id=correlation_id)
        except EncodeError:
            if document.status == states.SUCCESS:
                raise  # the caller must hear that there is no result
            self._app.results.store(_reduced(document), reply_to=reply_to, correlation_id=correlation_id)

    def _extended(self, run: Run) -> dict[str, Any]:
        message = run.message
        fields = {
            "name": message.task,
            "args": list(message.args),
            "kwargs": message.kwargs,
            "worker": run.hostname,
            "retries": message.retries,
            "queue": run.delivery.queue,
        }
        if self._app.settings.result_backend == "django-db" and "periodic_task_name" in message.headers:
            fields["periodic_task_name"] = message.headers["periodic_task_name"]  # its tables have a column for it
        if message.stamps:
            names = message.stamped_headers or ()
            fields["stamped_headers"] = list(names) if message.stamped_headers is not None else None
            fields |= {key: value for key, value in message.stamps.items() if key in names}
        return fields


def storable(result: Any) -> Any:
    """A task may return the result of a task that it has sent: what is kept is which one that is, as in Celery."""
    celerys = sys.modules.get("celery.result")  # an adopted task sends by Celery's own code
    if isinstance(result, (AsyncResult, GroupResult, EagerResult)) or (
        celerys is not None and isinstance(result, celerys.ResultBase)
    ):
        return result.as_tuple()
    return result


def _reduced(document: ResultDocument) -> ResultDocument:
    """What is left of a document that is too large: the state, and of an exception its class and a line of text."""
    result = document.result
    if isinstance(result, dict) and "exc_message" in result:
        result = {**result, "exc_message": [safe_repr(result["exc_message"], 300)]}
    return replace(document, result=result, traceback=None, children=(), extended={})
