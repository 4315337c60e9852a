"""Tests of apps on the bus, without a server, a thread or a wait: assert that a message was sent, simulate one coming.

    with harness(bus) as t:
        create_ticket(title="Broken")                        # the code under test
        t.assert_fired(Tickets.created, id=7, title="Broken")
        t.simulate(Tickets.created, id=7, title="Broken")    # the same parameters

What is sent passes through all that a real message does: types are checked, it is encoded, routed, decoded, and handled
with middleware, retries and dead letters. Events wait in their queues until `settle()`, as `fire` never runs a
listener; calls are answered at once, since the caller waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar, overload
from unittest.mock import ANY

from ..core.api import Event, Rpc
from ..core.outcome import DeadLetter
from ..core.schema import CallSchema
from ..core.topology import check_name
from ..drivers import open_transport
from ..drivers.memory import MemoryTransport
from ..drivers.memory_broker import MemoryBroker
from .assertions import Expected, Sent
from .references import HasReference, name_of, reference_of
from .running import Handled
from .stage import AppUnderTest, Modifiers, Stage
from .stub import Stub

P = ParamSpec("P")
R = TypeVar("R")

DELAY_TOLERANCE_SECONDS = 5.0
_NOTHING: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A message that was dead-lettered. `reason` is one word, `error` a line of text."""

    name: str
    queue: str
    reason: str
    error: str
    attempts: int


class Verbs:
    """The assertions and `simulate`, with what was said before them; see `Harness`."""

    def __init__(self, stage: Stage, said: Modifiers) -> None:
        self._stage = stage
        self._said = said

    def assert_fired(self, event: Callable[P, Event], /, *args: P.args, **kwargs: P.kwargs) -> list[Sent]:
        """The event was fired with these fields; returns the messages.

        Raises:
            AssertionError: it was not; the text names the nearest one and its differences.
        """
        return self._check("fired", event, args, kwargs)

    @overload
    def assert_called(self, call: Rpc[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> list[Sent]: ...
    @overload
    def assert_called(self, call: HasReference, /, *args: Any, **kwargs: Any) -> list[Sent]: ...
    def assert_called(self, call: Any, /, *args: Any, **kwargs: Any) -> list[Sent]:
        """The call was made, or the task was sent, with these arguments; returns and raises as `assert_fired`."""
        return self._check("called", call, args, kwargs)

    @overload
    def simulate(self, call: Rpc[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def simulate(self, event: Callable[P, Event], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def simulate(self, task: HasReference, /, *args: Any, **kwargs: Any) -> Any: ...
    def simulate(self, named: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Let the message come from another app, and handle it here and now.

        Returns:
            The answer of a call, the result of a task; None for an event, whose listeners have all run.

        Raises:
            AssertionError: nobody under test listens to it, or serves it.
            Exception: what its handler raised. It is settled first: retried later, parked, or answered.
        """
        if self._said.partial:
            raise TypeError("partial() is for assertions: a message that comes has all its fields")
        if self._said.delay_seconds is not None:
            raise TypeError("delayed() is for assertions: a message that comes has waited already")
        results = [self._stage.simulate(named, args, kwargs, self._said) for _ in range(self._said.times or 1)]
        return results[-1]

    def _check(self, verb: str, named: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Sent]:
        reference, said = reference_of(named), self._said
        fields = kwargs if said.partial else reference.fields(args, kwargs)
        expected = Expected(verb=verb, reference=reference, fields=fields, times=said.times, partial=said.partial)
        sent = [one for one in self._stage.sent if said.app in ("test", one.app)]
        if (wanted := said.delay_seconds) is not None:  # `at=` is a delay from a moment that the test does not know
            sent = [one for one in sent if abs(one.delay_seconds - wanted) < DELAY_TOLERANCE_SECONDS]
        return expected.check(sent)


class PartialVerbs(Verbs):
    """Assertions that need not be told every field, which therefore have no types."""

    def assert_fired(self, event: Callable[..., Event], /, *args: Any, **kwargs: Any) -> list[Sent]:
        """See `Verbs.assert_fired`; fields that are left out may be anything."""
        return self._check("fired", event, args, kwargs)

    def assert_called(self, call: Any, /, *args: Any, **kwargs: Any) -> list[Sent]:
        """See `Verbs.assert_called`; arguments that are left out may be anything."""
        return self._check("called", call, args, kwargs)


class Harness(Verbs):
    """A test of some apps; made by `harness`.

    What narrows a verb stands before it: `t.times(2).assert_fired(...)`, `t.from_app("shop").simulate(...)`.
    """

    ANY: Any = ANY  #: for a value that does not matter

    def times(self, count: int) -> Verbs:
        """Exactly so often, 0 for never; `simulate` so often."""
        return Verbs(self._stage, replace(self._said, times=count))

    def partial(self) -> PartialVerbs:
        """Some fields, and the others may be anything."""
        return PartialVerbs(self._stage, replace(self._said, partial=True))

    def delayed(self, seconds: float) -> Verbs:
        """Sent with a delay of so many seconds, within 5; 0 for none."""
        return Verbs(self._stage, replace(self._said, delay_seconds=seconds))

    def from_app(self, name: str) -> Verbs:
        """Sent by the app `name`, of several under test; simulated as if `name` had sent it."""
        return Verbs(self._stage, replace(self._said, app=check_name(name, "the app name")))

    def meta(
        self, *, id: str = "", correlation_id: str = "", attempt: int = 1, redelivered: bool = False
    ) -> Verbs:  # fmt: skip
        """What `current_delivery()` shall say of a simulated message."""
        return Verbs(
            self._stage,
            replace(self._said, id=id, correlation_id=correlation_id, attempt=attempt, redelivered=redelivered),
        )

    # -- what has happened -------------------------------------------------------------------------------------------

    @property
    def sent(self) -> tuple[Sent, ...]:
        """All that the apps have sent: events, calls and tasks, without answers, retries and dead letters."""
        return tuple(self._stage.sent)

    @property
    def handled(self) -> tuple[Handled, ...]:
        """All deliveries that were handled, with results and errors."""
        return tuple(self._stage.handled)

    @property
    def parked(self) -> tuple[Parked, ...]:
        """The dead letters."""
        return tuple(
            Parked(
                name=name_of(one.delivery.wire), queue=one.delivery.queue, reason=one.outcome.reason,
                error=one.outcome.error, attempts=one.outcome.attempts,
            )
            for one in self._stage.handled
            if isinstance(one.outcome, DeadLetter)
        )  # fmt: skip

    def assert_nothing_sent(self) -> None:
        """Raises AssertionError: something was sent."""
        if self._stage.sent:
            raise AssertionError(f"nothing was to be sent, but: {', '.join(one.name for one in self._stage.sent)}")

    def forget(self) -> None:
        """Begin the lists anew: `sent`, `handled`, `parked`."""
        self._stage.sent.clear()
        self._stage.handled.clear()

    # -- what shall happen -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Handle what waits, and what that sends, until nothing waits.

        Raises:
            Exception: the first that a handler raised; all has been handled before.
        """
        self._stage.settle()

    def advance(self, seconds: float | None = None) -> None:
        """Let time pass, and handle what becomes due; without `seconds`, until the next delayed message."""
        self._stage.advance(seconds)

    @overload
    def stub(self, call: Rpc[P, R], *, returns: R) -> None: ...
    @overload
    def stub(self, call: Rpc[P, R], *, raises: Exception) -> None: ...
    @overload
    def stub(self, call: Rpc[P, R], *, answers: Callable[P, R]) -> None: ...
    def stub(
        self, call: Rpc[P, R], *, returns: Any = _NOTHING, raises: Exception | None = None, answers: Any = None
    ) -> None:  # fmt: skip
        """Answer a call in place of its owner. Arguments and answer are checked against the declaration.

        Args:
            returns: the answer.
            raises: an error that the API declares comes as itself, any other as `RemoteError`.
            answers: called with the arguments, for the answer.
        """
        reference_of(call)
        if (returns is not _NOTHING) + (raises is not None) + (answers is not None) != 1:
            raise TypeError("stub() takes one of returns=, raises= and answers=")

        def answer(**kwargs: Any) -> object:
            if raises is not None:
                raise raises
            return returns if answers is None else answers(**kwargs)

        self._stage.stubs[call.full_name] = Stub(CallSchema(call), answer)

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def redeliver(self) -> None:
        """Hand the message that was handled last out once more, as after the crash of a worker."""
        self._stage.redeliver()

    def lose_confirm(self, count: int = 1) -> None:
        """The next messages reach the broker, but their sender is told `NotConfirmed`."""
        self._stage.faults.lost_confirms = count

    @contextmanager
    def broker_down(self) -> Iterator[None]:
        """Within the block, sending fails with `BrokerUnreachable`."""
        self._stage.faults.is_down = True
        try:
            yield
        finally:
            self._stage.faults.is_down = False


@contextmanager
def harness(*apps: AppUnderTest, raises: bool = True, url: str = "") -> Iterator[Harness]:
    """Put buses under test: within the block they share an in-memory broker in place of their own.

    Args:
        raises: raise from `simulate`, `settle` and `advance` what a handler raised. False: look at `handled`, `parked`.
        url: a real broker in place of the one in memory, for tests alone: the queues of the apps are made there, and
            deleted in the end.

    Raises:
        AssertionError: a queue of the apps stands on that broker already; nothing was touched.
        TransportError: that broker cannot be reached.
    """
    stage = Stage(apps, open_transport(url) if url else MemoryTransport(MemoryBroker()), raises=raises)
    try:
        stage.open()
        yield Harness(stage, Modifiers())
    finally:
        stage.close()
