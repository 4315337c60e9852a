"""The end of a run: which effects there are, in which order, and what becomes of the message.

The order is Celery's (celery/app/trace.py): callbacks and the next step of a chain leave before the result is stored;
after a failure the result is stored first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..core import errors
from ..core.errors import HandlerStopped, TransportError
from ..core.message import Route
from ..core.outcome import Ack, DeadLetter, Forward, Outcome, Requeue
from . import hooks, states
from .exceptions import EncodeError, Ignore, Reject, Retry, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from .following import Followers
from .observing import Observers
from .recording import Recorder, Run
from .results import safe_repr
from .together import Sent

if TYPE_CHECKING:
    from .app import TaskApp

logger = logging.getLogger(__name__)


class Endings:
    """Concludes the runs of one endpoint. Thread-safe."""

    def __init__(self, app: TaskApp, recorder: Recorder, observers: Observers) -> None:
        self._app = app
        self._recorder = recorder
        self._followers = Followers(app)
        self._observers = observers

    def succeeded(self, run: Run, result: object) -> Outcome:
        """The function returned `result`: send what follows, store it, and tell who listens."""
        message = run.message
        sent: Sent | None = None
        if message.callbacks or message.chain:
            try:
                sent = self._followers.after_success(run, result)
            except Exception as error:  # noqa: BLE001 - with task_always_eager the callback's own code runs here
                return self._unsent(run, error)
        # While the broker writes what follows to its disk, the result is stored.
        unrecorded = self._record_success(run, result)
        if sent is not None:
            try:
                sent.confirm(self._app.settings.publish_timeout_seconds)
            except TransportError as error:
                return self._unsent(run, error)
        if unrecorded is not None:
            return unrecorded
        if logger.isEnabledFor(logging.DEBUG):  # the worker's own line says the rest
            logger.debug("task %s[%s] succeeded: %s", message.shadow or message.task, message.id, safe_repr(result))
        run.ends(states.SUCCESS, result)
        hooks.succeeded(run, result)
        self._observers.succeeded(run, result)
        hooks.returned(run, states.SUCCESS, result)
        return Ack()

    def _record_success(self, run: Run, result: object) -> Outcome | None:
        """Store SUCCESS; the outcome where that cannot be done."""
        try:
            self._recorder.succeeded(run, result)
        except EncodeError as error:
            return self.failed(run, error)
        except TransportError as error:
            return DeadLetter("result-lost", f"the task succeeded, but its result was not stored: {error}")
        return None

    def ended_by(self, run: Run, error: BaseException) -> Outcome:
        """The function raised `error`, or was ended by it."""
        name, task_id = run.message.shadow or run.message.task, run.message.id
        match error:
            case Retry():
                run.ends(states.RETRY, error)
                self._recorder.retried(run, error.exc, error)
                hooks.retried(run, error.exc or error)
                self._observers.retried(run, error)
                logger.info("task %s[%s] retry: %s", name, task_id, error)
                return Ack("retry")
            case Ignore():
                run.ends(states.IGNORED, error)
                try:
                    self._recorder.ignored(run, error)
                except TransportError as untold:
                    text = f"the task raised {error!r}, and its chord was not told: {untold}"
                    return DeadLetter("result-lost", text)
                return Ack("ignored")
            case Reject(requeue=True):
                run.ends(states.REJECTED, error)
                self._observers.rejected(run, requeue=True)
                logger.warning("task %s[%s] rejected: %s; it goes back to its queue", name, task_id, error.reason)
                return self._again(run)
            case Reject():
                run.ends(states.REJECTED, error)
                logger.warning("task %s[%s] rejected: %s", name, task_id, error.reason)
                return self.park(run, "rejected", str(error.reason), error)
            case SystemExit():
                lost = WorkerLostError(f"Worker exited prematurely: the task called sys.exit({error.code!r})")
                return self.failed(run, lost.with_traceback(error.__traceback__))
            case errors.Terminated():
                run.ends(states.REVOKED, error)
                return self.revoked(run, "terminated", signum=error.signum)
            case errors.WorkerLost() if error.crashes:
                return self.park(run, "worker-lost", str(error), WorkerLostError(str(error)))
            case errors.WorkerLost() | errors.TimeLimitExceeded():
                return self.failed(run, as_celery(error))
            case Exception():
                return self.failed(run, error)
        return self._again(run)  # KeyboardInterrupt, a cancelled coroutine: the worker ends, not the task

    def revoked(self, run: Run, reason: str, *, signum: int | None = None) -> Outcome:
        """The end of a task that must not run, or not go on; told as Celery tells it."""
        message = run.message
        logger.info("task %s[%s] was %s", message.task, message.id, reason)
        try:
            self._recorder.revoked(run, TaskRevokedError(reason))
        except TransportError as error:
            return DeadLetter("result-lost", f"it was {reason}; REVOKED was not stored: {error}")
        self._observers.revoked(run, terminated=reason == "terminated", signum=signum, expired=False)
        return Ack("revoked")

    def failed(self, run: Run, error: BaseException) -> Outcome:
        """The task has failed: store that, send its errbacks, and tell who listens."""
        run.ends(states.FAILURE, error)
        name, task_id = run.message.shadow or run.message.task, run.message.id
        stored = self.record_failure(run, error)
        sent = self.send_errbacks(run, error)
        hooks.failed(run, error)
        self._observers.failed(run, error)
        hooks.returned(run, states.FAILURE, error)
        if isinstance(error, tuple(run.task.throws)):
            logger.info("task %s[%s] raised expected: %r", name, task_id, error)
        else:
            logger.error("task %s[%s] raised unexpected: %r", name, task_id, error, exc_info=error)
        if not stored:
            return DeadLetter("result-lost", f"the task failed with {error!r}, and its failure was not stored")
        if not sent:
            return DeadLetter("unsent-callbacks", f"the task failed with {error!r}, and its errbacks were not sent")
        if not run.task.setting("acks_on_failure") and run.task.setting("acks_late"):
            reason = "time-limit" if isinstance(error, TimeLimitExceeded) else "failed"
            self._observers.rejected(run, requeue=False)
            return DeadLetter(reason, f"{type(error).__name__}: {error}", attempts=run.message.retries + 1)
        return Ack("error")

    def _unsent(self, run: Run, error: BaseException) -> Outcome:
        """The task ran, but what was to follow was not sent: parked, so that a person can send it."""
        logger.error("task %s[%s]: what follows was not sent", run.message.task, run.message.id, exc_info=error)
        run.ends(states.FAILURE, error)
        self.record_failure(run, error)
        self.send_errbacks(run, error)
        self._observers.failed(run, error)
        text = f"the task succeeded, but its callbacks or its next step were not sent: {error}"
        return DeadLetter("unsent-callbacks", text)

    def park(self, run: Run, reason: str, text: str, error: BaseException) -> Outcome:
        """Dead-letter the message, and tell whoever waits for the result."""
        self.record_failure(run, error)
        self._observers.failed(run, error)
        self._observers.rejected(run, requeue=False)
        return DeadLetter(reason, text, attempts=run.message.retries + 1)

    def _again(self, run: Run) -> Outcome:
        if run.task.setting("acks_late"):
            return Requeue()
        return Forward(Route("", run.delivery.queue))  # acknowledged already: only a copy can come back

    def record_failure(self, run: Run, error: BaseException) -> bool:
        """Store FAILURE; whether that could be done."""
        try:
            self._recorder.failed(run, error)
        except TransportError as lost:
            logger.error("task %s[%s]: FAILURE was not stored: %s", run.message.task, run.message.id, lost)
            return False
        return True

    def send_errbacks(self, run: Run, failure: BaseException) -> bool:
        """Whether they could be sent."""
        try:
            self._followers.after_failure(run, failure)
        except Exception as error:
            logger.exception("task %s[%s]: its errbacks were not sent: %s", run.message.task, run.message.id, error)
            return False
        return True


def as_celery(error: HandlerStopped) -> WorkerLostError | TimeLimitExceeded:
    """The class under which a Celery caller knows it."""
    return (TimeLimitExceeded if isinstance(error, errors.TimeLimitExceeded) else WorkerLostError)(str(error))
