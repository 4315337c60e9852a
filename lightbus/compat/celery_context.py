"""Celery's own idea of which task runs, kept right while Celery is loaded in this process.

`celery.current_task`, and the parent and root ids of an unmoved task that a moved one sends, come from a stack of
Celery's that belongs to a thread. Nothing here loads Celery.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .task import Task


def stack() -> Any:
    """Celery's stack of running tasks, or None while Celery is not loaded."""
    state = sys.modules.get("celery._state")
    return getattr(state, "_task_stack", None)


def set_join_will_block() -> None:
    """Let Celery's `result.get()` refuse to wait inside a task, as in the processes of its own workers."""
    set_flag: Callable[[bool], None] | None = getattr(
        sys.modules.get("celery._state"), "_set_task_join_will_block", None
    )
    if set_flag is not None:
        set_flag(True)


@types.coroutine
def within_task(task: Task, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await `coroutine` with `task` on Celery's stack whenever it runs, and not while it waits.

    Coroutines take turns on one thread, and the stack is the thread's.
    """
    tasks = stack()
    if tasks is None:
        return (yield from coroutine.__await__())
    value: Any = None
    thrown: BaseException | None = None
    while True:
        tasks.push(task)
        try:
            waits_for = coroutine.send(value) if thrown is None else coroutine.throw(thrown)
        except StopIteration as end:
            return end.value
        finally:
            tasks.pop()
        value, thrown = None, None
        try:
            value = yield waits_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 - a cancellation, a time limit: the coroutine's to meet
            thrown = error
