"""Results as files in a folder, as Celery's `file://` backend has them: one per task, named by its key."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from urllib.parse import unquote

from ...core.errors import ConfigError, NotConfirmed
from .keyvalue import GROUP_PREFIX, TASK_PREFIX, KeyValueResults


def open_files(url: str) -> FileResults:
    """For `file:///path` and `file://localhost/path`.

    Raises:
        ConfigError: there is no such folder, or it cannot be written to.
    """
    path = url.removeprefix("file://")
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    folder = Path(path)
    if not folder.is_dir():
        folder = Path(unquote(path))
    if not path.startswith("/") or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"result_backend = {url!r}: make that folder, and let this process write to it")
    return FileResults(folder)


class FileResults(KeyValueResults):
    """See `result_ports`: `ResultBackend`, `GroupKeeper`, `Expiring`. Thread-safe; a file is whole or not there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(FileStore(folder))
        self._folder = folder

    def remove_expired(self, older_than_seconds: float) -> None:
        before = time.time() - older_than_seconds
        for path in self._folder.iterdir():
            if path.name.startswith((TASK_PREFIX, GROUP_PREFIX)):
                with contextlib.suppress(FileNotFoundError):  # another process removes it as well
                    if path.stat().st_mtime < before:
                        path.unlink()


class FileStore:
    """See `keyvalue.Store`. Expiry is the age of the file; see `FileResults.remove_expired`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> bytes | None:
        try:
            return self._path(key).read_bytes() or None  # empty: Celery has opened it and not written it yet
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotConfirmed(f"the result {key!r} could not be read: {error}") from error

    def set(self, key: str, value: bytes, expires_seconds: float | None) -> None:
        unfinished = self._folder / f".{uuid.uuid4().hex}"
        try:
            unfinished.write_bytes(value)
            unfinished.replace(self._path(key))
        except OSError as error:
            raise NotConfirmed(f"the result {key!r} could not be written: {error}") from error

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        # An id comes from a message, and must not lead out of the folder.
        if "/" in key or "\x00" in key:
            raise NotConfirmed(f"{key!r:.200} cannot be the name of a file: an id there has no '/'")
        return self._folder / key
