"""What a supervisor is to see to, as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .attendant import Program
from .autoscale import Autoscale
from .companions import MakeCompanion
from .health import Sign
from .limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Oversight:
    """What a supervisor sees to, besides keeping its children alive.

    Attributes:
        threads: of each child.
        autoscale: None for a fixed number of processes.
        signs: told of the worker's health.
        reload_on_change: for development: new code as soon as a source file changes.
        before_fork: called before each child is forked.
        before_exec: called before the supervisor becomes its own command once more.
        attendant: the companion that steers the supervisor; see `attendant`.
        companions: what else stands beside it.
    """

    threads: int = 1
    limits: Limits = field(default_factory=Limits)
    autoscale: Autoscale | None = None
    signs: Sequence[Sign] = ()
    reload_on_change: bool = False
    before_fork: Callable[[], None] = lambda: None
    before_exec: Callable[[], None] = lambda: None
    attendant: Program | None = None
    companions: Sequence[MakeCompanion] = ()
