"""Soft time limits: an exception raised in a handler that runs for too long, so that it can clean up and end.

A plain handler on the main thread gets it by a signal, which also ends a sleep or a read it waits in; on another thread
when it next runs Python code; a coroutine is cancelled, and the cancellation becomes the exception.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import signal
import threading
import time
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("lightbus.worker")

#: No program uses it of its own accord. SIGALRM is left to the libraries that set alarms in a handler.
SIGNAL = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR1

_NOW = 0.0
_set_async_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc


class SoftLimits:
    """The running handlers that have a soft limit, one for each thread, and the thread that looks at the clock.

    The exception may come between any two steps of a handler's thread, also between a lock's taking and the beginning
    of its block: so these threads take no lock here. Whether a handler was in time is who takes the one token of its
    run first, its thread or the clock's; taking it is one step of the interpreter.
    """

    def __init__(self) -> None:
        self._running: dict[int, _Limited] = {}  # by thread
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._looks_at = _NOW  # when the clock's thread looks next, on the monotonic clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def within(self, seconds: float | None, error: type[Exception]) -> contextlib.AbstractContextManager[object]:
        """Raise `error` in the block when it runs for longer than `seconds`. Once: who catches it may go on."""
        if seconds is None:
            return contextlib.nullcontext()
        if self._thread is None:
            self._start()
        return _Limited(self, seconds, error)

    def install(self) -> None:
        """On the main thread: use the signal for what runs there."""
        signal.signal(SIGNAL, self._on_signal)

    def close(self) -> None:
        self._closed = True
        self._wake.put(None)
        if self._thread is not None:
            self._thread.join()

    def begin(self, limited: _Limited) -> None:
        self._running[limited.thread] = limited
        if self._looks_at > limited.ends_at or self._looks_at == _NOW:
            self._wake.put(None)

    def _start(self) -> None:
        with self._lock:  # no limit runs here yet
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="lightbus-limits", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while not self._closed:
            self._looks_at = _NOW  # who begins after the look below sees this, and wakes
            now, next_end = time.monotonic(), math.inf
            for limited in list(self._running.values()):
                if limited.ends_at > now:
                    next_end = min(next_end, limited.ends_at)
                elif limited.take_token():
                    self._raise(limited)
            self._looks_at = next_end
            with contextlib.suppress(Empty):
                self._wake.get(timeout=None if next_end == math.inf else next_end - now)

    def _raise(self, limited: _Limited) -> None:
        if limited.thread == threading.main_thread().ident:
            handler = signal.getsignal(SIGNAL)
            if handler == self._on_signal:
                signal.pthread_kill(limited.thread, SIGNAL)
                return  # `_on_signal` says that it was raised
            logger.warning(
                "signal %d belongs to %r now: a soft time limit cannot end what a handler waits in, and is raised "
                "when it goes on", SIGNAL, handler,
            )  # fmt: skip
        _set_async_exception(ctypes.c_ulong(limited.thread), ctypes.py_object(limited.error))
        limited.raised = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        limited = self._running.get(threading.main_thread().ident or 0)
        if limited is not None and limited.is_over and not limited.raised:
            limited.raised = True
            raise limited.error


class _Limited:
    """One run of a handler with a soft limit."""

    __slots__ = ("_limits", "_seconds", "_token", "ends_at", "error", "raised", "thread")

    def __init__(self, limits: SoftLimits, seconds: float, error: type[Exception]) -> None:
        self._limits = limits
        self._seconds = seconds
        self._token = [True]
        self.error = error
        self.thread = threading.get_ident()
        self.raised = False  # the exception is on its way to the thread, or was there
        self.ends_at = 0.0

    @property
    def is_over(self) -> bool:
        """The token is taken: the block has ended, or the exception is raised in it."""
        return not self._token

    def take_token(self) -> bool:
        """True for the first who asks."""
        try:
            return self._token.pop()
        except IndexError:
            return False

    def __enter__(self) -> None:
        self.ends_at = time.monotonic() + self._seconds
        self._limits.begin(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self.take_token():
            while not self.raised:  # the clock's thread is about to; it must not hit the next message
                time.sleep(0.0001)
            _set_async_exception(ctypes.c_ulong(self.thread), None)


class CancelledAfter:
    """Cancels the task of the block after `seconds`, and makes `error` of the cancellation when it leaves the block."""

    def __init__(self, seconds: float, error: type[Exception]) -> None:
        self._seconds = seconds
        self._error = error
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        import asyncio

        task = asyncio.current_task()
        assert task is not None
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire, task)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        import asyncio

        assert self._timer is not None
        self._timer.cancel()
        if self._expired and isinstance(error, asyncio.CancelledError):
            raise self._error from error

    def _expire(self, task: asyncio.Task[object]) -> None:
        self._expired = True
        task.cancel()
