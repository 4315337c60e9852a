"""What a task raises to steer its worker, and what reading a result raises. Names and arguments are Celery's.

    LightbusError
    |- TaskPredicate            raised by a task to say what shall become of it
    |  |- Retry                    it was sent again
    |  |- Ignore                   write no state
    |  `- Reject                   park it, or hand it back
    |- TaskError
    |  |- MaxRetriesExceededError  no tries left
    |  |- TaskRevokedError         it was revoked or had expired, and did not run
    |  |- NotRegistered            the worker does not know its name
    |  |- EncodeError              its result cannot be written down
    |  |- ChordError               a task of its chord's header has failed, so the body did not run
    |  |- IncompleteStream         a task has not ended yet, and its children are not known
    |  |- WorkerLostError          its process ended under it
    |  |- SoftTimeLimitExceeded    raised in it at its soft time limit
    |  |- TimeLimitExceeded        its process was ended because it ran for too long
    |  `- TimeoutError             `get()` waited long enough
    |- ChordsRefused            the result backend cannot count the tasks of a chord (a ConfigError)
    `- RemoteTaskError          a failed task's exception whose class is not rebuilt on this side

On the wire each has the module path of its Celery twin, so that a Celery reader gets the class it knows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from ..core import errors
from ..core.errors import ConfigError, LightbusError

if TYPE_CHECKING:
    from .canvas import Signature


class TaskPredicate(LightbusError):
    """Raised by a task to tell its worker what shall become of it."""


class Retry(TaskPredicate):
    """The task was sent again.

    Attributes:
        exc: the error that made it necessary, if there was one.
        excs: its repr.
        when: seconds from now, or the moment, of the next try.
        sig: what was sent, where the task ran eagerly and the caller has to run it.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | str | None = None,
        is_eager: bool = False,
        sig: Signature | None = None,
    ) -> None:
        self.message = message
        self.exc = None if isinstance(exc, str) else exc
        self.excs = exc if isinstance(exc, str) else repr(exc) if exc else None
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when)

    def humanize(self) -> str:
        return f"in {self.when}s" if isinstance(self.when, (int, float)) else f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"Retry {self.humanize()}: {self.excs}" if self.excs else f"Retry {self.humanize()}"


class Ignore(TaskPredicate):
    """Acknowledge the message and write no state."""


class Replaced(Ignore):
    """The task ended by `replace`, and another goes on under its id."""


class Reject(TaskPredicate):
    """Hand the message back to its queue (`requeue`), or park it as a dead letter."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class TaskError(LightbusError):
    """A task that did not bring its result."""


class MaxRetriesExceededError(TaskError):
    """The task has no tries left. `task_args` and `task_kwargs` are those of the try that was not made."""

    def __init__(self, *args: object, task_args: object = (), task_kwargs: Mapping[str, object] | None = None) -> None:
        self.task_args = task_args
        self.task_kwargs = task_kwargs or {}
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """The task was revoked or had expired, and did not run."""


class NotRegistered(TaskError):
    """The worker that met the task does not know its name."""


class EncodeError(TaskError):
    """A result or an argument cannot be written as JSON, or is too large."""


class ChordError(TaskError):
    """A task of a chord's header has failed, so that its body did not run."""


class QueueNotFound(KeyError, TaskError):
    """A task is to go to a queue that `task_queues` does not have, and `task_create_missing_queues` is off."""

    __str__ = Exception.__str__  # not the repr of a sentence


class IncompleteStream(TaskError):
    """`collect()` met a task that has not ended; `intermediate=True` takes what there is."""


class ChordsRefused(errors.ConfigError, NotImplementedError):
    """The result backend cannot count the tasks of a chord's header. Celery raises NotImplementedError."""


class WorkerLostError(TaskError):
    """The process that ran the task ended under it."""


class TimeLimitExceeded(TaskError):
    """The task ran for longer than its hard time limit, and its process was ended. Its argument is the text."""


class SoftTimeLimitExceeded(errors.SoftTimeLimitExceeded, TaskError):
    """Raised in a task that runs for longer than its soft time limit: its chance to clean up and end."""


class TimeoutError(TaskError):  # the name is Celery's
    """`get()` waited as long as it was told to."""


class RemoteTaskError(LightbusError):
    """A failed task's exception whose class is not rebuilt on this side; `args` are the exception's own.

    Each class name seen becomes a subclass of that name, so that tracebacks and logs read as in the worker.

    Attributes:
        exc_type: qualified name of the class in the worker, for example `"Payment.Refused"`.
        exc_module: the module it was defined in.
    """

    exc_type = ""
    exc_module = ""


#: Where Celery keeps the class of the same name, or of that in `CELERY_NAMES`. The other way round it is the whole list
#: of classes, beside the builtin ones, that a stored result may bring to life.
CELERY_MODULES: Mapping[type[BaseException], str] = MappingProxyType(
    {
        Retry: "celery.exceptions",
        Ignore: "celery.exceptions",
        Reject: "celery.exceptions",
        MaxRetriesExceededError: "celery.exceptions",
        TaskRevokedError: "celery.exceptions",
        NotRegistered: "celery.exceptions",
        TimeoutError: "celery.exceptions",
        ChordError: "celery.exceptions",
        IncompleteStream: "celery.exceptions",
        QueueNotFound: "celery.exceptions",
        EncodeError: "kombu.exceptions",
        ConfigError: "celery.exceptions",
        WorkerLostError: "billiard.exceptions",
        TimeLimitExceeded: "billiard.exceptions",
        SoftTimeLimitExceeded: "billiard.exceptions",
    }
)


def soft_limit_error() -> type[Exception]:
    """What to raise in a task at its soft limit. A task that was written for Celery catches Celery's class, which it
    has then imported: where that is so, the class is both."""
    celerys = getattr(sys.modules.get("billiard.exceptions"), "SoftTimeLimitExceeded", None)
    return SoftTimeLimitExceeded if celerys is None else _both(celerys)


@cache
def _both(celerys: type[Exception]) -> type[Exception]:
    made = type("SoftTimeLimitExceeded", (SoftTimeLimitExceeded, celerys), {"__module__": "billiard.exceptions"})
    return cast("type[Exception]", made)


ImproperlyConfigured = ConfigError  #: Celery's name
CELERY_NAMES: Mapping[type[BaseException], str] = MappingProxyType({ConfigError: "ImproperlyConfigured"})
