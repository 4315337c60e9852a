"""What a worker's log looks like: text for people, or one JSON object per line for programs.

Both know the message being handled: a line that a handler logs carries the message's name and id, in JSON also the ids
that correlate it with others. The worker's own line about a handled message is a `Report`, whose values JSON shows.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TextIO

import click

from ..endpoint import current_delivery
from ..report import Report

if TYPE_CHECKING:
    from ..worker import Health

FORMATS = ("text", "json")
TEXT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}  # yellow, red, bold red


def configure(level: str, log_format: str, path: str = "") -> logging.Handler | None:
    """Log to stderr, or to the file `path`, unless the program has done so already; the handler that does."""
    handler = logging.FileHandler(path) if path else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else Text(colours=wants_colours() and not path))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return handler if handler in logging.getLogger().handlers else None


def wants_colours() -> bool:
    """Whether stderr is a terminal that shows colours, and nobody asked for none (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def is_terminal() -> bool:
    """Whether stderr is a terminal that understands more than text."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def print_line(text: str) -> None:
    """What a worker says of itself, for people."""
    click.echo(text, err=True)


def log_line(text: str) -> None:
    """The same as a log record, so that every line has the chosen format."""
    logging.getLogger("lightbus.worker").info("%s", text)


class TerminalTitle:
    """A `Sign` that shows a worker's health in the terminal's title: live, and never between the lines of a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = ""
        stream.write("\x1b[22;2t")  # keep the title that was there
        stream.flush()

    def show(self, health: Health, now: float) -> None:
        """See `Sign`."""
        state = "stopping" if health.stopping else "ready" if health.ready else "not ready"
        title = f"lightbus {state}: {health.busy}/{health.slots} busy in {health.processes} processes"
        if health.waiting:
            title += f", {health.waiting} wait"
        if health.restarts:
            title += f", {health.restarts} restarts"
        if title != self._shown:
            self._shown = title
            self._stream.write(f"\x1b]2;{title}\x07")
            self._stream.flush()

    def reloading(self) -> None:
        """See `Sign`."""
        self.gone()

    def gone(self) -> None:
        """See `Sign`."""
        self._stream.write("\x1b[23;2t")
        self._stream.flush()


class Text(logging.Formatter):
    """One line per record; what a handler logs ends in the message that it handles."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__(TEXT)
        self._colours = colours

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        handled = None if _is_ours(record) else current_delivery()
        if handled is not None:
            line += f" [message_name={handled.name} message_id={handled.id} attempt={handled.attempt}]"
        colour = _COLOURS.get(record.levelname) if self._colours else None
        return f"\x1b[{colour}m{line}\x1b[0m" if colour else line


class JsonLines(logging.Formatter):
    """One JSON object per line: `time` (RFC 3339, UTC), `level`, `logger`, `process`, `thread`, `text`, and what is
    known of the message being handled. An exception is an object with `type`, `text` and `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        fields: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "thread": record.threadName,
            "text": record.getMessage(),
        }
        handled = current_delivery()
        if handled is not None:
            fields |= {"message_name": handled.name, "message_id": handled.id, "attempt": handled.attempt}
            fields |= {"correlation_id": handled.correlation_id, "causation_id": handled.causation_id, **handled.trace}
        if isinstance(record.args, tuple):
            for argument in record.args:
                if isinstance(argument, Report):
                    fields |= argument.fields()
        if record.exc_info and record.exc_info[0] is not None:
            kind, error, trace = record.exc_info
            fields["exception"] = {
                "type": f"{kind.__module__}.{kind.__qualname__}",
                "text": str(error),
                "traceback": "".join(traceback.format_exception(kind, error, trace)),
            }
        if record.stack_info:
            fields["stack"] = record.stack_info
        return json.dumps(fields, default=str, ensure_ascii=False)


def _is_ours(record: logging.LogRecord) -> bool:
    """Lightbus's own lines name their message themselves."""
    return record.name == "lightbus" or record.name.startswith("lightbus.")
