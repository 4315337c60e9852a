"""Results in the tables of django-celery-results (`django-db`), through the models and managers of that package.

So rows look as its own backend writes them, in its admin pages too. Its models need Celery to be installed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeVar

from ...core.errors import BrokerUnreachable, ConfigError, DecodeError, NotConfirmed
from ...ports import Tally
from .. import json, states
from ..results import ResultDocument, decode_result, encode_result, safe_repr
from . import pickles
from .polling import poll

try:
    from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured
    from django.db import connections, router, transaction
    from django.db import utils as db_errors
    from django.db.models.functions import Now
except ModuleNotFoundError as error:
    raise ConfigError("results in Django's tables need Django: pip install django django-celery-results") from error

T = TypeVar("T")

_JSON = ("application/json", "utf-8")


def open_django_tables() -> DjangoResults:
    """Raises ConfigError: the package or Celery is not installed, or it is not among INSTALLED_APPS."""
    try:
        from django_celery_results import models
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"results in Django's tables need {error.name!r}: pip install django-celery-results"
        ) from error
    except (AppRegistryNotReady, ImproperlyConfigured, RuntimeError) as error:
        raise ConfigError(
            f"results in Django's tables: put 'django_celery_results' into INSTALLED_APPS and set Django up: {error}"
        ) from error
    return DjangoResults(models)


class DjangoResults:
    """See `ports.ResultBackend`, `GroupKeeper`, `Expiring` and `ChordTally`. Thread-safe, as Django's connections are.

    Args:
        models: the module `django_celery_results.models`.
    """

    def __init__(self, models: Any) -> None:
        self._tasks: Any = models.TaskResult
        self._groups: Any = models.GroupResult
        self._counters: Any = models.ChordCounter

    def store(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        found = decode_result(document)
        extended = found.extended
        content_type, content_encoding = _JSON
        started = {"date_started": Now()} if found.status == states.STARTED else {}
        args, kwargs = extended.get("args"), extended.get("kwargs")
        self._carry_out(
            lambda: self._tasks._default_manager.store_result(
                content_type, content_encoding, task_id, json.dumps(found.result), found.status,
                traceback=found.traceback,
                meta=json.dumps({"children": list(found.children)}),
                task_name=extended.get("name"),
                # Its own backend keeps the texts of the message, which are their reprs, as JSON.
                task_args=None if args is None else json.dumps(safe_repr(tuple(args))),
                task_kwargs=None if kwargs is None else json.dumps(safe_repr(kwargs)),
                periodic_task_name=extended.get("periodic_task_name"),
                worker=extended.get("worker"),
                **started,
            )
        )  # fmt: skip

    def fetch(self, task_id: str) -> bytes | None:
        row = self._carry_out(lambda: self._tasks._default_manager.filter(task_id=task_id).first())
        return None if row is None else encode_result(_document(row))

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        return poll(lambda: self.fetch(task_id), timeout_seconds)

    def forget(self, task_id: str) -> None:
        self._carry_out(lambda: self._tasks._default_manager.filter(task_id=task_id).delete())

    def store_group(self, group_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        result: Any = json.loads(document)
        text = json.dumps(result["result"])
        self._carry_out(lambda: self._groups._default_manager.store_group_result(*_JSON, group_id, text))

    def fetch_group(self, group_id: str) -> bytes | None:
        row = self._carry_out(lambda: self._groups._default_manager.filter(group_id=group_id).first())
        return None if row is None else json.dumps({"result": _value(row, row.result)}).encode()

    def forget_group(self, group_id: str) -> None:
        self._carry_out(lambda: self._groups._default_manager.filter(group_id=group_id).delete())

    def remove_expired(self, older_than_seconds: float) -> None:
        self._carry_out(lambda: self._tasks._default_manager.delete_expired(older_than_seconds))
        self._carry_out(lambda: self._groups._default_manager.delete_expired(older_than_seconds))

    def begin_tally(self, group_id: str, size: int, group: bytes, *, expires_seconds: float | None) -> None:
        result: Any = json.loads(group)
        members = json.dumps(result["result"][1])
        self._carry_out(lambda: self._counters.objects.create(group_id=group_id, sub_tasks=members, count=size))

    def tally(self, group_id: str, size: int | None, *, expires_seconds: float | None) -> Tally | None:
        def count() -> Tally:
            with transaction.atomic(using=router.db_for_write(self._counters)):
                counter = self._counters.objects.select_for_update().filter(group_id=group_id).first()
                if counter is None:  # it was counted to its end, and this task is a repeat
                    return Tally(complete=False, group=b"")
                counter.count -= 1
                if counter.count:
                    counter.save(update_fields=["count"])
                else:
                    counter.delete()
                whole = {"result": [[group_id, None], json.loads(counter.sub_tasks)]}
                return Tally(complete=not counter.count, group=json.dumps(whole).encode())

        return self._carry_out(count)

    def end_tally(self, group_id: str) -> None:
        """The row went with the last task."""

    def close(self) -> None:
        """The connections are Django's."""

    def _carry_out(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except (db_errors.OperationalError, db_errors.InterfaceError) as error:
            for connection in connections.all(initialized_only=True):
                if not connection.in_atomic_block:
                    connection.close_if_unusable_or_obsolete()
            raise BrokerUnreachable(f"no connection to the results in Django's tables: {error}") from error
        except db_errors.Error as error:
            raise NotConfirmed(f"Django's tables of results refused a statement: {error}") from error


def _document(row: Any) -> ResultDocument:
    meta = _value(row, row.meta)
    meta = meta if isinstance(meta, dict) else {}
    done = row.date_done
    extended = {
        "name": row.task_name, "args": _shown(row, row.task_args), "kwargs": _shown(row, row.task_kwargs),
        "worker": row.worker, "periodic_task_name": row.periodic_task_name,
    }  # fmt: skip
    return ResultDocument(
        task_id=row.task_id,
        status=row.status,
        result=_value(row, row.result),
        traceback=row.traceback,
        children=meta.get("children") or (),
        date_done=done.isoformat() if done is not None and row.status in states.READY_STATES else None,
        extended={name: value for name, value in extended.items() if value is not None},
    )


def _value(row: Any, text: str | None) -> Any:
    if not text:
        return None
    data = base64.b64decode(text) if row.content_encoding == "binary" else text.encode()
    if row.content_type == "application/x-python-serialize":
        return pickles.loads(data)
    try:
        return json.loads(data)
    except ValueError as error:
        raise DecodeError(f"the result is {row.content_type!r} and not JSON: it {error}") from error


def _shown(row: Any, text: str | None) -> Any:
    """Arguments; older versions of the package wrote them as plain text."""
    try:
        return _value(row, text)
    except DecodeError:
        return text
