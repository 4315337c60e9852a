"""The options of `lightbus worker` for its processes: limits, stops, signs of life, reload; as one value."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..core.errors import ConfigError
from ..worker import Autoscale, HealthFile, Limits, MakeCompanion, Oversight, Sign, Systemd
from ..worker.pidfile import PidFile
from .remote import Remote
from .shared import Grouped

SECONDS = click.FloatRange(0, min_open=True)
PATH = click.Path(dir_okay=False, path_type=Path)

_OPTIONS = (
    click.option("--autoscale", metavar="MAX,MIN", cls=Grouped, group="Limits",
                 help="In place of --processes: more while messages wait, fewer while slots are idle."),
    click.option("--time-limit", type=SECONDS, metavar="SECONDS", cls=Grouped, group="Limits",
                 help="End the process of a handler that runs for longer; the message is retried or parked."),
    click.option("--soft-time-limit", type=SECONDS, metavar="SECONDS", cls=Grouped, group="Limits",
                 help="Raise SoftTimeLimitExceeded in a handler that runs for longer."),
    click.option("--max-crashes", type=click.IntRange(1), metavar="N", default=3, show_default=True, cls=Grouped,
                 group="Limits", help="Park a message under which N processes died."),
    click.option("--max-tasks-per-child", type=click.IntRange(1), metavar="N", cls=Grouped, group="Limits",
                 help="Replace a process that has handled N messages."),
    click.option("--max-memory-per-child", type=click.IntRange(1), metavar="KIB", cls=Grouped, group="Limits",
                 help="Replace a process that has more KiB resident."),
    click.option("--grace-seconds", type=click.FloatRange(0), metavar="SECONDS", default=60.0, show_default=True,
                 cls=Grouped, group="Stopping and starting",
                 help="How long handlers may go on after a stop signal; then they are cut off."),
    click.option("--reload", is_flag=True, cls=Grouped, group="Stopping and starting",
                 help="For development: load the code anew when a source file changes."),
    click.option("--check", is_flag=True, cls=Grouped, group="Stopping and starting",
                 help="Load the app, check the options, and end. Does not connect."),
    click.option("--health-file", type=PATH, metavar="PATH", cls=Grouped, group="Signs of life",
                 help="Touch this file every 5 seconds while at least one process consumes."),
    click.option("--http", metavar="HOST:PORT", cls=Grouped, group="Signs of life",
                 help="Serve /healthz, /readyz and, with the extra `metrics`, /metrics. `:PORT` is on loopback."),
    click.option("--pidfile", type=PATH, metavar="PATH", cls=Grouped, group="Signs of life",
                 help="Write the pid there; refuse to start while another worker holds the file."),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What the options say; see their help."""

    autoscale: Autoscale | None
    limits: Limits
    soft_limit_seconds: float | None
    reload: bool
    check: bool
    health_file: Path | None
    http: str | None
    pidfile: Path | None

    def oversight(
        self, threads: int, pidfile: PidFile | None, more: Sequence[Sign], before_fork: Callable[[], None],
        remote: Remote | None, companions: Sequence[MakeCompanion],
    ) -> Oversight:  # fmt: skip
        """For the supervisor of processes with `threads` threads each; it tells `more` of its health too."""
        signs: list[Sign] = [] if self.health_file is None else [HealthFile(self.health_file)]
        if (systemd := Systemd.from_environment(os.environ)) is not None:
            signs.append(systemd)
        signs += more

        def before_exec() -> None:
            if pidfile is not None:
                pidfile.keep_over_exec()
            if remote is not None:
                remote.before_exec()

        return Oversight(
            threads=threads, limits=self.limits, autoscale=self.autoscale, signs=signs, reload_on_change=self.reload,
            before_fork=before_fork, before_exec=before_exec,
            attendant=None if remote is None else remote.attendant, companions=companions,
        )  # fmt: skip

    def refuse_solo(self) -> None:
        """Raises UsageError: what is asked for needs several processes."""
        limits = self.limits
        for name, given in {
            "--autoscale": self.autoscale, "--max-tasks-per-child": limits.max_tasks, "--reload": self.reload,
            "--max-memory-per-child": limits.max_memory_bytes, "--health-file": self.health_file,
            "--http": self.http,
        }.items():  # fmt: skip
            if given:
                raise click.UsageError(f"{name} needs a supervisor, which --pool solo does not have")

    @contextmanager
    def held_pidfile(self) -> Iterator[PidFile | None]:
        """The pid file, held inside the block; None where none is asked for."""
        if self.pidfile is None:
            yield None
            return
        held = PidFile(self.pidfile)
        try:
            yield held
        finally:
            held.remove()


def supervision_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a click command, which gets them as one keyword argument `supervision`."""

    @functools.wraps(function)
    def command(
        *, autoscale: str | None, time_limit: float | None, soft_time_limit: float | None, max_crashes: int,
        max_tasks_per_child: int | None, max_memory_per_child: int | None, grace_seconds: float, reload: bool,
        check: bool, health_file: Path | None, http: str | None, pidfile: Path | None, **others: object,
    ) -> Any:  # fmt: skip
        limits = Limits(
            time_seconds=time_limit, max_crashes=max_crashes, max_tasks=max_tasks_per_child,
            max_memory_bytes=None if max_memory_per_child is None else max_memory_per_child * 1024,
            grace_seconds=grace_seconds,
        )  # fmt: skip
        scale = None if autoscale is None else _scale(autoscale)
        supervision = Supervision(
            autoscale=scale, limits=limits, soft_limit_seconds=soft_time_limit, reload=reload, check=check,
            health_file=health_file, http=http, pidfile=pidfile,
        )  # fmt: skip
        return function(**others, supervision=supervision)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _scale(text: str) -> Autoscale:
    """Raises UsageError: it is none, or the number of processes is given as well."""
    if click.get_current_context().get_parameter_source("processes") is ParameterSource.COMMANDLINE:
        raise click.UsageError("give --processes or --autoscale, not both")
    try:
        return Autoscale.parse(text)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
