"""Task results in this process's memory, for tests. Sharing is by passing the object."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.errors import ConfigError
from ..result_ports import ChordParts


def open_memory_results(url: str, options: Mapping[str, object]) -> MemoryResults:
    """The backend for `memory://`, which has no options; raises ConfigError for a URL with a name."""
    if url != "memory://":
        raise ConfigError(f"{url!r}: results in memory have no name; share them by passing one MemoryResults")
    return MemoryResults()


class MemoryResults:
    """See `result_ports.ResultBackend`. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._documents: dict[str, tuple[bytes, float | None]] = {}  # document, end on the monotonic clock
        self._groups: dict[str, bytes] = {}
        self._chords: dict[str, _Chord] = {}

    def store(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        ends = None if expires_seconds is None else time.monotonic() + expires_seconds
        with self._changed:
            self._documents[task_id] = (document, ends)
            self._changed.notify_all()

    def fetch(self, task_id: str) -> bytes | None:
        with self._changed:
            document, ends = self._documents.get(task_id, (None, None))
            if ends is not None and ends <= time.monotonic():
                del self._documents[task_id]
                return None
            return document

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        with self._changed:
            before = self._documents.get(task_id)
            self._changed.wait_for(lambda: self._documents.get(task_id) not in (before, None), timeout_seconds)
            return self.fetch(task_id)

    def forget(self, task_id: str) -> None:
        with self._changed:
            self._documents.pop(task_id, None)

    def store_group(self, group_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        with self._changed:
            self._groups[group_id] = document

    def fetch_group(self, group_id: str) -> bytes | None:
        with self._changed:
            return self._groups.get(group_id)

    def forget_group(self, group_id: str) -> None:
        with self._changed:
            self._groups.pop(group_id, None)

    def begin_chord(self, group_id: str, size: int, structure: bytes | None, *, expires_seconds: float | None) -> None:
        with self._changed:
            self._chords[group_id] = _Chord(size, structure)

    def extend_chord(self, group_id: str, count: int) -> None:
        with self._changed:
            self._chords[group_id].size += count

    def count_part(
        self, group_id: str, task_id: str, place: int | None, part: bytes, *, expires_seconds: float | None
    ) -> ChordParts | None:
        with self._changed:
            chord = self._chords.get(group_id)
            if chord is None:
                return None
            chord.parts.setdefault((float("inf") if place is None else place, task_id), part)
            if len(chord.parts) < chord.size or chord.claimed:
                return None
            chord.claimed = True
            return ChordParts(
                parts=[chord.parts[key] for key in sorted(chord.parts)], structure=chord.structure, claim=""
            )

    def end_chord(self, group_id: str, claim: str, *, keeps_parts: bool = False) -> None:
        with self._changed:
            self._chords.pop(group_id, None)

    def close(self) -> None:
        """Nothing to disconnect; what is stored stays with the object."""


@dataclass(slots=True)
class _Chord:
    size: int
    structure: bytes | None
    parts: dict[tuple[float, str], bytes] = field(default_factory=dict)
    claimed: bool = False
