"""`lightbus worker -B`: a beat beside the worker, as a process of its own that ends with it.

Any number of workers may have one: one beat of them all leads, see `beat`. It is a program of its own and no fork, so
that it holds nothing of the worker's, and the worker nothing of its.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..worker import Sign
from ..worker.health import Health
from .apps import LoadedApp

if TYPE_CHECKING:
    import subprocess

FIRST_PAUSE_SECONDS = 0.5  #: before a beat that has ended is started again; doubled each time
LONGEST_PAUSE_SECONDS = 30.0
LONG_LIFE_SECONDS = 60.0  #: a beat that lived so long was well: the pauses begin anew
ENDING_SECONDS = 5.0  #: what a beat gets to let another lead, before it is killed
LOOK_SECONDS = 0.5

if TYPE_CHECKING:
    import subprocess

logger = logging.getLogger("lightbus.beat")


class BeatBeside:
    """A `Sign` that keeps a beat running from when the worker is ready until it stops."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """`arguments`: those of `lightbus beat`."""
        self._command = [sys.executable, "-m", "lightbus.cli", "beat", *arguments, "--until-stdin-ends"]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_begun = False
        self._started = self._start_at = 0.0
        self._pause = FIRST_PAUSE_SECONDS

    @classmethod
    def of(cls, apps: Sequence[str], url: str | None, loglevel: str, log_format: str, logfile: str) -> BeatBeside:
        """With what the worker's own command line says; see there."""
        arguments = [f"--app={name}" for name in apps]
        arguments += [] if url is None else [f"--url={url}"]
        arguments += [f"--loglevel={loglevel}", f"--log-format={log_format}"]
        arguments += [f"--logfile={logfile}"] if logfile else []
        return cls(arguments)

    def show(self, health: Health, now: float) -> None:
        """See `Sign`."""
        if health.stopping:
            self._ask_to_end()
            return
        self._is_begun = self._is_begun or health.ready
        if self._process is not None and (code := self._process.poll()) is not None:
            self._bury(code, now)
        if self._process is None and self._is_begun and now >= self._start_at:
            self._start(now)

    def reloading(self) -> None:
        """See `Sign`. The new code starts its own."""
        self.gone()

    def gone(self) -> None:
        """See `Sign`."""
        if self._process is None:
            return
        import subprocess  # only workers with a beat need it

        self._ask_to_end()
        try:
            self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # what it has not committed is not sent, and another beat goes on
            self._process.wait()
        self._forget()

    def leave(self) -> None:
        """In a process that was forked: let go of what is the parent's, so that the beat sees its end at once."""
        self._ask_to_end()

    def _start(self, now: float) -> None:
        import subprocess  # as above

        # Its own session: a Ctrl-C of the terminal is for the worker, which ends it. Its own word to systemd would be
        # taken for the worker's.
        environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
        self._started = now

    def _bury(self, code: int, now: float) -> None:
        if now - self._started >= LONG_LIFE_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        self._start_at = now + self._pause
        logger.error("the beat beside this worker ended with %d; another starts in %.1f s", code, self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        self._forget()

    def _ask_to_end(self) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def _forget(self) -> None:
        self._ask_to_end()
        self._process = None


def check_schedule(app: LoadedApp, url: str | None) -> None:
    """Refuse at the worker's start what the beat would refuse again and again.

    Raises:
        ConfigError: an entry that cannot be used, or a broker that keeps no schedule.
    """
    from .scheduling import AppSchedule  # here, since most workers need no scheduler

    AppSchedule.of(replace(app), url).store()  # a copy: the worker serves no task only because it is scheduled


@contextlib.contextmanager
def shown_alone(signs: Sequence[Sign]) -> Iterator[None]:
    """Tell `signs` of a worker without a supervisor: it is ready inside the block, and gone after it."""
    over = threading.Event()

    def tell() -> None:
        while not over.is_set():
            for sign in signs:
                sign.show(Health(ready=True, processes=1, consuming=1), time.monotonic())
            over.wait(LOOK_SECONDS)

    thread = threading.Thread(target=tell, name="lightbus-signs", daemon=True)
    if signs:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if signs:
            thread.join()
        for sign in signs:
            sign.gone()
