"""`lightbus worker`: serves an app until it is stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..describing import Load
from ..worker import (
    MakeCompanion,
    Process,
    Sign,
    Supervised,
    Supervisor,
    WorkerOptions,
    answered_here,
    answers,
    permits_of,
    rates_of,
)
from . import apps as discovery
from . import life as lives
from . import logs
from .banner import banner
from .beside import BeatBeside, check_schedule, shown_alone
from .celery_flags import CeleryFlags, celery_options
from .connecting import announce
from .describing import describing
from .monitoring import monitored
from .ordering import order_of, parsed_order
from .remote import remote_control
from .selection import Selection, prepared
from .shared import GroupedCommand, app_option, url_option, without_password
from .supervision import Supervision, supervision_options

if TYPE_CHECKING:
    from ..bus import Bus
    from .monitoring import Monitoring

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

logger = logging.getLogger("lightbus.worker")


@click.command(cls=GroupedCommand)
@app_option
@url_option
@click.option("-c", "--processes", "--concurrency", "processes", type=click.IntRange(1), default=os.cpu_count() or 1,
              show_default="number of cores",
              help="Child processes, each with connections of its own.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
              help="Handlers at a time per process; coroutines do not count.")  # fmt: skip
@click.option("--coroutines", type=click.IntRange(1), default=1000, show_default=True,
              help="`async def` handlers at a time per process.")  # fmt: skip
@click.option("--prefetch", type=click.IntRange(1), default=None, show_default="adaptive",
              help="Messages that a process holds (RabbitMQ: per queue): many short ones, few long ones.")  # fmt: skip
@click.option("-Q", "--queues", metavar="NAMES", default="", help="Serve only these queues, separated by commas.")
@click.option("-X", "--exclude-queues", metavar="NAMES", default="", help="Serve all of the app's queues but these.")
@click.option("--weights", metavar="NAME=N,...", default="", help="When messages wait in several queues, take so many "
              "of these in their turn, and 1 of the others.")  # fmt: skip
@click.option("--first", metavar="NAMES", default="", help="Serve these queues first, in this order: each only while "
              "those before it have nothing.")  # fmt: skip
@click.option("--tasks", metavar="NAMES", default="", help="Run these tasks of the Celery app, though they "
              "are written for Celery; names or patterns, separated by commas.")  # fmt: skip
@click.option("--relay-outbox", is_flag=True, help="Publish what waits in the app's outboxes too, as `lightbus outbox "
              "relay` does, on a thread of each process.")  # fmt: skip
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@click.option("--log-format", type=click.Choice(logs.FORMATS), default="text", show_default=True,
              help="json: one object per line, for programs.")  # fmt: skip
@supervision_options
@celery_options
def worker(
    apps: tuple[str, ...], url: str | None, processes: int, threads: int, coroutines: int, prefetch: int | None,
    queues: str, exclude_queues: str, weights: str, first: str, tasks: str, relay_outbox: bool, loglevel: str,
    log_format: str,
    supervision: Supervision, flags: CeleryFlags,
) -> int:  # fmt: skip
    """Serve an app's listeners, calls and tasks.

    SIGTERM or Ctrl-C: take no more messages, finish what runs, exit with 0; what outlasts the grace goes back to its
    queue, exit with 1. A second one: hand back now. SIGQUIT: kill. SIGHUP: load the code anew, without a gap.

    \b
    Examples:
      lightbus worker -A shop
      lightbus worker -A shop.bus:bus --processes 4 --threads 8
      lightbus worker -A proj.celery -Q lightbus.celery
      lightbus worker -A shop --weights orders=3,newsletter=1
      lightbus worker -A proj.celery --tasks proj.tasks.resize,'proj.reports.*'
      lightbus worker -A proj.celery -B

    -Q takes Celery's own queues too: those named are served, and the tasks on them that are not known here go back.
    """
    log_handler = logs.configure(loglevel, log_format, flags.logfile)
    if flags.pool == "solo":
        supervision.refuse_solo()
    if flags.pool == "threads":
        processes, threads = 1, _threads_of_a_pool(processes, threads, supervision)
    prefetch = flags.prefetch(prefetch, threads)
    selection = Selection(_names(queues), _names(exclude_queues), flags.hostname)
    wanted_order = parsed_order(weights, _names(first))
    if supervision.check:
        app = discovery.required(apps, url)
        _adopt(app, _names(tasks), selection.wanted)
        buses, wanted = prepared(app, selection)
        order_of(wanted_order, buses, wanted)
        discovery.middleware_of(app)
        if flags.beat:
            check_schedule(app, url)
        if relay_outbox:
            _relays(app, None)
        return 0
    with monitored(supervision.http) as monitoring:
        app = discovery.required(apps, url)
        _adopt(app, _names(tasks), selection.wanted)
        told = {"loglevel": loglevel, "queues": selection.wanted, "concurrency": processes}
        life = lives.begin(app, told, selection.hostname)
        life.set_up_logging(loglevel, log_handler)
        buses, wanted = prepared(app, selection)
        relays = _relays(app, monitoring) if relay_outbox else contextlib.nullcontext
        if flags.task_events and app.task_app is not None:
            app.task_app.task_events.switch.on = True
        life.is_set_up()
        beside: BeatBeside | None = None
        if flags.beat:
            check_schedule(app, url)
            beside = BeatBeside.of(apps, url, loglevel, log_format, flags.logfile)
        scale, rates = supervision.autoscale, rates_of(buses)
        options = WorkerOptions(
            processes=processes if scale is None else scale.minimum, threads=threads, coroutines=coroutines,
            prefetch=prefetch, queues=wanted, order=order_of(wanted_order, buses, wanted),
            middleware=discovery.middleware_of(app),
            observers=() if monitoring is None else monitoring.observers_of(app, buses),
            soft_limit_seconds=supervision.soft_limit_seconds, limits=supervision.limits,
            reports_waiting=scale is not None, rates=rates, permits=permits_of(buses),
        )  # fmt: skip
        with supervision.held_pidfile() as pidfile:
            say = logs.log_line if log_format == "json" else logs.print_line
            announce(app, say)
            flags.say_idle()
            _warn_of_other_brokers(buses, url)
            if sys.stderr.isatty() or logger.isEnabledFor(logging.INFO):
                say("\n".join(banner(app, buses, options)))
            described = describing(app, buses, wanted)
            if flags.pool == "solo":
                shown = shown_alone([] if beside is None else [beside])
                with answered_here(described, Load), shown, contextlib.ExitStack() as stack:
                    _run_alone(buses, options, life, say, lambda: _enter(stack, relays))
                return 0

            def child(supervised: Supervised) -> None:
                if monitoring is not None:
                    monitoring.port.close()
                if beside is not None:
                    beside.leave()
                with life.process(), contextlib.ExitStack() as stack:
                    Process(buses, options, supervised).run(ready=lambda: _enter(stack, relays))

            companions: list[MakeCompanion] = [partial(answers, described)]
            if monitoring is not None:
                companions.append(monitoring.port.served)
                monitoring.say_port()
            signs: list[Sign] = [*life.signs, *([] if beside is None else [beside])]
            if log_format == "text" and logs.is_terminal():
                signs.append(logs.TerminalTitle(sys.stderr))
            remote = remote_control(app, buses, rates, flags)
            oversight = supervision.oversight(threads, pidfile, signs, life.before_fork, remote, companions)
            return Supervisor(options.processes, child, oversight).run(lambda pids: say(_ready(pids)))


def _enter(stack: contextlib.ExitStack, relays: Callable[[], AbstractContextManager[object]]) -> None:
    """Begin to relay once all queues are consumed: an event that came before its queue stands would be gone."""
    stack.enter_context(relays())


def _run_alone(
    buses: Sequence[Bus], options: WorkerOptions, life: lives.Life, say: Callable[[str], None],
    relay: Callable[[], None],
) -> None:  # fmt: skip
    """Everything in this process."""

    def ready() -> None:
        relay()
        say(_ready([os.getpid()]))
        life.ready()

    with life.process():
        Process(buses, options).run(ready=ready)
    life.ended()


def _relays(app: discovery.LoadedApp, monitoring: Monitoring | None) -> Callable[[], AbstractContextManager[object]]:
    """What a process has beside its handlers with `--relay-outbox`.

    Raises:
        ConfigError: the app has no outbox.
    """
    from ..outbox import RelayOptions
    from .relaying import check_outboxes, relaying

    check_outboxes(app.buses)
    watcher = None if monitoring is None else monitoring.relay_watcher()
    return lambda: relaying(app.buses, RelayOptions(), watcher)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _adopt(app: discovery.LoadedApp, patterns: Sequence[str], wanted: Sequence[str]) -> None:
    """Take the tasks that `--tasks` names, and say when their messages are sent elsewhere."""
    names = discovery.adopt(app, patterns) if patterns else ()
    settings = app.task_app.settings if app.task_app is not None and names else None
    if settings is None:
        return
    for name in names:
        queue = settings.route(name, {})
        if name not in settings.moved and queue not in wanted:
            logger.warning(
                "adopted task %r: its messages are sent to Celery's queue %r, which this worker does not serve; "
                "name it in lightbus.compat.bridge.install(app, moved=[...]), or serve that queue with -Q %s",
                name, queue, queue,
            )  # fmt: skip


def _threads_of_a_pool(concurrency: int, threads: int, supervision: Supervision) -> int:
    """`--pool threads`: -c counts threads, as in Celery.

    Raises:
        UsageError: it is said twice, or differently.
    """
    if supervision.autoscale is not None:
        raise click.UsageError("--autoscale changes the number of processes, and --pool threads has one")
    source = click.get_current_context().get_parameter_source("threads")
    if source is ParameterSource.COMMANDLINE:
        raise click.UsageError("with --pool threads it is -c that counts the threads; leave --threads out")
    return concurrency


def _warn_of_other_brokers(buses: Sequence[Bus], url: str | None) -> None:
    for bus in buses:
        if url and bus.url != url:
            logger.warning(
                "bus %r names its broker in the code, %s; --url does not change that",
                bus.name, without_password(bus.url),
            )  # fmt: skip


def _ready(pids: list[int]) -> str:
    return f"lightbus worker ready pids={','.join(map(str, pids))}"
