"""`lightbus call`: calls an API over the bus, as an application does, and prints the answer."""

from __future__ import annotations

import json
from typing import Any

import click

from ..core.errors import ApiError, BadArguments
from . import apps as discovery
from .connecting import connected
from .names import check_names, lookup, types_of_call
from .shared import app_option, fields_of, json_option, print_json, url_option


@click.command()
@click.argument("name", metavar="API.CALL")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", metavar="JSON", help="All arguments as one JSON object.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="How long to wait; default: what the call declares.")  # fmt: skip
@app_option
@url_option
@json_option
def call(
    name: str, pairs: tuple[str, ...], data: str | None, timeout: float | None, apps: tuple[str, ...],
    url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Call an API and print its answer.

    A VALUE is JSON; what is no JSON, or does not fit the declared type as JSON, is text. Text answers are printed as
    they are, others as JSON.

    \b
    Examples:
      lightbus call support.tickets.status id=7 -A shop
      lightbus call support.tickets.open --data '{"order": 1, "text": "broken"}' --timeout 2 -A shop
    """
    app = discovery.required(apps, url)
    declared = lookup(name, app.calls(), "call")
    types = types_of_call(declared)
    arguments = fields_of(pairs, data, types)
    check_names(arguments, types, name)
    contract = declared.api
    assert contract is not None, "a call of a loaded contract knows its contract"
    with connected(app, url) as bus:
        bound = getattr(bus.client(contract), declared.name).with_options(
            timeout_seconds=timeout or declared.timeout_seconds
        )
        try:
            answer = bound(**arguments)
        except BadArguments as error:
            raise click.UsageError(str(error)) from error
        except ApiError as error:
            raise click.ClickException(f"{name} answered with {type(error).__name__}: {error}") from error
    _show(answer, as_json)


def _show(answer: Any, as_json: bool) -> None:
    import msgspec

    value = msgspec.to_builtins(answer)
    if as_json:
        print_json(value)
    elif value is not None:
        click.echo(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str))
