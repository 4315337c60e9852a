"""Claims in a database that is used through SQLAlchemy, for `Bus(claims=...)`.

bus = Bus("billing", claims=SqlAlchemyClaims(engine))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from ..core.claim_sql import CLAIMS_TABLE, SqlClaims
from ..core.claims import ClaimStoreUnavailable
from .sqlalchemy import forget_pool_in_children


def claims_table(metadata: MetaData, name: str = CLAIMS_TABLE) -> Table:
    """The table of the claims, in the schema of `metadata`."""
    return Table(
        name, metadata,
        Column("claim_key", String(400), primary_key=True),
        Column("holder", String(64), nullable=False),
        Column("until_at", Float(53), nullable=False, index=True),
        Column("takes", Integer, nullable=False),
        Column("done", Integer, nullable=False),
    )  # fmt: skip


class SqlAlchemyClaims(SqlClaims):
    """A `ClaimStore` in the user's database.

    Args:
        engine: connects on first use. Give it a pool of its own size: each claim takes a connection for a moment.
        metadata: gets the table, so that `create_all` makes it and Alembic finds it.
    """

    def __init__(self, engine: Engine, metadata: MetaData | None = None) -> None:
        self.metadata = MetaData() if metadata is None else metadata
        super().__init__(_Engine(engine), claims_table(self.metadata).fullname)
        forget_pool_in_children(engine)  # a worker's processes are forked


class _Engine:
    """See `Statements`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rows(self, sql: str, parameters: Mapping[str, object]) -> Sequence[Sequence[Any]]:
        try:
            with self._engine.begin() as connection:
                return connection.execute(text(sql), parameters).fetchall()
        except SQLAlchemyError as error:
            raise ClaimStoreUnavailable(f"the claims in {self._engine.url!r}: {error}") from error

    def count(self, sql: str, parameters: Mapping[str, object]) -> int:
        try:
            with self._engine.begin() as connection:
                return connection.execute(text(sql), parameters).rowcount
        except IntegrityError:
            return 0
        except SQLAlchemyError as error:
            raise ClaimStoreUnavailable(f"the claims in {self._engine.url!r}: {error}") from error

    def close(self) -> None:
        """The connections are the pool's."""
