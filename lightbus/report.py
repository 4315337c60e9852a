"""What became of one delivery, as one value: for the worker's log line, for metrics, for whoever else wants to know.

The worker makes one for each delivery that it concludes, and only when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .core.outcome import Outcome, verdict_of
from .endpoint import Invocation
from .ports import Delivery


class Report(NamedTuple):
    """A delivery that is done with, as seen by the process that took it.

    Attributes:
        kind: `event`, `call` or `task`.
        invocation: None when no handler was called: the message could not be read, had expired, belonged elsewhere.
        outcome: what was decided; `verdict` has it in one word.
        started_at: Unix time in seconds at which the handler was called, or the message was read.
        seconds: how long the handler ran.
        error: what the handler raised.
    """

    kind: str
    delivery: Delivery
    invocation: Invocation | None
    outcome: Outcome
    started_at: float
    seconds: float = 0.0
    error: BaseException | None = None

    @property
    def name(self) -> str:
        """What the message names; `""` when no handler was called, since anybody could have invented it."""
        return self.invocation.name if self.invocation is not None else ""

    @property
    def verdict(self) -> str:
        """See `core.outcome.verdict_of`."""
        return verdict_of(self.outcome)

    @property
    def waited_seconds(self) -> float | None:
        """From its sending to the start of its handler; None where the message does not say when it was sent.

        Two clocks measure it. A later attempt has waited since the first sending: its delays are part of it.
        """
        sent_at = self.invocation.sent_at if self.invocation is not None else None
        return None if sent_at is None else max(0.0, self.started_at - sent_at)

    def fields(self) -> Mapping[str, object]:
        """What the log line says, for formatters that want values and not text."""
        invocation, delivery = self.invocation, self.delivery
        shown: dict[str, object] = {
            "kind": self.kind,
            "queue": delivery.queue,
            "redelivered": delivery.redelivered,
            "outcome": self.verdict,
            "seconds": round(self.seconds, 6),
        }
        if invocation is not None:
            shown |= {"message_name": invocation.name, "message_id": invocation.id, "attempt": invocation.attempt}
        if (waited := self.waited_seconds) is not None:
            shown["waited_seconds"] = round(waited, 6)
        if self.error is not None:
            shown["error"] = f"{type(self.error).__name__}: {self.error}"
        return shown

    def __str__(self) -> str:
        _, delivery, invocation, outcome, _, seconds, _ = self
        again = "yes" if delivery.redelivered else "no"
        end = f"outcome={verdict_of(outcome)} queue={delivery.queue} redelivered={again}"
        if invocation is None:
            return end
        return f"name={invocation.name} id={invocation.id} attempt={invocation.attempt} seconds={seconds:.3f} {end}"


#: Is told of each delivery that is done with. Called from the slots' threads, just before the settlement; it must be
#: quick and must not raise.
Observer = Callable[[Report], None]
