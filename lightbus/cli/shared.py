"""Options that several commands have, and how they print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
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


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, default=str))


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"://([^:/@]*):[^@/]*@", r"://\1:**@", url)


def fields_of(pairs: Sequence[str], data: str | None) -> dict[str, object]:
    """`key=value` arguments, or a JSON object. A value that is no JSON is taken as text.

    Raises:
        click.BadParameter: neither.
    """
    if data is not None:
        if pairs:
            raise click.UsageError("give key=value arguments or --data, not both")
        return _object(data)
    fields: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"{pair!r} is not of the form key=value")
        fields[key] = value_of(text)
    return fields


def value_of(text: str) -> object:
    """The JSON value, or the text itself."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value


def _object(data: str) -> dict[str, object]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise click.BadParameter(f"--data is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"--data must be a JSON object, got {data}")
    return value
