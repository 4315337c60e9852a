"""The `cron` dialect: Debian's cron, with seconds, `L` and `#` added.

Strict on purpose: an expression with an unknown name, text behind a value or a falling range
is refused, because a schedule that silently means something else is found only when it hurts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import CronError
from .fields import DAY_NAMES, LAST, MONTH_NAMES, Field

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_VALUE = r"[0-9]{1,4}|[a-z]+"
_ITEM = re.compile(rf"(?:(?P<star>\*)|(?P<first>{_VALUE})(?:-(?P<end>{_VALUE}))?)(?:/(?P<step>[0-9]{{1,4}}))?")
_NTH = re.compile(rf"(?P<weekday>{_VALUE})#(?P<nth>[1-5])")
_LAST_WEEKDAY = re.compile(r"(?P<weekday>[0-7])l")


@dataclass(frozen=True)
class _Column:
    """What one column may hold."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  #: the first stands for `low`; three letters each
    extra: str = ""

    @property
    def allowed(self) -> str:
        names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.low} to {self.high}{names}, as *, n, a-b, each with /step, joined by commas{self.extra}"


_COLUMNS = (
    _Column("second", 0, 59),
    _Column("minute", 0, 59),
    _Column("hour", 0, 23),
    _Column("day of month", 1, 31, extra="; L for the last day"),
    _Column("month", 1, 12, tuple(name[:3] for name in MONTH_NAMES)),
    _Column(
        "day of week",
        0,
        7,
        tuple(name[:3] for name in DAY_NAMES),
        "; 5L for the last Friday; mon#1 for the first Monday; 0 and 7 are Sunday",
    ),
)


def parse_fields(text: str) -> list[Field]:
    """The six columns, seconds first; a text of five columns fires at second 0.

    Raises:
        CronError: the text does not follow this dialect.
    """
    source = text.strip()
    if source.startswith("@"):
        if source.lower() not in _ALIASES:
            raise CronError(text, "name", source, ", ".join(_ALIASES))
        source = _ALIASES[source.lower()]
    parts = source.split()
    if len(parts) == 5:
        parts.insert(0, "0")
    if len(parts) != 6:
        raise CronError(
            text,
            "number of fields",
            str(len(parts)),
            "5 (minute hour day-of-month month day-of-week) or 6 (with second in front)",
        )
    return [_parse_column(text, column, part.lower()) for column, part in zip(_COLUMNS, parts, strict=True)]


def _parse_column(expression: str, column: _Column, part: str) -> Field:
    values: set[int] = set()
    nth: set[tuple[int, int]] = set()
    last = False
    for item in part.split(","):
        if column.name == "day of month" and item == "l":
            last = True
        elif column.name == "day of week" and (match := _NTH.fullmatch(item)):
            nth.add((_number(expression, column, match["weekday"]) % 7, int(match["nth"])))
        elif column.name == "day of week" and (match := _LAST_WEEKDAY.fullmatch(item)):
            nth.add((int(match["weekday"]) % 7, LAST))
        else:
            values |= _item(expression, column, item)
    if column.name == "day of week":
        values = {value % 7 for value in values}
    return Field(part, frozenset(values), part.startswith("*"), last, frozenset(nth))


def _item(expression: str, column: _Column, item: str) -> set[int]:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise CronError(expression, column.name, item, column.allowed)
    if match["star"]:
        first, end = column.low, column.high
    else:
        first = end = _number(expression, column, match["first"])
        if match["end"]:
            end = _number(expression, column, match["end"])
        elif match["step"]:
            end = column.high  # 5/15 counts from 5 to the end of the column
    if end < first:
        hint = f"{match['first']}-{column.high},{column.low}-{match['end']}"
        raise CronError(expression, column.name, item, f"a rising range; around the end write {hint}")
    step = int(match["step"] or 1)
    if step == 0:
        raise CronError(expression, column.name, item, "a step of 1 or more")
    return set(range(first, end + 1, step))


def _number(expression: str, column: _Column, text: str) -> int:
    if text in column.names:
        return column.names.index(text) + column.low
    if not text.isdigit() or not column.low <= int(text) <= column.high:
        raise CronError(expression, column.name, text, column.allowed)
    return int(text)
