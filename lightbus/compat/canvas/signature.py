"""A signature: a task to be sent, with arguments and options, as a value that has a JSON form.

Chains, groups and chords of them are in `compose`; how one is sent is in `launch`, which the app brings. The JSON form
is Celery's, so that a signature made on one side may be sent, continued or stored by the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..app import TaskApp
    from ..task import Task

Result = Any  #: AsyncResult, EagerResult or GroupResult, as the signature and the settings have it

#: A member of a group must keep its group whatever the caller passes, or its chord would wait for ever.
_KEPT_OPTIONS = frozenset({"group_id", "stamped_headers"})


class Signature(dict[str, Any]):
    """A task's name with arguments and options, to be sent later, by whom it reaches.

    Args:
        task: a task, its name, or a signature's JSON form.
        args, kwargs: of the task. Arguments that come later, from a chain or from `delay`, are put before `args`.
        options: of `apply_async`; further keywords are options too.
        immutable: arguments that come later are left out.
        app: sends it; by default the task's, else the process's.
    """

    def __init__(
        self,
        task: Task | str | Mapping[str, Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: TaskApp | None = None,
        **more_options: Any,
    ) -> None:
        if isinstance(task, Mapping):
            super().__init__(task)
            self.update(
                args=tuple(task.get("args") or ()), kwargs=dict(task.get("kwargs") or {}),
                options=dict(task.get("options") or {}), immutable=bool(task.get("immutable")),
                subtask_type=task.get("subtask_type"),
            )  # fmt: skip
        else:
            if not isinstance(task, str):
                app = app or task.app
            super().__init__(
                task=task if isinstance(task, str) else task.name,
                args=tuple(args or ()),
                kwargs=dict(kwargs or {}),
                options={**(options or {}), **more_options},
                subtask_type=subtask_type,
                immutable=immutable,
            )
        self._app = app

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: TaskApp | None = None) -> Signature:
        """The signature, chain, group or chord that a JSON form describes; see `signature`."""
        from .compose import signature  # it composes what is defined here

        return signature(d, app=app)

    # -- what it says ------------------------------------------------------------------------------------------------

    @property
    def task(self) -> str:
        """The task's name; of a chain, group or chord `celery.chain` and so on."""
        name: str = self["task"]
        return name

    @property
    def name(self) -> str:
        return self.task

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self["args"])

    @args.setter
    def args(self, value: Sequence[Any]) -> None:
        self["args"] = tuple(value)

    @property
    def kwargs(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = self["kwargs"]
        return kwargs

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = self["options"]
        return options

    @property
    def immutable(self) -> bool:
        return bool(self["immutable"])

    @property
    def subtask_type(self) -> str | None:
        kind: str | None = self["subtask_type"]
        return kind

    @property
    def id(self) -> str | None:
        """The id that it was frozen with, or None."""
        return self.options.get("task_id")

    @property
    def app(self) -> TaskApp:
        if self._app is None:
            self._app = next((part.app for part in self.parts() if part._app is not None), None) or _default_app()
        return self._app

    def parts(self) -> Iterator[Signature]:
        """The signatures that it is made of; none of a single task."""
        return iter(())

    # -- changing it -------------------------------------------------------------------------------------------------

    def set(self, immutable: bool | None = None, **options: Any) -> Signature:
        """Set options of `apply_async` on it; returns it."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    def merged(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Arguments and options with those of a caller: `args` before its own, `kwargs` and `options` over its own."""
        own = self.options
        kept = {*_KEPT_OPTIONS, *(own.get("stamped_headers") or ())}
        both = {**own, **{key: value for key, value in options.items() if key not in kept or key not in own}}
        if self.immutable:
            return self.args, dict(self.kwargs), both
        return (*args, *self.args), {**self.kwargs, **kwargs}, both

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Signature:
        """A copy, with a caller's arguments and options merged in. Arguments themselves are not copied."""
        copy = self._copy()
        merged_args, merged_kwargs, merged_options = copy.merged(args or (), kwargs or {}, options)
        copy.update(args=merged_args, kwargs=merged_kwargs, options=merged_options)
        return copy

    def _copy(self) -> Signature:
        copy = type(self).__new__(type(self))
        dict.__init__(copy, self)
        copy._app = self._app
        copy.update(kwargs=dict(self.kwargs), options=deepcopy(self.options))
        return copy

    def link(self, callback: Signature) -> Signature:
        """Send `callback` with the return value when the task has succeeded; returns `callback`."""
        return _append(self.options, "link", callback)

    def link_error(self, errback: Signature) -> Signature:
        """Send `errback` when the task has failed; returns `errback`."""
        return _append(self.options, "link_error", errback)

    def on_error(self, errback: Signature) -> Signature:
        """`link_error`, but returns this signature."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> list[Signature]:
        """It, and everything linked to it, and to those."""
        from .compose import signature  # it composes what is defined here

        links = [signature(one, app=self._app) for one in as_list(self.options.get("link"))]
        return [self, *(found for link in links for found in link.flatten_links())]

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Signature:
        """Put headers of your own on the messages of all that it is made of and linked to; returns it.

        Args:
            visitor: a `StampingVisitor`, which decides on the stamps of each part.
            append_stamps: a stamp that is there already becomes a list of both values; else it stays as it is.
            **headers: stamps for every part. A chord's body gets stamps only from a visitor, as in Celery.
        """
        from .stamping import stamp  # it knows the kinds of signatures, which are composed of these

        stamp(self, visitor, append_stamps, headers)
        return self

    # -- composing ---------------------------------------------------------------------------------------------------

    def __or__(self, other: Any) -> Any:
        """A chain of the two; `group | task` is a chord."""
        from .compose import pipe, signature  # as above

        return pipe(self, signature(other, app=self._app)) if is_signature(other) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        from .compose import pipe, signature  # as above

        return pipe(signature(other, app=self._app), self) if is_signature(other) else NotImplemented

    def __ior__(self, other: Any) -> Any:  # not the dict's update
        return self.__or__(other)

    # -- sending -----------------------------------------------------------------------------------------------------

    def delay(self, *args: Any, **kwargs: Any) -> Result:
        """Send it, with these arguments put before its own."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result:
        """Send it. Arguments and options are merged into its own.

        Raises as `Task.apply_async` does.
        """
        given = {key: value for key, value in options.items() if value is not None}
        return self.app.launch(self, args or (), kwargs or {}, given)

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result:
        """Run it here and now."""
        return self.app.run_here(self, args or (), kwargs or {}, options)

    def freeze(self, _id: str | None = None, **flow: Any) -> Result:
        """Give it, and all that it is made of, their ids now; returns its result."""
        return self.app.freeze(self, _id, flow)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task like a function, here and now."""
        merged_args, merged_kwargs, _ = self.merged(args, kwargs, {})
        return self.type(*merged_args, **merged_kwargs)

    @property
    def type(self) -> Task:
        """The task itself.

        Raises:
            KeyError: it is not registered in this process.
        """
        found = self.app.find(self.task)
        if found is None:
            raise KeyError(self.task)
        return found

    # -- as a value --------------------------------------------------------------------------------------------------

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """`task(1, b=2)`, with these arguments put before its own."""
        shown = [*(repr(one) for one in (*args, *self.args))]
        shown += [f"{key}={value!r}" for key, value in {**self.kwargs, **kwargs}.items()]
        return f"{self.task}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature:
        return self._copy()

    def __reduce__(self) -> tuple[Callable[..., Signature], tuple[dict[str, Any]]]:
        from .compose import signature  # as above

        return signature, (dict(self),)

    def __json__(self) -> dict[str, Any]:
        return dict(self)


def as_list(value: Any) -> list[Any]:
    """What an option holds that may be nothing, one, or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _append(options: dict[str, Any], key: str, value: Signature) -> Signature:
    several = as_list(options.get(key))
    if value not in several:
        several.append(value)
    options[key] = several
    return value


def is_signature(value: object) -> bool:
    """Whether it is a signature or the JSON form of one."""
    return isinstance(value, Mapping) and isinstance(value.get("task"), str)


def _default_app() -> TaskApp:
    from ..app import default_app  # the app sends signatures, and so imports this

    return default_app()
