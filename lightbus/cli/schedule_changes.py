"""The commands of `lightbus schedule` that change it. What they ask for is done once, by the leader or in its place."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import click

from lightbus_scheduler import between, new_command
from lightbus_scheduler.commands import MOST_BACKFILLED
from lightbus_scheduler.plain import moment_from, plain_progress

from .schedule_opened import opened, require
from .shared import app_option, object_of, url_option
from .unserved import unserved


@click.command()
@click.argument("entry")
@click.option("--definition", "text", required=True, metavar="JSON",
              help='The entry: {"cron": "0 3 * * *", "tz": "Europe/Lisbon", "task": "proj.tasks.report"}.')  # fmt: skip
@app_option
@url_option
def add(entry: str, text: str, apps: tuple[str, ...], url: str | None) -> None:
    """Add ENTRY to the store.

    \b
    Keys of its definition:
      cron, tz, dialect, fold, gap | every_seconds, anchor | at | solar, latitude, longitude
      task, args, kwargs, options | event, fields | call, arguments, timeout_seconds
      misfire, overlap, overlap_limit_seconds, jitter_seconds, start, end, count
    """
    _define("add", entry, text, apps, url)


@click.command(short_help="Replace an entry that was added.")
@click.argument("entry")
@click.option("--definition", "text", required=True, metavar="JSON", help="The whole entry, as for `add`.")
@app_option
@url_option
def edit(entry: str, text: str, apps: tuple[str, ...], url: str | None) -> None:
    """Replace the definition of ENTRY, which was added to the store. Slots decided so far stay decided."""
    _define("edit", entry, text, apps, url)


def _define(do: str, entry: str, text: str, apps: tuple[str, ...], url: str | None) -> None:
    definition = {**object_of(text, "--definition"), "id": entry}
    with opened(apps, url) as open_schedule:
        jobs = open_schedule.jobs()
        if do == "add" and entry in jobs:
            raise click.UsageError(f"there is an entry {entry!r} already, in {jobs[entry].source}")
        if do == "edit" and require(entry, jobs).definition is None:
            raise click.UsageError(f"{entry!r} stands in {jobs[entry].source}: change it there")
        try:
            job = open_schedule.code.job_of(definition)
        except ValueError as error:
            raise click.UsageError(f"entry {entry!r}: {error}") from error
        if (wrong := unserved(job, open_schedule.code)) is not None:
            raise click.UsageError(str(wrong))
        open_schedule.carry_out(new_command(do, entry, definition=definition))


def _change(do: str, entry: str, apps: tuple[str, ...], url: str | None, **values: Any) -> None:
    with opened(apps, url) as open_schedule:
        job = require(entry, open_schedule.jobs())
        if do == "rm" and job.definition is None:
            raise click.UsageError(f"{entry!r} stands in {job.source}: remove it there, or pause it")
        open_schedule.carry_out(new_command(do, entry, **values))


@click.command()
@click.argument("entry")
@app_option
@url_option
def rm(entry: str, apps: tuple[str, ...], url: str | None) -> None:
    """Remove ENTRY from the store."""
    _change("rm", entry, apps, url)


@click.command()
@click.argument("entry")
@click.option("--note", default="", help="Why; it is shown, and stands beside each slot that is skipped.")
@app_option
@url_option
def pause(entry: str, note: str, apps: tuple[str, ...], url: str | None) -> None:
    """Skip the slots of ENTRY until `resume`."""
    _change("pause", entry, apps, url, note=note)


@click.command()
@click.argument("entry")
@app_option
@url_option
def resume(entry: str, apps: tuple[str, ...], url: str | None) -> None:
    """Fire ENTRY again, from its next slot on."""
    _change("resume", entry, apps, url)


@click.command(short_help="Begin from now, after a clock was ahead.")
@click.argument("entry")
@app_option
@url_option
def rewind(entry: str, apps: tuple[str, ...], url: str | None) -> None:
    """Let ENTRY begin from now, when it was decided until later because the clock was ahead."""
    _change("rewind", entry, apps, url)


@click.command()
@click.argument("entry")
@app_option
@url_option
def trigger(entry: str, apps: tuple[str, ...], url: str | None) -> None:
    """Fire ENTRY once now, besides its slots."""
    _change("trigger", entry, apps, url)


@click.command(short_help="Fire the slots between two moments.")
@click.argument("entry")
@click.option("--after", required=True, metavar="MOMENT", help="ISO 8601 with an offset; not included.")
@click.option("--until", required=True, metavar="MOMENT", help="The same; included.")
@click.option("--dry-run", is_flag=True, help="Print the slots, and fire nothing.")
@app_option
@url_option
def backfill(entry: str, after: str, until: str, dry_run: bool, apps: tuple[str, ...], url: str | None) -> None:
    """Fire the slots of ENTRY between two moments, whatever was decided of them."""
    try:
        span = moment_from(after, "--after"), moment_from(until, "--until")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with opened(apps, url) as open_schedule:
        require(entry, open_schedule.jobs())
        slots = list(islice(between(open_schedule.plan().entry(entry).slots, *span), MOST_BACKFILLED + 1))
        if len(slots) > MOST_BACKFILLED:
            raise click.UsageError(f"more than {MOST_BACKFILLED:,} slots: give shorter spans")
        for slot in slots:
            click.echo(slot.isoformat())
        if slots and not dry_run:
            open_schedule.carry_out(
                new_command("backfill", entry, after=span[0].isoformat(), until=span[1].isoformat())
            )


@click.command("import-django", short_help="Take over what stands in django-celery-beat's tables.")
@click.option("--dry-run", is_flag=True, help="Print what would become of each entry, and change nothing.")
@app_option
@url_option
def import_django(dry_run: bool, apps: tuple[str, ...], url: str | None) -> int:
    """Take over the entries in django-celery-beat's tables, each from its last run on.

    Stop Celery's beat before, and start `lightbus beat` after it: what comes due in between is made up for. The tables
    are only read. An entry that is here already stays as it is, so the command can be given again; one that could not
    be taken is told on stderr, and the exit code is 1 then.
    """
    from ..compat.beat import zone_of
    from ..compat.beat_tables import table_entries

    with opened(apps, url) as open_schedule:
        jobs, commands, left_out = open_schedule.jobs(), [], 0
        for found in table_entries(str(zone_of(open_schedule.code.task_app))):
            progress, job = plain_progress(found.progress), jobs.get(found.name)
            try:
                if found.unusable:
                    raise ValueError(found.unusable)
                if job is None:
                    open_schedule.code.job_of(found.definition)
            except ValueError as error:
                left_out += 1
                click.echo(f"{found.name}: left out: {error}", err=True)
                continue
            if job is None:
                commands.append(new_command("add", found.name, definition=found.definition, progress=progress))
                click.echo(f"{found.name}: added")
            elif job.definition is None and not _has_begun(open_schedule.records.get(found.name, {})):
                commands.append(new_command("begin", found.name, progress=progress))
                click.echo(f"{found.name}: stands in {job.source}, and goes on from its last run")
            else:
                click.echo(f"{found.name}: is here already")
        if commands and not dry_run:
            open_schedule.carry_out(*commands)
    return 1 if left_out else 0


def _has_begun(record: Mapping[str, Any]) -> bool:
    return bool(record.get("fired") or record.get("paused") is not None or record.get("last_at"))


CHANGES = (add, edit, rm, pause, resume, rewind, trigger, backfill, import_django)
