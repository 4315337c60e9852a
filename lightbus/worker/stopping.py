"""The stages of a stop: drain, hand back and end, kill. Each is asked for, or comes when the last took too long."""

from __future__ import annotations

import logging
import signal
from collections.abc import Collection

from .children import Child, send_signal

logger = logging.getLogger("lightbus.worker")

DRAIN, HAND_BACK, KILL = 1, 2, 3
ENDING_SECONDS = 5.0  #: what a process gets to hand back what it has, before it is killed


class Stop:
    """How far a worker's stop has come.

    Attributes:
        asked: how often a stop was asked for, by signals too, which only count here.
        is_cold_asked: with no regard for what runs.
        hardness: the stage that has begun; 0 for none.
        kill_at: when the hardest comes by itself.
        cut_off: something that ran was not finished.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self.asked = 0
        self.is_cold_asked = False
        self.hardness = 0
        self.kill_at = float("inf")
        self.cut_off = False

    @property
    def is_asked(self) -> bool:
        return bool(self.asked or self.is_cold_asked)

    def begins(self, now: float) -> bool:
        """Whether another stage begins, which is to be carried out."""
        hardness = KILL if self.is_cold_asked else min(self.asked, HAND_BACK)
        if self.hardness and now >= self.kill_at:
            hardness = KILL
        if hardness <= self.hardness:
            return False
        self.hardness = hardness
        return True

    def carry_out(self, children: Collection[Child], old: Collection[int], now: float) -> None:
        """Tell the processes, and those with the code before a reload by their pids."""
        if self.hardness == DRAIN:
            logger.info("stopping %d processes; a second signal ends them at once", len(children) + len(old))
            self.kill_at = now + self._grace_seconds + ENDING_SECONDS
            _signal_all(signal.SIGTERM, children, old)
        elif self.hardness == HAND_BACK:
            self.kill_at = min(self.kill_at, now + ENDING_SECONDS)
            self.cut_off = True
            for child in children:
                if not child.ready or not child.channel.send("end"):
                    send_signal(child.pid, signal.SIGKILL)
            for pid in old:
                send_signal(pid, signal.SIGKILL)
        else:
            self.kill_at = float("inf")
            self.cut_off = True
            _signal_all(signal.SIGKILL, children, old)


def _signal_all(number: signal.Signals, children: Collection[Child], old: Collection[int]) -> None:
    for pid in [*(child.pid for child in children), *old]:
        send_signal(pid, number)
