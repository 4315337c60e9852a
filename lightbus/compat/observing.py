"""Who is told what becomes of a task's message in a worker: the signals, and the events for monitors.

One seam for both, called by the endpoint at one place each. An observer must not raise; what it takes is added to the
way of every message, so it looks first whether somebody listens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..ports import Delivery
    from .exceptions import Retry
    from .recording import Run


class Observer(Protocol):
    """Called on the thread that handles the message, and where nothing else is said outside of the run's context."""

    def received(self, run: Run) -> None:
        """The message is to be run now. One that waits for its time is told of when that has come."""

    def started(self, run: Run) -> None:
        """The function is about to be called. On the handler's thread, in the run's context."""

    def succeeded(self, run: Run, result: Any) -> None:
        """It returned, what follows is sent, the result is stored and `on_success` was called."""

    def retried(self, run: Run, again: Retry) -> None:
        """Its next try was sent, RETRY is stored and `on_retry` was called."""

    def failed(self, run: Run, error: BaseException) -> None:
        """It failed, or will never run; FAILURE is stored, errbacks are sent and `on_failure` was called."""

    def ended(self, run: Run) -> None:
        """The call has ended, with `run.state` and `run.value`. On the handler's thread, as `started`."""

    def rejected(self, run: Run, *, requeue: bool) -> None:
        """The message is not acknowledged: it is parked, or goes back to its queue."""

    def revoked(self, run: Run, *, terminated: bool, signum: int | None, expired: bool) -> None:
        """It is not run, or not any longer, because somebody revoked it or it came too late; REVOKED is stored."""

    def unknown(self, run: Run) -> None:
        """Nobody here knows the task, and nobody else is asked; FAILURE is stored."""

    def unreadable(self, delivery: Delivery, error: BaseException) -> None:
        """The message is no task message, or a broken one."""

    def broken(self, run: Run, error: BaseException) -> None:
        """The end of the run could not be worked out: a defect outside of the task."""


class Observers:
    """Tells all of them, in their order; see `Observer`."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._all = tuple(observers)

    def received(self, run: Run) -> None:
        for one in self._all:
            one.received(run)

    def started(self, run: Run) -> None:
        for one in self._all:
            one.started(run)

    def succeeded(self, run: Run, result: Any) -> None:
        for one in self._all:
            one.succeeded(run, result)

    def retried(self, run: Run, again: Retry) -> None:
        for one in self._all:
            one.retried(run, again)

    def failed(self, run: Run, error: BaseException) -> None:
        for one in self._all:
            one.failed(run, error)

    def ended(self, run: Run) -> None:
        for one in self._all:
            one.ended(run)

    def rejected(self, run: Run, *, requeue: bool) -> None:
        for one in self._all:
            one.rejected(run, requeue=requeue)

    def revoked(self, run: Run, *, terminated: bool, signum: int | None, expired: bool) -> None:
        for one in self._all:
            one.revoked(run, terminated=terminated, signum=signum, expired=expired)

    def unknown(self, run: Run) -> None:
        for one in self._all:
            one.unknown(run)

    def unreadable(self, delivery: Delivery, error: BaseException) -> None:
        for one in self._all:
            one.unreadable(delivery, error)

    def broken(self, run: Run, error: BaseException) -> None:
        for one in self._all:
            one.broken(run, error)
