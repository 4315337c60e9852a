"""Celery's tasks on Lightbus: `from lightbus.compat import task` in place of `from celery import shared_task`.

Names, message format, results and the meaning of options are Celery's, so that a project can move one task at a time
while Celery workers run the others. Signals and remote control are not here yet: what is missing is an AttributeError
or ImportError, not a silent difference.
"""

from . import states
from .app import TaskApp, default_app
from .asyncresult import AsyncResult, EagerResult
from .canvas import Signature, chain, chord, chunks, group, maybe_signature, signature, xmap, xstarmap
from .celeryapp import Celery, current_app
from .decorators import shared_task, task
from .exceptions import (
    ChordError,
    EncodeError,
    Ignore,
    MaxRetriesExceededError,
    NotRegistered,
    Reject,
    RemoteTaskError,
    Retry,
    SoftTimeLimitExceeded,
    TaskError,
    TaskRevokedError,
    TimeLimitExceeded,
    TimeoutError,
    WorkerLostError,
)
from .groupresult import GroupResult, ResultSet, result_from_tuple
from .request import Request, current_task
from .settings import CeleryQueue, Settings
from .task import Task
from .together import together

__all__ = [
    "task", "shared_task", "together", "Task", "Request", "current_task",
    "AsyncResult", "EagerResult", "GroupResult", "ResultSet", "result_from_tuple", "states",
    "Signature", "signature", "maybe_signature", "chain", "group", "chord", "chunks", "xmap", "xstarmap",
    "Celery", "current_app", "TaskApp", "default_app", "Settings", "CeleryQueue",
    "ChordError", "EncodeError", "Ignore", "MaxRetriesExceededError", "NotRegistered", "Reject", "RemoteTaskError",
    "Retry", "SoftTimeLimitExceeded", "TaskError", "TaskRevokedError", "TimeLimitExceeded", "TimeoutError",
    "WorkerLostError",
]  # fmt: skip
