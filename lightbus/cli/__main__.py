"""`lightbus`: the table of commands, and the one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import importlib
import logging
import os
import sys

import click

from ..core.errors import LightbusError
from ..core.exitcodes import (
    EXIT_CONFIG,
    EXIT_DEFECT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_PERMISSION,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    exit_code_of,
)

#: Command to one line of help. The command itself is the function of that name in the module of that name here.
COMMANDS = {
    "worker": "Serve an app's listeners, calls and tasks.",
    "dev": "Run everything for development, with new code as files change.",
    "beat": "Fire what is scheduled; any number of them, one leads.",
    "schedule": "Look at the schedule, and change it.",
    "call": "Call an API and print its answer.",
    "fire": "Fire an event.",
    "send": "Send a task by its name.",
    "tail": "Print events as they arrive, without taking them from anybody.",
    "ls": "List who runs, who serves what, who listens to what.",
    "shell": "Start Python with a bus in it, and clients of all that runs.",
    "contract": "Export API contracts, compare them, or write one down as Python.",
    "outbox": "Publish what waits in outboxes, and look at it.",
    "dead": "Look at what was parked, try it again, or throw it away.",
    "doctor": "Look at the broker and the app, and say what is wrong.",
    "version": "Print the versions in use.",
}

EXIT_HELP = f"""\b
Exit codes:
  {EXIT_OK:3}  done
  {EXIT_FAILED:3}  failed: a call's error, findings of `doctor`, a worker stopped by a second signal
  {EXIT_USAGE:3}  wrong command line
  {EXIT_UNAVAILABLE:3}  the broker cannot be reached
  {EXIT_DEFECT:3}  a defect; --debug shows where
  {EXIT_NO_PERMISSION:3}  the broker refused the user, the password or the virtual host
  {EXIT_CONFIG:3}  the app cannot be loaded, or is declared wrongly
  {EXIT_INTERRUPTED:3}  interrupted
"""

logger = logging.getLogger("lightbus.cli")


class Commands(click.Group):
    """Loads a command's module when the command is used, so that `--help` needs none of them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"lightbus.cli.{name}"), name)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            raise click.UsageError(
                f"no command {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"there is {', '.join(COMMANDS)}")
            )
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, epilog=EXIT_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("-A", "--app", "apps", multiple=True, hidden=True)  # before the command, where Celery has it
@click.pass_context
def cli(context: click.Context, debug: bool, apps: tuple[str, ...]) -> None:
    """Lightbus: events, calls and tasks between Python applications.

    The app is found by -A MODULE[:ATTRIBUTE], by LIGHTBUS_APP, or by `app = "..."` in lightbus.toml or, under
    [tool.lightbus], in pyproject.toml; the broker by the app, by LIGHTBUS_URL, or it is the embedded one in
    ./.lightbus/.
    """
    context.obj = debug
    if apps:
        context.default_map = {name: {"apps": apps} for name in COMMANDS}


def main() -> None:
    """Run the command line; ends the process."""
    debug = "--debug" in sys.argv  # wherever it stands
    sys.argv = [sys.argv[0], *(argument for argument in sys.argv[1:] if argument != "--debug")]
    try:
        code = cli.main(prog_name="lightbus", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left; it wants no more words
        code = EXIT_FAILED  # as click ends where it meets the same
    except Exception as error:  # the top of the command line
        code, text = _verdict(error)
        if debug:
            logger.exception("the command failed")
        click.echo(f"lightbus: {text}", err=True)
    sys.exit(code if isinstance(code, int) else EXIT_OK)


def _verdict(error: Exception) -> tuple[int, str]:
    """Exit code and sentence."""
    match error:
        case click.UsageError():
            text = " ".join(error.format_message().split())
            command = error.ctx.command_path if error.ctx is not None else "lightbus"
            return error.exit_code, f"{text.rstrip('.')} (`{command} --help` shows how it is used)"
        case click.ClickException():
            return error.exit_code, error.format_message()
        case LightbusError():
            return getattr(error, "exit_code", None) or exit_code_of(error), " ".join(str(error).split())
    name = type(error).__name__
    return EXIT_DEFECT, f"a defect: {name}: {error}; run it again with --debug, and report what that shows"


if __name__ == "__main__":
    main()
