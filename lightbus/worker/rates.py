"""The rates of a worker's handlers, in memory that its processes share: one bucket per name, whoever takes from it.

Made before the first fork, with all names that may ever have a rate; `set` changes one while the worker runs, from the
supervisor or from any process, and all see it.
"""

from __future__ import annotations

import fcntl
import mmap
import struct
import threading
import time
from collections.abc import Mapping

from ..core.errors import ConfigError
from ..core.rate import Bucket, Rate, Turn, take
from .lockfile import lock_file

_ENTRY = struct.Struct("=ddd")  # interval in seconds (0.0: no limit), then the bucket
_BUCKET = struct.Struct("=dd")
_INTERVAL = struct.Struct("=d")
_HEADER_BYTES = 8  # the first byte says whether any name has a rate


class Rates:
    """Args:
    rates: every name to the rate it begins with; None for none yet.
    """

    def __init__(self, rates: Mapping[str, Rate | None]) -> None:
        self._offsets = {name: _HEADER_BYTES + number * _ENTRY.size for number, name in enumerate(rates)}
        self._everywhere = frozenset(name for name, rate in rates.items() if rate is not None and rate.everywhere)
        self._memory = mmap.mmap(-1, _HEADER_BYTES + len(rates) * _ENTRY.size)
        # Record locks: between processes, and the kernel frees them when their holder is killed. They do not exclude
        # threads of one process, the other lock does.
        self._file = lock_file()
        self._lock = threading.Lock()
        for name, rate in rates.items():
            self.set(name, rate)

    def fileno(self) -> int:
        """A descriptor that a process needs to change a rate or to take a turn."""
        return self._file.fileno()

    @property
    def any(self) -> bool:
        """Whether anything has a rate."""
        return self._memory[0] != 0

    def interval_seconds(self, name: str) -> float:
        """Seconds between two beginnings; 0.0 where there is no limit."""
        offset = self._offsets.get(name)
        return 0.0 if offset is None else float(_INTERVAL.unpack_from(self._memory, offset)[0])

    def is_everywhere(self, name: str) -> bool:
        """Whether its rate is that of all workers together. That it keeps when its rate is changed."""
        return name in self._everywhere

    def set(self, name: str, rate: Rate | None) -> None:
        """Give `name` another rate in all processes of this worker, from now on; None for no limit.

        Raises:
            ConfigError: this worker has nothing of that name, or limits no rates at all.
        """
        offset = self._offsets.get(name)
        if offset is None:
            raise ConfigError(f"this worker limits nothing named {name!r}")
        interval = 0.0 if rate is None else rate.interval_seconds
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                _ENTRY.pack_into(self._memory, offset, interval, 0.0, 0.0)
                limited = (_INTERVAL.unpack_from(self._memory, at)[0] for at in self._offsets.values())
                self._memory[0] = 1 if any(limited) else 0
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def take(self, name: str, *, most_wait_seconds: float) -> Turn:
        """A turn of `name`, at once where it has no limit."""
        offset = self._offsets[name]
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                interval, free_at, planned = _ENTRY.unpack_from(self._memory, offset)
                if not interval:
                    return Turn(0.0, granted=True)
                bucket, turn = take(
                    Bucket(free_at, planned), interval, time.monotonic(), most_wait_seconds=most_wait_seconds
                )
                _BUCKET.pack_into(self._memory, offset + _INTERVAL.size, bucket.free_at, bucket.planned_until)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
        return turn
