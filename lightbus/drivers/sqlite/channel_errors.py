"""The store's errors as those that users of kombu catch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import amqp

from .sessions import SessionLost
from .topology import Locked, Mismatch, NotFound


@contextmanager
def amqp_errors() -> Iterator[None]:
    """Turn the store's errors into those that users of kombu catch."""
    try:
        yield
    except NotFound as error:
        raise amqp.NotFound(f"NOT_FOUND - {error}", (50, 10), "", 404) from error
    except Mismatch as error:
        raise amqp.PreconditionFailed(f"PRECONDITION_FAILED - {error}", (50, 10), "", 406) from error
    except Locked as error:
        raise amqp.ResourceLocked(f"RESOURCE_LOCKED - {error}", (50, 10), "", 405) from error
    except SessionLost as error:
        raise amqp.RecoverableConnectionError(f"CONNECTION_LOST - {error}") from error
