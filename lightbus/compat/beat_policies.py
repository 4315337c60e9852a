"""Policies for entries of Celery's `beat_schedule`: what Celery's beat lacks, in a setting that it leaves alone.

Not beside the entry: Celery's beat ends with a TypeError on a key that it does not know, and puts an option that it
does not know into each message.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from lightbus_scheduler import ScheduleError
from lightbus_scheduler.plain import POLICY_KEYS, policies_from, refuse_unknown

from ..core.errors import ConfigError

SETTING = "lightbus_beat_policies"  #: Celery setting: name or pattern of entries to a table of policies


def entry_policies(given: Any, entries: Collection[str]) -> dict[str, dict[str, Any]]:
    """Arguments of `Entry` for those entries that have any. An entry's own name wins, then the first pattern.

    Raises:
        ConfigError: a name that no entry has, or a policy that cannot be used, by name, field and value.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{SETTING} must be a dict of entry names to dicts of policies, got {given!r:.100}")
    found: dict[str, dict[str, Any]] = {}
    for name, plain in sorted(given.items(), key=lambda one: one[0] not in entries):  # a stable sort: names first
        policies = _read(name, plain)
        chosen = list(_chosen(name, entries))
        if not chosen:
            near = difflib.get_close_matches(str(name), entries, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(entries)[:10]) or 'none'}"
            raise ConfigError(f"{SETTING}: beat_schedule has no entry {name!r}: {hint}")
        for entry in chosen:
            found.setdefault(entry, policies)
    return found


def _read(name: object, plain: Any) -> dict[str, Any]:
    try:
        if not isinstance(plain, Mapping):
            raise ScheduleError("policies", f"{plain!r:.100}", f"a dict of {', '.join(sorted(POLICY_KEYS))}")
        refuse_unknown(plain, POLICY_KEYS, "policies")
        return policies_from(plain)
    except ValueError as error:
        raise ConfigError(f"{SETTING}[{name!r}]: {error}") from error


def _chosen(name: object, entries: Collection[str]) -> Iterator[str]:
    if name in entries:
        yield str(name)
    else:
        yield from (entry for entry in entries if fnmatchcase(entry, str(name)))
