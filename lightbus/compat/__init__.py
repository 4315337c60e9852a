"""Celery's tasks on Lightbus: `from lightbus.compat import task` in place of `from celery import shared_task`.

Names, message format, results and the meaning of options are Celery's, so that a project can move one task at a time
while Celery workers run the others. Remote control is not here yet: what is missing is an AttributeError or
ImportError, not a silent difference.
"""

from . import states
from .app import TaskApp, default_app
from .asyncresult import AsyncResult
from .canvas import Signature, chain, chord, chunks, group, maybe_signature, signature, xmap, xstarmap
from .celeryapp import Celery, current_app
from .decorators import shared_task, task
from .eagerresult import EagerResult
from .exceptions import (
    ChordError,
    ChordsRefused,
    EncodeError,
    Ignore,
    IncompleteStream,
    MaxRetriesExceededError,
    NotRegistered,
    QueueNotFound,
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
from .groupresult import GroupResult, result_from_tuple
from .joining import allow_join_result
from .request import Request, current_task
from .resultset import ResultSet
from .settings import CeleryQueue, Settings
from .task import Task
from .together import together

__all__ = [
    "task", "shared_task", "together", "Task", "Request", "current_task",
    "AsyncResult", "EagerResult", "GroupResult", "ResultSet", "result_from_tuple", "allow_join_result", "states",
    "Signature", "signature", "maybe_signature", "chain", "group", "chord", "chunks", "xmap", "xstarmap",
    "Celery", "current_app", "TaskApp", "default_app", "Settings", "CeleryQueue",
    "ChordError", "ChordsRefused", "EncodeError", "Ignore", "IncompleteStream", "MaxRetriesExceededError",
    "NotRegistered", "QueueNotFound", "Reject", "RemoteTaskError", "Retry", "SoftTimeLimitExceeded", "TaskError",
    "TaskRevokedError", "TimeLimitExceeded", "TimeoutError", "WorkerLostError",
]  # fmt: skip
