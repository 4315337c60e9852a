"""Processes beside the supervisor: they have connections or threads, which a process that forks must not have.

Each gets the supervisor's health through shared memory, is started again when it ends, and ends with the supervisor.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .health import Health

logger = logging.getLogger("lightbus.worker")

NAME = "lightbus-beside"  #: of the processes, in `ps -o comm`; Linux takes 15 bytes
LONGEST_PAUSE_SECONDS = 10.0  #: before a process that has ended is started again
LONG_LIFE_SECONDS = 60.0  #: it was well: the pauses begin anew
_NAMES = [field.name for field in fields(Health)]
_LAYOUT = struct.Struct(f"=Id{len(_NAMES)}q")


class Snapshot:
    """A supervisor's last word on its health, in memory that forked processes share. One writer."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LAYOUT.size)
        self._sequence = 0

    def write(self, health: Health, now: float) -> None:
        """`now` is `time.monotonic()`, which is one clock for all processes of a machine."""
        self._sequence = (self._sequence + 2) & 0xFFFFFFFE
        values = [int(getattr(health, name)) for name in _NAMES]
        struct.pack_into("=I", self._memory, 0, self._sequence + 1)  # odd: being written
        _LAYOUT.pack_into(self._memory, 0, self._sequence + 1, now, *values)
        struct.pack_into("=I", self._memory, 0, self._sequence)

    def read(self) -> tuple[Health, float]:
        """The health, and when it was written; 0.0 for never."""
        while True:
            sequence, at, *values = _LAYOUT.unpack_from(self._memory, 0)
            again = struct.unpack_from("=I", self._memory, 0)[0]
            if sequence == again and sequence % 2 == 0:
                return _health(values), at


def _health(values: list[int]) -> Health:
    known: dict[str, Any] = dict(zip(_NAMES, values, strict=True))
    return Health(**known | {"ready": bool(known["ready"]), "stopping": bool(known["stopping"])})


class SupervisorGone(Exception):
    """It was killed, or ended without a word."""


class Beside:
    """A process that is forked from the supervisor's and kept running.

    Args:
        does: what it is there for, to complete "the process that ...".
        main: runs in it, told the supervisor's pid; may raise SupervisorGone.
        keeps: descriptors that it needs besides the standard ones and those of the log.
        at_end: called in it when the supervisor was killed, to clean up.
        on_stop: what SIGTERM, by which it is stopped, does in it; None: it has nothing to finish, and is killed.
    """

    def __init__(
        self,
        does: str,
        main: Callable[[int], None],
        *,
        keeps: Sequence[int] = (),
        at_end: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        self._does = does
        self._main = main
        self._keeps = keeps
        self._at_end = at_end
        self._on_stop = on_stop
        self._pid = 0
        self._due = 0.0  # when it was, or is to be, started
        self._pause = 0.0

    @property
    def is_running(self) -> bool:
        return self._pid != 0

    def start(self) -> None:
        """Fork it. The supervisor has nothing open now that must not be inherited, but its pipes."""
        supervisor = os.getpid()
        with _named(NAME):  # in the parent: it is born with the name, and never taken for one that handles messages
            self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                self._become_itself()
                with contextlib.suppress(SupervisorGone):
                    self._main(supervisor)
                self._at_end()
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
            pause = 0.0 if now - self._due > LONG_LIFE_SECONDS else self._pause
            logger.error("the process that %s has ended; another starts in %.1f s", self._does, pause)
            self._due = now + pause
            self._pause = min(LONGEST_PAUSE_SECONDS, pause * 2 or 0.5)
        if not self._pid and now >= self._due:
            self.start()

    def stop(self) -> None:
        """Ask it to end."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def end(self, seconds: float = 0.0) -> None:
        """End it, after `seconds` by force. Returns when it has ended."""
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
        if (on_stop := self._on_stop) is not None:
            signal.signal(signal.SIGTERM, lambda number, frame: on_stop())
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
