"""What a relay does with the tables of outbox and inbox, written once for SQLAlchemy and Django.

PostgreSQL and SQLite are tested; MySQL 8 and MariaDB 10.6 have what is used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ...core.errors import ConfigError
from ...core.outbox import Backlog, Claimed, Entry, Row
from ...outbox.store import Claim
from .waiting import Waiting
from .writing import ENTRY_COLUMNS, INBOX_TABLE, OUTBOX_TABLE, Execute, channel_of

CLEANED_AT_A_TIME = 1000
#: Rows that are read at a time to find those that are due.
PAGE = 500
CLAIM_TRIES = 5
_LOCKING = {**dict.fromkeys(("postgresql", "mysql", "mariadb"), " for update skip locked"), "sqlite": ""}
_ROW = f"id, attempts, next_at, error, aside, {ENTRY_COLUMNS}"


class Database(Protocol):
    """A way to the database, for a relay's thread."""

    @property
    def dialect(self) -> str: ...

    def begin(self) -> AbstractContextManager[Execute]:
        """A transaction of its own, committed at the end of the block. Raises StoreUnavailable."""

    def listening(self) -> Any | None:
        """A connection of psycopg in autocommit mode, for this object alone; None for another driver."""

    def close(self) -> None: ...


class SqlOutbox:
    """An `OutboxStore` on SQL.

    Args:
        outbox, inbox: names of the tables, with their schema where they have one.
        inbox_keep_seconds: how long the inbox remembers that a message was handled.

    Raises:
        ConfigError: a database of another kind.
    """

    def __init__(
        self, database: Database, *, outbox: str = OUTBOX_TABLE, inbox: str = INBOX_TABLE,
        inbox_keep_seconds: float = 7 * 86400.0,
    ) -> None:  # fmt: skip
        self._database = database
        self._outbox = outbox
        self._inbox = inbox
        self._inbox_keep_seconds = inbox_keep_seconds
        self._waiting = Waiting(channel_of(outbox))
        if database.dialect not in _LOCKING:
            raise ConfigError(f"no outbox on {database.dialect!r}: it can be on {', '.join(sorted(_LOCKING))}")

    @property
    def name(self) -> str:
        """See `OutboxStore`."""
        return self._outbox

    # -- for the relay -----------------------------------------------------------------------------------------------

    def claim(self, limit: int, *, lease_seconds: float) -> Claim:
        """See `OutboxStore`."""
        if self._database.dialect == "sqlite" and not self._is_any_due():
            return Claim(0.0)
        for _ in range(CLAIM_TRIES):
            with self._database.begin() as execute:
                now = self._lock(execute)
                due = self._due(execute, now, limit)
                if not due:
                    return Claim(0.0)
                locked = self._locked(execute, now, [rows[0].position for rows in due.values()])
                mine = sorted((row for rows in due.values() if rows[0].position in locked for row in rows),
                              key=lambda row: row.position)  # fmt: skip
                if mine:
                    until = now + lease_seconds
                    self._change(execute, "next_at = :until, attempts = attempts + 1", [row.position for row in mine],
                                 {"until": until})  # fmt: skip
                    return Claim(until, mine)
            # Other relays were quicker, with all of them; now these are leased, and others come next.
        return Claim(0.0)

    def load(self, positions: Sequence[int]) -> list[Row]:
        """See `OutboxStore`."""
        with self._database.begin() as execute:
            return self._select(execute, positions)

    def delete(self, positions: Sequence[int]) -> None:
        """See `OutboxStore`."""
        self.discard(positions)

    def release(self, claim: Claim, positions: Sequence[int], *, unsent: bool) -> None:
        """See `OutboxStore`."""
        change = "next_at = 0" + (", attempts = attempts - 1" if unsent else "")
        with self._database.begin() as execute:
            self._change(execute, change, positions, {}, claim)

    def put_off(self, claim: Claim, position: int, delay_seconds: float, error: str) -> None:
        """See `OutboxStore`."""
        with self._database.begin() as execute:
            now = self._lock(execute)
            self._change(execute, "next_at = :at, error = :error", [position],
                         {"at": now + delay_seconds, "error": error}, claim)  # fmt: skip

    def set_aside(self, claim: Claim, position: int, error: str) -> None:
        """See `OutboxStore`."""
        with self._database.begin() as execute:
            self._change(execute, "aside = 1, error = :error", [position], {"error": error}, claim)

    def backlog(self) -> Backlog:
        """See `OutboxStore`."""
        with self._database.begin() as execute:
            counts = {
                aside: (number, oldest)
                for aside, number, oldest in execute.rows(
                    f"select aside, count(*), min(written_at) from {self._outbox} group by aside", {}
                )
            }
        waiting, oldest = counts.get(0, (0, 0.0))
        return Backlog(waiting, oldest or 0.0, counts.get(1, (0, 0.0))[0])

    # -- for people --------------------------------------------------------------------------------------------------

    def rows(self, ids: Sequence[str] = (), *, aside: bool | None = None, limit: int = 100) -> list[Row]:
        """See `OutboxStore`."""
        conditions, parameters = [], dict[str, object]({"most": limit})
        if aside is not None:
            conditions.append(f"aside = {int(aside)}")
        if ids:
            parameters |= {f"id{number}": _beginning(one) for number, one in enumerate(ids)}
            conditions.append(
                "(" + " or ".join(f"message_id like :id{number} escape '!'" for number in range(len(ids))) + ")"
            )
        where = f" where {' and '.join(conditions)}" if conditions else ""
        with self._database.begin() as execute:
            found = execute.rows(f"select {_ROW} from {self._outbox}{where} order by id limit :most", parameters)
        return [_row(values) for values in found]

    def retry(self, positions: Sequence[int]) -> int:
        """See `OutboxStore`."""
        # A lease that runs is somebody's work: only what waits because of a failure, or is aside.
        with self._database.begin() as execute:
            return self._change(execute, "aside = 0, next_at = 0, attempts = 1", positions, {}, waiting_only=True)

    def discard(self, positions: Sequence[int]) -> int:
        """See `OutboxStore`."""
        if not positions:
            return 0
        names, parameters = _listed(positions)
        with self._database.begin() as execute:
            return execute.count(f"delete from {self._outbox} where id in ({names})", parameters)

    def clean(self) -> int:
        """See `OutboxStore`."""
        done, oldest = 0, time.time() - self._inbox_keep_seconds
        while True:
            with self._database.begin() as execute:
                found = execute.rows(
                    f"select handled_at from {self._inbox} where handled_at < :oldest order by handled_at "
                    f"limit 1 offset {CLEANED_AT_A_TIME}",
                    {"oldest": oldest},
                )
                until = found[0][0] if found else oldest
                gone = execute.count(f"delete from {self._inbox} where handled_at < :until", {"until": until})
            done += gone
            if not found or not gone:  # so many at one moment that no part can be told: another time
                return done

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """See `OutboxStore`."""
        self._waiting.wait(seconds, self._database.listening)

    def wake(self) -> None:
        """See `OutboxStore`."""
        self._waiting.wake()

    def close(self) -> None:
        """See `OutboxStore`."""
        self._waiting.close()
        self._database.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _lock(self, execute: Execute) -> float:
        """The moment by the clock that all relays share; on SQLite the write lock too, before anything is read."""
        if self._database.dialect == "postgresql":
            return float(execute.rows("select cast(extract(epoch from clock_timestamp()) as float)", {})[0][0])
        if self._database.dialect == "sqlite":
            execute.count(f"update {self._outbox} set aside = aside where id = -1", {})
        return time.time()

    def _due(self, execute: Execute, now: float, limit: int) -> dict[str, list[Claimed]]:
        """At most `limit` rows, by transaction, of transactions whose first row is due.

        Read from the front, so that the first row that is met of a transaction is its first. A statement that finds
        first rows by itself compares each row with others of its transaction, and is as slow as its planner is wrong.
        """
        due: dict[str, list[Claimed]] = {}
        blocked: set[str] = set()
        number, after = 0, -1
        while True:
            names, parameters = _listed(sorted(blocked)[:PAGE])
            others = f"and transaction_id not in ({names}) " if names else ""  # a long one may be at the front
            page = execute.rows(
                # `aside < 1`: of `= 0` a planner without statistics believes that it leaves next to nothing.
                f"select id, transaction_id, next_at, attempts, {self._length()}(body) from {self._outbox} "
                f"where aside < 1 and id > :after {others}order by id limit :most",
                {**parameters, "after": after, "most": PAGE},
            )
            for position, transaction, next_at, attempts, size in page:
                if transaction not in due:
                    if transaction in blocked or next_at > now:
                        blocked.add(transaction)
                        continue
                    due[transaction] = []
                due[transaction].append(Claimed(position, attempts + 1, size or 0))
                number += 1
                if number == limit:
                    return due
            if len(page) < PAGE:
                return due
            after = page[-1][0]

    def _locked(self, execute: Execute, now: float, heads: Sequence[int]) -> set[int]:
        """Those first rows that nobody else has or takes at this moment. Who has one has its transaction."""
        names, parameters = _listed(heads)
        found = execute.rows(
            f"select id from {self._outbox} where id in ({names}) and aside = 0 and next_at <= :now"
            + _LOCKING[self._database.dialect],
            {**parameters, "now": now},
        )
        return {position for (position,) in found}

    def _is_any_due(self) -> bool:
        """On SQLite: without the lock, which an idle relay should not take from the writers."""
        sql = f"select 1 from {self._outbox} where aside = 0 and next_at <= :now limit 1"
        with self._database.begin() as execute:
            return bool(execute.rows(sql, {"now": time.time()}))

    def _length(self) -> str:
        return "length" if self._database.dialect == "sqlite" else "octet_length"

    def _select(self, execute: Execute, positions: Sequence[int]) -> list[Row]:
        if not positions:
            return []
        names, parameters = _listed(positions)
        sql = f"select {_ROW} from {self._outbox} where id in ({names}) order by id"
        return [_row(values) for values in execute.rows(sql, parameters)]

    def _change(
        self, execute: Execute, change: str, positions: Sequence[int], parameters: Mapping[str, object],
        claim: Claim | None = None, *, waiting_only: bool = False,
    ) -> int:  # fmt: skip
        if not positions:
            return 0
        names, listed = _listed(positions)
        condition = "" if claim is None else " and next_at = :claimed"
        condition += " and (aside = 1 or error <> '')" if waiting_only else ""
        claimed = {} if claim is None else {"claimed": claim.until}
        sql = f"update {self._outbox} set {change} where id in ({names}){condition}"
        return execute.count(sql, {**parameters, **listed, **claimed})


def _listed(values: Sequence[object]) -> tuple[str, dict[str, object]]:
    names = [f"v{number}" for number in range(len(values))]
    return ", ".join(f":{name}" for name in names), dict(zip(names, values, strict=True))


def _beginning(text: str) -> str:
    escaped = re.sub(r"([!%_])", r"!\1", text)
    return f"{escaped}%"


def _row(values: tuple[Any, ...]) -> Row:
    position, attempts, next_at, error, aside, *entry = values
    message_id, kind, name, exchange, routing_key, properties, body, visible_at, written_at = entry
    return Row(
        position=position, attempts=attempts, next_at=next_at, error=error, is_aside=bool(aside),
        entry=Entry(
            message_id=message_id, kind=kind, name=name, exchange=exchange, routing_key=routing_key,
            properties=properties, body=bytes(body), visible_at=visible_at, written_at=written_at,
        ),
    )  # fmt: skip
