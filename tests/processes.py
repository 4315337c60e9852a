"""Processes for acceptance tests: start, watch, stop and kill them, and wait for what they do.

A test waits for the thing itself, with a deadline; what it was waiting for and the end of the logs
are in the error. Only processes that were started here are ever signalled, by pid or process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.brokers import tail

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.02

T = TypeVar("T")


def wait_for(predicate: Callable[[], T], seconds: float, what: str, logs: Sequence[Path] = ()) -> T:
    """Call `predicate` until it gives something true, and return that.

    Args:
        what: completes "waited 5 s for ..." in the error.
        logs: files whose ends the error shows.

    Raises:
        AssertionError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            ends = "".join(f"\n--- end of {log.name}:\n{tail(log)}" for log in logs)
            raise AssertionError(f"waited {seconds:g} s for {what}; last seen: {value!r}{ends}")
        time.sleep(POLL_SECONDS)


class Process:
    """A running program, its output in a file.

    Args:
        arguments: the command line; `python` as first means this interpreter.
        log: file for stdout and stderr together; made or appended to.
        environment: added to this process's own. Lightbus and its scheduler are importable anyway.
        folder: the working directory; by default the log's.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.log = log
        command = [sys.executable, *self.arguments[1:]] if self.arguments[0] == "python" else self.arguments
        own = {"PYTHONUNBUFFERED": "1", **(environment or {})}
        paths = [own.get("PYTHONPATH", ""), str(ROOT), str(ROOT / "scheduler"), os.environ.get("PYTHONPATH", "")]
        own["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **own},
                cwd=folder or log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its process group is then its own, and can be killed as a whole
            )

    def __repr__(self) -> str:
        return f"<Process {self.pid} {' '.join(self.arguments)}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the number of the signal that ended it."""
        return self._process.poll()

    def read_log(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_log(self, text: str, seconds: float = 20) -> str:
        """Wait until the log contains `text`; returns the whole log.

        Raises:
            AssertionError: it did not within `seconds`, or the process ended without it.
        """

        def seen() -> bool:
            ended = self.exit_code is not None  # asked first: what it wrote last is then in the file
            if text in self.read_log():
                return True
            assert not ended, f"{self} ended with {self.exit_code} before it logged {text!r}\n{tail(self.log)}"
            return False

        wait_for(seen, seconds, f"{self} to log {text!r}", [self.log])
        return self.read_log()

    def wait(self, seconds: float = 20) -> int:
        """Wait until it ends; returns the exit code."""
        wait_for(lambda: self.exit_code is not None, seconds, f"{self} to end", [self.log])
        return self._process.returncode

    def stop(self, seconds: float = 20) -> int:
        """Ask it to end (SIGTERM) and wait; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the process and all that it started."""
        os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """kill -9 this process alone; what it started lives on."""
        self._process.kill()
        self._process.wait()

    def kill_group(self) -> None:
        """kill -9 this process and all that it started, at one moment."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Processes:
    """The processes of one test, their logs side by side in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Process] = []

    def start(
        self,
        *arguments: str | Path,
        name: str = "process",
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Process:
        """Start a program: `start("python", "-m", "lightbus", "worker", name="worker")`.

        Args:
            name: of the log, which is `<name>-<n>.log` in the test's folder.
        """
        log = self.folder / f"{name}-{len(self._started) + 1}.log"
        process = Process(arguments, log, environment, folder or self.folder)
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill_group()


def children(pid: int) -> list[int]:
    """Pids of the direct children of a process, oldest first. Linux."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return sorted(found)


def handlers(pid: int) -> list[int]:
    """Of the children of a `lightbus worker` those that handle messages, and do not stand beside it. Linux."""
    return [child for child in children(pid) if _comm(child) != "lightbus-beside"]


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """True while a process exists and is not merely waiting to be reaped. Linux."""
    try:
        return _stat(pid)[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, user and system, without its children. Linux."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
