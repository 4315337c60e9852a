"""The options --weights and --first of `lightbus worker`: from words to a `QueueOrder`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from ..core.errors import ConfigError
from ..core.topology import TASK_QUEUE_PREFIX
from ..core.turns import QueueOrder

if TYPE_CHECKING:
    from ..bus import Bus

MOST_WEIGHT = 1000  #: a row of turns is as long as all weights together


def parsed_order(weights: str, first: Sequence[str]) -> QueueOrder:
    """Raises click.UsageError: a weight is no number from 1 to 1000, or a queue is named twice."""
    parsed: dict[str, int] = {}
    for part in filter(None, map(str.strip, weights.split(","))):
        name, _, number = part.rpartition("=")
        if not name or not number.isdecimal() or not 1 <= int(number) <= MOST_WEIGHT:
            raise click.UsageError(f"--weights takes NAME=N with N from 1 to {MOST_WEIGHT}, got {part!r}")
        if name in parsed:
            raise click.UsageError(f"--weights names {name!r} twice")
        parsed[name] = int(number)
    if len(set(first)) < len(first):
        raise click.UsageError(f"--first names a queue twice: {','.join(first)}")
    return QueueOrder(parsed, first)


def order_of(order: QueueOrder, buses: Sequence[Bus], wanted: Collection[str]) -> QueueOrder:
    """The same with the queues' full names; the prefix of task queues may have been left out.

    Args:
        wanted: the queues that are served; empty for all.

    Raises:
        ConfigError: it names a queue that is not served.
    """
    if not order.names:
        return order
    served = {name for bus in buses for endpoint in bus.endpoints() for name in endpoint.queues()}
    served &= set(wanted) or served
    full: Mapping[str, str] = {name.removeprefix(TASK_QUEUE_PREFIX): name for name in served} | {n: n for n in served}
    if missing := sorted(set(order.names) - full.keys()):
        raise ConfigError(
            f"--weights or --first names {', '.join(missing)}, which this worker does not serve; "
            f"it serves {', '.join(sorted(served))}"
        )
    weights = {full[name]: weight for name, weight in order.weights.items()}
    return QueueOrder(weights, [full[name] for name in order.first])
