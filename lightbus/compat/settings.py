"""Celery's settings as one value: the names that are understood, their old spellings, and their defaults.

Pure. Who reads a Celery app's configuration (`bridge`) or a mapping (`Settings.from_mapping`) makes one of these; the
rest of compat knows only this. Names are those of `settingnames`. A setting without a line in the table below has no
effect, but one whose value would change what messages mean (a serializer other than JSON) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta, timezone, tzinfo
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..core.errors import ConfigError, DeclarationError
from ..core.message import MAX_BODY_BYTES
from ..core.rate import Rate
from ..core.topology import Binding, Exchange, Queue, Topology, task_queue_name
from . import settingnames
from .compression import compression_name
from .routes import queue_from_routes
from .serializers import JSON, Codec

QueueOf = Callable[[str, Mapping[str, object]], str]

_no_routes: QueueOf = queue_from_routes(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryQueue:
    """A queue as Celery declares it. Empty exchange and routing key mean the queue's own name."""

    name: str
    exchange: str = ""
    exchange_type: str = "direct"
    routing_key: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict)  #: for example {"x-max-priority": 10}

    def topology(self) -> Topology:
        """Celery's own declaration: RabbitMQ refuses a second one that differs."""
        exchange = self.exchange or self.name
        if self.exchange_type not in ("direct", "topic", "fanout"):
            return Topology(queues=(Queue(name=self.name, passive=True),))
        return Topology(
            (Exchange(exchange, self.exchange_type),),  # type: ignore[arg-type]  # checked just above
            (self._queue(self.name),),
            (Binding(exchange, self.routing_key or self.name, self.name),),
        )

    def lightbus_topology(self) -> Topology:
        """The queue on which Lightbus serves the tasks of this one. It has the same arguments, so that priorities
        keep working and Celery, publishing to it by name under the same settings, declares it alike."""
        return Topology(queues=(self._queue(task_queue_name(self.name)),))

    def _queue(self, name: str) -> Queue:
        arguments = dict(self.arguments)
        max_priority = arguments.pop("x-max-priority", None)
        return Queue(
            name=name, max_priority=max_priority if isinstance(max_priority, int) else None, arguments=arguments
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What compat needs to know of a Celery project. Defaults are Celery's.

    Attributes:
        queue_of: the CELERY queue that a task's name and options route to; `""` means `default_queue`.
        celery_queues: the queues that Celery knows, as it declares them.
        moved: names of tasks that Lightbus serves although this process does not have their functions.
        celery_serves_others: a Celery fleet shares the broker; tasks unknown here are forwarded to it.
        timezone: an IANA name; None is UTC, or local time without `enable_utc`.
        broker_url: where messages are published and consumed; where `broker_write_url` is given they are published
            there, and where `broker_read_url` is given consumed there.
        result_backend: a URL, a name such as `django-db`, or the path or class of a backend of Celery's.
        result_settings: what else is set for result backends, by Celery's new names: `redis_socket_timeout`,
            `database_table_names`, `result_backend_transport_options` and so on.
        oldest_celery: the oldest version of Celery that reads results beside Lightbus, for example (5, 7). Only the
            `db+` backend cares: readers before 5.7 need pickled rows, so that is what is written by default.
        chord_retry_seconds: pause between two looks of `celery.chord_unlock`; `chord_join_seconds`: for how long the
            results of a header that was counted as complete may be missing; `chord_expires_seconds`: for how long a
            count is kept, None as long as results.
        broker_transport_options: Celery's, and with `broker_use_ssl` that as `ssl`.
        result_max_bytes: a larger result is stored as a failure that says so.
        send_task_events: workers begin with events for monitors switched on; `send_sent_event`: whoever sends a task
            tells of it, on `event_exchange`.
        task_max_bytes: a task message whose body is longer, decompressed, is parked. In a Celery configuration it is
            `lightbus_task_max_bytes`.
        confirm_later: `.delay()` returns when its message is written, before the broker has confirmed it; see `later`.
            In a Celery configuration it is `lightbus_confirm_later`.
        create_missing_queues: a task may go to a queue that is not among `celery_queues`.
        missing_queue_type: of queues that are neither the default one nor among `celery_queues`.
        annotations: attributes that the settings give to tasks, in Celery's forms.
        compression: of the bodies of tasks that name none; "" for none.
        remote_control: workers listen to `celery inspect` and `celery control`, on `control_exchange`, each in a queue
            of its own as the `control_queue` settings describe it.
        pool_restarts: whether they may be told to load their code anew.
        state_db: where a worker keeps revokes over a restart; None keeps them in memory.
        accept_content: serializers, or content types, of which messages and results are read;
            `result_accept_content`, where it is not None, of which results are.
        task_serializer, result_serializer, event_serializer: by which each is written; see `serializers`.
    """

    broker_url: str | None = None
    broker_read_url: str | None = None
    broker_write_url: str | None = None
    broker_transport_options: Mapping[str, object] = field(default_factory=dict)
    result_backend: str | type | None = None
    result_settings: Mapping[str, object] = field(default_factory=dict)
    oldest_celery: tuple[int, ...] = (5, 0)
    chord_retry_seconds: float = 1.0
    chord_join_seconds: float = 3.0
    chord_expires_seconds: float | None = None
    default_queue: str = "celery"
    default_queue_type: str = "classic"
    missing_queue_type: str = "classic"
    queue_max_priority: int | None = None
    default_priority: int | None = None
    celery_queues: tuple[CeleryQueue, ...] = ()
    create_missing_queues: bool = True
    queue_of: QueueOf = _no_routes
    moved: frozenset[str] = frozenset()
    celery_serves_others: bool = False
    accept_content: tuple[str, ...] = (JSON,)
    result_accept_content: tuple[str, ...] | None = None
    task_serializer: str = JSON
    result_serializer: str = JSON
    timezone: str | None = None
    enable_utc: bool = True
    result_expires_seconds: float | None = 86400.0
    result_failure_expires_seconds: float | None = None
    result_extended: bool = False
    result_max_bytes: int = 128 * 2**20
    task_max_bytes: int = MAX_BODY_BYTES
    confirm_later: bool = False
    task_ignore_result: bool = False
    store_errors_even_if_ignored: bool = False
    store_eager_result: bool = False
    always_eager: bool = False
    eager_propagates: bool = False
    acks_late: bool = False
    acks_on_failure: bool = True
    track_started: bool = False
    time_limit: float | None = None
    soft_time_limit: float | None = None
    rate_limit: str | float | Rate | None = None
    disable_rate_limits: bool = False
    inherit_parent_priority: bool = False
    annotations: object = None
    compression: str = ""
    publish_timeout_seconds: float = 30.0
    send_task_events: bool = False
    send_sent_event: bool = False
    event_exchange: str = "celeryev"
    event_serializer: str = JSON
    remote_control: bool = True
    control_exchange: str = "celery"
    control_queue_ttl_seconds: float = 300.0
    control_queue_expires_seconds: float = 10.0
    control_queue_exclusive: bool = True
    control_queue_durable: bool = False
    pool_restarts: bool = False
    state_db: str | None = None

    @property
    def read_url(self) -> str | None:
        """Where messages are consumed."""
        return self.broker_read_url or self.broker_url

    @property
    def write_url(self) -> str | None:
        """Where messages are published."""
        return self.broker_write_url or self.broker_url

    @property
    def result_codec(self) -> Codec:
        """How results are written and read."""
        accept = self.accept_content if self.result_accept_content is None else self.result_accept_content
        return Codec(self.result_serializer, accept)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> Settings:
        """Settings from Celery's names: new (`task_acks_late`), old (`CELERY_ACKS_LATE`) or as in a Django settings
        module with `namespace='CELERY'` (`CELERY_TASK_ACKS_LATE`). Names that are not known here are left alone.

        Raises:
            ConfigError: a value cannot work, or one setting is given under two names with different values.
        """
        found: dict[str, Any] = {}
        given: dict[str, str] = {}
        others: dict[str, object] = {}
        for name, value in mapping.items():
            new = _SPELLINGS.get(name)
            if (other := backend_setting(new or name)) is not None:
                others[other] = value
                continue
            if new is None:
                continue
            if new in found and found[new] != value:
                raise ConfigError(f"{name!r} and {given[new]!r} are one Celery setting with two values; keep one")
            described = settingnames.BY_NAME.get(new)  # Lightbus's own are not there
            if described is not None and described.refuses(value):
                raise ConfigError(
                    f"the Celery setting {name!r} is {value!r:.100}, which Lightbus does not support: "
                    f"{described.note}. See {settingnames.PAGE}"
                )
            found[new], given[new] = value, name
        values: dict[str, Any] = {}
        if found.get("task_acks_on_failure") is None:
            found.pop("task_acks_on_failure", None)  # the default follows the older, wider setting
        for new in [name for name in _TABLE if name in found]:
            value, (target, convert) = found[new], _TABLE[new]
            try:
                converted = convert(value)
            except (TypeError, ValueError, AttributeError) as error:
                raise ConfigError(f"the Celery setting {given[new]!r} cannot be {value!r}: {error}") from error
            if target:
                values[target] = converted
        if not values.get("broker_url"):
            values["broker_url"] = values.get("broker_write_url") or values.get("broker_read_url")
        if tls := found.get("broker_use_ssl"):
            values["broker_transport_options"] = {**values.get("broker_transport_options", {}), "ssl": tls}
        return _with_default_queue(cls(**values, result_settings=others), found)

    @property
    def zone(self) -> tzinfo | None:
        """The time zone of moments that name none; None is the machine's own."""
        if self.timezone is None:
            return timezone.utc if self.enable_utc else None
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ConfigError(f"the setting timezone is {self.timezone!r}, which this machine does not know") from error

    def route(self, name: str, options: Mapping[str, object]) -> str:
        """The Celery queue of a task: `queue_of`, or the default queue."""
        return self.queue_of(name, options) or self.default_queue

    def celery_queue(self, name: str) -> CeleryQueue:
        """The queue `name` as Celery declares it, also when it is one that Celery creates as needed."""
        for known in self.celery_queues:
            if known.name == name:
                return known
        arguments: dict[str, object] = {}
        if self.queue_max_priority is not None:
            arguments["x-max-priority"] = self.queue_max_priority
        queue_type = self.default_queue_type if name == self.default_queue else self.missing_queue_type
        if queue_type != "classic":
            arguments["x-queue-type"] = queue_type
        return CeleryQueue(name=name, arguments=arguments)


def urls(value: Any) -> str | None:
    """One URL, or several to try one after the other."""
    return value or None if isinstance(value, str) or value is None else ";".join(value)


def _boolean(value: object) -> bool:
    if isinstance(value, str):
        texts = {
            "true": True,
            "yes": True,
            "1": True,
            "on": True,
            "false": False,
            "no": False,
            "0": False,
            "off": False,
        }
        return texts[value.lower()] if value.lower() in texts else _refuse("it must be true or false")
    return bool(value)


def _seconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None:
        return None
    return float(value) if isinstance(value, (int, float, str)) else _refuse("it must be seconds or a timedelta")


def _expiry(value: object) -> float | None:
    return _seconds(value) or None  # Celery: 0 and None keep results for ever


def _serializer(value: object) -> str:
    """A name in kombu's registry, which is asked on first use: the application may add it later."""
    return JSON if value is None else value if isinstance(value, str) else _refuse("it must be a serializer's name")


def _accept(value: object) -> tuple[str, ...]:
    names = tuple(str(one) for one in value) if isinstance(value, (list, tuple, set, frozenset)) else ()
    return names or _refuse("it must be a list of serializers or content types, for example ['json']")


def _accept_or_none(value: object) -> tuple[str, ...] | None:
    return None if value is None else _accept(value)


def _optional_integer(value: object) -> int | None:
    return None if value is None else int(value) if isinstance(value, (int, str)) else _refuse("it must be an integer")


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _backend(value: object) -> str | type | None:
    return value if isinstance(value, type) else _text_or_none(value)


def _version(value: object) -> tuple[int, ...]:
    parts = value if isinstance(value, (list, tuple)) else str(value).split(".")
    return tuple(int(str(part)) for part in parts)


def backend_setting(name: str) -> str | None:
    """Celery's new name of a setting for result backends that is not in the table; None if it is for something else."""
    new = name.lower()
    if name.isupper():
        new = new.removeprefix("celery_")
    return new if new.startswith(_BACKEND_SETTINGS) and new not in _TABLE else None


def _queues(value: Any) -> tuple[CeleryQueue, ...]:
    """Celery's `task_queues`: a dict of dicts, or a sequence of kombu `Queue`s (read by their attributes)."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple(_queue_from_options(str(name), options) for name, options in value.items())
    if not isinstance(value, Iterable):
        _refuse("it must be a mapping or a sequence of queues")
    return tuple(_queue_from_kombu(queue) for queue in value)


def _queue_from_options(name: str, options: Mapping[str, Any]) -> CeleryQueue:
    return CeleryQueue(
        name=name,
        exchange=options.get("exchange") or name,
        exchange_type=options.get("exchange_type") or "direct",
        routing_key=options.get("routing_key") or options.get("binding_key") or name,
        arguments=dict(options.get("queue_arguments") or {}),
    )


def _queue_from_kombu(queue: Any) -> CeleryQueue:
    return CeleryQueue(
        name=queue.name,
        exchange=queue.exchange.name or queue.name,
        exchange_type=queue.exchange.type,
        routing_key=queue.routing_key or queue.name,
        arguments=dict(queue.queue_arguments or {}),
    )


def _with_default_queue(settings: Settings, found: Mapping[str, Any]) -> Settings:
    """With the default queue as `task_default_exchange` and its neighbours describe it, unless `task_queues` does."""
    exchange, routing_key = found.get("task_default_exchange"), found.get("task_default_routing_key")
    kind = found.get("task_default_exchange_type") or "direct"
    name = settings.default_queue
    if not (exchange or routing_key or kind != "direct") or any(one.name == name for one in settings.celery_queues):
        return settings
    described = replace(
        settings.celery_queue(name), exchange=exchange or "", routing_key=routing_key or "", exchange_type=kind
    )
    return replace(settings, celery_queues=(*settings.celery_queues, described))


def rate_from(value: object) -> Rate | None:
    """The rate that a task's `rate_limit` or `task_default_rate_limit` means; 0 and an empty text are no limit.

    Raises:
        ValueError, DeclarationError: it is none.
    """
    if isinstance(value, Rate):
        return value
    if not value or (isinstance(value, str) and float(value.partition("/")[0]) == 0):
        return None
    if isinstance(value, str):
        return Rate.parse(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Rate(float(value))
    return cast("Rate", _refuse("it is a text such as '10/m', or a number per second"))


def _rate_checked(value: Any) -> object:
    try:
        rate_from(value)
    except DeclarationError as error:
        _refuse(str(error))
    return value


def _refuse(text: str) -> Any:
    raise ValueError(text)


#: Celery's name -> the field of `Settings` (`""`: only checked) and the conversion.
_TABLE: dict[str, tuple[str, Callable[[Any], object]]] = {
    "broker_url": ("broker_url", urls),
    "broker_read_url": ("broker_read_url", urls),
    "broker_write_url": ("broker_write_url", urls),
    "broker_transport_options": ("broker_transport_options", dict),
    "broker_use_ssl": ("", lambda value: value),  # an option of the transport here
    "result_backend": ("result_backend", _backend),
    "lightbus_oldest_celery": ("oldest_celery", _version),
    "result_chord_retry_interval": ("chord_retry_seconds", lambda v: _seconds(v) or 0.0),
    "result_chord_expires": ("chord_expires_seconds", _expiry),
    "result_chord_join_timeout": ("chord_join_seconds", lambda v: _seconds(v) or 0.0),
    "accept_content": ("accept_content", _accept),
    "timezone": ("timezone", _text_or_none),
    "enable_utc": ("enable_utc", _boolean),
    "result_expires": ("result_expires_seconds", _expiry),
    "result_failure_expires": ("result_failure_expires_seconds", _expiry),
    "result_extended": ("result_extended", _boolean),
    "result_serializer": ("result_serializer", _serializer),
    "result_accept_content": ("result_accept_content", _accept_or_none),
    "task_serializer": ("task_serializer", _serializer),
    "task_default_queue": ("default_queue", str),
    "task_default_queue_type": ("default_queue_type", str),
    "task_queue_max_priority": ("queue_max_priority", _optional_integer),
    "task_default_priority": ("default_priority", _optional_integer),
    "task_queues": ("celery_queues", _queues),
    "task_routes": ("queue_of", queue_from_routes),
    "task_ignore_result": ("task_ignore_result", _boolean),
    "task_store_errors_even_if_ignored": ("store_errors_even_if_ignored", _boolean),
    "task_always_eager": ("always_eager", _boolean),
    "task_store_eager_result": ("store_eager_result", _boolean),
    "task_eager_propagates": ("eager_propagates", _boolean),
    "task_acks_late": ("acks_late", _boolean),
    "task_acks_on_failure_or_timeout": ("acks_on_failure", _boolean),
    "task_acks_on_failure": ("acks_on_failure", _boolean),
    "task_track_started": ("track_started", _boolean),
    "task_time_limit": ("time_limit", _seconds),
    "task_soft_time_limit": ("soft_time_limit", _seconds),
    "task_default_rate_limit": ("rate_limit", _rate_checked),
    "worker_disable_rate_limits": ("disable_rate_limits", _boolean),
    "task_inherit_parent_priority": ("inherit_parent_priority", _boolean),
    "worker_send_task_events": ("send_task_events", _boolean),
    "task_send_sent_event": ("send_sent_event", _boolean),
    "event_exchange": ("event_exchange", str),
    "event_serializer": ("event_serializer", _serializer),
    "worker_enable_remote_control": ("remote_control", _boolean),
    "control_exchange": ("control_exchange", str),
    "control_queue_ttl": ("control_queue_ttl_seconds", float),
    "control_queue_expires": ("control_queue_expires_seconds", float),
    "control_queue_exclusive": ("control_queue_exclusive", _boolean),
    "control_queue_durable": ("control_queue_durable", _boolean),
    "worker_pool_restarts": ("pool_restarts", _boolean),
    "worker_state_db": ("state_db", _text_or_none),
    "lightbus_task_max_bytes": ("task_max_bytes", int),
    "lightbus_confirm_later": ("confirm_later", _boolean),
    "task_create_missing_queues": ("create_missing_queues", _boolean),
    "task_create_missing_queue_type": ("missing_queue_type", str),
    "task_annotations": ("annotations", lambda v: v),
    "task_compression": ("compression", compression_name),
}

#: How the names of settings for result backends begin.
_BACKEND_SETTINGS = (
    "result_", "redis_", "database_", "cache_backend", "mongodb_", "elasticsearch_", "cassandra_", "couchbase_",
    "couchdb_", "arangodb_", "s3_", "gcs_", "dynamodb_", "azureblockblob_", "cosmosdbsql_", "override_backends",
)  # fmt: skip


def _spellings() -> dict[str, str]:
    spellings = {name: name for name in _TABLE}
    for one in settingnames.SETTINGS:
        spellings |= {one.name: one.name, one.old_name: one.name, "CELERY_" + one.name.upper(): one.name}
    return spellings


_SPELLINGS = _spellings()
