"""The moved tasks of one Celery app: which they are, to which queue each goes, and how a message is handed over."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from celery import Celery
from kombu import compression, entity
from kombu.transport.base import to_rabbitmq_queue_arguments

from ...core.message import Wire
from ...core.outcome import Forward, Received, copy_for
from ...core.topology import DEAD_LETTER_QUEUE, TASK_QUEUE_PREFIX, Queue, dead_letter_queue
from ..app import default_app
from ..forwarding import hand_over, hops_of, source_queue, wire_of
from ..settings import CeleryQueue
from .publisher import NotPublished, Publisher

logger = logging.getLogger("lightbus.compat.bridge")

MOVED_SETTING = "lightbus_moved"  #: Celery setting: names of tasks that Lightbus serves
#: A message that could not be handed over is kept that long, counted against the prefetch, then returned to the broker.
PAUSE_SECONDS = 5.0

# kombu has no types, but enough of a marker that mypy looks into it.
_compress: Any = compression.compress
_new_queue: Any = entity.Queue
_new_exchange: Any = entity.Exchange

_ATTRIBUTE = "lightbus_bridge"  #: of a Celery app, where its bridge is kept

Handler = Callable[..., None]  #: what Celery's consumer calls with a message: a strategy's result


def bridge_of(app: Celery) -> Bridge:
    """The bridge of a Celery app, made when it has none yet."""
    bridge: Bridge | None = vars(app).get(_ATTRIBUTE)
    if bridge is None:
        bridge = vars(app)[_ATTRIBUTE] = Bridge(app)
    return bridge


def setting(conf: Any, name: str, missing: object = None) -> Any:
    """A Celery setting, or `missing` where this Celery has none of that name.

    Neither `in` nor `get` make Celery read a configuration that it has not read yet.
    """
    try:
        return conf[name]
    except KeyError:
        return missing


def described(queue: Any) -> CeleryQueue:
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
        self.beat_entries: frozenset[str] | None = None
        self.installed = False
        self.counts: Counter[tuple[str, str]] = Counter()
        self._publisher = Publisher(app)
        self._queues: dict[str, Queue] = {}
        self._kombu_queues: dict[str, Any] = {}
        self._resume_at = 0.0
        self._from_settings: frozenset[str] | None = None

    # -- which tasks, which queues ----------------------------------------------------------------------------------

    def moved_names(self) -> set[str]:
        """Names that `install` or the configuration gives; those imported from `lightbus.compat` come on top."""
        if self._from_settings is None:  # asked for each message: read once
            given = setting(self.app.conf, MOVED_SETTING) or ()
            self._from_settings = frozenset(given.split(",") if isinstance(given, str) else given)
        return self.moved | self._from_settings

    def is_moved(self, name: object) -> bool:
        """Whether Lightbus serves the task. Celery's own (`celery.*`) stay unless they are named."""
        return (name in default_app().tasks and not str(name).startswith("celery.")) or name in self.moved_names()

    def configured_queues(self) -> set[str]:
        """Names of the queues that the configuration names; Lightbus serves `lightbus.` and each of them."""
        conf = self.app.conf
        queues = conf.task_queues or ()
        names = set(queues) if isinstance(queues, Mapping) else {queue.name for queue in queues}
        return names | {conf.task_default_queue}

    def celery_queue_of(self, name: str, options: Mapping[str, object]) -> str:
        """The Celery queue that Celery's own router chooses."""
        router = self.app.amqp.router
        route = getattr(router, "celery_route", router.route)  # with `install`, the router is ours
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
            known = described(queues[plain] if plain in queues else queues.new_missing(plain))
            if queues.max_priority is not None:  # Celery adds it when it takes a queue in, new ones too
                known = dataclasses.replace(known, arguments={"x-max-priority": queues.max_priority, **known.arguments})
            self._queues[celery_queue] = known.lightbus_topology().queues[0]
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
                # Not at once, or it would come back at once. In gevent and the like the timer has its own thread.
                give_back = partial(consumer.call_soon, partial(reject, logger, errors, True))
                now = time.monotonic()
                held = [(due, entry) for due, entry in vars(consumer).get("lightbus_held", ()) if due > now]
                entry = consumer.timer.call_after(PAUSE_SECONDS, give_back)
                consumer.lightbus_held = [*held, (now + PAUSE_SECONDS, entry)]

        return handle

    def _routed(self, name: str) -> str:
        try:
            return self.celery_queue_of(name, {})
        except Exception:  # the project's own router, called without the arguments that it may look at
            logger.exception("the routes of the Celery app failed for name=%s; taken for the default queue", name)
            return str(self.app.conf.task_default_queue)

    def _hand_over(self, fields: Mapping[str, Any], message: Any, sender: str) -> bool:
        """Publish the message to Lightbus; False when that failed and it must stay with the broker."""
        name, task_id = str(fields.get("task")), fields.get("id")
        wire = _wire_of(message)
        source = source_queue(message.delivery_info)
        if source not in self.configured_queues():  # a queue that Lightbus need not know; the route, it does
            source = self._routed(name)
        outcome = hand_over(name, wire, self.lightbus_queue(source), sender, self.moved_names())
        redelivered = bool(message.delivery_info.get("redelivered"))
        received = Received(wire=wire, queue=source, redelivered=redelivered)
        copy = copy_for(outcome, received, dead_queue=DEAD_LETTER_QUEUE, now=time.time())
        queue = self.lightbus_queue(source) if isinstance(outcome, Forward) else dead_letter_queue()
        if time.monotonic() < self._resume_at:
            return False  # the last try failed a moment ago: do not make Celery's loop wait for each message
        try:
            self._publisher.publish(_without_expiry(copy.wire), self.kombu_queue(queue))
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


def _without_expiry(wire: Wire) -> Wire:
    """For Lightbus's worker, which goes by the header and stores REVOKED; the broker would drop it without a word."""
    judged = wire.headers.get("expires") and not wire.headers.get("ignore_result")
    return msgspec.structs.replace(wire, expiration_seconds=None) if judged else wire


def _wire_of(message: Any) -> Wire:
    """A received message as bytes: what kombu and py-amqp decoded on the way in is encoded again."""
    body = message.body if message.body is not None else b""
    if isinstance(body, str):
        body = body.encode(message.content_encoding or "utf-8")
    compression = message.headers.get("compression")
    if compression and not message.errors:
        body, _ = _compress(body, compression)
    return wire_of(bytes(body), message.content_type, message.content_encoding, message.headers, message.properties)
