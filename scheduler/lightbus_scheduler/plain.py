"""Schedules, entries and progress as plain JSON values and back: what a store keeps and a settings file holds.

    {"cron": "0 3 * * *", "tz": "Europe/Lisbon", "dialect": "cron", "fold": "once", "gap": "shift"}
    {"every_seconds": 30, "anchor": "2026-01-01T00:00:00+00:00"}
    {"at": "2026-01-31T03:00:00+00:00"}
    {"solar": "sunset", "latitude": 38.72, "longitude": -9.14}

with, of an entry, `id`, `misfire`, `overlap`, `overlap_limit_seconds`, `jitter_seconds`, `start`, `end`, `count`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from functools import lru_cache
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
#: Keys that `policies_from` reads.
POLICY_KEYS = frozenset({"misfire", "overlap", "overlap_limit_seconds", "jitter_seconds", "start", "end", "count"})
_TOLD_OF_CRON = ("tz", "dialect", "fold", "gap")
_MISFIRE = frozenset(field.name for field in fields(Misfire))

#: Keys that describe an entry; whatever else stands beside them says what is fired.
ENTRY_KEYS = frozenset({"id"}).union(POLICY_KEYS, *_KINDS.values())


def schedule_from(plain: Plain, default_tz: str = "UTC") -> Schedule:
    """The schedule that the keys of a mapping tell; other keys are left alone.

    Raises:
        ScheduleError: none or two kinds are told, or a value cannot be used.
    """
    kinds = [kind for kind in plain if kind in _KINDS and plain[kind] is not None]
    if len(kinds) != 1:
        raise ScheduleError("schedule", ", ".join(kinds) or "nothing", f"exactly one of {', '.join(_KINDS)}")
    match kinds[0]:
        case "cron":
            given = {key: _text(plain, key) for key in _TOLD_OF_CRON if plain.get(key)}
            return _cron(_text(plain, "cron"), **{"tz": default_tz, **given})
        case "every_seconds":
            seconds = _number(plain, "every_seconds")
            try:
                return Every(timedelta(seconds=seconds), _moment(plain, "anchor"))
            except OverflowError:
                raise ScheduleError("every_seconds", repr(seconds), "at most 999999999 days") from None
        case "solar":
            return Solar(_text(plain, "solar"), plain.get("latitude", None), plain.get("longitude", None))
    return Once(_required_moment(plain, "at"))


@lru_cache(maxsize=8192)  # one object for all entries that fire at the same times: it is found again at once, too
def _cron(text: str, tz: str, dialect: str = "cron", fold: str = "once", gap: str = "shift") -> Cron:
    return Cron(parse(text, dialect), tz, fold=fold, gap=gap)  # type: ignore[arg-type]  # they are checked there


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
    schedule = schedule_from(plain, default_tz)
    if POLICY_KEYS.isdisjoint(plain):
        return Entry(id=_text(plain, "id"), schedule=schedule)
    return Entry(id=_text(plain, "id"), schedule=schedule, **policies_from(plain))


def policies_from(plain: Plain) -> dict[str, Any]:
    """The arguments of `Entry` that the keys of a mapping tell, beside its id and schedule.

    Raises:
        ScheduleError: a value cannot be used.
    """
    return {
        "misfire": _misfire_from(plain.get("misfire") or {}),
        "overlap": _text(plain, "overlap") if plain.get("overlap") else "allow",
        "overlap_limit_seconds": _number(plain, "overlap_limit_seconds", 86400.0),
        "jitter_seconds": _number(plain, "jitter_seconds", 0.0),
        "start": _moment(plain, "start"),
        "end": _moment(plain, "end"),
        "max_count": None if plain.get("count") is None else _whole(plain, "count"),
    }


def _misfire_from(given: Any) -> Misfire:
    told = {"rule": given} if isinstance(given, str) else given
    if not isinstance(told, Mapping):
        raise ScheduleError("misfire", repr(given), "skip, once, all, or a table of " + ", ".join(sorted(_MISFIRE)))
    refuse_unknown(told, _MISFIRE, "misfire")
    values: dict[str, Any] = {}
    for key, value in told.items():
        try:
            if key == "rule":
                values[key] = _text(told, key)
            elif key == "limit":
                values[key] = _whole(told, key)
            elif value is not None:
                values[key] = _number(told, key)
        except ScheduleError as error:
            raise ScheduleError(f"misfire {key}", error.value, error.allowed) from None
    return Misfire(**values)


def refuse_unknown(plain: Plain, known: frozenset[str], what: str) -> None:
    """Raises ScheduleError: a key is not known."""
    if known >= plain.keys():
        return
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
        ScheduleError: a value is none of its kind, or the moment that is required is not there.
    """
    values: dict[str, Any] = {}
    for key, value in plain.items():
        if (read := _READ_PROGRESS.get(key)) is not None and value is not None:
            values[key] = read(plain, key)
    if values.get("decided") is None:
        raise ScheduleError("decided", "nothing", "a moment in ISO 8601")
    return Progress(**values)


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


def _number(plain: Plain, key: str, default: float | None = None) -> float:
    value = plain.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ScheduleError(key, repr(value), "a number" + (" of seconds" if key.endswith("_seconds") else ""))
    return value


def _whole(plain: Plain, key: str) -> int:
    value = plain.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ScheduleError(key, repr(value), "a whole number")
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


def _flag(plain: Plain, key: str) -> bool:
    value = plain.get(key)
    if not isinstance(value, bool):
        raise ScheduleError(key, repr(value), "true or false")
    return value


def _count(plain: Plain, key: str) -> int:
    if (value := _whole(plain, key)) < 0:
        raise ScheduleError(key, repr(value), "0 or more")
    return value


_READ_PROGRESS: Mapping[str, Callable[[Plain, str], Any]] = {
    **dict.fromkeys(("decided", "anchor", "last_slot", "last_at", "queued"), _moment),
    **dict.fromkeys(("fired", "skipped"), _count),
    **dict.fromkeys(("last_outcome", "last_reason", "paused"), _text),
    "over": _flag,
}
