"""`lightbus dev`: the workers and the beat of several apps in one terminal, with new code as soon as a file changes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ..config import URL_VARIABLE, resolve_url
from ..core.errors import ConfigError
from . import apps as discovery
from .logs import wants_colours
from .programs import Program, Programs
from .shared import app_option, url_option, without_password


@click.command()
@click.option("-c", "--processes", type=click.IntRange(1), default=1, show_default=True,
              help="Processes of each worker.")  # fmt: skip
@click.option("--beat/--no-beat", default=True, show_default=True, help="Fire what the apps schedule.")
@app_option
@url_option
def dev(processes: int, beat: bool, apps: tuple[str, ...], url: str | None) -> int:
    """Run everything for development: a worker for each -A, and a beat for what they schedule.

    On the embedded broker in ./.lightbus/, unless --url or LIGHTBUS_URL says another one. Each line is marked with the
    program that wrote it. A program whose source changes loads it anew; one that fails starts again at the next change
    below this folder. Ctrl-C ends all of them.

    \b
    Examples:
      lightbus dev -A sales -A support -A warranty
      lightbus dev -A shop --url redis://localhost
    """
    names = apps or discovery.configured_names()
    if not names:
        raise ConfigError("no app: say -A MODULE[:ATTRIBUTE] for each one that is to run")
    broker = resolve_url(url)
    environment = {**os.environ, URL_VARIABLE: broker, "PYTHONUNBUFFERED": "1"}
    programs = [
        Program(label, _command("worker", name, "--processes", str(processes), "--reload"), environment)
        for label, name in zip(_labels(names), names, strict=True)
    ]
    if beat:
        every = [option for name in names for option in ("-A", name)]
        programs.append(Program("beat", [*_LIGHTBUS, "beat", *every], environment, reloads=False))
    click.echo(f"{', '.join(one.label for one in programs)} on {without_password(broker)}; Ctrl-C ends all", err=True)
    running = Programs(programs, Path.cwd(), sys.stderr.buffer, colours=wants_colours())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: running.stop())
    return running.run()


_LIGHTBUS = [sys.executable, "-m", "lightbus.cli"]


def _command(command: str, name: str, *options: str) -> list[str]:
    return [*_LIGHTBUS, command, "-A", name, *options]


def _labels(names: Sequence[str]) -> list[str]:
    """The first word of each app's name, or the whole name where two would have the same."""
    short = [name.partition(":")[0].partition(".")[0] for name in names]
    return [one if short.count(one) == 1 else name for one, name in zip(short, names, strict=True)]
