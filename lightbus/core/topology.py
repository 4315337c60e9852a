"""Exchanges, queues and bindings as values, and the rules by which Lightbus names its own.

Pure: drivers carry a `Topology` out. The names are part of the wire contract (docs/reference/wire.md):

    lightbus.events                 topic exchange of all events; routing key `<api>.<event>.v<major>`
    <app>.on.<listener>             one durable queue per listener of an app
    <app>.ordered.<listener>.<n>    the lanes of a listener with ordered_by, one queue each
    <app>.each.<listener>.<token>   one exclusive queue per process, of a listener with each_process=True
    lightbus.rpc.<api>.v<major>     one queue per served API and major version, shared by its owners
    lightbus.reply.<app>.<token>    one exclusive queue per calling process
    lightbus.<celery queue>         the tasks that Celery would have had on <celery queue>
    lightbus.dead                   what could not be handled, with its reason
    lightbus.describe               topic exchange on which workers are asked what they are
    lightbus.describe.<app>.<token> one exclusive queue per app of a running worker, bound to it
    lightbus.schedule.ends          which firings of a schedule have ended, for its leader
    lightbus.reply.schedule         answers to the calls of a schedule, for its leader's log
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .errors import DeclarationError
from .message import MAX_NAME_LENGTH, Route

EVENTS_EXCHANGE = "lightbus.events"
DESCRIBE_EXCHANGE = "lightbus.describe"
DEAD_LETTER_QUEUE = "lightbus.dead"
ENDS_QUEUE = "lightbus.schedule.ends"  #: where workers tell that what a schedule fired has been handled
TASK_QUEUE_PREFIX = "lightbus."
ANSWERS_QUEUE = "lightbus.reply.schedule"  #: of the calls that a schedule sends

#: An RPC queue without a server goes after that long, and its callers are then told at once that nobody serves.
RPC_QUEUE_EXPIRES_SECONDS = 30.0
#: A reply queue outlives a broken connection for that long, so that answers under way still arrive.
REPLY_QUEUE_EXPIRES_SECONDS = 60.0
#: What a killed worker leaves behind goes after that long.
DESCRIBE_QUEUE_EXPIRES_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange.

    Attributes:
        delays: a message to it may be delayed: it is routed when it is due, to the queues that are bound then.
    """

    name: str
    kind: Literal["direct", "topic", "fanout"] = "direct"
    delays: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue to declare, or only to check.

    Attributes:
        exclusive: belongs to one connection and goes with it.
        auto_delete: goes when its last consumer goes.
        replicated: a quorum queue where the broker has them.
        expires_seconds: the broker removes it when unused for that long; None keeps it.
        max_priority: highest message priority; None for none. Excludes `replicated`.
        single_active: of its consumers one gets messages, and the next when that one has gone, where the broker can.
        passive: somebody else declared it; check only that it exists.
        weight: for its consumer: messages in a row of turns with the other queues (`core.turns`).
        rank: for its consumer: it has no turn while a queue of a lower rank has messages.
        arguments: further broker arguments, passed on as they are.
    """

    name: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    replicated: bool = False
    expires_seconds: float | None = None
    max_priority: int | None = None
    single_active: bool = False
    passive: bool = False
    arguments: Mapping[str, object] = field(default_factory=dict, compare=False)
    weight: int = field(default=1, compare=False)
    rank: int = field(default=0, compare=False)

    @property
    def route(self) -> Route:
        """The route that leads straight to this queue."""
        return Route("", self.name)


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of `exchange` whose key matches `routing_key` go to `queue`."""

    exchange: str
    routing_key: str
    queue: str


@dataclass(frozen=True, slots=True)
class Topology:
    """What must stand on the broker before messages flow. Additive: declaring it twice is harmless."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __add__(self, other: Topology) -> Topology:
        return Topology(
            self.exchanges + tuple(x for x in other.exchanges if x not in self.exchanges),
            self.queues + tuple(x for x in other.queues if x not in self.queues),
            self.bindings + tuple(x for x in other.bindings if x not in self.bindings),
        )


def check_name(name: str, what: str) -> str:
    """Return `name` if it may stand in a queue name or routing key; 1 to 150 letters, digits, `_`, `-`, `.`.

    Raises:
        DeclarationError: it may not.
    """
    ok = 0 < len(name) <= 150 and all(c.isalnum() or c in "_-." for c in name) and name.isascii()
    if not ok or name.startswith(".") or name.endswith(".") or ".." in name:
        raise DeclarationError(
            f"{what} {name!r} is not a usable name: use 1 to 150 ASCII letters, digits, '_', '-' and single inner dots"
        )
    return name


EVENTS = Exchange(EVENTS_EXCHANGE, "topic", delays=True)


def event_route(name: str, major: int) -> Route:
    """Where the event `name` (`<api>.<event>`) is published."""
    return Route(EVENTS_EXCHANGE, f"{name}.v{major}")


def listener_topology(
    app: str, listener: str, routing_keys: tuple[str, ...], *, max_priority: int | None = None
) -> Topology:
    """The durable queue of one listener of `app`, bound to each of `routing_keys`."""
    queue = Queue(name=f"{app}.on.{listener}", replicated=max_priority is None, max_priority=max_priority)
    return Topology(
        (EVENTS,),
        (queue,),
        tuple(Binding(EVENTS_EXCHANGE, key, queue.name) for key in routing_keys),
    )


def ordered_lane(app: str, listener: str, number: int) -> str:
    """The name of one queue of a listener that keeps an order."""
    return f"{app}.ordered.{listener}.{number}"


def is_ordered_lane(queue: str, app: str, listener: str) -> bool:
    """Whether `queue` is one of those."""
    number = queue.removeprefix(f"{app}.ordered.{listener}.")
    return number != queue and number.isdecimal()


def ordered_topology(app: str, listener: str, routing_keys: tuple[str, ...], lanes: int) -> Topology:
    """The queues of a listener of `app` that keeps an order: the first is bound, and sorted into the rest."""
    first = Queue(name=f"{app}.on.{listener}", replicated=True, single_active=True)
    rest = tuple(
        Queue(name=ordered_lane(app, listener, number), replicated=True, single_active=True) for number in range(lanes)
    )
    return Topology((EVENTS,), (first, *rest), tuple(Binding(EVENTS_EXCHANGE, key, first.name) for key in routing_keys))


def broadcast_topology(app: str, listener: str, routing_keys: tuple[str, ...], token: str) -> Topology:
    """The queue of one listener in one process of `app`; `token` tells processes apart."""
    queue = Queue(
        name=f"{app}.each.{listener}.{token}", durable=False, exclusive=True, auto_delete=True,
        expires_seconds=REPLY_QUEUE_EXPIRES_SECONDS,
    )  # fmt: skip
    return Topology((EVENTS,), (queue,), tuple(Binding(EVENTS_EXCHANGE, key, queue.name) for key in routing_keys))


def rpc_queue(api: str, major: int) -> Queue:
    """The queue that all owners of `api` share for version `major`."""
    return Queue(name=f"lightbus.rpc.{api}.v{major}", expires_seconds=RPC_QUEUE_EXPIRES_SECONDS)


_OWN_REPLIES = "lightbus.reply."


def reply_queue(app: str, token: str) -> Queue:
    """The queue on which one process of `app` receives answers; `token` tells processes apart."""
    return Queue(
        name=f"{_OWN_REPLIES}{app}.{token}", durable=False, exclusive=True, auto_delete=True,
        expires_seconds=REPLY_QUEUE_EXPIRES_SECONDS,
    )  # fmt: skip


def describe_topology(app: str, token: str) -> Topology:
    """The queue on which one worker is asked about `app`; `token` tells workers apart.

    The exchange is no fanout: on Redis that would be PUB/SUB, which no other language's client could answer alike.
    """
    queue = Queue(
        name=f"{DESCRIBE_EXCHANGE}.{app}.{token}", durable=False, exclusive=True, auto_delete=True,
        expires_seconds=DESCRIBE_QUEUE_EXPIRES_SECONDS,
    )  # fmt: skip
    return Topology((Exchange(DESCRIBE_EXCHANGE, "topic"),), (queue,), (Binding(DESCRIBE_EXCHANGE, "#", queue.name),))


#: What answers may be sent to: queues of ours, those that RabbitMQ named (`amq.gen-...`, `amq.rabbitmq.reply-to...`;
#: no client can make one), and those named by a uuid, as Celery's are.
_REPLY_QUEUE = re.compile(r"lightbus\.reply\..+|amq\..+|[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)


def is_reply_queue(name: object) -> bool:
    """Whether `name`, which a message asks for, can only be a queue for answers.

    Whoever may write to one queue must not have a worker write for them into the work queue of somebody else.
    """
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and _REPLY_QUEUE.fullmatch(name) is not None


def is_own_reply_queue(name: str) -> bool:
    """Whether `name` is of a queue that `reply_queue` made, so that the broker knows whether it stands."""
    return name.startswith(_OWN_REPLIES)


def dead_letter_queue(name: str = DEAD_LETTER_QUEUE) -> Queue:
    """The queue that keeps what could not be handled."""
    return Queue(name=name)


def task_queue_name(celery_queue: str) -> str:
    """The queue on which Lightbus serves tasks that Celery would serve on `celery_queue`."""
    return celery_queue if celery_queue.startswith(TASK_QUEUE_PREFIX) else TASK_QUEUE_PREFIX + celery_queue
