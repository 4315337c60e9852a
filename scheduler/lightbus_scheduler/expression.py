"""The value of a cron expression, and the way from text to it.

Decides what an expression means: which seconds, minutes, hours and days match, how the two
day fields combine, and whether the daylight-saving rules for fixed times apply to it.
Leaves the grammars to `debian.py` and `celery_fields.py`, time zones and instants to `cron.py`.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from . import celery_fields, debian
from .errors import CronError
from .fields import DayFields, Field

__all__ = ["CronError", "Dialect", "Expression", "parse", "parse_celery"]

Dialect = Literal["cron", "celery"]


@dataclass(frozen=True)
class Expression:
    """A parsed expression; two are equal when they fire at the same local times under the same rules.

    Weekdays count from 0 (Sunday) to 6 (Saturday).
    """

    seconds: tuple[int, ...]  #: ascending, 0 to 59; (0,) when the text has no field of seconds
    minutes: tuple[int, ...]  #: ascending, 0 to 59
    hours: tuple[int, ...]  #: ascending, 0 to 23
    months: frozenset[int]  #: 1 to 12
    days: DayFields
    fixed_time: bool  #: neither minute nor hour is a wildcard: the daylight-saving options apply
    text: str  #: as written, or the five fields of keyword values joined
    dialect: Dialect
    remarks: tuple[str, ...] = ()  #: what a reader may not expect, for a person who imports the entry

    def __eq__(self, other: object) -> bool:
        return self is other or self._meaning() == other._meaning() if isinstance(other, Expression) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # schedules are looked up by their expression, for every entry of a start
        return hash(self._meaning())

    def _meaning(self) -> tuple[object, ...]:
        return self.seconds, self.minutes, self.hours, self.months, self.days.meaning(), self.fixed_time

    def day_from(self, year: int, month: int, day: int) -> int | None:
        """The first matching day of this month at or after `day`, None when there is none left.

        The month itself is taken as matching.
        """
        first_monday_based, length = calendar.monthrange(year, month)
        for candidate in range(day, length + 1):
            if self.days.matches(candidate, (first_monday_based + candidate) % 7, length):
                return candidate
        return None

    def ever_matches(self) -> bool:
        """Whether any date matches.

        Exact: a month is known by its length and its first weekday, and in every 400 years
        each month, and each 29-day February, begins on each of the seven weekdays.
        """
        lengths = {month: 29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31 for month in self.months}
        shapes = {(length, first) for length in lengths.values() for first in range(7)}
        if 2 in self.months:
            shapes |= {(28, first) for first in range(7)}
        return any(
            self.days.matches(day, (first + day) % 7, length)
            for length, first in shapes
            for day in range(1, length + 1)
        )


@lru_cache(maxsize=8192)  # schedules of many thousand entries repeat their expressions, and parsing takes 0.1 ms
def parse(text: str, dialect: Dialect = "cron") -> Expression:
    """Read one expression.

    Args:
        text: `cron`: five fields, or six with the seconds first, or an `@` name.
            `celery`: five fields, minute hour day_of_month month_of_year day_of_week.
        dialect: whose rules apply; the same text can mean different times.

    Raises:
        CronError: the text is not an expression of this dialect, or can never fire.
    """
    if dialect == "cron":
        fields = debian.parse_fields(text)
    elif dialect == "celery":
        fields = celery_fields.parse_text(text)
    else:
        raise CronError(text, "dialect", str(dialect), "'cron' or 'celery'")
    return _build(text.strip(), dialect, fields)


def parse_celery(
    *,
    minute: int | str | Iterable[int] | None = "*",
    hour: int | str | Iterable[int] | None = "*",
    day_of_month: int | str | Iterable[int] | None = "*",
    month_of_year: int | str | Iterable[int] | None = "*",
    day_of_week: int | str | Iterable[int] | None = "*",
) -> Expression:
    """Read the keyword values of a Celery `crontab`; None means `*`, as there.

    Raises:
        CronError: Celery would refuse the values too, or could never fire them.
    """
    given = (minute, hour, day_of_month, month_of_year, day_of_week)
    return _parse_values(tuple(celery_fields.normalise(value) for value in given))


@lru_cache(maxsize=8192)  # as of `parse`; True and 1 are the same value here, too
def _parse_values(values: tuple[celery_fields.Value, ...]) -> Expression:
    text = " ".join(celery_fields.written(value) for value in values)
    return _build(text, "celery", celery_fields.parse_values(text, values))


def _build(text: str, dialect: Dialect, fields: list[Field]) -> Expression:
    second, minute, hour, day, month, weekday = fields
    either = dialect == "cron" and not day.starred and not weekday.starred
    remarks = tuple(remark for field in fields for remark in field.remarks)
    if dialect == "celery" and not day.starred and not weekday.starred:
        remarks += ("day_of_month and day_of_week must both match here; in cron one of them would do",)
    expression = Expression(
        seconds=tuple(sorted(second.values)),
        minutes=tuple(sorted(minute.values)),
        hours=tuple(sorted(hour.values)),
        months=month.values,
        days=DayFields(day.values, day.last, weekday.values, weekday.nth, either),
        fixed_time=not minute.starred and not hour.starred,
        text=text,
        dialect=dialect,
        remarks=remarks,
    )
    if not expression.ever_matches():
        raise CronError(text, "day and month", f"{day.text} {month.text}", "a day that one of these months has")
    return expression
