"""The `celery` dialect: what Celery's `crontab` makes of the same values.

For entries that already run under Celery, so that they go on firing at the same times.
Celery is generous: a name counts by its first three letters in any column, and text behind
a complete value is ignored. Both are kept, and each use leaves a remark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .errors import CronError
from .fields import DAY_NAMES, MONTH_NAMES, Field

Value = str | int | frozenset[int]

_COLUMNS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day_of_month", 1, 31),
    ("month_of_year", 1, 12),
    ("day_of_week", 0, 6),
)
_RANGE = re.compile(r"(\w+?)-(\w+)(/\w*)?")
_STAR_STEP = re.compile(r"\*/(\w*)")
# Months come second so that they win where both lists agree on three letters; today none do.
_NAMES = {name: number for names, base in ((DAY_NAMES, 0), (MONTH_NAMES, 1)) for number, name in enumerate(names, base)}
_SHORT_NAMES = {name[:3]: number for name, number in _NAMES.items()}


def normalise(value: int | str | Iterable[int] | None) -> Value:
    """The value of one keyword in a hashable form; a collection is read once."""
    if value is None:
        return "*"
    if isinstance(value, (int, str)):
        return value
    try:
        numbers = frozenset(value)
    except TypeError:
        numbers = frozenset()
    if not numbers or not all(isinstance(number, int) for number in numbers):
        raise CronError("crontab", "value", repr(value), "a whole number, a string, or a collection of whole numbers")
    return numbers


def written(value: Value) -> str:
    """The value as one column of text, to be shown and not to be parsed again."""
    if isinstance(value, frozenset):
        return ",".join(str(int(number)) for number in sorted(value))
    return "".join(value.split()) if isinstance(value, str) else str(int(value))


def parse_text(text: str) -> list[Field]:
    """The six columns of a text of five; any white space separates them.

    Raises:
        CronError: not five columns, or a column that Celery refuses.
    """
    parts = text.split()
    if len(parts) != 5:
        allowed = f"5 ({' '.join(name for name, _, _ in _COLUMNS)})"
        raise CronError(text, "number of fields", str(len(parts)), allowed)
    return parse_values(text, parts)


def parse_values(expression: str, values: Sequence[Value]) -> list[Field]:
    """The six columns of five values, given in the order of the text form; seconds are 0.

    Raises:
        CronError: a value that Celery refuses.
    """
    columns = [_column(expression, *column, value) for column, value in zip(_COLUMNS, values, strict=True)]
    return [Field("0", frozenset({0}), False), *columns]


def _column(expression: str, name: str, low: int, high: int, value: Value) -> Field:
    text = written(value)
    remarks: list[str] = []
    if isinstance(value, str):
        numbers: set[int] = set()
        for item in value.split(","):
            try:
                numbers |= _item(item, low, high, remarks)
            except ValueError as error:
                raise CronError(expression, name, item, f"{low} to {high}; {error}") from None
        starred = value.startswith("*")
    else:
        numbers = {int(number) for number in value} if isinstance(value, frozenset) else {int(value)}
        starred = len(numbers) == high - low + 1
    for number in numbers:
        if not low <= number <= high:
            raise CronError(expression, name, str(number), f"{low} to {high}")
    return Field(text, frozenset(numbers), starred, remarks=tuple(f"{name} {remark}" for remark in remarks))


def _item(item: str, low: int, high: int, remarks: list[str]) -> set[int]:
    if item == "*":
        return set(range(low, high + 1))
    if match := _RANGE.match(item):
        first, end = (_number(word, low, high, remarks) for word in match.group(1, 2))
        numbers = [*range(first, end + 1)] if first <= end else [*range(first, high + 1), *range(low, end + 1)]
        step = 1 if match[3] is None else _step(match[3][1:])
    elif match := _STAR_STEP.match(item):
        numbers, step = [*range(low, high + 1)], _step(match[1])
    else:
        return {_number(item, low, high, remarks)}
    if match.end() < len(item):
        remarks.append(f"{item!r}: {item[match.end() :]!r} is ignored, as Celery does")
    return set(numbers[::step])


def _step(text: str) -> int:
    try:
        step = int(text)
    except ValueError:
        step = 0
    if step < 1:
        raise ValueError("a step is a number of 1 or more")
    return step


def _number(text: str, low: int, high: int, remarks: list[str]) -> int:
    try:
        number = int(text)
    except ValueError:
        name = text.lower()
        if name[:3] not in _SHORT_NAMES:
            raise ValueError("names are those of months and days; write *, n, a-b, */step or a-b/step") from None
        number = _SHORT_NAMES[name[:3]]
        if name not in _SHORT_NAMES and name not in _NAMES:
            remarks.append(f"{text!r}: Celery reads the first three letters only, {name[:3]!r}")
    if text.startswith("-") or not low <= number <= high:
        raise ValueError(f"{text!r} is outside")
    return number
