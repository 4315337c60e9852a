"""Which of several queues a consumer takes a message from next. Pure: drivers ask, and say what they took.

Queues of one rank take turns, each as many in a row of turns as its weight; a queue of a later rank has none while one
of an earlier rank has messages. That is decided when messages are taken: what a process holds already keeps its place.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .topology import Queue


@dataclass(frozen=True, slots=True)
class QueueOrder:
    """What a worker was told about its queues.

    Attributes:
        weights: messages in a row of turns, by queue; 1 of those that are not named.
        first: queues in the order in which they are served, each only while those before it have nothing; all others
            come after them.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    first: Sequence[str] = ()

    def applied(self, queue: Queue) -> Queue:
        """The queue, with its weight and rank."""
        rank = self.first.index(queue.name) if queue.name in self.first else len(self.first)
        return replace(queue, weight=self.weights.get(queue.name, 1), rank=rank)

    @property
    def names(self) -> Collection[str]:
        """Every queue that it names."""
        return {*self.weights, *self.first}


class Turns:
    """Whose turn it is among `queues`."""

    def __init__(self, queues: Iterable[Queue]) -> None:
        queues = list(queues)
        divisor = math.gcd(*(queue.weight for queue in queues)) or 1
        self._weights = {queue.name: queue.weight // divisor for queue in queues}
        self._ranks = {queue.name: queue.rank for queue in queues}
        #: No queue differs from the others.
        self.are_even = len(set(self._ranks.values())) <= 1 and set(self._weights.values()) <= {1}
        self._position = 0

    def rows(self, names: Sequence[str]) -> list[tuple[int, list[str]]]:
        """A row of turns of those queues for each rank, the earliest first: (rank, names, some of them repeated).

        The first name has the next turn; after the last name the first is next again.
        """
        if self.are_even:
            return [(0, self._from_the_next(names))] if names else []
        return [
            (rank, self._from_the_next(self._row([name for name in names if self._ranks[name] == rank])))
            for rank in sorted({self._ranks[name] for name in names})
        ]

    def had(self, count: int) -> None:
        """So many messages were taken, each in its turn."""
        self._position += count

    def _from_the_next(self, row: Sequence[str]) -> list[str]:
        start = self._position % len(row)
        return [*row[start:], *row[:start]]

    def _row(self, names: Sequence[str]) -> list[str]:
        """Each name as often as its weight, and those of one queue as far apart as can be."""
        places = [
            ((2 * turn + 1) / self._weights[name], number, name)
            for number, name in enumerate(names)
            for turn in range(self._weights[name])
        ]
        return [name for _, _, name in sorted(places)]
