"""Claims as rows, in statements that SQLite, PostgreSQL, MySQL and MariaDB read alike; whoever connects runs them.

Parameters are written `:name`. Each call of `Statements.run` is a transaction: two that want one row go one after the
other, and the second sees what the first has left, since an UPDATE always looks at the latest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .claims import FORGET_SECONDS, Claim, Done, Held, Taken

CLAIMS_TABLE = "lightbus_claims"
COLUMNS = "claim_key varchar(400) primary key, holder varchar(64), until_at {float}, takes integer, done integer"
_TRIES = 20  #: rows that come and go between two statements


class Statements(Protocol):
    """A way to the database. Both methods are one transaction each, and raise ClaimStoreUnavailable."""

    def rows(self, sql: str, parameters: Mapping[str, object]) -> Sequence[Sequence[Any]]: ...

    def count(self, sql: str, parameters: Mapping[str, object]) -> int:
        """How many rows were changed; 0 also for an INSERT of a key that is there."""

    def close(self) -> None: ...


class SqlClaims:
    """A `ClaimStore` on `Statements`."""

    def __init__(self, statements: Statements, table: str = CLAIMS_TABLE) -> None:
        self._run = statements
        self._table = table

    def claim(self, key: str, holder: str, *, now: float, lease_seconds: float) -> Claim:
        """See `ClaimStore`."""
        values = {"key": key, "holder": holder, "now": now, "until": now + lease_seconds}
        for _ in range(_TRIES):
            # A done one that has ended begins anew; MySQL assigns from left to right, so `takes` comes before `done`.
            taken = self._run.count(
                f"update {self._table} set takes = case when done = 1 then 1 else takes + 1 end, holder = :holder, "
                "until_at = :until, done = 0 where claim_key = :key and until_at <= :now",
                values,
            )
            found = self._run.rows(
                f"select holder, until_at, takes, done from {self._table} where claim_key = :key", {"key": key}
            )
            if taken and found and found[0][0] == holder:
                return Taken(found[0][2])
            if found and found[0][1] > now:
                return Done() if found[0][3] else Held(found[0][1] - now)
            if not found and self._run.count(
                f"insert into {self._table} (claim_key, holder, until_at, takes, done) "
                "values (:key, :holder, :until, 1, 0)",
                {name: values[name] for name in ("key", "holder", "until")},
            ):
                return Taken(1)
        return Held(lease_seconds)  # many want it at once, and one of them has it

    def keep(self, key: str, holder: str, *, now: float, lease_seconds: float) -> None:
        """See `ClaimStore`."""
        self._run.count(
            f"update {self._table} set until_at = :until where claim_key = :key and holder = :holder and done = 0",
            {"key": key, "holder": holder, "until": now + lease_seconds},
        )

    def done(self, key: str, holder: str, *, now: float, keep_seconds: float) -> None:
        """See `ClaimStore`."""
        self._run.count(
            f"update {self._table} set until_at = :until, done = 1 where claim_key = :key and holder = :holder",
            {"key": key, "holder": holder, "until": now + keep_seconds},
        )

    def release(self, key: str, holder: str) -> None:
        """See `ClaimStore`."""
        self._run.count(
            f"delete from {self._table} where claim_key = :key and holder = :holder", {"key": key, "holder": holder}
        )

    def clean(self, *, now: float) -> None:
        """See `ClaimStore`."""
        self._run.count(
            f"delete from {self._table} where until_at <= :now and (done = 1 or until_at <= :oldest)",
            {"now": now, "oldest": now - FORGET_SECONDS},
        )

    def close(self) -> None:
        """See `ClaimStore`."""
        self._run.close()
