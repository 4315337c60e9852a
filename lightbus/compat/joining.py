"""Whether one may wait for a result here. Inside a task one may not: workers that wait for each other stand still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .request import current_request

_allowed: ContextVar[bool | None] = ContextVar("lightbus_join_allowed", default=None)


def refuse_inside_a_task(what: str) -> None:
    """Raise RuntimeError inside a task that runs in a worker, unless `allow_join_result()` surrounds the call."""
    allowed = _allowed.get()
    if allowed:
        return
    request = current_request()
    if allowed is False or (request is not None and not request.is_eager):
        where = "here" if request is None else f"inside the task {request.task!r}"
        raise RuntimeError(
            f"get() of {what!r} {where}: tasks that wait for tasks can block every worker. Chain them, or pass "
            "disable_sync_subtasks=False"
        )


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Within the block a task may wait for results, at its own risk."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Within the block nobody may, also outside of tasks."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)
