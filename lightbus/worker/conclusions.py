"""What becomes of a message before its handler is called, and after; on a slot's thread, or at a coroutine's end."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec

from ..core.errors import MessageError
from ..core.outcome import ATTEMPT_HEADER, Ack, DeadLetter, Outcome, Retry
from ..endpoint import Invocation
from ..report import Observer, Report
from .holds import Holds
from .runs import Runs
from .work import Work

logger = logging.getLogger("lightbus.worker")


class Conclusions:
    """Asks endpoints what a message means and how it ended, tells the observers, and settles. Thread-safe.

    Args:
        holds: for what is tried again by this process, without being settled meanwhile.
    """

    def __init__(self, runs: Runs, observers: Sequence[Observer], holds: Holds) -> None:
        self._runs = runs
        self._observers = tuple(observers)
        self._holds = holds

    def prepare(self, work: Work) -> Invocation | None:
        """What to call for a message; None when it is settled without a call."""
        delivery = work.delivery
        try:
            prepared = work.endpoint.prepare(delivery)
        except MessageError as error:
            self.conclude_unrun(work, DeadLetter(error.reason, str(error)))
            return None
        except Exception as error:  # the top of this message's way: a defect must not cost the worker
            logger.exception("a defect while a message of queue %s was read; it is parked", delivery.queue)
            self.conclude_unrun(work, DeadLetter("defect", repr(error)))
            return None
        if not isinstance(prepared, Invocation):
            self.conclude_unrun(work, prepared)
            return None
        if delivery.redelivered and (stopped := self._runs.verdict(work, prepared)) is not None:
            if prepared.ack_early:  # the supervisor has its endpoint told already
                self.conclude_unrun(work, Ack("error"))
            else:
                self.conclude(work, prepared, None, stopped, 0.0)
            return None
        return prepared

    def conclude(
        self, work: Work, invocation: Invocation, result: object, failure: BaseException | None, seconds: float
    ) -> None:
        """Settle a message whose handler returned `result`, or raised `failure`, after `seconds`."""
        self.settle(work, self.outcome_of(work, invocation, result, failure, seconds))

    def settle(self, work: Work, outcome: Outcome) -> None:
        """Carry `outcome` out, here or by the settler."""
        if isinstance(outcome, Retry) and outcome.in_place:
            wire = work.delivery.wire
            work.delivery.wire = msgspec.structs.replace(
                wire, headers={**wire.headers, ATTEMPT_HEADER: outcome.attempt}
            )
            self._holds.put(work, outcome.delay_seconds)
        else:
            work.settler.settle(work.delivery, outcome)

    def outcome_of(
        self, work: Work, invocation: Invocation, result: object, failure: BaseException | None, seconds: float
    ) -> Outcome:
        """As `conclude`, but what is to be done is only said, and reported."""
        endpoint = work.endpoint
        outcome: Outcome
        try:
            outcome = endpoint.succeed(invocation, result) if failure is None else endpoint.fail(invocation, failure)
        except Exception as error:  # the same top again: a result store that is down, a defect
            logger.exception(
                "the end of a message could not be worked out name=%s id=%s", invocation.name, invocation.id
            )
            # The handler has run: running it again would double its effects, so a person has to look.
            outcome = DeadLetter("defect", repr(error), invocation.attempt)
        if self._observers or logger.isEnabledFor(logging.INFO):
            begun = time.time() - seconds
            report = Report(endpoint.kind, work.delivery, invocation, outcome, begun, seconds, failure)
            logger.info("handled %s", report)
            self._tell(report)
        return outcome

    def conclude_unrun(self, work: Work, outcome: Outcome) -> None:
        """Settle a delivery for which no handler is called."""
        if self._observers or logger.isEnabledFor(logging.DEBUG):
            report = Report(work.endpoint.kind, work.delivery, None, outcome, time.time())
            logger.debug("not run %s", report)
            self._tell(report)
        self.settle(work, outcome)

    def _tell(self, report: Report) -> None:
        for observer in self._observers:
            try:
                observer(report)
            except Exception:  # who counts messages must not lose one
                logger.exception("an observer failed on %s", report)
