"""Results through a backend class of Celery's, while Celery is installed: MongoDB, Elasticsearch, a class of one's own.

The class stores and reads as it does in Celery, with an app of its own that nobody else sees.
Exceptions are not rebuilt by it but by compat's own rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ... import open_result_backend
from ...core.errors import BrokerUnreachable, ConfigError, NotConfirmed, TransportError
from ...result_ports import ResultBackend, Tally
from .. import states
from ..results import ResultDocument, decode_result, encode_result, exception_triple
from ..serializers import Codec
from ..settings import Settings
from .polling import poll

T = TypeVar("T")

_EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue", "stamped_headers")


def open_celery_backend(settings: Settings) -> ResultBackend:
    """The backend class that `settings.result_backend` names, is the URL of, or is.

    Raises:
        ConfigError: Celery knows none of that name, or what it needs is not installed.
    """
    from celery import Celery
    from celery.app.backends import by_url
    from celery.backends.base import Backend, KeyValueStoreBackend
    from celery.exceptions import ImproperlyConfigured

    app = Celery("lightbus-results", set_as_current=False)
    app.conf.update(
        dict(settings.result_settings),
        result_backend=settings.result_backend,
        result_serializer=settings.result_serializer,
        result_accept_content=list(settings.result_codec.accept),
        result_expires=settings.result_expires_seconds,
        result_extended=settings.result_extended,
        timezone=settings.timezone,
        enable_utc=settings.enable_utc,
    )
    try:
        cls, url = by_url(settings.result_backend, app.loader)
        backend = app.backend
    except (ImproperlyConfigured, ImportError) as error:
        raise ConfigError(f"Celery has no result backend {_named(settings)}: {error}") from error
    if cls.__module__ == "celery.backends.redis" or any(
        base.__module__ == "celery.backends.redis" for base in cls.__mro__
    ):
        return CountingLikeRedis(app, str(url or settings.result_backend), settings)
    own_count = cls.on_chord_part_return not in (
        Backend.on_chord_part_return, KeyValueStoreBackend.on_chord_part_return
    )  # fmt: skip
    if own_count or _refuses_chords(backend):
        return UncountedResults(app, settings.result_codec)
    kind = TallyingResults if getattr(cls, "implements_incr", False) else CeleryResults
    return kind(app, settings.result_codec)


class CeleryResults:
    """See `result_ports`: `ResultBackend`, `GroupKeeper`, `Expiring`. Thread-safe: Celery makes one for each thread.

    Args:
        app: a Celery app whose backend it is.
        codec: by which documents come and go; the class has its own, from the same settings.
    """

    def __init__(self, app: Any, codec: Codec) -> None:
        self._app = app
        self._codec = codec

    def store(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        found = decode_result(document, self._codec)
        self._carry_out(
            lambda backend: backend.store_result(
                task_id, found.result, found.status, traceback=found.traceback, request=self._request(found)
            )
        )

    def fetch(self, task_id: str) -> bytes | None:
        meta = self._carry_out(lambda backend: backend.get_task_meta(task_id, cache=False))
        if meta["status"] == states.PENDING and meta.get("result") is None:
            return None
        return encode_result(_document(task_id, meta), codec=self._codec)

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        return poll(lambda: self.fetch(task_id), timeout_seconds)

    def forget(self, task_id: str) -> None:
        if self.fetch(task_id) is not None:  # some of Celery's complain about what is not there
            self._carry_out(lambda backend: backend.forget(task_id))

    def store_group(self, group_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        self._carry_out(lambda backend: backend.save_group(group_id, self._group(document)))

    def fetch_group(self, group_id: str) -> bytes | None:
        meta = self._carry_out(lambda backend: backend.get_group_meta(group_id, cache=False))
        return None if not meta else self._codec.dumps({"result": meta["result"].as_tuple()})

    def forget_group(self, group_id: str) -> None:
        if self.fetch_group(group_id) is not None:
            self._carry_out(lambda backend: backend.delete_group(group_id))

    def remove_expired(self, older_than_seconds: float) -> None:
        self._carry_out(lambda backend: backend.cleanup())

    def close(self) -> None:
        """What the class holds open it closes by itself."""

    def _group(self, document: bytes) -> Any:
        from celery.result import result_from_tuple

        found: Any = self._codec.loads(document)
        return result_from_tuple(found["result"], self._app)

    def _request(self, document: ResultDocument) -> Any:
        """What a backend of Celery's asks a task's request for."""
        from celery.app.task import Context
        from celery.result import result_from_tuple

        extended = document.extended
        stamped = extended.get("stamped_headers") or ()
        return Context(
            id=document.task_id,
            group=document.group_id,
            parent_id=document.parent_id,
            children=[result_from_tuple(child, self._app) for child in document.children],
            task=extended.get("name"),
            args=extended.get("args"),
            kwargs=extended.get("kwargs"),
            hostname=extended.get("worker"),
            retries=extended.get("retries"),
            delivery_info={"routing_key": extended.get("queue")},
            stamped_headers=list(stamped),
            stamps={name: extended[name] for name in stamped if name in extended},
        )

    def _carry_out(self, act: Callable[[Any], T]) -> T:
        try:
            backend = self._app.backend
            if "meta_from_decoded" not in vars(backend):
                backend.meta_from_decoded = _as_it_is
            return act(backend)
        except TransportError:
            raise
        except OSError as error:
            raise BrokerUnreachable(f"no connection to the results by {self._name}: {error}") from error
        except Exception as error:  # each backend has its own errors
            raise NotConfirmed(f"the results by {self._name}: {error!r}") from error

    @property
    def _name(self) -> str:
        return type(self._app.backend).__qualname__


class UncountedResults(CeleryResults):
    """A backend that counts chords in a way of its own, or refuses them: Lightbus must not take part in one."""


class TallyingResults(CeleryResults):
    """See `ports.ChordTally` too: a class with an atomic counter, which counts as Celery does with it."""

    def begin_tally(self, group_id: str, size: int, group: bytes, *, expires_seconds: float | None) -> None:
        found = self._group(group)
        self._carry_out(lambda backend: backend.apply_chord((group_id, found.results), None))

    def tally(self, group_id: str, size: int | None, *, expires_seconds: float | None) -> Tally | None:
        group = self.fetch_group(group_id)
        if group is None:
            return None
        counted = self._carry_out(lambda backend: backend.incr(backend.get_key_for_chord(group_id)))
        wanted = size if size is not None else len(self._group(group))
        if counted < wanted:
            self._carry_out(lambda backend: backend.expire(backend.get_key_for_chord(group_id), backend.expires))
        return Tally(complete=counted == wanted, group=group)

    def end_tally(self, group_id: str) -> None:
        self.forget_group(group_id)
        self._carry_out(lambda backend: backend.delete(backend.get_key_for_chord(group_id)))


class CountingLikeRedis(CeleryResults):
    """See `ports.ChordCounter` too: a class derived from Celery's Redis backend, whose chords lie under its keys."""

    def __init__(self, app: Any, url: str, settings: Settings) -> None:
        from . import redis_options

        super().__init__(app, settings.result_codec)
        scheme = url.partition("://")[0]
        url = url if scheme in ("redis", "rediss", "sentinel") else f"redis+{url}" if scheme == "socket" else "redis://"
        counter: Any = open_result_backend(url, options=redis_options(settings.result_settings))
        self._counter = counter
        self.begin_chord, self.extend_chord = counter.begin_chord, counter.extend_chord
        self.count_part, self.end_chord = counter.count_part, counter.end_chord

    def close(self) -> None:
        self._counter.close()


def _as_it_is(meta: Any) -> Any:
    """In the place of a backend's method that would make exceptions of what was stored."""
    return meta


def _refuses_chords(backend: Any) -> bool:
    try:
        backend.ensure_chords_allowed()
    except NotImplementedError:
        return True
    return False


def _document(task_id: str, meta: Any) -> ResultDocument:
    result, done = meta.get("result"), meta.get("date_done")
    children = meta.get("children") or ()
    return ResultDocument(
        task_id=task_id,
        status=meta["status"],
        result=exception_triple(result) if isinstance(result, BaseException) else result,
        traceback=meta.get("traceback"),
        children=[child.as_tuple() if hasattr(child, "as_tuple") else child for child in children],
        date_done=done.isoformat() if hasattr(done, "isoformat") else done,
        group_id=meta.get("group_id"),
        parent_id=meta.get("parent_id"),
        extended={name: meta[name] for name in _extended_names(meta) if meta.get(name) is not None},
    )


def _extended_names(meta: Any) -> list[str]:
    return [*_EXTENDED, *(meta.get("stamped_headers") or ())]


def _named(settings: Settings) -> str:
    """Without the rest of a URL, which may hold a password."""
    return repr(str(settings.result_backend).partition("://")[0])
