"""What `lightbus schedule ls` shows of an entry, as a row for people and as JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from lightbus_scheduler import Cron, Entry, Job, Plan, Progress, Schedule
from lightbus_scheduler.plain import plain_schedule

from ..compat.beat import HELD

HEADS = ("NEXT", "LEFT", "LAST", "PASSED", "LATE", "OUTCOME", "FIRED", "ENTRY", "FIRES", "OWNER", "DEFINED IN")


@dataclass(frozen=True)
class Row:
    """One entry at one moment.

    Attributes:
        entry: with its anchor.
        next_at: when it fires next; None when never, or while it is paused.
        is_kept: a beat has noted it.
    """

    job: Job
    entry: Entry
    progress: Progress
    next_at: datetime | None
    is_kept: bool
    now: datetime

    @property
    def owner(self) -> str:
        """Whose beat fires it: `lightbus`, or `celery` while Celery's has not let go of it."""
        return "celery" if self.progress.paused == HELD else "lightbus"

    @property
    def late(self) -> timedelta | None:
        """How late the last firing was decided; None when there was none here."""
        slot, at = self.progress.last_slot, self.progress.last_at
        return None if slot is None or at is None else at - self.job.entry.due_at(slot)

    def document(self) -> dict[str, Any]:
        """Moments are in UTC, in ISO 8601; spans in seconds."""
        progress, last, late = self.progress, self.progress.last_slot, self.late
        return {
            "id": self.entry.id,
            "next": None if self.next_at is None else self.next_at.isoformat(),
            "left_seconds": None if self.next_at is None else _seconds(self.next_at - self.now),
            "last": None if last is None else last.isoformat(),
            "passed_seconds": None if last is None else _seconds(self.now - last),
            "late_seconds": None if late is None else _seconds(late),
            "tz": str(zone_of(self.entry)),
            "outcome": progress.last_outcome,
            "reason": progress.last_reason,
            "fired": progress.fired,
            "skipped": progress.skipped,
            "paused": progress.paused,
            "fires": self.job.target.describe(),
            "owner": self.owner,
            "source": self._source(),
            "schedule": _written(self.entry.schedule),
            "misfire": self.entry.misfire.rule,
            "overlap": self.entry.overlap,
        }

    def cells(self) -> tuple[str, ...]:
        """Under `HEADS`; moments are in the entry's own zone."""
        progress, zone, last, late = self.progress, zone_of(self.entry), self.progress.last_slot, self.late
        outcome = f"paused {progress.paused}".strip() if progress.paused is not None else progress.last_outcome or "-"
        return (
            "-" if self.next_at is None else moment(self.next_at, zone),
            "-" if self.next_at is None else span(self.next_at - self.now),
            "-" if last is None else moment(last, zone),
            "-" if last is None else span(self.now - last),
            "-" if late is None else span(late),
            outcome,
            str(progress.fired),
            self.entry.id,
            self.job.target.describe(),
            self.owner,
            self._source(),
        )

    def _source(self) -> str:
        return self.job.source if self.is_kept else f"{self.job.source}, not yet seen by a beat"


def row_of(job: Job, plan: Plan, *, is_kept: bool, now: datetime) -> Row:
    """The row of an entry that stands in `plan`."""
    due = plan.next_slot(job.entry.id)
    entry, progress = plan.entry(job.entry.id), plan.progress(job.entry.id)
    return Row(job, entry, progress, None if due is None else due[0], is_kept, now)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """What fires next comes first, what does not fire last."""
    return sorted(rows, key=lambda row: (row.next_at is None, row.next_at or row.now, row.entry.id))


def zone_of(entry: Entry) -> tzinfo:
    """The zone in which people read the entry's moments: that of its expression, or UTC."""
    return entry.schedule.tz if isinstance(entry.schedule, Cron) else timezone.utc


def moment(at: datetime, zone: tzinfo) -> str:
    """A whole second in a zone, with the zone's name or offset."""
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def span(delta: timedelta) -> str:
    """A span in its two largest units; of less than a minute, one."""
    seconds = delta.total_seconds()
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 1:
        return f"{sign}{round(seconds * 1000)}ms"
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, whole = divmod(rest, 60)
    if days:
        return f"{sign}{days}d {hours}h"
    if hours:
        return f"{sign}{hours}h {minutes}min"
    return f"{sign}{minutes}min {whole}s" if minutes else f"{sign}{whole}s"


def _seconds(delta: timedelta) -> float:
    return round(delta.total_seconds(), 3)


def _written(schedule: Schedule) -> dict[str, Any]:
    try:
        return plain_schedule(schedule)
    except ValueError:
        return {"kind": type(schedule).__name__}
