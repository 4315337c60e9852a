"""Tells an endpoint of a run whose process died: its message was acknowledged before, so nobody gets it again.

The supervisor knows it from the board, but opens no connection; a living process has the endpoints and the broker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import msgspec

from ..core.outcome import Forward
from ..endpoint import Endpoint, HearsOfLosses, LostRun
from .board import Running
from .control import Channel
from .settle import Settler

logger = logging.getLogger("lightbus.worker")


def lost_run(run: Running, *, over_time: bool, text: str) -> LostRun:
    """What the board knows of it.

    Args:
        over_time: its process was killed because of its hard limit.
        text: what happened to the process.
    """
    return LostRun(
        queue=run.queue, name=run.name, id=run.message_id, attempt=run.attempt, reply_to=run.reply_to,
        over_time=over_time, text=text, remains=run.remains,
    )  # fmt: skip


def as_message(run: LostRun) -> object:
    """For the control channel."""
    return msgspec.to_builtins(run)


def tell_lost(message: object, settlers: Sequence[tuple[Endpoint, Settler]], channel: Channel) -> None:
    """Tell the endpoint of the run's queue, on a thread of its own since a result store may take its time."""
    run = msgspec.convert(message, LostRun)

    def tell() -> None:
        for endpoint, settler in settlers:
            if run.queue in endpoint.queues() and isinstance(endpoint, HearsOfLosses):
                try:
                    answer = endpoint.lost(run)
                    if isinstance(answer, Forward) and answer.wire is not None:
                        settler.send(answer.wire, answer.route)
                except Exception:  # the top of this thread: a result store that is down, a defect
                    logger.exception("nobody could be told of a lost run name=%s id=%s", run.name, run.id)
        channel.send("told", run.id)

    threading.Thread(target=tell, name="lightbus-lost").start()
