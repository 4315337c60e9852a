"""Something that has happened or not, and that never becomes undone: for all threads of all processes forked since.

A pipe that is written to once and never read: whoever waits for it wakes at once, also one that begins to wait later.
"""

from __future__ import annotations

import os
import select


class Latch:
    """Open until `set`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._is_set = False

    @property
    def descriptors(self) -> tuple[int, int]:
        """What a process needs of it."""
        return self._reader, self._writer

    def fileno(self) -> int:
        """Readable, for all, once it has happened."""
        return self._reader

    def set(self) -> None:
        """It has happened. Does not block: what is written a second time still fits into a pipe."""
        if not self._is_set:
            self._is_set = True
            os.write(self._writer, b".")

    def is_set(self) -> bool:
        return self.wait(0.0)

    def wait(self, seconds: float) -> bool:
        """Whether it has happened, at the latest after `seconds`."""
        if not self._is_set:
            poller = select.poll()
            poller.register(self._reader, select.POLLIN)
            self._is_set = bool(poller.poll(max(0.0, seconds) * 1000.0))
        return self._is_set
