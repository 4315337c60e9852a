"""What is loaded inside the old Celery app while tasks move to Lightbus. The only module that imports celery.

`install(app)` is one line after `app = Celery(...)`, and does nothing to tasks that have not moved. For those that did,

- producers publish to `lightbus.Q`, where Q is the queue that Celery's own router chose: `.delay` and `send_task`,
  beat, and the steps of chains, groups and chords that workers publish;
- Celery workers hand over what still reaches them (sent before the move, held with an ETA, sent by old code) and never
  discard it: a consumer step answers each message of a moved or unknown task with `forward`, before Celery decodes it
  or looks at ETA, expiry, revokes and rate limits. Celery itself acknowledges an unknown task and stores FAILURE.

Messages are published on a connection of Celery's own making (its TLS, failover and transport options), with confirms
where the broker has them, and acknowledged afterwards: a crash in between doubles a message and never loses it. It is
a plain connection without a thread, because the process that forwards is the one that forks Celery's pool.

What a message becomes is decided in `forwarding`; what Lightbus does with it is the business of `compat.endpoint`.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from celery import Celery, bootsteps, signals
from celery.app.registry import TaskRegistry
from celery.app.routes import Router
from celery.utils.imports import symbol_by_name
from kombu import compression, entity
from kombu.common import Broadcast
from kombu.exceptions import OperationalError
from kombu.transport.base import to_rabbitmq_queue_arguments

from ..core.message import Wire
from ..core.outcome import REPEAT_HEADER, Forward, Received, copy_for
from ..core.topology import DEAD_LETTER_QUEUE, TASK_QUEUE_PREFIX, Queue, dead_letter_queue
from .app import default_app
from .forwarding import hand_over, hops_of, source_queue, wire_of
from .settings import CeleryQueue, Settings
from .task import Task

logger = logging.getLogger(__name__)

MOVED_SETTING = "lightbus_moved"  #: Celery setting: names of tasks that Lightbus serves
CONFIRM_TIMEOUT_SECONDS = 10.0
#: A message that could not be handed over is kept that long, counted against the prefetch, then returned to the broker.
PAUSE_SECONDS = 5.0

#: Celery's settings that `Settings` understands by the same name and that are plain values.
_PLAIN_SETTINGS = (
    "accept_content", "enable_utc", "result_expires", "result_failure_expires", "result_extended", "result_serializer",
    "task_serializer", "task_default_queue", "task_queue_max_priority", "task_default_priority", "task_ignore_result",
    "task_store_errors_even_if_ignored", "task_always_eager", "task_eager_propagates", "task_acks_late",
    "task_acks_on_failure_or_timeout", "task_track_started", "task_time_limit", "task_soft_time_limit",
    "task_inherit_parent_priority",
)  # fmt: skip

#: Options of a compat task that are Celery's too: what callers of the stub send is what callers of the task send.
_STUB_OPTIONS = (
    "queue", "priority", "expires", "serializer", "delivery_mode", "time_limit", "soft_time_limit", "ignore_result",
    "max_retries", "default_retry_delay", "typing",
)  # fmt: skip

# kombu has no types, but enough of a marker that mypy looks into it.
_compress: Any = compression.compress
_new_queue: Any = entity.Queue
_new_exchange: Any = entity.Exchange

_ATTRIBUTE = "lightbus_bridge"  #: of a Celery app, where its bridge is kept


def install(celery_app: Celery, *, moved: Iterable[str] = ()) -> None:
    """Let the tasks of `celery_app` move to Lightbus. Call it right after `app = Celery(...)`; again is harmless.

    Reads no configuration, so that `config_from_object` may come after it.

    Args:
        moved: names of tasks that Lightbus serves, besides those that this process imports from `lightbus.compat` and
            those in the Celery setting `lightbus_moved`. Needed for a task whose module the Celery side does not
            import, and for one that is still written for Celery and run by `lightbus worker -A`.
    """
    bridge = _bridge_of(celery_app)
    bridge.moved.update([moved] if isinstance(moved, str) else moved)
    if bridge.installed:
        return
    bridge.installed = True
    _route_through(celery_app)
    celery_app.steps["consumer"].add(ForwardStep)
    _keep_stubs(celery_app, bridge)
    default_app().configure_later(partial(settings_from, celery_app))


def settings_from(celery_app: Celery) -> Settings:
    """What `lightbus.compat` needs to know of a Celery app; reads its configuration.

    Raises:
        ConfigError: a setting has a value that Lightbus cannot work with, for example a pickle serializer.
    """
    conf, bridge = celery_app.conf, _bridge_of(celery_app)
    values = {name: conf[name] for name in _PLAIN_SETTINGS if name in conf}
    timezone = conf.timezone
    connection = celery_app.connection_for_write()
    return dataclasses.replace(
        Settings.from_mapping(values),
        broker_url=conf.broker_write_url or connection.as_uri(include_password=True),
        result_backend=conf.result_backend or None,
        timezone=None if timezone is None else str(timezone),
        # The type of queues that Celery creates as needed; the default queue is among `celery_queues`.
        default_queue_type=conf.get("task_create_missing_queue_type") or "classic",
        celery_queues=tuple(_described(celery_app.amqp.queues[name]) for name in sorted(bridge.configured_queues())),
        queue_of=bridge.celery_queue_of,
        moved=frozenset(bridge.moved_names()),
        celery_serves_others=True,
    )


def forwarded(celery_app: Celery) -> Counter[tuple[str, str]]:
    """How many messages this process handed to Lightbus, by task name and origin (`gen<pid>@<host>` of the sender).

    An origin that stays says where old code still runs.
    """
    return Counter(_bridge_of(celery_app).counts)


def forward_strategy(task: Any, app: Celery, consumer: Any, **_options: object) -> Handler:
    """A `Strategy` for Celery tasks: hands every message of the task to Lightbus."""
    return _bridge_of(app).handler(consumer)


Handler = Callable[..., None]


def _bridge_of(app: Celery) -> Bridge:
    bridge: Bridge = vars(app).setdefault(_ATTRIBUTE, Bridge(app))
    return bridge


def _described(queue: Any) -> CeleryQueue:
    """A kombu queue with the arguments that it declares, whichever way they were written."""
    arguments = to_rabbitmq_queue_arguments(
        queue.queue_arguments or {},
        expires=queue.expires,
        message_ttl=queue.message_ttl,
        max_length=queue.max_length,
        max_length_bytes=queue.max_length_bytes,
        max_priority=queue.max_priority,
    )
    exchange = queue.exchange
    return CeleryQueue(
        name=queue.name,
        exchange=(exchange.name if exchange else "") or queue.name,
        exchange_type=exchange.type if exchange else "direct",
        routing_key=queue.routing_key or queue.name,
        arguments=arguments,
    )


class Bridge:
    """The moved tasks of one Celery app in one process, and where their messages go."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.moved: set[str] = set()
        self.installed = False
        self.counts: Counter[tuple[str, str]] = Counter()
        self._publisher = _Publisher(app)
        self._queues: dict[str, Queue] = {}
        self._kombu_queues: dict[str, Any] = {}
        self._resume_at = 0.0

    # -- which tasks, which queues ----------------------------------------------------------------------------------

    def moved_names(self) -> set[str]:
        given = self.app.conf.get(MOVED_SETTING) or ()
        return self.moved | set(given.split(",") if isinstance(given, str) else given)

    def is_moved(self, name: object) -> bool:
        """Whether Lightbus serves the task. Celery's own (`celery.*`) stay unless they are named."""
        own = default_app().tasks
        return (name in own and not str(name).startswith("celery.")) or name in self.moved_names()

    def configured_queues(self) -> set[str]:
        """Names of the queues that the configuration names; Lightbus serves `lightbus.` and each of them."""
        conf = self.app.conf
        queues = conf.task_queues or ()
        names = set(queues) if isinstance(queues, Mapping) else {queue.name for queue in queues}
        return names | {conf.task_default_queue}

    def celery_queue_of(self, name: str, options: Mapping[str, object]) -> str:
        """The Celery queue that Celery's own router chooses."""
        router = self.app.amqp.router
        route = router.celery_route if isinstance(router, _BridgeRouter) else router.route
        return self.queue_name(route(dict(options), name))

    def queue_name(self, route: Mapping[str, Any]) -> str:
        """The Celery queue behind the answer of a router."""
        queue = route.get("queue")
        if queue is not None:
            return str(getattr(queue, "name", queue))
        exchange = getattr(route.get("exchange"), "name", route.get("exchange"))
        for candidate in self.app.amqp.queues.values():
            if candidate.exchange.name == exchange and candidate.routing_key == route.get("routing_key"):
                return str(candidate.name)
        return str(self.app.conf.task_default_queue)

    def lightbus_queue(self, celery_queue: str) -> Queue:
        """The queue on which Lightbus serves the tasks of `celery_queue`, as Lightbus declares it."""
        if celery_queue not in self._queues:
            plain = celery_queue.removeprefix(TASK_QUEUE_PREFIX)
            queues = self.app.amqp.queues
            described = _described(queues[plain] if plain in queues else queues.new_missing(plain))
            limit = queues.max_priority
            if plain not in queues and limit is not None:
                described = dataclasses.replace(described, arguments={"x-max-priority": limit, **described.arguments})
            self._queues[celery_queue] = described.lightbus_topology().queues[0]
        return self._queues[celery_queue]

    def kombu_queue(self, queue: Queue) -> Any:
        """The same queue for kombu, reached through the default exchange."""
        if queue.name not in self._kombu_queues:
            self._kombu_queues[queue.name] = _new_queue(
                queue.name,
                _new_exchange(""),
                routing_key=queue.name,
                durable=queue.durable,
                max_priority=queue.max_priority,
                queue_arguments=dict(queue.arguments) or None,
            )
        return self._kombu_queues[queue.name]

    def add_stubs(self) -> None:
        """Register a Celery task for each task that Lightbus has in this process and Celery has not.

        It keeps the name known to Celery (`inspect registered`, `link_error`, `app.tasks`), sends to Lightbus, and
        its strategy hands over.
        """
        for name, task in list(default_app().tasks.items()):
            if name in self.app._tasks or name.startswith("celery."):
                continue
            options = {key: getattr(task, key) for key in _STUB_OPTIONS if getattr(task, key) is not None}
            strategy = f"{__name__}:forward_strategy"
            self.app.task(name=name, shared=False, Strategy=strategy, **options)(_stub_function(task))

    # -- handing over -------------------------------------------------------------------------------------------------

    def handler(self, consumer: Any, own: Handler | None = None) -> Handler:
        """What Celery's consumer calls with a message of a task that Lightbus serves, or that nobody here knows.

        Args:
            own: Celery's strategy of a task that is still registered here. It runs a message that Lightbus has
                handed back, because Lightbus then does not know the task (any more).
        """

        def handle(message: Any, payload: Any, ack: Any, reject: Any, callbacks: Any, **options: Any) -> None:
            if own is not None and hops_of(message.headers) > 0:
                own(message, payload, ack, reject, callbacks, **options)
                return
            fields = payload if isinstance(payload, dict) else message.headers  # protocol 1 has them in the body
            errors = consumer.connection_errors
            if self._hand_over(fields, message, consumer.hostname):
                ack(logger, errors)
            else:
                give_back = partial(consumer.call_soon, partial(reject, logger, errors, True))
                consumer.lightbus_held.append(consumer.timer.call_after(PAUSE_SECONDS, give_back))

        return handle

    def _hand_over(self, fields: Mapping[str, Any], message: Any, sender: str) -> bool:
        """Publish the message to Lightbus; False when that failed and it must stay with the broker."""
        name, task_id = str(fields.get("task")), fields.get("id")
        wire = _wire_of(message)
        source = source_queue(message.delivery_info)
        if source not in self.configured_queues():  # a queue that Lightbus need not know; the route, it does
            source = self.celery_queue_of(name, {})
        outcome = hand_over(name, wire, self.lightbus_queue(source), sender, self.moved_names())
        redelivered = bool(message.delivery_info.get("redelivered"))
        received = Received(wire=wire, queue=source, redelivered=redelivered)
        copy = copy_for(outcome, received, dead_queue=DEAD_LETTER_QUEUE, now=time.time())
        queue = self.lightbus_queue(source) if isinstance(outcome, Forward) else dead_letter_queue()
        if time.monotonic() < self._resume_at:
            return False  # the last try failed a moment ago: do not make Celery's loop wait for each message
        try:
            self._publisher.publish(copy.wire, self.kombu_queue(queue))
        except NotPublished as error:
            self._resume_at = time.monotonic() + PAUSE_SECONDS
            logger.error(
                "could not forward name=%s id=%s to=%s: %s; it stays with the broker, next try in %g s",
                name, task_id, queue.name, error, PAUSE_SECONDS,
            )  # fmt: skip
            return False
        origin = str(fields.get("origin") or "unknown")
        self.counts[name, origin] += 1
        verb = "forwarded" if isinstance(outcome, Forward) else "parked"
        logger.info("%s name=%s id=%s to=%s origin=%s", verb, name, task_id, queue.name, origin)
        return True


def _wire_of(message: Any) -> Wire:
    """A received message as bytes: what kombu and py-amqp decoded on the way in is encoded again."""
    body = message.body if message.body is not None else b""
    if isinstance(body, str):
        body = body.encode(message.content_encoding or "utf-8")
    compression = message.headers.get("compression")
    if compression and not message.errors:
        body, _ = _compress(body, compression)
    return wire_of(bytes(body), message.content_type, message.content_encoding, message.headers, message.properties)


class NotPublished(Exception):
    """A message could not be handed to the broker, or the broker did not confirm it."""


class _Publisher:
    """Publishes wires on a connection of its own, opened at the first one, each confirmed before the next."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None
        self._declared: set[str] = set()

    def publish(self, wire: Wire, queue: Any) -> None:
        """Publish to `queue`, which is declared first. A broken connection is replaced once.

        Raises:
            NotPublished: it did not work; the broker may have the message all the same.
        """
        try:
            self._try(wire, queue)
        except NotPublished:
            # An idle connection may long be dead. Whether the first try arrived is not known: say so.
            self._try(dataclasses.replace(wire, headers={**wire.headers, REPEAT_HEADER: 1}), queue)

    def _try(self, wire: Wire, queue: Any) -> None:
        try:
            connection = self._open()
            errors = (*connection.connection_errors, *connection.channel_errors)
        except (OperationalError, OSError) as error:
            self._close()
            raise NotPublished(f"no connection to the broker: {error}") from error
        try:
            self._declare(connection, queue)
            self._write(connection, wire, queue.name)
        except (*errors, OperationalError, OSError, *_nacked()) as error:
            self._close()
            raise NotPublished(f"{type(error).__name__}: {error}") from error

    def _write(self, connection: Any, wire: Wire, queue_name: str) -> None:
        channel = connection.default_channel
        properties: dict[str, Any] = {**wire.extra, "delivery_mode": 2 if wire.durable else 1}
        for key in ("message_id", "correlation_id", "reply_to"):
            if getattr(wire, key):
                properties[key] = getattr(wire, key)
        if wire.expiration_seconds is not None:
            properties["expiration"] = str(round(wire.expiration_seconds * 1000))
        message = channel.prepare_message(
            wire.body,
            priority=wire.priority,
            content_type=wire.content_type or None,
            content_encoding=wire.content_encoding or None,
            headers=dict(wire.headers),
            properties=properties,
        )
        if _is_amqp(connection):
            # Without a listener for returned messages py-amqp raises: an unroutable message is an error.
            channel.basic_publish(
                message, exchange="", routing_key=queue_name, mandatory=True,
                timeout=CONFIRM_TIMEOUT_SECONDS, confirm_timeout=CONFIRM_TIMEOUT_SECONDS,
            )  # fmt: skip
        else:
            channel.basic_publish(message, exchange="", routing_key=queue_name)

    def _declare(self, connection: Any, queue: Any) -> None:
        if queue.name in self._declared:
            return
        try:
            queue(connection.default_channel).declare()
        except connection.channel_errors as error:
            if getattr(error, "reply_code", None) != 406:
                raise
            # It stands with other arguments. That is for `lightbus doctor`; messages are safe there all the same.
            logger.warning("queue %s stands with other arguments than Celery's settings give: %s", queue.name, error)
        self._declared.add(queue.name)

    def _open(self) -> Any:
        if self._connection is None:
            connection = self._app.connection_for_write()
            if _is_amqp(connection):
                connection = self._app.connection_for_write(transport_options={"confirm_publish": True})
            self._connection = connection.ensure_connection(max_retries=1, timeout=CONFIRM_TIMEOUT_SECONDS)
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        self._declared.clear()
        if connection is not None:
            connection.collect(socket_timeout=1.0)


def _is_amqp(connection: Any) -> bool:
    return bool(connection.get_transport_cls().driver_type == "amqp")


def _nacked() -> tuple[type[Exception], ...]:
    from amqp.exceptions import MessageNacked

    return (MessageNacked, socket.timeout)


# -- Celery's producers ------------------------------------------------------------------------------------------------


class _BridgeRouter(Router):  # type: ignore[misc]  # celery carries no types
    """Celery's router, asked first; its answer for a moved task is turned to Lightbus's queue."""

    def __init__(self, bridge: Bridge, router: Any) -> None:
        super().__init__(router.routes, router.queues, router.create_missing, app=router.app)
        self._bridge = bridge
        self.celery_route = router.route

    def route(
        self, options: dict[str, Any], name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> Any:
        queue = options.get("queue")
        if isinstance(queue, str) and queue.startswith(TASK_QUEUE_PREFIX) and queue not in self.queues:
            # Named outright, as `celery.chord_unlock` does with the queue of its body: declare it as Lightbus does.
            ours = self._bridge.kombu_queue(self._bridge.lightbus_queue(queue))
            return self.celery_route({**options, "queue": ours}, name, args, kwargs, task_type)
        asked = any(
            options.get(key) and options[key] != getattr(task_type, key, None)
            for key in ("queue", "exchange", "routing_key")
        )
        route = self.celery_route(options, name, args, kwargs, task_type)
        if asked or not self._bridge.is_moved(name) or isinstance(route.get("queue"), Broadcast):
            return route
        celery_queue = self._bridge.queue_name(route)
        rest = {key: value for key, value in route.items() if key not in ("exchange", "exchange_type", "routing_key")}
        return {**rest, "queue": self._bridge.kombu_queue(self._bridge.lightbus_queue(celery_queue))}


class _Routed:
    """Mixed into the class of `app.amqp`; Celery makes a new router whenever its routes change."""

    def Router(self, queues: Any = None, create_missing: Any = None) -> _BridgeRouter:
        amqp: Any = super()
        return _BridgeRouter(_bridge_of(self.app), amqp.Router(queues, create_missing))  # type: ignore[attr-defined]


def _route_through(app: Celery) -> None:
    base = symbol_by_name(app.amqp_cls)
    routed = type(f"Bridged{base.__name__}", (_Routed, base), {"__module__": __name__})
    app.amqp_cls = routed
    made = vars(app).get("amqp")
    if made is not None:  # the app was used before `install`
        made.__class__ = type(f"Bridged{type(made).__name__}", (_Routed, type(made)), {"__module__": __name__})
        vars(made).pop("router", None)


# -- Celery's registry -------------------------------------------------------------------------------------------------


class _Registry(TaskRegistry):  # type: ignore[misc]  # celery carries no types
    """Celery's registry, which finds a task of Lightbus that was imported after the stubs were made."""

    bridge: Bridge

    def __missing__(self, name: str) -> Any:
        self.bridge.add_stubs()
        task = self.get(name)
        return super().__missing__(name) if task is None else task


def _keep_stubs(app: Celery, bridge: Bridge) -> None:
    """Add the stubs when Celery binds its tasks, before a worker forks its pool, and when one is asked for."""
    registry = app._tasks
    if type(registry) is TaskRegistry:
        registry.__class__ = _Registry
        registry.bridge = bridge

    def add_stubs(instance: Any = None, **_arguments: object) -> None:
        if instance is None or instance.app is app:
            bridge.add_stubs()

    app.on_after_finalize.connect(add_stubs, weak=False)
    signals.celeryd_after_setup.connect(add_stubs, weak=False)


def _stub_function(task: Task) -> Callable[..., Any]:
    """What Celery calls when it calls the task itself: new-style errbacks, `apply`, `task_always_eager`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return task(*args, **kwargs)

    run.__name__, run.__module__, run.__doc__ = type(task).__name__, task.__module__, task.__doc__
    run.__qualname__ = type(task).__qualname__
    run.__signature__ = inspect.signature(task.run)  # type: ignore[attr-defined]  # Celery checks arguments by it
    return run


# -- Celery's workers --------------------------------------------------------------------------------------------------


class _Strategies(dict[Any, Any]):
    """Celery's table of task name to strategy, answering also for moved and for unknown names."""

    def __init__(self, known: Mapping[Any, Any], bridge: Bridge, consumer: Any) -> None:
        super().__init__(known)
        self._bridge = bridge
        self._consumer = consumer

    def __getitem__(self, name: Any) -> Any:
        own = self.get(name)
        if own is not None and not self._bridge.is_moved(name):
            return own
        return self._bridge.handler(self._consumer, own)


class ForwardStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery carries no types
    """Puts `_Strategies` in place once the consumer has its strategies, at each (re)connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    name = "lightbus forwarder"

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        consumer.lightbus_held = []

    def start(self, consumer: Any) -> None:
        bridge = _bridge_of(consumer.app)
        bridge.add_stubs()
        consumer.strategies = _Strategies(consumer.strategies, bridge, consumer)

    def stop(self, consumer: Any) -> None:
        # The broker gives these messages out again by itself; returned late, one could be in other hands already.
        for entry in consumer.lightbus_held:
            entry.cancel()
        consumer.lightbus_held.clear()
