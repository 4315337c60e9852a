"""`lightbus send`: sends a task by its name, in Celery's format."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import ConfigError, Unroutable
from ..core.topology import TASK_QUEUE_PREFIX, task_queue_name
from . import apps as discovery
from .connecting import announce
from .shared import app_option, json_option, object_of, print_json, url_option, value_of

if TYPE_CHECKING:
    from ..compat import TaskApp
    from ..compat.asyncresult import AsyncResult

NO_BACKENDS = (None, "", "disabled", "disabled://")


@click.command()
@click.argument("name", metavar="TASK")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option("--kwargs", metavar="JSON", help="Keyword arguments as a JSON object.")
@click.option("--countdown", type=click.FloatRange(0), metavar="SECONDS", help="Run it that much later.")
@click.option("--queue", metavar="NAME", help="Celery's name of the queue; default: as the app routes the task.")
@click.option("--served-by", type=click.Choice(["lightbus", "celery"]),
              help="Who serves it; default: what the app says, or without an app, what the queues on the broker say.",
              )  # fmt: skip
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", default=30.0,
              show_default=True, help="How long --wait waits.")  # fmt: skip
@app_option
@url_option
@json_option
def send(
    name: str, args: tuple[str, ...], kwargs: str | None, countdown: float | None, queue: str | None,
    served_by: str | None, wait: bool, timeout: float, apps: tuple[str, ...], url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Send a task by its name, in Celery's format, and print its id, or with --wait its result.

    Works without an app: the message then goes to where LIGHTBUS_URL or --url and the broker's queues lead, and --wait
    asks for the result by reply (result backend rpc://). An ARG is JSON; what is no JSON is text.

    \b
    Examples:
      lightbus send proj.tasks.resize cat.png 640 -A proj.celery
      lightbus send proj.tasks.mail --kwargs '{"to": "ann@example.org"}' --countdown 60
      lightbus send proj.tasks.add 1 2 --wait --timeout 5
    """
    values, named = [value_of(arg) for arg in args], object_of(kwargs or "{}", "--kwargs")
    app = discovery.load(apps, url)
    announce(app)
    tasks = _task_app(app, url)
    try:
        if wait and tasks.settings.result_backend in NO_BACKENDS:
            raise ConfigError("--wait needs a result backend, and the app has none: set result_backend, or omit --wait")
        _choose_side(tasks, name, queue, served_by, known=app.task_app is not None)
        options: dict[str, Any] = {"countdown": countdown, "queue": queue and queue.removeprefix(TASK_QUEUE_PREFIX)}
        if not wait and app.task_app is None:
            options["ignore_result"] = True
        try:
            sent = tasks.send_task(name, values, named, **options)
        except (TypeError, ValueError) as error:
            raise click.UsageError(f"{name} cannot be sent like this: {error}") from error
        if wait:
            _show_result(name, sent, timeout, as_json)
        elif as_json:
            print_json({"id": sent.id, "task": name})
        else:
            click.echo(sent.id)
    finally:
        tasks.close()
        app.close()


def _task_app(app: discovery.LoadedApp, url: str | None) -> TaskApp:
    """The app's own tasks; without an app, a sender that knows only the broker."""
    from ..compat import Settings, TaskApp

    if app.task_app is None:
        return TaskApp(Settings(broker_url=app.url, result_backend="rpc://"))
    if url:
        app.task_app.configure(dataclasses.replace(app.task_app.settings, broker_url=url))
    return app.task_app


def _choose_side(tasks: TaskApp, name: str, queue: str | None, served_by: str | None, *, known: bool) -> None:
    """Make `tasks` send to Lightbus's queue when Lightbus serves the task.

    Raises:
        Unroutable: without an app, the broker has neither queue.
        ConfigError: without an app, it has both.
    """
    if served_by is None and not known:
        celery_queue = (queue or tasks.settings.default_queue).removeprefix(TASK_QUEUE_PREFIX)
        ours = task_queue_name(celery_queue)
        if queue == ours:
            served_by = "lightbus"
        else:
            stands = {
                side: tasks.transport.message_count(one) is not None
                for side, one in (("lightbus", ours), ("celery", celery_queue))
            }
            if all(stands.values()):
                raise ConfigError(
                    f"both {ours!r} (Lightbus) and {celery_queue!r} (Celery) stand on the broker: "
                    "say which with --served-by, or name the app with -A"
                )
            if not any(stands.values()):
                raise Unroutable(
                    f"nobody serves {name!r} here: neither queue {ours!r} nor {celery_queue!r} stands on the broker; "
                    "start a worker, or say --served-by"
                )
            served_by = "lightbus" if stands["lightbus"] else "celery"
    if served_by == "lightbus":
        tasks.configure(dataclasses.replace(tasks.settings, moved=tasks.settings.moved | {name}))
    elif served_by == "celery":
        tasks.tasks.pop(name, None)
        tasks.configure(dataclasses.replace(tasks.settings, moved=tasks.settings.moved - {name}))


def _show_result(name: str, sent: AsyncResult, timeout: float, as_json: bool) -> None:
    from ..compat.exceptions import TimeoutError

    try:
        value = sent.get(timeout=timeout, propagate=False)
    except TimeoutError as error:
        raise click.ClickException(str(error)) from error
    if not sent.successful():
        raise click.ClickException(f"{name} ended as {sent.state}: {type(value).__name__}: {value}")
    if as_json:
        print_json({"id": sent.id, "task": name, "result": value})
    elif value is not None:
        click.echo(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
