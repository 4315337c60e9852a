"""What answers the deliveries of a set of queues: listeners, served APIs, tasks. The worker knows only this.

An endpoint decides, the worker carries out: `prepare` turns a delivery into a function call (or at once into an
outcome), a slot of the worker makes the call, `succeed` or `fail` turn its end into an outcome, and the worker settles
the delivery by it. So the endpoint never touches a thread, a channel or an acknowledgement, and a handler may be a
plain function or a coroutine function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from .core.concurrency import Concurrency
from .core.errors import HandlerStopped, SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLost
from .core.outcome import Forward, Outcome
from .core.rate import Rate
from .core.topology import Topology
from .ports import Delivery


@dataclass(slots=True, kw_only=True)
class Invocation:
    """One handler call that a delivery asks for.

    Attributes:
        function: the user's function; a coroutine function is run on the worker's event loop.
        name: what the message names, for logs and `current_delivery()`.
        kind: `event`, `call` or `task`.
        queue: where the message was taken from.
        id: the message's id.
        causation_id: id of the message whose handler sent this one, where it says so.
        sent_at: Unix time in seconds of its sending, where it says so.
        attempt: 1 for the first try.
        redelivered: the message, or another copy of it, may have been handed out before.
        soft_limit_seconds: raise `soft_limit_error` in the handler after that long; None for the worker's default.
        soft_limit_error: what is raised then, without arguments.
        hard_limit_seconds: end the handler's process after that long; None for the worker's default.
        ack_early: acknowledge before the call (Celery's default for its tasks): a crash then loses the message.
        remains: what the endpoint wants back in `lost`, of a run that is acknowledged early; at most 4,096 bytes, more
            is left out.
        state: whatever the endpoint wants back in `succeed` and `fail`.
        on_end: called after these, on the thread and in the context in which the handler was called; not when the
            handler's process ends under it. Must not raise.
    """

    function: Callable[..., object]
    args: Sequence[object] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    name: str
    id: str
    kind: str = ""
    queue: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    sent_at: float | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None  #: Unix seconds after which the answer helps nobody; calls only
    attempt: int = 1
    redelivered: bool = False
    soft_limit_seconds: float | None = None
    soft_limit_error: type[Exception] = SoftTimeLimitExceeded
    hard_limit_seconds: float | None = None
    ack_early: bool = False
    remains: bytes = b""
    state: object = None
    on_end: Callable[[], None] | None = None


class Endpoint(Protocol):
    """Answers the deliveries of its queues. Called from the worker's slots, possibly from several at a time."""

    @property
    def kind(self) -> str:
        """What its messages are, in one word for logs and metrics: `event`, `call` or `task`."""

    @property
    def blocking(self) -> bool:
        """`succeed` and `fail` may wait for something outside: a result store, a broker."""

    def topology(self) -> Topology:
        """What must stand before its queues are consumed; the queues to consume are `queues()`."""

    def queues(self) -> Collection[str]:
        """Names of the queues to consume; all of them are in `topology()`."""

    def prepare(self, delivery: Delivery) -> Invocation | Outcome:
        """The call that the delivery asks for, or its outcome when there is nothing to call.

        Raises:
            MessageError: the message cannot be handled; the worker dead-letters it with the error's reason.
        """

    def succeed(self, invocation: Invocation, result: object) -> Outcome:
        """The handler returned `result`."""

    def fail(self, invocation: Invocation, error: BaseException) -> Outcome:
        """The handler raised `error`, or was stopped by it.

        `TimeLimitExceeded`: it ran for longer than its hard limit, and its process ends. `WorkerLost`: its process
        died under it too often, or would not wait for it. In both cases it may be called on another thread, or in
        another process than the handler's.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRun:
    """A run whose process died under it after its message had been acknowledged.

    Attributes:
        reply_to: the queue that the message wants its answer in; empty for none.
        over_time: the process was killed because the run was over its hard limit.
        text: what happened, for people.
        remains: the invocation's, or empty where they were too long.
    """

    queue: str
    name: str
    id: str
    attempt: int
    reply_to: str
    over_time: bool
    text: str
    remains: bytes = b""

    @property
    def error(self) -> HandlerStopped:
        return TimeLimitExceeded(self.text) if self.over_time else WorkerLost(self.text, crashes=1)


@runtime_checkable
class HearsOfLosses(Protocol):
    """An endpoint that acknowledges early, and wants to tell somebody when a run is lost thereby."""

    def lost(self, run: LostRun) -> Forward | None:
        """What to send in place of the answer, or None. Called on a thread of its own, in some process of the worker.

        Not called when the worker's supervisor died as well.
        """


@runtime_checkable
class EndsWithProcess(Protocol):
    """An endpoint that keeps something for later, and wants to be rid of it before its process ends."""

    def leave(self) -> None:
        """Nothing more is handled here, and the connections are still open. A few seconds at most."""


@runtime_checkable
class Rated(Protocol):
    """An endpoint whose handlers may have a rate."""

    def rates(self) -> Mapping[str, Rate | None]:
        """All names that may have a rate, in this worker, with the one that they begin with."""

    def rate_name(self, delivery: Delivery) -> str | None:
        """Under which of them this message falls; None when its handler would not be called now. Before `prepare`."""


@runtime_checkable
class Limited(Protocol):
    """An endpoint of which some queues have handlers that may run only so many at a time."""

    def limits(self) -> Mapping[str, Concurrency]:
        """Every name that has a limit, in all processes of a worker alike."""

    def limit_name(self, queue: str) -> str | None:
        """Under which of them the messages of `queue` fall; None for none."""


@runtime_checkable
class HasLanes(Protocol):
    """An endpoint that has queues whose messages are to be handled one after the other."""

    def lanes(self) -> Mapping[str, str]:
        """Those of its queues, each with the one whose messages are sorted into it: without a handler, by `prepare`.

        That one is in it too, with itself.
        """

    def prepare(self, delivery: Delivery) -> Invocation | Outcome:
        """See `Endpoint`."""


@runtime_checkable
class Steerable(Protocol):
    """An endpoint that can say what it handles, and be told to change. Called on the control thread: must not wait."""

    def describe(self, delivery: Delivery) -> dict[str, object]:
        """A message that a process holds, for people and monitors; in JSON's types."""

    def change(self, word: str, value: Mapping[str, object]) -> None:
        """Carry out a change that was told to all processes."""

    def add_queue(self, name: str) -> Topology | None:
        """Serve the queue `name` too; what must stand before it is consumed. None when it is not for this one."""


def shared_queues(endpoint: Endpoint) -> list[str]:
    """The names of its queues that are not of one process alone, for tools."""
    own = {queue.name for queue in endpoint.topology().queues if queue.exclusive}
    return [name for name in endpoint.queues() if name not in own]


def asked_for(endpoint: Endpoint, wanted: Collection[str]) -> list[str]:
    """Those of its queues that are named in `wanted`; all where nothing is. Lanes go with what is sorted into them."""
    lanes = endpoint.lanes() if isinstance(endpoint, HasLanes) else {}
    return [name for name in endpoint.queues() if not wanted or lanes.get(name, name) in wanted]


_current: ContextVar[Invocation | None] = ContextVar("lightbus_current", default=None)


def current_delivery() -> Invocation | None:
    """The message being handled in this thread or coroutine, or None outside a handler."""
    return _current.get()


def set_current(invocation: Invocation | None) -> None:
    """For the worker: mark what this thread or coroutine handles from now on."""
    _current.set(invocation)
