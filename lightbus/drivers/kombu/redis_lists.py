"""Which lists of Redis a consumer asks for, and in which order. Pure: `redis_take.py` asks.

A queue is one list per priority step. The server tells when a list that was found empty changes, so only those lists
are asked for that may have something: a consumer of 1,000 queues of which one is in use asks for that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from ...core.topology import Queue
from ...core.turns import Turns
from .redis_layout import RedisLayout


class Lists:
    """The lists of some queues. At first each may have something."""

    def __init__(self, layout: RedisLayout, queues: Sequence[Queue]) -> None:
        self._order = Turns(queues)
        names = [queue.name for queue in queues]
        self._queues = {key.encode(): (key, queue) for queue in names for key in layout.list_keys(queue)}
        self._steps = {key.encode(): step for queue in names for step, key in enumerate(layout.list_keys(queue))}
        self._promising: list[dict[bytes, None]] = [{} for _ in layout.priority_steps]
        self.look_at_all()

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def promising(self) -> bool:
        """Any list may have something."""
        return any(self._promising)

    def turns(self) -> list[list[tuple[str, str]]]:
        """The lists to ask for, each with its queue: those of one rank and priority step in a group, the first to empty
        in front. They take turns, so that a queue that is never empty does not starve the others."""
        groups = []
        for promising in self._promising:
            keys = {queue: key for key, queue in map(self._queues.__getitem__, promising)}
            for rank, row in self._order.rows(list(keys)):
                groups.append((rank, [(keys[queue], queue) for queue in row]))
        return [group for _, group in sorted(groups, key=itemgetter(0))]

    def had_turns(self, count: int) -> None:
        """So many messages were taken."""
        self._order.had(count)

    def leave(self, keys: Iterable[str]) -> None:
        """Those lists are empty, until `look_at` names them."""
        for key in keys:
            name = key.encode()
            self._promising[self._steps[name]].pop(name, None)

    def look_at(self, keys: Iterable[bytes]) -> None:
        """Those may have something; lists of others among them are left out."""
        for key in keys:
            step = self._steps.get(key)
            if step is not None:
                self._promising[step][key] = None

    def look_at_all(self) -> None:
        """Any may have something."""
        self.look_at(self._steps)
