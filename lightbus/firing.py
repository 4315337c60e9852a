"""What `fire` may be told beside the event: when it shall arrive, until when it is of use, and how urgent it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from .core.codec import EXPIRES
from .core.errors import BadArguments, ConfigError
from .core.message import Wire
from .core.times import iso_utc
from .ports import Capabilities

HIGHEST_PRIORITY = 9


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one event.

    Attributes:
        delay_seconds: it arrives that much later.
        expires_seconds: from then on it is of use for so long; None for ever.
        expires_at: the end of that in Unix seconds.
        priority: 9 goes before 0, in queues that have an order of priorities.
    """

    delay_seconds: float = 0.0
    expires_seconds: float | None = None
    expires_at: float | None = None
    priority: int | None = None

    def put_on(self, wire: Wire) -> Wire:
        """The message of an event under these terms."""
        if self.expires_at is not None:
            wire = msgspec.structs.replace(
                wire,
                headers={**wire.headers, EXPIRES: iso_utc(self.expires_at)},
                expiration_seconds=self.expires_seconds,
            )
        return wire if self.priority is None else msgspec.structs.replace(wire, priority=self.priority)


AT_ONCE = Terms()


def terms_of(
    delay_seconds: float,
    at: datetime | None,
    expires_seconds: float | None,
    priority: int | None,
    *,
    now: float,
    broker: Capabilities,
) -> Terms:
    """The terms that the arguments of `fire` mean at `now` (Unix seconds).

    Raises:
        BadArguments: one of them has a value that it cannot have.
        ConfigError: the broker has no priorities.
    """
    if not delay_seconds >= 0:
        raise BadArguments(f"delay_seconds is 0 or more, got {delay_seconds!r}")
    if at is not None:
        if delay_seconds:
            raise BadArguments(f"give delay_seconds or at, not both: got {delay_seconds!r} and {at!r}")
        if at.tzinfo is None:
            raise BadArguments(f"at needs a time zone, got {at!r}: use for example datetime.now(timezone.utc)")
        delay_seconds = max(0.0, at.timestamp() - now)
    if expires_seconds is not None and not expires_seconds > 0:
        raise BadArguments(f"expires_seconds is above 0, got {expires_seconds!r}")
    if priority is not None:
        if not 0 <= priority <= HIGHEST_PRIORITY:
            raise BadArguments(f"priority is from 0 to {HIGHEST_PRIORITY}, got {priority!r}")
        if not broker.priorities:
            raise ConfigError(f"{broker.name} has no priorities that put 9 before 0: fire without priority=")
    expires_at = None if expires_seconds is None else now + delay_seconds + expires_seconds
    return Terms(delay_seconds, expires_seconds, expires_at, priority)
