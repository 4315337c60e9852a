"""The result of a task that ran in the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import states
from .asyncresult import AsyncResult
from .exceptions import RemoteTaskError, TaskRevokedError
from .promises import Promise
from .results import ResultDocument

if TYPE_CHECKING:
    from .app import TaskApp


class EagerResult(AsyncResult):
    """The result of a task that ran in the caller."""

    ignored = False

    def __init__(
        self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None
    ) -> None:
        self.id = id
        self.parent = None
        self._result = ret_value
        self._state = state
        self._traceback = traceback
        self._name = name
        self._promise = None

    @property
    def app(self) -> TaskApp:  # type: ignore[override]
        from .app import default_app  # app imports this module

        return default_app()

    @property
    def state(self) -> str:
        return self._state

    @property
    def result(self) -> Any:
        return self._result

    @property
    def traceback(self) -> str | None:
        return self._traceback

    @property
    def name(self) -> str | None:
        return self._name

    @property
    def children(self) -> None:
        return None

    @property
    def supports_native_join(self) -> bool:
        return False

    def get(  # type: ignore[override]
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5, **_: Any
    ) -> Any:
        """The return value; raises the task's exception unless `propagate` is False, which returns it."""
        if self.state in states.PROPAGATE_STATES and propagate:
            raise self.result if isinstance(self.result, BaseException) else RemoteTaskError(self.result)
        return self.result if self.state in states.PROPAGATE_STATES or self.successful() else None

    wait = get  # type: ignore[assignment]

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> Promise:
        promise = self.on_ready.then(callback, on_error, weak)
        promise(self)
        return promise

    def ready(self) -> bool:
        return True

    def exists(self) -> bool:
        return True

    def forget(self) -> None:
        """Nothing is kept anywhere."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """It has ended already: only this object says REVOKED from now on."""
        self._state, self._result, self._traceback = states.REVOKED, TaskRevokedError("revoked"), None

    def _document(self) -> ResultDocument | None:
        return None

    def __copy__(self) -> EagerResult:
        return type(self)(self.id, self._result, self._state, self._traceback, self._name)

    def __reduce__(self) -> Any:
        return type(self), (self.id, self._result, self._state, self._traceback, self._name)
