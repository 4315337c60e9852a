"""The bus that a command sends with, closed when the command is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from ..bus import Bus
from .apps import LoadedApp

OWN_NAME = "command-line"


@contextmanager
def connected(app: LoadedApp, url: str | None) -> Iterator[Bus]:
    """The app's bus; with `url` one of the command line's own, because what is said on the command line wins."""
    announce(app)
    bus = Bus(OWN_NAME, url=url) if url else app.bus()
    try:
        yield bus
    finally:
        bus.close()
        app.close()


def _to_stderr(text: str) -> None:
    click.echo(text, err=True)


def announce(app: LoadedApp, say: Callable[[str], None] = _to_stderr) -> None:
    """Say that the embedded broker is used, when nobody named one: it is another one in each folder."""
    if app.is_embedded_by_default:
        path = os.path.relpath(app.url.removeprefix("sqlite:///"))
        say(f"no broker configured: using the embedded broker in ./{path}")
