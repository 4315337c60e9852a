"""RPC, the serving half: which object answers the calls of which API, and what its answers and errors become."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .core.api import Api, Rpc
from .core.codec import decode_call, encode_reply, split_version
from .core.concurrency import Concurrency
from .core.errors import ApiError, BadArguments, DeclarationError
from .core.message import CallMessage, ReplyMessage, Route
from .core.outcome import Ack, Forward, Outcome
from .core.rate import Rate
from .core.schema import CallSchema, Problem, encode_problem, problem_of_declared
from .core.topology import Topology, rpc_queue
from .endpoint import Invocation, LostRun
from .ports import Delivery

logger = logging.getLogger("lightbus.rpc")


@dataclass(frozen=True, slots=True)
class _Served:
    """One call of a served API. `declared` is the contract's, whose types and errors count."""

    schema: CallSchema
    implementation: Api
    own: Rpc[Any, Any]
    soft_limit_seconds: float | None
    hard_limit_seconds: float | None


@dataclass(frozen=True, slots=True)
class _InFlight:
    served: _Served
    call: CallMessage


class CallEndpoint:
    """Answers the queues of the APIs that an app serves: one queue per API and major version."""

    kind = "call"

    def __init__(self) -> None:
        self._topology = Topology()
        self._calls: dict[str, dict[str, _Served]] = {}
        self._versions: dict[str, tuple[int, int]] = {}
        self._contracts: list[type[Api]] = []
        self._rates: dict[str, Rate | None] = {}
        self._limits: dict[str, Concurrency] = {}

    def add(
        self,
        implementation: Api,
        *,
        soft_limit_seconds: float | None = None,
        hard_limit_seconds: float | None = None,
        rate: Rate | None = None,
        concurrency: Concurrency | None = None,
    ) -> None:
        """Raises DeclarationError: no API, served already, or a call has no implementation."""
        contract = _contract_of(implementation)
        queue = rpc_queue(contract.api_name, contract.major())
        if queue.name in self._calls:
            raise DeclarationError(f"API {contract.api_name!r} version {contract.major()} is served already")
        calls: dict[str, _Served] = {}
        for name, declared in contract.api_calls.items():
            own = getattr(type(implementation), name)
            if own is declared and type(implementation) is not contract:
                raise DeclarationError(f"{type(implementation).__name__} does not implement {declared!r}")
            calls[declared.full_name] = _Served(
                CallSchema(declared), implementation, own, soft_limit_seconds, hard_limit_seconds
            )
        self._calls[queue.name] = calls
        self._rates[queue.name] = rate
        if concurrency is not None:
            self._limits[queue.name] = concurrency
        self._versions[queue.name] = split_version(contract.api_version)
        self._topology += Topology(queues=(queue,))
        self._contracts.append(contract)

    def apis(self) -> tuple[type[Api], ...]:
        """The contracts that are served."""
        return tuple(self._contracts)

    @property
    def blocking(self) -> bool:
        return False

    def topology(self) -> Topology:
        """See `Endpoint`."""
        return self._topology

    def queues(self) -> Collection[str]:
        """See `Endpoint`."""
        return self._calls.keys()

    def rates(self) -> Mapping[str, Rate | None]:
        """See `Rated`: by queue, which is an API's own."""
        return self._rates

    def rate_name(self, delivery: Delivery) -> str | None:
        """See `Rated`."""
        return delivery.queue

    def limits(self) -> Mapping[str, Concurrency]:
        """See `Limited`: by queue, as the rates."""
        return self._limits

    def limit_name(self, queue: str) -> str | None:
        """See `Limited`."""
        return queue if queue in self._limits else None

    def prepare(self, delivery: Delivery) -> Invocation | Outcome:
        """See `Endpoint`. What is wrong with a readable call is answered to its caller, not parked."""
        call = decode_call(delivery.wire)
        if time.time() >= call.deadline:
            return _answer(call, Problem(type="expired", title="the deadline had passed before a server was free"))
        calls = self._calls[delivery.queue]
        served = calls.get(call.name)
        major, minor = self._versions[delivery.queue]
        if served is None:
            known = ", ".join(sorted(calls))
            return _answer(call, Problem(type="rejected", title=f"no call {call.name!r} here; there is {known}"))
        if split_version(call.version) > (major, minor):
            text = f"the caller wants version {call.version}, this server has {major}.{minor}: deploy the server first"
            return _answer(call, Problem(type="rejected", title=text))
        try:
            arguments = served.schema.decode_arguments(call.payload)
        except BadArguments as error:
            return _answer(call, Problem(type="rejected", title=str(error)))
        return Invocation(
            function=served.own.function,
            args=(served.implementation,),
            kwargs=arguments,
            name=call.name,
            id=call.origin.id,
            kind=self.kind,
            queue=delivery.queue,
            correlation_id=call.origin.correlation_id,
            causation_id=call.origin.causation_id,
            sent_at=call.origin.sent_at,
            trace=call.origin.trace,
            deadline=call.deadline,
            redelivered=delivery.may_repeat,
            soft_limit_seconds=served.soft_limit_seconds,
            hard_limit_seconds=served.hard_limit_seconds,
            # At most once unless the API says that twice does no harm: a server that dies must not repeat it.
            ack_early=not served.schema.rpc.idempotent,
            state=_InFlight(served, call),
        )

    def succeed(self, invocation: Invocation, result: object) -> Outcome:
        """See `Endpoint`."""
        flight = invocation.state
        assert isinstance(flight, _InFlight)
        try:
            payload = flight.served.schema.encode_result(result)
        except BadArguments as error:
            return self.fail(invocation, error)
        return _reply(flight.call, ReplyMessage(call_id=flight.call.origin.id, payload=payload, failed=False))

    def fail(self, invocation: Invocation, error: BaseException) -> Outcome:
        """A declared error travels as itself, any other as its class name and text."""
        flight = invocation.state
        assert isinstance(flight, _InFlight)
        if isinstance(error, ApiError) and type(error).__name__ in flight.served.schema.rpc.errors:
            return _answer(flight.call, problem_of_declared(error))
        logger.error("call failed name=%s id=%s", invocation.name, invocation.id, exc_info=error)
        name = type(error).__name__
        return _answer(flight.call, Problem(type=f"error:{name}", title=name, detail=f"{name}: {error}"))

    def lost(self, run: LostRun) -> Forward | None:
        """See `HearsOfLosses`: the caller need not wait for its deadline."""
        if not run.reply_to:
            return None
        name = type(run.error).__name__
        problem = encode_problem(Problem(type=f"error:{name}", title=name, detail=f"{name}: {run.text}"))
        return Forward(
            Route("", run.reply_to), encode_reply(ReplyMessage(call_id=run.id, payload=problem, failed=True))
        )  # fmt: skip


def _answer(call: CallMessage, problem: Problem) -> Outcome:
    verdict = problem.type if problem.type in ("expired", "rejected") else "error"
    return _reply(call, ReplyMessage(call_id=call.origin.id, payload=encode_problem(problem), failed=True), verdict)


def _reply(call: CallMessage, reply: ReplyMessage, verdict: str = "ok") -> Outcome:
    if time.time() >= call.deadline:
        return Ack("expired")  # the caller has left
    return Forward(Route("", call.reply_to), encode_reply(reply), verdict=verdict)


def _contract_of(implementation: Api) -> type[Api]:
    contract = next((c for c in type(implementation).__mro__ if "api_name" in vars(c) and c is not Api), None)
    if contract is None:
        raise DeclarationError(f"bus.serve() takes an instance of an Api's subclass, got {implementation!r}")
    found: type[Api] = contract
    return found
