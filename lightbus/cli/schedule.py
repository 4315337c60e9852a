"""`lightbus schedule`: what is scheduled, and what happened to it; the changes are `schedule_changes`'s."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone, tzinfo
from itertools import islice

import click

from lightbus_scheduler import Cron, CronError, Schedule, parse

from .schedule_changes import CHANGES
from .schedule_opened import opened, require
from .schedule_rows import HEADS, in_order, row_of, zone_of
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
    """Every entry, the one that fires next first, in columns like those of `systemctl list-timers`.

    \b
    NEXT, LEFT    when it fires next, in its own zone, and in how long
    LAST, PASSED  the slot that it fired last, and how long that is ago
    LATE          by how much that firing was late
    OUTCOME       what was decided last, or that it is paused, and why
    OWNER         whose beat fires it: lightbus, or celery while that one has not let go of it
    """
    with opened(apps, url) as open_schedule:
        plan, jobs = open_schedule.plan(), open_schedule.jobs()
        now = datetime.now(timezone.utc)
        rows = in_order([row_of(job, plan, is_kept=one in open_schedule.records, now=now) for one, job in jobs.items()])
        if as_json:
            print_json([row.document() for row in rows])
            return
        _print_table([HEADS, *(row.cells() for row in rows)])


@schedule.command("next", short_help="The next firings, of one entry or of all.")
@click.argument("entry", required=False)
@click.option("-n", "count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@app_option
@url_option
@json_option
def next_(entry: str | None, count: int, apps: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """The next firings, of one ENTRY or of all, each in its own zone."""
    with opened(apps, url) as open_schedule:
        plan, jobs = open_schedule.plan(), open_schedule.jobs()
        chosen = [require(entry, jobs)] if entry else list(jobs.values())
        found: list[tuple[datetime, str]] = []
        zones: dict[str, tzinfo] = {}
        for job in chosen:
            one, progress = plan.entry(job.entry.id), plan.progress(job.entry.id)
            zones[one.id] = zone_of(one)
            if progress.paused is None:
                slots = islice(_slots(one.slots, max(progress.decided, datetime.now(timezone.utc))), count)
                found += [(one.due_at(slot), one.id) for slot in slots]
        found = sorted(found)[:count]
        if as_json:
            print_json([{"at": at.isoformat(), "id": one, "tz": str(zones[one])} for at, one in found])
            return
        for at, entry_id in found:
            click.echo(f"{at.astimezone(zones[entry_id]).isoformat(timespec='seconds')}  {entry_id}")


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


def _print_table(table: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


for _change in CHANGES:
    schedule.add_command(_change)
