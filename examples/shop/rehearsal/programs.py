"""Processes: start, watch and end them, and wait for what they do. Only what was started here is ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

POLL_SECONDS = 0.02

T = TypeVar("T")


class WaitedInVain(AssertionError):
    """Something did not happen in time; the text names it and ends in the logs' last lines."""


def wait_for(look: Callable[[], T], seconds: float, what: str, logs: Sequence[Path] = ()) -> T:
    """Call `look` until it gives something true, and return that.

    Args:
        what: completes "waited 5 s for ...".
        logs: files whose ends the error shows.

    Raises:
        WaitedInVain: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            ends = "".join(f"\n--- end of {log}:\n{tail(log)}" for log in logs)
            raise WaitedInVain(f"waited {seconds:g} s for {what}; last seen: {seen!r}{ends}")
        time.sleep(POLL_SECONDS)


def tail(log: Path, lines: int = 25) -> str:
    """The last lines of a log, without colours."""
    text = log.read_text(errors="replace") if log.exists() else "(there is no such file)"
    return "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()[-lines:])


class Program:
    """A running Python program in a process group of its own, its output in a file."""

    STOP = signal.SIGTERM  #: asks a worker to finish what it runs, hand back what it holds, and end
    answers = False  #: stdout is read here and not logged

    def __init__(self, arguments: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> None:
        self.arguments = list(arguments)
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=folder,
                env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self.answers else output,
                stderr=output,
                start_new_session=True,
            )

    def __repr__(self) -> str:
        return f"<{' '.join(self.arguments)} pid={self.pid}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative number of a signal that ended it."""
        return self._process.poll()

    def read_log(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_log(self, text: str, seconds: float = 30) -> None:
        """Wait until it has logged `text`.

        Raises:
            WaitedInVain: it did not, or it ended before.
        """

        def look() -> bool:
            ended = self.exit_code is not None  # asked first: what it wrote last is then in the file
            if text in self.read_log():
                return True
            if ended:
                raise WaitedInVain(f"{self!r} ended with {self.exit_code} and never logged {text!r}:\n{tail(self.log)}")
            return False

        wait_for(look, seconds, f"{self!r} to log {text!r}", [self.log])

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def stop(self, seconds: float = 30) -> int:
        """A warm stop. Returns the exit code."""
        self.signal(self.STOP)
        return self.wait(seconds)

    def wait(self, seconds: float = 30) -> int:
        wait_for(lambda: self.exit_code is not None, seconds, f"{self!r} to end", [self.log])
        return self._process.returncode

    def kill(self) -> None:
        """kill -9 this process alone; what it started lives on."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """kill -9 it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Web(Program):
    """A process of `shop.web`: asked by a line of JSON, answers by one."""

    answers = True

    def ask(self, **request: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
            WaitedInVain: it ended instead of answering.
        """
        self.say(**request)
        return self.answer()

    def say(self, **request: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; `answer` says so
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise WaitedInVain(f"{self!r} ended with {self.exit_code}; its log ends in\n{tail(self.log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer
