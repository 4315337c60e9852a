"""Remote control from beside a worker's children: it talks to the outside for the supervisor, and to the supervisor.

Nothing that happens to it happens to a child. Words, on a channel as a child has one:

from it   ask: [number, question] for all children · tell: [word, value] for all, those to come too ·
          terminate: tasks by id · stop · reload · resize: by so many processes · autoscale: its bounds
to it     asked: [number, pids, those of them that stay] · answer: [number, pid, answer] · done: [number, value] ·
          failed: [number, text]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .board import Board
from .control import Channel
from .latch import Latch


@dataclass(frozen=True, slots=True)
class Attended:
    """What an attendant gets.

    Attributes:
        supervisor: its process id.
        ended: set when the worker has ended, and the attendant has to.
    """

    channel: Channel
    board: Board
    supervisor: int
    ended: Latch


@dataclass(frozen=True, slots=True)
class Program:
    """What runs in an attendant.

    Attributes:
        load: imports what it needs; what it returns is then run, and returns when the worker has ended.
        keeps: descriptors that it needs besides the standard ones, those of the log and its channel's.
    """

    load: Callable[[], Callable[[Attended], None]]
    keeps: Sequence[int] = ()
