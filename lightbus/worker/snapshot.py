"""What a supervisor says of its health to processes that were forked from it, in memory that they share."""

from __future__ import annotations

import mmap
import struct
from dataclasses import fields
from typing import Any

from .health import Health

_NAMES = [field.name for field in fields(Health)]
_LAYOUT = struct.Struct(f"=Id{len(_NAMES)}q")


class Snapshot:
    """A supervisor's last word on its health. One writer."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LAYOUT.size)
        self._sequence = 0

    def write(self, health: Health, now: float) -> None:
        """`now` is `time.monotonic()`, which is one clock for all processes of a machine."""
        self._sequence = (self._sequence + 2) & 0xFFFFFFFE
        values = [int(getattr(health, name)) for name in _NAMES]
        struct.pack_into("=I", self._memory, 0, self._sequence + 1)  # odd: being written
        _LAYOUT.pack_into(self._memory, 0, self._sequence + 1, now, *values)
        struct.pack_into("=I", self._memory, 0, self._sequence)

    def read(self) -> tuple[Health, float]:
        """The health, and when it was written; 0.0 for never."""
        while True:
            sequence, at, *values = _LAYOUT.unpack_from(self._memory, 0)
            again = struct.unpack_from("=I", self._memory, 0)[0]
            if sequence == again and sequence % 2 == 0:
                return _health(values), at


def _health(values: list[int]) -> Health:
    known: dict[str, Any] = dict(zip(_NAMES, values, strict=True))
    return Health(**known | {"ready": bool(known["ready"]), "stopping": bool(known["stopping"])})
