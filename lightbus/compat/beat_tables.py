"""What stands in django-celery-beat's tables, as entries that a schedule keeps, each with what was run of it so far.

Read through the models of that package, which need Celery to be installed. Nothing is written there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from lightbus_scheduler import Progress

from ..core.errors import ConfigError

_BLINK = timedelta(microseconds=1)
DISABLED = "disabled in django-celery-beat"  #: note of the pause
_OPTIONS = ("queue", "exchange", "routing_key", "priority")


@dataclass(frozen=True)
class TableEntry:
    """A row of PeriodicTask.

    Attributes:
        definition: as `lightbus schedule add` takes it.
        progress: what its beat has done of it.
        unusable: why it cannot be taken, or "".
    """

    name: str
    definition: Mapping[str, Any]
    progress: Progress
    unusable: str = ""


def table_entries(default_tz: str) -> Iterator[TableEntry]:
    """All rows, by name.

    Args:
        default_tz: of crontabs, when the project has set DJANGO_CELERY_BEAT_TZ_AWARE to False.

    Raises:
        ConfigError: Django or the package is not there or not set up, or the tables cannot be read.
    """
    try:
        from django.conf import settings
        from django.db import Error
        from django_celery_beat.models import PeriodicTask
    except ModuleNotFoundError as error:
        raise ConfigError(f"the tables of django-celery-beat need {error.name!r}: pip install it") from error
    except Exception as error:  # AppRegistryNotReady, ImproperlyConfigured, RuntimeError: all mean the same here
        raise ConfigError(
            f"the tables of django-celery-beat cannot be read ({error}): is DJANGO_SETTINGS_MODULE set, and "
            "django_celery_beat among INSTALLED_APPS?"
        ) from error
    in_own_zone = bool(getattr(settings, "DJANGO_CELERY_BEAT_TZ_AWARE", True))
    rows = PeriodicTask.objects.select_related("interval", "crontab", "solar", "clocked").order_by("name")
    try:
        for row in rows.iterator(chunk_size=1000):
            yield _entry(row, None if in_own_zone else default_tz)
    except Error as error:
        raise ConfigError(f"the tables of django-celery-beat cannot be read: {error}") from error


def _entry(row: Any, tz: str | None) -> TableEntry:
    unusable = ""
    try:
        definition = _definition(row, tz)
    except (ValueError, TypeError) as error:
        definition, unusable = {}, str(error)
    if row.one_off and row.enabled and row.total_run_count > 0:
        unusable = "a one-off task that has run"
    return TableEntry(row.name, definition, _progress(row), unusable)


def _definition(row: Any, tz: str | None) -> dict[str, Any]:
    options = {name: getattr(row, name) for name in _OPTIONS if getattr(row, name) is not None}
    if row.expires is not None:
        options["expires"] = _aware(row.expires).isoformat()
    elif row.expire_seconds:
        options["expires"] = row.expire_seconds
    if headers := json.loads(row.headers or "{}"):
        options["headers"] = headers
    definition = {
        **_schedule(row, tz), "id": row.name, "task": row.task, "args": json.loads(row.args or "[]"),
        "kwargs": json.loads(row.kwargs or "{}"), "options": options,
    }  # fmt: skip
    if row.start_time is not None:
        definition["start"] = _aware(row.start_time).isoformat()
    if row.expires is not None:
        definition["end"] = (_aware(row.expires) - _BLINK).isoformat()
    if row.one_off:
        definition["count"] = 1
    return definition


def _schedule(row: Any, tz: str | None) -> dict[str, Any]:
    if row.interval is not None:
        return {"every_seconds": timedelta(**{row.interval.period: row.interval.every}).total_seconds()}
    if row.crontab is not None:
        one = row.crontab
        fields = (one.minute, one.hour, one.day_of_month, one.month_of_year, one.day_of_week)
        text = " ".join(re.sub(r"\s*,\s*", ",", str(field).strip()) for field in fields)
        return {"cron": text, "dialect": "celery", "tz": tz or str(one.timezone)}
    if row.clocked is not None:
        return {"at": _aware(row.clocked.clocked_time).isoformat()}
    if row.solar is not None:
        one = row.solar
        return {"solar": one.event, "latitude": float(one.latitude), "longitude": float(one.longitude)}
    raise ValueError("no schedule")


def _progress(row: Any) -> Progress:
    """Up to where its beat has decided, so that the next slot is the one that it would have run next."""
    paused = None if row.enabled else DISABLED
    if row.last_run_at is not None:
        last = _aware(row.last_run_at)
        return Progress(
            decided=last, anchor=last if row.interval is not None else None, last_at=last, paused=paused
        )  # fmt: skip
    since = _aware(row.date_changed)
    if row.clocked is not None:  # one that is past is run at once
        since = min(since, _aware(row.clocked.clocked_time) - _BLINK)
    elif row.start_time is not None:  # the first run of an interval is there, and one that is past is made up for
        start = _aware(row.start_time)
        return Progress(decided=start - _BLINK, anchor=start if row.interval is not None else None, paused=paused)
    return Progress(decided=since, anchor=since if row.interval is not None else None, paused=paused)


def _aware(moment: datetime) -> datetime:
    """In UTC. Without USE_TZ Django gives naive ones, in its own zone."""
    if moment.tzinfo is None:
        from django.utils.timezone import get_default_timezone

        moment = moment.replace(tzinfo=get_default_timezone())
    return moment.astimezone(timezone.utc)
