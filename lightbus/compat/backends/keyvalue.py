"""Results under keys in a store that keeps bytes, or values, under a text: the keys are Celery's."""

from __future__ import annotations

from typing import Protocol

from .polling import poll

TASK_PREFIX = "celery-task-meta-"
GROUP_PREFIX = "celery-taskset-meta-"


class Store(Protocol):
    """Documents (bytes) under keys; errors are Lightbus's."""

    def get(self, key: str) -> bytes | None: ...

    def set(self, key: str, value: bytes, expires_seconds: float | None) -> None: ...

    def delete(self, key: str) -> None: ...


class KeyValueResults:
    """See `result_ports.ResultBackend` and `GroupKeeper`. As thread-safe as its store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def store(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        self._store.set(TASK_PREFIX + task_id, document, expires_seconds)

    def fetch(self, task_id: str) -> bytes | None:
        return self._store.get(TASK_PREFIX + task_id)

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        return poll(lambda: self.fetch(task_id), timeout_seconds)

    def forget(self, task_id: str) -> None:
        self._store.delete(TASK_PREFIX + task_id)

    def store_group(self, group_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        self._store.set(GROUP_PREFIX + group_id, document, expires_seconds)

    def fetch_group(self, group_id: str) -> bytes | None:
        return self._store.get(GROUP_PREFIX + group_id)

    def forget_group(self, group_id: str) -> None:
        self._store.delete(GROUP_PREFIX + group_id)

    def close(self) -> None:
        """Nothing is held open."""
