"""`lightbus schedule`: what is scheduled, what happened to it, and changes that survive restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import click

from lightbus_scheduler import CronError, Job, Plan, Progress, Runner, Schedule, between, new_command, parse
from lightbus_scheduler.cron import Cron
from lightbus_scheduler.plain import moment_from, plain_schedule, progress_from

from ..beat import SystemClock
from ..beat.loop import parcels_of
from ..core.errors import LightbusError
from ..core.message import Parcel
from ..ports import ScheduleStore
from . import apps as discovery
from . import names
from .beat import AWAY
from .connecting import announce
from .scheduling import AppSchedule
from .shared import app_option, json_option, object_of, print_json, url_option

_WAIT_SECONDS = 15.0


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


@dataclass
class Opened:
    """The schedule as the code and the store tell it."""

    code: AppSchedule
    store: ScheduleStore
    records: Mapping[str, Mapping[str, Any]]
    seeds: Mapping[str, Progress]

    def jobs(self) -> dict[str, Job]:
        jobs = {job.entry.id: job for job in self.code.jobs}
        for entry_id, record in self.records.items():
            if entry_id not in jobs and (definition := record.get("definition")) is not None:
                try:
                    jobs[entry_id] = self.code.job_of(definition)
                except ValueError as error:
                    click.echo(f"entry {entry_id!r} cannot be read: {error}", err=True)
        return jobs

    def plan(self) -> Plan:
        plan, now = Plan(), datetime.now(timezone.utc)
        for entry_id, job in self.jobs().items():
            record = self.records.get(entry_id)
            seed = self.seeds.get(entry_id, Progress(decided=now))
            plan.put(job.entry, seed if record is None else progress_from(record))
        return plan

    def carry_out(self, command: Mapping[str, Any]) -> None:
        """Have the leader do it, or be the leader for as long as it takes.

        Raises:
            LightbusError: nobody did it within 15 seconds; it waits for a leader.
        """
        self.store.post(command)
        runner: Runner[Parcel] = Runner(
            self.code.jobs, self.store, parcels_of, SystemClock(), self.code.job_of, AWAY, seeds=self.seeds
        )
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            done = runner.carry_out_commands()
            if command["request"] in done if done is not None else not self.store.is_waiting(command["request"]):
                return
            self.store.wait(0.05)
        raise LightbusError(f"no leader has carried it out within {_WAIT_SECONDS:g} s; it waits for one")


@contextmanager
def _opened(apps: tuple[str, ...], url: str | None) -> Iterator[Opened]:
    app = discovery.load(apps, url)
    announce(app)
    code = AppSchedule.of(app, url)
    store = code.store()
    try:
        yield Opened(code, store, store.records(), code.seeds())
    finally:
        store.resign()
        app.close()


def _require(entry_id: str, jobs: Mapping[str, Job]) -> Job:
    return names.lookup(entry_id, jobs, "schedule entry")


@schedule.command(short_help="All entries, with their next and last firing.")
@app_option
@url_option
@json_option
def ls(apps: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Every entry: when it is due next, when it fired last, what was decided last, and where it is defined."""
    with _opened(apps, url) as opened:
        plan, jobs = opened.plan(), opened.jobs()
        rows = [_row(entry_id, jobs[entry_id], plan, entry_id in opened.records) for entry_id in sorted(jobs)]
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
    with _opened(apps, url) as opened:
        plan, jobs = opened.plan(), opened.jobs()
        chosen = [_require(entry, jobs)] if entry else list(jobs.values())
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


@schedule.command()
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


@schedule.command(short_help="Replace an entry that was added.")
@click.argument("entry")
@click.option("--definition", "text", required=True, metavar="JSON", help="The whole entry, as for `add`.")
@app_option
@url_option
def edit(entry: str, text: str, apps: tuple[str, ...], url: str | None) -> None:
    """Replace the definition of ENTRY, which was added to the store. Slots decided so far stay decided."""
    _define("edit", entry, text, apps, url)


def _define(do: str, entry: str, text: str, apps: tuple[str, ...], url: str | None) -> None:
    definition = {**object_of(text, "--definition"), "id": entry}
    with _opened(apps, url) as opened:
        jobs = opened.jobs()
        if do == "add" and entry in jobs:
            raise click.UsageError(f"there is an entry {entry!r} already, in {jobs[entry].source}")
        if do == "edit" and _require(entry, jobs).definition is None:
            raise click.UsageError(f"{entry!r} stands in {jobs[entry].source}: change it there")
        try:
            opened.code.job_of(definition)
        except ValueError as error:
            raise click.UsageError(f"entry {entry!r}: {error}") from error
        opened.carry_out(new_command(do, entry, definition=definition))


def _change(do: str, entry: str, apps: tuple[str, ...], url: str | None, **values: Any) -> None:
    with _opened(apps, url) as opened:
        job = _require(entry, opened.jobs())
        if do == "rm" and job.definition is None:
            raise click.UsageError(f"{entry!r} stands in {job.source}: remove it there, or pause it")
        opened.carry_out(new_command(do, entry, **values))


@schedule.command()
@click.argument("entry")
@app_option
@url_option
def rm(entry: str, apps: tuple[str, ...], url: str | None) -> None:
    """Remove ENTRY from the store."""
    _change("rm", entry, apps, url)


@schedule.command()
@click.argument("entry")
@click.option("--note", default="", help="Why; it is shown, and stands beside each slot that is skipped.")
@app_option
@url_option
def pause(entry: str, note: str, apps: tuple[str, ...], url: str | None) -> None:
    """Skip the slots of ENTRY until `resume`."""
    _change("pause", entry, apps, url, note=note)


@schedule.command()
@click.argument("entry")
@app_option
@url_option
def resume(entry: str, apps: tuple[str, ...], url: str | None) -> None:
    """Fire ENTRY again, from its next slot on."""
    _change("resume", entry, apps, url)


@schedule.command(short_help="Begin from now, after a clock was ahead.")
@click.argument("entry")
@app_option
@url_option
def rewind(entry: str, apps: tuple[str, ...], url: str | None) -> None:
    """Let ENTRY begin from now, when it was decided until later because the clock was ahead."""
    _change("rewind", entry, apps, url)


@schedule.command()
@click.argument("entry")
@app_option
@url_option
def trigger(entry: str, apps: tuple[str, ...], url: str | None) -> None:
    """Fire ENTRY once now, besides its slots."""
    _change("trigger", entry, apps, url)


@schedule.command(short_help="Fire the slots between two moments.")
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
    with _opened(apps, url) as opened:
        _require(entry, opened.jobs())
        slots = list(islice(between(opened.plan().entry(entry).slots, *span), 10_001))
        if len(slots) > 10_000:
            raise click.UsageError("more than 10,000 slots: give shorter spans")
        for slot in slots:
            click.echo(slot.isoformat())
        if slots and not dry_run:
            opened.carry_out(new_command("backfill", entry, after=span[0].isoformat(), until=span[1].isoformat()))


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
