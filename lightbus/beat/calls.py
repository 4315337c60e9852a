"""A call as what a slot sends. There is nobody to hand the answer to, so the leader logs it.

The call waits in the queue of its API until a worker takes it or its deadline has passed. Answers go to a queue that
all beats of the broker share, so that one whose leader has died meanwhile is logged by the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lightbus_scheduler import Firing, Overlap, ScheduleError

from ..core.api import Rpc
from ..core.codec import decode_reply, encode_call
from ..core.errors import DecodeError, TransportError
from ..core.message import CallMessage, Origin, Parcel
from ..core.outcome import printable
from ..core.schema import CallSchema, decode_problem
from ..core.topology import ANSWERS_QUEUE, Queue, Topology, rpc_queue
from ..ports import Delivery, Transport
from .targets import SendingBus

LOOK_SECONDS = 0.2
_SHOWN = 1000  #: characters of an answer

logger = logging.getLogger("lightbus.beat")


class Answers:
    """What is awaited, and reading and logging it. For one thread.

    Args:
        transport: gives the broker's; asked when it is needed first.
        monotonic: seconds of a clock that nobody sets.
    """

    def __init__(self, transport: Callable[[], Transport], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._monotonic = monotonic
        self._awaited: dict[str, tuple[str, str, float]] = {}  # message id to entry id, call, and end of the wait
        self._is_declared = False
        self._look_at = 0.0
        self.is_used = False  #: whether there are calls to look for at all

    def expect(self, firing: Firing, name: str, timeout_seconds: float) -> None:
        """Await the answer to a call that is about to be sent."""
        self._declare()
        # what is handed in by the broker a moment after the deadline is still worth its line
        self._awaited[firing.message_id] = (firing.job.entry.id, name, self._monotonic() + timeout_seconds + 1.0)

    def log(self) -> None:
        """Look, now and then, and log what has come, and what has not come in time."""
        now = self._monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            self._declare()
            while (delivery := self._transport().get(ANSWERS_QUEUE)) is not None:
                self._log_answer(delivery)
                delivery.ack()
        except TransportError as error:
            logger.warning("answers to scheduled calls cannot be read now: %s", error)
            self._is_declared = False
            return
        for message_id in [one for one, (_, _, until) in self._awaited.items() if until < now]:
            entry_id, name, _ = self._awaited.pop(message_id)
            text = "no answer entry=%r call=%s id=%s before its deadline: does a worker serve it?"
            logger.error(text, entry_id, name, message_id)

    def forget(self) -> None:
        """Another process leads, and reads what comes."""
        self._awaited.clear()

    def _declare(self) -> None:
        if not self._is_declared:
            self._transport().declare(Topology(queues=(Queue(name=ANSWERS_QUEUE),)))
            self._is_declared = True

    def _log_answer(self, delivery: Delivery) -> None:
        try:
            reply = decode_reply(delivery.wire)
        except DecodeError as error:
            logger.warning("an answer could not be read: %s", error)
            return
        # of an answer to a call that an earlier leader sent, only the id is known
        entry_id, name, _ = self._awaited.pop(reply.call_id, ("?", "?", 0.0))
        if reply.failed:
            problem = decode_problem(reply.payload)
            text = printable(f"{problem.type} {problem.detail or problem.title}"[:_SHOWN])
            logger.error("call failed entry=%r call=%s id=%s: %s", entry_id, name, reply.call_id, text)
        else:
            text = reply.payload.decode("utf-8", "backslashreplace")[:_SHOWN]
            logger.info("answered entry=%r call=%s id=%s: %s", entry_id, name, reply.call_id, text)


@dataclass(frozen=True, slots=True)
class CallTarget:
    """A call with the same arguments at each slot; make it with `call_target`."""

    bus: SendingBus
    rpc: Rpc[..., object]
    payload: bytes
    timeout_seconds: float
    answers: Answers

    def parcels(self, firing: Firing) -> Sequence[Parcel]:
        """See `Target`."""
        api = self.rpc.api
        assert api is not None, "a call of a loaded contract knows its contract"
        queue = rpc_queue(api.api_name, api.major())
        self.bus.transport.declare(Topology(queues=(queue,)))
        self.answers.expect(firing, self.rpc.full_name, self.timeout_seconds)
        now = time.time()
        message = CallMessage(
            origin=Origin(id=firing.message_id, source=self.bus.name, sent_at=now, correlation_id=firing.message_id),
            name=self.rpc.full_name, version=api.api_version, payload=self.payload, reply_to=ANSWERS_QUEUE,
            deadline=now + self.timeout_seconds,
        )  # fmt: skip
        return [Parcel(encode_call(message, now=now), queue.route)]

    def check_overlap(self, rule: Overlap) -> None:
        """See `Target`."""
        if rule != "allow":
            raise ScheduleError("overlap", rule, "allow, for a call: its deadline ends it")

    def may_run(self, message_id: str) -> bool:
        """See `Target`."""
        return True

    def cancel(self, message_id: str) -> None:
        """See `Target`. Never called, as `check_overlap` refuses it."""

    def describe(self) -> str:
        """See `Target`."""
        return f"call {self.rpc.full_name}"

    def url(self) -> str:
        """See `Target`."""
        return self.bus.url


def call_target(
    bus: SendingBus, rpc: Rpc[..., object], arguments: Mapping[str, object], timeout_seconds: float | None,
    answers: Answers,
) -> CallTarget:  # fmt: skip
    """A target for the call.

    Args:
        timeout_seconds: None for what the call declares.

    Raises:
        BadArguments: the arguments do not fit.
    """
    answers.is_used = True
    payload = CallSchema(rpc).encode_arguments(dict(arguments))
    return CallTarget(bus, rpc, payload, rpc.timeout_seconds if timeout_seconds is None else timeout_seconds, answers)
