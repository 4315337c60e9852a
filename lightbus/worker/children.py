"""One child of a supervisor: how it is forked and run, and what the supervisor knows of it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import LightbusError
from ..core.exitcodes import EXIT_DEFECT, EXIT_OK, exit_code_of
from .board import Place
from .control import MOST_TEXT, Channel, ChildMain, Supervised

logger = logging.getLogger("lightbus.worker")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class Child:
    """A child process.

    Attributes:
        number: of its place on the board.
        started: `time.monotonic()`.
        ready: it consumes.
        leaving: it ends by plan; what follows it, if anything, is on its way.
        failure: why it could not start, in its own words.
        untold: lost runs that it was asked to tell an endpoint of, by message id.
        killed_for: cells of runs over their limit, for which the supervisor killed it.
    """

    pid: int
    number: int
    place: Place
    channel: Channel
    started: float
    ready: bool = False
    leaving: bool = False
    failure: str = ""
    untold: dict[str, object] = field(default_factory=dict)
    killed_for: frozenset[int] = frozenset()


def run_child(
    child_main: ChildMain, supervised: Supervised, inherited: Iterable[int], others: Iterable[Channel]
) -> None:
    """In the child, after the fork: runs it and exits.

    Args:
        inherited: descriptors that are only the supervisor's.
        others: the supervisor's ends of the channels to other children.
    """
    code = EXIT_DEFECT
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the supervisor; a terminal sends it to all
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # until it consumes there is nothing to finish
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOP_SIGNALS, signal.SIGHUP, signal.SIGQUIT))
        for descriptor in inherited:
            os.close(descriptor)
        for channel in others:
            channel.close()
        child_main(supervised)
        code = EXIT_OK
    except LightbusError as error:
        code = exit_code_of(error)
        supervised.channel.send("failed", str(error)[:MOST_TEXT])
    except BaseException:  # the top of this process
        logger.exception("a process ended by a defect")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a child that may have ended meanwhile, and is then still to be reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def resident_bytes(pid: int) -> int:
    """Memory that a process has in RAM; 0 when it has just ended. Linux."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def cause_of(status: int) -> str:
    """What `waitpid` says of an end, to complete "process 7 ..."."""
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"
