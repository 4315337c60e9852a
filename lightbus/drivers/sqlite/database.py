"""The SQLite file itself: where it is, what tables it has, and how a thread gets a transaction on it.

`store.py`, `topology.py` and `sessions.py` say what the rows mean. Nothing here knows kombu.

The file is shared by processes that come and go, so three things are settled here once: waiting for the write lock
instead of failing with "database is locked"; a fresh connection after a fork (SQLite's must not cross one); and
refusing a file that is newer than this code, or that belongs to something else.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")
Row = tuple[Any, ...]

SCHEMA_VERSION = 1
APPLICATION_ID = 0x4C425553  # "LBUS": tells our files from other SQLite files
LOCK_PATIENCE_SECONDS = 120.0  # writers hold the lock for well under a millisecond, or while 10 MB are written

# `rank` is the priority negated, so that one ascending index is the order of delivery. A message waits while `owner`
# and `due_at` are null; the partial indexes keep held and delayed messages out of the way of the search for it.
# Moments that must survive a reboot (due_at, expires_at, used_at) are seconds since 1970. Leases are counted on the
# machine's monotonic clock, which all processes share and nobody sets.
SCHEMA = """
CREATE TABLE queues(
    name TEXT PRIMARY KEY, declared TEXT NOT NULL, auto_delete INTEGER NOT NULL, owner TEXT,
    unused_seconds REAL, ttl_seconds REAL, used_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX queues_owner ON queues(owner) WHERE owner IS NOT NULL;
CREATE INDEX queues_unused ON queues(used_at) WHERE unused_seconds IS NOT NULL;
CREATE TABLE exchanges(
    name TEXT PRIMARY KEY, type TEXT NOT NULL, declared TEXT NOT NULL, auto_delete INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE bindings(
    exchange TEXT NOT NULL, routing_key TEXT NOT NULL, queue TEXT NOT NULL,
    PRIMARY KEY(exchange, routing_key, queue)) WITHOUT ROWID;
CREATE INDEX bindings_queue ON bindings(queue);
CREATE TABLE messages(
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, rank INTEGER NOT NULL, due_at REAL, expires_at REAL,
    owner TEXT, deliveries INTEGER NOT NULL DEFAULT 0, envelope TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX messages_ready ON messages(queue, rank, id) WHERE owner IS NULL AND due_at IS NULL;
CREATE INDEX messages_queue ON messages(queue);
CREATE INDEX messages_due ON messages(due_at) WHERE due_at IS NOT NULL;
CREATE INDEX messages_expiring ON messages(expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX messages_held ON messages(owner) WHERE owner IS NOT NULL;
CREATE TABLE sessions(
    id TEXT PRIMARY KEY, lease_until REAL NOT NULL, lease_seconds REAL NOT NULL, socket TEXT) WITHOUT ROWID;
CREATE TABLE consumers(
    session TEXT NOT NULL, tag TEXT NOT NULL, queue TEXT NOT NULL, PRIMARY KEY(session, tag)) WITHOUT ROWID;
CREATE INDEX consumers_queue ON consumers(queue, session);
"""


class StoreError(Exception):
    """Something about the broker's file, or about what it was asked, is not as it must be."""


class NotABusFile(StoreError):
    """The file cannot be used as a broker: it is newer than this code, or belongs to something else."""


class Database:
    """One broker file, as one object may use it: thread-safe, and usable on both sides of a fork."""

    def __init__(self, path: str) -> None:
        """Opens nothing yet. A relative `path` is resolved now, so that a later chdir does not move the broker."""
        self.path = os.path.abspath(path)
        self._connection: sqlite3.Connection | None = None
        _DATABASES.add(self)

    def open(self) -> sqlite3.Connection:
        """The connection, opened (and its file created) on first use, and again on the first after a fork.

        Raises:
            NotABusFile: the file is newer than this code, or not a broker's.
        """
        if self._connection is None:
            patiently(self._open)
        assert self._connection is not None
        return self._connection

    def _open(self) -> None:
        if self._connection is None:
            self._connection = _open_file(self.path)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end of the block, rolled back when the block raises."""
        connection = self.open()

        def begin() -> None:
            connection.execute("BEGIN IMMEDIATE")
            _GATE.acquire()  # held until the end, unlike the one that `patiently` takes for each attempt

        patiently(begin)
        try:
            yield connection
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            _GATE.release()

    def read(self, sql: str, arguments: Sequence[object] = ()) -> list[Row]:
        """The rows of one query, without taking the write lock."""
        connection = self.open()
        return patiently(lambda: connection.execute(sql, arguments).fetchall())

    def close(self) -> None:
        """Close the connection. The next use opens it again."""
        with _GATE:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


# SQLite keeps its file locks per process, not per connection, so these two are the process's as well. The gate lets
# no fork happen while another thread is inside SQLite (the child would inherit its mutexes locked for ever), and the
# child closes what it inherited before it opens anything: otherwise SQLite would take its parent's locks for its own.
_GATE = threading.RLock()
_DATABASES: weakref.WeakSet[Database] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for database in list(_DATABASES):
        database.close()
    _GATE.release()


os.register_at_fork(before=_GATE.acquire, after_in_parent=_GATE.release, after_in_child=_after_fork_in_child)


def patiently(action: Callable[[], T]) -> T:
    """Carry `action` out, again and again while another process holds the lock it needs.

    SQLite's own busy timeout does not cover every case (opening a log that another process is just creating or
    closing), and its waits grow to 100 ms each; short random ones share the lock better.
    """
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        with _GATE:
            try:
                return action()
            except sqlite3.OperationalError as error:
                # Python 3.10 has no error codes; SQLite has worded these two the same for twenty years.
                busy = "is locked" in str(error) or "is busy" in str(error)
                if not busy or time.monotonic() > deadline:
                    raise
        time.sleep(random.uniform(0.0005, 0.003))  # only spreads the attempts


def _open_file(path: str) -> sqlite3.Connection:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # SQLite gives its log files the mode of the file. An existing file is never opened here: closing any descriptor of
    # it drops all locks that this process has on it, those of other connections too, and that ends in a damaged file.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    try:
        ready = _is_ours(connection, path)
    except sqlite3.OperationalError:
        raise  # locked, or a failing disk
    except sqlite3.DatabaseError as error:
        raise NotABusFile(f"{path} is not an SQLite file ({error}): name another file in the broker URL") from error
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise NotABusFile(f"{path} cannot have a write-ahead log (mode {mode!r}): use a disk of this machine")
    # NORMAL: a commit survives the death of any process; after a power cut the last ones may be missing.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA journal_size_limit=67108864")
    if ready:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ours(connection, path):  # another process may have been quicker
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            for kind in ("direct", "topic", "fanout"):
                connection.execute("INSERT INTO exchanges VALUES(?,?,?,0)", (f"amq.{kind}", kind, ""))
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_ours(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the tables are there; False for an empty file."""
    # Tables first: another process may be creating all three in one transaction between these reads.
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return False
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID and version == SCHEMA_VERSION:
        return True
    if application == APPLICATION_ID:
        raise NotABusFile(
            f"{path} has the broker format {version}, this Lightbus reads {SCHEMA_VERSION}: "
            "run the same Lightbus version in all processes, or name another file in the broker URL"
        )
    raise NotABusFile(f"{path} is an SQLite file of something else: name another file in the broker URL")
