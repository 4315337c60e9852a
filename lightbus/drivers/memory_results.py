"""Task results in this process's memory, for tests. Sharing is by passing the object."""

from __future__ import annotations

import threading
import time

from ..core.errors import ConfigError


def open_memory_results(url: str) -> MemoryResults:
    """The backend for `memory://`; raises ConfigError for a URL with a name."""
    if url != "memory://":
        raise ConfigError(f"{url!r}: results in memory have no name; share them by passing one MemoryResults")
    return MemoryResults()


class MemoryResults:
    """See `ports.ResultBackend`. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._documents: dict[str, tuple[bytes, float | None]] = {}  # document, end on the monotonic clock

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

    def close(self) -> None:
        """Nothing to disconnect; what is stored stays with the object."""
