"""What a worker's processes may use up: time, memory, messages, crashes. Values only; others carry them out.

time        runs.py in the process, supervisor.py where the process hangs
messages    runs.py counts, process.py drains
memory      supervisor.py looks
crashes     crashes.py counts, slots ask before they run what was handed out before
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of each child process and of what runs in it; None is no limit.

    Attributes:
        time_seconds: hard limit of a handler whose message or declaration names none.
        max_crashes: a message whose handler took its process down that often is parked.
        max_tasks: messages that a process handles before another takes its place.
        max_memory_bytes: resident memory from which on another process takes its place. Linux.
        grace_seconds: what runs when a stop is asked for may go on for that long.
    """

    time_seconds: float | None = None
    max_crashes: int = 3
    max_tasks: int | None = None
    max_memory_bytes: int | None = None
    grace_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("time_seconds", "max_tasks", "max_memory_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be more than 0, or None for no limit; got {value}")
        if self.max_crashes < 1:
            raise ConfigError(f"max_crashes must be 1 or more, got {self.max_crashes}")
        if self.grace_seconds < 0:
            raise ConfigError(f"grace_seconds must be 0 or more, got {self.grace_seconds}")
