"""Results in the tables of django-celery-results (`django-db`), through the models and managers of that package.

So rows look as its own backend writes them, in its admin pages too. Its models need Celery to be installed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeVar

from ...core.errors import BrokerUnreachable, ConfigError, DecodeError, NotConfirmed
from ...result_ports import Tally
from .. import json, states
from ..results import ResultDocument, decode_result, encode_result, exception_triple, safe_repr
from ..serializers import Codec, accepts, content_type_of
from ..settings import Settings
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


def open_django_tables(settings: Settings) -> DjangoResults:
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
    return DjangoResults(models, settings.result_codec)


class DjangoResults:
    """See `result_ports`: `ResultBackend`, `GroupKeeper`, `Expiring`, `ChordTally`. Thread-safe as Django is.

    Args:
        models: the module `django_celery_results.models`.
        codec: by which documents come and go, and what is written.
    """

    def __init__(self, models: Any, codec: Codec) -> None:
        self._codec = codec
        self._tasks: Any = models.TaskResult
        self._groups: Any = models.GroupResult
        self._counters: Any = models.ChordCounter

    def store(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        found = decode_result(document, self._codec)
        extended, text = found.extended, self._text
        started = {"date_started": Now()} if found.status == states.STARTED else {}
        args, kwargs = extended.get("args"), extended.get("kwargs")
        self._carry_out(
            lambda: self._tasks._default_manager.store_result(
                *self._kind, task_id, text(found.result), found.status,
                traceback=found.traceback,
                meta=text({"children": list(found.children)}),
                task_name=extended.get("name"),
                # Its own backend keeps the texts of the message, which are their reprs.
                task_args=None if args is None else text(safe_repr(tuple(args))),
                task_kwargs=None if kwargs is None else text(safe_repr(kwargs)),
                periodic_task_name=extended.get("periodic_task_name"),
                worker=extended.get("worker"),
                **started,
            )
        )  # fmt: skip

    def fetch(self, task_id: str) -> bytes | None:
        row = self._carry_out(lambda: self._tasks._default_manager.filter(task_id=task_id).first())
        return None if row is None else encode_result(self._document(row), codec=self._codec)

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        return poll(lambda: self.fetch(task_id), timeout_seconds)

    def forget(self, task_id: str) -> None:
        self._carry_out(lambda: self._tasks._default_manager.filter(task_id=task_id).delete())

    def store_group(self, group_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        result: Any = self._codec.loads(document)
        text = self._text(result["result"])
        self._carry_out(lambda: self._groups._default_manager.store_group_result(*self._kind, group_id, text))

    def fetch_group(self, group_id: str) -> bytes | None:
        row = self._carry_out(lambda: self._groups._default_manager.filter(group_id=group_id).first())
        return None if row is None else self._codec.dumps({"result": self._value(row, row.result)})

    def forget_group(self, group_id: str) -> None:
        self._carry_out(lambda: self._groups._default_manager.filter(group_id=group_id).delete())

    def remove_expired(self, older_than_seconds: float) -> None:
        self._carry_out(lambda: self._tasks._default_manager.delete_expired(older_than_seconds))
        self._carry_out(lambda: self._groups._default_manager.delete_expired(older_than_seconds))

    def begin_tally(self, group_id: str, size: int, group: bytes, *, expires_seconds: float | None) -> None:
        result: Any = self._codec.loads(group)
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
                return Tally(complete=not counter.count, group=self._codec.dumps(whole))

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

    @property
    def _kind(self) -> tuple[str, str]:
        """The content type and encoding of what is written."""
        return content_type_of(self._codec.name), self._codec.encoding

    def _text(self, value: object) -> str:
        """As the columns, which are texts, hold a value."""
        data = self._codec.dumps(value)
        return base64.b64encode(data).decode("ascii") if self._codec.encoding == "binary" else data.decode()

    def _value(self, row: Any, text: str | None) -> Any:
        """What such a text holds, by the serializer that its row names."""
        if not text:
            return None
        try:
            data = base64.b64decode(text) if row.content_encoding == "binary" else text.encode()
            if row.content_type == pickles.CONTENT_TYPE:
                return pickles.loads(data, any_class=accepts(pickles.CONTENT_TYPE, self._codec.accept))
            return self._codec.loads_as(data, row.content_type, row.content_encoding)
        except ValueError as error:
            raise DecodeError(f"a result in Django's tables cannot be read: it {error}") from error

    def _document(self, row: Any) -> ResultDocument:
        meta, result = self._value(row, row.meta), self._value(row, row.result)
        meta = meta if isinstance(meta, dict) else {}
        done = row.date_done
        extended = {
            "name": row.task_name, "args": self._shown(row, row.task_args), "kwargs": self._shown(row, row.task_kwargs),
            "worker": row.worker, "periodic_task_name": row.periodic_task_name,
        }  # fmt: skip
        return ResultDocument(
            task_id=row.task_id,
            status=row.status,
            result=exception_triple(result) if isinstance(result, BaseException) else result,
            traceback=row.traceback,
            children=meta.get("children") or (),
            date_done=done.isoformat() if done is not None and row.status in states.READY_STATES else None,
            extended={name: value for name, value in extended.items() if value is not None},
        )

    def _shown(self, row: Any, text: str | None) -> Any:
        """Arguments; older versions of the package wrote them as plain text."""
        try:
            return self._value(row, text)
        except DecodeError:
            return text
