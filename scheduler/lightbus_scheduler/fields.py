"""What both grammars produce: one `Field` per column, and the rule that joins the two day columns."""

from __future__ import annotations

from dataclasses import dataclass

LAST = -1  #: in place of the n in (weekday, n): the last such weekday of the month

DAY_NAMES = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTH_NAMES = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)


@dataclass(frozen=True)
class Field:
    """One column of an expression, expanded."""

    text: str
    values: frozenset[int]
    starred: bool  #: begins with `*`, which both the day rule and the daylight-saving rule ask for
    last: bool = False  #: the last day of the month, beside `values`
    nth: frozenset[tuple[int, int]] = frozenset()  #: (weekday, 1 to 5 or LAST), beside `values`
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class DayFields:
    """The columns day of month and day of week together."""

    days: frozenset[int]  #: 1 to 31
    last_day: bool  #: the last day of the month, whatever its number
    weekdays: frozenset[int]  #: 0 (Sunday) to 6
    nth_weekdays: frozenset[tuple[int, int]]  #: (weekday, 1 to 5 or LAST)
    either: bool  #: one of the two columns is enough; otherwise both must match

    def matches(self, day: int, weekday: int, month_length: int) -> bool:
        """Whether a day matches, given its number, its weekday and the days in its month."""
        by_day = day in self.days or (self.last_day and day == month_length)
        if by_day is self.either:  # decided: the first column is enough, or has failed where both must match
            return self.either
        if weekday in self.weekdays:
            return True
        if not self.nth_weekdays:
            return False
        if (weekday, (day + 6) // 7) in self.nth_weekdays:
            return True
        return (weekday, LAST) in self.nth_weekdays and day + 7 > month_length

    def meaning(self) -> tuple[object, ...]:
        """Equal for equal sets of days; `either` matters only when both columns restrict."""
        return self.days, self.last_day, self.weekdays, self.nth_weekdays, self.either
