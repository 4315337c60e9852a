"""`lightbus ls`: who runs, who serves what, who listens to what, as the workers say themselves when they are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from ..core.anyevent import is_heard
from ..core.api import Api
from ..core.description import ANY_VERSION, Description
from ..core.topology import is_ordered_lane, rpc_queue
from ..describing import ask
from ..endpoint import shared_queues
from ..ports import Transport
from . import apps as discovery
from .connecting import OWN_NAME, connected
from .shared import app_option, json_option, print_json, url_option, wait_option, without_password

WHAT = ("apps", "apis", "events", "queues")
Row = dict[str, Any]


@click.command()
@click.argument("what", type=click.Choice(WHAT), default="apps")
@wait_option
@app_option
@url_option
@json_option
def ls(what: str, wait_seconds: float, apps: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """List what the workers on a broker say of themselves. Each is asked; nothing is kept of those that have ended.

    apps: the workers, by app. apis: who serves which version. events: who owns them and who listens. queues: what waits
    and who consumes. With -A, also the APIs, events and queues of that app that no worker has.

    \b
    Examples:
      lightbus ls --url amqp://localhost
      lightbus ls events -A shop
      lightbus ls apis --json
    """
    app = discovery.load(apps, url)
    with connected(app, url) as bus:
        found = ask(bus.transport, OWN_NAME, seconds=wait_seconds)
        rows = rows_of(what, found, list(app.apis.values()))
        if what == "queues":
            rows = with_counts(rows, _queues_of(app), bus.transport)
        where = without_password(bus.url)
    if as_json:
        print_json(rows)
        return
    if not found:
        click.echo(f"no worker answers on {where} within {wait_seconds:g} s", err=True)
    for line in table([_in_words(row) for row in rows]):
        click.echo(line)


def rows_of(what: str, found: Sequence[Description], known: Sequence[type[Api]] = ()) -> list[Row]:
    """What is listed: one of WHAT.

    Args:
        known: contracts that are listed too when no worker has them.
    """
    match what:
        case "apps":
            return [_app_row(one) for one in found]
        case "apis":
            return _api_rows(found, known)
        case "events":
            return _event_rows(found, known)
    return _queue_rows(found)


def with_counts(rows: Sequence[Row], declared: Sequence[str], transport: Transport) -> list[Row]:
    """Queue rows with the messages that wait, None where there is no such queue; those only `declared` come last."""
    named = {row["queue"] for row in rows}
    every = [*rows, *({"queue": name, "kind": "", "consumers": []} for name in declared if name not in named)]
    return [{**row, "waiting": transport.message_count(row["queue"])} for row in every]


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines of equal columns, with the keys of the rows above them."""
    if not rows:
        return []
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]  # fmt: skip


def _app_row(one: Description) -> Row:
    return {
        "app": one.app, "host": one.host, "pid": one.pid, "processes": one.processes, "busy": one.busy,
        "slots": one.slots, "lightbus": one.lightbus, "started_at": one.started_at,
        "apis": [f"{api.name} {api.version}" for api in one.apis],
        "listeners": [listener.name for listener in one.listeners], "tasks": list(one.tasks),
    }  # fmt: skip


def _api_rows(found: Sequence[Description], known: Sequence[type[Api]]) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {
        (api.api_name, api.api_version): {
            "api": api.api_name, "version": api.api_version, "calls": list(api.api_calls),
            "events": list(api.api_events), "queue": rpc_queue(api.api_name, api.major()).name, "served_by": [],
        }
        for api in known
    }  # fmt: skip
    for one in found:
        for api in one.apis:
            contract = api.contract or {}
            row = rows.setdefault((api.name, api.version), {
                "api": api.name, "version": api.version, "calls": list(contract.get("calls", ())),
                "events": list(contract.get("events", ())), "queue": api.queue, "served_by": [],
            })  # fmt: skip
            row["served_by"].append(_place(one))
    return [rows[key] for key in sorted(rows)]


def _event_rows(found: Sequence[Description], known: Sequence[type[Api]]) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}

    def row(name: str, version: str) -> Row:
        return rows.setdefault(
            (name, version.partition(".")[0]),
            {"event": name, "major": int(version.partition(".")[0]), "owned_by": [], "heard_by": []},
        )

    for contract in known:
        for name in contract.api_events:
            row(f"{contract.api_name}.{name}", contract.api_version)
    for one in found:
        for api in one.apis:
            for name in (api.contract or {}).get("events", ()):
                owners = row(f"{api.name}.{name}", api.version)["owned_by"]
                _add(owners, {"app": one.app, "version": api.version})
    heard = [(one, listener, event) for one in found for listener in one.listeners for event in listener.events]
    for one, listener, event in sorted(heard, key=lambda each: each[2].version == ANY_VERSION):  # patterns at the end
        place = {"app": one.app, "listener": listener.name, "queue": listener.queue, "version": event.version}
        if event.version != ANY_VERSION:
            _add(row(event.name, event.version)["heard_by"], place)
            continue
        for each in rows.values():
            if is_heard(each["event"], event.name):
                _add(each["heard_by"], place)
    return [rows[key] for key in sorted(rows)]


def _queue_rows(found: Sequence[Description]) -> list[Row]:
    rows: dict[str, Row] = {}
    for one in found:
        kinds = {api.queue: "calls" for api in one.apis} | {each.queue: "listener" for each in one.listeners}
        for queue in one.queues:
            if any(is_ordered_lane(queue, one.app, each.name) for each in one.listeners):
                kinds[queue] = "lane"
            row = rows.setdefault(queue, {"queue": queue, "kind": kinds.get(queue, "tasks"), "consumers": []})
            row["consumers"].append(_place(one))
    return [rows[name] for name in sorted(rows)]


def _queues_of(app: discovery.LoadedApp) -> list[str]:
    return sorted(name for bus in app.buses for endpoint in bus.endpoints() for name in shared_queues(endpoint))


def _place(one: Description) -> Row:
    return {"app": one.app, "host": one.host, "pid": one.pid}


def _add(rows: list[Row], row: Row) -> None:
    if row not in rows:  # several workers of one app say the same
        rows.append(row)


def _in_words(row: Row) -> dict[str, str]:
    """A row's cells for people; a list of places becomes the apps, with how many workers of each."""
    return {key: _WORDS.get(key, str)(value) for key, value in row.items() if key not in _NOT_SHOWN}


def _joined(names: Sequence[object]) -> str:
    return ", ".join(map(str, names)) or "-"


def _places(places: Sequence[Row]) -> str:
    counts: dict[str, int] = {}
    for place in places:
        counts[place["app"]] = counts.get(place["app"], 0) + 1
    return _joined([app if number == 1 else f"{app} ({number} workers)" for app, number in counts.items()])


def _owners(owners: Sequence[Row]) -> str:
    return _joined([f"{one['app']} {one['version']}" for one in owners])


def _hearers(hearers: Sequence[Row]) -> str:
    return _joined([f"{one['app']}.{one['listener']} {one['version']}" for one in hearers])


_NOT_SHOWN = {"started_at", "slots"}
_WORDS: Mapping[str, Callable[[Any], str]] = {
    "apis": _joined, "listeners": _joined, "tasks": lambda names: str(len(names)), "calls": _joined, "events": _joined,
    "served_by": _places, "consumers": _places, "owned_by": _owners, "heard_by": _hearers,
    "waiting": lambda count: "no queue" if count is None else str(count), "kind": lambda kind: kind or "-",
}  # fmt: skip
