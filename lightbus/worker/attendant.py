"""A process beside a worker's children that talks to the outside for the supervisor, which itself opens no connection.

It is forked once the first child consumes, so it costs no start, and nothing that happens to it happens to a child.
Words, on a channel as a child has one:

from it   ask: [number, question] for all children · tell: [word, value] for all, those to come too ·
          terminate: tasks by id · stop · reload · resize: by so many processes · autoscale: its bounds
to it     asked: [number, pids, those of them that stay] · answer: [number, pid, answer] · done: [number, value] ·
          failed: [number, text]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .beside import Beside
from .board import Board
from .control import Channel

END_SECONDS = 3.0  #: for its good-bye, before it is killed


@dataclass(frozen=True, slots=True)
class Attended:
    """What an attendant gets.

    Attributes:
        supervisor: its process id; the attendant returns when it is the child of another.
    """

    channel: Channel
    board: Board
    supervisor: int


@dataclass(frozen=True, slots=True)
class Program:
    """What runs in an attendant.

    Attributes:
        main: returns when the supervisor has gone, and lets SystemExit through, which SIGTERM raises.
        keeps: descriptors that it needs besides the standard ones, those of the log and its channel's.
    """

    main: Callable[[Attended], None]
    keeps: Sequence[int] = ()


class Attendant:
    """The supervisor's hold on it. All methods on the supervisor's thread.

    Attributes:
        channel: the supervisor's end. It outlives the process: what was for one that died finds another, which knows
            its own questions by their numbers.
    """

    def __init__(self, program: Program, board: Board) -> None:
        self._main = program.main
        self._board = board
        self.channel, self._theirs = Channel.pair()
        keeps = (self._theirs.fileno(), *program.keeps)
        self._process = Beside("answers remote control", self._run, keeps=keeps, on_stop=lambda: sys.exit(0))

    @property
    def ends(self) -> tuple[Channel, Channel]:
        """Both ends of the channel, which a child that handles messages has no use for."""
        return self.channel, self._theirs

    def keep(self) -> None:
        """Start it, when it does not run and it is time."""
        self._process.keep()

    def end(self) -> None:
        """Have it say good-bye, for a few seconds at most."""
        self._process.stop()
        self._process.end(END_SECONDS)

    def _run(self, supervisor: int) -> None:
        try:
            self._main(Attended(self._theirs, self._board, supervisor))
        except SystemExit:
            pass
