"""`lightbus fire`: fires an event, as an application does."""

from __future__ import annotations

import click
import msgspec

from ..core.errors import BadArguments
from . import apps as discovery
from .connecting import connected
from .names import check_names, lookup, types_of_event
from .shared import app_option, fields_of, json_option, print_json, url_option


@click.command()
@click.argument("name", metavar="API.EVENT")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", metavar="JSON", help="All fields as one JSON object.")
@click.option("--delay", "delay_seconds", type=float, default=0.0, metavar="SECONDS",
              help="It waits in the broker for so long.")  # fmt: skip
@click.option("--expires", "expires_seconds", type=float, metavar="SECONDS",
              help="Not for a listener that is free only so long after it has arrived.")  # fmt: skip
@click.option("--priority", type=int, metavar="0-9",
              help="For listeners with max_priority, where the broker has priorities.")  # fmt: skip
@app_option
@url_option
@json_option
def fire(
    name: str, pairs: tuple[str, ...], data: str | None, delay_seconds: float, expires_seconds: float | None,
    priority: int | None, apps: tuple[str, ...], url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Fire an event. It is with the broker when the command ends with 0.

    A VALUE is JSON; what is no JSON, or does not fit the declared type as JSON, is text.

    \b
    Examples:
      lightbus fire shop.orders.placed order=1 email=ann@example.org -A shop
      lightbus fire shop.orders.placed --data '{"order": 1, "email": "ann@example.org"}' -A shop
    """
    app = discovery.required(apps, url)
    kind = lookup(name, app.events(), "event")
    types = types_of_event(kind)
    fields = fields_of(pairs, data, types)
    check_names(fields, types, name)
    try:
        event = msgspec.json.decode(msgspec.json.encode(fields), type=kind)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"{name} cannot be fired like this: {error}") from error
    with connected(app, url) as bus:
        try:
            bus.fire(event, delay_seconds=delay_seconds, expires_seconds=expires_seconds, priority=priority)
        except BadArguments as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        print_json({"fired": name, "data": msgspec.to_builtins(event)})
    else:
        click.echo(f"fired {name}", err=True)
