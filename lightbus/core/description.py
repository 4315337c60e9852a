"""What a running worker says of itself when it is asked: a value, and its JSON form (docs/reference/wire.md).

The question is a call of `lightbus.describe`, sent to an exchange that each worker has a queue at; so there is one
answer per worker and app, and nothing to keep or to clean up in between. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .codec import encode_call
from .errors import DecodeError
from .message import CallMessage, Origin, Route, Wire
from .topology import DESCRIBE_EXCHANGE

NAME = "lightbus.describe"
VERSION = "1.0"
ANY_VERSION = "*"
ROUTE = Route(DESCRIBE_EXCHANGE, "describe")


class ServedApi(msgspec.Struct, frozen=True, kw_only=True):
    """An API that the worker serves.

    Attributes:
        queue: of its calls.
        contract: as in a contract document (docs/reference/contracts.md); None when a type has no JSON Schema.
    """

    name: str
    version: str
    queue: str
    contract: dict[str, Any] | None = None


class HeardEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a listener takes: `<api>.<event>`, and the version of the API that the listener was written for.

    Or a pattern of names, with `ANY_VERSION`.
    """

    name: str
    version: str


class RunningListener(msgspec.Struct, frozen=True, kw_only=True):
    """A listener that the worker runs. `queue` is "" when each of its processes hears for itself, on one of its own."""

    name: str
    queue: str
    events: tuple[HeardEvent, ...]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """One app in one worker.

    Attributes:
        worker: unique, from the worker's start to its end.
        pid: of the supervisor; of the process itself where there is none.
        processes: that handle messages.
        slots: handlers that they can run at a time, without coroutines; `busy` are in use.
        started_at: RFC 3339, UTC.
        queues: all that it consumes, those of `apis` and `listeners` among them.
        tasks: names of the tasks that it runs.
    """

    app: str
    worker: str
    host: str
    pid: int
    lightbus: str
    started_at: str
    processes: int = 1
    slots: int = 1
    busy: int = 0
    apis: tuple[ServedApi, ...] = ()
    listeners: tuple[RunningListener, ...] = ()
    queues: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


def encode_question(origin: Origin, *, reply_to: str, deadline: float, now: float) -> Wire:
    """The question as a broker carries it; it is dropped after `deadline` (Unix seconds)."""
    call = CallMessage(
        origin=origin, name=NAME, version=VERSION, payload=b"{}", reply_to=reply_to, deadline=deadline
    )  # fmt: skip
    return encode_call(call, now=now)


def encode_description(description: Description) -> bytes:
    """The body of an answer."""
    return msgspec.json.encode(description)


def decode_description(payload: bytes) -> Description:
    """Raises DecodeError: it is none. Fields that are not known here are left out."""
    try:
        return msgspec.json.decode(payload, type=Description)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DecodeError(f"this is no description of a worker: {error}") from error
