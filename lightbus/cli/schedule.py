"""`lightbus schedule`: what is scheduled, and what happened to it; the changes are `schedule_changes`'s."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import click

from lightbus_scheduler import CronError, Job, Plan, Schedule, parse
from lightbus_scheduler.cron import Cron
from lightbus_scheduler.plain import moment_from, plain_schedule

from .schedule_changes import CHANGES
from .schedule_opened import opened, require
from .shared import app_option, json_option, print_json, url_option


@click.group()
def schedule() -> None:
    """Look at the schedule, and change it.

    What `add` makes is kept on the broker and survives restarts; what stands in the code is changed there. A running
    `lightbus beat` carries changes out at once; when none runs, the command does it itself.

    \b
    Examples:
      lightbus schedule ls -A shop
      lightbus schedule pause report -A shop --note "the mail server moves"
      lightbus schedule explain "0 3 * * mon#1"
    """


@schedule.command(short_help="All entries, with their next and last firing.")
@app_option
@url_option
@json_option
def ls(apps: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Every entry: when it is due next, when it fired last, what was decided last, and where it is defined."""
    with opened(apps, url) as open_schedule:
        plan, jobs = open_schedule.plan(), open_schedule.jobs()
        rows = [_row(entry_id, jobs[entry_id], plan, entry_id in open_schedule.records) for entry_id in sorted(jobs)]
        if as_json:
            print_json(rows)
            return
        now = datetime.now(timezone.utc)
        table: list[tuple[str, ...]] = [("NEXT", "LEFT", "LAST", "OUTCOME", "FIRED", "ENTRY", "FIRES", "DEFINED IN")]
        for row in rows:
            left = _span(moment_from(row["next"]) - now) if row["next"] else "-"
            outcome = f"paused {row['paused']}".strip() if row["paused"] is not None else row["outcome"] or "-"
            table.append((_short(row["next"]), left, _short(row["last"]), outcome, str(row["fired"]), row["id"],
                          row["fires"], row["source"]))  # fmt: skip
        _print_table(table)


def _row(entry_id: str, job: Job, plan: Plan, is_kept: bool) -> dict[str, Any]:
    progress, due = plan.progress(entry_id), plan.next_slot(entry_id)
    return {
        "id": entry_id,
        "next": None if due is None else due[0].isoformat(),
        "last": None if progress.last_slot is None else progress.last_slot.isoformat(),
        "late_seconds": None if progress.last_slot is None or progress.last_at is None
        else round((progress.last_at - job.entry.due_at(progress.last_slot)).total_seconds(), 3),
        "outcome": progress.last_outcome,
        "reason": progress.last_reason,
        "fired": progress.fired,
        "skipped": progress.skipped,
        "paused": progress.paused,
        "fires": job.target.describe(),
        "source": job.source if is_kept else f"{job.source}, not yet seen by a beat",
        "schedule": _written(plan.entry(entry_id).schedule),
    }  # fmt: skip


@schedule.command("next", short_help="The next firings, of one entry or of all.")
@click.argument("entry", required=False)
@click.option("-n", "count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@app_option
@url_option
@json_option
def next_(entry: str | None, count: int, apps: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """The next firings, of one ENTRY or of all."""
    with opened(apps, url) as open_schedule:
        plan, jobs = open_schedule.plan(), open_schedule.jobs()
        chosen = [require(entry, jobs)] if entry else list(jobs.values())
        found: list[tuple[datetime, str]] = []
        for job in chosen:
            one, progress = plan.entry(job.entry.id), plan.progress(job.entry.id)
            if progress.paused is None:
                slots = islice(_slots(one.slots, max(progress.decided, datetime.now(timezone.utc))), count)
                found += [(one.due_at(slot), one.id) for slot in slots]
        found = sorted(found)[:count]
        if as_json:
            print_json([{"at": at.isoformat(), "id": entry_id} for at, entry_id in found])
            return
        for at, entry_id in found:
            click.echo(f"{at.isoformat(timespec='seconds')}  {entry_id}")


@schedule.command(short_help="What a cron expression means.")
@click.argument("cron")
@click.option("--tz", default="UTC", show_default=True, help="The zone in which it is read.")
@click.option("--dialect", type=click.Choice(["cron", "celery"]), default="cron", show_default=True,
              help="cron: Debian's. celery: as Celery's crontab reads it.")  # fmt: skip
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many firings.")
@json_option
def explain(cron: str, tz: str, dialect: str, count: int, as_json: bool) -> None:
    """What the expression CRON means: its next firings, and what the other dialect makes of it. Connects to nothing."""
    now = datetime.now(timezone.utc)
    try:
        one = Cron(parse(cron, "celery" if dialect == "celery" else "cron"), tz)
    except CronError as error:
        raise click.UsageError(str(error)) from error
    firings = list(islice(one.iterate(now), count))
    remarks = list(one.expression.remarks)
    remarks.append(_other_dialect(cron, dialect, tz, now, firings))
    if as_json:
        print_json({"dialect": dialect, "tz": tz, "next": [at.isoformat() for at in firings], "remarks": remarks})
        return
    click.echo(f"{cron!r} in the {dialect} dialect, in {tz}:")
    for at in firings:
        click.echo(f"  {at.astimezone(one.tz).isoformat(timespec='seconds')}  = {at.strftime('%Y-%m-%d %H:%M:%S')} UTC")
    for remark in remarks:
        click.echo(f"  note: {remark}")


def _other_dialect(cron: str, dialect: str, tz: str, now: datetime, firings: list[datetime]) -> str:
    try:
        other = Cron(parse(cron, "cron" if dialect == "celery" else "celery"), tz)
    except CronError as error:
        return f"the other dialect refuses it: {error}"
    if list(islice(other.iterate(now), len(firings))) == firings:
        return "the other dialect fires at the same times"
    return "the other dialect fires at other times: name the dialect wherever you write it"


def _slots(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    slot = schedule.next_after(after)
    while slot is not None:
        yield slot
        slot = schedule.next_after(slot)


def _written(schedule: Schedule) -> dict[str, Any]:
    try:
        return plain_schedule(schedule)
    except ValueError:
        return {"kind": type(schedule).__name__}


def _short(moment: str | None) -> str:
    return "-" if moment is None else moment_from(moment).strftime("%Y-%m-%d %H:%M:%SZ")


def _span(delta: Any) -> str:
    seconds = int(delta.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{sign}{days}d {hours}h"
    if hours:
        return f"{sign}{hours}h {minutes}min"
    return f"{sign}{minutes}min {seconds}s" if minutes else f"{sign}{seconds}s"


def _print_table(table: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


for _change in CHANGES:
    schedule.add_command(_change)
