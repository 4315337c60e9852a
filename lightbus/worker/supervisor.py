"""The parent of a worker's processes: forks them, replaces those that end, and sees to their limits and stops.

It opens no connection and holds no message, so its death costs nothing: each child sees the end of the supervisor's
pipe, finishes what it runs and ends. One thread, one loop: wait for a signal, a word of a child or the next look, then
hear, reap, look and act.
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
from pathlib import Path
from types import FrameType

from ..core.errors import ConfigError, LightbusError
from ..core.exitcodes import EXIT_CUT_OFF, EXIT_DEFECT, EXIT_OK, EXIT_TIME_LIMIT
from .accounts import Accounts
from .autoscale import Load, Scaler
from .board import Board
from .children import STOP_SIGNALS, Child, cause_of, resident_bytes, run_child
from .companions import Companions
from .control import Channel, ChildMain, Supervised
from .handover import Handover
from .health import Health, Sign
from .oversight import Oversight
from .remote import Levers, Remote
from .snapshot import Snapshot
from .stopping import Stop

logger = logging.getLogger("lightbus.worker")

#: A child that dies sooner than that after its start is restarted with growing pauses.
SHORT_LIFE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0
LOOK_SECONDS = 0.5
ROOM_TO_GROW = 32  #: processes that remote control may add to those that the worker was started for
SIGNALS = (*STOP_SIGNALS, signal.SIGQUIT, signal.SIGHUP)


class ChildFailed(LightbusError):
    """The first child could not start. `exit_code` is what the command should end with."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Supervisor:
    """Keeps `processes` children running until a stop.

    SIGTERM, SIGINT: drain; a second one: hand back and end. SIGQUIT: kill. SIGHUP: new code; where the worker stands
    in a terminal, which sends it when it is closed, a stop.
    """

    def __init__(self, processes: int, child_main: ChildMain, oversight: Oversight | None = None) -> None:
        """Raises ConfigError: the platform cannot do what `oversight` asks for."""
        oversight = oversight or Oversight()
        self._child_main = child_main
        self._oversight = oversight
        self._wanted = processes
        self._scaler = None if oversight.autoscale is None else Scaler(oversight.autoscale)
        most = processes if oversight.autoscale is None else oversight.autoscale.maximum
        # Twice, because a process that drains and the one that has taken its place live side by side.
        self._most = most if oversight.attendant is None else most + ROOM_TO_GROW
        self._board = Board(2 * self._most + 1, oversight.threads)
        self._children: dict[int, Child] = {}
        self._starts: list[float] = []  # when another child is due
        self._handover = Handover()
        self._accounts = Accounts(self._board)
        levers = Levers(self._stop_by_remote, self._reload_by_remote, self._resize, self._scaler, self._most)
        self._remote = Remote(oversight.attendant, self._board, levers)
        snapshot = Snapshot()
        companions = [*(make(snapshot) for make in oversight.companions), *self._remote.companions]
        self._companions = Companions(companions, snapshot)
        self._signs: list[Sign] = [*oversight.signs, self._companions]
        self._short_lives = 0
        self._restarts = 0
        self._stop = Stop(oversight.limits.grace_seconds)
        self._looked = 0.0
        if oversight.limits.max_memory_bytes is not None and not Path("/proc/self/statm").exists():
            raise ConfigError("a limit of memory per process needs /proc, which this system does not have")

    def run(self, on_ready: Callable[[list[int]], None] = lambda pids: None) -> int:
        """Run until stopped; the exit code of the worker.

        Args:
            on_ready: called with the children's pids once the first one consumes.

        Raises:
            ChildFailed: the first child could not start: its error, for the user.
        """
        self._life_reader, self._life_writer = os.pipe()  # children see its end when this process dies
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        os.set_blocking(self._wake_reader, False)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only so that it writes to the wake-up pipe
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # held back over an exec
        try:
            self._companions.begin()
            self._start_first()
            if self._oversight.reload_on_change:
                self._handover.watch()
            if not self._stop.is_asked:
                self._starts += [time.monotonic()] * (self._wanted - 1)
                self._start_due(time.monotonic())
                on_ready(list(self._children))
            while self._children or self._handover.old or (self._starts and not self._stop.hardness):
                self._turn()
            self._accounts.give_up()
        finally:
            for sign in self._signs:
                sign.gone()
        return EXIT_CUT_OFF if self._stop.cut_off else EXIT_OK

    def health(self) -> Health:
        """How the worker is. From any thread."""
        children = list(self._children.values())
        consuming = [child for child in children if child.ready and not child.leaving]
        stopping = bool(self._stop.hardness)
        return Health(
            ready=bool(consuming) and not stopping,
            stopping=stopping,
            processes=len(children),
            consuming=len(consuming),
            slots=len(children) * self._oversight.threads,
            busy=sum(child.place.busy() for child in children),
            waiting=sum(child.place.waiting for child in consuming),
            restarts=self._restarts,
        )

    # The loop

    def _turn(self) -> None:
        now = time.monotonic()
        starts = self._starts if self._free_places() else ()
        due = min([self._looked + LOOK_SECONDS, *starts, self._stop.kill_at])
        self._wait(max(0.0, due - now))
        self._hear()
        self._reap()
        now = time.monotonic()
        self._carry_out_stop(now)
        if now >= self._looked + LOOK_SECONDS:
            self._looked = now
            self._look(now)
        if not self._stop.hardness:
            self._start_due(now)
            self._reload()
        self._show(now)

    def _show(self, now: float) -> None:
        health = self.health()
        for sign in self._signs:
            sign.show(health, now)

    def _wait(self, seconds: float) -> None:
        """For a signal or a word of a child."""
        channels = [*self._remote.channels, *(child.channel for child in self._children.values())]
        select.select([self._wake_reader, *(channel.fileno() for channel in channels)], [], [], seconds)
        with contextlib.suppress(BlockingIOError):  # nothing to read: the pause is over
            os.read(self._wake_reader, 4096)

    def _hear(self) -> None:
        self._remote.hear(list(self._children.values()))
        for child in list(self._children.values()):
            for word, value in child.channel.received():
                if word == "ready":
                    child.ready = True
                    self._remote.greet(child)
                    self._handover.replace(sum(one.ready for one in self._children.values()), self._wanted)
                elif word == "failed":
                    child.failure = str(value)
                elif word == "leaving":
                    logger.info("process %d is replaced: %s", child.pid, value)
                    self._let_leave(child)
                elif word == "told":
                    child.untold.pop(str(value), None)
                elif word == "answer":
                    self._remote.answered(child, value)
            if child.ready:
                self._accounts.have_told(child)

    def _reap(self) -> None:
        self._handover.reap()
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._bury(self._children.pop(pid), status)

    def _bury(self, child: Child, status: int) -> None:
        """A child has ended: account for what it ran, and have another in its place."""
        child.channel.close()
        self._accounts.close(child, cause_of(status))
        if self._stop.hardness:
            ended_well = os.waitstatus_to_exitcode(status) in (EXIT_OK, EXIT_TIME_LIMIT)
            self._stop.cut_off = self._stop.cut_off or (child.ready and not ended_well)
            return
        if child.leaving:
            return
        now = time.monotonic()
        if os.waitstatus_to_exitcode(status) == EXIT_TIME_LIMIT:
            pause = 0.0
        else:
            self._short_lives = self._short_lives + 1 if now - child.started < SHORT_LIFE_SECONDS else 0
            pause = min(0.1 * 2.0**self._short_lives, LONGEST_PAUSE_SECONDS) if self._short_lives else 0.0
        if child.failure:
            logger.error("a process could not start: %s", child.failure)
        logger.error("process %d %s; another starts in %.1f s", child.pid, cause_of(status), pause)
        self._starts.append(now + pause)
        self._restarts += 1

    def _look(self, now: float) -> None:
        """What is only seen by looking: hung processes, memory, load, changed files."""
        memory_limit = self._oversight.limits.max_memory_bytes
        for child in self._children.values():
            self._accounts.kill_if_hung(child, now)
            if memory_limit is not None and child.ready and not child.leaving and not self._stop.hardness:
                used = resident_bytes(child.pid)
                if used > memory_limit:
                    logger.warning("process %d is replaced: it has %d KiB resident", child.pid, used // 1024)
                    child.channel.send("drain")
                    self._let_leave(child)
        if self._scaler is not None and not self._stop.hardness:
            self._scale(self._scaler, now)
        self._handover.look()

    def _scale(self, scaler: Scaler, now: float) -> None:
        staying = [child for child in self._children.values() if not child.leaving]
        if self._starts or not all(child.ready for child in staying):
            return  # the last step is not done yet
        load = Load(
            slots=len(staying) * self._oversight.threads,
            busy=sum(child.place.busy() for child in staying),
            waiting=sum(child.place.waiting for child in staying),
        )
        wanted = scaler.wanted(len(staying), load, now)
        if wanted != len(staying):
            logger.info(
                "autoscale: %d processes, were %d; busy=%d waiting=%d", wanted, len(staying), load.busy, load.waiting
            )
        self._wanted = wanted
        self._starts += [now] * (wanted - len(staying))
        self._let_go(len(staying) - wanted)

    # Starting

    def _start_first(self) -> None:
        """Start one child and wait until it consumes, so that a wrong URL is said once and not once per child."""
        first = self._fork(0)
        while not first.ready and not self._stop.is_asked:
            self._wait(LOOK_SECONDS)
            self._hear()
            self._show(time.monotonic())
            ended, status = os.waitpid(first.pid, os.WNOHANG)
            if not ended:
                continue
            self._hear()  # its last words
            del self._children[first.pid]
            if (
                self._handover.old
            ):  # the new code loads, but cannot start: the broker may be away. The old goes on meanwhile.
                self._bury(first, status)
                return
            code = os.waitstatus_to_exitcode(status)
            text = first.failure or f"the first process ended at once ({cause_of(status)})"
            raise ChildFailed(text, code if code > 0 else EXIT_DEFECT)

    def _start_due(self, now: float) -> None:
        due = [when for when in self._starts if when <= now]
        for when, number in zip(due, self._free_places(), strict=False):  # no place: when one is free
            self._starts.remove(when)
            self._fork(number)

    def _free_places(self) -> list[int]:
        taken = {child.number for child in self._children.values()}
        return [number for number in range(self._board.places) if number not in taken]

    def _fork(self, number: int) -> Child:
        self._oversight.before_fork()
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = Channel.pair()
        place = self._board.place(number)
        others = [*self._remote.not_for_children, *(child.channel for child in self._children.values())]
        # Held back until the child has handlers of its own: one that came before would only count in its copy of this.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            inherited = [self._life_writer, self._wake_reader, self._wake_writer, *self._handover.life]
            run_child(self._child_main, Supervised(self._life_reader, theirs, place), inherited, [ours, *others])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        theirs.close()
        child = Child(pid, number, place, ours, time.monotonic())
        self._children[pid] = child
        return child

    def _resize(self, by: int) -> None:
        """Raises ConfigError: it would be none, or more than there is room for."""
        if not 1 <= self._wanted + by <= self._most:
            raise ConfigError(f"{self._wanted + by} processes are not possible: from 1 to {self._most}")
        self._wanted += by
        logger.info("%d processes, were %d, by remote control", self._wanted, self._wanted - by)
        now = time.monotonic()
        self._starts += [now] * by
        for _ in range(min(-by, len(self._starts))):
            self._starts.pop()
            by += 1
        self._let_go(-by)

    def _let_go(self, count: int) -> None:
        """Have so many processes drain, the idle ones first, and none in their place."""
        staying = [child for child in self._children.values() if not child.leaving]
        for child in sorted(staying, key=lambda child: child.place.busy())[: max(0, count)]:
            child.leaving = True
            child.channel.send("drain")

    def _stop_by_remote(self) -> None:
        self._stop.asked = max(1, self._stop.asked)

    def _reload_by_remote(self) -> None:
        self._handover.is_asked = True

    def _let_leave(self, child: Child) -> None:
        """A child ends by plan: another starts at once, while that one drains."""
        if not child.leaving:
            child.leaving = True
            if not self._stop.hardness:
                self._starts.append(time.monotonic())
                self._restarts += 1

    # Stopping and reloading

    def _carry_out_stop(self, now: float) -> None:
        if not self._stop.begins(now):
            return
        self._starts.clear()
        self._handover.cancel()
        self._stop.carry_out(list(self._children.values()), self._handover.old, now)

    def _reload(self) -> None:
        """Become the same command with the code as it is now, once that is asked for and loads."""
        if not self._handover.is_due():
            return
        logger.info("reloading: new processes take over one by one")
        for sign in self._signs:
            sign.reloading()
        self._oversight.before_exec()
        self._handover.become_new(list(self._children), self._life_writer, SIGNALS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGQUIT:
            self._stop.is_cold_asked = True
        elif number == signal.SIGHUP and not _is_terminal(sys.stdin):
            self._handover.is_asked = True
        else:
            self._stop.asked += 1


def _is_terminal(stream: object) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())
