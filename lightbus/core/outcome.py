"""What becomes of a delivery, as one value, and the message that carries it out.

    received -> performing -> Ack
                           -> Retry       a copy, later, to the same queue; then ack
                           -> Forward     a copy to where it belongs; then ack
                           -> DeadLetter  a copy with the reason to the dead-letter queue; then ack
                           -> Requeue     handed back to the broker as it is

Pure. Three of the outcomes are the same act, "publish a copy with confirm, then ack", so that a crash between the
two repeats a message and never loses it. `copy_for` says what to publish; `worker/settle.py` does it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from .message import Route, Wire
from .times import iso_utc

ATTEMPT_HEADER = "lightbus_attempt"
REPEAT_HEADER = "lightbus_repeat"  #: set on a copy that may double a message: its original was a redelivery
#: Of what a schedule has fired that wants to know when it has been handled: the message's id, a space, the entry's id.
SLOT_HEADER = "lightbus_slot"
DEAD_PREFIX = "lightbus_dead_"
HISTORY_HEADER = "lightbus_history"  #: of a replayed dead letter: its earlier failures, as a JSON array

#: RabbitMQ's own trail of dead-lettering. A copy must not carry it: the broker takes a message that comes round
#: with these headers for a cycle and drops it.
BROKER_TRAIL_PREFIXES = ("x-death", "x-first-death-", "x-last-death-")


@dataclass(frozen=True, slots=True)
class Ack:
    """Done with; the broker may forget it.

    Attributes:
        verdict: what became of the message, in one word for logs and metrics: `ok`, or for example `error` when a
            failure was reported to whoever waits for the result. It changes nothing in what is done.
    """

    verdict: str = field(default="ok", compare=False)


@dataclass(frozen=True, slots=True)
class Requeue:
    """Not handled; the broker gives it to the next consumer, flagged as redelivered."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Failed; to be tried again as attempt number `attempt` after `delay_seconds`.

    Attributes:
        in_place: by the process that has it, which does not settle it meanwhile: what is behind it waits.
    """

    delay_seconds: float
    attempt: int
    error: str
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class Forward:
    """Belongs elsewhere: a copy goes to `route`, with `wire` in place of the received one where it is given."""

    route: Route
    wire: Wire | None = None
    delay_seconds: float = 0.0
    verdict: str = field(default="forwarded", compare=False)  #: as of `Ack`; an answer's is `ok` or `error`


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Cannot be handled. `reason` is one word (see `MessageError.reason`), `error` one line of text."""

    reason: str
    error: str
    attempts: int = 1


Outcome = Ack | Requeue | Retry | Forward | DeadLetter


def verdict_of(outcome: Outcome) -> str:
    """The word for logs and metrics: ok, error, retry, parked, requeued, forwarded, expired, rejected, ignored."""
    if isinstance(outcome, (Ack, Forward)):
        return outcome.verdict
    if isinstance(outcome, Retry):
        return "retry"
    return "parked" if isinstance(outcome, DeadLetter) else "requeued"


@dataclass(frozen=True, slots=True)
class Copy:
    """One message to publish with confirm before the original is acknowledged."""

    wire: Wire
    route: Route
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The facts of a delivery that its copy needs."""

    wire: Wire = field(repr=False)
    queue: str
    redelivered: bool


def printable(text: str) -> str:
    """`text` with halves of characters escaped, which no log, header or terminal takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def copy_for(outcome: Retry | Forward | DeadLetter, received: Received, *, dead_queue: str, now: float) -> Copy:
    """The message that carries `outcome` out.

    Args:
        dead_queue: name of the dead-letter queue.
        now: Unix time in seconds, for the dead letter's date.
    """
    wire = received.wire
    headers = {k: v for k, v in wire.headers.items() if not k.startswith(BROKER_TRAIL_PREFIXES)}
    match outcome:
        case Retry(delay_seconds=delay, attempt=attempt):
            headers[ATTEMPT_HEADER] = attempt
            if received.redelivered:  # whoever had it before may have sent its next try already
                headers[REPEAT_HEADER] = 1
            return Copy(msgspec.structs.replace(wire, headers=headers), Route("", received.queue), delay)
        case Forward(route=route, wire=changed, delay_seconds=delay):
            if changed is not None:
                headers = {k: v for k, v in changed.headers.items() if not k.startswith(BROKER_TRAIL_PREFIXES)}
            if received.redelivered:
                headers[REPEAT_HEADER] = 1
            return Copy(msgspec.structs.replace(changed or wire, headers=headers), route, delay)
        case DeadLetter(reason=reason, error=error, attempts=attempts):
            headers |= {
                DEAD_PREFIX + "reason": reason,
                DEAD_PREFIX + "error": printable(error[:2000]),
                DEAD_PREFIX + "queue": received.queue,
                DEAD_PREFIX + "attempts": attempts,
                DEAD_PREFIX + "at": iso_utc(now),
            }
            if received.redelivered:  # whoever had it before may have parked it already, and both may be replayed
                headers[REPEAT_HEADER] = 1
            # A dead letter waits for a person: the message's own expiry must not drop it meanwhile.
            parked = msgspec.structs.replace(wire, headers=headers, expiration_seconds=None, durable=True)
            return Copy(parked, Route("", dead_queue))
