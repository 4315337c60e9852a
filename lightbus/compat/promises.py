"""`result.then(...)`: what is called when a result is known. Thread-safe."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

Callback = Callable[[Any], Any]


class Promise:
    """Calls what was given to `then` once there is a value, or an error; at once when there is already.

    Nothing happens in the background: a result is known when somebody waits for it or asks for its state.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[Callable[[], Callback | None], Callback | None]] = []
        self._outcome: tuple[Any, BaseException | None] | None = None

    @property
    def ready(self) -> bool:
        return self._outcome is not None

    def then(self, callback: Callback, on_error: Callback | None = None, weak: bool = False) -> Promise:
        """Have `callback` called with the value, or `on_error` with the error. What they return is not used.

        Args:
            weak: do not keep `callback` alive.
        """
        held = _reference(callback) if weak else lambda: callback
        with self._lock:
            self._waiting.append((held, on_error))
        self._tell()
        return self

    def __call__(self, value: Any) -> None:
        """There is a value; only the first counts."""
        self._settle((value, None))

    def fail(self, error: BaseException) -> None:
        """There will be none."""
        self._settle((None, error))

    def _settle(self, outcome: tuple[Any, BaseException | None]) -> None:
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            if self._outcome is None:
                return
            (value, error), waiting = self._outcome, self._waiting
            self._waiting = []
        for held, on_error in waiting:
            callback = held()
            if error is None and callback is not None:
                callback(value)
            elif error is not None and on_error is not None:
                on_error(error)


def _reference(callback: Callback) -> Callable[[], Callback | None]:
    bound = hasattr(callback, "__self__")
    return weakref.WeakMethod(callback) if bound else weakref.ref(callback)
