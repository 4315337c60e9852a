"""`lightbus doctor`: looks at the broker, the app and its Celery side, and says what is wrong and what to do.

Everything it does can be done on a running system: it declares nothing, and what it takes from the dead-letter queue to
read it goes back.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..contracts.document import document_of
from ..contracts.live import check_live, live_document
from ..core.description import Description
from ..core.errors import ConfigError, LightbusError
from ..core.exitcodes import EXIT_FAILED, EXIT_OK
from ..describing import ask, can_be_asked
from . import apps as discovery
from .connecting import OWN_NAME, announce, connected
from .explaining import evidence_of, explained, sample_of_dead_letters
from .settings_files import settings_files
from .shared import app_option, json_option, print_json, url_option, without_password
from .version import versions

if TYPE_CHECKING:
    from ..bus import Bus
    from ..ports import Transport

MANY_WAITING = 1000
LONG_WAITING_SECONDS = 60.0  #: in an outbox


@dataclass
class Examination:
    """What was seen.

    Attributes:
        queues: name to messages that wait; None for a queue that does not stand.
        dead_letters: name of each dead-letter queue to its messages.
        settings: what files and the environment say, and which of them.
        dead: reason and queue of the sampled dead letters, and how many there are of each.
        findings: what is wrong, one sentence each, with what to do.
    """

    brokers: list[dict[str, object]] = field(default_factory=list)
    queues: dict[str, int | None] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    dead: Counter[tuple[str, str]] = field(default_factory=Counter)
    app: dict[str, object] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    celery: dict[str, object] = field(default_factory=dict)
    workers: list[dict[str, object]] = field(default_factory=list)
    asked: set[tuple[str, str]] = field(default_factory=set)
    found: list[Description] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


@click.command()
@click.argument("message", required=False)
@click.option("--to", metavar="APP", default="", help="The app that should get MESSAGE.")
@click.option("--from", "sender", metavar="APP", default="", help="The app that sends it.")
@click.option("--wait", "wait_seconds", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", default=3.0,
              show_default=True, help="How long to wait for the workers' answers.")  # fmt: skip
@app_option
@url_option
@json_option
def doctor(
    message: str | None, to: str, sender: str, wait_seconds: float, apps: tuple[str, ...], url: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Look at the broker and the app, and say what is wrong and what to do.

    With MESSAGE, an event or a call by its name: say why APP, or nobody, gets it.

    Exits with 0 when all is well and with 1 when something was found. It changes nothing: it may be used on a running
    system. Dead letters that it looks at go back, and the workers that run are asked what they are.

    \b
    Examples:
      lightbus doctor --url amqp://localhost
      lightbus doctor -A proj.celery --json
      lightbus doctor support.tickets.created --from support --to billing --url amqp://localhost
    """
    if message is None and (to or sender):
        raise click.UsageError("--to and --from are about a MESSAGE: name the event or the call, <api>.<name>")
    app = discovery.load(apps, url)
    if message is not None:
        with connected(app, url) as bus:
            return explained(message, to, sender, evidence_of(message, to, app, bus, wait_seconds), as_json)
    seen = Examination()
    for bus in _buses(app, url):
        _examine_bus(bus, seen, wait_seconds)
        _examine_outboxes(bus, seen)
        bus.close()
    _examine_app(app, seen)
    seen.settings = _origins_of_settings(apps)
    _examine_contracts(app, seen)
    _examine_celery(app, seen)
    if as_json:
        print_json(_document(seen))
    else:
        announce(app)
        _print(seen)
    return EXIT_FAILED if seen.findings else EXIT_OK


def _buses(app: discovery.LoadedApp, url: str | None) -> list[Bus]:
    from ..bus import Bus

    buses = list(app.buses)
    if app.task_app is not None:
        from ..compat.endpoint import TaskEndpoint

        app.task_app.bus.add_endpoint(TaskEndpoint(app.task_app))
        buses.append(app.task_app.bus)
    if url and any(bus.url != url for bus in buses):
        buses.append(Bus(OWN_NAME, url=url))  # what is asked for by name is looked at, whatever the app uses
    return buses or [Bus(OWN_NAME, url=app.url)]


def _examine_outboxes(bus: Bus, seen: Examination) -> None:
    for store in bus.outboxes():
        try:
            backlog = store.backlog()
        except LightbusError as error:
            seen.findings.append(f"the outbox {store.name!r} of {bus.name!r} cannot be read: {error}")
            continue
        finally:
            store.close()
        lag_seconds = backlog.lag_seconds(time.time())
        if lag_seconds > LONG_WAITING_SECONDS:
            seen.findings.append(
                f"{backlog.waiting} messages wait in the outbox {store.name!r} of {bus.name!r}, the oldest for "
                f"{lag_seconds:.0f} s: does a relay run (`lightbus outbox relay`, `lightbus worker --relay-outbox`)? "
                "`lightbus outbox ls` shows them"
            )
        if backlog.aside:
            seen.findings.append(
                f"{backlog.aside} messages of the outbox {store.name!r} of {bus.name!r} were set aside: "
                "`lightbus outbox ls --aside` says why, `lightbus outbox retry --aside` has them tried again"
            )


def _examine_bus(bus: Bus, seen: Examination, wait_seconds: float) -> None:
    where = without_password(bus.url)
    from ..endpoint import shared_queues
    from ..orphans import orphans

    started = time.monotonic()
    try:
        transport = bus.transport
        dead = transport.message_count(bus.dead_letter_queue)
    except LightbusError as error:
        seen.brokers.append({"app": bus.name, "url": where, "reachable": False})
        seen.findings.append(f"{bus.name}: {' '.join(str(error).split())}")
        return
    seen.brokers.append(
        {"app": bus.name, "url": where, "reachable": True, "answered_in_seconds": round(time.monotonic() - started, 3)}
        | {"capabilities": dataclasses.asdict(transport.capabilities)}
    )
    if bus.dead_letter_queue not in seen.dead_letters:
        seen.dead_letters[bus.dead_letter_queue] = dead or 0
        _examine_dead_letters(transport, bus.dead_letter_queue, dead or 0, seen)
    own = {queue for endpoint in bus.endpoints() for queue in shared_queues(endpoint)}

    def all_consumed(found: Sequence[Description]) -> bool:
        return bool(own) and own <= {queue for one in found for queue in one.queues}

    found = ask(transport, OWN_NAME, seconds=wait_seconds, enough=all_consumed) if can_be_asked(transport) else None
    for endpoint in bus.endpoints():
        for queue in shared_queues(endpoint):
            _examine_queue(bus, queue, seen)
    for orphan in orphans(transport, bus.name, [f"{bus.name}.on.{listener.name}" for listener in bus.listeners()]):
        seen.queues[orphan.queue] = orphan.waiting
        seen.findings.append(f"{bus.name}: {orphan}")
    if found is not None:
        _examine_workers(bus, own, found, seen)


def _examine_queue(bus: Bus, queue: str, seen: Examination) -> None:
    waiting = seen.queues[queue] = bus.transport.message_count(queue)
    if waiting is None and queue.startswith("lightbus.rpc."):
        seen.findings.append(
            f"no worker serves the calls of queue {queue!r} of {bus.name}, so callers fail at once: start one"
        )
    elif waiting is None:
        seen.findings.append(
            f"queue {queue!r} of {bus.name} is declared in the code and not on the broker, so nothing is kept for it: "
            "start a worker once"
        )
    elif waiting >= MANY_WAITING:
        seen.findings.append(f"{waiting} messages wait in queue {queue!r} of {bus.name}: start more worker processes")


def _examine_workers(bus: Bus, own: Set[str], found: Sequence[Description], seen: Examination) -> None:
    """What the workers that run say, against what is declared in the code at hand."""
    seen.workers += [
        {"app": one.app, "host": one.host, "pid": one.pid, "processes": one.processes, "lightbus": one.lightbus}
        for one in found
        if (one.worker, one.app) not in seen.asked
    ]
    seen.asked |= {(one.worker, one.app) for one in found}
    seen.found += found
    consumed = {queue for one in found for queue in one.queues}
    for queue in sorted(own - consumed):
        if (waiting := seen.queues.get(queue)) is not None:
            seen.findings.append(
                f"no worker that answers consumes queue {queue!r} of {bus.name}, where {waiting} messages wait: start "
                "one, or start anew those that run older code"
            )


def _examine_contracts(app: discovery.LoadedApp, seen: Examination) -> None:
    """The contracts that the app imports against what runs."""
    try:
        checked = check_live(document_of(app.apis.values()), {api.api_name for bus in app.buses for api in bus.apis()},
                             live_document(seen.found))  # fmt: skip
    except LightbusError as error:
        seen.findings.append(str(error))
        return
    for name, version, running in checked.unserved:
        seen.findings.append(
            f"the app was written against {name} {version}, and only {running} runs: its calls fail, and its "
            "listeners hear nothing"
        )
    for one in checked.used:
        if not one.is_fine:
            seen.findings.append(
                f"the app was written against {one.api} {one.old_version}, and {one.new_version} runs, which does not "
                "go with it: `lightbus contract check --against LIVE` has the differences"
            )


def _examine_dead_letters(transport: Transport, queue: str, count: int, seen: Examination) -> None:
    if not count:
        return
    why = sample_of_dead_letters(transport, queue, count)
    seen.dead += why
    reasons = ", ".join(f"{number} {reason} on {source}" for (reason, source), number in why.most_common(3))
    seen.findings.append(
        f"{count} messages are parked in {queue!r} ({reasons}): `lightbus dead ls` says why; correct the cause, then "
        "`lightbus dead replay` or `lightbus dead discard` them"
    )


def _examine_app(app: discovery.LoadedApp, seen: Examination) -> None:
    seen.app = {
        "modules": list(app.names),
        "apis": sorted(f"{api.api_name} {api.api_version}" for api in app.apis.values()),
        "listeners": sorted(listener.name for bus in app.buses for listener in bus.listeners()),
        "tasks": sorted(app.task_app.tasks) if app.task_app is not None else [],
    }


def _origins_of_settings(apps: tuple[str, ...]) -> dict[str, str]:
    found = {name: str(path) for name, path in settings_files(Path.cwd()).origins().items()}
    if apps:
        found["app"] = "-A"
    elif os.environ.get(discovery.APP_VARIABLE):
        found["app"] = discovery.APP_VARIABLE
    return found


def _examine_celery(app: discovery.LoadedApp, seen: Examination) -> None:
    if not app.celery_apps:
        return
    from ..compat.bridge import is_installed, settings_from
    from ..compat.resultstore import open_result_store

    (celery_app,) = app.celery_apps
    name, installed = celery_app.main or "the Celery app", is_installed(celery_app)
    seen.celery = {"app": name, "bridge_installed": installed}
    if not installed and app.task_app is not None:
        seen.findings.append(
            f"tasks have moved, but {name} has no bridge, so its workers throw their messages away: write "
            "lightbus.compat.bridge.install(app) below app = Celery(...)"
        )
    try:
        settings = settings_from(celery_app)
        open_result_store(settings, _no_transport)
    except ConfigError as error:
        seen.findings.append(f"{name}: {error}")
        return
    broker = settings.broker_url or ""
    seen.celery |= {
        "broker": without_password(broker),
        "result_backend": without_password(str(settings.result_backend or "none")),
        "default_queue": settings.default_queue,
    }
    for bus in app.buses:
        if without_password(bus.url) != without_password(broker):
            seen.findings.append(
                f"bus {bus.name!r} is on {without_password(bus.url)} and {name} on {without_password(broker)}: "
                "give both the same broker, unless two are meant"
            )
    if settings.always_eager:
        seen.findings.append(f"task_always_eager is on in {name}, so no task is ever sent: keep it to tests")


def _no_transport() -> Transport:
    raise AssertionError("opening a result store connects to nothing")


def _document(seen: Examination) -> dict[str, object]:
    dead = [{"reason": reason, "queue": queue, "count": count} for (reason, queue), count in seen.dead.most_common()]
    return {
        "ok": not seen.findings, "findings": seen.findings, "brokers": seen.brokers, "queues": seen.queues,
        "dead_letters": seen.dead_letters, "dead_letter_sample": dead, "app": seen.app, "workers": seen.workers,
        "settings": seen.settings, "celery": seen.celery, "versions": versions(),
    }  # fmt: skip


def _print(seen: Examination) -> None:
    for broker in seen.brokers:
        rows: dict[str, Any] = dict(broker)
        capabilities = rows.pop("capabilities", {})
        _print_table(f"broker of {rows.pop('app')}", {**rows, **capabilities})
    _print_table("app", {key: ", ".join(names) for key, names in seen.app.items() if isinstance(names, list) and names})
    _print_table("settings, and where they stand", seen.settings)
    for worker in seen.workers:
        _print_table(f"worker of {worker['app']}", {key: value for key, value in worker.items() if key != "app"})
    _print_table("messages that wait", {**seen.queues, **seen.dead_letters})
    _print_table("Celery", seen.celery)
    _print_table("versions", versions())
    for finding in seen.findings:
        click.echo(f"FOUND    {finding}")
    click.echo("all is well" if not seen.findings else f"{len(seen.findings)} found")


def _print_table(title: str, rows: Mapping[str, object]) -> None:
    width = max((len(key) for key in rows), default=0)
    if rows:
        click.echo(title)
    for key, value in rows.items():
        click.echo(f"  {key:{width}}  {_in_words(value)}")


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not there" if value is None else str(value)
