"""A process beside the supervisor: it has connections and threads, which a process that forks must not have.

It is forked from the supervisor, started again when it ends, and ended with it. What runs in it: `companions`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .pauses import Pauses

logger = logging.getLogger("lightbus.worker")

NAME = "lightbus-beside"  #: of the process, in `ps -o comm`; Linux takes 15 bytes


class Beside:
    """A process that is forked from the supervisor's and kept running.

    Args:
        does: what it is there for, to complete "the process that ...".
        main: runs in it, told the supervisor's pid. When it returns the process ends.
        keeps: descriptors that it needs besides the standard ones and those of the log.
    """

    def __init__(self, does: str, main: Callable[[int], None], *, keeps: Sequence[int] = ()) -> None:
        self._does = does
        self._main = main
        self._keeps = keeps
        self._pid = 0
        self._due = 0.0  # when it was, or is to be, started
        self._pauses = Pauses()

    def start(self) -> None:
        """Fork it. The supervisor has nothing open now that must not be inherited, but its pipes."""
        supervisor = os.getpid()
        with _named(NAME):  # in the parent: it is born with the name, and never taken for one that handles messages
            self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                self._become_itself()
                self._main(supervisor)
                code = 0
            except BaseException:  # the top of this process
                logger.exception("the process that %s ended by a defect", self._does)
            finally:
                os._exit(code)

    def keep(self) -> None:
        """Start another one where it has ended: at once, then with growing pauses. Does not block."""
        now = time.monotonic()
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
            pause = self._pauses.after(now - self._due)
            logger.error("the process that %s has ended; another starts in %.1f s", self._does, pause)
            self._due = now + pause
        if not self._pid and now >= self._due:
            self.start()

    def end(self, seconds: float) -> None:
        """Wait for its end, which it has been told of, and after `seconds` end it by force."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if self._pid and not self._has_ended_within(seconds):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        self._pid = 0

    def _has_ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not os.waitpid(self._pid, os.WNOHANG)[0]:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def _become_itself(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # they are the supervisor's, which ends this process itself
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _close_all_but({0, 1, 2, *self._keeps, *_log_descriptors()})


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Inside the block this process has another name in `ps -o comm`, where the system lets it."""
    comm, parent = Path("/proc/self/comm"), os.getpid()
    try:
        before = comm.read_bytes()
        comm.write_text(name)
    except OSError:
        before = b""
    try:
        yield
    finally:
        if before and os.getpid() == parent:
            comm.write_bytes(before)


def _log_descriptors() -> list[int]:
    """A log's descriptor that was closed would be the next socket's, and get the lines."""
    loggers = [logging.getLogger(), *(one for one in logging.Logger.manager.loggerDict.values())]
    handlers = [handler for one in loggers for handler in getattr(one, "handlers", ())]
    found: list[int] = []
    for stream in [getattr(handler, "stream", None) for handler in handlers] + [sys.stdout, sys.stderr]:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # a stream without one, or closed
            found.append(stream.fileno())  # type: ignore[union-attr]  # None has none either
    return found


def _close_all_but(kept: set[int]) -> None:
    """Close what a supervisor that runs already has open: its children wait for the end of one of these pipes."""
    for name in os.listdir("/dev/fd"):
        number = int(name)
        if number not in kept:
            with contextlib.suppress(OSError):  # the descriptor of this very listing
                os.close(number)
