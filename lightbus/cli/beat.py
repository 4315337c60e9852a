"""`lightbus beat`: fires an app's schedule until it is stopped."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import click

from lightbus_scheduler import Every, Job, Plan, Progress, Runner

from ..beat import SystemClock, run
from ..beat.loop import QuickJson, may_run, parcels_of
from ..core.errors import AccessRefused, BrokerUnreachable, ConnectionLost, NotConfirmed, NotLeading
from ..core.message import Parcel
from ..version import VERSION
from ..worker import HealthFile, Sign, Systemd
from ..worker.health import Health
from ..worker.pidfile import PidFile
from . import apps as discovery
from . import logs
from .connecting import announce
from .scheduling import AppSchedule
from .shared import app_option, url_option, without_password
from .supervision import PATH
from .unserved import refuse_unserved, warn_of_unserved

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SHOWN = 10
_TOO_MANY = 1000  #: entries, of which looking for the next costs seconds at the start
#: What a broker that is away raises. Other errors of the transport are about one message, and skip its slot.
AWAY = (AccessRefused, BrokerUnreachable, ConnectionLost, NotConfirmed, NotLeading)


@click.command()
@app_option
@url_option
@click.option("--celery-state", type=click.Path(path_type=Path), metavar="PATH",
              help="Go on from this state file of `celery beat`, for entries that are new here.")  # fmt: skip
@click.option("--new-state", is_flag=True,
              help="Forget what the broker keeps of the schedule; slots until now count as decided.")  # fmt: skip
@click.option("--allow-unknown-tasks", is_flag=True,
              help="Send tasks that this app does not have, whoever serves them.")  # fmt: skip
@click.option("--check", is_flag=True, help="Load the app, check its schedule, and end. Does not connect.")
@click.option("--health-file", type=PATH, metavar="PATH",
              help="Touch this file every 5 seconds while this process leads or stands by.")  # fmt: skip
@click.option("--pidfile", type=PATH, metavar="PATH",
              help="Write the pid there; refuse to start while another process holds the file.")  # fmt: skip
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@click.option("--log-format", type=click.Choice(logs.FORMATS), default="text", show_default=True,
              help="json: one object per line, for programs.")  # fmt: skip
@click.option("-f", "--logfile", metavar="PATH", default="", help="Write the log there and not to stderr.")
@click.option("--until-stdin-ends", is_flag=True, hidden=True)  # of the beat beside a worker, see `beside`
def beat(
    apps: tuple[str, ...], url: str | None, celery_state: Path | None, new_state: bool, check: bool,
    health_file: Path | None, pidfile: Path | None, loglevel: str, log_format: str, logfile: str,
    until_stdin_ends: bool, allow_unknown_tasks: bool,
) -> int:  # fmt: skip
    """Fire what is scheduled: @bus.schedule, Celery's beat_schedule, lightbus.toml, `lightbus schedule add`.

    Start as many as you like. One of them leads; when it dies or freezes another goes on, and no slot is fired twice
    or left out. Needs RabbitMQ, Redis or the embedded broker, where the state of the schedule is kept.

    \b
    Examples:
      lightbus beat -A proj.celery
      lightbus beat -A proj.celery --celery-state celerybeat-schedule
    """
    logs.configure(loglevel, log_format, logfile)
    app = discovery.required(apps, url)
    schedule = AppSchedule.of(app, url)
    (warn_of_unserved if allow_unknown_tasks or until_stdin_ends else refuse_unserved)(schedule)
    seeds = schedule.seeds()
    if celery_state is not None:
        if seeds:
            raise click.UsageError(
                "--celery-state is for a schedule that moves at once; the entries of this one move one by one "
                "(lightbus_beat_entries), and Celery's beat tells their last runs"
            )
        seeds = seeds_from(celery_state, schedule.jobs)
    say = logs.log_line if log_format == "json" else logs.print_line
    if check:
        say("\n".join(next_lines(schedule.jobs, seeds)))
        return 0
    announce(app, say)
    store = schedule.store()
    if new_state:
        store.reset()
    say(f"lightbus {VERSION} beat for {', '.join(app.names)} on {without_password(schedule.url)}")
    say("\n".join(next_lines(schedule.jobs, seeds)))
    keep_for_good()
    runner: Runner[Parcel] = Runner(
        schedule.jobs, store, parcels_of, SystemClock(), schedule.job_of, AWAY, may_run, seeds,
        text=QuickJson(),
    )  # fmt: skip
    with contextlib.ExitStack() as held:
        if pidfile is not None:
            held.callback(PidFile(pidfile).remove)
        signs: list[Sign] = [] if health_file is None else [HealthFile(health_file)]
        if (systemd := Systemd.from_environment(os.environ)) is not None:
            signs.append(systemd)
        stop, led = threading.Event(), False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if until_stdin_ends:
            threading.Thread(target=lambda: stop.set() if not sys.stdin.buffer.read() else None, daemon=True).start()

        def on_step(leading: bool) -> None:
            nonlocal led
            if leading and not led:
                keep_for_good()
            led = leading
            for sign in signs:
                sign.show(Health(ready=True, processes=1, consuming=int(leading)), time.monotonic())

        say(f"lightbus beat ready pid={os.getpid()}")
        run(runner, store, schedule.ends, schedule.answers, stop, on_step)
        for sign in signs:
            sign.gone()
        app.close()
    return 0


def keep_for_good() -> None:
    """Keep the collector off the entries; with 100,000 of them each full collection would hold up what is due."""
    gc.collect()
    gc.freeze()


def seeds_from(path: Path, jobs: Sequence[Job]) -> dict[str, Progress]:
    """What Celery's beat has done of the entries, so that each goes on where it was.

    Raises:
        ConfigError: the file cannot be read.
    """
    from ..compat.beat_state import last_runs

    last = last_runs(path)
    seeds: dict[str, Progress] = {}
    for job in jobs:
        if (moment := last.get(job.entry.id)) is not None:
            is_open = isinstance(job.entry.schedule, Every) and job.entry.schedule.anchor is None
            seeds[job.entry.id] = Progress(decided=moment, anchor=moment if is_open else None, last_at=moment)
    return seeds


def next_lines(jobs: Sequence[Job], seeds: dict[str, Progress]) -> list[str]:
    """The next firings of the code's entries, in words, and what a reader of an expression may not expect."""
    if len(jobs) > _TOO_MANY:
        return [f"{len(jobs)} entries in code and settings"]
    now = datetime.now(timezone.utc)
    plan = Plan()
    for job in jobs:
        seed = seeds.get(job.entry.id, Progress(decided=now))
        plan.put(job.entry, replace(seed, decided=max(seed.decided, now)))
    shared = {entry_id for entry_id, seed in seeds.items() if seed.paused is not None}
    here = [job.entry.id for job in jobs if job.entry.id not in shared]
    soon = sorted((due[0], entry_id) for entry_id in here if (due := plan.next_slot(entry_id)) is not None)
    by_id = {job.entry.id: job for job in jobs}
    lines = [f"{len(jobs)} entries in code and settings" + (", the next:" if soon else "")]
    lines += [
        f"  {due.isoformat(timespec='seconds')}  {entry_id}: {by_id[entry_id].target.describe()}"
        for due, entry_id in soon[:_SHOWN]
    ]
    if shared:
        lines.append(f"shared with Celery's beat, fired here once it lets go of them: {', '.join(sorted(shared))}")
    for job in jobs:
        expression = getattr(job.entry.schedule, "expression", None)
        if expression is not None:
            lines += [f"  note: {job.entry.id}: {remark}" for remark in expression.remarks]
    return lines
