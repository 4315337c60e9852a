"""The results of a group, which can be kept and read again, and results by their tuples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from . import states
from .asyncresult import AsyncResult
from .eagerresult import EagerResult
from .resultset import AnyResult, ResultSet

if TYPE_CHECKING:
    from .app import TaskApp
    from .resultstore import ResultStore


class GroupResult(ResultSet):
    """The results of a group, under the group's id.

    Attributes:
        parent: the result of what ran before the group, or None.
    """

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[AnyResult] = (),
        parent: AnyResult | None = None,
        app: TaskApp | None = None,
        **others: Any,
    ) -> None:
        super().__init__(results or (), app, **others)
        self.id: str = id or ""
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

    def save(self, backend: ResultStore | None = None) -> None:
        """Keep which tasks make the group in the result backend, for `restore`, as Celery would.

        Raises:
            ConfigError: the backend keeps no groups.
            TransportError: it could not be handed over.
        """
        document = self.app.settings.result_codec.dumps({"result": self.as_tuple()})
        (backend or self.backend).save_group(self.id, document)

    def delete(self, backend: ResultStore | None = None) -> None:
        """Remove what `save` kept."""
        (backend or self.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: ResultStore | None = None, app: TaskApp | None = None) -> GroupResult | None:
        """A group that was saved, by Celery or by Lightbus; None when there is none of that id (any more)."""
        if app is None:
            from .app import default_app  # as above

            app = default_app()
        data = (backend or app.results).load_group(id)
        if data is None:
            return None
        found: Any = app.settings.result_codec.loads(data)
        result: GroupResult = result_from_tuple(found["result"], app)
        return result

    def throw_first(self) -> None:
        """Raise the exception of the first failed task among the parents and the group's own, if one has failed."""
        if self.parent is not None:
            self.parent.throw_first()
        self.maybe_throw()

    def as_tuple(self) -> tuple[tuple[str, Any], list[Any]]:
        """Its form in JSON; `result_from_tuple` reads it."""
        parent = None if self.parent is None else self.parent.as_tuple()
        return (self.id, parent), [one.as_tuple() for one in self.results]

    def as_list(self) -> list[str]:
        """Its id, and those of what ran before it."""
        return [self.id, *([] if self.parent is None else self.parent.as_list())]

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return (other.id, other.results, other.parent) == (self.id, self.results, self.parent)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __reduce__(self) -> Any:
        return type(self), (self.id, self.results)

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
