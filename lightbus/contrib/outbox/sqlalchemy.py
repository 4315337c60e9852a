"""Outbox and inbox in a database that is used through SQLAlchemy.

outbox = Outbox(bus, engine, metadata=Base.metadata)

with Session.begin() as session:
    session.add(order)
    outbox.fire(session, Orders.placed(id=order.id))     # published if and only if the transaction commits

@bus.on(Orders.placed)
def write_invoice(event):
    with Session.begin() as session:
        if outbox.is_new(session):                       # False when a duplicate of a handled message arrives
            session.add(Invoice(order=event.id))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session

from ... import Bus, Event
from ...outbox import StoreUnavailable
from ..sqlalchemy import forget_pool_in_children
from .sending import Sendable, entry_of_event, entry_of_task
from .sql import SqlOutbox
from .writing import INBOX_TABLE, OUTBOX_TABLE, note_handled, write

#: What is in the transaction that counts.
InTransaction = Session | scoped_session[Any] | Connection


def outbox_table(metadata: MetaData, name: str = OUTBOX_TABLE) -> Table:
    """The table of the outbox, in the schema of `metadata`."""
    return Table(
        name, metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("transaction_id", String(40), nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_at", Float(53), nullable=False),
        Column("error", Text, nullable=False),
        Column("aside", Integer, nullable=False),
        Column("message_id", String(255), nullable=False),
        Column("kind", String(20), nullable=False),
        Column("name", Text, nullable=False),
        Column("exchange", Text, nullable=False),
        Column("routing_key", Text, nullable=False),
        Column("properties", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("visible_at", Float(53), nullable=False),
        Column("written_at", Float(53), nullable=False),
        Index(f"{name}_transaction", "transaction_id", "id"),
    )  # fmt: skip


def inbox_table(metadata: MetaData, name: str = INBOX_TABLE) -> Table:
    """The table of the inbox, in the schema of `metadata`."""
    return Table(
        name, metadata,
        Column("listener", String(255), primary_key=True),
        Column("message_id", String(255), primary_key=True),
        Column("handled_at", Float(53), nullable=False),
        Index(f"{name}_handled_at", "handled_at"),
    )  # fmt: skip


class Outbox:
    """The outbox and the inbox of one database. Thread-safe; make it once, where the bus is made.

    Args:
        bus: publishes what is written, from a relay; its workers know this outbox from now on.
        engine: of the database, for the relay; connects on first use.
        metadata: gets the two tables, so that `create_all` makes them and Alembic finds them.
        inbox_keep_seconds: how long the inbox remembers that a message was handled; longer than a copy of it may
            take to arrive, replays of dead letters included.
    """

    def __init__(
        self, bus: Bus, engine: Engine, metadata: MetaData | None = None, *, inbox_keep_seconds: float = 7 * 86400.0
    ) -> None:
        self.metadata = MetaData() if metadata is None else metadata
        self._bus = bus
        self._table, self._inbox = outbox_table(self.metadata), inbox_table(self.metadata)
        self.store = SqlOutbox(
            _Engine(engine),
            outbox=self._table.fullname,
            inbox=self._inbox.fullname,
            inbox_keep_seconds=inbox_keep_seconds,
        )
        bus.add_outbox(self.store)
        forget_pool_in_children(engine)  # a worker's processes are forked

    def fire(
        self,
        session: InTransaction,
        event: Event,
        *,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        expires_seconds: float | None = None,
        priority: int | None = None,
    ) -> str:
        """Have `event` published when the transaction of `session` commits; returns the message's id.

        The terms are those of `Bus.fire`. A delay and an expiry count from this call, not from the commit. From async
        code: `await session.run_sync(outbox.fire, event)`.

        Raises:
            BadArguments: a field or an argument has a value that it cannot have; nothing was written.
            ConfigError: the broker has no priorities.
        """
        parcel = self._bus.parcel_of(
            event, delay_seconds=delay_seconds, at=at, expires_seconds=expires_seconds, priority=priority
        )
        return self._write(session, entry_of_event(event, parcel))

    def send(self, session: InTransaction, task: Sendable, /, *args: Any, **kwargs: Any) -> str:
        """Have a task of `lightbus.compat` sent with these arguments when the transaction commits; returns its id.

        Raises:
            TypeError: the arguments do not fit the function.
            ValueError: an argument has no JSON form.
        """
        return self._write(session, entry_of_task(task, args, kwargs))

    def is_new(self, session: InTransaction) -> bool:
        """Note in the transaction of `session` that the message being handled is handled; False when it was before.

        Make its effects in the same transaction, and only when this is true: they and the note commit together.
        From async code: `await session.run_sync(outbox.is_new)`.

        Raises:
            DeclarationError: no message is being handled.
        """
        connection = self._connection(session)
        return note_handled(_Statements(connection), connection.dialect.name, self._inbox.fullname)

    def _write(self, session: InTransaction, entry: Any) -> str:
        connection = self._connection(session)
        write(_Statements(connection), connection.dialect.name, self._table.fullname, entry)
        return str(entry.message_id)

    def _connection(self, session: InTransaction) -> Connection:
        if isinstance(session, Connection):
            return session
        return session.connection(bind_arguments={"clause": self._table})  # a session may have several databases


class _Statements:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._connection.execute(text(sql), parameters)]

    def count(self, sql: str, parameters: Mapping[str, object]) -> int:
        return self._connection.execute(text(sql), parameters).rowcount


class _Engine:
    """A `Database` of `sql`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listening: object = None

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    @contextmanager
    def begin(self) -> Iterator[_Statements]:
        try:
            with self._engine.begin() as connection:
                yield _Statements(connection)
        except SQLAlchemyError as error:
            raise StoreUnavailable(f"{self._engine.url!r}: {error}") from error

    def listening(self) -> Any | None:
        if (self.dialect, self._engine.driver) != ("postgresql", "psycopg"):
            return None
        try:
            pooled = self._engine.raw_connection()
            connection: Any = pooled.driver_connection
            pooled.detach()  # the pool opens another in its place
            self._listening = pooled  # without it the connection would be closed
            connection.autocommit = True
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            raise StoreUnavailable(f"{self._engine.url!r}: {error}") from error
        return connection

    def close(self) -> None:
        self._listening = None  # the others are the pool's
