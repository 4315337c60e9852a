"""The parent of a worker's processes: forks them, restarts those that die, passes signals on.

It opens no connection and holds no message, so its death costs nothing: each child sees the end of the supervisor's
pipe, finishes what it runs and ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from ..core.errors import LightbusError
from ..core.exitcodes import EXIT_DEFECT, EXIT_FAILED, EXIT_OK, exit_code_of

logger = logging.getLogger("lightbus.worker")

#: A child that dies sooner than that after its start is restarted with growing pauses.
SHORT_LIFE_SECONDS = 1.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LONGEST_PAUSE_SECONDS = 10.0

#: Runs one child: gets the supervisor's pipe and the function that says "ready"; returns when the child is done.
ChildMain = Callable[[int, Callable[[], None]], None]


class ChildFailed(LightbusError):
    """The first child could not start. `exit_code` is what the command should end with."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(slots=True)
class _Child:
    pid: int
    slot: int
    started: float


class Supervisor:
    """Keeps `processes` children running until SIGTERM or SIGINT; a second signal kills them."""

    def __init__(self, processes: int, child_main: ChildMain) -> None:
        self._processes = processes
        self._child_main = child_main
        self._children: dict[int, _Child] = {}
        self._restarts: list[tuple[float, int]] = []  # when, slot
        self._short_lives = 0
        self._stop_signals = 0
        self._starting = True

    def run(self, on_ready: Callable[[list[int]], None] = lambda pids: None) -> int:
        """Run until stopped; the exit code of the worker.

        Args:
            on_ready: called with the children's pids once the first one consumes.

        Raises:
            ChildFailed: the first child could not start: its error, for the user.
        """
        self._life_reader, self._life_writer = os.pipe()  # children see its end when this process dies
        self._wake_reader, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        os.set_blocking(self._wake_reader, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only so that it writes to the wake-up pipe
        self._start_first()
        self._starting = False
        for slot in range(1, self._processes):
            if not self._stop_signals:
                self._fork(slot)
        if not self._stop_signals:
            on_ready(list(self._children))
        return self._watch()

    def _watch(self) -> int:
        signalled = 0
        failed = False
        while self._children or (self._restarts and not self._stop_signals):
            if self._stop_signals > signalled:
                signalled = self._stop_signals
                logger.info("stopping %d processes; a second signal ends them at once", len(self._children))
                self._signal_children(signal.SIGTERM if signalled == 1 else signal.SIGKILL)
                failed = failed or signalled > 1
            pause = max(0.0, min((when for when, _ in self._restarts), default=60.0) - time.monotonic())
            select.select([self._wake_reader], [], [], 60.0 if not self._restarts else pause)
            with contextlib.suppress(BlockingIOError):  # nothing to read: the pause is over
                os.read(self._wake_reader, 4096)
            self._reap()
            if not self._stop_signals:
                self._restart_due()
        return EXIT_FAILED if failed else EXIT_OK

    def _start_first(self) -> None:
        """Start one child and wait until it consumes, so that a wrong URL is said once and not once per child."""
        reader, writer = os.pipe()
        child = self._fork(0, report_to=writer)
        os.close(writer)
        report = b""
        while chunk := os.read(reader, 4096):
            report += chunk
            if report == b"ready":
                break
        os.close(reader)
        if report != b"ready":
            _, status = os.waitpid(child.pid, 0)
            del self._children[child.pid]
            if self._stop_signals:
                return
            code = os.waitstatus_to_exitcode(status)
            text = report.decode(errors="replace") or f"the first process ended at once ({_cause(status)})"
            raise ChildFailed(text, code if code > 0 else EXIT_DEFECT)

    def _fork(self, slot: int, report_to: int | None = None) -> _Child:
        sys.stdout.flush()
        sys.stderr.flush()
        # Held back until the child has handlers of its own: one that came before would only count in its copy of this.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._run_child(report_to)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        child = _Child(pid, slot, time.monotonic())
        self._children[pid] = child
        return child

    def _run_child(self, report_to: int | None) -> None:
        """In the child: never returns into the supervisor's frames."""
        code = EXIT_DEFECT
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)  # until it consumes there is nothing to finish
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            os.close(self._life_writer)
            self._child_main(self._life_reader, lambda: _report(report_to, b"ready"))
            code = EXIT_OK
        except LightbusError as error:
            code = exit_code_of(error)
            if report_to is None:
                logger.error("a process could not start: %s", error)
            _report(report_to, str(error).encode())
        except BaseException:  # the top of this process
            logger.exception("a process ended by a defect")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == 0:
                continue
            child = self._children.pop(pid)
            if self._stop_signals:
                continue
            lived_seconds = time.monotonic() - child.started
            self._short_lives = self._short_lives + 1 if lived_seconds < SHORT_LIFE_SECONDS else 0
            pause = min(0.1 * 2.0**self._short_lives, LONGEST_PAUSE_SECONDS) if self._short_lives else 0.0
            self._restarts.append((time.monotonic() + pause, child.slot))
            logger.error("process %d %s; another starts in %.1f s", pid, _cause(status), pause)

    def _restart_due(self) -> None:
        now = time.monotonic()
        due = [slot for when, slot in self._restarts if when <= now]
        self._restarts = [(when, slot) for when, slot in self._restarts if when > now]
        for slot in due:
            self._fork(slot)

    def _signal_children(self, number: signal.Signals) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):  # it has just ended; `_reap` will see it
                os.kill(pid, number)

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_signals += 1
        if self._starting:  # the main program waits for the first child's report and not for signals
            self._signal_children(signal.SIGTERM)


def _report(report_to: int | None, text: bytes) -> None:
    if report_to is not None:
        os.write(report_to, text)


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"
