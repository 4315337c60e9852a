"""`lightbus worker`: serves an app until it is stopped."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from ..config import is_embedded
from ..core.errors import ConfigError
from ..version import VERSION
from ..worker import Process, Supervisor, WorkerOptions
from . import apps as discovery
from .shared import app_option, without_password

if TYPE_CHECKING:
    from ..bus import Bus

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@click.command()
@app_option
@click.option("-c", "--processes", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="number of cores",
              help="Child processes, each with connections of its own.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
              help="Handlers at a time per process; coroutines do not count.")  # fmt: skip
@click.option("--prefetch", type=click.IntRange(1), default=8, show_default=True,
              help="Messages that a process holds, per queue.")  # fmt: skip
@click.option("-Q", "--queues", metavar="NAMES", default="", help="Serve only these queues, by comma.")
@click.option("--pool", type=click.Choice(["processes", "solo"]), default="processes", show_default=True,
              help="solo: everything in this process, for debugging.")  # fmt: skip
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
def worker(
    apps: tuple[str, ...], processes: int, threads: int, prefetch: int, queues: str, pool: str, loglevel: str
) -> int:
    """Serve an app's listeners, calls and tasks.

    SIGTERM or Ctrl-C: take no more messages, finish what runs, exit with 0. A second one: end at once; what was not
    finished goes back to its queue.

    \b
    Examples:
      lightbus worker -A shop
      lightbus worker -A shop.bus:bus --processes 4 --threads 8
      lightbus worker -A proj.celery -Q lightbus.celery
    """
    logging.basicConfig(
        stream=sys.stderr, level=loglevel.upper(), format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
    )
    app = discovery.required(apps)
    wanted = frozenset(name.strip() for name in queues.split(",") if name.strip())
    buses = _served(app, tuple(wanted))
    options = WorkerOptions(processes=processes, threads=threads, prefetch=prefetch, queues=wanted)
    _announce(app, buses, options)
    if pool == "solo":
        Process(buses, options).run(ready=lambda: _say_ready([os.getpid()]))
        return 0

    def child(supervisor_pipe: int, ready: Callable[[], None]) -> None:
        Process(buses, options).run(supervisor_pipe=supervisor_pipe, ready=ready)

    return Supervisor(processes, child).run(_say_ready)


def _served(app: discovery.LoadedApp, wanted: tuple[str, ...]) -> list[Bus]:
    """The buses to serve, the tasks' own one among them.

    Raises:
        ConfigError: there is nothing to serve, or a wanted queue is not the app's.
    """
    buses = list(app.buses)
    if app.task_app is not None:
        from ..compat.endpoint import TaskEndpoint

        others = {name for bus in buses for endpoint in bus.endpoints() for name in endpoint.queues()}
        app.task_app.bus.add_endpoint(
            TaskEndpoint(app.task_app, queues=[name for name in wanted if name not in others])
        )
        buses.append(app.task_app.bus)
    buses = [bus for bus in buses if bus.endpoints()]
    if not buses:
        raise ConfigError(
            f"{', '.join(app.names)} has nothing to serve: no listener (bus.on), no API (bus.serve), no task "
            "(lightbus.compat.task); is the module that declares them imported?"
        )
    known = {name for bus in buses for endpoint in bus.endpoints() for name in endpoint.queues()}
    if missing := set(wanted) - known:
        raise ConfigError(f"no queue {', '.join(sorted(missing))} in this app; it has {', '.join(sorted(known))}")
    return buses


def _announce(app: discovery.LoadedApp, buses: Sequence[Bus], options: WorkerOptions) -> None:
    lines = [f"lightbus {VERSION} worker for {', '.join(app.names)}"]
    if app.is_embedded_by_default:
        lines.append(f"no broker is configured: using the embedded one, {app.url.removeprefix('sqlite:///')}")
    for bus in buses:
        embedded = " (embedded)" if is_embedded(bus.url) else ""
        lines.append(f"{bus.name} on {without_password(bus.url)}{embedded}")
        lines += [
            f"  {name}"
            for endpoint in bus.endpoints()
            for name in sorted(endpoint.queues())
            if not options.queues or name in options.queues
        ]
    if app.task_app is not None and app.task_app.tasks:
        lines.append(f"tasks: {', '.join(sorted(app.task_app.tasks))}")
    lines.append(f"{options.processes} processes, {options.threads} threads each, prefetch {options.prefetch}")
    click.echo("\n".join(lines), err=True)


def _say_ready(pids: list[int]) -> None:
    click.echo(f"lightbus worker ready pids={','.join(map(str, pids))}", err=True)
