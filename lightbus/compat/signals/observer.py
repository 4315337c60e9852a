"""The signals of a task's message in a worker, in the places where Celery's worker sends them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .. import states
from ..exceptions import NotRegistered, Retry
from ..hooks import einfo_of
from ..request import Request, running
from . import (
    task_failure,
    task_internal_error,
    task_postrun,
    task_prerun,
    task_received,
    task_rejected,
    task_retry,
    task_revoked,
    task_success,
    task_unknown,
)
from .views import ReceivedMessage, ReceivedRequest

if TYPE_CHECKING:
    from ...ports import Delivery
    from ..node import Node
    from ..recording import Run
    from ..task import Task


class SignalObserver:
    """See `observing.Observer`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def received(self, run: Run) -> None:
        if task_received.receivers:
            task_received.send(self._node, request=ReceivedRequest(run))

    def started(self, run: Run) -> None:
        if task_prerun.receivers:
            send_prerun(run.task, run.request)

    def succeeded(self, run: Run, result: Any) -> None:
        if task_success.receivers:
            send_success(run.task, run.request, result, time.monotonic() - run.began)

    def retried(self, run: Run, again: Retry) -> None:
        if task_retry.receivers:
            send_retry(run.task, run.request, again)

    def failed(self, run: Run, error: BaseException) -> None:
        if task_failure.receivers:
            send_failure(run.task, run.request, error)

    def ended(self, run: Run) -> None:
        if task_postrun.receivers:
            send_postrun(run.task, run.request, run.state, run.value)

    def rejected(self, run: Run, *, requeue: bool) -> None:
        pass  # Celery's `task_rejected` is for messages that cannot be read

    def revoked(self, run: Run, *, terminated: bool, signum: int | None, expired: bool) -> None:
        if task_revoked.receivers:
            with run.task.told_as() as sender:  # not in the run's context: there is no run
                task_revoked.send(
                    sender, request=run.request, terminated=terminated, signum=signum, expired=expired
                )  # fmt: skip

    def unknown(self, run: Run) -> None:
        if task_unknown.receivers:
            name, message = run.message.task, ReceivedMessage(run.delivery)
            task_unknown.send(self._node, message=message, exc=NotRegistered(name), name=name, id=run.message.id)

    def unreadable(self, delivery: Delivery, error: BaseException) -> None:
        if task_rejected.receivers:
            task_rejected.send(self._node, message=ReceivedMessage(delivery), exc=error)

    def broken(self, run: Run, error: BaseException) -> None:
        if task_internal_error.receivers:
            request = run.request
            with running(run.task, request), run.task.told_as() as sender:
                task_internal_error.send(
                    sender, task_id=request.id, args=request.args, kwargs=request.kwargs, request=request,
                    exception=error, traceback=error.__traceback__, einfo=einfo_of(error),
                )  # fmt: skip


def send_prerun(task: Task, request: Request) -> None:
    """Within the run's context."""
    with task.told_as() as sender:
        task_prerun.send(sender, task_id=request.id, task=sender, args=request.args, kwargs=request.kwargs)


def send_success(task: Task, request: Request, result: Any, seconds: float) -> None:
    with running(task, request), task.told_as() as sender:
        task_success.send(sender, result=result, runtime=seconds)


def send_retry(task: Task, request: Request, again: Retry) -> None:
    with running(task, request), task.told_as() as sender:
        task_retry.send(sender, request=request, reason=again, einfo=einfo_of(again))


def send_failure(task: Task, request: Request, error: BaseException) -> None:
    with running(task, request), task.told_as() as sender:
        task_failure.send(
            sender, task_id=request.id, exception=error, args=request.args, kwargs=request.kwargs,
            traceback=error.__traceback__, einfo=einfo_of(error),
        )  # fmt: skip


def send_postrun(task: Task, request: Request, state: str | None, value: Any) -> None:
    with running(task, request), task.told_as() as sender:
        task_postrun.send(
            sender, task_id=request.id, task=sender, args=request.args, kwargs=request.kwargs,
            retval=value, state=state or states.FAILURE,
        )  # fmt: skip
