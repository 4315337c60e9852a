"""The `celery.*` tasks that a message may name: parts of a canvas that run as tasks of their own.

They belong to every app but are not among its tasks: nobody moved them, and a route or the bridge must not take them
for tasks that Lightbus serves in Celery's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..chordpauses import Pauses
from ..groupresult import GroupResult, result_from_tuple
from .compose import Chord, Chunks, signature

if TYPE_CHECKING:
    from ..app import TaskApp
    from ..task import Task


#: The one that Lightbus sends of itself, when a task is replaced by a group: any worker of either side runs it.
ACCUMULATE = "celery.accumulate"
#: Looks whether the header of a chord has ended; sent for chords whose results are kept where nobody can count.
UNLOCK = "celery.chord_unlock"

#: Options of those that are no plain functions.
#: Nobody else looks at a chord whose `chord_unlock` is lost with its process, so it is acknowledged late.
OPTIONS: Mapping[str, Mapping[str, Any]] = {UNLOCK: {"max_retries": None, "ignore_result": True, "acks_late": True}}


def functions(app: TaskApp) -> Mapping[str, Callable[..., Any]]:
    """The functions of these tasks, by their names."""

    def accumulate(*args: Any, index: int | None = None) -> Any:
        """What a group gave, all or one of it: the end of a task that was replaced by a group."""
        return args if index is None else args[index]

    def xmap(task: Mapping[str, Any], it: Sequence[Any]) -> list[Any]:
        called = signature(task, app=app).type
        return [called(one) for one in it]

    def xstarmap(task: Mapping[str, Any], it: Sequence[Any]) -> list[Any]:
        called = signature(task, app=app).type
        return [called(*one) for one in it]

    def chunks(task: Mapping[str, Any], it: Sequence[Any], n: int) -> Any:
        return Chunks(task, it, n, app=app)()

    def chord(header: Any, body: Any, partial_args: Sequence[Any] = (), **options: Any) -> Any:
        """As workers before Celery 3.1 were asked to send one."""
        return Chord(header, body, app=app).apply_async(partial_args, **options)

    def backend_cleanup() -> None:
        """Results in tables and files stay until somebody removes the old ones; elsewhere there is nothing to do."""
        app.results.remove_expired()

    def chord_unlock(
        self: Task, group_id: str, callback: Any, interval: float | None = None, max_retries: int | None = None,
        result: Sequence[Any] = (), **_: Any,
    ) -> None:  # fmt: skip
        header = GroupResult(group_id, [result_from_tuple(one, app) for one in result], app=app)
        pauses = Pauses(interval_seconds=interval, max_retries=max_retries)
        app.chords.unlock(self, header, signature(callback, app=app), pauses)

    return {
        ACCUMULATE: accumulate,
        "celery.map": xmap,
        "celery.starmap": xstarmap,
        "celery.chunks": chunks,
        "celery.chord": chord,
        "celery.backend_cleanup": backend_cleanup,
        UNLOCK: chord_unlock,
    }
