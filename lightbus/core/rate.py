"""How often a handler may begin: a token bucket that holds one token, as a moment and not as a count.

Pure: the clock comes in as an argument. The bucket is the moment from which its next token is there, so whoever wants
one can be told how long it takes, and have it put aside. What would have to wait for too long gets no token but a
moment to come back at; those moments lie as far apart as the tokens, so that what returns finds about one each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import DeclarationError

MOST_HELD_SECONDS = 5.0  #: a longer wait is not spent in a worker's memory
MOST_DELAY_SECONDS = 3600.0  #: then it asks again: the rate may have been raised meanwhile
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TEXT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:/([smh]))?")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many beginnings per second, evenly spread: there are no bursts.

    Attributes:
        everywhere: of all workers on the broker together; otherwise of each `lightbus worker` by itself, its processes
            together.
    """

    per_second: float
    everywhere: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.per_second < float("inf"):
            raise DeclarationError(f"a rate must be more than 0 per second, got {self.per_second}; None is no limit")

    @classmethod
    def parse(cls, text: str, *, everywhere: bool = False) -> Rate:
        """From Celery's spelling: `"100/s"`, `"10/m"`, `"2/h"`, or a number, which is per second.

        Raises:
            DeclarationError: it is none.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise DeclarationError(f"a rate is written '100/s', '10/m' or '2/h', got {text!r}")
        return cls(float(found[1]) / _UNITS[found[2] or "s"], everywhere)

    @property
    def interval_seconds(self) -> float:
        return 1.0 / self.per_second


@dataclass(frozen=True, slots=True)
class Bucket:
    """The state of a rate; moments of one clock, in seconds.

    Attributes:
        free_at: from then on the next token is there.
        planned_until: the latest moment that something was told to come back at.
    """

    free_at: float = 0.0
    planned_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """`granted`: begin after `wait_seconds`, the token is yours. Otherwise: ask again after `wait_seconds`."""

    wait_seconds: float
    granted: bool


def take(bucket: Bucket, interval_seconds: float, now: float, *, most_wait_seconds: float) -> tuple[Bucket, Turn]:
    """A token, if it is there within `most_wait_seconds`, and the bucket afterwards.

    A clock that was set back does not stop the bucket: more than it can have promised is not believed.
    """
    free_at = max(now, min(bucket.free_at, now + MOST_HELD_SECONDS + interval_seconds))
    wait = free_at - now
    if wait <= most_wait_seconds:
        return Bucket(free_at + interval_seconds, bucket.planned_until), Turn(wait, granted=True)
    planned = max(free_at, min(bucket.planned_until + interval_seconds, now + MOST_DELAY_SECONDS))
    return Bucket(free_at, planned), Turn(planned - now, granted=False)
