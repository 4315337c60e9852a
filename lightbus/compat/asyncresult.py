"""The caller's end of a task: its state, and its result or exception."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import states
from .exceptions import RemoteTaskError, TimeoutError
from .request import current_request
from .results import ResultDocument

if TYPE_CHECKING:
    from .app import TaskApp

_FIRST_WAIT_SECONDS = 0.05
_PARENTS_AFTER_SECONDS = 1.0


class AsyncResult:
    """The result of one task, by its id; also of a task that another process sent, where the backend keeps results.

    Attributes:
        id: the task's id.
        parent: the result of the task before it in a chain, where it is known.
        ignored: no result will come, by the task's own wish.
    """

    def __init__(
        self, id: str, app: TaskApp | None = None, *, ignored: bool = False, parent: Any | None = None
    ) -> None:
        if app is None:
            from .app import default_app  # app imports this module

            app = default_app()
        self.id = id
        self.parent = parent
        self.ignored = ignored
        self._app = app
        self._final: ResultDocument | None = None

    @property
    def task_id(self) -> str:
        return self.id

    @property
    def state(self) -> str:
        """`PENDING` when nothing is known of the id; the other states are in `lightbus.compat.states`."""
        document = self._document()
        return states.PENDING if document is None else document.status

    @property
    def status(self) -> str:
        return self.state

    @property
    def result(self) -> Any:
        """The return value, the exception (not raised) of a failed task, or what the task said in its own state."""
        document = self._document()
        if document is None:
            return None
        return document.exception if document.status in states.EXCEPTION_STATES else document.result

    @property
    def info(self) -> Any:
        return self.result

    @property
    def children(self) -> list[Any] | None:
        """The results of the tasks that it sent; None while nothing is known of it."""
        from .groupresult import result_from_tuple  # it gathers what is defined here

        document = self._document()
        return None if document is None else [result_from_tuple(one, self._app) for one in document.children]

    @property
    def traceback(self) -> str | None:
        document = self._document()
        return None if document is None else document.traceback

    @property
    def date_done(self) -> str | None:
        """ISO 8601 text, in a final state."""
        document = self._document()
        return None if document is None else document.date_done

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        *,
        disable_sync_subtasks: bool = True,
    ) -> Any:
        """Wait for the result.

        Args:
            timeout: seconds; None waits as long as it takes.
            propagate: raise the task's exception; False returns it.
            interval: seconds between two looks at a result whose announcement was missed.

        Raises:
            TimeoutError: there is no result yet.
            RuntimeError: called inside a task, where workers waiting for each other could all stand still.
                `disable_sync_subtasks=False` allows it.
            Exception: the task's own.
        """
        if self.ignored:
            return None
        request = current_request()
        if disable_sync_subtasks and request is not None and not request.is_eager:
            raise RuntimeError(
                f"get() of {self.id!r} inside the task {request.task!r}: tasks that wait for tasks can block every"
                " worker. Chain them, or pass disable_sync_subtasks=False"
            )
        document = self._wait(timeout, interval, watch_parents=propagate)
        if document.status not in states.PROPAGATE_STATES:
            return document.result
        if propagate and self.parent is not None:  # it failed because one before it did: that one's error says more
            self.parent.throw_first()
        error = document.exception
        if propagate:
            raise error if error is not None else RemoteTaskError(document.result)
        return error

    def throw_first(self) -> None:
        """Raise the exception of the first failed task among its parents and itself, if one has failed."""
        if self.parent is not None:
            self.parent.throw_first()
        self.maybe_throw()

    def maybe_throw(self) -> None:
        """Raise the task's exception if it has failed; does not wait."""
        document = self._document()
        if document is not None and document.status in states.PROPAGATE_STATES:
            raise document.exception or RemoteTaskError(document.result)

    def wait(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Any:
        """`get` by its older name."""
        return self.get(timeout, propagate, interval)

    def ready(self) -> bool:
        """Whether the task has ended, well or not."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    def forget(self) -> None:
        """Remove the result where it is kept."""
        self._final = None
        self._app.results.forget(self.id)

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """Its form in JSON, in which a parent's `children` name it."""
        return (self.id, None if self.parent is None else self.parent.as_tuple()), None

    def _document(self) -> ResultDocument | None:
        if self._final is not None:
            return self._final
        return self._keep(self._app.results.fetch(self.id))

    def _wait(self, timeout: float | None, interval: float, *, watch_parents: bool) -> ResultDocument:
        started = time.monotonic()
        deadline = None if timeout is None else started + timeout
        self._document()
        # A result stored between the look and the wait is not announced to the wait: look again, soon at first.
        pause = _FIRST_WAIT_SECONDS
        while self._final is None:
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"task {self.id!r} has no result after {timeout} s; its state is {self.state}")
            self._keep(self._app.results.wait(self.id, timeout_seconds=min(left, pause)))
            pause = min(2 * pause, max(interval, _FIRST_WAIT_SECONDS))
            if watch_parents and self.parent is not None and time.monotonic() - started > _PARENTS_AFTER_SECONDS:
                self.parent.throw_first()  # some failures never reach the end of a canvas that Celery runs
        return self._final

    def _keep(self, document: ResultDocument | None) -> ResultDocument | None:
        if document is not None and document.status in states.READY_STATES:
            self._final = document
        return document

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> bool:
        return other.id == self.id if isinstance(other, AsyncResult | EagerResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


class EagerResult:
    """The result of a task that ran in the caller."""

    ignored = False

    def __init__(self, id: str, result: Any, state: str, traceback: str | None = None) -> None:
        self.id = id
        self.parent: Any | None = None
        self.result = result
        self.state = state
        self.traceback = traceback

    @property
    def task_id(self) -> str:
        return self.id

    @property
    def status(self) -> str:
        return self.state

    @property
    def info(self) -> Any:
        return self.result

    def get(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5, **_: Any) -> Any:
        """The return value; raises the task's exception unless `propagate` is False, which returns it."""
        if self.state in states.PROPAGATE_STATES and propagate:
            raise self.result if isinstance(self.result, BaseException) else RemoteTaskError(self.result)
        return self.result if self.state in states.PROPAGATE_STATES or self.successful() else None

    def wait(self, timeout: float | None = None, propagate: bool = True) -> Any:
        return self.get(timeout, propagate)

    def throw_first(self) -> None:
        """As of an `AsyncResult`."""
        if self.parent is not None:
            self.parent.throw_first()
        self.maybe_throw()

    def maybe_throw(self) -> None:
        """As of an `AsyncResult`."""
        self.get()

    def ready(self) -> bool:
        return True

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    def forget(self) -> None:
        """Nothing is kept anywhere."""

    def as_tuple(self) -> tuple[tuple[str, None], None]:
        return (self.id, None), None

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"
