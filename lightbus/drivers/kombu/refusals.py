"""Whether the broker's refusals are its channel's fault. Pure.

RabbitMQ keeps in each channel where the leader of a quorum queue is. A channel that met the queue first while it had no
leader, since the leader's node had just died, goes on asking the dead node and refuses every message for that queue for
ever, although a new leader was elected long ago (seen with 3.10, `tests/faults/test_cluster.py`). A fresh channel knows
better. A queue that is full refuses too, and a fresh channel changes nothing: it is tried once.
"""

from __future__ import annotations

PATIENCE_SECONDS = 2.0  #: an election takes less


class Refusals:
    """What was refused, and not confirmed since, by the key of its route."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._tried: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._since)

    def refused(self, key: str, now: float) -> None:
        """The broker refused a message; `now` in seconds on a monotonic clock."""
        self._since.setdefault(key, now)

    def confirmed(self, key: str) -> None:
        """The broker took one."""
        self._since.pop(key, None)
        self._tried.discard(key)

    def want_fresh_channel(self, now: float) -> bool:
        """Whether to try a fresh channel now; True once for each key, until it is confirmed again."""
        due = {key for key, since in self._since.items() if now - since >= PATIENCE_SECONDS} - self._tried
        self._tried |= due
        return bool(due)
