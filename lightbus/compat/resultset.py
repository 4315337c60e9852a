"""The caller's end of several tasks, in any number and order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import states
from .asyncresult import AsyncResult, ResultBase
from .exceptions import RemoteTaskError, TimeoutError
from .joining import refuse_inside_a_task
from .promises import Promise
from .resultlooks import meta_of

if TYPE_CHECKING:
    from .app import TaskApp
    from .resultstore import ResultStore

AnyResult = Any  # AsyncResult, EagerResult or GroupResult: they have the methods used here in common

_MOST_PAUSE_SECONDS = 0.5


class ResultSet(ResultBase):
    """Several results, in the order in which they were given."""

    def __init__(
        self, results: Iterable[AnyResult], app: TaskApp | None = None, ready_barrier: Any = None, **_: Any
    ) -> None:
        self.results: list[AnyResult] = list(results)
        self._app = app
        self._promise: Promise | None = None

    @property
    def app(self) -> TaskApp:
        if self._app is None:
            from .app import default_app  # app imports this module

            self._app = self.results[0].app if self.results else default_app()
        return self._app

    @app.setter
    def app(self, app: TaskApp) -> None:
        self._app = app

    @property
    def backend(self) -> ResultStore:
        return self.app.results

    @property
    def supports_native_join(self) -> bool:
        """See `AsyncResult`."""
        return bool(self.results) and bool(self.results[0].supports_native_join)

    # -- the set -----------------------------------------------------------------------------------------------------

    def add(self, result: AnyResult) -> None:
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: AnyResult) -> None:
        """Remove a result, or the one of an id. Raises KeyError: it is not in the set."""
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: AnyResult) -> None:
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[AnyResult]) -> None:
        for one in results:
            self.add(one)

    def clear(self) -> None:
        self.results.clear()

    # -- what is known -----------------------------------------------------------------------------------------------

    def successful(self) -> bool:
        return all(one.successful() for one in self.results)

    def failed(self) -> bool:
        """Whether any has failed."""
        return any(one.failed() for one in self.results)

    def ready(self) -> bool:
        ready = all(one.ready() for one in self.results)
        if ready and self._promise is not None:
            self._promise(self)
        return ready

    def waiting(self) -> bool:
        """Whether any has not ended yet."""
        return any(not one.ready() for one in self.results)

    def completed_count(self) -> int:
        """How many have succeeded."""
        return sum(one.successful() for one in self.results)

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise the exception of the first of its tasks that has failed; does not wait."""
        for one in self.results:
            one.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    @property
    def on_ready(self) -> Promise:
        if self._promise is None:
            self._promise = Promise()
        return self._promise

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> Promise:
        """Have `callback` called with this set once all are ready: when they are waited for or looked at."""
        return self.on_ready.then(callback, on_error, weak)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> Any:
        """All return values in their order, waiting for each.

        Args:
            timeout: seconds for all together.
            propagate: raise the first exception in their order; False has the exceptions in the list.
            callback: called with the id and the value of each as it comes; the list is then empty, or None where the
                backend announces results, as in Celery.
            on_message, on_interval, interval, no_ack, disable_sync_subtasks: see `AsyncResult.get`.

        Raises as `AsyncResult.get` does.
        """
        values = self.join(
            timeout, propagate, interval, callback, no_ack, on_message, disable_sync_subtasks, on_interval
        )
        return None if callback is not None and self.supports_native_join else values

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """As `get`, one after the other."""
        if disable_sync_subtasks:
            refuse_inside_a_task(str(self))
        deadline = None if timeout is None else time.monotonic() + timeout
        values: list[Any] = []
        for count, one in enumerate(self.results):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left == 0 and not one.ready():
                raise TimeoutError(f"{count} of {len(self.results)} results came within {timeout} s")
            value = one.get(
                timeout=left, propagate=propagate, interval=interval, on_message=on_message, on_interval=on_interval,
                disable_sync_subtasks=disable_sync_subtasks,
            )  # fmt: skip
            if callback is None:
                values.append(value)
            else:
                callback(one.id, value)
        if self._promise is not None:
            self._promise(self)
        return values

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """The ids and states (dicts as they are stored) of all as they come, whichever comes first; of a group in the
        set its results.

        Raises:
            TimeoutError: some did not come in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        left: list[AsyncResult] = []
        for one in self.results:
            if isinstance(one, ResultSet):
                yield getattr(one, "id", ""), one.results
            else:
                left.append(one)
        pause = 0.01
        while left:
            done = [one for one in left if one.ready()]
            left = [one for one in left if one not in done]
            for one in done:
                meta = _meta(one)
                if on_message is not None:
                    on_message(meta)
                yield one.id, meta
            if done or not left:
                continue
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{len(left)} of {len(self.results)} results did not come within {timeout} s")
            if on_interval is not None:
                on_interval()
            wanted = pause if deadline is None else min(pause, deadline - time.monotonic())
            left[0].backend.wait(left[0].id, timeout_seconds=max(0.0, wanted))
            pause = min(2 * pause, max(0.05, interval), _MOST_PAUSE_SECONDS)

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any] | None:
        """As `get`, with the first exception that comes, and `callback` called in the order in which they come."""
        if disable_sync_subtasks:
            refuse_inside_a_task(str(self))
        values: dict[str, Any] = {}
        for task_id, meta in self.iter_native(timeout, interval, no_ack, on_message, on_interval):
            if isinstance(meta, list):
                allowed = {"propagate": propagate, "disable_sync_subtasks": disable_sync_subtasks}
                value: Any = [one.get(**allowed) for one in meta]
            else:
                value = meta["result"]
                if propagate and meta["status"] in states.PROPAGATE_STATES:
                    raise value if isinstance(value, BaseException) else RemoteTaskError(value)
            values[task_id] = value
            if callback is not None:
                callback(task_id, value)
        if self._promise is not None:
            self._promise(self)
        return None if callback is not None else [values[one.id] for one in self.results]

    def iterate(self, timeout: float | None = None, propagate: bool = True) -> Iterator[Any]:
        """The return values as they come, whichever comes first."""
        by_id = {one.id: one for one in self.results}
        for task_id, _ in self.iter_native(timeout):
            yield by_id[task_id].get(propagate=propagate)

    # -- the rest ----------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        for one in self.results:
            one.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run them; see the app's `control.revoke`."""
        self.app.control.revoke(
            [one.id for one in self.results], connection=connection, terminate=terminate, signal=signal, reply=wait,
            timeout=timeout,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AnyResult]:
        return iter(self.results)

    def __getitem__(self, index: int) -> AnyResult:
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        return self.results == other.results if isinstance(other, ResultSet) else NotImplemented

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(one) for one in self.results)}]>"


def _meta(result: AsyncResult) -> dict[str, Any]:
    document = result._document()
    if document is not None:
        return meta_of(document)
    return {"task_id": result.id, "status": result.state, "result": result.result, "traceback": result.traceback}
