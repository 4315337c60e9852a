"""What a worker is told, as one value; and the exit codes by which it says how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import AccessRefused, ConfigError, DeclarationError, LightbusError, TransportError
from ..middleware import Middleware

EXIT_OK = 0
EXIT_FAILED = 1  #: something that is not listed below
EXIT_USAGE = 2  #: the command line
EXIT_UNAVAILABLE = 69  #: the broker cannot be reached
EXIT_DEFECT = 70  #: a defect of Lightbus or of a library
EXIT_NO_PERMISSION = 77  #: the broker refused the user, the password or the virtual host
EXIT_CONFIG = 78  #: the app cannot be loaded, or is declared wrongly


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker runs.

    Attributes:
        processes: child processes, each with connections of its own.
        threads: handlers at a time per process; with 1 they run on the main thread.
        prefetch: messages that a process holds, running ones included, per queue.
        queues: serve only these of the app's queues; empty for all.
        middleware: wrapped around every handler call.
    """

    processes: int = 1
    threads: int = 1
    prefetch: int = 8
    queues: frozenset[str] = frozenset()
    middleware: Sequence[Middleware] = ()

    def __post_init__(self) -> None:
        for name in ("processes", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")


def exit_code_of(error: BaseException) -> int:
    """The exit code under which a command reports `error`."""
    if isinstance(error, AccessRefused):
        return EXIT_NO_PERMISSION
    if isinstance(error, TransportError):
        return EXIT_UNAVAILABLE
    if isinstance(error, ConfigError | DeclarationError):
        return EXIT_CONFIG
    return EXIT_FAILED if isinstance(error, LightbusError) else EXIT_DEFECT
