"""Whether the processes of a worker send events, in memory that they share; and their logical clock beside it."""

from __future__ import annotations

import mmap
import struct

_CLOCK = struct.Struct("=Q")
_CLOCK_AT = 8


class Switch:
    """Made before the first fork: what one process sets, all others see.

    The clock is Lamport's, as Celery's: it orders events of different processes, not two of the same moment. Two
    processes that tick at once may get the same number.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)  # anonymous and shared

    @property
    def on(self) -> bool:
        return self._memory[0] != 0

    @on.setter
    def on(self, on: bool) -> None:
        self._memory[0] = on

    def tick(self) -> int:
        """The next number."""
        number = int(_CLOCK.unpack_from(self._memory, _CLOCK_AT)[0]) + 1
        _CLOCK.pack_into(self._memory, _CLOCK_AT, number)
        return number

    def heard(self, number: int) -> None:
        """Go on behind a number that another node has sent."""
        if number > _CLOCK.unpack_from(self._memory, _CLOCK_AT)[0]:
            _CLOCK.pack_into(self._memory, _CLOCK_AT, number)
