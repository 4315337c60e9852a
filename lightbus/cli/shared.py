"""Options that several commands have, and how they print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def app_option(function: F) -> F:
    """`-A MODULE[:ATTRIBUTE]`, repeatable."""
    return click.option(
        "-A", "--app", "apps", multiple=True, metavar="MODULE[:ATTRIBUTE]", help="The app; repeatable."
    )(function)


def url_option(function: F) -> F:
    """`--url URL`."""
    return click.option(
        "--url", metavar="URL", help="The broker; default: the app's, LIGHTBUS_URL, or the embedded one."
    )(function)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def wait_option(function: F) -> F:
    """`--wait SECONDS`, for what asks the workers that run."""
    return click.option(
        "--wait", "wait_seconds", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", default=1.0,
        show_default=True, help="How long to wait for the workers' answers.",
    )(function)  # fmt: skip


class Grouped(click.Option):
    """An option that `--help` shows under a heading: `@click.option(..., cls=Grouped, group="Limits")`."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:  # kwargs are click's own
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command with so many options that they stand under headings. Those without one come first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            heading = parameter.group if isinstance(parameter, Grouped) else "Options"
            if (record := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, default=str))


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"://([^:/@]*):[^@/]*@", r"://\1:**@", url)


def fields_of(pairs: Sequence[str], data: str | None, types: Mapping[str, Any]) -> dict[str, object]:
    """`key=value` arguments, or a JSON object.

    Args:
        types: the declared type of each key; a value that is no JSON of that type, but may be as text, is text.

    Raises:
        click.UsageError: neither.
    """
    if data is not None:
        if pairs:
            raise click.UsageError("give key=value arguments or --data, not both")
        return object_of(data, "--data")
    fields: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise click.UsageError(f"{pair!r} is not of the form key=value")
        if key in fields:
            raise click.UsageError(f"{key!r} is given twice")
        fields[key] = fitting(text, types.get(key, Any))
    return fields


def fitting(text: str, kind: Any) -> object:
    """`text` as JSON or as itself, whichever is a `kind`; when neither is, as JSON if it can be read so."""
    import msgspec

    try:
        msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        try:
            msgspec.convert(text, kind)
        except msgspec.ValidationError:
            return value_of(text)
        return text
    return value_of(text)


def value_of(text: str) -> object:
    """The JSON value, or the text itself."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is a number that JSON does not have")


def object_of(text: str, option: str) -> dict[str, object]:
    """The JSON object that `option` gives.

    Raises:
        click.UsageError: it is none.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise click.UsageError(f"{option} is no JSON: {error}; got {text!r}") from error
    if not isinstance(value, dict):
        raise click.UsageError(f"{option} must be a JSON object, got {text}")
    return value
