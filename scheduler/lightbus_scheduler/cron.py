"""When an expression fires in a time zone: the next instant after a given one.

Decides what happens where the local clock jumps or repeats. Pure: the caller brings the moment,
nothing here reads a clock. Reading the text is `expression.py`'s, acting on an instant the caller's.

The search goes from one matching local time to the next, never minute by minute, and compares
instants in UTC only: `dst()` is negative in some zones and says nothing about the size of a change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .errors import CronError
from .expression import Expression, parse

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
# Debian's cron: a larger change is a corrected clock, and the new time counts at once.
_CORRECTION = timedelta(hours=3)
# No zone has ever changed twice within a day, so that both changes hide between two probes.
_PROBE = timedelta(hours=3)
# Offsets lie strictly within a day of UTC (a rule of datetime), so 25 hours is past every one.
_MARGIN = timedelta(hours=25)
_FIRST_YEAR, _LAST_YEAR = 2, 9998  # conversions of the outermost years leave datetime's range


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression in a time zone.

    `fold` and `gap` apply to fixed-time expressions (`Expression.fixed_time`) and to changes of less
    than three hours. Everything else follows the local clock: what it skips does not fire, what it
    repeats fires again.
    """

    expression: Expression
    tz: tzinfo
    fold: Literal["once", "both"] = "once"  #: a local time that comes twice
    gap: Literal["shift", "skip"] = "shift"  #: a local time that is jumped over: at the jump, or not at all

    def __init__(
        self,
        expression: Expression | str,
        tz: tzinfo | str,
        *,
        fold: Literal["once", "both"] = "once",
        gap: Literal["shift", "skip"] = "shift",
    ) -> None:
        """Join an expression with its zone.

        Args:
            expression: parsed, or text in the `cron` dialect.
            tz: an IANA name or a `zoneinfo.ZoneInfo` or a fixed `timezone`.
            fold: see the class.
            gap: see the class.

        Raises:
            CronError: text, zone name or option that is not known.
        """
        parsed = parse(expression) if isinstance(expression, str) else expression
        if fold not in ("once", "both"):
            raise CronError(parsed.text, "fold", str(fold), "'once' or 'both'")
        if gap not in ("shift", "skip"):
            raise CronError(parsed.text, "gap", str(gap), "'shift' or 'skip'")
        object.__setattr__(self, "expression", parsed)
        object.__setattr__(self, "tz", _zone(parsed, tz) if isinstance(tz, str) else tz)
        object.__setattr__(self, "fold", fold)
        object.__setattr__(self, "gap", gap)

    def next_after(self, moment: datetime) -> datetime | None:
        """The first instant of this schedule that is later than `moment`.

        Args:
            moment: aware, in any zone; not itself a result.

        Returns:
            An aware datetime in UTC, a whole second; None when there is none before the year 9999.

        Raises:
            ValueError: `moment` is naive, or before the year 2.
        """
        if moment.tzinfo is None or moment.utcoffset() is None:
            raise ValueError(f"{moment!r} has no time zone: pass an aware datetime")
        if moment.year < _FIRST_YEAR:
            raise ValueError(f"{moment!r} is before the year {_FIRST_YEAR}")
        if moment.year > _LAST_YEAR:
            return None
        start = moment.astimezone(timezone.utc).replace(microsecond=0) + _SECOND
        return self._first_from(start)

    def iterate(self, after: datetime) -> Iterator[datetime]:
        """The instants later than `after`, ascending, without end but for the year 9999.

        Raises:
            ValueError: as `next_after`, when the first instant is asked for.
        """
        found = self.next_after(after)
        while found is not None:
            yield found
            found = self.next_after(found)

    def _first_from(self, start: datetime) -> datetime | None:
        """The first instant at or after `start` (UTC, whole seconds)."""
        start = self._past_repetition(start)
        scanned = start - _SECOND  # changes up to here, this second included, are dealt with
        while True:
            local = start.astimezone(self.tz)
            wall = _wall_from(self.expression, local.replace(tzinfo=None, fold=0))
            if wall is None:
                return None
            found = _utc(wall, _offset(local))  # right unless the offset changes before it
            is_far = found - start > 2 * _MARGIN
            change = _first_change(self.tz, scanned, start + _MARGIN if is_far else found)
            if change is not None:
                if self._fires_at_jump(change):
                    return change
                start = self._past_repetition(change)
                scanned = max(change, start - _SECOND)
            elif is_far:
                # No local time before `wall` matches, and none comes again: a change that repeats
                # it would lie within the margin after `start`. So go near `wall`, whatever its offset.
                start = wall.replace(tzinfo=timezone.utc) - _MARGIN
                scanned = start - _SECOND
            else:
                return found

    def _past_repetition(self, start: datetime) -> datetime:
        """`start`, or the end of the repeated local times around it when those must not fire again."""
        local = start.astimezone(self.tz)
        if not local.fold or self.fold == "both" or not self.expression.fixed_time:
            return start
        first_pass = _utc(local.replace(tzinfo=None, fold=0), _offset(local.replace(fold=0)))
        change = _first_change(self.tz, first_pass, start)
        width = start - first_pass
        return start if change is None or width >= _CORRECTION else change + width

    def _fires_at_jump(self, change: datetime) -> bool:
        """Whether fixed times that the clock jumps over at `change` fire there."""
        if self.gap == "skip" or not self.expression.fixed_time:
            return False
        before = _offset((change - _SECOND).astimezone(self.tz))
        after = _offset(change.astimezone(self.tz))
        if not timedelta(0) < after - before < _CORRECTION:
            return False
        missing_from = change.replace(tzinfo=None) + before
        wall = _wall_from(self.expression, missing_from)
        return wall is not None and wall < missing_from + (after - before)


def _zone(expression: Expression, name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        allowed = "an IANA name such as 'Europe/Berlin' (is the package tzdata installed, if the system has no zones?)"
        raise CronError(expression.text, "time zone", name, allowed) from None


def _offset(local: datetime) -> timedelta:
    offset = local.utcoffset()
    return timedelta(0) if offset is None else offset


def _utc(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=timezone.utc)


def _first_change(tz: tzinfo, after: datetime, until: datetime) -> datetime | None:
    """The first second in (after, until] at which the offset is new, None when there is none."""
    if isinstance(tz, timezone):
        return None
    offset = tz.utcoffset(after.astimezone(tz))
    low = after
    while low < until:
        high = min(low + _PROBE, until)
        if tz.utcoffset(high.astimezone(tz)) != offset:
            while high - low > _SECOND:
                middle = low + timedelta(seconds=(high - low) // _SECOND // 2)
                if tz.utcoffset(middle.astimezone(tz)) == offset:
                    low = middle
                else:
                    high = middle
            return high
        low = high
    return None


def _wall_from(expression: Expression, wall: datetime) -> datetime | None:
    """The first matching local time at or after `wall`; both naive. None past the last year."""
    if wall.microsecond:  # a zone whose offset has a fraction of a second
        wall = wall.replace(microsecond=0) + _SECOND
    day = _day_from(expression, wall.date())
    if day == wall.date():
        at = _time_from(expression, wall.hour, wall.minute, wall.second)
        if at is not None:
            return datetime.combine(day, at)
        day = _day_from(expression, day + _DAY)
    if day is None:
        return None
    return datetime.combine(day, time(expression.hours[0], expression.minutes[0], expression.seconds[0]))


def _day_from(expression: Expression, first: date) -> date | None:
    year, month, day = first.year, first.month, first.day
    while year <= _LAST_YEAR:
        if month in expression.months:
            found = expression.day_from(year, month, day)
            if found is not None:
                return date(year, month, found)
        day = 1
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return None


def _time_from(expression: Expression, hour: int, minute: int, second: int) -> time | None:
    """The first matching time of day at or after the given one, None when there is none left."""
    if hour in expression.hours:
        if minute in expression.minutes:
            later = _at_least(expression.seconds, second)
            if later is not None:
                return time(hour, minute, later)
        later = _at_least(expression.minutes, minute + 1)
        if later is not None:
            return time(hour, later, expression.seconds[0])
    later = _at_least(expression.hours, hour + 1)
    return None if later is None else time(later, expression.minutes[0], expression.seconds[0])


def _at_least(values: tuple[int, ...], bound: int) -> int | None:
    return next((value for value in values if value >= bound), None)
