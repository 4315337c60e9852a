"""What a worker serves: apps, and what their endpoints say of rates and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..core.concurrency import Concurrency
from ..core.rate import Rate
from ..endpoint import Endpoint, HasLanes, Limited, Rated
from ..middleware import Middleware
from ..ports import Transport
from .permits import Permits
from .rates import Rates


class Served(Protocol):
    """What a worker needs of an app: `lightbus.Bus` is one."""

    @property
    def transport(self) -> Transport: ...

    @property
    def dead_letter_queue(self) -> str: ...

    @property
    def middleware(self) -> Sequence[Middleware]: ...

    def endpoints(self) -> Sequence[Endpoint]: ...

    def close(self) -> None: ...


def rates_of(buses: Sequence[Served]) -> Rates:
    """The rates of all that `buses` serve; made before the first fork, all processes share it."""
    names: dict[str, Rate | None] = {}
    for bus in buses:
        for endpoint in bus.endpoints():
            if isinstance(endpoint, Rated):
                names |= endpoint.rates()
    return Rates(names)


def permits_of(buses: Sequence[Served]) -> Permits:
    """The limits of all that `buses` serve; as `rates_of`."""
    limits: dict[str, Concurrency] = {}
    for bus in buses:
        for endpoint in bus.endpoints():
            if isinstance(endpoint, Limited):
                limits |= endpoint.limits()
            if isinstance(endpoint, HasLanes):
                limits |= dict.fromkeys(endpoint.lanes(), Concurrency(1))
    return Permits(limits)
