"""The schedule on the embedded broker: its records, commands and leader are rows in the broker's own file.

One transaction looks whether this process leads, notes the decisions and puts the messages into their queues.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from ...core.errors import BrokerUnreachable, ConnectionLost, NotLeading, ScheduleStateError, Unroutable
from ...core.message import Parcel
from ..kombu.wire import properties_of
from .database import Database, StoreError
from .envelope import to_envelope
from .sessions import sockets_for
from .topology import NotFound, route
from .transport import path_from_url
from .wake import Waker

LEASE_SECONDS = 1.0
#: A lease is kept up when that much of it has passed.
_RENEW_AFTER = 0.25
_AT_ONCE = 1000  # records in memory

_SCHEMA = """
CREATE TABLE IF NOT EXISTS schedule_records(entry TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schedule_commands(id INTEGER PRIMARY KEY AUTOINCREMENT, command TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS schedule_leader(one INTEGER PRIMARY KEY CHECK(one=1), term TEXT, lease_until REAL NOT NULL)
"""


def open_sqlite_schedule(url: str, options: Mapping[str, object]) -> SqliteScheduleStore:
    """The store in the broker file that `url` names; the options are those of the transport, and none matters here."""
    return SqliteScheduleStore(path_from_url(url))


class SqliteScheduleStore:
    """See `ports.ScheduleStore`. For one thread."""

    def __init__(self, path: str) -> None:
        self._database = Database(path)
        self._notify = Waker()
        self._ready = False
        self._term = ""
        self._renew_at = 0.0

    def lead(self) -> str:
        now = time.monotonic()
        if self._term and now < self._renew_at:
            return self._term
        with self._talking():
            # Leases are counted on the machine's monotonic clock. It begins anew with the machine, so that a lease
            # that ends later than any could is one from before.
            row = self._read("SELECT term, lease_until FROM schedule_leader")
            if row and row[0][0] != self._term and now < row[0][1] <= now + 2 * LEASE_SECONDS:
                self._term = ""
                return ""
            with self._database.transaction() as c:
                current = c.execute("SELECT term, lease_until FROM schedule_leader").fetchone()
                if current is None or current[0] != self._term or now > current[1]:
                    self._term = ""
                    if current is not None and current[0] and now < current[1] <= now + 2 * LEASE_SECONDS:
                        return ""
                    self._term = uuid.uuid4().hex
                self._keep_lease(c)
        return self._term

    def _keep_lease(self, c: sqlite3.Connection) -> None:
        now = time.monotonic()
        c.execute("INSERT OR REPLACE INTO schedule_leader VALUES(1,?,?)", (self._term, now + LEASE_SECONDS))
        self._renew_at = now + LEASE_SECONDS * _RENEW_AFTER

    def load(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        last = ""
        while True:
            with self._talking():
                rows = self._read(
                    "SELECT entry, record FROM schedule_records WHERE entry>? ORDER BY entry LIMIT ?", (last, _AT_ONCE)
                )
            for entry_id, text in rows:
                yield entry_id, read_record(entry_id, text, self._database.path)
            if len(rows) < _AT_ONCE:
                return
            last = rows[-1][0]

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return dict(self.load())

    def commands(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        with self._talking():
            rows = self._read("SELECT id, command FROM schedule_commands ORDER BY id LIMIT 100")
        return [(str(number), json.loads(text)) for number, text in rows]

    def commit(
        self, records: Mapping[str, Mapping[str, Any] | None], messages: Sequence[Parcel], done: Sequence[str] = ()
    ) -> None:
        sockets: set[str] = set()
        with self._talking(), self._database.transaction() as c:
            row = c.execute("SELECT term FROM schedule_leader").fetchone()
            if not self._term or row is None or row[0] != self._term:
                raise NotLeading("another process leads the schedule of this broker file now")
            self._keep_lease(c)
            for entry_id, record in records.items():
                if record is None:
                    c.execute("DELETE FROM schedule_records WHERE entry=?", (entry_id,))
                else:
                    c.execute("INSERT OR REPLACE INTO schedule_records VALUES(?,?)", (entry_id, json.dumps(record)))
            for parcel in messages:
                sockets |= _put(c, parcel)
            for tag in done:
                c.execute("DELETE FROM schedule_commands WHERE id=?", (int(tag),))
        self._notify(sockets)

    def post(self, command: Mapping[str, Any]) -> None:
        with self._talking(), self._database.transaction() as c:
            c.execute("INSERT INTO schedule_commands(command) VALUES(?)", (json.dumps(command),))

    def is_waiting(self, request: str) -> bool:
        return any(command.get("request") == request for _, command in self.commands())

    def reset(self) -> None:
        with self._talking(), self._database.transaction() as c:
            for table in ("records", "commands"):
                c.execute(f"DELETE FROM schedule_{table}")

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def resign(self) -> None:
        with suppress(sqlite3.Error, OSError, StoreError):
            if self._term:
                with self._database.transaction() as c:
                    c.execute("DELETE FROM schedule_leader WHERE term=?", (self._term,))
            self._database.close()
        self._term = ""

    def _read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._database.read(sql, parameters)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            if not self._ready:
                with self._database.transaction() as c:
                    for statement in _SCHEMA.split(";"):
                        c.execute(statement)
                self._ready = True
            yield
        except NotFound as error:
            raise Unroutable(f"{error}: nobody has declared it on this broker") from error
        except StoreError as error:
            raise BrokerUnreachable(str(error)) from error
        except sqlite3.OperationalError as error:
            raise ConnectionLost(f"{self._database.path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ScheduleStateError(f"{self._database.path} is damaged: {error}") from error
        except OSError as error:
            raise BrokerUnreachable(f"cannot open {self._database.path}: {error}") from error


def read_record(entry_id: str, text: str | bytes, where: str) -> Mapping[str, Any]:
    """A record as it was kept.

    Raises:
        ScheduleStateError: it is none.
    """
    try:
        record = _plain(text)
        if isinstance(record, dict) and isinstance(record.get("decided"), str):
            return record
    except ValueError:
        pass
    raise ScheduleStateError(
        f"what {where} keeps of the schedule entry {entry_id!r} cannot be read: {text[:60]!r}; restore it, or forget "
        "the whole state with `lightbus beat --new-state`, which takes every slot until then as decided"
    )


def _plain(text: str | bytes) -> Any:
    """Raises ValueError: it is no JSON."""
    try:
        return msgspec.json.decode(text)  # six times as quick, and strict
    except (msgspec.MsgspecError, ValueError):
        return json.loads(text)  # takes NaN and halves of surrogate pairs, which `json.dumps` has written


def _put(c: sqlite3.Connection, parcel: Parcel) -> set[str]:
    """Put a message into its queues; the sockets of those who wait for it."""
    wire, way = parcel.wire, parcel.route
    message = {
        "body": wire.body, "content-type": wire.content_type, "content-encoding": wire.content_encoding,
        "headers": dict(wire.headers), "properties": {"priority": 0, **properties_of(wire)},
    }  # fmt: skip
    row = to_envelope(message, way.exchange, way.routing_key, parcel.delay_seconds or None)
    now = time.time()
    due_at = now + row.delay_seconds if row.delay_seconds > 0 else None
    queues = route(c, way.exchange, way.routing_key)
    for queue, ttl_seconds in queues:
        lifetimes = [x for x in (ttl_seconds, row.lifetime_seconds) if x is not None]
        c.execute(
            "INSERT INTO messages(queue, rank, due_at, expires_at, envelope, body) VALUES(?,?,?,?,?,?)",
            (
                queue, -row.priority, due_at, (due_at or now) + min(lifetimes) if lifetimes else None, row.content,
                row.body,
            ),
        )  # fmt: skip
    return sockets_for(c, [queue for queue, _ in queues])
