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
@app_option
@url_option
@json_option
def fire(
    name: str, pairs: tuple[str, ...], data: str | None, apps: tuple[str, ...], url: str | None, as_json: bool
) -> None:
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
            bus.fire(event)
        except BadArguments as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        print_json({"fired": name, "data": msgspec.to_builtins(event)})
    else:
        click.echo(f"fired {name}", err=True)
