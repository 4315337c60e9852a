"""Queues, exchanges and bindings: what stands, and which queues a message goes to.

They are rows, so all processes see the same ones at once. Declarations follow AMQP: the same again is harmless, a
different one under the same name is refused. Who consumes, and what happens to a queue whose user is gone, is in
`sessions.py`; messages are in `store.py`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .database import Database, StoreError
from .routing import topic_matches

EXCHANGE_TYPES = ("direct", "topic", "fanout")


class NotFound(StoreError):
    """There is no queue or exchange of that name."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} {name!r}: declare it first")
        self.name = name


class Mismatch(StoreError):
    """It stands with other properties, or is not in the state that the caller asks for."""


class Locked(StoreError):
    """The queue is exclusive to another connection."""


@dataclass(frozen=True)
class QueueSpec:
    """A queue as declared. `x-expires` and `x-message-ttl` (milliseconds) count; other arguments are only compared."""

    name: str
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, object] = field(default_factory=dict)

    def seconds(self, argument: str) -> float | None:
        """The value of a milliseconds argument.

        Raises:
            Mismatch: it is no number of 0 or more.
        """
        value = self.arguments.get(argument)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise Mismatch(f"queue {self.name!r}: {argument} must be milliseconds, 0 or more, got {value!r}")
        return value / 1000


class Topology:
    """Declares, removes and looks up. Each public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def declare_queue(self, spec: QueueSpec, session: str | None = None) -> None:
        """Make the queue stand; `session` will own it when it is exclusive.

        Raises:
            Mismatch: it stands with other properties, or an argument has a wrong value.
            Locked: it is exclusive to another session.
        """
        declared = json.dumps(
            [spec.durable, spec.exclusive, spec.auto_delete, dict(spec.arguments)], sort_keys=True, default=repr
        )
        unused, ttl = spec.seconds("x-expires"), spec.seconds("x-message-ttl")
        with self._database.transaction() as c:
            row = c.execute("SELECT declared, owner FROM queues WHERE name=?", (spec.name,)).fetchone()
            if row is None:
                owner = session if spec.exclusive else None
                values = (spec.name, declared, spec.auto_delete, owner, unused, ttl, time.time())
                c.execute("INSERT INTO queues VALUES(?,?,?,?,?,?,?)", values)
                return
            check_owner(spec.name, row[1], session)
            if row[0] != declared:
                raise Mismatch(
                    f"queue {spec.name!r} stands with other properties [durable, exclusive, auto_delete, arguments]: "
                    f"{row[0]}, asked for {declared}: declare it the same way everywhere, or delete it first"
                )
            if unused is not None:
                c.execute("UPDATE queues SET used_at=? WHERE name=?", (time.time(), spec.name))

    def queue_exists(self, name: str) -> bool:
        return bool(self._database.read("SELECT 1 FROM queues WHERE name=?", (name,)))

    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Remove the queue, its bindings and messages. Returns how many messages went; 0 also when there is no queue.

        Raises:
            Mismatch: it has consumers (`if_unused`) or messages (`if_empty`).
        """
        with self._database.transaction() as c:
            if if_unused and c.execute("SELECT 1 FROM consumers WHERE queue=? LIMIT 1", (name,)).fetchone():
                raise Mismatch(f"queue {name!r} has consumers, so it was not deleted")
            if if_empty and c.execute("SELECT 1 FROM messages WHERE queue=? LIMIT 1", (name,)).fetchone():
                raise Mismatch(f"queue {name!r} is not empty, so it was not deleted")
            return drop_queue(c, name)

    def declare_exchange(
        self, name: str, kind: str, *, durable: bool, auto_delete: bool, arguments: Mapping[str, object]
    ) -> None:
        """Make the exchange stand.

        Raises:
            Mismatch: it stands with other properties, or `kind` is none of direct, topic and fanout.
        """
        if kind not in EXCHANGE_TYPES:
            raise Mismatch(f"exchange {name!r}: the embedded broker has {', '.join(EXCHANGE_TYPES)}, not {kind!r}")
        declared = json.dumps([durable, auto_delete, dict(arguments)], sort_keys=True, default=repr)
        row = self._database.read("SELECT type, declared FROM exchanges WHERE name=?", (name,))
        if not row:
            with self._database.transaction() as c:
                values = (name, kind, declared, auto_delete)
                if c.execute("INSERT OR IGNORE INTO exchanges VALUES(?,?,?,?)", values).rowcount:
                    return
            row = self._database.read("SELECT type, declared FROM exchanges WHERE name=?", (name,))
        if row and not name.startswith("amq.") and row[0] != (kind, declared):
            raise Mismatch(
                f"exchange {name!r} stands as {row[0][0]} with [durable, auto_delete, arguments] {row[0][1]}, "
                f"asked for {kind} with {declared}: declare it the same way everywhere, or delete it first"
            )

    def exchange_exists(self, name: str) -> bool:
        return bool(self._database.read("SELECT 1 FROM exchanges WHERE name=?", (name,)))

    def exchange_names(self) -> list[str]:
        return [row[0] for row in self._database.read("SELECT name FROM exchanges ORDER BY name")]

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        """Remove the exchange and its bindings; its queues stay.

        Raises:
            Mismatch: it has bindings (`if_unused`).
        """
        with self._database.transaction() as c:
            if if_unused and c.execute("SELECT 1 FROM bindings WHERE exchange=? LIMIT 1", (name,)).fetchone():
                raise Mismatch(f"exchange {name!r} has bindings, so it was not deleted")
            c.execute("DELETE FROM bindings WHERE exchange=?", (name,))
            c.execute("DELETE FROM exchanges WHERE name=?", (name,))

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Let `exchange` put messages into `queue`.

        Raises:
            NotFound: there is no such queue or exchange.
        """
        values = (exchange, routing_key, queue)
        if self._database.read("SELECT 1 FROM bindings WHERE exchange=? AND routing_key=? AND queue=?", values):
            return
        with self._database.transaction() as c:
            for kind, name in (("queue", queue), ("exchange", exchange)):
                if c.execute(f"SELECT 1 FROM {kind}s WHERE name=?", (name,)).fetchone() is None:
                    raise NotFound(kind, name)
            c.execute("INSERT OR IGNORE INTO bindings VALUES(?,?,?)", values)

    def unbind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Undo `bind`. Nothing happens when it was not bound."""
        with self._database.transaction() as c:
            values = (exchange, routing_key, queue)
            c.execute("DELETE FROM bindings WHERE exchange=? AND routing_key=? AND queue=?", values)
            _drop_unbound_exchange(c, exchange)

    def bindings(self) -> list[tuple[str, str, str]]:
        """All of them, as (queue, exchange, routing key)."""
        rows = self._database.read("SELECT queue, exchange, routing_key FROM bindings ORDER BY 2, 3, 1")
        return [(row[0], row[1], row[2]) for row in rows]


def check_owner(queue: str, owner: str | None, session: str | None) -> None:
    """Raise `Locked` when the queue is exclusive to a session other than `session`."""
    if owner is not None and owner != session:
        raise Locked(f"queue {queue!r} is exclusive to another connection")


def route(c: sqlite3.Connection, exchange: str, routing_key: str) -> list[tuple[str, float | None]]:
    """The queues that take the message, each with its message lifetime in seconds. `""` is the default exchange.

    Raises:
        NotFound: there is no such exchange.
    """
    if not exchange:
        return c.execute("SELECT name, ttl_seconds FROM queues WHERE name=?", (routing_key,)).fetchall()
    row = c.execute("SELECT type FROM exchanges WHERE name=?", (exchange,)).fetchone()
    if row is None:
        raise NotFound("exchange", exchange)
    found = "SELECT DISTINCT q.name, q.ttl_seconds FROM bindings b JOIN queues q ON q.name=b.queue WHERE b.exchange=?"
    if row[0] == "direct":
        return c.execute(f"{found} AND b.routing_key=?", (exchange, routing_key)).fetchall()
    if row[0] == "fanout":
        return c.execute(found, (exchange,)).fetchall()
    patterns = c.execute("SELECT DISTINCT routing_key FROM bindings WHERE exchange=?", (exchange,)).fetchall()
    queues: dict[str, float | None] = {}
    for (pattern,) in patterns:
        if topic_matches(pattern, routing_key):
            queues.update(c.execute(f"{found} AND b.routing_key=?", (exchange, pattern)).fetchall())
    return list(queues.items())


def drop_queue(c: sqlite3.Connection, name: str) -> int:
    """Remove a queue and what hangs on it; returns how many messages went.

    Its consumers' rows stay, so that they go on when the queue is declared again.
    """
    count = c.execute("DELETE FROM messages WHERE queue=?", (name,)).rowcount
    exchanges = c.execute("SELECT DISTINCT exchange FROM bindings WHERE queue=?", (name,)).fetchall()
    c.execute("DELETE FROM bindings WHERE queue=?", (name,))
    for (exchange,) in exchanges:
        _drop_unbound_exchange(c, exchange)
    c.execute("DELETE FROM queues WHERE name=?", (name,))
    return count


def _drop_unbound_exchange(c: sqlite3.Connection, exchange: str) -> None:
    c.execute(
        "DELETE FROM exchanges WHERE name=? AND auto_delete AND NOT EXISTS(SELECT 1 FROM bindings WHERE exchange=?)",
        (exchange, exchange),
    )
