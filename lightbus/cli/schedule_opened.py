"""The schedule as a command finds it: what the code says, what the broker keeps, and how a change is carried out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import click

from lightbus_scheduler import Job, Plan, Progress, Runner
from lightbus_scheduler.plain import progress_from

from ..beat import SystemClock
from ..beat.loop import QuickJson, parcels_of
from ..core.errors import LightbusError
from ..core.message import Parcel
from ..ports import ScheduleStore
from . import apps as discovery
from . import names
from .beat import AWAY
from .connecting import announce
from .scheduling import AppSchedule

_WAIT_SECONDS = 15.0


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

    def carry_out(self, *commands: Mapping[str, Any]) -> None:
        """Have the leader do them, or be the leader for as long as it takes.

        Raises:
            LightbusError: for 15 seconds nobody did any; they wait for a leader.
        """
        for command in commands:
            self.store.post(command)
        waiting = {str(command["request"]) for command in commands}
        runner: Runner[Parcel] = Runner(
            self.code.jobs,
            self.store,
            parcels_of,
            SystemClock(),
            self.code.job_of,
            AWAY,
            seeds=self.seeds,
            text=QuickJson(),
        )
        deadline = time.monotonic() + _WAIT_SECONDS
        while waiting:
            before = len(waiting)
            done = runner.carry_out_commands()
            # another leader does them in order: what is still waiting is looked at from the last
            last = commands[-1]["request"]
            waiting = waiting - set(done) if done is not None else waiting if self.store.is_waiting(last) else set()
            if len(waiting) < before:
                deadline = time.monotonic() + _WAIT_SECONDS
            elif time.monotonic() > deadline:
                break
            self.store.wait(0.05 if waiting else 0.001)
        else:
            return
        raise LightbusError(f"no leader has carried it out within {_WAIT_SECONDS:g} s; it waits for one")


@contextmanager
def opened(apps: tuple[str, ...], url: str | None) -> Iterator[Opened]:
    """The schedule of what `-A` names, until the end of the block."""
    app = discovery.load(apps, url)
    announce(app)
    code = AppSchedule.of(app, url)
    store = code.store()
    try:
        yield Opened(code, store, store.records(), code.seeds())
    finally:
        store.resign()
        app.close()


def require(entry_id: str, jobs: Mapping[str, Job]) -> Job:
    """The job of that entry; a usage error names near ones when there is none."""
    return names.lookup(entry_id, jobs, "schedule entry")
