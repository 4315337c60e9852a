"""The events of a task's message in a worker: names and fields are those of Celery's worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..exceptions import Retry
from ..results import format_traceback, safe_repr

if TYPE_CHECKING:
    from ...ports import Delivery
    from ..app import TaskApp
    from ..node import Node
    from ..recording import Run


class EventObserver:
    """See `observing.Observer`. One look at the switch per call while nobody wants events."""

    def __init__(self, app: TaskApp, node: Node) -> None:
        self._node = node
        self._events = app.task_events
        self._switch = app.task_events.switch

    def received(self, run: Run) -> None:
        if self._switch.on:
            message = run.message
            self._send(
                run, "task-received", name=message.shadow or message.task, args=message.argsrepr,
                kwargs=message.kwargsrepr, root_id=message.root_id, parent_id=message.parent_id,
                retries=message.retries, eta=message.eta, expires=message.expires,
            )  # fmt: skip

    def started(self, run: Run) -> None:
        if self._switch.on:
            self._send(run, "task-started")

    def succeeded(self, run: Run, result: Any) -> None:
        if self._switch.on:
            text = safe_repr(result, run.task.resultrepr_maxsize)
            self._send(run, "task-succeeded", result=text, runtime=time.monotonic() - run.began)

    def retried(self, run: Run, again: Retry) -> None:
        if self._switch.on:
            self._send(run, "task-retried", exception=safe_repr(again.exc), traceback=format_traceback(again))

    def failed(self, run: Run, error: BaseException) -> None:
        if self._switch.on:
            self._send(run, "task-failed", exception=safe_repr(error), traceback=format_traceback(error))

    def ended(self, run: Run) -> None:
        pass

    def rejected(self, run: Run, *, requeue: bool) -> None:
        if self._switch.on:
            self._send(run, "task-rejected", requeue=requeue)

    def revoked(self, run: Run, *, terminated: bool, signum: int | None, expired: bool) -> None:
        if self._switch.on:
            self._send(run, "task-revoked", terminated=terminated, signum=signum, expired=expired)

    def unknown(self, run: Run) -> None:
        if self._switch.on:
            self._send(run, "task-failed", exception=f"NotRegistered({run.message.task!r})")

    def unreadable(self, delivery: Delivery, error: BaseException) -> None:
        pass

    def broken(self, run: Run, error: BaseException) -> None:
        pass

    def _send(self, run: Run, kind: str, **fields: Any) -> None:
        if run.task.send_events:
            self._events.send(
                kind, hostname=self._node.hostname, pid=self._node.pid, alone=False, uuid=run.message.id, **fields
            )  # fmt: skip
