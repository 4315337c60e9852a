"""What the control node knows of its worker: from the board that the processes share, and by asking them."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

ASK_SECONDS = 0.5  #: for all processes to answer; callers of `inspect` wait for a second


class Channel(Protocol):
    """What is used of `lightbus.worker.control.Channel`."""

    def fileno(self) -> int: ...

    def send(self, word: str, value: object = True) -> bool: ...

    def received(self) -> list[tuple[str, object]]: ...


class Place(Protocol):
    """What is used of `lightbus.worker.board.Place`."""

    def busy(self) -> int: ...

    @property
    def handled(self) -> int: ...


class Board(Protocol):
    """What is used of `lightbus.worker.board.Board`."""

    @property
    def places(self) -> int: ...

    @property
    def threads(self) -> int: ...

    def place(self, number: int) -> Place: ...


class Latch(Protocol):
    """What is used of `lightbus.worker.latch.Latch`."""

    def is_set(self) -> bool: ...

    def wait(self, seconds: float) -> bool: ...


class Attended(Protocol):
    """What is used of `lightbus.worker.attendant.Attended`."""

    @property
    def channel(self) -> Channel: ...

    @property
    def board(self) -> Board: ...

    @property
    def supervisor(self) -> int: ...

    @property
    def ended(self) -> Latch: ...


class Refused(ValueError):
    """The supervisor cannot do what was asked for."""


class Worker:
    """The supervisor and its children, as the node sees them. One thread."""

    def __init__(self, attended: Attended) -> None:
        self._channel = attended.channel
        self._places = [attended.board.place(number) for number in range(attended.board.places)]
        self._handled = [0] * len(self._places)
        self._handled_before = 0  # by processes that have ended
        self._totals: dict[int, Mapping[str, int]] = {}  # by process, of those too that have ended
        self._number = time.monotonic_ns()  # no answer to a node that was there before is taken for one's own
        self.threads = attended.board.threads
        self._ended = attended.ended
        self.pid = attended.supervisor
        self.pids: Sequence[int] = ()  #: of the processes that stay, as of the last question

    @property
    def lives(self) -> bool:
        """Whether it does: else the node has to end."""
        return not self._ended.is_set()

    def rest(self, seconds: float) -> None:
        """Do nothing for so long, or until the worker has ended."""
        self._ended.wait(seconds)

    def active(self) -> int:
        """Slots in use."""
        return sum(place.busy() for place in self._places)

    def handled(self) -> int:
        """Messages handled since this node began, as the processes last said."""
        for number, place in enumerate(self._places):
            count = place.handled
            if count < self._handled[number]:
                self._handled_before += self._handled[number]
            self._handled[number] = count
        return self._handled_before + sum(self._handled)

    def tell(self, key: str, word: str, value: Mapping[str, object]) -> None:
        """Tell all processes, and those to come; a later word of the same key replaces this one."""
        self._channel.send("tell", [key, [word, dict(value)]])

    def say(self, word: str, value: object = True) -> None:
        """To the supervisor."""
        self._channel.send(word, value)

    def ask(self, question: str) -> list[tuple[int, Any]]:
        """The answers of the processes, with their pids; of those that answer in time."""
        self._number += 1
        self._channel.send("ask", [self._number, question])
        waited: set[int] | None = None
        answers: dict[int, Any] = {}
        for word, value in self._heard(self._number):
            if word == "asked":
                waited, self.pids = set(value[0]), value[1]
            elif word == "answer":
                answers[value[0]] = value[1]
            if waited is not None and waited <= answers.keys():
                break
        return sorted(answers.items())

    def request(self, word: str, value: object) -> Any:
        """Have the supervisor do something, and wait for its word.

        Raises:
            Refused: it cannot.
        """
        self._number += 1
        self._channel.send(word, [self._number, value])
        for heard, answer in self._heard(self._number):
            if heard == "done":
                return answer[0]
            if heard == "failed":
                raise Refused(answer[0])
        raise Refused("the worker did not answer in time")

    def totals(self) -> tuple[dict[str, int], int]:
        """Runs that have begun, by name of the task; and how many messages a process holds."""
        prefetch = 0
        for pid, answer in self.ask("counts"):
            self._totals[pid] = answer["total"]
            prefetch = max(prefetch, answer["prefetch"])
        counter: Counter[str] = Counter()
        for one in self._totals.values():
            counter.update(one)
        return dict(counter), prefetch

    def _heard(self, number: int) -> Iterator[tuple[str, Any]]:
        """What arrives for the question of that number, until nobody can wait any longer."""
        deadline = time.monotonic() + ASK_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._channel.fileno()], [], [], left)[0]:
                return
            for word, value in self._channel.received():
                if isinstance(value, list) and value[0] == number:
                    yield word, value[1:]
