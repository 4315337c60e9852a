"""What travels: events, calls and replies as values, and the `Wire` form that a broker carries.

Celery tasks are a format of their own and live in `lightbus.compat.protocol`; they become a `Wire` too, so that
drivers and the worker know only one thing to carry.

They are Structs and no dataclasses, since each message makes several, and a frozen dataclass takes four times as long.
`msgspec.structs.replace` changes one.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: A longer body is not read: JSON takes up to thirty times its length in memory.
MAX_BODY_BYTES = 16 * 2**20
#: A longer name or id is not read: each is kept, logged and looked up, and brokers take 255 bytes of them at most.
MAX_NAME_LENGTH = 512
#: Counts in headers go no further: every broker, and every language, has integers up to that.
MAX_COUNT = 2**31 - 1


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """A message as a broker carries it: bytes, headers and the AMQP properties that Lightbus uses.

    Every text property is `""` when absent. `extra` holds further AMQP properties (for example `app_id`), so that
    a message that is only passed on leaves as it came.
    """

    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    headers: Mapping[str, object] = msgspec.field(default_factory=dict)
    message_id: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    priority: int | None = None
    expiration_seconds: float | None = None  #: the broker may drop it after that long in a queue
    durable: bool = True  #: written to disk by brokers that do
    extra: Mapping[str, object] = msgspec.field(default_factory=dict)


class Route(msgspec.Struct, frozen=True):
    """Where a message is published. Exchange `""` is the default one: the routing key then names a queue."""

    exchange: str
    routing_key: str


class Parcel(msgspec.Struct, frozen=True):
    """A message, where it goes, and after how many seconds: all of a publish that somebody else carries out."""

    wire: Wire
    route: Route
    delay_seconds: float = 0.0


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a message, when, and because of what. The same for events, calls and replies.

    Attributes:
        id: unique per message; a repeated delivery or retry keeps it.
        source: the name of the app that sent it.
        sent_at: Unix time in seconds.
        correlation_id: shared by all messages of one conversation; the id of the first.
        causation_id: id of the message whose handler sent this one; `""` for the first.
        trace: W3C `traceparent` and `tracestate`, where there are.
    """

    id: str
    source: str
    sent_at: float
    correlation_id: str = ""
    causation_id: str = ""
    trace: Mapping[str, str] = msgspec.field(default_factory=dict)


class EventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """An event that happened in `origin.source`. `payload` is the JSON object of its fields, encoded."""

    origin: Origin
    name: str  #: api and event, for example `support.tickets.created`
    version: str  #: major.minor of the API that fired it
    payload: bytes
    attempt: int = 1
    expires_at: float | None = None  #: Unix seconds after which it is of no use to a listener


class CallMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A call that waits for an answer on `reply_to` until `deadline` (Unix seconds)."""

    origin: Origin
    name: str
    version: str
    payload: bytes
    reply_to: str
    deadline: float


class ReplyMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the call with id `call_id`: a JSON value, or an RFC 9457 problem if `failed`."""

    call_id: str
    payload: bytes
    failed: bool
