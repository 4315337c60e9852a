"""The book that fault tests keep: what was sent, what the broker confirmed, what was done, what was parked.

lost = confirmed - done - parked; ghosts = done - sent; of all times that something was done, all but one have to say
that they may be repeats. What breaks these three must be empty.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

SHOWN = 10


@dataclass
class Ledger:
    """Entries are ids of messages. Thread-safe."""

    sent: set[str] = field(default_factory=set)
    confirmed: set[str] = field(default_factory=set)
    failed: dict[str, Exception] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)
    unflagged: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._unflagged_once: set[str] = set()

    def record_sent(self, entry: str) -> None:
        with self._lock:
            self.sent.add(entry)

    def record_answer(self, entry: str, error: Exception | None) -> None:
        """What became of a publish."""
        with self._lock:
            if error is None:
                self.confirmed.add(entry)
            else:
                self.failed[entry] = error

    def record_done(self, entry: str, *, flagged: bool) -> None:
        with self._lock:
            self.done[entry] += 1
            if not flagged:
                (self.unflagged.append if entry in self._unflagged_once else self._unflagged_once.add)(entry)

    @property
    def lost(self) -> set[str]:
        with self._lock:
            return self.confirmed - self.done.keys() - self.parked.keys()

    @property
    def ghosts(self) -> set[str]:
        with self._lock:
            return self.done.keys() - self.sent

    @property
    def repeats(self) -> int:
        """How often something was done again."""
        with self._lock:
            return sum(self.done.values()) - len(self.done)

    def differences(self) -> Mapping[str, Collection[str]]:
        """What must be empty, by name; empty when all is."""
        found = {"lost": self.lost, "ghosts": self.ghosts, "unflagged repeats": self.unflagged}
        return {name: sorted(entries) for name, entries in found.items() if entries}

    def __str__(self) -> str:
        counts = (
            f"sent {len(self.sent)}, confirmed {len(self.confirmed)}, failed {len(self.failed)}, "
            f"done {len(self.done)}, parked {len(self.parked)}, repeats {self.repeats}"
        )
        shown = [f"{name} {len(e)}: {', '.join(list(e)[:SHOWN])}" for name, e in self.differences().items()]
        return "; ".join([counts, *shown])
