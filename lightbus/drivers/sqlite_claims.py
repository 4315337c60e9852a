"""Claims in an SQLite file, for the processes of one machine, and in memory for tests."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.claim_sql import CLAIMS_TABLE, COLUMNS, SqlClaims
from ..core.claims import ClaimStoreUnavailable
from ..core.errors import ConfigError
from ..forks import renewed_after_fork

LOCK_PATIENCE_SECONDS = 30.0


def open_sqlite_claims(url: str) -> SqlClaims:
    """The store in the file of `sqlite:///path`; it and its folder are made.

    Raises:
        ConfigError: the URL names no file.
    """
    path = url.partition("sqlite:///")[2]
    if not path:
        raise ConfigError(f"{url!r} names no file for claims: write sqlite:///relative.db or sqlite:////absolute.db")
    return SqlClaims(_File(os.path.abspath(path)))


def open_memory_claims(url: str = "memory://") -> SqlClaims:
    """A store of this process alone, empty."""
    return SqlClaims(_File(":memory:"))


class _File:
    """See `Statements`. One connection for all threads, anew in a forked child."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._parents: list[sqlite3.Connection | None] = []
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `Renewable`."""
        self._parents.append(self._connection)
        self._connection = None
        self._lock = threading.Lock()

    def rows(self, sql: str, parameters: Mapping[str, object]) -> Sequence[Sequence[Any]]:
        with self._lock:
            try:
                return self._open().execute(sql, parameters).fetchall()
            except (OSError, sqlite3.Error) as error:
                raise ClaimStoreUnavailable(f"the claims in {self._path}: {error}") from error

    def count(self, sql: str, parameters: Mapping[str, object]) -> int:
        with self._lock:
            try:
                return self._open().execute(sql, parameters).rowcount
            except sqlite3.IntegrityError:
                return 0
            except (OSError, sqlite3.Error) as error:
                raise ClaimStoreUnavailable(f"the claims in {self._path}: {error}") from error

    def close(self) -> None:
        with self._lock:
            if self._connection is not None and self._path != ":memory:":
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._path != ":memory:":
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            connection = sqlite3.connect(
                self._path, timeout=LOCK_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=normal")
            connection.execute(f"create table if not exists {CLAIMS_TABLE} ({COLUMNS.format(float='real')})")
            connection.execute(f"create index if not exists {CLAIMS_TABLE}_until on {CLAIMS_TABLE} (until_at)")
            self._connection = connection
        return self._connection
