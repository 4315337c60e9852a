"""`lightbus worker`: serves an app until it is stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..core.errors import ConfigError
from ..core.topology import TASK_QUEUE_PREFIX
from ..describing import Load
from ..endpoint import asked_for, shared_queues
from ..listeners import EventEndpoint
from ..serving import CallEndpoint
from ..version import VERSION
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
from .beside import BeatBeside, check_schedule, shown_alone
from .celery_flags import CeleryFlags, celery_options
from .connecting import announce
from .describing import describing
from .monitoring import monitored
from .ordering import order_of, parsed_order
from .remote import remote_control
from .shared import GroupedCommand, app_option, url_option, without_password
from .supervision import Supervision, supervision_options

if TYPE_CHECKING:
    from ..bus import Bus
    from ..endpoint import Endpoint
    from ..ports import Capabilities
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
        buses, wanted = _prepared(app, selection)
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
        buses, wanted = _prepared(app, selection)
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
                say("\n".join(_banner(app, buses, options)))
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


@dataclass(frozen=True, slots=True)
class Selection:
    """What to serve: of all queues those `wanted`, or all, but none `excluded`; tasks under the name `hostname`."""

    wanted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    hostname: str = ""


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


def _prepared(app: discovery.LoadedApp, selection: Selection) -> tuple[list[Bus], frozenset[str]]:
    """The buses to serve, and the queues of them to serve; empty for all.

    Raises:
        ConfigError: there is nothing to serve, or a named queue is not the app's.
    """
    buses = _served(app, selection)
    if not selection.excluded:
        return buses, frozenset(selection.wanted)
    known = {name for bus in buses for endpoint in bus.endpoints() for name in endpoint.queues()}
    excluded = {name if name in known else f"{TASK_QUEUE_PREFIX}{name}" for name in selection.excluded}
    if missing := excluded - known:
        names = ", ".join(sorted(name.removeprefix(TASK_QUEUE_PREFIX) for name in missing))
        raise ConfigError(f"no queue {names} in this app that could be excluded; it has {', '.join(sorted(known))}")
    left = frozenset(selection.wanted or known) - excluded
    if not left:
        raise ConfigError("every queue is excluded; nothing is left to serve")
    return buses, left


def _served(app: discovery.LoadedApp, selection: Selection) -> list[Bus]:
    """The buses to serve, the tasks' own one among them.

    Raises:
        ConfigError: there is nothing to serve, or a wanted queue is not the app's.
    """
    buses, wanted = list(app.buses), selection.wanted
    others = {name for bus in buses for endpoint in bus.endpoints() for name in endpoint.queues()}
    literal = [name for name in wanted if name not in others]
    if app.task_app is not None and (literal or not wanted):
        from ..compat.endpoint import TaskEndpoint

        usual = TaskEndpoint(app.task_app).queues()
        others |= {*usual, *(name.removeprefix("lightbus.") for name in usual)}
        for name in (name for name in literal if name not in others):
            import difflib  # only what may be a mistake needs it

            if near := difflib.get_close_matches(name, others, n=1):
                logger.warning(
                    "the app has no queue %r, did you mean %r? It is served as a queue of Celery", name, *near
                )
        app.task_app.bus.add_endpoint(TaskEndpoint(app.task_app, queues=literal, hostname=selection.hostname))
        app.task_app.task_events.switch.on = app.task_app.settings.send_task_events
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


def _warn_of_other_brokers(buses: Sequence[Bus], url: str | None) -> None:
    for bus in buses:
        if url and bus.url != url:
            logger.warning(
                "bus %r names its broker in the code, %s; --url does not change that",
                bus.name, without_password(bus.url),
            )  # fmt: skip


def _banner(app: discovery.LoadedApp, buses: Sequence[Bus], options: WorkerOptions) -> list[str]:
    lines = [f"lightbus {VERSION} worker for {', '.join(app.names)}"]
    for bus in buses:
        lines.append(f"{bus.name} on {without_password(bus.url)}")
        lines.append(f"  {_in_words(bus.transport.capabilities)}")
        lines += [
            f"  {name}: {_what(endpoint)}"
            for endpoint in bus.endpoints()
            for name in sorted(set(shared_queues(endpoint)) & set(asked_for(endpoint, options.queues)))
        ]
    if app.task_app is not None and app.task_app.tasks:
        lines.append(f"tasks: {', '.join(sorted(app.task_app.tasks))}")
    if app.task_app is not None and app.task_app.adopted:
        lines.append(f"adopted from Celery: {', '.join(sorted(app.task_app.adopted))}")
    prefetch = options.prefetch or "adaptive"
    lines.append(f"{options.processes} processes, {options.threads} threads each, prefetch {prefetch}")
    return lines


def _what(endpoint: Endpoint) -> str:
    match endpoint:
        case EventEndpoint():
            return "listener"
        case CallEndpoint():
            return "calls"
    return "tasks"


def _in_words(capabilities: Capabilities) -> str:
    words = [
        "publishes are confirmed" if capabilities.confirms else "publishes are not confirmed",
        "messages survive a restart" if capabilities.persistent else "messages do not survive a restart",
        f"those of a killed process are back within {capabilities.redelivery_seconds:g} s",
    ]
    return f"{capabilities.name}: {', '.join(words)}"


def _ready(pids: list[int]) -> str:
    return f"lightbus worker ready pids={','.join(map(str, pids))}"
