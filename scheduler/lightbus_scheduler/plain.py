"""Schedules, entries and progress as plain JSON values and back: what a store keeps and a settings file holds.

    {"cron": "0 3 * * *", "tz": "Europe/Lisbon", "dialect": "cron", "fold": "once", "gap": "shift"}
    {"every_seconds": 30, "anchor": "2026-01-01T00:00:00+00:00"}
    {"at": "2026-01-31T03:00:00+00:00"}
    {"solar": "sunset", "latitude": 38.72, "longitude": -9.14}

with, of an entry, `id`, `misfire`, `overlap`, `overlap_limit_seconds`, `jitter_seconds`, `start`, `end`, `count`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from functools import lru_cache
from sys import intern
from typing import Any

from .cron import Cron
from .entries import Entry, Misfire, Progress
from .errors import ScheduleError
from .expression import parse
from .kinds import Every, Once, Schedule, utc
from .solar import Solar

Plain = Mapping[str, Any]

_KINDS = {
    "cron": frozenset({"cron", "tz", "dialect", "fold", "gap"}),
    "every_seconds": frozenset({"every_seconds", "anchor"}),
    "at": frozenset({"at"}),
    "solar": frozenset({"solar", "latitude", "longitude"}),
}
_POLICIES = frozenset({"id", "misfire", "overlap", "overlap_limit_seconds", "jitter_seconds", "start", "end", "count"})
_MISFIRE = frozenset(field.name for field in fields(Misfire))
_MOMENTS = ("decided", "anchor", "last_slot", "last_at", "queued")
_PROGRESS = frozenset(field.name for field in fields(Progress))

#: Keys that describe an entry; whatever else stands beside them says what is fired.
ENTRY_KEYS = frozenset().union(_POLICIES, *_KINDS.values())


def schedule_from(plain: Plain, default_tz: str = "UTC") -> Schedule:
    """The schedule that the keys of a mapping tell; other keys are left alone.

    Raises:
        ScheduleError: none or two kinds are told, or a value cannot be used.
    """
    kinds = [kind for kind in _KINDS if plain.get(kind) is not None]
    if len(kinds) != 1:
        raise ScheduleError("schedule", ", ".join(kinds) or "nothing", f"exactly one of {', '.join(_KINDS)}")
    match kinds[0]:
        case "cron":
            expression = parse(_text(plain, "cron"), plain.get("dialect") or "cron")
            zone = _text(plain, "tz") if plain.get("tz") else default_tz
            return Cron(expression, zone, fold=plain.get("fold") or "once", gap=plain.get("gap") or "shift")
        case "every_seconds":
            seconds = plain["every_seconds"]
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise ScheduleError("every_seconds", repr(seconds), "a number of seconds")
            return Every(timedelta(seconds=seconds), _moment(plain, "anchor"))
        case "solar":
            return Solar(_text(plain, "solar"), plain.get("latitude", None), plain.get("longitude", None))
    return Once(_required_moment(plain, "at"))


def plain_schedule(schedule: Schedule) -> dict[str, Any]:
    """What `schedule_from` reads.

    Raises:
        ScheduleError: a kind of the caller's own.
    """
    match schedule:
        case Cron():
            named = getattr(schedule.tz, "key", None)
            plain = {"cron": schedule.expression.text, "tz": named or str(schedule.tz), "fold": schedule.fold}
            return {**plain, "gap": schedule.gap, "dialect": schedule.expression.dialect}
        case Every():
            plain = {"every_seconds": schedule.period.total_seconds()}
            return plain if schedule.anchor is None else {**plain, "anchor": schedule.anchor.isoformat()}
        case Once():
            return {"at": schedule.at.isoformat()}
        case Solar():
            return {"solar": schedule.event, "latitude": schedule.latitude, "longitude": schedule.longitude}
    raise ScheduleError("schedule", type(schedule).__name__, ", ".join(_KINDS))


def entry_from(plain: Plain, default_tz: str = "UTC") -> Entry:
    """The entry that a mapping tells.

    Raises:
        ScheduleError: a value cannot be used.
    """
    misfire = plain.get("misfire") or {}
    misfire = {"rule": misfire} if isinstance(misfire, str) else misfire
    if not isinstance(misfire, Mapping):
        raise ScheduleError("misfire", repr(misfire), "skip, once, all, or a table of " + ", ".join(sorted(_MISFIRE)))
    refuse_unknown(misfire, _MISFIRE, "misfire")
    return Entry(
        id=_text(plain, "id"),
        schedule=schedule_from(plain, default_tz),
        misfire=Misfire(**misfire),
        overlap=plain.get("overlap") or "allow",
        overlap_limit_seconds=float(plain.get("overlap_limit_seconds") or 86400.0),
        jitter_seconds=float(plain.get("jitter_seconds") or 0.0),
        start=_moment(plain, "start"),
        end=_moment(plain, "end"),
        max_count=plain.get("count"),
    )


def refuse_unknown(plain: Plain, known: frozenset[str], what: str) -> None:
    """Raises ScheduleError: a key is not known."""
    for key in plain:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ScheduleError(
                f"a key of {what}", key, f"did you mean {near[0]}?" if near else ", ".join(sorted(known))
            )


def plain_progress(progress: Progress) -> dict[str, Any]:
    """What `progress_from` reads; values that are the default are left out."""
    plain: dict[str, Any] = {}
    for field in fields(Progress):
        value = getattr(progress, field.name)
        if value != field.default:
            plain[field.name] = value.isoformat() if isinstance(value, datetime) else value
    return plain


def progress_from(plain: Plain) -> Progress:
    """The progress that a mapping tells; keys of a later version are left alone.

    Raises:
        ScheduleError: a moment is none, or the one that is required is not there.
    """
    values: dict[str, Any] = {}
    for key, value in plain.items():
        if key in _MOMENTS:
            values[key] = _moment(plain, key)
        elif key in _PROGRESS:
            values[key] = intern(value) if type(value) is str else value
    values["decided"] = _required_moment(plain, "decided")
    return _shared(Progress(**values))


@lru_cache(maxsize=8192)
def _shared(progress: Progress) -> Progress:
    """The same object for equal values: at a take-over many thousand entries have never fired."""
    return progress


@lru_cache(maxsize=8192)  # moments of records repeat, and so that they share one object, too
def moment_from(text: str, what: str = "the moment") -> datetime:
    """A moment in ISO 8601, in UTC.

    Raises:
        ScheduleError: it is none, or has no offset.
    """
    try:
        # Python 3.10 does not read the Z
        return utc(datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text), what)
    except (ValueError, OverflowError) as error:
        if isinstance(error, ScheduleError):
            raise
        raise ScheduleError(what, text, "ISO 8601, for example 2026-01-31T03:00:00+00:00") from None


def _text(plain: Plain, key: str) -> str:
    value = plain.get(key)
    if not isinstance(value, str):
        raise ScheduleError(key, repr(value), "a text")
    return value


def _moment(plain: Plain, key: str) -> datetime | None:
    value = plain.get(key)
    match value:
        case None | "":
            return None
        case datetime():  # TOML has them
            return utc(value, key)
        case str():
            return moment_from(value, key)
    raise ScheduleError(key, repr(value), "a moment in ISO 8601")


def _required_moment(plain: Plain, key: str) -> datetime:
    moment = _moment(plain, key)
    if moment is None:
        raise ScheduleError(key, "nothing", "a moment in ISO 8601")
    return moment
