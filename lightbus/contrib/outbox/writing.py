"""What is written into outbox and inbox in the user's transaction, once for SQLAlchemy and Django.

Parameters of statements are written `:name`. Moments are Unix seconds, so that no database converts them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Protocol

from ...core.errors import DeclarationError
from ...core.outbox import Entry
from ...endpoint import current_delivery

OUTBOX_TABLE = "lightbus_outbox"
INBOX_TABLE = "lightbus_inbox"
ENTRY_COLUMNS = "message_id, kind, name, exchange, routing_key, properties, body, visible_at, written_at"
_PARAMETER = re.compile(r":(\w+)")


class Execute(Protocol):
    """Runs one statement in a transaction: the rows that it gave, or how many it changed."""

    def rows(self, sql: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]: ...

    def count(self, sql: str, parameters: Mapping[str, object]) -> int: ...


def channel_of(table: str) -> str:
    """The channel of PostgreSQL on which relays hear of new rows."""
    return re.sub(r"\W", "_", table)[:60]


def write(execute: Execute, dialect: str, table: str, entry: Entry) -> None:
    """Add an entry, and wake the relays when the transaction commits, where the database can."""
    # Rows of one transaction are published in order by one relay; elsewhere each row stands alone.
    transaction = "cast(txid_current() as varchar(40))" if dialect == "postgresql" else ":message_id"
    columns = ENTRY_COLUMNS.split(", ")
    insert = (
        f"insert into {table} (transaction_id, attempts, next_at, error, aside, {ENTRY_COLUMNS}) "
        f"values ({transaction}, 0, 0, '', 0, {', '.join(f':{column}' for column in columns)})"
    )
    parameters = {column: getattr(entry, column) for column in columns}
    if dialect == "postgresql":
        notify = f"with written as ({insert}) select pg_notify(:channel, '')"
        execute.rows(notify, {**parameters, "channel": channel_of(table)})
    else:
        execute.count(insert, parameters)


def note_handled(execute: Execute, dialect: str, table: str) -> bool:
    """Note that the message being handled is handled here; False when it was before.

    Waits for a transaction that has noted the same and has not ended yet.

    Raises:
        DeclarationError: no message is being handled.
    """
    handled = current_delivery()
    if handled is None:
        raise DeclarationError("is_new() asks about the message being handled, and none is: call it in a handler")
    listener = handled.queue if handled.kind == "event" and handled.queue else handled.name
    ignore, conflict = ("ignore ", "") if dialect in ("mysql", "mariadb") else ("", " on conflict do nothing")
    sql = (
        f"insert {ignore}into {table} (listener, message_id, handled_at) "
        f"values (:listener, :message_id, :now){conflict}"
    )
    return execute.count(sql, {"listener": listener, "message_id": handled.id, "now": time.time()}) > 0


def with_percents(sql: str) -> str:
    """`:name` as `%(name)s`, for DB-API drivers that want that."""
    return _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%"))
