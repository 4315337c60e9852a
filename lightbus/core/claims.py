"""Claims: who handles a message, and whether it was handled, so that a duplicate is not handled again. Values.

    nothing -> claimed, with a lease -> done, kept for a time
                                     -> nothing again (the handler failed, and will be tried again)
                                     -> claimed by another one, when the lease has ended: its holder has died

A store does each step in one transaction of its own; `lightbus.dedupe` decides what follows from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from .errors import DeclarationError, LightbusError

#: A claim whose holder died is forgotten after so long, if its message has never come again.
FORGET_SECONDS = 7 * 86400.0

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


class ClaimStoreUnavailable(LightbusError):
    """The store of claims did not answer."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The claim is the asker's. `takes` counts this one, and those whose holder died before."""

    takes: int


@dataclass(frozen=True, slots=True)
class Held:
    """Another one handles that message; its lease ends in so many seconds, unless it lives."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """It was handled."""


Claim = Taken | Held | Done


class ClaimStore(Protocol):
    """Where claims are kept, for all processes that use it. Thread-safe, connects on first use, and works after a fork.

    `now` is Unix time in seconds, by the clock of the asker. Every method raises ClaimStoreUnavailable.
    """

    def claim(self, key: str, holder: str, *, now: float, lease_seconds: float) -> Claim:
        """Take the claim `key` for `holder` if it is free."""

    def keep(self, key: str, holder: str, *, now: float, lease_seconds: float) -> None:
        """Extend the lease, if it is `holder`'s and not done."""

    def done(self, key: str, holder: str, *, now: float, keep_seconds: float) -> None:
        """It is handled, and is to be known for `keep_seconds`. Nothing happens when the claim is another's."""

    def release(self, key: str, holder: str) -> None:
        """Forget the claim, done or not, if it is `holder`'s."""

    def clean(self, *, now: float) -> None:
        """Remove what has ended."""

    def close(self) -> None:
        """Disconnect. It may be used again."""


def duration_seconds(text: str) -> float:
    """`"90s"`, `"15m"`, `"12h"`, `"7d"` or `"2w"` in seconds.

    Raises:
        DeclarationError: it is nothing of the kind, or nought.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise DeclarationError(f"a duration is a number and one of s, m, h, d, w, for example '7d', got {text!r}")
    return float(match[1]) * _UNITS[match[2]]
