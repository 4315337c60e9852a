"""The shop example from start to end: `make demo`, or `python examples/shop/demo.py [BROKER]`.

BROKER: `sqlite` (embedded, the default), `rabbitmq`, `redis`, or a URL. Shows the move of one task from Celery to
Lightbus and back while messages are under way, in real processes, and counts at the end. What is played is in
`rehearsal/`; this file shows it.

Exit codes: 0: the count is right. 1: it is not, and why. 2: the command line. 69: the broker cannot be reached.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rehearsal.programs import WaitedInVain
from rehearsal.stage import Stage
from rehearsal.steps import MESSAGES, ORDERS, Move
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lightbus import ConfigError, TransportError

EXIT_UNAVAILABLE = 69
NAMES = {
    "rabbitmq": "amqp://guest:guest@localhost:5672//",
    "amqp": "amqp://guest:guest@localhost:5672//",
    "redis": "redis://localhost:6379/0",
}


def main() -> int:
    arguments = sys.argv[1:]
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0 if len(arguments) == 1 else 2
    asked = (arguments or [os.environ.get("BROKER", "")])[0] or "sqlite"
    folder = Path(tempfile.mkdtemp(prefix="lightbus-demo-"))
    broker = f"sqlite:///{folder / 'bus.db'}" if asked == "sqlite" else NAMES.get(asked, asked)
    if "://" not in broker:
        print(f"BROKER is {asked!r}: say sqlite, rabbitmq, redis, or a URL like amqp://user:password@host/vhost")
        return 2
    stage = Stage(folder / "stage", broker)
    show = Show(Console(highlight=False, soft_wrap=True), stage)
    keep = False
    try:
        left = stage.left_over()
        if left:
            show.console.print(
                f"There are messages in {', '.join(left)} on {stage.broker_name}: use a broker of its own."
            )
            return 1
        if not stage.transport.capabilities.shared:
            show.console.print(
                f"{stage.broker_name} serves one process alone, and this needs several: use another broker."
            )
            return 2
        problems = show.play()
        keep = bool(problems)
    except ConfigError as error:
        show.console.print(escape(str(error)))
        return 2
    except TransportError as error:
        show.console.print(f"The broker {stage.broker_name} cannot be used: {escape(str(error))}")
        return EXIT_UNAVAILABLE
    except KeyboardInterrupt:
        show.console.print("Interrupted; all processes are ended.")
        return 130
    finally:
        stage.end()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if problems:
        for problem in problems:
            show.console.print(f"[red]- {escape(problem)}")
        show.console.print(f"The logs are in {stage.logs}, the journal is in {stage.var}.")
        return 1
    return 0


class Show:
    """Plays the move and tells of it: with a progress bar on a terminal, else as plain lines."""

    def __init__(self, console: Console, stage: Stage) -> None:
        self.console = console
        self.stage = stage

    def play(self) -> list[str]:
        """What is wrong with the count; nothing, when all is well."""
        started = time.monotonic()
        self.console.print(f"[bold]A Celery task moves to Lightbus and back[/bold], on {self.stage.broker_name}.")
        move = Move(self.stage, say=lambda line: self.console.print(f"   {escape(line)}", soft_wrap=True))
        failure = ""
        with self._progress():
            try:
                for number, (title, step) in enumerate(Move.STEPS, start=1):
                    self.console.print(f"\n[bold]{number}. {title}[/bold]")
                    step(move)
                move.end()
            except WaitedInVain as error:
                failure = str(error)
        problems = [failure] if failure else []
        problems += self._problems(move)
        self._print_table(problems, time.monotonic() - started)
        if not failure:
            self.stage.clean_up()
        return problems

    @contextlib.contextmanager
    def _progress(self) -> Iterator[None]:
        """A bar of the messages that were handled, where there is a terminal to draw it on."""
        columns = (TextColumn("messages handled"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            bar = progress.add_task("", total=MESSAGES)
            with self.stage.watched(lambda ledger: progress.update(bar, completed=ledger.handled)):
                yield

    def _problems(self, move: Move) -> list[str]:
        ledger, forwarded = self.stage.ledger, self.stage.forwarded
        dead = self.stage.waiting_dead()
        checks = [
            (not ledger.lost, f"lost: {ledger.lost}"),
            (not ledger.twice, f"run twice: {ledger.twice}"),
            (not ledger.early, f"run before their time: {ledger.early}"),
            (not dead, f"parked in the dead-letter queue: {dead}"),
            (bool(forwarded), "nothing was forwarded from one side to the other"),
            (bool(ledger.run_by("celery")), "Celery ran nothing"),
            (bool(ledger.run_by("lightbus")), "Lightbus ran nothing"),
            (len(ledger.fired) == len(ORDERS), f"{len(ledger.fired)} events were fired, not {len(ORDERS)}"),
            (not ledger.unheard, f"events that a listener did not get: {ledger.unheard}"),
            (not ledger.heard_twice, f"events that a listener got twice: {ledger.heard_twice}"),
            (move.calls == move.CALLS_WELL, f"calls: {move.calls or 'not made'}, wanted {move.CALLS_WELL}"),
        ]
        return [text for well, text in checks if not well]

    def _print_table(self, problems: list[str], seconds: float) -> None:
        ledger = self.stage.ledger
        table = Table(title=f"\nThe ledger of {self.stage.broker_name}", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        rows: list[tuple[str, int]] = [
            ("tasks sent", len(ledger.sent)),
            ("run by Celery", len(ledger.run_by("celery"))),
            ("run by Lightbus", len(ledger.run_by("lightbus"))),
            ("forwarded from one to the other", len(self.stage.forwarded)),
            ("lost", len(ledger.lost)),
            ("run twice", len(ledger.twice)),
            ("events fired", len(ledger.fired)),
            ("events heard, by two listeners", sum(ledger.heard.values())),
        ]
        for name, count in rows:
            table.add_row(name, str(count))
        self.console.print(table)
        verdict = "[red]The count is wrong[/red]" if problems else "[green]The count is right[/green]"
        self.console.print(f"{verdict}, after {seconds:.0f} seconds.")


def _stop(*_signal: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # so that its processes end with it then, too
    signal.signal(signal.SIGHUP, _stop)
    sys.exit(main())
