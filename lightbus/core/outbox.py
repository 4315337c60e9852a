"""The outbox: what a message is while it waits in a table, and what becomes of it after a try to publish it.

Pure. `lightbus.outbox` carries the answers out; the tables are in `lightbus.contrib.outbox`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .codec import EXPIRES
from .errors import (
    AccessRefused,
    BrokerUnreachable,
    ConnectionLost,
    DecodeError,
    NotConfirmed,
    TransportError,
    Unwritable,
)
from .message import Parcel, Route, Wire
from .outcome import REPEAT_HEADER
from .times import unix_seconds

#: A message that cannot be routed so often is set aside, about 20 minutes after the first time.
MAX_ATTEMPTS = 12
FIRST_DELAY_SECONDS = 1.0
LAST_DELAY_SECONDS = 300.0
#: Bodies that a relay has in memory at a time, unless a single one is larger.
SLICE_BYTES = 4 * 2**20

LEAST_EXPIRATION_SECONDS = 0.001

_PROPERTIES = tuple(name for name in Wire.__struct_fields__ if name != "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message as it stands in the table.

    Attributes:
        message_id: of the event, or the task's id.
        kind: `event` or `task`.
        name: of the event or task, for people.
        properties: JSON of all that `Wire` has besides its body.
        visible_at: Unix seconds before which no receiver may see it; 0.0 for at once.
        written_at: Unix seconds.
    """

    message_id: str
    kind: str
    name: str
    exchange: str
    routing_key: str
    properties: str
    body: bytes
    visible_at: float
    written_at: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that this relay may publish now, before its body is read. `attempts` counts this one."""

    position: int
    attempts: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An entry in its place, with what has become of it.

    Attributes:
        position: rises in the order of writing.
        attempts: how often a relay has taken it to publish it.
        next_at: Unix seconds before which no relay takes it.
        error: of the last attempt.
        is_aside: the relays leave it alone until somebody says what to do.
    """

    position: int
    attempts: int
    next_at: float
    error: str
    is_aside: bool
    entry: Entry


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a table holds: messages that wait, since when (Unix seconds, 0.0 for none), and those set aside."""

    waiting: int
    oldest_at: float
    aside: int

    def lag_seconds(self, now: float) -> float:
        """How long the oldest has waited."""
        return max(0.0, now - self.oldest_at) if self.waiting else 0.0


def entry_of(parcel: Parcel, *, kind: str, name: str, now: float) -> Entry:
    """The entry that a parcel is written as.

    Raises:
        Unwritable: a header or property has no JSON form.
    """
    wire = parcel.wire
    try:
        properties = msgspec.json.encode({name: getattr(wire, name) for name in _PROPERTIES}).decode()
    except (TypeError, ValueError) as error:
        raise Unwritable(f"a header or property of {name!r} cannot wait in an outbox: {error}") from error
    return Entry(
        message_id=wire.message_id or wire.correlation_id, kind=kind, name=name, exchange=parcel.route.exchange,
        routing_key=parcel.route.routing_key, properties=properties, body=wire.body,
        visible_at=now + parcel.delay_seconds if parcel.delay_seconds > 0 else 0.0, written_at=now,
    )  # fmt: skip


def parcel_of(row: Row, *, now: float) -> Parcel:
    """What to publish. From the second attempt on it is flagged, because the first may have arrived.

    Raises:
        DecodeError: the properties cannot be read.
    """
    entry = row.entry
    try:
        properties: Mapping[str, Any] = msgspec.json.decode(entry.properties)
        wire = Wire(body=entry.body, **properties)
        headers = dict(wire.headers)
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        raise DecodeError(f"the properties of row {row.position} of the outbox cannot be read: {error}") from error
    if row.attempts > 1:
        headers[REPEAT_HEADER] = 1
    delay_seconds = max(0.0, entry.visible_at - now) if entry.visible_at else 0.0
    wire = msgspec.structs.replace(wire, headers=headers)
    if wire.expiration_seconds is not None and EXPIRES in headers:
        # The broker counts from the arrival; the row may have waited. What is over arrives all the same: listeners
        # look at the moment in the headers, and their apps count it as expired.
        left = _moment_of(headers[EXPIRES], row) - now - delay_seconds
        wire = msgspec.structs.replace(wire, expiration_seconds=max(LEAST_EXPIRATION_SECONDS, left))
    return Parcel(wire, Route(entry.exchange, entry.routing_key), delay_seconds)


def _moment_of(text: object, row: Row) -> float:
    try:
        return unix_seconds(str(text))
    except (ValueError, OverflowError) as error:
        raise DecodeError(
            f"header {EXPIRES!r} of row {row.position} of the outbox is no moment: {text!r:.100}"
        ) from error


@dataclass(frozen=True, slots=True)
class Sent:
    """The broker has it: the row may go."""


@dataclass(frozen=True, slots=True)
class Later:
    """The broker refused this one message: try it again after that long; what was written with it waits too."""

    delay_seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class Aside:
    """It cannot be published: the row stays for people, and nothing waits for it."""

    error: str


@dataclass(frozen=True, slots=True)
class Away:
    """The broker is away. `was_sent`: this message may have arrived."""

    was_sent: bool
    error: str


Verdict = Sent | Later | Aside | Away


def verdicts_of(tries: Sequence[tuple[Exception | None, int]]) -> list[Verdict]:
    """What becomes of rows that were sent together.

    A refusal is the message's own fault, and put off, only where the broker took another message at the same time.

    Args:
        tries: of each row how its attempt ended (None: confirmed) and how many there were.
    """
    verdicts = [_verdict(error, attempts) for error, attempts in tries]
    if any(isinstance(verdict, Sent) for verdict in verdicts):
        return verdicts
    return [
        Away(was_sent=True, error=verdict.error)
        if isinstance(verdict, Later) and isinstance(error, _PERHAPS_ALL)
        else verdict
        for verdict, (error, _) in zip(verdicts, tries, strict=True)
    ]


#: What a broker says to one message, or to all of them.
_PERHAPS_ALL = (AccessRefused, NotConfirmed)


def _verdict(error: Exception | None, attempts: int) -> Verdict:
    if error is None:
        return Sent()
    text = f"{type(error).__name__}: {error}"
    match error:
        case BrokerUnreachable():
            return Away(was_sent=False, error=text)
        case ConnectionLost() | TimeoutError():
            return Away(was_sent=True, error=text)
        case Unwritable():
            return Aside(text)
        case TransportError() if attempts < MAX_ATTEMPTS or isinstance(error, _PERHAPS_ALL):
            return Later(min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempts - 1, 20)), text)
    return Aside(text)


def slices(claimed: Sequence[Claimed], limit_bytes: int = SLICE_BYTES) -> Iterator[list[Claimed]]:
    """`claimed` in order, in pieces whose bodies have at most `limit_bytes`, or that are a single message."""
    piece: list[Claimed] = []
    size = 0
    for one in claimed:
        if piece and size + one.size_bytes > limit_bytes:
            yield piece
            piece, size = [], 0
        piece.append(one)
        size += one.size_bytes
    if piece:
        yield piece
