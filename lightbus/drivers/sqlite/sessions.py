"""Who is alive: sessions, their consumers, and the clearing up after those that died.

A session is one consuming connection of one process. It holds a lease on everything it was given (messages,
consumers, exclusive queues); a keeper thread extends it about once per second, so that a message may be held for
hours. When a lease runs out, whoever notices first ends the session as if it had been closed. A process that was
frozen for longer than that finds its session gone: its acknowledgements count for nothing, and its connection
reports that it was lost.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize

from .database import Database, StoreError
from .topology import NotFound, check_owner, drop_queue

logger = logging.getLogger(__name__)

LEASE_SECONDS = 4.0
EXIT_PATIENCE_SECONDS = 2.0
KEEP_PER_LEASE = 4  # extensions per lease: three may come late before it is lost


class SessionLost(StoreError):
    """The session's lease ran out, and what it held was given to others."""


@dataclass(frozen=True)
class Kept:
    """What one round of the keeper found. Moments and leases are on the monotonic clock, in seconds."""

    lease_until: float
    next_end: float | None


class Sessions:
    """Sessions and consumers as rows. Each public method but `require` is one transaction."""

    def __init__(self, database: Database, notify: Callable[[Iterable[str]], None]) -> None:
        self._database = database
        self._notify = notify

    def start(self, lease_seconds: float, socket_path: str | None, session: str | None = None) -> str:
        """Begin a session and return its id."""
        session = session or new_session_id()
        with self._database.transaction() as c:
            until = time.monotonic() + lease_seconds
            c.execute("INSERT INTO sessions VALUES(?,?,?,?)", (session, until, lease_seconds, socket_path))
        return session

    def keep(self, session: str, lease_seconds: float, last_kept: float) -> Kept:
        """Extend the session's lease, and end the sessions whose lease ran out.

        Args:
            last_kept: when this was done before. If that is long ago, this process or the whole machine stood still,
                and the others deserve a chance to extend their leases first.

        Raises:
            SessionLost: it has ended.
        """
        dead_sockets: list[str] = []
        sockets: set[str] = set()
        with self._database.transaction() as c:
            now = time.monotonic()
            until = now + lease_seconds
            changed = c.execute("UPDATE sessions SET lease_until=? WHERE id=?", (until, session)).rowcount
            if not changed:
                raise SessionLost(f"session {session} has ended")
            if now - last_kept < 2 * lease_seconds / KEEP_PER_LEASE:
                sockets, dead_sockets = _sweep(c, now)
            row = c.execute("SELECT min(lease_until) FROM sessions WHERE id<>?", (session,)).fetchone()
        self._clear_up(sockets, dead_sockets)
        return Kept(until, row[0])

    def sweep(self) -> None:
        """End the sessions whose lease ran out; drop expired messages and queues that were unused for too long."""
        with self._database.transaction() as c:
            sockets, dead_sockets = _sweep(c, time.monotonic())
        self._clear_up(sockets, dead_sockets)

    def end(self, session: str) -> None:
        """End a session: give back what it holds, remove its consumers and exclusive queues."""
        with self._database.transaction() as c:
            queues, dead_sockets = _end(c, session)
            sockets = sockets_for(c, queues)
        self._clear_up(sockets, dead_sockets)

    def _clear_up(self, sockets: set[str], dead_sockets: list[str]) -> None:
        for path in dead_sockets:
            with suppress(OSError):
                os.unlink(path)
        self._notify(sockets)

    def require(self, c: sqlite3.Connection, session: str) -> None:
        """Raise `SessionLost` when the session has ended."""
        if c.execute("SELECT 1 FROM sessions WHERE id=?", (session,)).fetchone() is None:
            raise SessionLost(f"session {session} has ended")

    def close(self) -> None:
        """Close the file; for the keeper, which has these rows to itself."""
        self._database.close()

    def live_sockets(self) -> set[str]:
        return {row[0] for row in self._database.read("SELECT socket FROM sessions WHERE socket IS NOT NULL")}

    def add_consumer(self, session: str, tag: str, queue: str) -> None:
        """Announce that `session` consumes `queue`.

        Raises:
            SessionLost: the session has ended.
            NotFound: there is no such queue.
            Locked: it is exclusive to another session.
        """
        with self._database.transaction() as c:
            self.require(c, session)
            row = c.execute("SELECT owner FROM queues WHERE name=?", (queue,)).fetchone()
            if row is None:
                raise NotFound("queue", queue)
            check_owner(queue, row[0], session)
            c.execute("INSERT OR REPLACE INTO consumers VALUES(?,?,?)", (session, tag, queue))

    def remove_consumer(self, session: str, tag: str) -> None:
        """Undo `add_consumer`; an auto-delete queue goes with its last consumer."""
        with self._database.transaction() as c:
            sql = "DELETE FROM consumers WHERE session=? AND tag=? RETURNING queue"
            _abandon(c, {row[0] for row in c.execute(sql, (session, tag)).fetchall()})


class Keeper(threading.Thread):
    """Extends one session's lease for as long as it lives, on its own connection to the file."""

    def __init__(
        self, sessions: Sessions, session: str, lease_seconds: float, lease_until: float, on_lost: Callable[[], None]
    ) -> None:
        """`on_lost` is called once, on the keeper's thread, when the lease was lost."""
        super().__init__(name=f"lightbus-lease-{session[:8]}", daemon=True)
        self._sessions = sessions
        self._session = session
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._stopping = threading.Event()
        self._abandoned = False
        self.lease_until = lease_until
        # A process that ends without closing its connection gives back what it holds, as with a socket to a server.
        # Not `atexit`: processes of `multiprocessing` end without it. It does nothing in a forked child.
        self._at_exit = Finalize(None, self._end_at_exit, exitpriority=1)

    def run(self) -> None:
        try:
            self._keep()
        finally:
            self._at_exit.cancel()
            self._sessions.close()

    def _keep(self) -> None:
        interval = self._lease_seconds / KEEP_PER_LEASE
        last_kept = time.monotonic()
        pause = interval
        while not self._stopping.wait(pause):
            pause = interval
            try:
                kept = self._sessions.keep(self._session, self._lease_seconds, last_kept)
            except SessionLost:
                self._on_lost()
                return
            except sqlite3.Error:  # a full or failing disk may recover before the lease runs out
                logger.warning("could not extend the lease of session=%s", self._session, exc_info=True)
                continue
            self.lease_until = kept.lease_until
            last_kept = time.monotonic()
            if kept.next_end is not None:  # look just after the next lease may run out: its messages are waited for
                pause = max(interval / 20, min(interval, kept.next_end - last_kept + 0.01))
        if self._abandoned:
            with suppress(sqlite3.Error):
                self._sessions.end(self._session)

    def stop(self) -> None:
        """End the thread; the session is left to the caller."""
        self._stopping.set()

    def _end_at_exit(self) -> None:
        self.abandon()
        self.join(EXIT_PATIENCE_SECONDS)

    def abandon(self) -> None:
        """End the thread and the session, from wherever the garbage collector happens to run."""
        self._abandoned = True
        self._stopping.set()


def new_session_id() -> str:
    return secrets.token_hex(8)


def sockets_for(c: sqlite3.Connection, queues: Iterable[str]) -> set[str]:
    """The sockets of all who consume one of the queues."""
    found: set[str] = set()
    for queue in queues:
        rows = c.execute("SELECT s.socket FROM consumers c JOIN sessions s ON s.id=c.session WHERE c.queue=?", (queue,))
        found.update(row[0] for row in rows.fetchall() if row[0] is not None)
    return found


def count_consumers(database: Database, queue: str) -> int:
    """Consumers of the queue in all processes, those of ended leases left out."""
    sql = "SELECT count(*) FROM consumers c JOIN sessions s ON s.id=c.session WHERE c.queue=? AND s.lease_until>=?"
    count: int = database.read(sql, (queue, time.monotonic()))[0][0]
    return count


def _sweep(c: sqlite3.Connection, now: float) -> tuple[set[str], list[str]]:
    """Clear up everything whose time is over. Returns the sockets to notify and those to unlink."""
    # A lease further ahead than it can be was made before the last reboot, when the clock read more.
    over = "SELECT id FROM sessions WHERE lease_until<? OR lease_until>?+2*lease_seconds"
    queues: set[str] = set()
    dead_sockets: list[str] = []
    for (session,) in c.execute(over, (now, now)).fetchall():
        returned, sockets = _end(c, session)
        queues |= returned
        dead_sockets += sockets
    wall = time.time()
    c.execute("DELETE FROM messages WHERE expires_at<=? AND owner IS NULL", (wall,))
    unused = (
        "SELECT name FROM queues WHERE unused_seconds IS NOT NULL AND used_at+unused_seconds<=? "
        "AND NOT EXISTS(SELECT 1 FROM consumers WHERE queue=name)"
    )
    for (queue,) in c.execute(unused, (wall,)).fetchall():
        drop_queue(c, queue)
    return sockets_for(c, queues), dead_sockets


def _end(c: sqlite3.Connection, session: str) -> tuple[set[str], list[str]]:
    """End one session. Returns the queues that got messages back, and its socket, to be unlinked."""
    rows = c.execute("UPDATE messages SET owner=NULL WHERE owner=? RETURNING queue", (session,)).fetchall()
    consumed = c.execute("DELETE FROM consumers WHERE session=? RETURNING queue", (session,)).fetchall()
    _abandon(c, {row[0] for row in consumed})
    for (queue,) in c.execute("SELECT name FROM queues WHERE owner=?", (session,)).fetchall():
        drop_queue(c, queue)
    sockets = c.execute("DELETE FROM sessions WHERE id=? RETURNING socket", (session,)).fetchall()
    return {row[0] for row in rows}, [row[0] for row in sockets if row[0] is not None]


def _abandon(c: sqlite3.Connection, queues: set[str]) -> None:
    """A consumer of these queues left: remove those that live only as long as they have one, start others' clocks."""
    for queue in queues:
        if c.execute("SELECT 1 FROM consumers WHERE queue=? LIMIT 1", (queue,)).fetchone() is None:
            c.execute("UPDATE queues SET used_at=? WHERE name=?", (time.time(), queue))
            if c.execute("SELECT 1 FROM queues WHERE name=? AND auto_delete", (queue,)).fetchone():
                drop_queue(c, queue)
