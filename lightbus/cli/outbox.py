"""`lightbus outbox`: publishes what waits in an app's outboxes, and looks at what does not get out."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.exitcodes import EXIT_FAILED, EXIT_OK
from ..core.outbox import Row
from ..core.times import iso_utc
from ..outbox import OutboxStore, RelayOptions
from ..version import VERSION
from ..worker import HealthFile, Sign, Systemd
from ..worker.health import Health
from . import apps as discovery
from . import logs
from .connecting import announce
from .monitoring import monitored
from .relaying import check_outboxes, relaying
from .shared import app_option, json_option, print_json, url_option, without_password
from .supervision import PATH, SECONDS

if TYPE_CHECKING:
    from ..bus import Bus

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ERROR_CHARACTERS = 100  #: of an error, in a table
SIGN_SECONDS = 0.5


@click.group()
def outbox() -> None:
    """Publish what waits in an app's outboxes, and look at what does not get out.

    \b
    Examples:
      lightbus outbox relay -A shop
      lightbus outbox ls -A shop
      lightbus outbox retry --aside -A shop
    """


@outbox.command()
@app_option
@url_option
@click.option("--batch", type=click.IntRange(1), default=100, show_default=True, help="Rows taken at a time.")
@click.option("--poll-seconds", type=SECONDS, default=1.0, show_default=True,
              help="How often an empty outbox is looked at; PostgreSQL wakes the relay besides.")  # fmt: skip
@click.option("--lease-seconds", type=SECONDS, default=30.0, show_default=True,
              help="After that long the rows of a relay that died go to another one.")  # fmt: skip
@click.option("--once", is_flag=True, help="Publish what waits now, and end.")
@click.option("--health-file", type=PATH, metavar="PATH", help="Touch this file every 5 seconds.")
@click.option("--http", metavar="HOST:PORT",
              help="Serve /healthz, /readyz and, with the extra `metrics`, /metrics; `:PORT` on loopback.")  # fmt: skip
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@click.option("--log-format", type=click.Choice(logs.FORMATS), default="text", show_default=True,
              help="json: one object per line, for programs.")  # fmt: skip
def relay(
    apps: tuple[str, ...], url: str | None, batch: int, poll_seconds: float, lease_seconds: float, once: bool,
    health_file: Path | None, http: str | None, loglevel: str, log_format: str,
) -> int:  # fmt: skip
    """Publish what waits in the app's outboxes, until stopped, and clean its inboxes.

    Start as many as you like: they share the work, and what was written in one transaction keeps its order. A row goes
    when the broker has its message. Broker or database away: it waits. `lightbus worker --relay-outbox` does the same.

    \b
    Examples:
      lightbus outbox relay -A shop
      lightbus outbox relay -A shop --once
    """
    logs.configure(loglevel, log_format)
    options = RelayOptions(batch=batch, poll_seconds=poll_seconds, lease_seconds=lease_seconds)
    with monitored(http) as monitoring:
        app = discovery.required(apps, url)
        check_outboxes(app.buses)
        say = logs.log_line if log_format == "json" else logs.print_line
        announce(app, say)
        if once:
            say(f"published {_flush(app.buses, options)}")
            return EXIT_OK
        signs: list[Sign] = [] if health_file is None else [HealthFile(health_file)]
        if (systemd := Systemd.from_environment(os.environ)) is not None:
            signs.append(systemd)
        if monitoring is not None:
            signs.append(monitoring.begun())
        watcher = None if monitoring is None else monitoring.relay_watcher()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            with relaying(app.buses, options, watcher):
                for bus in app.buses:
                    for store in bus.outboxes():
                        say(f"lightbus {VERSION} relay: {store.name} of {bus.name} to {without_password(bus.url)}")
                say(f"lightbus outbox relay ready pid={os.getpid()}")
                while not stop.wait(SIGN_SECONDS):
                    for sign in signs:
                        sign.show(Health(ready=True, processes=1, consuming=1), time.monotonic())
        finally:
            for sign in signs:
                sign.gone()
        app.close()
    return EXIT_OK


def _flush(buses: Sequence[Bus], options: RelayOptions) -> int:
    from ..outbox import Relay

    done = 0
    for bus in buses:
        for store in bus.outboxes():
            done += Relay(store, bus.transport, options).flush()
            store.close()
        bus.close()
    return done


@outbox.command()
@click.option("--aside", is_flag=True, help="Only those that were set aside.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="No more lines than that.")
@app_option
@json_option
def ls(aside: bool, limit: int, apps: tuple[str, ...], as_json: bool) -> None:
    """How much waits, for how long, and which messages, the oldest first.

    \b
    Examples:
      lightbus outbox ls -A shop
      lightbus outbox ls -A shop --aside --json
    """
    now = time.time()
    documents: list[dict[str, Any]] = []
    with _opened(apps) as found:
        for one in found:
            backlog = one.store.backlog()
            rows = one.store.rows(aside=True if aside else None, limit=limit)
            documents.append({
                "outbox": one.store.name, "app": one.bus, "waiting": backlog.waiting, "aside": backlog.aside,
                "lag_seconds": round(backlog.lag_seconds(now), 3), "messages": [_summary(row, now) for row in rows],
            })  # fmt: skip
    if as_json:
        print_json(documents)
        return
    for document in documents:
        for row in document["messages"]:
            error = f"  {row['error'][:ERROR_CHARACTERS]}" if row["error"] else ""
            click.echo(f"{row['id']}  {row['written']}  {row['state']}  {row['name']}{error}")
        click.echo(
            f"{document['outbox']} of {document['app']}: {document['waiting']} waiting, the oldest for "
            f"{document['lag_seconds']:.0f} s; {document['aside']} set aside"
        )


@outbox.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@app_option
@json_option
def show(ids: tuple[str, ...], apps: tuple[str, ...], as_json: bool) -> int:
    """Show rows whole: state, attempts, error, where the message goes, its properties and payload.

    ID is the beginning of a message's id.

    \b
    Examples:
      lightbus outbox show 7f3a -A shop
    """
    now = time.time()
    with _opened(apps) as found:
        documents = [_document(row, now) for one in found for row in one.store.rows(ids)]
    if as_json:
        print_json(documents)
    for document in [] if as_json else documents:
        click.echo(f"{document['id']}  {document['kind']} {document['name']}")
        for key in ("state", "written", "attempts", "error", "exchange", "routing_key"):
            click.echo(f"  {key:12} {document[key]}")
        for key, value in document["properties"].items():
            click.echo(f"  {key:12} {json.dumps(value)}")
        click.echo(json.dumps(document["payload"], indent=2, ensure_ascii=False))
    return _found(len(documents))


@outbox.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--aside", is_flag=True, help="All that were set aside.")
@app_option
def retry(ids: tuple[str, ...], aside: bool, apps: tuple[str, ...]) -> int:
    """Have the relays try rows again now that were refused or set aside.

    Exits with 1 when there was none.

    \b
    Examples:
      lightbus outbox retry 7f3a -A shop
      lightbus outbox retry --aside -A shop
    """
    done = 0
    with _opened(apps) as found:
        for one in found:
            done += one.store.retry(_positions(one.store, ids, aside))
    click.echo(f"{done} to be tried again")
    return _found(done)


@outbox.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--aside", is_flag=True, help="All that were set aside.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@app_option
def discard(ids: tuple[str, ...], aside: bool, yes: bool, apps: tuple[str, ...]) -> int:
    """Delete rows unpublished, after a question: what they say is not told to anybody.

    Exits with 1 when there was none, or the answer was no.

    \b
    Examples:
      lightbus outbox discard 7f3a -A shop
    """
    done = 0
    with _opened(apps) as found:
        chosen = [(one.store, _positions(one.store, ids, aside)) for one in found]
        number = sum(len(positions) for _, positions in chosen)
        if number and not yes and not click.confirm(f"delete {number} messages unpublished?", err=True):
            return EXIT_FAILED
        for store, positions in chosen:
            done += store.discard(positions)
    click.echo(f"discarded {done}")
    return _found(done)


@dataclass(frozen=True)
class _Opened:
    bus: str
    store: OutboxStore


@contextmanager
def _opened(apps: tuple[str, ...]) -> Iterator[list[_Opened]]:
    app = discovery.required(apps)
    check_outboxes(app.buses)
    found = [_Opened(bus.name, store) for bus in app.buses for store in bus.outboxes()]
    with ExitStack() as stack:
        for one in found:
            stack.callback(one.store.close)
        yield found


def _positions(store: OutboxStore, ids: tuple[str, ...], aside: bool) -> list[int]:
    if bool(ids) == aside:
        raise click.UsageError("say which: an ID, or --aside")
    return [row.position for row in store.rows(ids, aside=True if aside else None, limit=10_000)]


def _found(number: int) -> int:
    if not number:
        click.echo("no row of an outbox meets this", err=True)
    return EXIT_OK if number else EXIT_FAILED


def _state(row: Row, now: float) -> str:
    if row.is_aside:
        return "aside"
    if row.next_at <= now:
        return "waiting"
    return f"{'refused' if row.error else 'claimed'} until {iso_utc(row.next_at)}"


def _summary(row: Row, now: float) -> dict[str, Any]:
    return {
        "id": row.entry.message_id, "kind": row.entry.kind, "name": row.entry.name,
        "written": iso_utc(row.entry.written_at), "state": _state(row, now), "attempts": row.attempts,
        "error": row.error,
    }  # fmt: skip


def _document(row: Row, now: float) -> dict[str, Any]:
    entry = row.entry
    return _summary(row, now) | {
        "exchange": entry.exchange, "routing_key": entry.routing_key, "position": row.position,
        "properties": _json(entry.properties.encode()), "payload": _json(entry.body),
    }  # fmt: skip


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode(errors="backslashreplace")
