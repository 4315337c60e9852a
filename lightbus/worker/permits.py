"""The permits of a worker's handlers: so many per name, whichever of its processes holds them.

A permit is a record lock on one byte of a file that all processes have open. The kernel frees the locks of a process
that is killed, at once and without anybody looking, which it does not do for a semaphore. Made before the first fork.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Mapping

from ..core.concurrency import Concurrency
from .lockfile import lock_file


class Permits:
    """Args:
    limits: every name that has a limit in this worker.
    """

    def __init__(self, limits: Mapping[str, Concurrency]) -> None:
        self.limits = dict(limits)
        self._places: dict[str, range] = {}
        start = 0
        for name, limit in self.limits.items():
            if not limit.everywhere:
                self._places[name] = range(start, start + limit.most)
                start += limit.most
        # The locks of a process exclude other processes; what its own threads hold is in the set.
        self._file = lock_file() if self._places else None
        self._own: set[int] = set()
        self._lock = threading.Lock()

    def take(self, name: str) -> int | None:
        """A permit of `name`, a limit of this worker; None when all are held. Does not wait."""
        places = self._places[name]
        with self._lock:
            # Each process begins elsewhere, or all would try the same bytes first.
            first = os.getpid() % len(places)
            place: int
            for place in (*places[first:], *places[:first]):
                if place not in self._own and self._has_locked(place):
                    self._own.add(place)
                    return place
        return None

    def free(self, permit: int) -> None:
        """Give back what `take` gave."""
        with self._lock:
            self._own.discard(permit)
            assert self._file is not None, "a permit comes out of it"
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, permit)

    def _has_locked(self, place: int) -> bool:
        assert self._file is not None, "there is no place without it"
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:  # EACCES or EAGAIN: another process has it
            return False
        return True
