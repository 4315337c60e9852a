"""A file with the worker's pid in it, held by one worker at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from ..core.errors import ConfigError


class PidFile:
    """Held while it exists.

    By a record lock (fcntl), and not by whether a process of that number lives: numbers are used again. Such a lock
    belongs to the process: it is not inherited by children, ends with the process however that ends, and stays over
    an exec, where the same pid takes it again.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError: a living worker holds it, or it cannot be written."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"the pid file {path} cannot be written: {error.strerror}") from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise ConfigError(
                f"the pid file {path} belongs to process {holder}, which lives: stop it, or name another file"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def keep_over_exec(self) -> None:
        """Keep the lock when this process becomes another program."""
        os.set_inheritable(self._file, True)

    def remove(self) -> None:
        """The worker ends."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._file)
