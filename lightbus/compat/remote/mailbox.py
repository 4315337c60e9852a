"""kombu's pidbox and Celery's exchange of events, on one connection that its owner alone uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import kombu
from kombu.pidbox import Mailbox

if TYPE_CHECKING:
    from ..app import TaskApp
    from ..events import Post, Switch

CONNECT_SECONDS = 5.0

Made = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def can_be_controlled(app: TaskApp) -> bool:
    """Whether there are others on the app's broker to ask or to answer."""
    return not app.bus.url.startswith("memory:")


def open_connection(app: TaskApp, *, to_write: bool = True, heartbeat_seconds: float = 0.0) -> kombu.Connection:
    """A connection to the app's broker, not yet connected.

    Args:
        to_write: where commands are sent, and their answers awaited; False: where a node listens.
        heartbeat_seconds: for one that stays open and is looked after; 0.0 for none.
    """
    _ = app.transport  # its driver makes the scheme known to kombu, when that is one of Lightbus's own
    url = (app.settings.broker_write_url if to_write else None) or app.bus.url
    return kombu.Connection(
        url, transport_options=dict(app.settings.broker_transport_options), connect_timeout=CONNECT_SECONDS,
        heartbeat=heartbeat_seconds,
    )  # fmt: skip


class SharedClock:
    """A worker's logical clock as kombu's mailbox wants it."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def forward(self) -> int:
        return self._switch.tick()

    def adjust(self, other: int) -> None:
        self._switch.heard(other)


def open_mailbox(app: TaskApp, connection: kombu.Connection | None = None) -> Mailbox:
    """The mailbox of Celery's workers."""
    settings = app.settings
    options: dict[str, bool] = {}
    if (settings.control_queue_exclusive, settings.control_queue_durable) != (True, False):  # not in kombu before 5.6
        options = {"queue_exclusive": settings.control_queue_exclusive, "queue_durable": settings.control_queue_durable}
    return Mailbox(
        settings.control_exchange, type="fanout", connection=connection, clock=SharedClock(app.task_events.switch),
        accept=["json"], serializer="json",
        queue_ttl=settings.control_queue_ttl_seconds, queue_expires=settings.control_queue_expires_seconds,
        reply_queue_ttl=settings.control_queue_ttl_seconds,
        reply_queue_expires=settings.control_queue_expires_seconds, **options,
    )  # fmt: skip


class Announcer:
    """Publishes a worker's own events, as Celery's `EventDispatcher` does.

    Args:
        post: to which exchange, and by which serializer.
        made: makes an event of its kind and fields.
    """

    def __init__(self, connection: kombu.Connection, post: Post, hostname: str, made: Made) -> None:
        kind = "fanout" if connection.transport.driver_type in ("redis", "gcpubsub") else "topic"
        self._exchange = kombu.Exchange(post.exchange, type=kind)
        self._producer = kombu.Producer(connection.channel(), self._exchange, serializer=post.serializer)
        self._hostname = hostname
        self._made = made

    def send(self, kind: str, **fields: Any) -> None:
        """Raises what kombu raises."""
        self._producer.publish(
            self._made(kind, fields), routing_key=kind.replace("-", "."), declare=[self._exchange], delivery_mode=1,
            headers={"hostname": self._hostname}, retry=False,
        )  # fmt: skip


def drain(connection: kombu.Connection, seconds: float) -> None:
    """Handle what comes within that time, at most one message."""
    try:
        connection.drain_events(timeout=max(0.001, seconds))
    except TimeoutError:
        pass


class _Enough(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Question:
    """A command for nodes, by Celery's terms; see `Control.broadcast`.

    Attributes:
        limit: how many answers are enough.
        timeout_seconds: without any further answer.
    """

    command: str
    arguments: Mapping[str, Any]
    destination: Sequence[str] | None
    reply: bool
    timeout_seconds: float
    limit: int | None
    callback: Callable[[dict[str, Any]], None] | None
    pattern: str | None
    matcher: str | None


def ask(app: TaskApp, question: Question, connection: Any = None, channel: Any = None) -> list[dict[str, Any]] | None:
    """Send a command to nodes; their answers where `reply` is set.

    kombu counts what it reads, not the answers, against a limit, and so may come back with too few; here they count.

    Args:
        connection, channel: of kombu, to use in place of a new one.
    """
    answers: list[dict[str, Any]] = []

    def take(answer: dict[str, Any]) -> None:
        answers.append(answer)
        if question.callback is not None:
            question.callback(answer)
        if question.limit is not None and len(answers) >= question.limit:
            raise _Enough

    with nullcontext(connection) if connection is not None else open_connection(app) as used:
        used.ensure_connection(max_retries=1)
        destination = question.destination
        try:
            open_mailbox(app, used)._broadcast(
                question.command, dict(question.arguments), None if destination is None else list(destination),
                reply=question.reply, timeout=question.timeout_seconds,
                limit=sys.maxsize,  # more than can come: given none, kombu takes the number of destinations for it
                callback=take, channel=channel, pattern=question.pattern, matcher=question.matcher,
            )  # fmt: skip
        except _Enough:
            pass
    return answers if question.reply else None


def purge(connection: kombu.Connection, queue: str) -> int:
    """Delete what waits in a queue; 0 where there is none."""
    with connection.channel() as channel:  # RabbitMQ closes it over a queue that is not there
        try:
            return int(kombu.Queue(queue)(channel).purge() or 0)
        except connection.channel_errors:
            return 0
