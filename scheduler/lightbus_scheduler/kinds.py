"""The kinds of schedules beside cron expressions, and what all kinds have in common: the next slot after a moment.

Pure. A slot is an instant in UTC that depends on the schedule alone, never on when somebody looked or ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Protocol

from .errors import ScheduleError

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SMALLEST = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)


class Schedule(Protocol):
    """What every kind of schedule answers."""

    def next_after(self, moment: datetime) -> datetime | None:
        """The first slot later than `moment` (aware), in UTC; None when there is none."""


def utc(moment: datetime, what: str = "the moment") -> datetime:
    """`moment` in UTC.

    Raises:
        ScheduleError: it is naive, so nobody can say which instant is meant.
    """
    if moment.tzinfo is timezone.utc:
        return moment
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ScheduleError(what, moment.isoformat(), "one with a time zone, like 2026-01-31T03:00:00+00:00")
    return moment.astimezone(timezone.utc)


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed interval: the slots are `anchor + k * period`, for every whole k.

    Attributes:
        period: at least a millisecond.
        anchor: aware; None until somebody who remembers it has chosen one (`anchored`), because an interval
            that begins anew at each start may never come due.
    """

    period: timedelta
    anchor: datetime | None = None

    def __post_init__(self) -> None:
        if self.period < _SMALLEST:
            raise ScheduleError("interval", f"{self.period.total_seconds():g} s", "at least 0.001 s")
        if self.anchor is not None:
            object.__setattr__(self, "anchor", utc(self.anchor, "anchor"))

    def anchored(self, moment: datetime) -> Every:
        """This interval, counted from `moment` unless it has an anchor."""
        return self if self.anchor is not None else replace(self, anchor=moment)

    def next_after(self, moment: datetime) -> datetime | None:
        anchor = self.anchor or EPOCH
        steps = (moment - anchor) // self.period + 1
        try:
            return anchor + steps * self.period
        except OverflowError:
            return None

    def last_until(self, moment: datetime) -> datetime:
        """The last slot at or before `moment`."""
        anchor = self.anchor or EPOCH
        return anchor + (moment - anchor) // self.period * self.period


@dataclass(frozen=True, slots=True)
class Once:
    """A single slot."""

    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", utc(self.at, "at"))

    def next_after(self, moment: datetime) -> datetime | None:
        return self.at if moment < self.at else None


@dataclass(frozen=True, slots=True)
class Window:
    """The slots of another schedule from `start` on, `end` included."""

    schedule: Schedule
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, utc(value, name))
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ScheduleError("end", self.end.isoformat(), f"at or after the start, {self.start.isoformat()}")

    def next_after(self, moment: datetime) -> datetime | None:
        if self.start is not None and moment < self.start:
            moment = self.start - timedelta(microseconds=1)
        found = self.schedule.next_after(moment)
        return None if found is None or (self.end is not None and found > self.end) else found


def between(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """The slots in (after, until], ascending."""
    slot = schedule.next_after(after)
    while slot is not None and slot <= until:
        yield slot
        slot = schedule.next_after(slot)


def last_between(schedule: Schedule, after: datetime, until: datetime) -> datetime | None:
    """The last slot in (after, until], None when there is none; in about 40 steps however many there are."""
    found = schedule.next_after(after)
    if found is None or found > until:
        return None
    low, high = found, until  # a slot lies at `low`, and none in (high, until]
    while True:
        middle = low + (high - low) / 2 if high - low > 2 * _SECOND else low
        slot = schedule.next_after(middle)
        if slot is not None and slot <= until:
            low = slot
        elif middle == low:
            return low
        else:
            high = middle
