"""The exit codes of the commands and of a worker's processes. Those above 63 are sysexits.h's."""

from __future__ import annotations

from .errors import AccessRefused, ConfigError, DeclarationError, LightbusError, ScheduleStateError, TransportError

EXIT_OK = 0
EXIT_FAILED = 1  #: something that is not listed below
EXIT_USAGE = 2  #: the command line
EXIT_CUT_OFF = 1  #: a worker that had to stop handlers before their end, or one of its processes
EXIT_UNAVAILABLE = 69  #: the broker cannot be reached
EXIT_DEFECT = 70  #: a defect of Lightbus or of a library
EXIT_TIME_LIMIT = 75  #: of a worker's process: a handler was over its hard limit, and another process starts
EXIT_NO_PERMISSION = 77  #: the broker refused the user, the password or the virtual host
EXIT_CONFIG = 78  #: the app cannot be loaded, or is declared wrongly
EXIT_INTERRUPTED = 130  #: Ctrl-C


def exit_code_of(error: BaseException) -> int:
    """The exit code under which a command reports `error`."""
    if isinstance(error, AccessRefused):
        return EXIT_NO_PERMISSION
    if isinstance(error, TransportError):
        return EXIT_UNAVAILABLE
    if isinstance(error, (ConfigError, DeclarationError, ScheduleStateError)):
        return EXIT_CONFIG
    return EXIT_FAILED if isinstance(error, LightbusError) else EXIT_DEFECT
