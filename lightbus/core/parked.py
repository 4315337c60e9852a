"""A dead letter read again: why it was parked, which ones a person means, and the message that tries it anew.

The counterpart of `outcome.copy_for`, which writes dead letters. Pure: `lightbus.deadletters` moves the messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import msgspec

from .codec import EXPIRES, JSON_TYPE, kind_of
from .errors import BadArguments
from .message import Route, Wire
from .outcome import ATTEMPT_HEADER, BROKER_TRAIL_PREFIXES, DEAD_PREFIX, HISTORY_HEADER, REPEAT_HEADER, Copy, printable

HISTORY_LENGTH = 10  #: of a message that fails after each replay, only the latest failures travel along
HISTORY_ERROR_CHARACTERS = 200
_SHOWN_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a message was parked. Texts are `""` where nothing is known, as of a message that something else put there.

    Attributes:
        reason: one word, see docs/reference/errors.md.
        error: one line: class and text of the last error.
        queue: where the message came from.
        at: RFC 3339.
    """

    reason: str = ""
    error: str = ""
    queue: str = ""
    attempts: int = 1
    at: str = ""

    @property
    def error_class(self) -> str:
        """The error's class, by which failures are counted; its whole text when that names none."""
        name, colon, _ = self.error.partition(":")
        return name if colon and name.replace(".", "").isidentifier() else self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A message in the dead-letter queue.

    Attributes:
        id: the message's id, or one made from its content when it has none. Of an event that several listeners failed
            at, each has a dead letter with this id; their `failure.queue` tells them apart.
        name: of the event, call or task; `""` when the headers do not say.
        failure: why it is here.
        history: earlier failures of a message that was replayed, the oldest first.
    """

    id: str
    name: str
    failure: Failure
    history: tuple[Failure, ...] = ()
    wire: Wire = field(repr=False)

    @property
    def kind(self) -> str:
        """`event`, `call`, `task`, or `""` for anything else."""
        return kind_of(self.wire) or ("task" if "task" in self.wire.headers else "")

    @property
    def source(self) -> str:
        """Who sent it, as far as its headers say."""
        headers = self.wire.headers
        return str(headers.get("cloudEvents_source", headers.get("origin", ""))).lstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant: those that meet every condition that is given.

    Attributes:
        ids: beginnings of ids.
        names: names of events or tasks, or patterns with `*`, for example `shop.orders.*`.
        queues: queues that the messages came from, or patterns.
        reasons: the words under which they were parked.
        error: a part of the error's class and text.
    """

    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_everything(self) -> bool:
        return self == EVERYTHING

    def meets(self, parked: Parked) -> bool:
        """Whether `parked` is meant."""
        failure = parked.failure
        return (
            (not self.ids or any(parked.id.startswith(one) for one in self.ids))
            and (not self.names or _any_matches(self.names, parked.name))
            and (not self.queues or _any_matches(self.queues, failure.queue))
            and (not self.reasons or failure.reason in self.reasons)
            and self.error in failure.error
        )


EVERYTHING = Selection()


def parked_of(wire: Wire) -> Parked:
    """Read a message of the dead-letter queue. Never fails: what cannot be read is left empty."""
    headers = wire.headers
    attempts = headers.get(DEAD_PREFIX + "attempts", 1)
    failure = Failure(
        reason=_text(headers.get(DEAD_PREFIX + "reason")),
        error=_text(headers.get(DEAD_PREFIX + "error")),
        queue=_text(headers.get(DEAD_PREFIX + "queue")),
        attempts=attempts if isinstance(attempts, int) else 1,
        at=_text(headers.get(DEAD_PREFIX + "at")),
    )
    name = _text(headers.get("cloudEvents_type"))
    if name:
        name = name.rpartition(".v")[0] or name
    return Parked(
        id=wire.message_id or _text(headers.get("id")) or wire.correlation_id or _digest(wire),
        name=name or _text(headers.get("task")),
        failure=failure,
        history=_history(headers.get(HISTORY_HEADER)),
        wire=wire,
    )


def why_not(parked: Parked, to: str = "") -> str:
    """Why a dead letter cannot be replayed, or `""`."""
    if parked.kind == "call":
        return "it is a call, and its caller has left: discard it"
    if not (to or parked.failure.queue):
        return f"it has no header {DEAD_PREFIX}queue that says where it came from: name the queue"
    return ""


def replayed(parked: Parked, *, may_repeat: bool, body: bytes | None = None, to: str = "") -> Copy:
    """The message that is tried anew, from its first attempt, in the queue that it came from.

    Args:
        may_repeat: the dead letter may have been replayed before; the copy is then flagged as a repeat.
        body: in place of the parked one.
        to: a queue in place of the one it came from.
    """
    wire = parked.wire
    # Who replays an event knows how old it is.
    dropped = (DEAD_PREFIX, ATTEMPT_HEADER, EXPIRES, *BROKER_TRAIL_PREFIXES)
    headers = {key: value for key, value in wire.headers.items() if not key.startswith(dropped)}
    history = [*parked.history, parked.failure][-HISTORY_LENGTH:]
    headers[HISTORY_HEADER] = json.dumps([_entry(failure) for failure in history], separators=(",", ":"))
    if may_repeat:
        headers[REPEAT_HEADER] = 1
    again = msgspec.structs.replace(wire, headers=headers, body=wire.body if body is None else body)
    return Copy(again, Route("", to or parked.failure.queue))


def checked_body(parked: Parked, text: str) -> bytes:
    """`text` as another body for `parked`.

    Raises:
        BadArguments: it is no JSON, though the message's is; or no object, though an event carries one.
    """
    if parked.wire.content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        raise BadArguments(
            f"message {parked.id} has content type {parked.wire.content_type!r}; only JSON can be edited"
        )
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadArguments(f"the new payload of message {parked.id} is no JSON: {error}") from error
    if parked.kind == "event" and not isinstance(value, dict):
        raise BadArguments(f"the payload of an event is a JSON object, got {text[:200]}")
    return text.encode()


def _any_matches(patterns: Sequence[str], text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _entry(failure: Failure) -> dict[str, object]:
    return {
        "reason": failure.reason, "error": printable(failure.error[:HISTORY_ERROR_CHARACTERS]),
        "queue": failure.queue, "attempts": failure.attempts, "at": failure.at,
    }  # fmt: skip


def _history(value: object) -> tuple[Failure, ...]:
    """The header's failures; what is no list of them is left out, since anybody can write a header."""
    if not (text := _text(value)):
        return ()
    try:
        entries = json.loads(text)
        return tuple(
            Failure(
                reason=_text(entry.get("reason")), error=_text(entry.get("error")), queue=_text(entry.get("queue")),
                attempts=int(entry.get("attempts", 1)), at=_text(entry.get("at")),
            )
            for entry in entries
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _digest(wire: Wire) -> str:
    content = wire.body + repr(sorted(wire.headers.items(), key=lambda item: item[0])).encode(errors="replace")
    return hashlib.sha256(content).hexdigest()[:_SHOWN_DIGITS]
