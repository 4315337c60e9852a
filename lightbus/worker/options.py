"""What a worker is told, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.errors import ConfigError
from ..core.turns import QueueOrder
from ..middleware import Middleware
from ..report import Observer
from .limits import Limits
from .permits import Permits
from .rates import Rates

#: For a process that soon gives its place up: what it holds then goes back.
_CAREFUL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker runs.

    Attributes:
        processes: child processes, each with connections of its own.
        threads: handlers at a time per process; with 1 they run on the main thread.
        coroutines: `async def` handlers at a time per process, on one loop beside the threads.
        soft_limit_seconds: raise `SoftTimeLimitExceeded` in a handler after that long, where its message or declaration
            says nothing else; None for no limit.
        prefetch: messages that a process holds, running ones included, per queue on RabbitMQ; None to adapt it to how
            long handlers run.
        queues: serve only these of the app's queues; empty for all.
        order: which of them comes next when messages wait in several: among the tasks' queues, the listeners' and the
            calls', each kind for itself.
        middleware: wrapped around every handler call, outside that of the buses.
        observers: are told what became of each delivery.
        limits: what a process and its handlers may use up.
        rates: how often handlers may begin, shared by the processes that are forked after it was made (`rates_of`);
            None: what the endpoints declare, of each process by itself.
        permits: how many handlers may run at a time, as `rates` (`permits_of`).
        reports_waiting: tell the supervisor how many messages wait; for a number of processes that follows the load.
    """

    processes: int = 1
    threads: int = 1
    coroutines: int = 1000
    soft_limit_seconds: float | None = None
    prefetch: int | None = None
    queues: frozenset[str] = frozenset()
    order: QueueOrder = field(default_factory=QueueOrder)
    middleware: Sequence[Middleware] = ()
    observers: Sequence[Observer] = ()
    limits: Limits = field(default_factory=Limits)
    rates: Rates | None = None
    permits: Permits | None = None
    reports_waiting: bool = False

    def __post_init__(self) -> None:
        for name in ("processes", "threads", "coroutines", "prefetch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, got {value}")
        if self.soft_limit_seconds is not None and self.soft_limit_seconds <= 0:
            raise ConfigError(f"soft_limit_seconds must be more than 0, got {self.soft_limit_seconds}")

    def prefetch_of_a_process(self) -> int | None:
        """`prefetch`, but not more than what the process may handle in its life."""
        if self.limits.max_tasks is None:
            return self.prefetch
        return min(self.prefetch or _CAREFUL, self.limits.max_tasks)
