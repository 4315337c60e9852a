"""Results in the tables of Celery's SQLAlchemy backend (`db+postgresql://...`, `db+sqlite:///...`).

`celery_taskmeta` has a row for each task, `celery_tasksetmeta` one for each saved group. Tables that stand are used as
they are, with the columns that they have; missing ones are made as Celery 5.7 makes them, which older ones can use.
What is in the cells is `cells`'.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any, TypeVar

from ...core.errors import BrokerUnreachable, ConfigError, NotConfirmed
from .. import states
from ..results import ResultDocument, decode_result, encode_result
from ..settings import Settings
from .cells import Cells
from .polling import poll

try:
    import sqlalchemy as sa
    from sqlalchemy import exc as sa_errors
except ModuleNotFoundError as error:
    raise ConfigError("results in a database need SQLAlchemy: pip install 'lightbus-kombu[sqlalchemy]'") from error

T = TypeVar("T")

#: Since then the `result` cells are written by the result serializer.
_SERIALIZED_SINCE = (5, 7)
#: Tries to make tables or a row that another process makes at the same moment.
_TRIES = 5
_EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue")


def open_database(named: str, settings: Settings) -> DatabaseResults:
    """For `db+URL` and `database+URL`, or `database` with the setting `database_url`.

    Raises:
        ConfigError: there is no URL, or SQLAlchemy or its driver for it is not installed.
    """
    others = settings.result_settings
    url = named.partition("+")[2] if "://" in named else str(others.get("database_url") or "")
    if not url:
        raise ConfigError(f"result_backend = {named!r} needs the setting database_url, or a URL such as db+sqlite:///f")
    return DatabaseResults(
        url,
        cells=Cells(settings.result_codec, pickled=settings.oldest_celery < _SERIALIZED_SINCE),
        engine_options=_mapping(others, "database_engine_options", {"pool_pre_ping": True, "pool_recycle": 3600}),
        names=_mapping(others, "database_table_names", {}),
        schemas=_mapping(others, "database_table_schemas", {}),
        engine_callback=_callback(others.get("database_engine_callback")),
    )


class DatabaseResults:
    """See `result_ports.ResultBackend`, `GroupKeeper` and `Expiring`. Thread-safe, and usable after a fork.

    Args:
        url: SQLAlchemy's.
        cells: how they are written and read.
        engine_options: for `sqlalchemy.create_engine`.
        names, schemas: of the tables, under `task` and `group`.
        engine_callback: gets the engine before it is used.
    """

    def __init__(
        self,
        url: str,
        *,
        cells: Cells,
        engine_options: Mapping[str, Any],
        names: Mapping[str, str],
        schemas: Mapping[str, str],
        engine_callback: Callable[[sa.Engine], object] | None = None,
    ) -> None:
        try:
            self._engine = sa.create_engine(url, **engine_options)
            if engine_callback is not None:
                engine_callback(self._engine)
        except (sa_errors.ArgumentError, ImportError) as error:  # not a URL, or its driver is missing
            raise ConfigError(f"no results in that database: {_without_url(error, url)}") from None
        self._where = self._engine.url.render_as_string(hide_password=True)
        self._cells = cells
        self._codec = cells.codec
        self._tasks, self._groups = _tables(names, schemas)
        self._columns: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._pid = 0

    def store(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        found = decode_result(document, self._codec)
        self._carry_out(lambda: self._write_task(task_id, self._task_row(found)))

    def fetch(self, task_id: str) -> bytes | None:
        row = self._carry_out(lambda: self._task(task_id))
        return None if row is None else encode_result(_document(row, self._cells), codec=self._codec)

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        return poll(lambda: self.fetch(task_id), timeout_seconds)

    def forget(self, task_id: str) -> None:
        self._carry_out(lambda: self._execute(sa.delete(self._tasks).where(self._tasks.c.task_id == task_id)))

    def store_group(self, group_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        result: Any = self._codec.loads(document)
        row = {"taskset_id": group_id, "result": self._cells.of_group(result["result"]), "date_done": _utc_now()}

        def write() -> None:
            self._execute(sa.delete(self._groups).where(self._groups.c.taskset_id == group_id))
            self._execute(sa.insert(self._groups).values(row))

        self._carry_out(write)

    def fetch_group(self, group_id: str) -> bytes | None:
        query = sa.select(self._groups.c.result).where(self._groups.c.taskset_id == group_id)
        row = self._carry_out(lambda: self._first(query))
        return None if row is None else self._codec.dumps({"result": self._cells.value(row.result)})

    def forget_group(self, group_id: str) -> None:
        self._carry_out(lambda: self._execute(sa.delete(self._groups).where(self._groups.c.taskset_id == group_id)))

    def remove_expired(self, older_than_seconds: float) -> None:
        before = _utc_now() - timedelta(seconds=older_than_seconds)

        def remove() -> None:
            for table in (self._tasks, self._groups):
                self._execute(sa.delete(table).where(table.c.date_done < before))

        self._carry_out(remove)

    def close(self) -> None:
        self._engine.dispose(close=self._pid == os.getpid())

    # -- rows --------------------------------------------------------------------------------------------------------

    def _task_row(self, document: ResultDocument) -> dict[str, Any]:
        """The cells of a task's row, as far as its table has them."""
        write = self._cells.of
        cells: dict[str, Any] = {
            "status": document.status,
            "result": self._cells.of_result(document.result),
            "date_done": _moment(document.date_done),
            "traceback": None if document.traceback is None else document.traceback.replace("\x00", ""),  # PostgreSQL
            "children": write(document.children) if document.children else None,
            **{name: document.extended.get(name) for name in _EXTENDED},
        }
        for name in ("args", "kwargs"):
            if cells[name] is not None:
                cells[name] = write(cells[name])
        if stamped := document.extended.get("stamped_headers"):
            stamps = {name: document.extended.get(name) for name in stamped}
            cells["stamps"] = write({"stamped_headers": stamped, "stamps": stamps})
        return cells

    def _write_task(self, task_id: str, cells: Mapping[str, Any]) -> None:
        table = self._tasks
        values = {name: value for name, value in cells.items() if name in self._columns}
        unfinished = sa.or_(table.c.status != states.SUCCESS, table.c.status.is_(None))
        update = sa.update(table).where(table.c.task_id == task_id, unfinished).values(values)
        for left in reversed(range(_TRIES)):
            if self._execute(update) or self._first(sa.select(table.c.id).where(table.c.task_id == task_id)):
                return  # written; or it had succeeded, and that stays
            try:
                self._execute(sa.insert(table).values(task_id=task_id, **values))
                return
            except sa_errors.IntegrityError:  # another process wrote it in between
                if not left:
                    raise

    def _task(self, task_id: str) -> Any:
        columns = [column for column in self._tasks.c if column.name in self._columns]
        return self._first(sa.select(*columns).where(self._tasks.c.task_id == task_id))

    def _execute(self, statement: Any) -> int:
        with self._engine.begin() as connection:
            changed: int = connection.execute(statement).rowcount
            return changed

    def _first(self, query: Any) -> Any:
        with self._engine.connect() as connection:
            return connection.execute(query).first()

    def _carry_out(self, act: Callable[[], T]) -> T:
        try:
            self._prepare()
            return act()
        except (sa_errors.OperationalError, sa_errors.InterfaceError, sa_errors.TimeoutError) as error:
            raise BrokerUnreachable(f"no connection to the results in {self._where}: {error}") from error
        except sa_errors.SQLAlchemyError as error:
            raise NotConfirmed(f"{self._where} refused a statement: {error}") from error

    def _prepare(self) -> None:
        """In each process: drop the connections of the one it was forked from, make the tables, see their columns."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._engine.dispose(close=False)
            for left in reversed(range(_TRIES)):
                try:
                    self._tasks.metadata.create_all(self._engine)
                    break
                except sa_errors.DatabaseError:  # another process makes them at the same moment
                    if not left:
                        raise
            found = sa.inspect(self._engine).get_columns(self._tasks.name, schema=self._tasks.schema)
            self._columns = frozenset(column["name"] for column in found)
            self._pid = os.getpid()


def _tables(names: Mapping[str, str], schemas: Mapping[str, str]) -> tuple[sa.Table, sa.Table]:
    """The two tables as Celery 5.7 declares them."""
    metadata = sa.MetaData()
    integer = sa.Integer().with_variant(sa.BigInteger, "mssql")

    def key(sequence: str, schema: str | None) -> sa.Column[Any]:
        return sa.Column("id", integer, sa.Sequence(sequence, schema=schema), primary_key=True, autoincrement=True)

    tasks = sa.Table(
        names.get("task") or "celery_taskmeta", metadata,
        key("task_id_sequence", schemas.get("task")),
        sa.Column("task_id", sa.String(155), unique=True),
        sa.Column("status", sa.String(50)),
        sa.Column("result", sa.LargeBinary),
        sa.Column("date_done", sa.DateTime, index=True),
        sa.Column("traceback", sa.Text),
        sa.Column("children", sa.LargeBinary),
        sa.Column("name", sa.String(155)),
        sa.Column("args", sa.LargeBinary),
        sa.Column("kwargs", sa.LargeBinary),
        sa.Column("worker", sa.String(155)),
        sa.Column("retries", sa.Integer),
        sa.Column("queue", sa.String(155)),
        sa.Column("stamps", sa.LargeBinary),
        schema=schemas.get("task"), sqlite_autoincrement=True,
    )  # fmt: skip
    groups = sa.Table(
        names.get("group") or "celery_tasksetmeta", metadata,
        key("taskset_id_sequence", schemas.get("group")),
        sa.Column("taskset_id", sa.String(155), unique=True),
        sa.Column("result", sa.LargeBinary),
        sa.Column("date_done", sa.DateTime, index=True),
        schema=schemas.get("group"), sqlite_autoincrement=True,
    )  # fmt: skip
    return tasks, groups


def _document(row: Any, written: Cells) -> ResultDocument:
    cells = row._mapping
    extended = {name: cells[name] for name in _EXTENDED if cells.get(name) is not None}
    for name in ("args", "kwargs"):
        if name in extended:
            extended[name] = written.value(extended[name])
    stamps = written.value(cells.get("stamps"))
    if isinstance(stamps, dict) and isinstance(stamps.get("stamps"), dict):
        extended |= {"stamped_headers": stamps.get("stamped_headers"), **stamps["stamps"]}
    done = cells["date_done"]
    children = written.value(cells.get("children"))
    return ResultDocument(
        task_id=cells["task_id"],
        status=cells["status"] or states.PENDING,
        result=written.value(cells["result"]),
        traceback=cells["traceback"],
        children=children if isinstance(children, (list, tuple)) else (),
        date_done=done.isoformat() if done is not None and cells["status"] in states.READY_STATES else None,
        extended=extended,
    )


def _moment(text: str | None) -> datetime | None:
    """As Celery has moments in its tables: UTC, without saying so."""
    if text is None:
        return None
    found = datetime.fromisoformat(text)
    return found.astimezone(timezone.utc).replace(tzinfo=None) if found.tzinfo else found


def _utc_now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _callback(named: object) -> Callable[[sa.Engine], object] | None:
    """The setting `database_engine_callback`: a function, or where one is (`module:name` or `module.name`)."""
    if not isinstance(named, str):
        return named if callable(named) else None
    module, _, name = named.partition(":") if ":" in named else named.rpartition(".")
    try:
        found: Callable[[sa.Engine], object] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the setting database_engine_callback is {named!r}, and there is none: {error}") from error
    return found


def _mapping(settings: Mapping[str, object], name: str, default: Mapping[str, Any]) -> Mapping[str, Any]:
    found = settings.get(name) or default
    if not isinstance(found, Mapping):
        raise ConfigError(f"the setting {name} must be a dict, got {found!r}")
    return found


def _without_url(error: Exception, url: str) -> str:
    return str(error).replace(url, "...")
