"""redis-py's errors become ours here, once; everything inside knows only ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import kombu.exceptions
from redis import exceptions as redis

from ...core.errors import AccessRefused, BrokerUnreachable, ConnectionLost, NotConfirmed, TransportError

_REFUSED = ("NOAUTH", "WRONGPASS", "NOPERM", "invalid username-password", "without any password configured")


@contextmanager
def connecting(where: str) -> Iterator[None]:
    """Errors of a first connection to `where` (a URL without its password)."""
    try:
        yield
    except (redis.RedisError, kombu.exceptions.OperationalError, OSError) as error:
        raise _refused(error, where) or BrokerUnreachable(
            f"no connection to {where}: {error}; is the server running, is the address right?"
        ) from error


@contextmanager
def talking(where: str) -> Iterator[None]:
    """Errors on a connection that stood."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, OSError) as error:
        # A read-only server is a former master: opening the connection anew finds the new one.
        raise _refused(error, where) or ConnectionLost(f"the connection to {where} broke: {error}") from error
    except redis.RedisError as error:
        raise _refused(error, where) or NotConfirmed(f"{where} refused a command: {error}") from error


def _refused(error: Exception, where: str) -> TransportError | None:
    text = str(error)
    if isinstance(error, (redis.AuthenticationError, redis.NoPermissionError)) or any(x in text for x in _REFUSED):
        return AccessRefused(f"{where} refused the user, the password or a command: {text}")
    return None
