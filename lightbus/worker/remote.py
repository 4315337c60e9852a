"""What the supervisor does with the words of its attendant: the size of the worker, stops, and words for the children.

What all children were told is kept, since those that come later must hear of it too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import ConfigError
from .attendant import Attended, Program
from .autoscale import Autoscale, Scaler
from .board import Board
from .children import Child
from .companions import Companion, Run
from .control import Channel
from .latch import Latch

logger = logging.getLogger("lightbus.worker")


@dataclass(frozen=True, slots=True)
class Levers:
    """What the supervisor lets others do.

    Attributes:
        resize: to so many processes more or fewer; raises ConfigError.
    """

    stop: Callable[[], None]
    reload: Callable[[], None]
    resize: Callable[[int], None]
    scaler: Scaler | None
    most_processes: int


class Remote:
    """The attendant, if there is one, and the hands that carry its words out. On the supervisor's thread.

    Its channel outlives it: what was for one that died finds another, which knows its own questions by their numbers.
    """

    def __init__(self, program: Program | None, board: Board, levers: Levers) -> None:
        self._program = program
        self._board = board
        self._levers = levers
        self._told: dict[str, list[object]] = {}  # by what a later word replaces
        self._ends: Sequence[Channel] = () if program is None else Channel.pair()

    @property
    def companions(self) -> list[Companion]:
        """The attendant: it answers from when the worker is ready, and also while that stops."""
        program = self._program
        if program is None:
            return []
        theirs, board, supervisor = self._ends[1], self._board, os.getpid()

        def load() -> Run:
            main = program.load()

            def run(until: Latch) -> None:
                main(Attended(theirs, board, supervisor, until))

            return run

        return [Companion(does="answers remote control", load=load, keeps=(theirs.fileno(), *program.keeps))]

    @property
    def channels(self) -> Sequence[Channel]:
        """The supervisor's end of the channel to it."""
        return self._ends[:1]

    @property
    def not_for_children(self) -> Sequence[Channel]:
        """What is to be closed in a child."""
        return self._ends

    def hear(self, children: Sequence[Child]) -> None:
        """Carry out what has arrived."""
        for channel in self.channels:
            for word, value in channel.received():
                self._carry_out(word, value, channel, children)

    def greet(self, child: Child) -> None:
        """A child consumes from now on: tell it what the others know."""
        for told in self._told.values():
            child.channel.send("tell", told)

    def answered(self, child: Child, value: Any) -> None:
        """A child has answered."""
        number, answer = value
        for channel in self.channels:
            channel.send("answer", [number, child.pid, answer])

    def _carry_out(self, word: str, value: Any, channel: Channel, children: Sequence[Child]) -> None:
        living = [child for child in children if child.ready]
        match word:
            case "ask":
                number, question = value
                asked = [child.pid for child in living if child.channel.send("ask", [number, question])]
                channel.send("asked", [number, asked, [child.pid for child in living if not child.leaving]])
            case "tell":
                key, told = value
                self._told.pop(key, None)
                self._told[key] = told
                for child in living:
                    child.channel.send("tell", told)
            case "terminate":
                for child in living:
                    child.channel.send("terminate", value)
            case "stop":
                self._levers.stop()
            case "reload":
                self._levers.reload()
            case "resize" | "autoscale":
                number, wanted = value
                try:
                    answer = self._resize(wanted) if word == "resize" else self._scale(*wanted)
                    channel.send("done", [number, answer])
                except ConfigError as error:
                    channel.send("failed", [number, str(error)])

    def _resize(self, by: int) -> bool:
        if self._levers.scaler is not None:
            raise ConfigError("autoscale")
        self._levers.resize(by)
        return True

    def _scale(self, maximum: int | None, minimum: int | None) -> list[int]:
        scaler = self._levers.scaler
        if scaler is None:
            raise ConfigError("Autoscale not enabled")
        before = scaler.policy
        most = before.maximum if maximum is None else maximum
        least = before.minimum if minimum is None else minimum
        if maximum is not None and minimum is None:
            least = min(least, most)
        if most > self._levers.most_processes:
            raise ConfigError(f"this worker was started for at most {self._levers.most_processes} processes")
        scaler.policy = Autoscale(most, least, before.grow_seconds, before.shrink_seconds)
        logger.info("autoscale: from %d to %d processes, by remote control", least, most)
        return [most, least]
