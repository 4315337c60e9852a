"""The messages: published, leased to a consumer, acknowledged or given back.

A message that waits has no owner. Leasing sets its owner to the session of the consuming connection; acknowledging
deletes it, and only the owner can do either. How long a session may hold what it has is in `sessions.py`; which
queues a message goes to, in `topology.py`. Nothing here knows kombu: an envelope is text, a body is bytes.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice, takewhile

from ...core.turns import Turns
from .database import Database, Row
from .sessions import Sessions, count_consumers, sockets_for
from .topology import NotFound, Topology, check_owner, route

# What waits in one queue. Left to itself, SQLite may choose an index that leads through the held and delayed ones too.
READY = "messages INDEXED BY messages_ready WHERE queue=? AND owner IS NULL AND due_at IS NULL"
# The queues after a given one in which something waits: one step down the index for each. Asking for each consumed
# queue by itself took 6 ms for 1,000 queues.
READY_QUEUES = """
WITH RECURSIVE ready(queue) AS (
    SELECT (SELECT queue FROM messages INDEXED BY messages_ready
            WHERE queue>? AND owner IS NULL AND due_at IS NULL ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT m.queue FROM messages m INDEXED BY messages_ready
            WHERE m.queue>ready.queue AND m.owner IS NULL AND m.due_at IS NULL ORDER BY m.queue LIMIT 1)
    FROM ready WHERE queue IS NOT NULL LIMIT ?)
SELECT queue FROM ready WHERE queue IS NOT NULL
"""
READY_AT_ONCE = 32
FEW_QUEUES = 4  # so many are asked for one by one
# The queue of a delayed message to an exchange, which is routed when it is due; no queue can have that name. Its
# envelope is a JSON array: exchange, routing key, lifetime in seconds or null, and the envelope proper.
ROUTED_LATER = ""
LEASE_BYTES = 16 * 1024 * 1024  # one lease stops here, so that a prefetch of big messages does not fill the memory


@dataclass(frozen=True)
class Envelope:
    """What `publish` needs to know of a message.

    Attributes:
        content: everything but the body, as the driver wrote it.
        priority: higher is delivered first; equal ones in the order of publishing.
        lifetime_seconds: it is dropped when it waits longer than that.
        delay_seconds: it starts to wait only after that long; 0 for at once.
    """

    content: str
    body: bytes
    priority: int = 0
    lifetime_seconds: float | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class Leased:
    """A message in the hands of a session. `deliveries` counts this one: 2 or more means it may have been seen."""

    id: int
    queue: str
    deliveries: int
    content: str
    body: bytes


class Store:
    """One broker file. Thread-safe; after a fork it opens the file anew by itself.

    Args:
        path: of the file; it and its directory are created, for this user alone.
        notify: told the sockets of the consumers for whom something is waiting now (see `wake.py`).
    """

    def __init__(self, path: str, notify: Callable[[Iterable[str]], None]) -> None:
        self._notify = notify
        self.database = Database(path)
        self.topology = Topology(self.database)
        self.sessions = Sessions(self.database, notify)

    @property
    def path(self) -> str:
        return self.database.path

    def publish(self, exchange: str, routing_key: str, message: Envelope) -> int:
        """Put the message into each queue that takes it, and return how many did; 0 means that nobody has it.

        It is on disk for every process when this returns.

        Raises:
            NotFound: there is no such exchange.
        """
        now = time.time()
        due_at = now + message.delay_seconds if message.delay_seconds > 0 else None
        with self.database.transaction() as c:
            queues = route(c, exchange, routing_key)
            if exchange and due_at is not None:
                content = json.dumps([exchange, routing_key, message.lifetime_seconds, message.content])
                _insert(c, ROUTED_LATER, replace(message, content=content), due_at, None)
            else:
                for queue, ttl_seconds in queues:
                    expires_at = _expires_at(due_at or now, ttl_seconds, message.lifetime_seconds)
                    _insert(c, queue, message, due_at, expires_at)
            sockets = sockets_for(c, [queue for queue, _ in queues])
        self._notify(sockets)
        return len(queues)

    def lease(
        self, session: str, queues: Collection[str], limit: int, after: str = "", turns: Turns | None = None
    ) -> list[Leased]:
        """Take up to `limit` waiting messages, each queue in its turn; fewer when they are big.

        Args:
            after: the queues with higher names come first, so that each has its turn.
            turns: of queues that are not all alike, in place of that.

        Raises:
            SessionLost: the session has ended, so it cannot hold anything.
        """
        if limit < 1:
            return []
        waiting = self._ready(queues, limit if turns is None else len(queues), after if turns is None else "")
        if not waiting:
            return []
        rows = [waiting] if turns is None else [row for _, row in turns.rows(waiting)]
        ids: list[int] = []
        budget_bytes = LEASE_BYTES
        with self.database.transaction() as c:
            self.sessions.require(c, session)
            now = time.time()
            for row in rows:
                chosen, budget_bytes = _choose_in_turn(c, row, now, limit - len(ids), budget_bytes)
                ids += chosen
            return _take(c, session, ids)

    def _ready(self, queues: Collection[str], most: int, after: str) -> list[str]:
        """At most so many of the queues in which something waits, those behind `after` first.

        A look without the write lock: most wake-ups of several consumers find that another was quicker.
        """
        if len(queues) <= FEW_QUEUES:
            return self._ready_of(queues, most, after)
        found: list[str] = []
        before = takewhile(lambda name: name <= after, self._ready_behind("")) if after else ()
        around = chain(self._ready_behind(after), before)
        for number, name in enumerate(around):
            if name in queues:
                found.append(name)
            if len(found) == most:
                break
            if number > 2 * len(queues):  # too many that others consume
                return self._ready_of(queues, most, after)
        return found

    def _ready_of(self, queues: Collection[str], most: int, after: str) -> list[str]:
        """The same, by a look at each."""
        in_turn = sorted(queues, key=lambda queue: (queue <= after, queue))
        return list(islice(filter(self._anything_ready, in_turn), most))

    def _ready_behind(self, name: str) -> Iterator[str]:
        rows: Sequence[Row] = [()] * READY_AT_ONCE
        while len(rows) == READY_AT_ONCE:
            rows = self.database.read(READY_QUEUES, (name, READY_AT_ONCE))
            for (name,) in rows:
                yield name

    def _anything_ready(self, queue: str) -> bool:
        return bool(self.database.read(f"SELECT 1 FROM {READY} LIMIT 1", (queue,)))

    def ack(self, session: str, ids: Iterable[int]) -> int:
        """Delete those of the messages that `session` still holds, in one transaction; returns how many they were.

        Fewer than asked for means that the lease was lost: somebody else has them, or will.
        """
        with self.database.transaction() as c:
            return sum(c.execute("DELETE FROM messages WHERE id=? AND owner=?", (id_, session)).rowcount for id_ in ids)

    def release(self, session: str, ids: Iterable[int], *, unseen: bool = False) -> int:
        """Give messages back to their queues, at their old places. Returns how many the session still held.

        Args:
            unseen: nobody looked at them, so the next delivery is not a redelivery on their account.
        """
        queues: set[str] = set()
        count = 0
        with self.database.transaction() as c:
            for id_ in ids:
                rows = c.execute(
                    "UPDATE messages SET owner=NULL, deliveries=deliveries-? WHERE id=? AND owner=? RETURNING queue",
                    (int(unseen), id_, session),
                ).fetchall()
                count += len(rows)
                queues.update(row[0] for row in rows)
            sockets = sockets_for(c, queues)
        self._notify(sockets)
        return count

    def promote(self) -> float | None:
        """Let delayed messages whose time has come wait in their queues. Returns the seconds until the next, if any."""
        due = self._first_due()
        if due is not None and due <= time.time():
            with self.database.transaction() as c:
                queues = _route_due(c)
                rows = c.execute("UPDATE messages SET due_at=NULL WHERE due_at<=? RETURNING queue", (time.time(),))
                sockets = sockets_for(c, queues | {row[0] for row in rows.fetchall()})
            self._notify(sockets)
            due = self._first_due()
        return None if due is None else max(0.0, due - time.time())

    def _first_due(self) -> float | None:
        due: float | None = self.database.read("SELECT min(due_at) FROM messages WHERE due_at IS NOT NULL")[0][0]
        return due

    def purge(self, queue: str) -> int:
        """Remove all messages that nobody holds, the delayed ones too. Returns how many they were.

        Raises:
            NotFound: there is no such queue.
        """
        with self.database.transaction() as c:
            if c.execute("SELECT 1 FROM queues WHERE name=?", (queue,)).fetchone() is None:
                raise NotFound("queue", queue)
            return c.execute("DELETE FROM messages WHERE queue=? AND owner IS NULL", (queue,)).rowcount

    def count(self, queue: str, session: str | None = None) -> tuple[int, int]:
        """How many messages wait in the queue (held and delayed ones are not counted), and its living consumers.

        Raises:
            NotFound: there is no such queue.
            Locked: it is exclusive to a session other than `session`.
        """
        row = self.database.read("SELECT owner FROM queues WHERE name=?", (queue,))
        if not row:
            raise NotFound("queue", queue)
        check_owner(queue, row[0][0], session)
        # Counted from the index alone, and the few that have expired and were not yet swept subtracted.
        messages = self.database.read(
            f"SELECT (SELECT count(*) FROM {READY}) - (SELECT count(*) FROM messages INDEXED BY messages_expiring "
            "WHERE expires_at<=? AND queue=? AND owner IS NULL AND due_at IS NULL)",
            (queue, time.time(), queue),
        )
        return messages[0][0], count_consumers(self.database, queue)

    def close(self) -> None:
        self.database.close()


def _insert(
    c: sqlite3.Connection, queue: str, message: Envelope, due_at: float | None, expires_at: float | None
) -> None:
    c.execute(
        "INSERT INTO messages(queue, rank, due_at, expires_at, envelope, body) VALUES(?,?,?,?,?,?)",
        (queue, -message.priority, due_at, expires_at, message.content, message.body),
    )


def _expires_at(start: float, *lifetimes: float | None) -> float | None:
    given = [lifetime for lifetime in lifetimes if lifetime is not None]
    return start + min(given) if given else None


def _route_due(c: sqlite3.Connection) -> set[str]:
    """Put what is due and not routed yet into the queues that are bound now, and say which they are."""
    rows = c.execute(
        "DELETE FROM messages WHERE queue=? AND due_at<=? RETURNING id, rank, due_at, envelope, body",
        (ROUTED_LATER, time.time()),
    ).fetchall()
    found: set[str] = set()
    for _, rank, due_at, envelope, body in sorted(rows):
        exchange, routing_key, lifetime_seconds, content = json.loads(envelope)
        message = Envelope(content=content, body=body, priority=-rank)
        with suppress(NotFound):  # the exchange is gone, as are its queues' bindings
            for queue, ttl_seconds in route(c, exchange, routing_key):
                _insert(c, queue, message, None, _expires_at(due_at, ttl_seconds, lifetime_seconds))
                found.add(queue)
    return found


def _choose_in_turn(
    c: sqlite3.Connection, row: Sequence[str], now: float, limit: int, budget_bytes: int
) -> tuple[list[int], int]:
    """The ids to lease from queues that take turns, and what they leave of the budget."""
    chosen: dict[str, list[int]] = {name: [] for name in row}
    room = limit
    while row and room > 0 and budget_bytes > 0:
        for name, share in Counter(islice(cycle(row), room)).items():
            if budget_bytes > 0:
                ids, budget_bytes = _choose(c, name, now, len(chosen[name]), share, budget_bytes)
                chosen[name] += ids
                room -= len(ids)
                if len(ids) < share:
                    row = [other for other in row if other != name]
    in_turn = []
    for name in cycle(list(chosen)):
        if not any(chosen.values()):
            break
        in_turn += chosen[name][:1]
        del chosen[name][:1]
    return in_turn, budget_bytes


def _choose(
    c: sqlite3.Connection, queue: str, now: float, skip: int, limit: int, budget_bytes: int
) -> tuple[list[int], int]:
    """The ids to lease from one queue after the first `skip`, and what they leave of the budget (the first may exceed
    it)."""
    rows = c.execute(
        f"SELECT id, length(body) FROM {READY} AND (expires_at IS NULL OR expires_at>?) "
        "ORDER BY rank, id LIMIT ? OFFSET ?",
        (queue, now, limit, skip),
    )
    ids = []
    for id_, size_bytes in rows.fetchall():
        ids.append(id_)
        budget_bytes -= size_bytes
        if budget_bytes <= 0:
            break
    return ids, budget_bytes


def _take(c: sqlite3.Connection, session: str, ids: list[int]) -> list[Leased]:
    """Lease exactly these, and return them in this order (RETURNING promises none)."""
    marks = ",".join("?" * len(ids))
    rows = c.execute(
        f"UPDATE messages SET owner=?, deliveries=deliveries+1 WHERE id IN ({marks}) "
        "RETURNING id, queue, deliveries, envelope, body",
        (session, *ids),
    ).fetchall()
    taken = {row[0]: Leased(*row) for row in rows}
    return [taken[id_] for id_ in ids]
