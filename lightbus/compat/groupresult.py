"""The caller's end of several tasks: the results of a group, and sets of results in general."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import states
from .asyncresult import AsyncResult, EagerResult
from .exceptions import TimeoutError

if TYPE_CHECKING:
    from .app import TaskApp

AnyResult = Any  # AsyncResult, EagerResult or GroupResult: they have the methods used here in common


class ResultSet:
    """Several results, in the order in which they were given."""

    def __init__(self, results: Iterable[AnyResult], app: TaskApp | None = None) -> None:
        self.results = list(results)
        self._app = app

    def add(self, result: AnyResult) -> None:
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: AnyResult) -> None:
        """Raises KeyError: it is not in the set."""
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: AnyResult) -> None:
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[AnyResult]) -> None:
        for one in results:
            self.add(one)

    def clear(self) -> None:
        self.results.clear()

    def successful(self) -> bool:
        return all(one.successful() for one in self.results)

    def failed(self) -> bool:
        """Whether any has failed."""
        return any(one.failed() for one in self.results)

    def ready(self) -> bool:
        return all(one.ready() for one in self.results)

    def waiting(self) -> bool:
        """Whether any has not ended yet."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many have succeeded."""
        return sum(one.successful() for one in self.results)

    def forget(self) -> None:
        for one in self.results:
            one.forget()

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        *,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """All return values in their order, waiting for each.

        Args:
            timeout: seconds for all together.
            propagate: raise the first exception in their order; False has the exceptions in the list.

        Raises as `AsyncResult.get` does.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        values: list[Any] = []
        for one in self.results:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0 and not one.ready():
                raise TimeoutError(f"{len(values)} of {len(self.results)} results came within {timeout} s")
            values.append(one.get(left, propagate, interval, disable_sync_subtasks=disable_sync_subtasks))
        return values

    join = get
    join_native = get

    def iterate(self, timeout: float | None = None, propagate: bool = True) -> Iterator[Any]:
        """The return values as they come, whichever comes first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        left = list(self.results)
        pause = 0.005
        while left:
            done = [one for one in left if one.ready()]
            for one in done:
                left.remove(one)
                yield one.get(propagate=propagate)
            if left and not done:
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"{len(left)} of {len(self.results)} results did not come within {timeout} s")
                time.sleep(pause)
                pause = min(2 * pause, 0.1)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AnyResult]:
        return iter(self.results)

    def __getitem__(self, index: int) -> AnyResult:
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        return self.results == other.results if isinstance(other, ResultSet) else NotImplemented

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(one) for one in self.results)}]>"


class GroupResult(ResultSet):
    """The results of a group, under the group's id.

    Attributes:
        parent: the result of what ran before the group, or None.
    """

    def __init__(
        self, id: str, results: Iterable[AnyResult], parent: AnyResult | None = None, app: TaskApp | None = None
    ) -> None:
        super().__init__(results, app)
        self.id = id
        self.parent = parent

    @property
    def task_id(self) -> str:
        return self.id

    @property
    def children(self) -> list[AnyResult]:
        return self.results

    @property
    def state(self) -> str:
        """SUCCESS or FAILURE when all have ended, else PENDING."""
        if not self.ready():
            return states.PENDING
        return states.SUCCESS if self.successful() else states.FAILURE

    def throw_first(self) -> None:
        """Raise the exception of the first failed task among the parents and the group's own, if one has failed."""
        if self.parent is not None:
            self.parent.throw_first()
        self.maybe_throw()

    def maybe_throw(self) -> None:
        """Raise the exception of the first of its tasks that has failed; does not wait."""
        for one in self.results:
            one.maybe_throw()

    def as_tuple(self) -> tuple[tuple[str, Any], list[Any]]:
        """Its form in JSON; `result_from_tuple` reads it."""
        parent = None if self.parent is None else self.parent.as_tuple()
        return (self.id, parent), [one.as_tuple() for one in self.results]

    def __bool__(self) -> bool:
        return bool(self.results)

    def __eq__(self, other: object) -> bool:
        return other.id == self.id and super().__eq__(other) if isinstance(other, GroupResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(str(one) for one in self.results)}]>"


def result_from_tuple(value: Any, app: TaskApp | None = None) -> AnyResult:
    """The result that a tuple in JSON form names: `[[id, parent], children]`, with children for a group.

    Raises:
        ValueError: it is no such tuple.
    """
    if isinstance(value, AsyncResult | EagerResult | ResultSet):
        return value
    if isinstance(value, str):
        return AsyncResult(value, app=app)
    try:
        (task_id, parent), children = value
    except (TypeError, ValueError) as error:
        raise ValueError(f"a result's tuple is [[id, parent], children], got {value!r:.100}") from error
    above = None if parent is None else result_from_tuple(parent, app)
    if children is None:
        return AsyncResult(task_id, app=app, parent=above)
    return GroupResult(task_id, [result_from_tuple(one, app) for one in children], above, app)


def oldest(result: AnyResult) -> AnyResult:
    """The first of a result's ancestors; itself when it has none."""
    while result.parent is not None:
        result = result.parent
    return result


def flattened(results: Sequence[AnyResult]) -> list[AnyResult]:
    """The single results in `results`, those of groups in their place."""
    found: list[AnyResult] = []
    for one in results:
        found += flattened(one.results) if isinstance(one, ResultSet) else [one]
    return found
