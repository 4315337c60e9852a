"""Several programs side by side in one terminal: started, shown, started again, and ended together, whatever happens.

Each is a session of its own, so that a Ctrl-C of the terminal is for this process, which ends them in order. A guard
outlives it for the one case in which it cannot: when it is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..core.exitcodes import EXIT_UNAVAILABLE

LOOK_SECONDS = 0.5
AWAY_SECONDS = 2.0  #: before a program whose broker is away is started again
ENDING_SECONDS = 10.0  #: what a program gets to finish what it runs, before it is killed
_COLOURS = (36, 33, 32, 35, 34, 31)  # cyan first: red is last, it looks like an error
#: What is said at the first stop, the second, and the third.
_STOPS = (
    "stopping: what runs is finished",
    "stopping now: what runs is handed back",
    "stopping by force",
)
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}


@dataclass
class Program:
    """A program that shall run.

    Attributes:
        reloads: it sees by itself that its source has changed.
    """

    label: str
    command: Sequence[str]
    environment: Mapping[str, str]
    reloads: bool = True
    process: subprocess.Popen[bytes] | None = None
    unread: bytes = b""
    #: On the monotonic clock; infinity until a file changes.
    starts_at: float = field(default=0.0)

    def start(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        return self.process

    def signal(self, number: signal.Signals) -> None:
        """To the program; SIGKILL also to all that it started."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGKILL else os.kill)(self.process.pid, number)


class Programs:
    """Runs programs until `stop`.

    Args:
        folder: when a .py file below it changes, programs that have ended are started again.
        out: where lines go, each after the label of the program that wrote it.
    """

    def __init__(self, programs: Sequence[Program], folder: Path, out: BinaryIO, *, colours: bool = False) -> None:
        self._programs = programs
        self._watch = SourceTree(folder)
        self._out = out
        self._width = max(len(program.label) for program in programs)
        self._marks = {
            program.label: _mark(program.label.ljust(self._width), _COLOURS[number % len(_COLOURS)] if colours else 0)
            for number, program in enumerate(programs)
        }
        self._wake_reader, self._wake_writer = os.pipe()
        self._asked = self._told = 0  # stops

    def stop(self) -> None:
        """End them: once to finish what they run, again to hand it back, a third time by force. For signal handlers."""
        self._asked += 1
        os.write(self._wake_writer, b".")

    def run(self) -> int:
        """Returns when all have ended after a `stop`."""
        guard = Guard()
        kill_at = float("inf")
        try:
            while not self._told or any(program.process is not None for program in self._programs):
                if self._told < self._asked:
                    self._told = self._asked
                    kill_at = min(kill_at, time.monotonic() + ENDING_SECONDS)
                    self._say(_STOPS[min(self._told, 3) - 1])
                    self._signal_all(signal.SIGKILL if self._told > 2 else signal.SIGTERM)
                if time.monotonic() >= kill_at:
                    self._signal_all(signal.SIGKILL)
                if not self._told:
                    self._start_due(guard)
                self._show()
                self._reap(guard)
        finally:
            self._signal_all(signal.SIGKILL)
            guard.let_go()
        return 0

    def _start_due(self, guard: Guard) -> None:
        if self._watch.has_changed():
            for program in self._programs:
                program.starts_at = 0.0
                if not program.reloads:
                    program.signal(signal.SIGTERM)  # it is started again when it has ended
        for program in self._programs:
            if program.process is None and time.monotonic() >= program.starts_at:
                program.starts_at = float("inf")
                guard.watch(program.start().pid)

    def _show(self) -> None:
        """Wait for what the programs say, for a moment, and show it."""
        pipes = {
            program.process.stdout.fileno(): program
            for program in self._programs
            if program.process is not None and program.process.stdout is not None
        }
        readable, _, _ = select.select([self._wake_reader, *pipes], [], [], LOOK_SECONDS)
        for number in readable:
            if number == self._wake_reader:
                os.read(self._wake_reader, 64)
            elif text := os.read(number, 65536):
                *lines, pipes[number].unread = (pipes[number].unread + text).split(b"\n")
                self._write(pipes[number], lines)
            else:
                _close(pipes[number])

    def _reap(self, guard: Guard) -> None:
        for program in self._programs:
            process = program.process
            # What it wrote last is read first; but a process that it left behind may hold the pipe open for ever.
            if process is None or process.poll() is None:
                continue
            if process.stdout is not None and select.select([process.stdout], [], [], 0)[0]:
                continue
            _close(program)
            guard.forget(process.pid)
            if program.unread:
                self._write(program, [program.unread])
            program.process, program.unread = None, b""
            if self._told:
                continue
            if process.returncode == EXIT_UNAVAILABLE:
                program.starts_at = time.monotonic() + AWAY_SECONDS
            self._write(program, [f"ended with {process.returncode}; {_when(program)}".encode()])

    def _write(self, program: Program, lines: Sequence[bytes]) -> None:
        mark = self._marks[program.label]
        self._out.write(b"".join(mark + line + b"\n" for line in lines))
        self._out.flush()

    def _say(self, line: str) -> None:
        self._out.write(line.encode() + b"\n")
        self._out.flush()

    def _signal_all(self, number: signal.Signals) -> None:
        for program in self._programs:
            program.signal(number)


class Guard:
    """A process that ends the programs when this one has died: it sees the end of a pipe that only this one has."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        if os.fork() == 0:
            try:
                os.setsid()  # what the terminal sends is not for it
                os.close(self._writer)
                self._stand(reader)
            finally:
                os._exit(0)
        os.close(reader)

    def watch(self, pid: int) -> None:
        """`pid` leads a session, which is to end with this process."""
        os.write(self._writer, f"+{pid}\n".encode())

    def forget(self, pid: int) -> None:
        """It has ended, and its number may be somebody else's next."""
        os.write(self._writer, f"-{pid}\n".encode())

    def let_go(self) -> None:
        os.close(self._writer)

    def _stand(self, reader: int) -> None:
        watched: set[int] = set()
        with open(reader, encoding="ascii") as words:
            for word in words:
                (watched.add if word[0] == "+" else watched.discard)(int(word[1:]))
        for number, seconds in ((signal.SIGTERM, ENDING_SECONDS), (signal.SIGKILL, 0.0)):
            for pid in watched:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and any(map(_is_there, watched)):
                time.sleep(0.1)


class SourceTree:
    """Looks whether a .py file below a folder has changed, by the files' times; at most once per LOOK_SECONDS."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = dict(self._look())
        self._looked = time.monotonic()

    def has_changed(self) -> bool:
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return False
        before, self._seen = self._seen, dict(self._look())
        self._looked = time.monotonic()
        return before != self._seen

    def _look(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for folder, below, files in os.walk(self._folder):
            below[:] = [name for name in below if name not in _SKIPPED and not name.startswith(".")]
            if "pyvenv.cfg" in files:  # an environment is not the project's source
                below.clear()
                continue
            for name in files:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    with contextlib.suppress(OSError):  # it has just gone
                        stat = os.stat(path)
                        yield path, (stat.st_mtime_ns, stat.st_size)


def _mark(label: str, colour: int) -> bytes:
    return f"\x1b[{colour}m{label} |\x1b[0m ".encode() if colour else f"{label} | ".encode()


def _when(program: Program) -> str:
    if program.starts_at == float("inf"):
        return "it starts again when a .py file below this folder changes"
    return "it starts again" if program.starts_at == 0.0 else f"it starts again in {AWAY_SECONDS:g} s"


def _close(program: Program) -> None:
    if program.process is not None and program.process.stdout is not None:
        program.process.stdout.close()
        program.process.stdout = None


def _is_there(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
