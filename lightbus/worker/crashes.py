"""Which messages took processes down, and how often: decides what is remembered of each. Pure.

Counted by one supervisor for its own processes. Other hosts count on their own: a message that kills its process is
parked after at most `max_crashes` on each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .board import Mark, Running


@dataclass(frozen=True, slots=True)
class Death:
    """What the death of a process means for what it ran.

    Attributes:
        suspects: those that count; they come back by themselves, when they were acknowledged late.
        lost: acknowledged early, so that nobody gets them again; their endpoint is told.
        over_time: cells that the process was killed for. Empty: it died by itself.
    """

    suspects: Sequence[Running]
    lost: Sequence[Running]
    over_time: frozenset[int] = frozenset()


def death_of(running: Iterable[Running], over_time: frozenset[int] = frozenset()) -> Death:
    """Read a process's last cells.

    Args:
        over_time: cells for whose sake it was killed: then the others have no part in it.
    """
    runs = list(running)
    suspects = [run for run in runs if not over_time or run.cell in over_time]
    return Death(suspects, [run for run in runs if run.ack_early], over_time)


def next_mark(known: Mark, death: Death) -> Mark:
    """What is remembered of a suspect of `death` from now on."""
    if death.over_time:
        return Mark(known.crashes, over_time=True)
    return Mark(min(known.crashes + 1, 0xFFFF), over_time=False)
