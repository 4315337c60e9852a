"""What a Django project writes with, and how the relay reaches its database."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections, transaction

from .... import Bus, DeclarationError, Event
from ....outbox import StoreUnavailable
from ..sending import Sendable, entry_of_event, entry_of_task
from ..sql import SqlOutbox
from ..writing import INBOX_TABLE, OUTBOX_TABLE, note_handled, with_percents, write


class Outbox:
    """The outbox and the inbox of one database. Thread-safe; make it once, where the bus is made.

    Args:
        bus: publishes what is written, from a relay; its workers know this outbox from now on.
        using: the alias of the database; its transactions are those that count.
        inbox_keep_seconds: how long the inbox remembers that a message was handled; longer than a copy of it may
            take to arrive, replays of dead letters included.
    """

    def __init__(self, bus: Bus, *, using: str = DEFAULT_DB_ALIAS, inbox_keep_seconds: float = 7 * 86400.0) -> None:
        self._bus = bus
        self._using = using
        self.store = SqlOutbox(_Alias(using), inbox_keep_seconds=inbox_keep_seconds)
        bus.add_outbox(self.store)

    def fire(
        self,
        event: Event,
        *,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        expires_seconds: float | None = None,
        priority: int | None = None,
    ) -> str:
        """Have `event` published when the transaction commits, at once outside of one; returns the message's id.

        The terms are those of `Bus.fire`. A delay and an expiry count from this call, not from the commit.

        Raises:
            BadArguments: a field or an argument has a value that it cannot have; nothing was written.
            ConfigError: the broker has no priorities.
        """
        parcel = self._bus.parcel_of(
            event, delay_seconds=delay_seconds, at=at, expires_seconds=expires_seconds, priority=priority
        )
        return self._write(entry_of_event(event, parcel))

    def send(self, task: Sendable, /, *args: Any, **kwargs: Any) -> str:
        """Have a task of `lightbus.compat` sent with these arguments when the transaction commits; returns its id.

        Raises:
            TypeError: the arguments do not fit the function.
            ValueError: an argument has no JSON form.
        """
        return self._write(entry_of_task(task, args, kwargs))

    def is_new(self) -> bool:
        """Note in the transaction that the message being handled is handled; False when it was before.

        Make its effects in the same transaction, and only when this is true: they and the note commit together.

        Raises:
            DeclarationError: no message is being handled, or there is no transaction.
        """
        connection = connections[self._using]
        if not connection.in_atomic_block:
            raise DeclarationError("is_new() needs a transaction for itself and the effects: with transaction.atomic()")
        with connection.cursor() as cursor:
            return note_handled(_Statements(cursor), connection.vendor, INBOX_TABLE)

    def _write(self, entry: Any) -> str:
        connection = connections[self._using]
        with connection.cursor() as cursor:
            write(_Statements(cursor), connection.vendor, OUTBOX_TABLE, entry)
        return str(entry.message_id)


class _Statements:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def rows(self, sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        self._cursor.execute(with_percents(sql), parameters)
        return list(self._cursor.fetchall())

    def count(self, sql: str, parameters: Mapping[str, object]) -> int:
        self._cursor.execute(with_percents(sql), parameters)
        return int(self._cursor.rowcount)


class _Alias:
    """A `Database` of `sql`, on the connections of the calling thread."""

    def __init__(self, using: str) -> None:
        self._using = using

    @property
    def dialect(self) -> str:
        return str(connections[self._using].vendor)

    @contextmanager
    def begin(self) -> Iterator[_Statements]:
        connection = connections[self._using]
        try:
            if connection.errors_occurred and not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()
            with transaction.atomic(using=self._using), connection.cursor() as cursor:
                yield _Statements(cursor)
        except (DatabaseError, InterfaceError) as error:
            raise StoreUnavailable(f"database {self._using!r}: {error}") from error

    def listening(self) -> Any | None:
        own: Any = connections[self._using]
        if own.vendor != "postgresql" or getattr(own.Database, "__name__", "") != "psycopg":
            return None
        try:
            connection: Any = own.Database.connect(**self._parameters(own))
            connection.autocommit = True
        except (DatabaseError, own.Database.Error) as error:
            raise StoreUnavailable(f"database {self._using!r}: {error}") from error
        return connection

    def close(self) -> None:
        connections[self._using].close()

    @staticmethod
    def _parameters(own: Any) -> dict[str, Any]:
        parameters = copy.copy(own.get_connection_params())
        return {key: value for key, value in parameters.items() if key not in ("cursor_factory", "context", "pool")}
