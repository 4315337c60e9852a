"""What Celery's beat has done so far, from its state file `celerybeat-schedule`, without running anything in it.

The file is a shelf: pickles in a dbm file. Only moments and plain values are made from it; every other class, Celery's
included, becomes an inert record of what it would have been made from.
"""

from __future__ import annotations

import datetime
import dbm
import io
import pickle
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError

_REAL: Mapping[tuple[str, str], Any] = {
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("datetime", "date"): datetime.date,
    ("datetime", "time"): datetime.time,
    ("zoneinfo", "ZoneInfo._unpickle"): lambda key, from_cache: zoneinfo.ZoneInfo(key),
}


class _Inert:
    """Stands for any other object; remembers what it would have been made from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return _Inert(*args)

    def __setstate__(self, state: Any) -> None:
        pass


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):  # how ZoneInfo's method is named in older pickles
            return lambda owner, attribute: self.find_class("zoneinfo", f"ZoneInfo.{attribute}")
        return _REAL.get((module, name), _Inert)


def last_runs(path: Path) -> dict[str, datetime.datetime]:
    """Entry name to the moment when Celery's beat ran it last, in UTC; without those that never ran.

    Args:
        path: as given to `celery beat --schedule`, or one of the files that stand for it.

    Raises:
        ConfigError: there is no such file, or it is none of Celery's beat.
    """
    try:
        entries = _entries(path)
    except (*dbm.error, OSError) as error:
        raise ConfigError(f"Celery's beat state {path} cannot be opened: {error}") from error
    except (pickle.UnpicklingError, KeyError, ValueError, TypeError, AttributeError, EOFError, IndexError) as error:
        raise ConfigError(f"{path} is no state of Celery's beat: {error!r}") from error
    found: dict[str, datetime.datetime] = {}
    for name, entry in entries.items():
        # ScheduleEntry.__reduce__: name, task, last_run_at, total_run_count, schedule, args, kwargs, options
        last = entry.args[2] if isinstance(entry, _Inert) and len(entry.args) > 2 else None
        if isinstance(last, datetime.datetime):
            aware = last if last.tzinfo is not None else last.replace(tzinfo=datetime.timezone.utc)
            found[str(name)] = aware.astimezone(datetime.timezone.utc)
    return found


def _entries(path: Path) -> Mapping[Any, Any]:
    names = [str(path), *(str(path.with_suffix("")) for _ in [0] if path.suffix in (".db", ".dat", ".dir"))]
    failed: Exception | None = None
    for name in names:
        try:
            with dbm.open(name, "r") as shelf:
                entries = _Plain(io.BytesIO(shelf[b"entries"])).load()
        except dbm.error as error:
            failed = error
            continue
        if not isinstance(entries, Mapping):
            raise ValueError(f"its entries are {type(entries).__name__}")
        return entries
    assert failed is not None
    raise failed
