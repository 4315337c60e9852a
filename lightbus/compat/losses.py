"""What is kept of a task outside its process while it runs, when others wait for its end: its message.

A task that is acknowledged early is gone when its process dies. Its errbacks, the rest of its chain and its chord can
then only be told by whoever still has the message.
"""

from __future__ import annotations

import msgspec

from ..core.message import Wire
from ..endpoint import LostRun


def remains_of(wire: Wire) -> bytes:
    """The message as JSON; empty when a header of it is nothing that JSON has."""
    try:
        return msgspec.json.encode(wire)
    except (TypeError, ValueError, OverflowError):
        return b""


def wire_of(run: LostRun) -> Wire | None:
    """The message, where it was kept."""
    return msgspec.json.decode(run.remains, type=Wire) if run.remains else None
