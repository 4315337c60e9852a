"""The schedule moves entry by entry: what Celery's beat lets go of, and what it takes back. Loaded in its process.

`lightbus_beat_entries` names the entries that have moved. What is true of an entry stands in the store of Lightbus's
schedule alone: it is Celery's while its record is paused with `HELD`, or where there is none. So Celery's beat, before
it fires anything, posts the last run of each moved entry and drops it, and for each other one that Lightbus still fires
it asks Lightbus to let go, and waits until the record says so. In between nobody fires it; whoever goes on, begins
where the other ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any

from celery import Celery, signals

from lightbus_scheduler import new_command
from lightbus_scheduler.plain import moment_from

from ... import open_schedule_store
from ...core.errors import LightbusError
from ...ports import ScheduleStore
from ..beat import HELD
from .bridge import bridge_of, setting

BEAT_SETTING = "lightbus_beat_entries"  #: Celery setting: names or patterns of the entries that Lightbus's beat fires
LOOK_SECONDS = 0.5  #: between two looks whether Lightbus has let go
RETRY_SECONDS = 1.0  #: after the store could not be read
WARN_SECONDS = 60.0

logger = logging.getLogger("lightbus.compat.bridge")


def moved_entries(app: Celery) -> frozenset[str] | None:
    """The names and patterns of moved entries; None where the schedule does not move entry by entry."""
    given, named = setting(app.conf, BEAT_SETTING), bridge_of(app).beat_entries
    if given is None and named is None:
        return None
    configured = given.split(",") if isinstance(given, str) else (given or ())
    return frozenset(name.strip() for name in configured if name.strip()) | (named or frozenset())


def watch_beat(app: Celery, settings: Callable[[], Any]) -> None:
    """Have Celery's beat for `app` share its schedule with Lightbus's, where the app names moved entries.

    Args:
        settings: the app's `Settings`, read when the beat begins.
    """

    def begin(sender: Any, **_arguments: object) -> None:
        from celery.beat import PersistentScheduler, Scheduler  # here, since only a beat has loaded it

        names = moved_entries(app) if sender.app is app else None
        if names is None:
            return
        if type(sender.scheduler) not in (Scheduler, PersistentScheduler):
            logger.error(
                "%s is set, but the entries of the scheduler %s cannot move one by one: it goes on firing all of them",
                BEAT_SETTING, type(sender.scheduler).__name__,
            )  # fmt: skip
            return
        read = settings()
        store = open_schedule_store(read.broker_url, options=dict(read.broker_transport_options))
        share(sender.scheduler, store, names, app.conf.beat_schedule)

    signals.beat_init.connect(begin, weak=False)


def share(scheduler: Any, store: ScheduleStore, names: Iterable[str], defined: Iterable[str]) -> Handover:
    """Let `scheduler`, from its next tick on, fire only what is Celery's.

    Args:
        scheduler: a `celery.beat.Scheduler`.
        names: of the moved entries; may be patterns.
        defined: the entries that Lightbus's beat knows too: those of the app's `beat_schedule`.
    """
    handover = Handover(scheduler, store, frozenset(names), frozenset(defined))
    scheduler.tick = handover.tick
    return handover


class Handover:
    """Stands before the tick of a Celery scheduler."""

    def __init__(self, scheduler: Any, store: ScheduleStore, names: frozenset[str], defined: frozenset[str]) -> None:
        self._scheduler = scheduler
        self._store = store
        self._names = names
        self._defined = defined
        self._celery_tick: Callable[[], float] = scheduler.tick
        self._asked: dict[str, Any] = {}  #: entries that Lightbus is to let go of
        self._is_begun = False
        self._is_reported = False
        self._warn_at = 0.0

    def tick(self) -> float:
        """As `Scheduler.tick`: seconds until the next one."""
        if self._is_begun and not self._asked:
            return self._celery_tick()
        try:
            if not self._is_begun:
                self._begin()
            else:
                self._take_back()
        except LightbusError as error:
            self._store.resign()
            if not self._is_reported:
                self._is_reported = True
                logger.error("the store of the schedule cannot be reached, what is due waits: %s", error)
            return RETRY_SECONDS if not self._is_begun else min(self._celery_tick(), RETRY_SECONDS)
        self._is_reported = False
        if not self._asked:
            self._store.resign()  # nothing more to ask in this process's life
            return self._celery_tick()
        return min(self._celery_tick(), LOOK_SECONDS)

    def _begin(self) -> None:
        records, schedule = self._store.records(), self._scheduler.schedule
        for name in [name for name in schedule if name in self._defined]:
            if any(fnmatchcase(name, pattern) for pattern in self._names):
                last = schedule[name].last_run_at.astimezone(timezone.utc)
                self._store.post(new_command("take", name, last=last.isoformat(), note=HELD))
                del schedule[name]
                logger.info("entry %r is Lightbus's from now on; it ran last at %s", name, last)
            elif is_lightbus(records.get(name)):
                self._store.post(new_command("pause", name, note=HELD))
                self._asked[name] = schedule.pop(name)
        self._warn_at = time.monotonic() + WARN_SECONDS
        self._is_begun = True

    def _take_back(self) -> None:
        records = self._store.records()
        for name in [name for name in self._asked if not is_lightbus(records.get(name))]:
            entry = self._asked.pop(name)
            if (last := last_slot(records.get(name))) is not None:
                entry.last_run_at = last.astimezone(self._scheduler.app.timezone)
            self._scheduler.schedule[name] = entry
            logger.info("entry %r is Celery's from now on; it ran last at %s", name, entry.last_run_at)
        if self._asked and time.monotonic() >= self._warn_at:
            self._warn_at += WARN_SECONDS
            logger.warning("waiting for `lightbus beat` to let go of %s: does it run?", ", ".join(sorted(self._asked)))


def is_lightbus(record: Mapping[str, Any] | None) -> bool:
    """Whether Lightbus fires the entry of this record."""
    return record is not None and record.get("paused") != HELD


def last_slot(record: Mapping[str, Any] | None) -> datetime | None:
    """The slot that was fired last, by whomever."""
    text = None if record is None else record.get("last_slot")
    return None if text is None else moment_from(text, "last_slot")
