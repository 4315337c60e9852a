"""What a worker says of itself to whoever watches it: a value, systemd's socket, and a file for containers."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..core.errors import ConfigError

TOUCH_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A worker at one moment.

    Attributes:
        ready: at least one process consumes, and no stop was asked for. A process consumes from its first
            subscription on, also while the broker is away and it tries to come back.
        stopping: a stop was asked for.
        processes: child processes, those that are ending included.
        consuming: processes that consume.
        slots: handlers that the processes can run at a time, without coroutines.
        busy: slots in use.
        waiting: messages in the processes that wait for a slot; 0 where nobody asks (`WorkerOptions.reports_waiting`).
        restarts: processes that were started in place of others.
    """

    ready: bool = False
    stopping: bool = False
    processes: int = 0
    consuming: int = 0
    slots: int = 0
    busy: int = 0
    waiting: int = 0
    restarts: int = 0


class Sign(Protocol):
    """Shows health to somebody. Called on the supervisor's only thread: must not block."""

    def show(self, health: Health, now: float) -> None:
        """Called about twice a second, and when the health changes; `now` is `time.monotonic()`."""

    def reloading(self) -> None:
        """The worker is about to be replaced by itself with new code."""

    def gone(self) -> None:
        """The worker has ended."""


class Systemd:
    """The protocol of sd_notify(3), for units of `Type=notify` and `notify-reload`.

    Tells READY=1, STOPPING=1, RELOADING=1, and where the unit has `WatchdogSec=`, WATCHDOG=1 while the worker is ready:
    a supervisor that hangs, or that has no consuming process for so long, is then restarted.
    """

    def __init__(self, path: str, watchdog_seconds: float | None = None) -> None:
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._ping_seconds = None if watchdog_seconds is None else watchdog_seconds / 2
        self._next_ping = 0.0
        self._told: set[str] = set()

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Systemd | None:
        """None when no service manager waits for words."""
        path = environment.get("NOTIFY_SOCKET", "")
        if not path:
            return None
        micros, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
        is_watched = micros.isdecimal() and pid == str(os.getpid())
        return Systemd(path, int(micros) / 1e6 if is_watched else None)

    def show(self, health: Health, now: float) -> None:
        if health.ready:
            self._tell_once("READY=1")
            if self._ping_seconds is not None and now >= self._next_ping:
                self._send("WATCHDOG=1")
                self._next_ping = now + self._ping_seconds
        if health.stopping:
            self._tell_once("STOPPING=1")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def gone(self) -> None:
        """systemd sees the end by itself."""

    def _tell_once(self, word: str) -> None:
        if word not in self._told:
            self._told.add(word)
            self._send(word)

    def _send(self, text: str) -> None:
        # A manager that is gone or busy must not stop the worker.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), self._address)


class HealthFile:
    """A file whose time of change is at most TOUCH_SECONDS old while the worker is ready; it goes with the worker."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_touch = 0.0
        try:
            path.unlink(missing_ok=True)  # that of a worker that was killed must not speak for this one
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the health file {path} cannot be written: {error.strerror}") from error

    def show(self, health: Health, now: float) -> None:
        if health.ready and now >= self._next_touch:
            with contextlib.suppress(OSError):  # a full disk must not stop the worker; the file grows old and says so
                self._path.touch()
            self._next_touch = now + TOUCH_SECONDS
        if health.stopping:
            self.gone()

    def reloading(self) -> None:
        """The old processes go on meanwhile."""

    def gone(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
