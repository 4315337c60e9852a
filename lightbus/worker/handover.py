"""From the code as it was to the code as it is: whether it is time, and what is left of the supervisor before."""

from __future__ import annotations

import logging
import os
import signal

from .children import send_signal
from .reload import Check, Predecessors, SourceWatch, become_new

logger = logging.getLogger("lightbus.worker")


class Handover:
    """A supervisor's reloads: the one that it came from, and the one that it is asked for.

    Attributes:
        is_asked: for new code; signals set it too.
        old: pids of the children of the supervisor that this process was before, as far as they live.
    """

    def __init__(self) -> None:
        self._predecessors = Predecessors.from_environment()
        self.old: list[int] = list(self._predecessors.pids)
        self.is_asked = False
        self._watch: SourceWatch | None = None
        self._check: Check | None = None

    @property
    def life(self) -> tuple[int, ...]:
        """Write ends of the pipes by which the old children see that their supervisor lives."""
        return self._predecessors.life

    def watch(self) -> None:
        """From now on a changed source file asks for a reload."""
        self._watch = SourceWatch()

    def look(self) -> None:
        """Whether one has changed."""
        if self._watch is not None and (changed := self._watch.changed()):
            logger.info("changed: %s", ", ".join(path.name for path in changed))
            self.is_asked = True

    def reap(self) -> None:
        """Take note of the old children that have ended."""
        for pid in list(self.old):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.old.remove(pid)
        if not self.old:
            for writer in self._predecessors.life:
                os.close(writer)
            self._predecessors = Predecessors()

    def replace(self, ready: int, wanted: int) -> None:
        """So many children with new code consume: as many with old code may go; with the last of the new, all."""
        may_go = self._predecessors.pids if ready >= wanted else self._predecessors.pids[:ready]
        for pid in may_go:
            if pid in self.old:  # told before or not: a second SIGTERM changes nothing for a child
                send_signal(pid, signal.SIGTERM)

    def is_due(self) -> bool:
        """Whether new code was asked for, and loads; when it does not, that is said and the old goes on."""
        if self.is_asked and self._check is None:
            self.is_asked = False
            self._check = Check()
        if self._check is None or not self._check.has_ended():
            return False
        objection, self._check = self._check.objection(), None
        if self.is_asked:
            return False  # it has changed meanwhile
        if objection is not None:
            logger.error("the new code does not load, the old goes on:\n%s", objection)
        return objection is None

    def cancel(self) -> None:
        """There is to be none: the worker stops."""
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def become_new(self, pids: list[int], life_writer: int, blocked: tuple[signal.Signals, ...]) -> None:
        """See `reload.become_new`."""
        become_new([*pids, *self.old], [life_writer, *self.life], blocked)
