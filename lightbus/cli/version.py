"""`lightbus version`: which versions are in use here. Reads what is installed, imports none of it."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from ..version import VERSION
from .shared import json_option, print_json

PACKAGES = ("kombu", "amqp", "redis", "celery", "msgspec", "click")


def versions() -> dict[str, str | None]:
    """Name to version; None for what is not installed."""
    found: dict[str, str | None] = {"lightbus": VERSION, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the versions in use.

    \b
    Example:
      lightbus version --json
    """
    found = versions()
    if as_json:
        print_json(found)
        return
    for name, number in found.items():
        click.echo(f"{name:10} {number or 'not installed'}")
