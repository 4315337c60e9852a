"""Chains, groups, chords and maps: signatures made of signatures, and the rules by which `|` composes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .signature import Signature, as_list, is_signature

if TYPE_CHECKING:
    from ..app import TaskApp


class _Several(Signature):
    """A signature made of `tasks`."""

    @property
    def tasks(self) -> list[Signature]:
        tasks: list[Signature] = self.kwargs["tasks"]
        return tasks

    def parts(self) -> Iterator[Signature]:
        return iter(self.tasks)

    def _copy(self) -> Signature:
        copy = super()._copy()
        copy.kwargs["tasks"] = [one.clone() for one in self.tasks]
        return copy


class Chain(_Several):
    """Tasks one after the other, each with the return value of the one before as its first argument."""

    def __init__(self, tasks: Iterable[Any], *, app: TaskApp | None = None, **options: Any) -> None:
        members = [signature(one, app=app) for one in tasks]
        super().__init__("celery.chain", (), {"tasks": members}, options, subtask_type="chain", app=app)

    def steps(self) -> list[Signature]:
        """Its tasks as copies: what is linked to the chain is linked to the last, its errbacks to each."""
        steps = [one.clone() for one in self.tasks]
        for callback in as_list(self.options.get("link")) if steps else ():
            steps[-1].link(callback)
        for errback in as_list(self.options.get("link_error")):
            for step in steps:
                step.link_error(errback)
        return steps

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it."""
        return self.apply_async(args, kwargs)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks)) or "chain()"


class Group(_Several):
    """Tasks side by side. Give them one by one, or as one iterable."""

    def __init__(self, *tasks: Any, app: TaskApp | None = None, **options: Any) -> None:
        given: Iterable[Any] = tasks
        if len(tasks) == 1:
            only = tasks[0]
            kind = only.get("subtask_type") if isinstance(only, Mapping) else None
            given = signature(only, app=app).parts() if kind == "group" else [only] if is_signature(only) else only
        members = [signature(one, app=app) for one in given]
        super().__init__("celery.group", (), {"tasks": members}, options, subtask_type="group", app=app)

    def members(self) -> list[Signature]:
        """Copies of its tasks, those of groups inside it in their place; empty chains are left out."""
        found: list[Signature] = []
        for one in self.tasks:
            if isinstance(one, Group | Chunks):
                found += (one.group() if isinstance(one, Chunks) else one).members()
            elif not (isinstance(one, Chain) and not one.tasks):
                found.append(one.clone())
        return found

    def set_immutable(self, immutable: bool) -> None:
        for one in self.tasks:
            one.set_immutable(immutable)

    def link(self, callback: Signature) -> Signature:
        """Link to the first task, without arguments: nobody can hand it the values of all."""
        return self.tasks[0].link(callback.clone().set(immutable=True))

    def link_error(self, errback: Signature) -> Signature:
        for one in self.tasks:
            one.link_error(errback.clone())
        return errback

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(args, None, **options)

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"group({', '.join(map(repr, self.tasks))})"


class Chord(Signature):
    """Tasks side by side, and a body that gets the list of their return values when all have succeeded.

    `chord(header)(body)` sends it.
    """

    def __init__(self, header: Any, body: Any = None, *, app: TaskApp | None = None, **options: Any) -> None:
        kwargs: dict[str, Any] = {
            "kwargs": {},
            "header": Group(header, app=app).tasks,
            "body": None if body is None else signature(body, app=app),
        }
        super().__init__("celery.chord", (), kwargs, options, subtask_type="chord", app=app)

    @property
    def tasks(self) -> list[Signature]:
        """The header."""
        tasks: list[Signature] = self.kwargs["header"]
        return tasks

    @property
    def body(self) -> Signature:
        body: Signature | None = self.kwargs["body"]
        if body is None:
            raise ValueError(f"{self!r} has no body: write chord(header, body) or chord(header)(body)")
        return body

    @body.setter
    def body(self, body: Signature) -> None:
        self.kwargs["body"] = body

    def parts(self) -> Iterator[Signature]:
        yield from self.tasks
        if self.kwargs["body"] is not None:
            yield self.body

    def link(self, callback: Signature) -> Signature:
        return self.body.link(callback)

    def link_error(self, errback: Signature) -> Signature:
        return self.body.link_error(errback)

    def set_immutable(self, immutable: bool) -> None:
        for one in self.tasks:
            one.set_immutable(immutable)

    def _copy(self) -> Signature:
        copy = super()._copy()
        body = self.kwargs["body"]
        copy.kwargs.update(
            kwargs=dict(self.kwargs["kwargs"]),
            header=[one.clone() for one in self.tasks],
            body=None if body is None else body.clone(),
        )
        return copy

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it."""
        whole = self.clone()
        if body is not None:
            whole.kwargs["body"] = signature(body, app=self._app)
        return whole.apply_async(**options)

    def __repr__(self) -> str:
        return f"chord([{', '.join(map(repr, self.tasks))}], {self.kwargs['body']!r})"


class _Each(Signature):
    """A task for each of `it`, one after the other, in one message."""

    _task_name = ""
    _kind = ""

    def __init__(self, task: Any, it: Iterable[Any], *, app: TaskApp | None = None, **options: Any) -> None:
        kwargs = {"task": signature(task, app=app), "it": list(it)}
        super().__init__(self._task_name, (), kwargs, options, subtask_type=self._kind, immutable=True, app=app)

    def parts(self) -> Iterator[Signature]:
        yield self.kwargs["task"]

    def __repr__(self) -> str:
        return f"[{self.kwargs['task'].task}(x) for x in {self.kwargs['it']!r:.100}]"


class Map(_Each):
    """`[task(x) for x in it]` in one message."""

    _task_name = "celery.map"
    _kind = "xmap"


class StarMap(_Each):
    """`[task(*x) for x in it]` in one message."""

    _task_name = "celery.starmap"
    _kind = "xstarmap"


class Chunks(Signature):
    """`task(*x)` for each of `it`, as a group of messages with `n` each."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, *, app: TaskApp | None = None, **options: Any) -> None:
        kwargs = {"task": signature(task, app=app), "it": list(it), "n": n}
        super().__init__("celery.chunks", (), kwargs, options, subtask_type="chunks", immutable=True, app=app)

    def parts(self) -> Iterator[Signature]:
        yield self.kwargs["task"]

    def group(self) -> Group:
        """The messages."""
        task, it, n = self.kwargs["task"], self.kwargs["it"], self.kwargs["n"]
        return Group([StarMap(task, it[at : at + n], app=self._app) for at in range(0, len(it), n)], app=self._app)

    def __call__(self, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(**options)


def signature(value: Any, *args: Any, app: TaskApp | None = None, **options: Any) -> Signature:
    """The signature that `value` is or describes: a signature, its JSON form (Celery's own too), a task or a name.

    Args:
        *args, **options: for a task or a name, as for `Signature`.

    Raises:
        TypeError, ValueError: it is none of these, its `subtask_type` is not known, or it is nested too deeply.
    """
    if isinstance(value, Signature):
        if app is not None and value._app is None:
            value._app = app
        return value
    if not isinstance(value, Mapping):
        if isinstance(value, str) or hasattr(value, "apply_async"):
            return Signature(value, *args, app=app, **options)
        raise TypeError(f"expected a signature, a task or the name of one, got {value!r:.100}")
    if not isinstance(value.get("task"), str):
        raise TypeError(f"a signature's JSON form has a text field 'task', got {value!r:.100}")
    return _from_json(value, app)


def maybe_signature(value: Any, app: TaskApp | None = None, clone: bool = False) -> Signature | None:
    """`signature`, but None stays None."""
    if value is None:
        return None
    found = signature(value, app=app)
    return found.clone() if clone else found


def _from_json(value: Mapping[str, Any], app: TaskApp | None) -> Signature:
    try:
        return _made_from(value, app)
    except KeyError as error:
        raise ValueError(f"a signature of the type {value.get('subtask_type')!r} has no {error.args[0]!r}") from error
    except (AttributeError, RecursionError) as error:
        raise ValueError(f"this is no signature of the type {value.get('subtask_type')!r}: {error}") from error


def _made_from(value: Mapping[str, Any], app: TaskApp | None) -> Signature:
    kwargs, options = dict(value.get("kwargs") or {}), dict(value.get("options") or {})
    made: Signature
    match value.get("subtask_type"):
        case "chain":
            made = Chain(kwargs["tasks"], app=app)
        case "group":
            made = Group(list(kwargs["tasks"]), app=app)
        case "chord":
            header = kwargs["header"]  # Celery writes a list, or the JSON form of a group
            made = Chord(header if isinstance(header, Mapping) else list(header), kwargs.get("body"), app=app)
            made.kwargs["kwargs"].update(kwargs.get("kwargs") or {})
        case "xmap":
            made = Map(kwargs["task"], kwargs["it"], app=app)
        case "xstarmap":
            made = StarMap(kwargs["task"], kwargs["it"], app=app)
        case "chunks":
            made = Chunks(kwargs["task"], kwargs["it"], kwargs["n"], app=app)
        case None:
            return Signature(value, app=app)
        case kind:
            raise ValueError(f"a signature of the type {kind!r} is not known")
    made.update(args=tuple(value.get("args") or ()), options=options, immutable=bool(value.get("immutable")))
    return made


class chain(Chain):
    """Tasks one after the other: `chain(a.s(1), b.s())`, or one iterable of them.

    A group followed by a task is a chord, so what comes of it is not always a `Chain`, and never one of this class: it
    is a class only because projects ask `isinstance(found, (chain, group, chord))`.
    """

    def __new__(  # type: ignore[misc]
        cls, *tasks: Any, app: TaskApp | None = None, **options: Any
    ) -> Signature:
        only = tasks[0] if len(tasks) == 1 else None
        several = tasks if only is None or is_signature(only) else only
        steps: list[Signature] = []
        for one in several:
            add_step(steps, signature(one, app=app).clone())
        alone = len(steps) == 1 and isinstance(steps[0], Chord | Group)
        made = steps[0] if alone else Chain(steps, app=app)
        return made.set(**options)


def pipe(left: Signature, right: Signature) -> Signature:
    """`left | right`, by Celery's rules; neither is changed."""
    steps = left.steps() if isinstance(left, Chain) else [left.clone()]
    add_step(steps, right)
    if len(steps) == 1:
        return steps[0]
    return Chain(steps, app=left._app or right._app)


def add_step(steps: list[Signature], step: Signature) -> None:
    """Add a step to those of a chain, by the rules of `|`."""
    if isinstance(step, Chain):
        for one in step.steps():
            add_step(steps, one)
        return
    if isinstance(step, Group) and len(step.tasks) == 1:
        add_step(steps, step.tasks[0])  # a group of one is that one
        return
    if isinstance(step, Group) and not step.tasks and steps:
        return
    last = steps[-1] if steps else None
    if isinstance(last, Group):
        steps[-1] = Chord(last, step.clone(), app=last._app)
    elif isinstance(last, Chord) and not isinstance(step, Chord):
        last.body = pipe(last.body, step)
    else:
        steps.append(step.clone())
