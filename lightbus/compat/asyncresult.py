"""The caller's end of a task: its state, and its result or exception."""

from __future__ import annotations

import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import states
from .exceptions import IncompleteStream, RemoteTaskError, TimeoutError
from .graph import DependencyGraph
from .joining import refuse_inside_a_task
from .promises import Promise
from .resultlooks import Looks
from .results import ResultDocument

if TYPE_CHECKING:
    from .app import TaskApp
    from .resultstore import ResultStore

_FIRST_WAIT_SECONDS = 0.05
_PARENTS_AFTER_SECONDS = 1.0

TimeoutError_ = TimeoutError  # in the class below the name is its attribute


class ResultBase:
    """What results of one task and of several have in common."""

    parent: Any | None = None


class AsyncResult(ResultBase):
    """The result of one task, by its id; also of a task that another process sent, where the backend keeps results.

    Args:
        backend: keeps it, in place of the app's.
        task_name: not used; Celery has it there.

    Attributes:
        id: the task's id.
        parent: the result of the task before it in a chain, where it is known.
        ignored: no result will come, by the task's own wish.
    """

    TimeoutError = TimeoutError

    def __init__(
        self,
        id: str,
        backend: ResultStore | None = None,
        task_name: str | None = None,
        app: TaskApp | None = None,
        parent: Any | None = None,
        *,
        ignored: bool = False,
    ) -> None:
        if id is None:
            raise ValueError("AsyncResult requires valid id, not None")
        if app is None:
            from .app import default_app  # app imports this module

            app = default_app()
        self.id = id
        self.app = app
        self.parent = parent
        self.ignored = ignored
        self._backend = backend
        self._final: ResultDocument | None = None
        self._promise: Promise | None = None

    @property
    def task_id(self) -> str:
        return self.id

    @task_id.setter
    def task_id(self, value: str) -> None:
        self.id = value

    @property
    def backend(self) -> ResultStore:
        """Where it is kept. It has Lightbus's methods, not those of Celery's backends."""
        return self._backend or self.app.results

    # -- what is known -----------------------------------------------------------------------------------------------

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
        return None if document is None else [result_from_tuple(one, self.app) for one in document.children]

    @property
    def traceback(self) -> str | None:
        document = self._document()
        return None if document is None else document.traceback

    @property
    def date_done(self) -> datetime | None:
        """When it came to its final state."""
        document = self._document()
        text = None if document is None else document.date_done
        if text is None:
            return None
        return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)

    @property
    def name(self) -> str | None:
        """The task's name; this and the next five are known with the setting `result_extended`."""
        found: str | None = self._extended("name")
        return found

    @property
    def args(self) -> Any:
        return self._extended("args")

    @property
    def kwargs(self) -> Any:
        return self._extended("kwargs")

    @property
    def worker(self) -> str | None:
        found: str | None = self._extended("worker")
        return found

    @property
    def retries(self) -> int | None:
        found: int | None = self._extended("retries")
        return found

    @property
    def queue(self) -> str | None:
        found: str | None = self._extended("queue")
        return found

    def ready(self) -> bool:
        """Whether the task has ended, well or not."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether anything is stored of it: PENDING is also what an unknown or expired id reads as."""
        return self._final is not None or self.backend.fetch(self.id) is not None

    # -- waiting -----------------------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: frozenset[str] = states.EXCEPTION_STATES,
        PROPAGATE_STATES: frozenset[str] = states.PROPAGATE_STATES,
    ) -> Any:
        """Wait for the result.

        Args:
            timeout: seconds; None waits as long as it takes.
            propagate: raise the task's exception; False returns it.
            interval: seconds between two looks at a result whose announcement was missed.
            no_ack: without a meaning here.
            follow_parents: raise the exception of a task before it in a chain, if one has failed.
            callback: called with the id and the result.
            on_message: called with each state that was stored meanwhile, a dict as it is stored.
            on_interval: called, without arguments, between two looks.
            disable_sync_subtasks: refuse inside a task.

        Raises:
            TimeoutError: there is no result yet.
            RuntimeError: called inside a task, where workers waiting for each other could all stand still.
                `disable_sync_subtasks=False` allows it, and so does `allow_join_result()`.
            Exception: the task's own.
        """
        if self.ignored:
            return None
        if disable_sync_subtasks:
            refuse_inside_a_task(self.id)
        looks = Looks(on_message, on_interval)
        document = self._wait(timeout, interval, watch_parents=propagate and follow_parents, looks=looks)
        value: Any = document.result
        if document.status in PROPAGATE_STATES:
            if propagate and follow_parents and self.parent is not None:
                self.parent.throw_first()  # it failed because one before it did: that one's error says more
            value = document.exception or RemoteTaskError(document.result)
            if propagate:
                raise value
        if callback is not None:
            callback(self.id, value)
        return value

    wait = get

    def throw_first(self) -> None:
        """Raise the exception of the first failed task among its parents and itself, if one has failed."""
        if self.parent is not None:
            self.parent.throw_first()
        self.maybe_throw()

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the task's exception if it has failed; does not wait. Returns what is known of the result."""
        value = self.result
        if propagate and self.state in states.PROPAGATE_STATES:
            raise value if isinstance(value, BaseException) else RemoteTaskError(value)
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def throw(self, error: BaseException, *_: Any) -> None:
        """Tell those who gave `then` an `on_error`, and raise it."""
        self.on_ready.fail(error)
        raise error

    @property
    def on_ready(self) -> Promise:
        if self._promise is None:
            self._promise = Promise()
        return self._promise

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> Promise:
        """Have `callback` called with this object once it is ready: when it is waited for or looked at. A task that
        has failed is ready too."""
        promise = self.on_ready.then(callback, on_error, weak)
        if self._final is not None:
            promise(self)
        return promise

    # -- the tasks that it sent --------------------------------------------------------------------------------------

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Itself and all that hangs on it, as pairs of parent (None for itself) and result, level by level.

        Args:
            intermediate: pass over the children of what has not ended.

        Raises:
            IncompleteStream: one has not ended.
        """
        stack: deque[tuple[Any, Any]] = deque([(None, self)])
        while stack:
            parent, node = stack.popleft()
            yield parent, node
            if node.ready():
                stack.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream(f"task {node.id!r} has not ended, so its children are not known")

    def collect(self, intermediate: bool = False, **options: Any) -> Iterator[tuple[Any, Any]]:
        """The results of `iterdeps` with their values, waiting for each; `options` are those of `get`."""
        for _, one in self.iterdeps(intermediate=intermediate):
            yield one, one.get(**options)

    def get_leaf(self) -> Any:
        """The value of the last of `iterdeps`."""
        value = None
        for _, one in self.iterdeps():
            value = one.get()
        return value

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """What `iterdeps` walks, as a graph."""
        graph = DependencyGraph()
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        return self.build_graph()

    # -- the rest ----------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Remove the result, and those of the tasks before it in a chain, where they are kept."""
        self._final = None
        if self.parent is not None:
            self.parent.forget()
        self.backend.forget(self.id)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run it; see the app's `control.revoke`."""
        self.app.control.revoke(
            self.id, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run tasks with these stamps; see the app's `control`."""
        self.app.control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    @property
    def supports_native_join(self) -> bool:
        """Whether the backend announces results, so that nobody has to ask for each again and again."""
        return self.backend.announces

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """Its form in JSON, in which a parent's `children` name it."""
        return (self.id, None if self.parent is None else self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """The ids of it and the tasks before it in a chain."""
        return [self.id, *([] if self.parent is None else self.parent.as_list())]

    def _extended(self, name: str) -> Any:
        document = self._document()
        return None if document is None else document.extended.get(name)

    def _document(self) -> ResultDocument | None:
        if self._final is not None:
            return self._final
        return self._keep(self.backend.fetch(self.id))

    def _wait(self, timeout: float | None, interval: float, *, watch_parents: bool, looks: Looks) -> ResultDocument:
        started = time.monotonic()
        deadline = None if timeout is None else started + timeout
        looks.at(self._document())
        # A result stored between the look and the wait is not announced to the wait: look again, soon at first.
        pause = _FIRST_WAIT_SECONDS
        while self._final is None:
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError_(f"task {self.id!r} has no result after {timeout} s; its state is {self.state}")
            looks.at(self._keep(self.backend.wait(self.id, timeout_seconds=min(left, pause))))
            looks.between()
            pause = min(2 * pause, max(interval, _FIRST_WAIT_SECONDS))
            if watch_parents and self.parent is not None and time.monotonic() - started > _PARENTS_AFTER_SECONDS:
                self.parent.throw_first()  # some failures never reach the end of a canvas that Celery runs
        return self._final

    def _keep(self, document: ResultDocument | None) -> ResultDocument | None:
        if document is not None and document.status in states.READY_STATES:
            self._final = document
            if self._promise is not None:
                self._promise(self)
        return document

    __class_getitem__ = classmethod(types.GenericAlias)  # type: ignore[var-annotated]

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return other.id == self.id
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __copy__(self) -> AsyncResult:
        return type(self)(self.id, self._backend, None, self.app, self.parent, ignored=self.ignored)

    def __reduce__(self) -> Any:
        return type(self), (self.id, None, None, None, self.parent)
