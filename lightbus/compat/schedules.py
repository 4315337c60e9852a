"""`crontab`, `schedule` and `solar` in place of `celery.schedules`, and what Celery's `beat_schedule` means here.

Celery's own objects are taken too, by their attributes, so that a project's settings need no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from lightbus_scheduler import Cron, Every, Expression, Once, Schedule, ScheduleError, Solar, parse_celery

from ..core.errors import ConfigError

Values = int | str | Iterable[int]

_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
#: Of intervals with `relative`: they are counted from here, in the app's zone.
_ROUND = datetime(2000, 1, 1)  # noqa: DTZ001 - the zone is the app's, and joins later


@dataclass(frozen=True, init=False)
class crontab:
    """Celery's `crontab`: both day fields must match, ranges may wrap, `0` is Sunday."""

    minute: Values
    hour: Values
    day_of_week: Values
    day_of_month: Values
    month_of_year: Values
    tz: tzinfo | str | None

    def __init__(
        self,
        minute: Values = "*",
        hour: Values = "*",
        day_of_week: Values = "*",
        day_of_month: Values = "*",
        month_of_year: Values = "*",
        *,
        tz: tzinfo | str | None = None,
    ) -> None:
        """`tz` in place of the app's zone, as django-celery-beat has it.

        Raises:
            ScheduleError: values that Celery refuses too.
        """
        given = (minute, hour, day_of_week, day_of_month, month_of_year)
        names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        for name, value in zip(names, given, strict=True):
            kept = value if isinstance(value, (int, str)) else tuple(value)
            object.__setattr__(self, name, kept)
        object.__setattr__(self, "tz", tz)
        parse_celery(**{name: getattr(self, name) for name in _FIELDS})


@dataclass(frozen=True)
class schedule:
    """Celery's `schedule`: a fixed interval."""

    run_every: timedelta | float
    relative: bool = False


@dataclass(frozen=True)
class solar:
    """Celery's `solar`. It needs the extra `solar`, and `lightbus beat` says so when it starts."""

    event: str
    lat: float
    lon: float


def schedule_of(value: Any, zone: tzinfo, *, relative: bool = False) -> Schedule:
    """What the `schedule` of an entry in `beat_schedule` means.

    Args:
        value: seconds, a timedelta, one of the classes above or of Celery's of the same names, django-celery-beat's
            `clocked`, or a schedule of `lightbus_scheduler`.
        zone: of crontabs without one of their own.
        relative: as in Celery: count intervals from round moments.

    Raises:
        ScheduleError, TypeError: it cannot be used.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = timedelta(seconds=value)
    if isinstance(value, timedelta):
        return Every(value, _ROUND.replace(tzinfo=zone) if relative else None)
    if hasattr(value, "next_after"):
        found: Schedule = value
        return found
    if all(hasattr(value, name) for name in _FIELDS):
        written = {name: getattr(value, f"_orig_{name}", getattr(value, name)) for name in _FIELDS}
        # Celery's own has a property `tz` too: the zone of whatever app is current.
        own = vars(value).get("tz")
        expression = parse_celery(**written)
        return _cron(expression, expression.text, own or zone)
    if hasattr(value, "run_every"):
        return schedule_of(value.run_every, zone, relative=relative or bool(getattr(value, "relative", False)))
    if hasattr(value, "clocked_time"):
        return Once(value.clocked_time)
    if all(hasattr(value, name) for name in ("event", "lat", "lon")):
        return Solar(value.event, value.lat, value.lon)
    raise TypeError(f"{value!r:.100} is no schedule: write crontab(...), a timedelta, or seconds")


@lru_cache(maxsize=8192)  # one for all entries that fire at the same times
def _cron(expression: Expression, text: str, zone: tzinfo | str) -> Cron:
    """`text` is a key of its own: expressions are equal by what they mean, and people read what was written."""
    return Cron(expression, zone)


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodicTask:
    """An entry of `beat_schedule`, read."""

    name: str
    schedule: Schedule
    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]


def periodic_tasks(beat_schedule: Mapping[str, Any], zone: tzinfo) -> Iterator[PeriodicTask]:
    """The entries of Celery's setting `beat_schedule`, as it is written for Celery, one after the other.

    Raises:
        ConfigError: an entry that cannot be used, by its name, field and value.
    """
    for name, entry in beat_schedule.items():
        yield _periodic_task(str(name), entry, zone)


def _periodic_task(name: str, entry: Any, zone: tzinfo) -> PeriodicTask:
    values = entry if isinstance(entry, Mapping) else vars(entry)  # Celery takes its ScheduleEntry objects, too
    try:
        task = values["task"]
        if not isinstance(task, str):
            raise TypeError(f"task must be a task's name, got {task!r:.100}")
        args: Any = values.get("args") or ()
        kwargs: Any = values.get("kwargs") or {}
        options: Any = values.get("options") or {}
        if not isinstance(args, (list, tuple)):
            raise TypeError(f"args must be a list or tuple, got {args!r:.100} (a tuple of one is written (x,))")
        return PeriodicTask(
            name=name, task=task, args=tuple(args), kwargs=dict(kwargs), options=dict(options),
            schedule=schedule_of(values["schedule"], zone, relative=bool(values.get("relative"))),
        )  # fmt: skip
    except KeyError as error:
        raise ConfigError(f"beat_schedule entry {name!r} has no {error.args[0]!r}") from error
    except (ScheduleError, TypeError, ValueError) as error:
        raise ConfigError(f"beat_schedule entry {name!r}: {error}") from error
