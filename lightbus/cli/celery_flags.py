"""The options of `celery worker` that a project's unit files and Dockerfiles have: taken with Celery's spelling.

What has a meaning here gets it; what has none is taken and said once; what cannot be had is refused with what to do.
"""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from .shared import Grouped

GROUP = "As in Celery"
POOLS = ("processes", "prefork", "threads", "solo", "gevent", "eventlet", "custom")

#: Options that need nothing here, and why.
_IDLE = {
    "--without-gossip": "workers take no notice of each other's heartbeats",
    "-O": "a process takes no more than its slots work on while handlers are long",
    "--pool-start-method": "processes are forked",
    "--schedule": "the state of the schedule is on the broker; `lightbus beat --celery-state` goes on from a file",
}

#: What `--scheduler` may say of Celery's own, whose place `lightbus beat` takes.
_SCHEDULERS = ("PersistentScheduler", "celery.beat:PersistentScheduler", "celery.beat.PersistentScheduler")

logger = logging.getLogger("lightbus.worker")

_OPTIONS = (
    click.option("-P", "--pool", type=click.Choice(POOLS), default="processes", metavar="POOL", show_default=True,
                 cls=Grouped, group=GROUP,
                 help="processes or prefork; threads: -c counts them, in one process; solo: everything in this "
                      "process, for debugging."),
    click.option("-n", "--hostname", metavar="NAME", default="", cls=Grouped, group=GROUP,
                 help="The worker's name, for monitors and in results: `w1@%h`; %h host, %n and %d its two parts."),
    click.option("-f", "--logfile", metavar="PATH", default="", cls=Grouped, group=GROUP,
                 help="Write the log there and not to stderr; %n is the worker's name, %h and %d as above."),
    click.option("--prefetch-multiplier", type=click.IntRange(0), metavar="N", cls=Grouped, group=GROUP,
                 help="--prefetch as N messages per thread; 0: adaptive."),
    click.option("-E", "--task-events", "--events", "task_events", is_flag=True, cls=Grouped, group=GROUP,
                 help="Send Celery's task events to monitors such as Flower."),
    click.option("-B", "--beat", "beat", is_flag=True, cls=Grouped, group=GROUP,
                 help="Run a `lightbus beat` beside the worker, which ends with it. Any number of workers may: one "
                      "beat leads."),
    click.option("-S", "--statedb", metavar="PATH", default="", cls=Grouped, group=GROUP,
                 help="Keep revokes in this file over a restart; %n, %h and %d as above."),
    click.option("--heartbeat-interval", type=click.IntRange(1), default=2, metavar="SECONDS", show_default=True,
                 cls=Grouped, group=GROUP, help="Between two events that say that the worker lives."),
    click.option("--without-heartbeat", is_flag=True, cls=Grouped, group=GROUP, help="Send no such events."),
    click.option("--without-mingle", is_flag=True, cls=Grouped, group=GROUP,
                 help="Do not exchange revokes with the other workers at the start."),
    click.option("-O", "--optimization", type=click.Choice(["default", "fair"]), cls=Grouped, group=GROUP,
                 metavar="PROFILE", help="default or fair; taken without effect, as is --without-gossip."),
    click.option("--without-gossip", is_flag=True, hidden=True),
    click.option("--pool-start-method", type=click.Choice(["fork", "spawn"]), hidden=True),
    click.option("-s", "--schedule", "--schedule-filename", "schedule", hidden=True),
    click.option("--scheduler", hidden=True),
    click.option("-D", "--detach", is_flag=True, hidden=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryFlags:
    """What these options say.

    Attributes:
        pool: `processes`, `threads` or `solo`.
        hostname: expanded; empty for the default.
        logfile: expanded; empty for stderr.
        prefetch_multiplier: messages per thread; None where it is not given, or 0.
        beat: a beat runs beside the worker.
        heartbeat_seconds: between two events of the worker's life; None for none.
        mingles: exchange revokes with the other workers at the start.
        statedb: path of the file that keeps revokes, expanded; empty for none.
        idle: options that were given and have no effect.
    """

    pool: str = "processes"
    hostname: str = ""
    logfile: str = ""
    prefetch_multiplier: int | None = None
    task_events: bool = False
    beat: bool = False
    heartbeat_seconds: float | None = 2.0
    mingles: bool = True
    statedb: str = ""
    idle: tuple[str, ...] = ()

    def prefetch(self, own: int | None, threads: int) -> int | None:
        """The prefetch of a process.

        Raises:
            UsageError: it is given in both ways.
        """
        if self.prefetch_multiplier is None:
            return own
        if own is not None:
            raise click.UsageError("give --prefetch or --prefetch-multiplier, not both")
        return self.prefetch_multiplier * threads

    def say_idle(self) -> None:
        """One line for all that has no effect here."""
        if self.idle:
            reasons = "; ".join(f"{name}: {_IDLE[name]}" for name in self.idle)
            logger.info("options without effect here: %s", reasons)


def celery_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a click command, which gets them as one keyword argument `flags`."""

    @functools.wraps(function)
    def command(
        *, pool: str, hostname: str, logfile: str, prefetch_multiplier: int | None, task_events: bool, beat: bool,
        statedb: str, heartbeat_interval: int, without_heartbeat: bool, without_mingle: bool,
        optimization: str | None, without_gossip: bool, pool_start_method: str | None, schedule: str | None,
        scheduler: str | None, detach: bool, **others: object,
    ) -> Any:  # fmt: skip
        if detach:
            raise click.UsageError(
                "--detach is not supported: let systemd run the worker in the foreground (Type=notify, as "
                "docs/howto/run-a-worker.md shows)"
            )
        if scheduler is not None and scheduler not in _SCHEDULERS:
            raise click.UsageError(
                f"--scheduler {scheduler} is not supported: the beat beside a worker is `lightbus beat`; see "
                "docs/migration/beat.md for what it reads"
            )
        given = {
            "--without-gossip": without_gossip, "-O": optimization is not None,
            "--pool-start-method": pool_start_method is not None, "--schedule": schedule is not None,
        }  # fmt: skip
        host = socket.gethostname()
        flags = CeleryFlags(
            pool=_pool(pool), hostname=_nodename(hostname, host), logfile=_expanded(logfile, hostname, host),
            prefetch_multiplier=prefetch_multiplier or None, task_events=task_events, beat=beat,
            heartbeat_seconds=None if without_heartbeat else float(heartbeat_interval), mingles=not without_mingle,
            statedb=_expanded(statedb, hostname, host),
            idle=tuple(name for name, is_given in given.items() if is_given),
        )  # fmt: skip
        return function(**others, flags=flags)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _pool(name: str) -> str:
    if name in ("gevent", "eventlet"):
        raise click.UsageError(
            f"--pool {name} is not supported: use --pool threads, or `async def` handlers, which need no pool"
        )
    if name == "custom":
        raise click.UsageError("--pool custom is not supported: use processes, threads or solo")
    return "processes" if name == "prefork" else name


def _nodename(text: str, host: str) -> str:
    """`w1` and `w1@%h` as Celery reads them: without a host part it is this one."""
    if not text:
        return ""
    name, at, where = text.partition("@")
    short, _, domain = host.partition(".")
    whole = f"{name}@{where}" if at else f"{name}@%h"
    return whole.replace("%h", host).replace("%n", short).replace("%d", domain).replace("%%", "%")


def _expanded(path: str, hostname: str, host: str) -> str:
    """In a file name `%n` is the worker's name; all processes of a worker write one file, so %i and %I are empty."""
    name = (_nodename(hostname, host) or f"lightbus@{host}").partition("@")[0]
    values = {"%n": name, "%h": host, "%d": host.partition(".")[2], "%i": "", "%I": "", "%%": "%"}
    for mark, value in values.items():
        path = path.replace(mark, value)
    return path
