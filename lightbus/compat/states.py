"""The states of a task, by Celery's names. A task may write states of its own; those are never final."""

from __future__ import annotations

PENDING = "PENDING"  #: nothing is known: it waits, or its id is wrong
RECEIVED = "RECEIVED"
STARTED = "STARTED"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
REJECTED = "REJECTED"
RETRY = "RETRY"
IGNORED = "IGNORED"

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})  #: the result is an exception
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})  #: `get()` raises it
ALL_STATES = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})
